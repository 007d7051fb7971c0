"""Accuracy to mark, and what a validation accuracy says about the mark to come."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The mark for an accuracy of at least so much; below the last line it is 0. Change it only when
# the course changes it. An accuracy is compared after rounding to four digits, as printed.
MARKS = (
    (0.88, 10),
    (0.86, 9),
    (0.83, 8),
    (0.80, 7),
    (0.75, 6),
    (0.70, 5),
    (0.65, 4),
    (0.60, 3),
    (0.50, 2),
    (0.40, 1),
)

Z_95 = 1.959964  # the normal distribution holds 95 % within so many standard deviations


def accuracy_text(correct: int, total: int) -> str:
    """The accuracy as the testing system writes it, four digits: 0.87996 becomes 0.8800."""
    return f"{correct / total:.4f}"


def mark_of(accuracy: str) -> int:
    """The mark (0 to 10) for an accuracy in the testing system's four-digit text."""
    value = float(accuracy)
    return next((mark for threshold, mark in MARKS if value >= threshold), 0)


def grade_results(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The grade for the list in results.json: that of its last test, 0 unless that one is Ok."""
    status = str(results[-1].get("status", "")) if results else ""
    if not status.startswith("Ok"):
        return {"description": "", "mark": 0}
    accuracy = status.split()[-1]
    return {"description": accuracy, "mark": mark_of(accuracy)}


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of an accuracy (Wilson 1927: score interval of a proportion)."""
    share, z2 = correct / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = Z_95 * spread / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def mark_probabilities(correct: int, total: int, photos: int) -> dict[int, float]:
    """Probability of each mark on `photos` hidden photos, from a validation result.

    The unknown accuracy gets the Beta(correct + 1/2, wrong + 1/2) posterior (Jeffreys' prior), so
    the number of right answers among the hidden photos is beta-binomial. That holds if the hidden
    photos are drawn like the validation photos.
    """
    a, b = correct + 0.5, total - correct + 0.5
    probabilities = {mark: 0.0 for _, mark in MARKS} | {0: 0.0}
    for right in range(photos + 1):
        log_p = _log_choose(photos, right) + _log_beta(right + a, photos - right + b)
        probabilities[mark_of(accuracy_text(right, photos))] += math.exp(log_p - _log_beta(a, b))
    return probabilities


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
