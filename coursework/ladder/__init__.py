"""CIFAR-10 from scratch: eight networks, each one change away from the one before.

Report: Polish. Needs CIFAR-10 (--data DIR, or a download of 170 MB). --night has the assignment's
own 150 epochs at a rate of 0.001.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from course.files import UserError
from coursework import charts
from coursework.data import DataSet, Options
from coursework.engine import Recipe, Result, Run, Training, predict

NAME, LANGUAGE = "ladder", "pl"
CLASSES = {
    "airplane": "samolot", "automobile": "samochód", "bird": "ptak", "cat": "kot", "deer": "jeleń",
    "dog": "pies", "frog": "żaba", "horse": "koń", "ship": "statek", "truck": "ciężarówka",
}  # fmt: skip

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
    return initialise(network, nn.init.xavier_uniform_)


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
    sigmoid = activation is nn.Sigmoid
    return initialise(network, nn.init.xavier_uniform_ if sigmoid else nn.init.kaiming_normal_)


def initialise(network: nn.Sequential, draw: Any) -> nn.Sequential:
    """Draw the filters by Glorot for sigmoids and by He for ReLU."""
    for module in network:
        if isinstance(module, nn.Conv2d):
            draw(module.weight)
    return network


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N,) class indices -> (N, classes) float32: 1 in the column of the class, else 0."""
    return functional.one_hot(labels, classes).float()


BUILDS: dict[str, tuple[str, Any]] = {  # in the assignment's order: title, network
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
    recipe = (ASSIGNED if options.full else SHORT).asked(options)
    compared = [Run(label, title, build, part, recipe) for label, (title, build) in BUILDS.items()]
    tuned, flip = TUNED.asked(options, full_epochs=30), (v2.RandomHorizontalFlip(),)
    return [*compared, Run("tuned", "+ inny przepis", BUILDS["gap"][1], data, tuned, flip)]


def new_photo(path: Path | None) -> Image.Image:
    """Return the given photo, or scikit-image's cat: Chelsea, 451 x 300 pixels, CC0; UserError."""
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


def scaled(photo: Image.Image, channels: int, side: int = SIDE) -> Tensor:
    """Return (C, H, W) uint8: the shorter side brought to `side` pixels, the proportions kept."""
    width, height = (round(length * side / min(photo.size)) for length in photo.size)
    small = photo.convert("L" if channels == 1 else "RGB").resize((width, height))
    return v2.functional.pil_to_tensor(small)


def variance_within(data: DataSet) -> float:
    """Return the share of the pixels' variance that is among photos of one class."""
    pixels = data.train.inputs[:5_000].float().flatten(1)
    groups = [pixels[data.train.labels[:5_000] == label] for label in data.train.labels.unique()]
    spread = sum(float(g.var(0, correction=0).sum()) * len(g) for g in groups if len(g))
    return spread / float(pixels.var(0, correction=0).sum() * len(pixels))


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    classes = [CLASSES.get(name, name) for name in data.classes]
    generator = torch.Generator().manual_seed(options.seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:16]
    photo, order = new_photo(options.photo), [results[label] for label in BUILDS]
    small = scaled(photo, data.channels)
    sizes = [f"{photo.width} × {photo.height}", f"{small.shape[2]} × {small.shape[1]}"]
    outputs = [predict(results[n].network, small[None]).softmax(1)[0] for n in ("gap", "tuned")]
    vectors = one_hot(data.train.labels[:4], len(classes)).int().tolist()
    names, first = ([classes[i] for i in part.labels[:4]] for part in (data.train, data.test))
    titles = [classes[i] for i in data.train.labels[chosen]]
    return {
        "classes": classes,
        "last": results["tuned"],
        "first": results["minimal"],
        "limits": charts.common_limits(results),
        "samples": charts.photos(list(data.train.inputs[chosen]), titles, 8),
        "distinct": len(set(titles)),
        "vectors": list(zip(names, vectors, strict=True)),
        "tested": first,
        "test_photos": charts.photos(list(data.test.inputs[:4]), first, 4),
        "changes": list(pairwise(order)),
        "photo": charts.photos([scaled(photo, 3, 200), small], sizes, 2),
        "square": photo.width == photo.height,
        "size": sizes[1],
        "outputs": [output.tolist() for output in outputs],
        "answers": [classes[int(output.argmax())] for output in outputs],
        "training_step": (Training.training_step, Training.measure),
    }
