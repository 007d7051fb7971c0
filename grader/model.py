"""What birds_model.pt says about itself, held against the tests it was graded with.

The facts were read in the submission's process (grader/child.py); here they are plain values.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from course.layout import CheckerError, TestFolder, labels_fingerprint, read_csv
from course.marks import accuracy_text, mark_probabilities, wilson_interval

KNOWN_ANSWER_TOLERANCE = 1e-3  # of a logit: another processor or torch rounds differently


@dataclass(frozen=True)
class Seen:
    """The labelled photos that a model was trained on, found among those of the tests."""

    what: str
    labels: Mapping[str, int]

    def count(self, photos: Mapping[str, int]) -> int:
        """How many of these photos the model was trained on."""
        return len(photos.keys() & self.labels.keys())


def label_sets(tests: Sequence[TestFolder]) -> dict[str, dict[str, int]]:
    """All readable labels of the tests, by what they are, as in "training photos of test 00"."""
    found = {}
    for test in tests:
        with suppress(CheckerError):
            found[f"training photos of test {test.number}"] = read_csv(test.input / "train/gt.csv")
        with suppress(CheckerError):
            found[f"test photos of test {test.number}"] = read_csv(test.gt / "gt.csv")
    # The model to upload learns from all photos, a part of which --holdout makes a test of.
    together = {name: class_id for labels in found.values() for name, class_id in labels.items()}
    return found | {"photos of all these tests": together}


def training_of(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The checkpoint's record of its training; {} if it holds none."""
    training = (facts or {}).get("training")
    return training if isinstance(training, dict) else {}


def find_seen(facts: Mapping[str, Any] | None, tests: Sequence[TestFolder]) -> Seen | None:
    """Which of the tests' photos the model was trained on, by the fingerprint of their labels."""
    fingerprint = training_of(facts).get("labels_sha256")
    for what, labels in label_sets(tests).items():
        if labels_fingerprint(labels) == fingerprint:
            return Seen(what, labels)
    return None


def is_demonstration(facts: Mapping[str, Any] | None, tests: Sequence[TestFolder]) -> bool:
    """Whether the model says that it was trained on other photos than those at hand."""
    return bool(training_of(facts).get("labels_sha256")) and find_seen(facts, tests) is None


def mismatch(
    facts: Mapping[str, Any], truth: Mapping[str, int], correct: int, trained_on: bool
) -> str:
    """Why the stored validation accuracy cannot hold on these photos; "" if it may.

    Args:
        facts: what the model says about itself.
        truth: the true class ids of the photos.
        correct: how many of them it answered right.
        trained_on: whether it was trained on some of them, or may have been.
    """
    known, asked = facts.get("class_ids"), set(truth.values())
    unknown = sorted(asked - set(known)) if isinstance(known, list) else []
    if unknown:
        return (
            f"the model knows other species than the test asks for: {len(unknown)} of "
            f"{len(asked)} class ids are strange to it, such as {unknown[0]}"
        )
    validation = validation_of(facts)
    if validation is None or not trained_on:
        return ""
    high, low = wilson_interval(correct, len(truth))[1], wilson_interval(*validation)[0]
    if high >= low:
        return ""
    return (
        f"accuracy {accuracy_text(correct, len(truth))} here, {accuracy_text(*validation)} in its "
        "validation: the same class ids seem to mean other species, or the photos differ in kind"
    )


def validation_of(facts: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Right answers and photos of the stored validation; None if there is none to be used."""
    validation = (facts or {}).get("validation")
    with suppress(TypeError, KeyError, ValueError):
        correct, total = int(validation["correct"]), int(validation["total"])
        return (correct, total) if 0 <= correct <= total and total else None
    return None


def known_answer_line(facts: Mapping[str, Any]) -> str:
    """Whether the network computes here what it computed where it was made."""
    error = facts.get("known_answer_error")
    if error is None:
        return "known answer: not checked, solution.py has no known_answer_error"
    right = error <= KNOWN_ANSWER_TOLERANCE
    verdict = "right on this machine" if right else "WRONG on this machine"
    return (
        f"known answer: {verdict} "
        f"(largest difference {error:.1e}, allowed {KNOWN_ANSWER_TOLERANCE:.0e})"
    )


def expectation_lines(correct: int, total: int, photos: int) -> list[str]:
    """The stored validation accuracy, and the mark to expect on so many hidden photos."""
    low, high = wilson_interval(correct, total)
    chances = mark_probabilities(correct, total, photos)
    ranked = sorted(chances.items(), key=lambda item: -item[1])
    mark, chance = ranked[0]
    others = ", ".join(f"{m} ({p:.2f})" for m, p in ranked[1:4] if p >= 0.01)
    return [
        f"validation accuracy stored in the model: {accuracy_text(correct, total)} "
        f"(95 % interval {low:.4f} to {high:.4f}, {correct} of {total})",
        f"mark to expect on {photos} hidden photos: {mark}, probability {chance:.2f}"
        + (f"; else {others}" if others else ""),
    ]
