"""What `resnet` trains: its networks, their settings, and the order of the runs.

Each stage of the story compares runs. One that has the network of the stage before goes on from the
weights that were best on the validation photos there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from coursework.data import DataSet
from coursework.engine import Normalise, Recipe, Result, Run
from coursework.options import Options
from coursework.report import Phrases

NAME = "resnet"
SIDE = 64  # pixels of photos that come in several sizes: Tiny ImageNet's
VALIDATION_SHARE = 0.1  # schedules and choices follow these photos, so they must not be test's

# The reduced version, for at most 15 minutes on 2 cores. With a quarter of the width and batches of
# 128 an epoch of 9,000 photos (and 1,000 to validate) took 2 s for the BasicBlock network, 5 s for
# the plain ResNet-50, 40 s for the one with a small stem. Processor time a photo of the last: 0.76
# of that with batches of 64, which stay in the cache, and 0.34 with an eighth of the width as well:
# 14 s an epoch. So the 31 epochs with a small stem are 434 s, the 20 and 12 of the others at most
# 100 s, the accuracies of 15 networks on 13,000 photos each 80 s, augmentation and pictures 90 s.
WIDTH, FULL_WIDTH = 8, 64  # channels of the first blocks; 64 is He et al.'s
PHOTOS, TEST_PHOTOS = 10_000, 4_000  # trained on, of them a tenth for validation; tested on


# ------------------------------------------------------------------------------------------------
# The network: He et al., Deep Residual Learning for Image Recognition, CVPR 2016
# ------------------------------------------------------------------------------------------------


def network(
    data: DataSet,
    block: type[nn.Module],
    depths: Sequence[int],
    width: int,
    small_stem: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Photos (B, C, H, W) on [0, 1], of any size -> logits (B, classes).

    The stem has 64 channels, the first group of blocks `width` (times 4 where they end, for
    Bottleneck). Each block starts as its shortcut: the gain of its last batch norm is 0 (Goyal et
    al., 2017, section 5.1).
    """
    widths = tuple(width * 2**group for group in range(4))
    body = ResNet(block, depths, num_classes=0, in_chans=data.channels, channels=widths)
    if small_stem:
        shrink_stem(body)
    layers = {
        "normalise": Normalise(*data.statistics()),
        "backbone": body,  # (B, C, H, W) -> (B, F), averaged over all places
        "dropout": nn.Dropout(dropout),
        "head": nn.Linear(body.num_features, len(data.classes)),
    }
    return nn.Sequential(OrderedDict(layers))


def shrink_stem(body: ResNet) -> None:
    """The first group sees the photo at full size, not a sixteenth of its pixels."""
    conv = body.conv1  # 7 x 7, stride 2
    body.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
    body.maxpool = nn.Identity()
    body.init_weights()  # the new convolution, too, for ReLU (He et al., ICCV 2015, equation 10)


# ------------------------------------------------------------------------------------------------
# The runs of the story
# ------------------------------------------------------------------------------------------------

RESNET18 = {"block": BasicBlock, "depths": (2, 2, 2, 2)}
RESNET50 = {"block": Bottleneck, "depths": (3, 4, 6, 3)}
SMALL = RESNET50 | {"small_stem": True}
FLIPS = ("flip", "vertical-flip")

# With all photos batches are twice as large: a processor is quicker with 64, a GPU with 128.
PLAIN = Recipe(epochs=4, batch_size=64, learning_rate=0.1, momentum=0.9)
DECAYED = replace(PLAIN, weight_decay=1e-4)
PLATEAU = replace(DECAYED, epochs=3, schedule="plateau", patience=0)
# A noisier loss gets more patience; after a cut the network has some epochs before it is judged.
PATIENT = replace(PLATEAU, patience=1, cooldown=1)
MANY = {"patience": 5, "cooldown": 2}  # the same where there are many epochs


@dataclass(frozen=True)
class Step:
    """A run of the story."""

    label: str  # begins with the number of its stage
    network: Mapping[str, Any]  # arguments of `network`
    recipe: Recipe  # of the reduced version, without augmentation
    full: Mapping[str, Any] = field(default_factory=dict)  # what is other with all photos
    follows: str = ""  # goes on from that run, or from the best one of that stage
    adds: Sequence[str] = ()  # augmentations beside those of the run that it goes on from
    replaces: bool = False  # or instead of them


# Of the story's epochs 20, 50, 100 and 75 are known; 30 are ours.
PLAN = (
    Step("1 BasicBlock", RESNET18, replace(PLAIN, epochs=6), {"epochs": 20}),
    Step("1 longer", RESNET18, replace(PLAIN, epochs=14), {"epochs": 50}, "1 BasicBlock"),
    Step("2 SGD", RESNET50, replace(PLAIN, epochs=6), adds=FLIPS),
    Step(
        "2 Adam",
        RESNET50,
        replace(PLAIN, epochs=6, optimiser="adam", learning_rate=1e-3),
        adds=FLIPS,
    ),
    Step("3 small stem", SMALL, PLAIN, adds=FLIPS),
    Step("3 weight decay", SMALL, DECAYED, adds=FLIPS),
    Step("4 flips", SMALL, replace(DECAYED, epochs=2), follows="3 weight decay"),
    *(
        Step(f"4 {name}", SMALL, replace(DECAYED, epochs=2), {}, "3 weight decay", (name,))
        for name in ("grey", "blur", "jitter")
    ),
    Step("5 plateau", SMALL, PLATEAU, {"patience": 3}, "4"),
    Step("5 multi-step", SMALL, replace(DECAYED, epochs=3, schedule="multi-step"), {}, "4"),
    Step("6 dropout 0.5", SMALL | {"dropout": 0.5}, PATIENT, MANY, "5", ("erase",)),
    Step("7 dropout 0.7", SMALL | {"dropout": 0.7}, PATIENT, MANY | {"epochs": 100}, "6"),
    Step(
        "8 fine-tuning",
        SMALL | {"dropout": 0.7},
        # Twice the rate with twice the photos a step: the noise of the steps stays alike.
        replace(PATIENT, learning_rate=0.2, batch_size=128),
        MANY | {"epochs": 75},
        "7",
        (*FLIPS, "rand-augment"),
        replaces=True,
    ),
)
FULL_EPOCHS = {step.label: step.full.get("epochs", 30) for step in PLAN}


def load(options: Options) -> DataSet:
    """The photos, with some of them held out for validation."""
    data = options.load("CIFAR10", SIDE, PHOTOS)
    return data.subset(None, None if options.full else TEST_PHOTOS).held_out(VALIDATION_SHARE)


def runs(data: DataSet, options: Options, results: Mapping[str, Result]) -> Iterator[Run]:
    """All of them, in the story's order."""
    width = FULL_WIDTH if options.full else WIDTH
    say = Phrases(NAME, "en")
    for step in PLAN:
        start = best(results, step.follows) if step.follows else None
        build = partial(network, data, width=width, **step.network)
        recipe = recipe_of(step, options, start)
        yield Run(step.label, say(f"change {step.label}"), build, data, recipe, start)


def best(results: Mapping[str, Result], beginning: str) -> Result:
    """Of the runs whose labels begin so, the one that is best on the validation photos."""
    compared = [result for label, result in results.items() if label.startswith(beginning)]
    return max(compared, key=lambda result: result.rows[-1].val_accuracy)


def recipe_of(step: Step, options: Options, start: Result | None) -> Recipe:
    """A step's settings in the version that was asked for."""
    recipe = step.recipe
    if options.full:
        recipe = replace(recipe, batch_size=2 * recipe.batch_size, **step.full)
    kept = start.run.recipe.augment if start and not step.replaces else ()
    recipe = replace(recipe, augment=(*kept, *step.adds))
    recipe = options.recipe(recipe, FULL_EPOCHS[step.label])
    if recipe.schedule != "multi-step":
        return recipe
    # At a half and three quarters of the epochs, as He et al. do (section 4.2).
    cuts = {max(1, recipe.epochs // 2), max(1, 3 * recipe.epochs // 4)}
    return replace(recipe, milestones=tuple(sorted(cuts)))
