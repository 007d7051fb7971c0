"""CIFAR-10 from scratch: eight networks, each one change away from the one before.

They share one recipe, so that only the architecture differs between two of them. The last run
trains the last network on all photos with another recipe, to show what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from course.files import UserError
from coursework import charts
from coursework.data import DataSet
from coursework.engine import Recipe, Result, Run, Training, make_optimiser, predict
from coursework.options import Options

TEMPLATE = "ladder/report.pl.html.j2"
SUMMARY = """\
Eight networks on CIFAR-10 from scratch, from 5 filters to four blocks with batch norm, dropout and
global average pooling (report: Polish). Needs CIFAR-10 (--data DIR, or a download of 170 MB).
15 minutes on 2 cores; --night has the assignment's own 150 epochs at a rate of 0.001."""
CODE, PICTURE, CURVES, SECONDS = "kod", "obraz", "wykres", "czas epoki"
ITEMS = {
    "1": "Wyświetl kilka losowych elementów zbioru: do jakich klas należą, czy są różnorodne?",
    "2": "Zamień etykiety na wektory prawdopodobieństw (one hot encoding)",
    "3": "Zaimplementuj minimalną architekturę",
    "4": "Ile wag/parametrów składa się na taki model?",
    "5": "Jakie prawdopodobieństwa poszczególnych klas zwrócił model na wyjściu?",
    "6": "Zoptymalizuj model tak, by był dobrym klasyfikatorem",
    "6.1": "Optymalizator stochastic gradient descent (6.1.1–6.1.4)",
    "6.2": "Wykres loss i accuracy z epoki na epokę (6.2.1–6.2.4)",
    "7": "Jak teraz wyglądają zwracane prawdopodobieństwa?",
    "8": "Zwiększ liczbę filtrów z 5 do 20",
    "8.1": "Jak zmieniła się liczba parametrów modelu?",
    "8.2": "Jak zmienił się czas trenowania?",
    "8.3": "Jak zmieniły się rezultaty treningu?",
    "9": "Sekwencja konwolucja → konwolucja → pooling tworzy blok konwolucyjny",
    "9.1": "Zmień rozmiar okna poolingu z 8x8 na 2x2",
    "9.2": "Funkcja, która dla zadanych parametrów zwraca cały blok (9.2.1)",
    "9.3": "Zmodyfikuj model tak, by korzystał z dwóch bloków: 20 i 40 filtrów",
    "9.3.1": "Kilka-kilkanaście epok treningu takiej sieci: czy efekty wyglądają obiecująco?",
    "9.3.2": "Zamień aktywacje we wszystkich warstwach (poza ostatnią) na ReLU",
    "9.3.3": "Wytrenuj dwublokowy model: jak teraz wyglądają rezultaty?",
    "9.4": "Dodaj jeszcze dwa bloki: 20, 40, 80, 160 filtrów",
    "9.4.1": "Jak przebiega trening, jakie sieć osiąga wyniki?",
    "10": "Dodamy teraz kilka usprawnień",
    "10.2": "Po każdej warstwie konwolucyjnej umieść warstwę batch normalisation",
    "10.3": "Jak teraz przebiegało uczenie?",
    "11": "Sieć ma być nieco bardziej uniwersalna",
    "11.1": "Po każdej warstwie poolingowej umieść warstwę dropout (11.2)",
    "11.3": "Sekwencja dropout rates: 0.1, 0.2, 0.3, 0.4",
    "11.4": "Kolejny raz zbadaj proces uczenia",
    "12": "Obsługa fotografii o nietypowych wymiarach: Global Average Pooling",
    "12.1": "Zmodyfikuj definicję wejścia tak, by przyjmowała obrazy o dowolnym rozmiarze",
    "12.2": "Ostatnią z użytych warstw typu max pooling zamień na warstwę typu GAP",
    "12.3": "Ostatni już raz zweryfikuj przebieg procesu uczenia; zapisz parametry modelu",
    "13": "Nowy obraz, który nie jest kwadratowy: czy sieć również go poprawnie rozpozna?",
    "14": "Przejrzyj wszystkie uzyskane wyniki: co o nich myślisz, jakie wnioski?",
}
ICONS = {  # what the icons of the text ask for at an item, and nowhere else
    "1": (PICTURE,), "2": (CODE,), "3": (CODE,), "6": (CODE,), "6.2": (CURVES, SECONDS),
    "8.3": (CURVES, SECONDS), "9.2": (CODE,), "9.3": (CODE,), "9.3.3": (CURVES, SECONDS),
    "9.4.1": (CURVES, SECONDS), "10.2": (CODE,), "10.3": (CURVES, SECONDS), "11.1": (CODE,),
    "11.4": (CURVES, SECONDS), "12.1": (CODE,), "12.2": (CODE,), "12.3": (CURVES, SECONDS),
}  # fmt: skip
CLASSES = dict(
    airplane="samolot", automobile="samochód", bird="ptak", cat="kot", deer="jeleń", dog="pies",
    frog="żaba", horse="koń", ship="statek", truck="ciężarówka",
)  # fmt: skip

SIDE = 32  # pixels
FILTERS = (20, 40, 80, 160)
DROPOUT = (0.1, 0.2, 0.3, 0.4)
# The assignment's recipe: small steps, no schedule, inputs only scaled to [0, 1].
ASSIGNED = Recipe(epochs=150, batch_size=64, learning_rate=1e-3, momentum=0.9)
# In few epochs those steps lead nowhere: one cycle up to 30 times the rate.
SHORT = replace(ASSIGNED, epochs=8, learning_rate=0.03, schedule="one-cycle")
PHOTOS = 20_000  # of the compared runs
# What the last network needs to get far in few epochs: batch norm bears a rate a hundred times as
# high, one cycle ends near zero, and a mirrored photo is as good as a new one.
TUNED = Recipe(8, "sgd", 128, 0.1, weight_decay=5e-4, schedule="one-cycle")


# ------------------------------------------------------------------------------------------------
# The networks: photos (B, C, 32, 32) on [0, 1] -> logits (B, classes)
# ------------------------------------------------------------------------------------------------


def minimal(data: DataSet, filters: int) -> nn.Sequential:
    """Build the network of points 3 (5 filters) and 8 (20 filters)."""
    network = nn.Sequential(
        nn.Conv2d(data.channels, filters, 3, padding="same"),
        nn.Sigmoid(),
        nn.Conv2d(filters, filters, 3, padding="same"),
        nn.Sigmoid(),
        nn.MaxPool2d(8),  # (B, filters, 32, 32) -> (B, filters, 4, 4)
        nn.Flatten(),
        nn.Linear(filters * 4 * 4, len(data.classes)),  # softmax is part of the loss
    )
    return initialise(network, "sigmoid")


def conv_block(
    inputs: int,
    filters: int,
    activation: type[nn.Module] = nn.ReLU,
    norm: bool = False,
    dropout: float = 0.0,
    gap: bool = False,
) -> list[nn.Module]:
    """Return the layers of a block: convolution, convolution, pooling."""
    layers: list[nn.Module] = []
    for channels in (inputs, filters):
        layers.append(nn.Conv2d(channels, filters, 3, padding="same"))
        layers += [nn.BatchNorm2d(filters)] if norm else []
        layers.append(activation())
    layers.append(nn.AdaptiveAvgPool2d(1) if gap else nn.MaxPool2d(2))
    layers += [nn.Dropout(dropout)] if dropout else []
    return layers


def blocks(
    data: DataSet,
    filters: Sequence[int] = FILTERS,
    activation: type[nn.Module] = nn.ReLU,
    norm: bool = False,
    dropout: bool = False,
    gap: bool = False,
) -> nn.Sequential:
    """Build the networks of points 9 to 12: blocks in a row, then one linear layer."""
    layers: list[nn.Module] = []
    inputs = data.channels
    for index, outputs in enumerate(filters):
        last, share = index == len(filters) - 1, DROPOUT[index] if dropout else 0.0
        layers += conv_block(inputs, outputs, activation, norm, share, gap and last)
        inputs = outputs
    places = 1 if gap else (SIDE // 2 ** len(filters)) ** 2
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * places, len(data.classes)))
    return initialise(network, "sigmoid" if activation is nn.Sigmoid else "relu")


def initialise(network: nn.Sequential, activation: str) -> nn.Sequential:
    """Draw weights by Glorot for sigmoids and by He for ReLU; biases are 0."""
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            if activation == "relu" and isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N,) class indices -> (N, classes) float32: 1 in the column of the class, else 0."""
    return functional.one_hot(labels, classes).float()


BUILDS = {  # in the assignment's order: title, network
    "minimal": ("5 filtrów", partial(minimal, filters=5)),
    "wider": ("20 filtrów", partial(minimal, filters=20)),
    "sigmoid": ("2 bloki, sigmoida", partial(blocks, filters=FILTERS[:2], activation=nn.Sigmoid)),
    "relu": ("2 bloki, ReLU", partial(blocks, filters=FILTERS[:2])),
    "four": ("4 bloki", blocks),
    "norm": ("+ batch norm", partial(blocks, norm=True)),
    "dropout": ("+ dropout", partial(blocks, norm=True, dropout=True)),
    "gap": ("+ GAP", partial(blocks, norm=True, dropout=True, gap=True)),
}


def load(options: Options) -> DataSet:
    """Return CIFAR-10 or what is given; read the --photo before the work. Raises UserError."""
    new_photo(options.photo)
    return options.load("CIFAR10", SIDE)


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return a run a network, and a last one of the last network with the other recipe."""
    part = data if options.full else data.subset(PHOTOS)
    recipe = options.recipe(ASSIGNED if options.full else SHORT)
    compared = [Run(label, title, build, part, recipe) for label, (title, build) in BUILDS.items()]
    tuned = options.recipe(TUNED, full_epochs=30)
    flip = (v2.RandomHorizontalFlip(),)
    return [*compared, Run("tuned", "+ inny przepis", BUILDS["gap"][1], data, tuned, flip)]


# ------------------------------------------------------------------------------------------------
# What the report shows
# ------------------------------------------------------------------------------------------------

WORDS = {
    "accuracy": "accuracy (skuteczność)",
    "loss": "loss (strata)",
    "epoch": "epoka",
    "seconds": "sekundy treningu",
    "train": "dane treningowe",
    "val": "dane testowe",
}


def new_photo(path: Path | None) -> Image.Image:
    """Return the given photo, or scikit-image's cat: Chelsea, 451 x 300 pixels, CC0.

    Raises UserError if it cannot be read, or is hardly more than a line.
    """
    if path is None:
        return Image.fromarray(skimage.data.chelsea())
    try:
        with Image.open(path) as file:
            photo = file.convert("RGB")
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{path} cannot be read as a photo: give --photo another file") from None
    if max(photo.size) > 8 * min(photo.size):
        raise UserError(f"{path} is more than 8 times as long as wide: give --photo another file")
    return photo


def scaled(photo: Image.Image, channels: int) -> Tensor:
    """Return (C, H, W) uint8: the shorter side brought to 32 pixels, the proportions kept."""
    width, height = (round(side * SIDE / min(photo.size)) for side in photo.size)
    small = photo.convert("L" if channels == 1 else "RGB").resize((width, height))
    return v2.functional.pil_to_tensor(small)


def variance_within(data: DataSet) -> float:
    """Return the share of the pixels' variance that is among photos of one class."""
    pixels = data.train.inputs[:5_000].float().flatten(1)
    labels = data.train.labels[:5_000]
    spread = sum(
        float(pixels[labels == label].var(0, correction=0).sum() * (labels == label).sum())
        for label in labels.unique()
    )
    return spread / float(pixels.var(0, correction=0).sum() * len(pixels))


def probability_rows(data: DataSet, network: nn.Module) -> list[tuple[str, list[float]]]:
    """Return the true class and the probabilities of four test photos."""
    outputs = predict(network, data.test.inputs[:4]).softmax(1)
    names = [data.classes[label] for label in data.test.labels[:4]]
    return list(zip(names, outputs.tolist(), strict=True))


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    classes = [CLASSES.get(name, name) for name in data.classes]
    data = replace(data, classes=classes)
    generator = torch.Generator().manual_seed(options.seed or 0)
    chosen = torch.randperm(len(data.train), generator=generator)[:16]
    photo, last = new_photo(options.photo), results["tuned"]
    small = scaled(photo, data.channels)
    shown = [
        predict(results[label].network, small[None]).softmax(1)[0] for label in ("gap", "tuned")
    ]
    path = options.out / "runs" / "tuned" / "last.ckpt"
    thumb = photo.copy()
    thumb.thumbnail((300, 300))
    untrained = results["minimal"].run.network()
    limits = charts.common_limits(results)
    labels = data.train.labels[:4]
    return {
        "classes": classes,
        "limits": limits,
        "samples": charts.photos(
            list(data.train.inputs[chosen]), [classes[i] for i in data.train.labels[chosen]], 8
        ),
        "distinct": len(set(data.train.labels[chosen].tolist())),
        "within": variance_within(data),
        "vectors": list(
            zip([classes[i] for i in labels], one_hot(labels, len(classes)).int().tolist(),
                strict=True)
        ),  # fmt: skip
        "before": probability_rows(data, untrained),
        "after": probability_rows(data, results["minimal"].network),
        "first_photos": charts.photos(
            list(data.test.inputs[:4]), [classes[i] for i in data.test.labels[:4]], 4
        ),
        "changes": changes(results),
        "saved": path,
        "photo": charts.photos(
            [np.moveaxis(np.asarray(thumb), -1, 0), small],
            [f"{photo.width} × {photo.height}", f"{small.shape[2]} × {small.shape[1]}"], 2
        ),
        "given": options.photo,
        "size": (small.shape[2], small.shape[1]),
        "square": photo.width == photo.height,
        "outputs": [output.tolist() for output in shown],
        "answers": [classes[int(output.argmax())] for output in shown],
        "photo_bars": charts.bars(classes, shown[1].tolist(), "prawdopodobieństwo"),
        "assigned": ASSIGNED,
        "last": last,
        "shapes": dict.fromkeys(BUILDS, (data.channels, SIDE, SIDE)),
        "functions": {"minimal": minimal, "block": conv_block, "blocks": blocks, "hot": one_hot,
                      "training": (make_optimiser, Training.training_step)},
        "dropouts": DROPOUT,
        "smoothing": options.smoothing,
        "icons": ICONS,
        "language": "pl",
    }  # fmt: skip


def changes(results: Mapping[str, Result]) -> list[tuple[Result, Result]]:
    """Return each network beside the one before it."""
    order = [results[label] for label in BUILDS]
    return list(zip(order[:-1], order[1:], strict=True))
