"""Does the training function reach the accuracy of the submitted model?

docs/grader.md says what this proves and what it cannot.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from course.files import UserError, temporary_folder
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text
from grader.model import Metadata
from grader.process import run
from grader.report import say, show_phases
from grader.staging import Submission

Score = tuple[int, int]  # right answers, of how many

# How much worse a second training may be for its own randomness (seed, order of the photos,
# threads). A choice: it is the least distance between two marks.
TOLERANCE = 0.02
Z_ONE_SIDED = 1.644854  # 95 % of a normal distribution lie below


class RunFailed(Exception):
    """A run that the comparison needs gave nothing to compare."""


def allowed_drop(submitted: Score, retrained: Score) -> float:
    """Return the drop that chance explains on different photos: the variances add up."""
    variance = sum(k / n * (1 - k / n) / n for k, n in (submitted, retrained))
    return TOLERANCE + Z_ONE_SIDED * math.sqrt(variance)


def allowed_drop_paired(submitted: Sequence[bool], retrained: Sequence[bool]) -> float:
    """Return it on the same photos: only those that one model gets right count (McNemar 1947)."""
    from scipy.stats import sem

    differences = [int(a) - int(b) for a, b in zip(submitted, retrained, strict=True)]
    return TOLERANCE + Z_ONE_SIDED * float(sem(differences, ddof=0))


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
    trained = metadata.trained_photos(test)
    photos = {n: i for n, i in truth.items() if trained is not None and n not in trained}
    if trained and not photos and not metadata.validation:
        raise UserError(
            "the submitted model was trained on the test photos too, and stores no validation "
            "accuracy: there is nothing to compare a second training with"
        )
    try:
        answers = _answers_of_retrained(submission, test)
        if not photos and metadata.validation:
            was = "may have been" if trained is None else "was"
            say(
                f"   compared on different photos: the submitted model {was} trained on these "
                f"{len(truth)} too, so the validation accuracy that it stores stands for it"
            )
            score = _score(_right(answers, truth))
            return _judge(metadata.validation, score, allowed_drop(metadata.validation, score))
        whose = "neither model was trained on"
        if not photos:
            photos, whose = truth, "the submitted model may have been trained on: it has no record"
        first, second = _right(_answers(submission, test), photos), _right(answers, photos)
    except RunFailed as failure:
        say(f"   NOT reproduced: {failure}")
        return False
    say(f"   compared on {len(photos)} photos that {whose}")
    return _judge(_score(first), _score(second), allowed_drop_paired(first, second))


def _judge(submitted: Score, retrained: Score, allowed: float) -> bool:
    """Say whether the retrained model loses no more than is allowed."""
    (a, n), (b, m) = submitted, retrained
    lost = a / n - b / m
    say(
        f"   submitted model {accuracy_text(a, n)} ({a} of {n}), "
        f"retrained model {accuracy_text(b, m)} ({b} of {m})"
    )
    say(
        f"   {'reproduced' if lost <= allowed else 'NOT reproduced'}: {lost:+.4f} lost, allowed "
        f"{allowed:.4f} ({TOLERANCE} for the randomness of training, the rest for that of the "
        "photos)"
    )
    return lost <= allowed


def _answers_of_retrained(submission: Submission, test: TestFolder) -> dict[str, int]:
    """Train anew, and return what that model answers. Raises RunFailed."""
    with temporary_folder("grader-model-") as folder:
        training = run("train", submission, test.input, folder)
        show_phases(training)
        if training.problem:
            raise RunFailed(str(training.problem))
        return _answers(replace(submission, model=folder / "birds_model.pt"), test)


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


def _score(right: Sequence[bool]) -> Score:
    return sum(right), len(right)
