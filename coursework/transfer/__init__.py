"""Fashion-MNIST with a network that was trained on ImageNet.

One run on all photos; six on fewer, of which each differs from another one in one thing.
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

import torch
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2

from course.files import UserError
from coursework import charts
from coursework.data import DataSet
from coursework.engine import TRAINING_PHOTOS_EVALUATED, Recipe, Result, Run, predict
from coursework.options import Options

TEMPLATE = "transfer/report.ru.html.j2"
SUMMARY = """\
VGG11, GoogLeNet or, without their weights, MobileNetV2 from ImageNet to Fashion-MNIST (report:
Russian). Needs Fashion-MNIST (--data DIR, or a download of 30 MB) and ImageNet weights in torch's
cache, or a download of 14 to 500 MB. 11 minutes on 2 cores with MobileNetV2."""
ITEMS = {
    "1": "«В качестве исходных данных использовать датасет изображений FashionMNIST»",
    "2": "«Выполнить предобработку данных, нормализацию, аугментацию при необходимости»",
    "3": "«Выбрать одну из обученных моделей: VGG11 или GoogLeNet»",
    "4": "«Адаптировать первый слой под один канал»",
    "5": "«Заменить выходной слой для решения задачи классификации FashionMNIST»",
    "6": "«Дообучить модель и выполнить проверку её адекватности на тренировочных данных»",
    "7": "«Выполнить оценку адекватности модели на тесте»",
    "8": "«Выполнить классификацию одного выбранного из датасета объекта»",
    "9": "«Составить отчет о проделанной работе»: результаты и выводы",
    "В1": "Что означает предобучение нейронной сети и на каких датасетах обычно выполняется?",
    "В2": "Какие преимущества даёт использование предобученной модели при обучении на новом "
          "датасете?",
    "В3": "Что такое «замораживание слоев» и зачем оно нужно в контексте дообучения?",
    "В4": "Какие части сети обычно замораживают, а какие оставляют обучаемыми при fine-tuning?",
    "В5": "Почему иногда используют разные learning rate для разных слоев при дообучении "
          "предобученной сети?",
    "В6": "Как меняется архитектура предобученной модели для новой задачи с другим числом классов?",
    "В7": "Как можно оценить эффективность предобучения по сравнению с обучением модели с нуля?",
}  # fmt: skip
SIDE = 28  # pixels of the data set's photos
FEW = 6_000  # photos of the compared runs

# AdamW sets in faster than SGD here: on 10,000 photos validation accuracy after two epochs of one
# cycle of three was 0.903, against 0.802 with SGD. In float32: MobileNetV2's depthwise convolutions
# have no fast backward pass in bfloat16 (359 s an epoch against 143 s).
RECIPE = Recipe(
    3, "adamw", 64, 3e-3, weight_decay=1e-4, schedule="one-cycle", backbone_rate=0.3, bfloat16=False
)
FULL_EPOCHS = 20
FLIP = v2.RandomHorizontalFlip()


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


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
    "vgg11": Backbone(
        "VGG11",
        partial(models.vgg11, init_weights=False),
        models.VGG11_Weights.IMAGENET1K_V1,
        first="features.0",
        last="classifier.6",
        row="features",
        frozen=11,  # the first four of its eight convolutions
        frozen_too=("classifier.0", "classifier.3"),  # 119 of its 129 million weights
        side=64,
        rate=0.1,  # no batch norm bears less
    ),
    "googlenet": Backbone(
        "GoogLeNet",
        partial(models.googlenet, aux_logits=False, init_weights=False),
        models.GoogLeNet_Weights.IMAGENET1K_V1,
        first="conv1.conv",
        last="fc",
        row="",
        frozen=7,  # to inception3b
        mean=0.5,  # its weights expect photos on [-1, 1]
        std=0.5,
    ),
    "mobilenet_v2": Backbone(
        "MobileNetV2",
        models.mobilenet_v2,
        models.MobileNet_V2_Weights.IMAGENET1K_V1,
        first="features.0.0",
        last="classifier.1",
        row="features",
        frozen=7,  # of 19
    ),
}


@cache
def imagenet_state(name: str) -> Mapping[str, Tensor]:
    """Return the weights from torch's cache, downloaded if need be. Raises UserError."""
    backbone = BACKBONES[name]
    try:
        with redirect_stderr(sys.stdout):
            return backbone.weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True, map_location="cpu"
            )
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        file = backbone.file
        damaged = f"{file} is no file of weights: delete it" if file.is_file() else ""
        raise UserError(
            damaged
            or f"no ImageNet weights of {backbone.title} ({reason}): put {file.name} into "
            f"{file.parent}, or be online once"
        ) from None


def is_genuine(backbone: Backbone) -> bool:
    """Return whether the weights' file is the one that its name says: its SHA-256 begins so."""
    digest = hashlib.sha256(backbone.file.read_bytes()).hexdigest()
    return digest.startswith(backbone.file.stem.rpartition("-")[2])


def choose(asked: str | None) -> str:
    """Return the network that was asked for, or the first one whose weights can be had."""
    reasons = []
    for name in [asked] if asked else BACKBONES:
        try:
            imagenet_state(name)
        except UserError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            print(f"{BACKBONES[name].title} instead: {reason}", file=sys.stderr)
        return name
    raise UserError(reasons[-1])


def grey_convolution(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution for one channel with the sum of the weights of three.

    A grey photo as three equal channels gives w_r x + w_g x + w_b x = (w_r + w_g + w_b) x.
    """
    shape = (conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    grey = nn.Conv2d(1, *shape, bias=conv.bias is not None)
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
        backbone = BACKBONES[name]
        self.normalise = v2.Normalize([backbone.mean], [backbone.std])
        self.enlarge = nn.Upsample((backbone.side, backbone.side), mode="bilinear")
        self.body = backbone.build()
        if pretrained:
            load_weights(self.body, name)
        first = self.body.get_submodule(backbone.first)
        self.body.set_submodule(backbone.first, grey_convolution(first))
        last = self.body.get_submodule(backbone.last)
        self.body.set_submodule(backbone.last, nn.Linear(last.in_features, len(data.classes)))
        self.frozen = {
            "none": [],
            "lower": [*blocks(self.body, backbone)[: backbone.frozen], *backbone.frozen_too],
            "all": [n for n, m in self.body.named_modules() if n != backbone.last and is_leaf(m)],
        }[frozen]
        for part in self.frozen:
            self.body.get_submodule(part).requires_grad_(False)
        self.last = backbone.last

    @property
    def head(self) -> nn.Module:
        """The new output layer."""
        return self.body.get_submodule(self.last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, classes)."""
        return self.body(self.enlarge(self.normalise(x)))

    def train(self, mode: bool = True) -> Transfer:
        """Set the mode; frozen parts stay in evaluation, or their batch norms would learn."""
        super().train(mode)
        for part in self.frozen:
            self.body.get_submodule(part).eval()
        return self


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module has weights of its own and is no container; dropouts stay awake."""
    return next(module.children(), None) is None and not isinstance(module, nn.Dropout)


def blocks(body: nn.Module, backbone: Backbone) -> list[str]:
    """Return the names of the blocks in a row."""
    prefix = f"{backbone.row}." if backbone.row else ""
    return [prefix + name for name, _ in body.get_submodule(backbone.row).named_children()]


def load_weights(body: nn.Module, name: str) -> None:
    """Load the ImageNet weights. Raises UserError if the file holds another network's."""
    state, expected = imagenet_state(name), body.state_dict()
    try:
        body.load_state_dict({key: state[key] for key in expected})
    except (KeyError, RuntimeError):
        raise UserError(
            f"{BACKBONES[name].file} does not hold the weights of {BACKBONES[name].title}: delete "
            "it, and it is downloaded"
        ) from None


def block_table(network: Transfer, name: str) -> list[tuple[str, str, int, bool | None]]:
    """Return for each block its name, its kind, its parameters and whether they are trained."""
    rows = []
    for block in blocks(network.body, BACKBONES[name]):
        module = network.body.get_submodule(block)
        trained = [p.requires_grad for p in module.parameters()]
        number = sum(p.numel() for p in module.parameters())
        rows.append((block, type(module).__name__, number, any(trained) if trained else None))
    return rows


# ------------------------------------------------------------------------------------------------
# Runs
# ------------------------------------------------------------------------------------------------


def load(options: Options) -> DataSet:
    """Return grey photos, a tenth held out. Raises UserError if there is no such --object."""
    data = options.load("FashionMNIST", SIDE).grey().held_out(0.1)
    if not 0 <= options.object < len(data.test):
        raise UserError(
            f"there is no test photo {options.object}: --object is a number from 0 to "
            f"{len(data.test) - 1}"
        )
    return data


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return the run on all photos, and those that are compared on fewer."""
    name = choose(options.network)
    few = data if options.full else data.subset(FEW)
    own = replace(RECIPE, learning_rate=RECIPE.learning_rate * BACKBONES[name].rate)
    recipe = options.recipe(own, FULL_EPOCHS)

    def run(label: str, title: str, data: DataSet = few, **changed: Any) -> Run:
        flips = () if changed.pop("plain", False) else (FLIP,)
        its = replace(recipe, backbone_rate=changed.pop("backbone_rate", recipe.backbone_rate))
        notes = {"backbone": name}
        build = partial(Transfer, name=name, **changed)
        return Run(label, title, build, data, its, flips, notes=notes)

    return [
        run("main", "основной запуск", data),
        run("lower", "заморожены нижние блоки"),
        run("free", "ничего не заморожено", frozen="none"),
        run("all", "обучается только выходной слой", frozen="all"),
        run("one-rate", "одна скорость обучения для всех слоёв", backbone_rate=1.0),
        run("plain", "без аугментации", plain=True),
        run("random", "случайные веса, ничего не заморожено", frozen="none", pretrained=False),
    ]


# ------------------------------------------------------------------------------------------------
# What the report shows
# ------------------------------------------------------------------------------------------------

WORDS = {
    "accuracy": "доля верных ответов",
    "loss": "функция потерь",
    "epoch": "эпоха",
    "seconds": "секунды обучения",
    "train": "обучение",
    "val": "проверка",
}


def adequacy(result: Result, part: str) -> dict[str, Any]:
    """Return scikit-learn's report by class, the confusion matrix and the worst confusion."""
    data = result.run.data
    photos = data.test if part == "test" else data.train.take(slice(TRAINING_PHOTOS_EVALUATED))
    answers = predict(result.network, photos.inputs).argmax(1).numpy()
    labels, numbers = photos.labels.numpy(), range(len(data.classes))
    table = classification_report(
        labels,
        answers,
        labels=numbers,
        target_names=data.classes,
        output_dict=True,
        zero_division=0,
    )
    matrix = confusion_matrix(labels, answers, labels=numbers)
    mistakes = matrix - matrix * torch.eye(len(numbers), dtype=torch.int64).numpy()
    truth, answer = divmod(int(mistakes.argmax()), len(numbers))
    return {
        "photos": len(photos),
        "table": table,
        "classes": sorted(data.classes, key=lambda name: table[name]["f1-score"]),
        "matrix": charts.confusion(matrix, data.classes, "истинный класс", "ответ сети"),
        "most": int(mistakes.max()),
        "confused": (data.classes[truth], data.classes[answer]),
    }


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    main, name = results["main"], results["main"].run.notes["backbone"]
    backbone, body = BACKBONES[name], BACKBONES[name].build().eval()
    load_weights(body, name)
    colour = body.get_submodule(backbone.first)
    x = main.network.normalise(data.test.inputs[:8].float() / 255)
    with torch.inference_mode():
        before = colour(x.expand(-1, 3, -1, -1))
        after = grey_convolution(colour)(x)
    photo = data.test.inputs[options.object]
    output = predict(main.network, photo[None]).softmax(1)[0]
    shown = data.train.inputs[:8]
    prepared = main.network.enlarge(main.network.normalise(shown.float() / 255))
    pictures = [*shown, *map(charts.to_grid, prepared), *v2.functional.horizontal_flip(shown)]
    names = [data.classes[label] for label in data.train.labels[:8]]
    titles = [*names, *["на входе сети"] * 8, *["отражено"] * 8]
    return {
        "language": "ru",
        "backbone": backbone,
        "genuine": is_genuine(backbone),
        "allowed": name in ("vgg11", "googlenet"),
        "blocks": block_table(results["lower"].network, name),
        "difference": float((before - after).abs().max()),
        "magnitude": float(before.abs().max()),
        "first_layer": (tuple(colour.weight.shape), tuple(grey_convolution(colour).weight.shape)),
        "counts": torch.bincount(data.train.labels, minlength=len(data.classes)).tolist(),
        "train": adequacy(main, "train"),
        "test": adequacy(main, "test"),
        "photo": charts.photos([photo], [f"№ {options.object}"], 1),
        "truth": data.classes[data.test.labels[options.object]],
        "answer": data.classes[int(output.argmax())],
        "probability": float(output.max()),
        "bars": charts.bars(data.classes, output.tolist(), "вероятность"),
        "samples": charts.photos(pictures, titles, 8),
        "functions": (grey_convolution, Transfer),
        "low": prepared.min().item(),
        "high": prepared.max().item(),
    }
