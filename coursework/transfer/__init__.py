"""Fashion-MNIST by VGG11, GoogLeNet or, without their weights, MobileNetV2 from ImageNet.

Report: Russian. Needs Fashion-MNIST (--data DIR, or a download of 30 MB) and ImageNet weights in
torch's cache, or a download of 14 to 500 MB.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2

from course.files import UserError
from coursework import charts
from coursework.data import DataSet, Options
from coursework.engine import TRAINING_PHOTOS_EVALUATED, Recipe, Result, Run, predict

NAME, LANGUAGE = "transfer", "ru"
SIDE = 28  # pixels of the data set's photos
FEW = 6_000  # photos of the compared runs

# AdamW sets in faster than SGD here: on 10,000 photos validation accuracy after two epochs of one
# cycle of three was 0.903, against 0.802 with SGD. In float32: MobileNetV2's depthwise convolutions
# have no fast backward pass in bfloat16 (359 s an epoch against 143 s).
RECIPE = Recipe(
    3, "adamw", 64, 3e-3, weight_decay=1e-4, schedule="one-cycle", backbone_rate=0.3, bfloat16=False
)


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision, and which of its modules play which part."""

    title: str
    build: Callable[[], nn.Module]  # with random weights, for three channels and 1000 classes
    weights: models.WeightsEnum
    first: str  # the first convolution
    last: str  # the output layer
    row: str  # holds the blocks in a row; "" for the network itself
    frozen: int  # of these blocks, from the input
    frozen_too: tuple[str, ...] = ()
    side: int = 56  # pixels of the input; VGG11 and 64: with 56 its last maps would be 1 x 1
    mean: float = 0.449  # of ImageNet photos, over all channels
    std: float = 0.226
    rate: float = 1.0  # times the recipe's

    @property
    def file(self) -> Path:
        """Its ImageNet weights in torch's cache."""
        return Path(torch.hub.get_dir(), "checkpoints", self.weights.url.rpartition("/")[2])


BACKBONES = {  # in the order of preference: the assignment names the first two
    "vgg11": Backbone(  # frozen: four of its eight convolutions, and 119 of its 129 million weights
        "VGG11", partial(models.vgg11, init_weights=False), models.VGG11_Weights.IMAGENET1K_V1,
        "features.0", "classifier.6", "features", 11, ("classifier.0", "classifier.3"),
        side=64, rate=0.1),  # no batch norm bears less
    "googlenet": Backbone(  # frozen: to inception3b; its weights expect photos on [-1, 1]
        "GoogLeNet", partial(models.googlenet, aux_logits=False, init_weights=False),
        models.GoogLeNet_Weights.IMAGENET1K_V1, "conv1.conv", "fc", "", 7, mean=0.5, std=0.5),
    "mobilenet_v2": Backbone(  # frozen: 7 of 19
        "MobileNetV2", models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1,
        "features.0.0", "classifier.1", "features", 7),
}  # fmt: skip


@cache
def imagenet_state(name: str) -> Mapping[str, Tensor]:
    """Return the weights from torch's cache, downloaded if need be. Raises UserError."""
    file, given = BACKBONES[name].file, {"check_hash": True, "weights_only": True}
    try:
        with redirect_stderr(sys.stdout):
            return BACKBONES[name].weights.get_state_dict(progress=False, **given)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        if file.is_file():
            raise UserError(f"{file} is no file of weights: delete it") from None
        raise UserError(
            f"no ImageNet weights of {BACKBONES[name].title} ({str(error).splitlines()[0]}): put "
            f"{file.name} into {file.parent}, or be online once"
        ) from None


def is_genuine(backbone: Backbone) -> bool:
    """Return whether the weights' file is the one that its name says: its SHA-256 begins so."""
    digest = hashlib.sha256(backbone.file.read_bytes()).hexdigest()
    return digest.startswith(backbone.file.stem.rpartition("-")[2])


def choose(asked: str | None) -> str:
    """Return the network that was asked for, or the first one whose weights can be had."""
    *names, last = [asked] if asked else BACKBONES
    for name in names:
        try:
            imagenet_state(name)
        except UserError as error:
            print(f"Not {BACKBONES[name].title}: {error}", file=sys.stderr)
        else:
            return name
    imagenet_state(last)
    return last


def grey_convolution(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution for one channel with the sum of the weights of three.

    A grey photo as three equal channels gives w_r x + w_g x + w_b x = (w_r + w_g + w_b) x.
    """
    how: Any = {k: getattr(conv, k) for k in ("out_channels", "kernel_size", "stride", "padding")}
    grey = nn.Conv2d(1, **how, bias=conv.bias is not None)
    summed = conv.weight.detach().sum(1, keepdim=True)  # (F, 3, k, k) -> (F, 1, k, k)
    grey.load_state_dict(conv.state_dict() | {"weight": summed})
    return grey


class Transfer(nn.Module):
    """Photos (B, 1, 28, 28) on [0, 1] -> logits (B, classes), by a network from ImageNet."""

    def __init__(
        self, data: DataSet, name: str, pretrained: bool = True, frozen: str = "lower"
    ) -> None:
        """Freeze the `lower` blocks, `all` but the output layer, or `none`."""
        super().__init__()
        self.name, self.backbone = name, BACKBONES[name]
        self.normalise = v2.Normalize([self.backbone.mean], [self.backbone.std])
        self.enlarge = nn.Upsample((self.backbone.side, self.backbone.side), mode="bilinear")
        self.body = self.pretrained_body() if pretrained else self.backbone.build()
        first: Any = self.body.get_submodule(self.backbone.first)
        self.body.set_submodule(self.backbone.first, grey_convolution(first))
        last: Any = self.body.get_submodule(self.backbone.last)
        self.body.set_submodule(self.backbone.last, nn.Linear(last.in_features, len(data.classes)))
        leaves = [n for n, m in self.body.named_modules() if not [*m.children()]]
        own = {"none": [], "all": [n for n in leaves if n != self.backbone.last]}
        lower = [*self.blocks()[: self.backbone.frozen], *self.backbone.frozen_too]
        self.frozen = own.get(frozen, lower)
        for part in self.frozen:
            self.body.get_submodule(part).requires_grad_(False)

    def pretrained_body(self) -> nn.Module:
        """Return the network for three channels. Raises UserError if the file is another one's."""
        body, state = self.backbone.build().eval(), imagenet_state(self.name)
        try:
            body.load_state_dict({key: state[key] for key in body.state_dict()})
        except (KeyError, RuntimeError):
            title, file = self.backbone.title, self.backbone.file
            raise UserError(f"{file} does not hold the weights of {title}: delete it") from None
        return body

    def blocks(self) -> list[str]:
        """Return the names of the blocks in a row."""
        prefix = f"{self.backbone.row}." if self.backbone.row else ""
        return [prefix + n for n, _ in self.body.get_submodule(self.backbone.row).named_children()]

    @property
    def head(self) -> nn.Module:
        """The new output layer."""
        return self.body.get_submodule(self.backbone.last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, classes)."""
        return self.body(self.enlarge(self.normalise(x)))

    def train(self, mode: bool = True) -> Transfer:
        """Set the mode; frozen batch norms stay in evaluation, or they would learn."""
        super().train(mode)
        for part in self.frozen:
            for module in self.body.get_submodule(part).modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def block_table(network: Transfer) -> list[tuple[str, str, int, bool | None]]:
    """Return for each block its name, its kind, its parameters and whether they are trained."""
    rows = []
    for name in network.blocks():
        block = network.body.get_submodule(name)
        weights = [*block.parameters()]
        trained = any(p.requires_grad for p in weights) if weights else None
        rows.append((name, type(block).__name__, sum(p.numel() for p in weights), trained))
    return rows


def load(options: Options) -> DataSet:
    """Return grey photos, a tenth held out. Raises UserError if there is no such --object."""
    data = options.load("FashionMNIST", SIDE).grey().held_out(0.1)
    if not 0 <= options.object < len(data.test):
        raise UserError(f"no photo {options.object}: --object is from 0 to {len(data.test) - 1}")
    return data


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return the run on all photos, and those that are compared on fewer."""
    name = choose(options.network)
    few = data if options.full else data.subset(FEW)
    rate = RECIPE.learning_rate * BACKBONES[name].rate
    recipe = replace(RECIPE, learning_rate=rate).asked(options, full_epochs=20)
    one_rate, flips = replace(recipe, backbone_rate=1.0), (v2.RandomHorizontalFlip(),)
    lower = partial(Transfer, name=name)
    free, head = partial(lower, frozen="none"), partial(lower, frozen="all")
    return [
        Run("main", "основной запуск", lower, data, recipe, flips),
        Run("lower", "заморожены нижние блоки", lower, few, recipe, flips),
        Run("free", "ничего не заморожено", free, few, recipe, flips),
        Run("all", "обучается только выходной слой", head, few, recipe, flips),
        Run("one-rate", "одна скорость для всех слоёв", lower, few, one_rate, flips),
        Run("plain", "без аугментации", lower, few, recipe),
        Run("random", "случайные веса", partial(free, pretrained=False), few, recipe, flips),
    ]


def adequacy(result: Result, part: str) -> dict[str, Any]:
    """Return scikit-learn's report by class, the confusion matrix and the worst confusion."""
    data = result.run.data
    photos = data.test if part == "test" else data.train.take(slice(TRAINING_PHOTOS_EVALUATED))
    answers = predict(result.network, photos.inputs).argmax(1).numpy()
    labels, names, numbers = photos.labels.numpy(), data.classes, range(len(data.classes))
    how = {"labels": numbers, "target_names": names, "output_dict": True, "zero_division": 0}
    table = classification_report(labels, answers, **how)
    matrix = confusion_matrix(labels, answers, labels=numbers)
    mistakes = matrix - np.diag(np.diag(matrix))
    truth, answer = divmod(int(mistakes.argmax()), len(names))
    return {
        "photos": len(photos),
        "accuracy": float((answers == labels).mean()),
        "table": table,
        "classes": sorted(names, key=lambda name: table[name]["f1-score"]),
        "matrix": matrix.tolist(),
        "most": int(mistakes.max()),
        "confused": (names[truth], names[answer]),
    }


def compare_first_layers(network: Transfer, photos: Tensor) -> dict[str, Any]:
    """Return how far the convolution for one channel is from that for three equal ones."""
    colour: Any = network.pretrained_body().get_submodule(network.backbone.first)
    grey, x = grey_convolution(colour), network.normalise(photos.float() / 255)
    with torch.inference_mode():
        before, after = colour(x.expand(-1, 3, -1, -1)), grey(x)
    shapes = {"shapes": (list(colour.weight.shape), list(grey.weight.shape))}
    return shapes | {"off": float((before - after).abs().max()), "most": float(before.abs().max())}


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    network: Any = results["main"].network
    name = network.name
    photo = data.test.inputs[options.object]
    output = predict(network, photo[None]).softmax(1)[0]
    shown = data.train.inputs[:8]
    prepared = network.enlarge(network.normalise(shown.float() / 255))
    titles = [*(data.classes[label] for label in data.train.labels[:8])]
    titles += ["на входе сети"] * 8 + ["отражено"] * 8
    return {
        "name": name,
        "backbone": BACKBONES[name],
        "genuine": is_genuine(BACKBONES[name]),
        "first_layer": compare_first_layers(network, data.test.inputs[:8]),
        "counts": torch.bincount(data.train.labels, minlength=len(data.classes)).tolist(),
        "photo": charts.photos([photo], [f"№ {options.object}"], 1),
        "truth": data.classes[data.test.labels[options.object]],
        "answer": data.classes[int(output.argmax())],
        "output": output.tolist(),
        "prepared": prepared,
        "samples": charts.photos([*shown, *prepared, *shown.flip(-1)], titles, 8),
    }
