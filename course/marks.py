"""From an accuracy to a mark, and how sure an accuracy is.

SciPy is imported where it is needed: the course's script, which submissions may import, needs none.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

# The lowest accuracy for each mark from 1 to 10. Change it only when the course changes it. An
# accuracy is compared after rounding to four digits, as printed.
THRESHOLDS = (0.40, 0.50, 0.60, 0.65, 0.70, 0.75, 0.80, 0.83, 0.86, 0.88)


def accuracy_text(correct: int, total: int) -> str:
    """Return the accuracy as the course writes it, four digits: 0.87996 becomes 0.8800."""
    return f"{correct / total:.4f}"


def mark_of(accuracy: str) -> int:
    """Return the mark, 0 to 10, for an accuracy in the course's four-digit text."""
    return bisect.bisect_right(THRESHOLDS, float(accuracy))


def grade_results(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the grade for the list in results.json: its last test's, 0 unless that is Ok."""
    status = str(results[-1].get("status", "")) if results else ""
    if not status.startswith("Ok"):
        return {"description": "", "mark": 0}
    accuracy = status.split()[-1]
    return {"description": accuracy, "mark": mark_of(accuracy)}


# ---- How sure an accuracy is ---------------------------------------------------------------------


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy (Wilson 1927, the score interval)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mark_probabilities(correct: int, total: int, photos: int) -> dict[int, float]:
    """Return the probability of each mark on `photos` hidden photos, from a validation result.

    The right answers are beta-binomial, from Jeffreys' prior of the accuracy, if the hidden photos
    are drawn like the validation photos.
    """
    from scipy.stats import betabinom

    chances = betabinom.pmf(range(photos + 1), photos, correct + 0.5, total - correct + 0.5)
    probabilities = dict.fromkeys(range(len(THRESHOLDS) + 1), 0.0)
    for right, chance in enumerate(chances.tolist()):
        probabilities[mark_of(accuracy_text(right, photos))] += chance
    return probabilities


def expectation_lines(correct: int, total: int, photos: int) -> list[str]:
    """Return the stored validation accuracy, and the mark to expect on so many hidden photos."""
    low, high = wilson_interval(correct, total)
    chances = mark_probabilities(correct, total, photos)
    (mark, chance), *others = sorted(chances.items(), key=lambda item: -item[1])
    rest = ", ".join(f"{m} ({p:.2f})" for m, p in others[:3] if p >= 0.01)
    return [
        f"validation accuracy stored in the model: {accuracy_text(correct, total)} "
        f"(95 % interval {low:.4f} to {high:.4f}, {correct} of {total})",
        f"mark to expect on {photos} hidden photos: {mark}, probability {chance:.2f}"
        + (f"; else {rest}" if rest else ""),
    ]
