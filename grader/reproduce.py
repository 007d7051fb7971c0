"""Does the training function reach the accuracy of the submitted model?

docs/grader.md says what this proves and what it cannot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from course.files import UserError, temporary_folder
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_error, accuracy_text, paired_error
from grader.model import Metadata
from grader.process import run
from grader.report import say, show_phases
from grader.staging import Submission

# How much worse a second training may be for its own randomness (seed, order of the photos,
# threads). A choice: it is the least distance between two marks.
TOLERANCE = 0.02
Z_ONE_SIDED = 1.644854  # 95 % of a normal distribution lie below


class RunFailed(Exception):
    """A run that the comparison needs gave nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    """Two models' right answers and photos, and the standard error of the difference."""

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
        (a, n), (b, m) = self.submitted, self.retrained
        return [
            f"compared on {self.basis}",
            f"submitted model {accuracy_text(a, n)} ({a} of {n}), "
            f"retrained model {accuracy_text(b, m)} ({b} of {m})",
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


def find_test(tests: Sequence[TestFolder]) -> tuple[TestFolder, dict[str, int]]:
    """Return the first test with photos of its own to test on, and their true labels.

    Raises UserError if none has.
    """
    for test in tests:
        try:
            train = read_csv(test.input / "train" / "gt.csv")
            truth = read_csv(test.gt / "gt.csv")
        except CheckerError as error:
            raise UserError(f"{error}: make the tests anew") from None
        if truth and not train.keys() & truth.keys():
            return test, truth
    raise UserError(
        "--reproduce needs a test whose photos are not among its training photos: make one with "
        "`python public_data/prepare.py SOURCE --holdout 0.2`"
    )


def reproduce(
    submission: Submission, metadata: Metadata, test: TestFolder, truth: dict[str, int]
) -> bool:
    """Retrain, compare, and say what was found; returns whether the accuracy is reached."""
    say("Reproduction: training anew with fast_train=False")
    try:
        comparison = _retrain_and_compare(submission, metadata, test, truth)
    except RunFailed as failure:
        say(f"   NOT reproduced: {failure}")
        return False
    for line in comparison.lines():
        say(f"   {line}")
    return comparison.reproduced


def _retrain_and_compare(
    submission: Submission, metadata: Metadata, test: TestFolder, truth: dict[str, int]
) -> Comparison:
    trained = metadata.trained_photos(test)
    photos = {n: i for n, i in truth.items() if trained is not None and n not in trained}
    if trained and not photos and not metadata.validation:
        raise UserError(
            "the submitted model was trained on the test photos too, and stores no validation "
            "accuracy: there is nothing to compare a second training with"
        )
    with temporary_folder("grader-model-") as folder:
        # The caches stay visible: whoever retrains has pretrained weights to begin with.
        training = run("train", submission, test.input, folder, keep_caches=True)
        show_phases(training)
        if training.problem:
            raise RunFailed(str(training.problem))
        retrained = _answers(replace(submission, model=folder / "birds_model.pt"), test)
    if not photos and metadata.validation:
        was = "may have been" if trained is None else "was"
        basis = (
            f"different photos: the submitted model {was} trained on these {len(truth)} too, so "
            "the validation accuracy that it stores stands for it"
        )
        right = sum(_right(retrained, truth))
        return unpaired(metadata.validation, (right, len(truth)), basis)
    whose = "neither model was trained on"
    if not photos:
        photos, whose = truth, "the submitted model may have been trained on: it keeps no record"
    submitted = _right(_answers(submission, test), photos)
    return paired(submitted, _right(retrained, photos), f"{len(photos)} photos that {whose}")


def _answers(submission: Submission, test: TestFolder) -> dict[str, int]:
    """Return the class ids that classify gives, by file name. Raises RunFailed."""
    with temporary_folder("grader-answer-") as folder:
        outcome = run("classify", submission, test.input, folder)
        if outcome.problem:
            raise RunFailed(str(outcome.problem))
        try:
            return read_csv(folder / "output.csv")
        except CheckerError as error:
            raise RunFailed(str(error)) from None


def _right(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[bool]:
    return [answer.get(name) == class_id for name, class_id in truth.items()]
