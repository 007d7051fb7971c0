"""Calibrate a network on its validation photos: probabilities, and how many views they need."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from solution import Validation, average_logits

# Thresholds that `early_exit` is chosen from, falling. It costs at most this share of accuracy.
THRESHOLDS = np.round(np.arange(0.999, 0.8995, -0.001), 3).tolist()
TOLERATED_LOSS = 0.001
UNCERTAIN_SHARE = 0.05  # of the validation photos lies below `confidence_threshold`


def calibrate(validation: Validation, whole_share: float) -> dict[str, Any]:
    """Return what validation photos tell of a network with such settings, for its `metadata`.

    `validation` in it is what `classify` achieves with the thresholds chosen.
    """
    labels, total = validation.labels, len(validation.labels)
    view_logits = torch.stack([prediction.view_logits for prediction in validation.predictions])
    logits = logits_after_views(view_logits, whole_share)  # (views, N, classes)
    temperature = fit_temperature(logits[-1], labels)
    probabilities = (logits / temperature).softmax(-1)
    early_exit = choose_early_exit(probabilities, labels)
    views = views_needed(probabilities, early_exit)
    confidence, predicted = after(probabilities, views).max(1)
    correct, mean_views = int((predicted == labels).sum()), views.double().mean().item()
    measured = {"correct": correct, "total": total, "accuracy": correct / total}
    return {
        "temperature": temperature,
        "early_exit": early_exit,
        "confidence_threshold": confidence.quantile(UNCERTAIN_SHARE).item(),
        "validation": measured | {"mean_views": mean_views},
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the divisor of logits (N, classes), 0.1 to 10, with the least cross-entropy on labels.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """

    def loss(log_temperature: float) -> float:
        return functional.cross_entropy(logits.double() / math.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=(math.log(0.1), math.log(10)), method="bounded")
    return math.exp(found.x)


def choose_early_exit(probabilities: Tensor, labels: Tensor) -> float:
    """Return the smallest threshold that, as all larger ones, keeps the accuracy of all views.

    Takes probabilities after each view (views, N, classes) and labels (N,); 1.0 if there is none.
    """

    def correct(early_exit: float) -> int:
        predicted = after(probabilities, views_needed(probabilities, early_exit)).argmax(1)
        return int((predicted == labels).sum())

    enough = correct(1.0) - TOLERATED_LOSS * len(labels)
    return [1.0, *takewhile(lambda threshold: correct(threshold) >= enough, THRESHOLDS)][-1]


# ---- One view after the other --------------------------------------------------------------------


def logits_after_views(view_logits: Tensor, whole_share: float) -> Tensor:
    """Return the averaged logits after each view (views, N, classes), from (N, views, classes)."""
    views, (photos, count, classes) = view_logits.transpose(0, 1), view_logits.shape
    averages = [average_logits(views[:k].flatten(1), whole_share) for k in range(1, count + 1)]
    return torch.stack(averages).view(count, photos, classes)


def views_needed(probabilities: Tensor, early_exit: float) -> Tensor:
    """Return after how many views (N,) a photo's probability exceeds `early_exit`, at most all."""
    confident = probabilities.amax(2) > early_exit  # (views, N), from (views, N, classes)
    confident[-1] = True
    return confident.int().argmax(0) + 1


def after(values: Tensor, views: Tensor) -> Tensor:
    """Return of values after each view (views, N, ...) each photo's own: (N, ...)."""
    return values[views - 1, torch.arange(values.shape[1])]
