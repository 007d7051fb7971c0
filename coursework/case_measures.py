"""What the report of the coursework `case` measures, beside what the engine does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn

from coursework.case_network import DROPOUT, OWN, RECIPE, WITH, WITHOUT, network
from coursework.data import DataSet, augmentation
from coursework.engine import Normalise, Result, Run, evaluate


def untrained(data: DataSet) -> dict[str, str]:
    """Starting weights and the loss before the first step, beside what guessing costs."""
    start = Run(OWN, "", partial(network, data, DROPOUT), data, RECIPE).fresh()
    last = next(layer for layer in reversed(start) if isinstance(layer, nn.Conv2d))
    some = data.watched.take(np.arange(min(500, len(data.watched))))
    loss, _ = evaluate(start, some, bfloat16=False)
    bound = 1 / math.sqrt(last.weight[0].numel())
    greatest = last.weight.abs().max().item()
    numbers = {"bound": bound, "greatest": greatest, "loss": loss, "even": even(data)}
    return {name: f"{value:.4f}" for name, value in numbers.items()} | {"photos": str(len(some))}


def even(data: DataSet) -> float:
    """Nats that giving every class the same probability costs."""
    return math.log(len(data.classes))


def normalised(data: DataSet) -> tuple[float, float]:
    """Mean and standard deviation of training photos as the first convolution sees them."""
    pixels = data.train.inputs[:10_000].float() / 255
    x = Normalise(*data.statistics())(pixels)  # (N, C, H, W)
    return x.mean().item(), x.std().item()


def augmented(data: DataSet, count: int = 4) -> tuple[Tensor, list[bool]]:
    """The first training photos (count, C, H, W) after augmentation, and which have changed."""
    change, photos = augmentation(RECIPE.augment, data.side), data.train.inputs[:count]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        after = torch.stack([change(photo) for photo in photos])
    return after, [not torch.equal(*pair) for pair in zip(photos, after, strict=True)]


def course(result: Result, value: str) -> str:
    """Whether `val_loss` fell or `val_accuracy` rose from the first epoch to the last."""
    if len(result.rows) == 1:
        return "of one"
    first, last = (getattr(result.rows[i], value) for i in (0, -1))
    return (
        "as wanted" if (last < first if value == "val_loss" else last > first) else "not as wanted"
    )


@dataclass(frozen=True)
class Effect:
    """A number of the trained networks, with and without the method: mean, deviation over seeds."""

    name: str
    with_it: tuple[float, float]
    without: tuple[float, float]

    @property
    def difference(self) -> float:
        """What the method adds to the mean."""
        return self.with_it[0] - self.without[0]

    @property
    def verdict(self) -> str:
        """`smaller`, `larger` or, within both standard deviations, `same`."""
        if abs(self.difference) <= self.with_it[1] + self.without[1]:
            return "same"
        return "larger" if self.difference > 0 else "smaller"


def gap(result: Result) -> float:
    """How much better training photos are answered than test photos."""
    return result.final["training_accuracy"] - result.final["test_accuracy"]


def effects(results: Mapping[str, Result]) -> dict[str, Effect]:
    """What dropout does to the gap, the test accuracy and the test loss."""
    measures = {
        "gap": gap,
        "test accuracy": lambda result: result.final["test_accuracy"],
        "test loss": lambda result: result.final["test_loss"],
    }
    found = {}
    for name, measure in measures.items():
        sides = ([measure(results[label]) for label in labels] for labels in (WITH, WITHOUT))
        found[name] = Effect(name, *((mean(values), stdev(values)) for values in sides))
    return found


def error(result: Result) -> float:
    """Two standard errors of the test accuracy."""
    p = result.final["test_accuracy"]
    return 2 * math.sqrt(p * (1 - p) / len(result.run.data.test))


def fit(result: Result) -> str:
    """The phrase for how far training accuracy lies above test accuracy."""
    if gap(result) <= error(result):
        return "fit without gap"
    return "fit with gap" if gap(result) < 0.1 else "fit by heart"
