"""The network of the coursework `case`, its settings, and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from coursework.data import DataSet
from coursework.engine import Normalise, Recipe, Result, Run
from coursework.options import Options

SIDE = 28
VALIDATION_SHARE = 0.1
FULL_EPOCHS = 40  # of each run
# Six runs have to be cheap: 14,000 photos trained on, 7,000 watched and 11,000 measured in the end
# take each about 10 s on two cores, beside five minutes for the network on all photos.
ABLATION_PHOTOS, ABLATION_WATCHED = 1_000, 500

DROPOUT = 0.2
RECIPE = Recipe(
    epochs=7,
    optimiser="adamw",
    batch_size=64,
    learning_rate=5e-3,
    weight_decay=0.01,
    schedule="one-cycle",
    augment=("flip",),
)
# Long enough for so few photos to be learnt by heart, and nothing beside dropout against it.
ABLATION = replace(RECIPE, epochs=14, weight_decay=0.0, augment=())
OWN = "own CNN"
SEEDS = (1, 2, 3)
WITH = tuple(f"dropout {seed}" for seed in SEEDS)
WITHOUT = tuple(f"no dropout {seed}" for seed in SEEDS)

Layer = tuple[str, nn.Module]  # its reason is the phrase `layer <name>`


def layers(data: DataSet, dropout: float) -> list[Layer]:
    """The network in order: photos (B, C, H, W) on [0, 1] -> logits (B, classes)."""
    return [
        ("normalise", Normalise(*data.statistics())),
        *conv(1, data.channels, 16),
        *conv(2, 16, 32),
        ("pool1", nn.MaxPool2d(2)),
        ("dropout1", nn.Dropout(dropout / 2)),
        *conv(3, 32, 64),
        *conv(4, 64, 64),
        ("pool2", nn.MaxPool2d(2)),
        ("dropout2", nn.Dropout(dropout / 2)),
        *conv(5, 64, 128),
        ("mean", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),  # (B, 128, 1, 1) -> (B, 128)
        ("dropout3", nn.Dropout(dropout)),
        ("linear", nn.Linear(128, len(data.classes))),
    ]


def conv(number: int, inputs: int, outputs: int) -> list[Layer]:
    """A convolution with what belongs to it: (B, inputs, H, W) -> (B, outputs, H, W)."""
    return [
        (f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
        (f"norm{number}", nn.BatchNorm2d(outputs)),
        (f"relu{number}", nn.ReLU(inplace=True)),
    ]


def network(data: DataSet, dropout: float) -> nn.Sequential:
    """The layers in a row."""
    return nn.Sequential(*(layer for _, layer in layers(data, dropout)))


def load(options: Options) -> DataSet:
    """Fashion-MNIST or what is given, with a part held out for validation."""
    return options.load("FashionMNIST", SIDE).held_out(VALIDATION_SHARE)


def few(data: DataSet) -> DataSet:
    """What the ablation is trained on and watched with; its test photos are all there are."""
    watched = data.watched.take(np.arange(min(ABLATION_WATCHED, len(data.watched))))
    return replace(data.subset(ABLATION_PHOTOS), validation=watched)


def runs(data: DataSet, options: Options, results: Mapping[str, Result]) -> Iterator[Run]:
    """The network on all photos; then on few, with and without dropout, for each seed."""
    recipe, ablation = (options.recipe(r, FULL_EPOCHS) for r in (RECIPE, ABLATION))
    yield Run(OWN, "all photos, augmented", partial(network, data, DROPOUT), data, recipe)
    for seed, *labels in zip(SEEDS, WITH, WITHOUT, strict=True):
        for label, share in zip(labels, (DROPOUT, 0.0), strict=True):
            seeded = replace(ablation, seed=ablation.seed + seed)
            yield Run(
                label,
                f"few photos, dropout {share}",
                partial(network, data, share),
                few(data),
                seeded,
            )
