"""A residual network on CIFAR-10, after a student's report: each comparison is a run of its own.

Report: Russian. Needs CIFAR-10 (--data DIR, or a download of 170 MB). --full has the report's own
numbers and is for a GPU.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torchvision.transforms import v2

from coursework import charts
from coursework.data import DataSet, Options
from coursework.engine import Recipe, Result, Run
from coursework.pages import Comparison, compare

NAME, LANGUAGE = "resnet", "ru"
SIDE = 32
PHOTOS, TEST_PHOTOS = 5_000, 5_000  # of the default
WIDTH, FULL_WIDTH = 8, 64  # channels of the first blocks; 64 is He et al.'s


def network(
    data: DataSet,
    width: int,
    block: Any = Bottleneck,
    depths: tuple[int, ...] = (3, 4, 6, 3),
    small_stem: bool = False,
    dropout: float = 0.0,
    plain_statistics: bool = False,
) -> nn.Sequential:
    """Photos (B, C, H, W) on [0, 1] -> logits (B, classes). He et al., CVPR 2016."""
    widths = tuple(width * 2**group for group in range(4))
    body = ResNet(block, depths, num_classes=0, in_chans=data.channels, channels=widths)
    if small_stem:
        shrink_stem(body)
    half = [0.5] * data.channels
    statistics = (half, half) if plain_statistics else data.statistics()
    layers = {
        "normalise": v2.Normalize(*statistics),
        "backbone": body,  # (B, C, H, W) -> (B, F), averaged over all places
        "dropout": nn.Dropout(dropout),
        "head": nn.Linear(body.num_features, len(data.classes)),
    }
    return nn.Sequential(OrderedDict(layers))


def shrink_stem(body: Any) -> None:
    """Let the first blocks see the photo at full size, not a sixteenth of its pixels."""
    conv = body.conv1  # 7 x 7, stride 2
    body.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
    body.maxpool = nn.Identity()
    body.init_weights()  # the new convolution, too, for ReLU (He et al., ICCV 2015)


HORIZONTAL, VERTICAL = v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()
FLIPS = (v2.RandomChoice([HORIZONTAL, VERTICAL]),)
GREY, BLUR = v2.RandomGrayscale(0.1), v2.GaussianBlur(3, sigma=(0.1, 1.0))
JITTER, ERASE = v2.ColorJitter(0.3, 0.3, 0.3), v2.RandomErasing(0.5)
RANDOM = v2.RandAugment()


@dataclass(frozen=True)
class Step:
    """A run, and what it is compared with."""

    label: str
    title: str
    changed: str  # the one thing, against `against`
    against: str = ""
    story: int | None = None  # in the story: 1 helped, -1 harmed, 0 no difference, None unknown
    network: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)  # of the recipe, with --full
    augment: Sequence[v2.Transform] | None = None
    start: str = ""  # continued from that run


BASIC = {"block": BasicBlock, "depths": (2, 2, 2, 2)}
STEPS = (
    Step("basic", "BasicBlockNet", "основа", network=BASIC, recipe={"epochs": 20},
         augment=(HORIZONTAL,)),
    Step("basic-multistep", "BasicBlockNet с MultiStepLR", "MultiStepLR", "basic", -1,
         recipe={"schedule": "multi-step"}),
    Step("basic-longer", "BasicBlockNet, дольше", "в 2,5 раза больше эпох", "basic", -1,
         recipe={"epochs": 30}, start="basic"),
    Step("plain", "ResNet-50", "основа", recipe={"epochs": 8}, full={"epochs": 30}, augment=FLIPS),
    Step("horizontal", "только RandomHorizontalFlip", "только RandomHorizontalFlip", "plain", 0,
         augment=(HORIZONTAL,)),
    Step("vertical", "только RandomVerticalFlip", "только RandomVerticalFlip", "plain", 0,
         augment=(VERTICAL,)),
    Step("half", "нормализация 0,5", "среднее и отклонение 0,5 вместо своих", "plain", -1,
         network={"plain_statistics": True}),
    Step("adam", "Adam", "Adam со скоростью 0,001 вместо SGD", "plain", -1,
         recipe={"optimiser": "adam", "learning_rate": 1e-3}),
    Step("stem", "маленькие ядра", "3 × 3, шаг 1 вместо 7 × 7, шаг 2, без max pooling", "plain",
         network={"small_stem": True}),
    Step("decay", "weight decay", "weight decay 0,0001", "stem", recipe={"weight_decay": 1e-4}),
    Step("plateau", "ReduceLROnPlateau", "ReduceLROnPlateau", "decay",
         recipe={"schedule": "plateau", "patience": 0}, full={"patience": 10}),
    Step("multistep", "MultiStepLR", "MultiStepLR вместо ReduceLROnPlateau", "plateau", -1,
         recipe={"schedule": "multi-step"}),
    Step("grey", "RandomGrayscale", "RandomGrayscale", "plateau", augment=(*FLIPS, GREY)),
    Step("blur", "GaussianBlur", "GaussianBlur", "plateau", augment=(*FLIPS, BLUR)),
    Step("jitter", "ColorJitter", "ColorJitter", "plateau", -1, augment=(*FLIPS, JITTER)),
    Step("dropout", "dropout 0,5", "dropout 0,5", "grey", network={"dropout": 0.5}),
    Step("erase", "RandomErasing", "RandomErasing", "dropout", 1, augment=(*FLIPS, GREY, ERASE)),
    Step("patient", "patience и cooldown", "patience и cooldown", "erase",
         recipe={"patience": 1, "cooldown": 1}, full={"patience": 5, "cooldown": 2}),
    Step("dropout-0.7", "dropout 0,7", "0,7 вместо 0,5", "patient", network={"dropout": 0.7}),
    Step("longer", "dropout 0,7, дольше", "больше эпох", "dropout-0.7", 1, recipe={"epochs": 12},
         full={"epochs": 70}, start="dropout-0.7"),
    Step("randaugment", "RandAugment", "дообучение с RandAugment вместо прежних transforms",
         "longer", 1, recipe={"epochs": 5}, full={"epochs": 30}, augment=(RANDOM,), start="longer"),
    Step("batch", "batch size 128", "batch size 128 вместо 64", "randaugment",
         recipe={"batch_size": 128}, start="longer"),
    Step("batch-longer", "batch size 128, дольше", "больше эпох", "batch", -1,
         recipe={"epochs": 7}, full={"epochs": 45}, start="batch"),
    Step("rate", "lr 0,2", "ещё немного эпох со скоростью 0,2", "batch", 1, full={"epochs": 5},
         recipe={"epochs": 2, "learning_rate": 0.2}, start="batch"),
)  # fmt: skip

# Test accuracies of the story in per cent, by the step at which they were reached.
STORY = {"basic": 20, "basic-multistep": 6, "plain": 20, "grey": 30, "patient": 40, "longer": 45,
         "batch": 51.98, "rate": 52.12}  # fmt: skip
STAGES = {"2": "basic", "3": "plain", "4": "grey", "5": "longer", "6": "rate"}  # their last runs


def resolve(label: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple]:
    """Return a step's network, recipe, its changes with --full, and augmentation."""
    step = next(step for step in STEPS if step.label == label)
    empty: tuple = ({}, {"learning_rate": 0.1, "momentum": 0.9}, {}, ())
    nets, recipe, full, augment = resolve(step.against) if step.against else empty
    own = augment if step.augment is None else tuple(step.augment)
    return {**nets, **step.network}, {**recipe, **step.recipe}, {**full, **step.full}, own


def load(options: Options) -> DataSet:
    """Return the photos, a tenth of them held out for validation."""
    data = options.load("CIFAR10", SIDE, PHOTOS)
    return data.subset(None, None if options.full else TEST_PHOTOS).held_out(0.1)


def runs(data: DataSet, options: Options) -> list[Run]:
    """Return all of them, in the story's order."""
    width, wanted = FULL_WIDTH if options.full else WIDTH, []
    for step in STEPS:
        nets, own, full, augment = resolve(step.label)
        recipe = Recipe(**own | (full if options.full else {})).asked(options)
        build = partial(network, width=width, **nets)
        wanted.append(Run(step.label, step.title, build, data, recipe, augment, step.start))
    return wanted


class Verdict(NamedTuple):
    """A step beside the run that it is compared with."""

    step: Step
    comparison: Comparison
    agrees: bool | None  # with the story; None: unknown there, or within chance here


def verdicts(results: Mapping[str, Result]) -> dict[str, Verdict]:
    """Return the comparisons by the steps' labels, in the story's order."""
    found = {}
    for step in (step for step in STEPS if step.against):
        c = compare(results[step.against], results[step.label])
        unknown = step.story is None or (c.sign == 0 and step.story != 0)
        found[step.label] = Verdict(step, c, None if unknown else c.sign == step.story)
    return found


def overfits(before: Result, after: Result) -> bool:
    """Return whether a continued run's validation loss ended above its least, training's below."""
    least, last = min([*before.rows, *after.rows], key=lambda r: r["val_loss"]), after.rows[-1]
    return last["val_loss"] > least["val_loss"] and last["train_loss"] < least["train_loss"]


def context(data: DataSet, results: Mapping[str, Result], options: Options) -> dict[str, Any]:
    """Return what the template needs beside the results."""
    photos = data.train.inputs[:6]
    changes = {"без изменений": nn.Identity(), "отражение": FLIPS[0], "GaussianBlur": BLUR,
               "ColorJitter": JITTER, "RandomGrayscale": v2.RandomGrayscale(1.0),
               "RandomErasing": v2.RandomErasing(1.0), "RandAugment": RANDOM}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = [change(photo) for change in changes.values() for photo in photos]
    titles = [title for title in changes for _ in photos]
    return {
        "stages": {number: results[label] for number, label in STAGES.items()},
        "verdicts": verdicts(results),
        "width": FULL_WIDTH if options.full else WIDTH,
        "samples": charts.photos(shown, titles, len(photos)),
    }
