"""An own CNN on Fashion-MNIST, with reasons for each layer; dropout against overfitting.

Report: Russian. Needs Fashion-MNIST (--data DIR, or a download of 30 MB).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import nn
from torchvision.transforms import v2

from coursework import charts
from coursework.data import DataSet, Options
from coursework.engine import Recipe, Result, Run, Training, predict

NAME, LANGUAGE = "case", "ru"
SIDE = 28
LENGTHS, FULL_LENGTHS = (1, 3, 7), (5, 10, 20, 40)  # epochs to choose from
FEW, FEW_WATCHED = 3_000, 1_000  # photos that a network of this size learns by heart
SEEDS = (1, 2, 3)
DROPOUT = 0.5
RECIPE = Recipe(7, "adamw", 64, 5e-3, weight_decay=0.01, schedule="one-cycle")
# A constant rate, and nothing but dropout against overfitting: a falling rate would hide it.
OVERFITTING = Recipe(20, "adamw", 64, 1e-3)


def network(data: DataSet, dropout: float) -> nn.Sequential:
    """Photos (B, C, 28, 28) on [0, 1] -> logits (B, classes)."""

    def conv(number: int, inputs: int, outputs: int) -> dict[str, nn.Module]:
        return {
            f"conv{number}": nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            f"norm{number}": nn.BatchNorm2d(outputs),
            f"relu{number}": nn.ReLU(),
        }

    named = dict(
        normalise=v2.Normalize(*data.statistics()),
        **conv(1, data.channels, 16),
        **conv(2, 16, 32),
        pool1=nn.MaxPool2d(2),  # 28 x 28 -> 14 x 14
        **conv(3, 32, 64),
        **conv(4, 64, 64),
        pool2=nn.MaxPool2d(2),  # 14 x 14 -> 7 x 7
        flatten=nn.Flatten(),  # (B, 64, 7, 7) -> (B, 3136)
        dropout1=nn.Dropout(dropout),
        dense=nn.Linear(64 * 7 * 7, 128),
        relu5=nn.ReLU(),
        dropout2=nn.Dropout(dropout),
        linear=nn.Linear(128, len(data.classes)),
    )
    return nn.Sequential(OrderedDict(named))


def load(options: Options) -> DataSet:
    """Return Fashion-MNIST or what is given, a tenth held out for validation."""
    return options.load("FashionMNIST", SIDE).held_out(0.1)


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return the lengths on all photos; then few photos, with and without dropout."""
    lengths = FULL_LENGTHS if options.full else LENGTHS
    build, flips, wanted = partial(network, dropout=DROPOUT), (v2.RandomHorizontalFlip(),), []
    for epochs in sorted({min(length, options.epochs or length) for length in lengths}):
        recipe = replace(RECIPE.asked(options), epochs=epochs)
        wanted.append(Run(f"length-{epochs}", f"{epochs} эп.", build, data, recipe, flips))
    few = replace(data.subset(FEW), validation=data.watched.take(slice(FEW_WATCHED)))
    for seed in SEEDS:
        recipe = replace(OVERFITTING, seed=seed).asked(options)
        for label, dropout in (("plain", 0.0), ("dropout", DROPOUT)):
            title = f"{'с' if dropout else 'без'} dropout, seed {recipe.seed}"
            build = partial(network, dropout=dropout)
            wanted.append(Run(f"{label}-{seed}", title, build, few, recipe))
    return wanted


def overfitting(results: Mapping[str, Result], label: str) -> dict[str, float]:
    """Return means over the seeds of the runs with or without dropout."""
    group = [results[f"{label}-{seed}"] for seed in SEEDS]
    losses = np.mean([[row["val_loss"] for row in r.rows] for r in group], axis=0)  # (epochs,)
    accuracies = [r.final["test_acc"] for r in group]
    return {
        "train_loss": float(np.mean([r.rows[-1]["train_loss"] for r in group])),
        "least": losses.min(),
        "epoch": losses.argmin() + 1,
        "last": losses[-1],
        "rise": losses[-1] - losses.min(),
        "gap": float(np.mean([r.gap for r in group])),
        "test": float(np.mean(accuracies)),
        "error": float(np.std(accuracies, ddof=1)) / len(SEEDS) ** 0.5,
    }


def predictions(result: Result) -> Markup:
    """Draw eight right answers and eight wrong ones with their probabilities."""
    photos, classes = result.run.data.test, result.run.data.classes
    certain, answers = predict(result.network, photos.inputs).softmax(1).max(1)
    right = answers == photos.labels
    shown = torch.cat([right.nonzero().flatten()[:8], (~right).nonzero().flatten()[:8]])
    titles = [
        f"{classes[answers[i]]}\n{certain[i]:.2f}\n".replace(".", ",")
        + ("" if right[i] else f"верно: {classes[photos.labels[i]]}")
        for i in shown
    ]
    return charts.photos(list(photos.inputs[shown]), titles, 8)


def context(data: DataSet, results: Mapping[str, Result], _options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    lengths = [r for label, r in results.items() if label.startswith("length")]
    shown = data.train.inputs[:8]
    titles = [*(data.classes[label] for label in data.train.labels[:8]), *["отражено"] * 8]
    return {
        "lengths": lengths,
        "best": min(lengths, key=lambda result: result.rows[-1]["val_loss"]),
        "groups": {k: r.run.title.split(",")[0] for k, r in results.items() if r not in lengths},
        "augmented": charts.photos([*shown, *v2.functional.horizontal_flip(shown)], titles, 8),
        "loaders": Training.train_dataloader,
    }
