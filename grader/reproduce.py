"""Does the training function reach the accuracy of the submitted model?

docs/grader.md says what this proves and what it cannot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from course.files import UserError, temporary_folder
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_error, accuracy_text, paired_error
from grader.model import trained_photos, validation_of
from grader.outcome import Outcome
from grader.process import run
from grader.staging import Submission

# How much worse a second training may be for its own randomness (seed, order of the photos,
# threads). A choice: it is the least distance between two marks.
TOLERANCE = 0.02
Z_ONE_SIDED = 1.644854  # 95 % of a normal distribution lie below


class RunFailed(Exception):
    """A run that the comparison needs gave nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    """Two accuracies, and the standard error of their difference."""

    submitted: tuple[int, int]
    retrained: tuple[int, int]
    standard_error: float
    basis: str

    @property
    def drop(self) -> float:
        """How much worse the retrained model is."""
        (a, n), (b, m) = self.submitted, self.retrained
        return a / n - b / m

    @property
    def allowed(self) -> float:
        """The drop that chance explains: between trainings, and in the choice of the photos."""
        return TOLERANCE + Z_ONE_SIDED * self.standard_error

    @property
    def reproduced(self) -> bool:
        """Whether the training function reaches the submitted model's accuracy."""
        return self.drop <= self.allowed

    def lines(self) -> list[str]:
        """Return the finding, for people."""
        verdict = "reproduced" if self.reproduced else "NOT reproduced"
        models = (("submitted", *self.submitted), ("retrained", *self.retrained))
        texts = [f"{which} model {accuracy_text(k, n)} ({k} of {n})" for which, k, n in models]
        return [
            f"compared on {self.basis}",
            ", ".join(texts),
            f"{verdict}: {self.drop:+.4f} lost, allowed {self.allowed:.4f} "
            f"({TOLERANCE} for the randomness of training, the rest for that of the photos)",
        ]


def paired(submitted: Sequence[bool], retrained: Sequence[bool], basis: str) -> Comparison:
    """Compare on the same photos: only those that one model gets right count (McNemar 1947)."""
    error = paired_error([int(a) - int(b) for a, b in zip(submitted, retrained, strict=True)])
    n = len(submitted)
    return Comparison((sum(submitted), n), (sum(retrained), n), error, basis)


def unpaired(submitted: tuple[int, int], retrained: tuple[int, int], basis: str) -> Comparison:
    """Compare on different photos: the two proportions' variances add up."""
    error = accuracy_error(*((k / n, n) for k, n in (submitted, retrained)))
    return Comparison(submitted, retrained, error, basis)


def find_test(tests: Sequence[TestFolder]) -> TestFolder:
    """Return the first test with photos of its own to test on. Raises UserError if none has."""
    for test in tests:
        train, truth = _labels(test)
        if truth and not train.keys() & truth.keys():
            return test
    raise UserError(
        "--reproduce needs a test whose photos are not among its training photos: make one with "
        "`python public_data/prepare.py SOURCE --holdout 0.2`"
    )


def _labels(test: TestFolder) -> tuple[dict[str, int], dict[str, int]]:
    try:
        return read_csv(test.input / "train" / "gt.csv"), read_csv(test.gt / "gt.csv")
    except CheckerError as error:
        raise UserError(f"{error}: make the tests anew") from None


def reproduce(
    submission: Submission,
    tests: Sequence[TestFolder],
    metadata: Mapping[str, Any] | None,
    report: Callable[[Outcome], None],
) -> Comparison:
    """Retrain, report the run, and compare with the submitted model. Raises RunFailed."""
    test = find_test(tests)
    # The caches stay visible: whoever retrains has pretrained weights to begin with.
    training = run("train", submission, test.input, keep_caches=True)
    report(training)
    with temporary_folder("grader-model-") as folder:
        model = folder / "birds_model.pt"
        model.write_bytes(_output(training))
        retrained = _answers(replace(submission, model=model), test)
    truth, trained = _labels(test)[1], trained_photos(metadata, test)
    unseen = {n: i for n, i in truth.items() if trained is not None and n not in trained}
    if not unseen and (validation := validation_of(metadata)):
        was = "may have been" if trained is None else "was"
        basis = (
            f"different photos: the submitted model {was} trained on these {len(truth)} too, so "
            "the validation accuracy that it stores stands for it"
        )
        return unpaired(validation, (sum(_right(retrained, truth)), len(truth)), basis)
    if not unseen and trained:
        raise UserError(
            "the submitted model was trained on the test photos too, and stores no validation "
            "accuracy: there is nothing to compare a second training with"
        )
    whose = "neither model was trained on"
    if not unseen:
        whose = "the submitted model may have been trained on: it keeps no record"
    photos = unseen or truth
    submitted = _right(_answers(submission, test), photos)
    return paired(submitted, _right(retrained, photos), f"{len(photos)} photos that {whose}")


def _output(outcome: Outcome) -> bytes:
    if outcome.problem or outcome.output is None:
        raise RunFailed(str(outcome.problem))
    return outcome.output


def _answers(submission: Submission, test: TestFolder) -> dict[str, int]:
    """Return the class ids that classify gives, by file name. Raises RunFailed."""
    with temporary_folder("grader-answer-") as folder:
        file = folder / "output.csv"
        file.write_bytes(_output(run("classify", submission, test.input)))
        try:
            return read_csv(file)
        except CheckerError as error:
            raise RunFailed(str(error)) from None


def _right(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[bool]:
    return [answer.get(name) == class_id for name, class_id in truth.items()]
