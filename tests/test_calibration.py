"""Calibration: the temperature, and thresholds that hold on the photos they were chosen on."""

import pytest
import torch

import solution
from reporting import calibration


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def validation(view_logits, labels):
    """A validation whose photos have these logits (N, views, classes)."""
    empty = torch.zeros(1, 1)
    predictions = [
        solution.Prediction(solution.average_logits(rows, 0.25), rows, empty, (0, 0, 1, 1))
        for rows in view_logits
    ]
    names = [f"{i}.jpg" for i in range(len(labels))]
    return solution.Validation(names, torch.as_tensor(labels), predictions)


def test_temperature_makes_confidence_agree_with_accuracy(generator):
    truth = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    for factor in (3, 0.5):
        assert calibration.fit_temperature(factor * truth, labels) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "only_first", "early_exit"), [(49, 20, 0.95), (None, 20, 0.9), (99, None, 1.0)]
)
def test_early_exit_lies_above_all_thresholds_that_cost_accuracy(wrong, only_first, early_exit):
    """The first view is ever surer of 100 photos, up to 0.9995, and wrong about one of them.

    All views together are right, but about one that makes up for it, at lower thresholds.
    """
    probability = torch.linspace(0.9005, 0.9995, 100)
    first = torch.stack([probability, 1 - probability], 1)  # (N, classes)
    last = torch.tensor([1.0, 0.0]).repeat(100, 1)
    for views, photo in ((first, wrong), (last, only_first)):
        if photo is not None:
            views[photo] = views[photo].flip(0)
    labels = torch.zeros(100, dtype=torch.long)
    assert calibration.choose_early_exit(torch.stack([first, last]), labels) == early_exit


def test_metadata_is_what_classify_achieves_with_it(generator):
    labels = torch.arange(400) % 4
    view_logits = torch.randn(400, 4, 4, generator=generator)
    clear = torch.tensor([0.5, 0.5, 0.5, 0.5, 6.0]).repeat(80)[:, None]  # a fifth of the photos is
    view_logits[torch.arange(400), :, labels] += clear
    found = calibration.calibrate(validation(view_logits, labels), 0.25)
    confidences, correct, views = [], 0, 0
    for rows, label in zip(view_logits, labels, strict=True):
        for count in range(1, 5):
            logits = solution.average_logits(rows[:count], 0.25)
            best = (logits / found["temperature"]).softmax(0).max()
            if best > found["early_exit"]:
                break
        confidences.append(best)
        correct, views = correct + int(logits.argmax() == label), views + count
    assert found["validation"] == {
        "correct": correct,
        "total": 400,
        "accuracy": correct / 400,
        "mean_views": views / 400,
    }
    assert 1 < views / 400 < 4
    threshold = torch.tensor(confidences).quantile(0.05).item()
    assert found["confidence_threshold"] == pytest.approx(threshold, abs=1e-6)
    whole = torch.stack([solution.average_logits(rows, 0.25) for rows in view_logits])
    assert correct >= (whole.argmax(1) == labels).sum() - 0.4
