"""An own CNN for a small data set: which layers, how long to train, what prevents overfitting.

Three runs on all photos differ in their number of epochs, and validation photos choose among them.
Six runs on few photos, with and without dropout, are long enough to overfit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.transforms import v2

from coursework import charts
from coursework.data import DataSet, Photos
from coursework.engine import Recipe, Result, Run, Training, predict
from coursework.options import Options
from coursework.pages import layers

TEMPLATE = "case/report.ru.html.j2"
SUMMARY = """\
Own CNN on Fashion-MNIST, reasons for each layer, dropout against overfitting (report: Russian).
Needs Fashion-MNIST (--data DIR, or a download of 30 MB). 9 minutes on 2 cores."""
ITEMS = {
    "1": "«Разработайте архитектуру свёрточной нейронной сети», соображения при выборе слоёв",
    "1.1": "Гиперпараметры: «размер фильтров, их количества, функции активации и другие»",
    "2": "«Загрузчики данных, необходимую функцию потерь», предобработка данных",
    "2.1": "Аугментация данных и комментарии к выбранным типам",
    "3": "«Обучите модель на подготовленном наборе данных»",
    "4": "«Оцените качество обучения модели на тестовой выборке»",
    "5": "«Реализуйте один (на выбор) из следующих методов борьбы с переобучением»",
    "6": "«Примеры предсказаний сети»",
    "6.1": "«Сделайте краткие выводы»",
}
BANDS = ("10", "8–9", "6–7", "4–5", "2–3")  # points
CRITERIA = {  # the four areas of the assessment: where they are met, and their bands in short
    "архитектура": (("1", "1.1"), (
        "«разработана полностью с нуля ... развернутые комментарии»",
        "«модификация нескольких компонентов известной ... архитектуры», краткие комментарии",
        "«модификация какого-либо компонента»", "«разработана частично»",
        "«реализован отдельный слой»")),
    "данные": (("2", "2.1"), (
        "«корректно реализован один или более тип аугментации», комментарии",
        "«хотя бы один тип аугментации» с комментарием",
        "«полностью подготовлены ... код запускается»", "«проверено на сети другой архитектуры»",
        "«подготовлены для прохождения через слой»")),
    "обучение": (("3", "4", "5", "6"), (
        "«validation loss снижается, точность растет (графики). Представлены примеры предсказаний»",
        "то же без примеров предсказаний", "«на проверочной выборке ... НЕ снижается»",
        "«обучение на обучающей выборке не идет»", "–")),
    "отчёт": (("1", "6", "6.1"), (
        "«полный и подробный, шаги и результаты работы ... подкреплены иллюстрациями»",
        "«в целом полный»", "«не хватает некоторых разделов»", "«поверхностный»",
        "«краткую характеристику выбранного слоя»")),
}  # fmt: skip

SIDE = 28
LENGTHS, FULL_LENGTHS = (1, 3, 7), (5, 10, 20, 40)  # epochs to choose from
FEW, FEW_WATCHED = 3_000, 1_000  # photos that a network of this size learns by heart
SEEDS = (1, 2, 3)
DROPOUT = 0.5
FLIP = v2.RandomHorizontalFlip()
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

    return nn.Sequential(
        OrderedDict(
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
    )


def load(options: Options) -> DataSet:
    """Return Fashion-MNIST or what is given, a tenth held out for validation."""
    return options.load("FashionMNIST", SIDE).held_out(0.1)


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return the three lengths on all photos; then few photos, with and without dropout."""
    lengths = FULL_LENGTHS if options.full else LENGTHS
    build, wanted = partial(network, dropout=DROPOUT), []
    for epochs in sorted({min(length, options.epochs or length) for length in lengths}):
        recipe = options.recipe(replace(RECIPE, epochs=epochs))
        title = f"{epochs} эп."
        wanted.append(Run(f"length-{epochs}", title, build, data, recipe, (FLIP,)))
    few = replace(data.subset(FEW), validation=data.watched.take(slice(FEW_WATCHED)))
    for seed in SEEDS:
        for label, dropout in (("plain", 0.0), ("dropout", DROPOUT)):
            title = f"{'с' if dropout else 'без'} dropout, seed {seed}"
            recipe = replace(options.recipe(OVERFITTING), seed=(options.seed or 0) + seed)
            build = partial(network, dropout=dropout)
            wanted.append(Run(f"{label}-{seed}", title, build, few, recipe))
    return wanted


def chosen(results: Mapping[str, Result]) -> Result:
    """Return the run on all photos whose validation loss ended lowest."""
    lengths = [r for label, r in results.items() if label.startswith("length")]
    return min(lengths, key=lambda result: result.rows[-1]["val_loss"])


def overfitting(results: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    """Return means over the seeds: least and last validation loss, gap and test accuracy."""
    means = {}
    for label in ("plain", "dropout"):
        group = [results[f"{label}-{seed}"] for seed in SEEDS]
        losses = np.array([[row["val_loss"] for row in r.rows] for r in group])  # (seeds, epochs)
        mean = losses.mean(0)
        accuracies = np.array([r.final["test_acc"] for r in group])
        means[label] = {
            "least": float(mean.min()),
            "epoch": int(mean.argmin()) + 1,
            "last": float(mean[-1]),
            "rise": float(mean[-1] - mean.min()),
            "train_loss": float(np.mean([r.rows[-1]["train_loss"] for r in group])),
            "gap": float(np.mean([r.gap for r in group])),
            "test": float(accuracies.mean()),
            "error": float(accuracies.std(ddof=1) / len(SEEDS) ** 0.5),
        }
    return means


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    best = chosen(results)
    logits = predict(best.network, data.test.inputs)
    answers, labels = logits.argmax(1), data.test.labels
    probabilities = logits.softmax(1).amax(1)
    wrong = (answers != labels).nonzero().flatten()[:8]
    shown = torch.cat([(answers == labels).nonzero().flatten()[:8], wrong])
    titles = [
        f"{data.classes[answers[i]]}\n{probabilities[i]:.2f}".replace(".", ",")
        + (f"\nверно: {data.classes[labels[i]]}" if answers[i] != labels[i] else "\n")
        for i in shown
    ]
    pictures = data.train.inputs[:8]
    flipped = [v2.functional.horizontal_flip(photo) for photo in pictures]
    names = [data.classes[label] for label in data.train.labels[:8]]
    return {
        "best": best,
        "lengths": [r for label, r in results.items() if label.startswith("length")],
        "means": overfitting(results),
        "wrong": int((answers != labels).sum()),
        "examples": charts.photos(list(data.test.inputs[shown]), titles, 8),
        "augmented": charts.photos(
            [*pictures, *flipped], [*names, *["отражено"] * len(flipped)], 8
        ),
        "prevention": prevention_chart(results),
        "language": "ru",
        "layer_rows": layer_rows(data),
        "functions": (network, Photos, Training.train_dataloader),
        "criteria": CRITERIA,
        "bands": BANDS,
        "dropout": DROPOUT,
    }


def layer_rows(data: DataSet) -> list[dict[str, Any]]:
    """Return the layers with their shapes, parameters and receptive fields, by name."""
    built = network(data, DROPOUT)
    rows = layers(built, (data.channels, SIDE, SIDE))
    return [row | {"name": name} for name, row in zip(built._modules, rows, strict=True)]


def prevention_chart(results: Mapping[str, Result]) -> Any:
    """Draw the runs on few photos: one colour for all with dropout, one for all without."""
    titles = {"plain": "без dropout", "dropout": "с dropout"}
    groups = {
        label: titles[kind] for label in results if (kind := label.partition("-")[0]) in titles
    }
    return charts.curves(results, list(groups), WORDS, groups=groups)


WORDS = {
    "accuracy": "точность (доля верных ответов)",
    "loss": "функция потерь",
    "epoch": "эпоха",
    "seconds": "секунды обучения",
    "train": "обучение",
    "val": "проверка",
}
