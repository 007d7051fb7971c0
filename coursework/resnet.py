"""A residual network from scratch on small photos, in five stages.

    python -m coursework resnet

Reproduces a homework whose author went from 20 % to 52.12 % test accuracy on small photos, a stage
at a time. A stage starts from the weights of the one before it where both have the same network;
(b) and (c) change the network, so they start anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from coursework.data import DataSet
from coursework.engine import Normalise, Recipe, Result, Run
from coursework.pages import (
    Options,
    compared,
    page_of,
    plots,
    predictions,
    runs_table,
)
from reporting.page import Page

SUMMARY = """\
What: residual networks from scratch, from a plain BasicBlock network to a fine-tuned ResNet-50
      for small photos, in five stages.
Needs: CIFAR-10 or any folder of class folders, Tiny ImageNet's layout included (--data DIR, or
      CIFAR-10 by download, 170 MB); without it, digits.
Time: 10 minutes on 2 cores (AMD EPYC, Zen 4), with a quarter of the width and 10,000 photos;
      --full takes the whole width, all photos and 30 epochs a stage."""

SIDE = 64  # pixels of photos that come in several sizes: Tiny ImageNet's
WIDTH, FULL_WIDTH = 16, 64  # channels of the first block; 64 is He et al.'s
PHOTOS = 10_000  # trained on without --full
FULL_EPOCHS = 30  # of each stage
VALIDATION_SHARE = 0.1  # the learning rate follows these photos' loss, so they must not be test's


# ------------------------------------------------------------------------------------------------
# The network: He et al., Deep Residual Learning for Image Recognition, CVPR 2016
# ------------------------------------------------------------------------------------------------


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (at stride 1), and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """ReLU of a few convolutions plus a shortcut, which is projected where the shapes differ."""

    expansion: int  # channels that leave the block, by `width`

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.body = self.layers(inputs, width, stride)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width * expansion, H / stride, W / stride)."""
        return self.relu(self.body(x) + self.shortcut(x))


class BasicBlock(Residual):
    """Two 3 x 3 convolutions (section 3.3)."""

    expansion = 1

    def layers(self, inputs: int, width: int, stride: int) -> nn.Sequential:
        """What the shortcut is added to."""
        return nn.Sequential(
            conv_norm(inputs, width, 3, stride), nn.ReLU(inplace=True), conv_norm(width, width, 3)
        )


class Bottleneck(Residual):
    """1 x 1 down, 3 x 3, 1 x 1 up: deeper for the same work (section 4.1)."""

    expansion = 4

    def layers(self, inputs: int, width: int, stride: int) -> nn.Sequential:
        """What the shortcut is added to."""
        return nn.Sequential(
            conv_norm(inputs, width, 1),
            nn.ReLU(inplace=True),
            conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            conv_norm(width, width * self.expansion, 1),
        )


class ResNet(nn.Module):
    """Stem, four groups of residual blocks, global average pooling, dropout, linear layer.

    Takes photos (B, C, H, W) on [0, 1] of any size, gives logits (B, classes). With a small stem
    the first group sees the photo at full size; the stem for ImageNet (7 x 7, stride 2, max
    pooling) leaves it a sixteenth of the pixels.
    """

    def __init__(
        self,
        data: DataSet,
        block: type[Residual],
        depths: Sequence[int],
        width: int,
        small_stem: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small_stem else (7, 2)
        stem = [conv_norm(data.channels, width, kernel, stride), nn.ReLU(inplace=True)]
        stem += [] if small_stem else [nn.MaxPool2d(3, stride=2, padding=1)]
        self.stem = nn.Sequential(Normalise(*data.statistics()), *stem)
        groups, inputs = [], width
        for index, depth in enumerate(depths):
            strides = (2 if index else 1, *(1,) * (depth - 1))
            for stride in strides:
                groups.append(block(inputs, width * 2**index, stride))
                inputs = width * 2**index * block.expansion
        self.groups = nn.Sequential(*groups)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, len(data.classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # for ReLU (He et al., ICCV 2015, equation 10)
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for group in groups:  # each block starts as its shortcut (Goyal et al., 2017, section 5.1)
            nn.init.zeros_(group.body[-1][1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        x = self.groups(self.stem(x))  # (B, width * 8 * expansion, H / 8, W / 8) with a small stem
        return self.head(self.dropout(x.mean((2, 3))))


# ------------------------------------------------------------------------------------------------
# The stages
# ------------------------------------------------------------------------------------------------

RESNET18 = {"block": BasicBlock, "depths": (2, 2, 2, 2)}
RESNET50 = {"block": Bottleneck, "depths": (3, 4, 6, 3)}
PLAIN = Recipe(epochs=6, batch_size=128, learning_rate=0.1, momentum=0.9, augment=("flip",))


@dataclass(frozen=True)
class Stage:
    """One row of the report."""

    label: str
    change: str
    network: dict  # arguments of ResNet
    recipe: Recipe
    goes_on: bool = False  # from the weights of the stage before


def stages() -> list[Stage]:
    """(a) to (e); (d) has two parts."""
    small = RESNET50 | {"small_stem": True}
    # A rate that is too high for the end is divided by ten; decay keeps weights from growing.
    decayed = replace(PLAIN, epochs=4, weight_decay=1e-4, schedule="plateau", patience=1)
    # Patience for a noisier loss; after a cut the network gets an epoch before it is judged again.
    erased = replace(decayed, epochs=2, augment=("flip", "erase"), patience=2, cooldown=1)
    # Twice the rate with twice the photos a step: the noise of the steps stays alike.
    tuned = replace(erased, learning_rate=0.2, batch_size=256, augment=("flip", "rand-augment"))
    return [
        Stage(
            "a BasicBlock", "ResNet-18, mirrored photos", RESNET18 | {"small_stem": False}, PLAIN
        ),
        Stage("b ResNet-50", "Bottleneck blocks", RESNET50 | {"small_stem": False}, PLAIN),
        Stage(
            "c small stem",
            "3 x 3 at stride 1 for 7 x 7 at stride 2, no max pooling; weight decay 1e-4, rate "
            "divided by 10 on a plateau",
            small,
            decayed,
        ),
        Stage(
            "d dropout 0.5",
            "before the last layer; RandomErasing; patience 2, cooldown 1",
            small | {"dropout": 0.5},
            erased,
            goes_on=True,
        ),
        Stage("d dropout 0.7", "more of it", small | {"dropout": 0.7}, erased, goes_on=True),
        Stage(
            "e fine-tuning",
            "RandAugment for RandomErasing, batches of 256, rate 0.2",
            small | {"dropout": 0.7},
            tuned,
            goes_on=True,
        ),
    ]


def report(options: Options) -> Page:
    """Train all stages, and say what each brought."""
    whole = options.load("CIFAR10", SIDE, PHOTOS)
    data = whole.held_out(VALIDATION_SHARE)
    width = FULL_WIDTH if options.full else WIDTH
    page = page_of("A residual network from scratch, in five stages", data, "CIFAR-10")
    page.text(
        f"The first block has {width} channels; the published network has {FULL_WIDTH}. The "
        "assignment's numbers (that width, all photos, "
        f"{FULL_EPOCHS} epochs a stage) are what --full runs."
    )
    results: list[Result] = []
    for stage in stages():
        build = partial(ResNet, data, width=width, **stage.network)
        recipe = options.recipe(stage.recipe, FULL_EPOCHS)
        start = results[-1] if stage.goes_on else None
        run = Run(stage.label, stage.change, build, data, recipe, start)
        options.train(run, results)
    page.heading("Stages")
    runs_table(page, results)
    _show_starts(page, results)
    plots(page, results, options.smoothing)
    page.heading("Sample predictions of the last stage")
    predictions(page, "predictions", results[-1].network, data)
    page.heading("Conclusions")
    page.items(compared(results))
    _conclude(page, results)
    return page


def _show_starts(page: Page, results: Sequence[Result]) -> None:
    page.items(
        f"{r.run.label} starts from the weights of {r.run.start.run.label}."
        if r.run.start
        else f"{r.run.label} starts from random weights"
        + ("." if r is results[0] else ": its network is not that of the stage before.")
        for r in results
    )


def _conclude(page: Page, results: Sequence[Result]) -> None:
    lower = [
        after
        for before, after in pairwise(results)
        if after.final["test_accuracy"] <= before.final["test_accuracy"]
    ]
    if not lower:
        page.text("Each stage beats the one before it.")
    for result in lower:
        page.text(f"Why {result.run.label} is not above the stage before: {_reason(result)}")


def _reason(result: Result) -> str:
    """What the stage's own numbers say."""
    recipe, first, last = result.run.recipe, result.rows[0], result.rows[-1]
    course = (
        f"its validation accuracy went from {first.val_accuracy:.4f} to {last.val_accuracy:.4f}"
    )
    if result.run.start is None:
        return (
            f"it starts anew, and in epochs 1 to {recipe.epochs} {course}; the deeper the network, "
            "the longer it takes at this rate."
        )
    before = result.run.start.rows[-1]
    return (
        f"it begins with a learning rate of {recipe.learning_rate}, where the stage before ended "
        f"with {before.learning_rate:.2g}, and with harder photos ({', '.join(recipe.augment)}); "
        f"{course}, after {before.val_accuracy:.4f} before it. Epochs it had: {recipe.epochs}."
    )
