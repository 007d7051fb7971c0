"""Does the training function reach the accuracy of the submitted model?

docs/grader.md says what this proves and what it cannot.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from course.files import UserError
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text
from grader.model import Seen, find_seen, validation_of
from grader.process import Outcome
from grader.session import Submission

# How much worse a second training may be for its own randomness (seed, order of the photos,
# threads). A choice: it is the least distance between two marks.
TOLERANCE = 0.02
Z_ONE_SIDED = 1.644854  # 95 % of a normal distribution lie below


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
        """The finding, for people."""
        verdict = "reproduced" if self.reproduced else "NOT reproduced"
        return [
            f"compared on {self.basis}",
            f"submitted model {accuracy_text(*self.submitted)} ({_of(self.submitted)}), "
            f"retrained model {accuracy_text(*self.retrained)} ({_of(self.retrained)})",
            f"{verdict}: {self.drop:+.4f} lost, allowed {self.allowed:.4f} "
            f"({TOLERANCE} for the randomness of training, the rest for that of the photos)",
        ]


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]} of {counts[1]}"


def paired(submitted: Sequence[bool], retrained: Sequence[bool], basis: str) -> Comparison:
    """Compare on the same photos: only those that one model gets right count (McNemar 1947)."""
    n = len(submitted)
    only_first = sum(a and not b for a, b in zip(submitted, retrained, strict=True))
    only_second = sum(b and not a for a, b in zip(submitted, retrained, strict=True))
    spread = only_first + only_second - (only_first - only_second) ** 2 / n
    error = math.sqrt(max(0.0, spread)) / n
    return Comparison((sum(submitted), n), (sum(retrained), n), error, basis)


def unpaired(submitted: tuple[int, int], retrained: tuple[int, int], basis: str) -> Comparison:
    """Compare on different photos: the two proportions' variances add up."""
    variance = sum((k / n) * (1 - k / n) / n for k, n in (submitted, retrained))
    return Comparison(submitted, retrained, math.sqrt(variance), basis)


def find_test(tests: Sequence[TestFolder]) -> TestFolder:
    """The first test whose photos are not among its training photos; a UserError if none."""
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
    submission: Submission, tests: Sequence[TestFolder], facts: Mapping[str, Any] | None
) -> tuple[Comparison | None, list[Outcome]]:
    """Retrain, and compare with the submitted model; None if a run failed (the last Outcome).

    Args:
        submission: what is graded.
        tests: one of them must have photos of its own to test on.
        facts: what the submitted model says about its training (None: nothing).
    """
    test = find_test(tests)
    train_gt, truth = _labels(test)
    images = str((test.input / "test" / "images").resolve())
    with tempfile.TemporaryDirectory(prefix="grader-model-") as name:
        file = Path(name).resolve() / "birds_model.pt"
        # The caches stay visible: whoever retrains has pretrained weights to begin with.
        train_images = str((test.input / "train" / "images").resolve())
        job = {"train_gt": train_gt, "train_images": train_images, "save_to": str(file)}
        outcomes = [submission.run("train", keep_caches=True, **job)]
        if outcomes[-1].problem:
            return None, outcomes
        outcomes.append(replace(submission, model=file).run("classify", test_images=images))
    retrained = outcomes[-1]
    if retrained.problem:
        return None, outcomes
    return _compare(submission, tests, facts, truth, images, outcomes)


def _compare(
    submission: Submission,
    tests: Sequence[TestFolder],
    facts: Mapping[str, Any] | None,
    truth: Mapping[str, int],
    images: str,
    outcomes: list[Outcome],
) -> tuple[Comparison | None, list[Outcome]]:
    retrained, seen = outcomes[-1], find_seen(facts, tests)
    kept = {name: i for name, i in truth.items() if seen and name not in seen.labels}
    validation = validation_of(facts)
    if not kept and validation:
        return unpaired(validation, _counts(retrained, truth), _stored_basis(seen, truth)), outcomes
    if seen and not kept:
        raise UserError(
            "the submitted model was trained on the test photos too, and stores no validation "
            "accuracy: there is nothing to compare a second training with"
        )
    outcomes.append(submission.run("classify", test_images=images))
    if outcomes[-1].problem:
        return None, outcomes
    kept, known = kept or dict(truth), bool(kept)
    right = [_right(outcome, kept) for outcome in (outcomes[-1], retrained)]
    return paired(*right, basis=_paired_basis(known, len(kept))), outcomes


def _stored_basis(seen: Seen | None, truth: Mapping[str, int]) -> str:
    was = "was trained" if seen else "may have been trained"
    return (
        f"different photos: the submitted model {was} on these {len(truth)} too, so the "
        "validation accuracy that it stores stands for it"
    )


def _paired_basis(known: bool, photos: int) -> str:
    if known:
        return f"{photos} photos that neither model was trained on"
    return f"{photos} photos that the submitted model may have been trained on: it keeps no record"


def _counts(outcome: Outcome, truth: Mapping[str, int]) -> tuple[int, int]:
    return sum(_right(outcome, truth)), len(truth)


def _right(outcome: Outcome, truth: Mapping[str, int]) -> list[bool]:
    answer = outcome.answer or {}
    return [answer.get(name) == class_id for name, class_id in truth.items()]
