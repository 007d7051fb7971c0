"""Tiny data, networks and made-up results for the tests of the courseworks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from coursework.data import DataSet, Options, Photos
from coursework.engine import Recipe, Result, Run

CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]


def photos(count: int, channels: int = 3, side: int = 32, seed: int = 0) -> Photos:
    """Return noise, darker for the higher classes, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    noise = torch.randint(0, 120, (count, channels, side, side), generator=generator)
    return Photos((noise + 25 * labels[:, None, None, None]).to(torch.uint8), labels)


def data_set(channels: int = 3, side: int = 32, train: int = 60, test: int = 40) -> DataSet:
    return DataSet(
        "CIFAR-10" if channels == 3 else "Fashion-MNIST",
        CLASSES,
        photos(train, channels, side),
        photos(test, channels, side, 1),
        photos(20, channels, side, 2),
    )


def tiny_network(data: DataSet, dropout: float = 0.2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(data.channels, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16, len(data.classes)),
    )


def tiny_run(
    build: Callable[[DataSet], nn.Module] = tiny_network, label: str = "tiny", **recipe: object
) -> Run:
    own = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "bfloat16": False}
    flips = (v2.RandomHorizontalFlip(), v2.RandomErasing())
    return Run(label, "крошечный запуск", build, data_set(side=12), Recipe(**own | recipe), flips)


def plain(data: DataSet) -> nn.Sequential:
    return tiny_network(data, dropout=0.0)


def plain_run() -> Run:
    """Without dropout and augmentation, whose random numbers are a process's own."""
    return replace(tiny_run(build=plain), augment=())


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((14, 18, 3), 40 * number + index, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@cache
def assignment(name: str, test: int) -> tuple[ModuleType, DataSet, list[tuple[Run, nn.Module]]]:
    """Return an assignment with the untrained networks of its runs."""
    module = importlib.import_module(f"coursework.{name}")
    data = data_set(*((3, 32) if name in ("ladder", "resnet") else (1, 28)), test=test)
    if name == "ladder":
        data = replace(data, validation=None)
    runs = module.runs(data, Options(out=Path("out")))
    alike = runs[0].network().eval() if name == "resnet" else None  # its report shows no weights
    return module, data, [(run, alike or run.network().eval()) for run in runs]


def made_up(
    name: str, accuracy: Callable[[str, int], float], test: int = 40
) -> tuple[ModuleType, DataSet, dict[str, Result], Options]:
    """Return an assignment with results that nobody trained; `accuracy` is told label and place."""
    module, data, networks = assignment(name, test)
    results = {}
    for place, (run, network) in enumerate(networks):
        value, epochs = accuracy(run.label, place), run.recipe.epochs
        rows = [
            {
                "epoch": epoch + 1,
                "train_loss": 2 * math.exp(-epoch / 4),
                "train_acc": value * (epoch + 1) / epochs,
                "val_loss": 1 + math.exp(-epoch) + 0.01 * epoch,
                "val_acc": value * (epoch + 1) / epochs,
                "rate": 0.1,
                "seconds": 1.0 + place,
            }
            for epoch in range(epochs)
        ]
        final = {"train_loss": 0.5, "train_acc": min(1.0, value + 0.05)}
        final |= {"test_loss": 1.0, "test_acc": value}
        results[run.label] = Result(run, network, rows, final)
    return module, data, results, Options(out=Path("out"))
