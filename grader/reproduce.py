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


def allowed_drop(submitted: Score, retrained: Score) -> float:
    """Return the drop of the accuracy that chance explains: the variances of both add up."""
    variance = sum(k / n * (1 - k / n) / n for k, n in (submitted, retrained))
    return TOLERANCE + Z_ONE_SIDED * math.sqrt(variance)


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
    submission: Submission, metadata: Metadata, test: TestFolder, truth: Mapping[str, int]
) -> bool:
    """Retrain, compare, and say what was found; returns whether the accuracy is reached.

    Both models classify the photos that neither was trained on. If there are none, or the model
    does not say which it was trained on, its stored validation accuracy stands for it.
    """
    say("Reproduction: training anew with fast_train=False")
    trained, validation = metadata.trained_photos(test), metadata.validation
    unseen = {} if trained is None else {n: i for n, i in truth.items() if n not in trained}
    if not unseen and not validation:
        raise UserError(
            "the submitted model may have been trained on the test photos too, and stores no "
            "validation accuracy: there is nothing to compare a second training with"
        )
    with temporary_folder("grader-model-") as folder:
        training = run("train", submission, test.input, folder)
        show_phases(training)
        again = replace(submission, model=folder / "birds_model.pt")
        try:
            if training.problem:
                raise CheckerError(str(training.problem))
            retrained = _score(again, test, unseen or truth)
            stored = None if unseen else validation
            submitted = stored or _score(submission, test, unseen)
        except CheckerError as failure:
            say(f"   NOT reproduced: {failure}")
            return False
    (a, n), (b, m) = submitted, retrained
    if unseen:
        say(f"   compared on {m} photos that neither model was trained on")
    else:
        was = "may have been" if trained is None else "was"
        say(
            f"   compared on different photos: the submitted model {was} trained on these {m} too, "
            "so the validation accuracy that it stores stands for it"
        )
    lost, allowed = a / n - b / m, allowed_drop(submitted, retrained)
    say(
        f"   submitted model {accuracy_text(a, n)} ({a} of {n}), "
        f"retrained model {accuracy_text(b, m)} ({b} of {m})\n"
        f"   {'reproduced' if lost <= allowed else 'NOT reproduced'}: {lost:+.4f} lost, allowed "
        f"{allowed:.4f} ({TOLERANCE} for the randomness of training, the rest for that of the "
        "photos)"
    )
    return lost <= allowed


def _score(submission: Submission, test: TestFolder, photos: Mapping[str, int]) -> Score:
    """Return how many of these photos classify gets right. Raises CheckerError."""
    with temporary_folder("grader-answer-") as folder:
        outcome = run("classify", submission, test.input, folder)
        if outcome.problem:
            raise CheckerError(str(outcome.problem))
        answers = read_csv(folder / "output.csv")
    return sum(answers.get(name) == class_id for name, class_id in photos.items()), len(photos)
