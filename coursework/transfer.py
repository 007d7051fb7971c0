"""Fashion-MNIST with a network that was trained on ImageNet.

    python -m coursework transfer

The frozen blocks pass every photo once; what they give is kept, and training sees only that. So an
epoch costs the blocks that learn, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from coursework.data import CourseworkError, DataSet, Photos
from coursework.engine import Recipe, Result, Run, forward_all
from coursework.options import Options
from coursework.pretrained import SIDE, Backbone, Upper, choose, lower
from coursework.report import Assignment
from coursework.transfer_questions import QUESTIONS
from coursework.transfer_report import POINTS, preface

VALIDATION_SHARE = 0.1
COMPARED_PHOTOS = 10_000  # in the comparisons
FULL_EPOCHS = 20

# Two epochs over all photos are enough for weights that are nearly right. The pretrained blocks get
# less than the head's rate, or the random head's first errors would spoil them. AdamW sets in
# faster than SGD here: on 10,000 photos, validation accuracy after two epochs of one cycle of three
# was 0.903 with these rates, and with SGD 0.802 (0.1, 0.01 for the blocks) and 0.783 (0.1, 0.03).
# In float32: the depthwise convolutions of MobileNetV2 train slower in bfloat16.
RECIPE = Recipe(
    epochs=2,
    optimiser="adamw",
    batch_size=64,
    learning_rate=3e-3,  # of MobileNetV2 and GoogLeNet; see Backbone.rate
    weight_decay=1e-4,
    schedule="one-cycle",
    backbone_rate=0.3,
    bfloat16=False,
)
COMPARED = replace(RECIPE, epochs=3)
AUGMENTATION = ("flip", "shift")


def load(options: Options) -> DataSet:
    """Grey photos, a tenth of those for training held out.

    Raises CourseworkError if there is no test photo of the number that was asked for.
    """
    data = options.load("FashionMNIST", SIDE).grey().held_out(VALIDATION_SHARE)
    if not 0 <= (options.object or 0) < len(data.test):
        raise CourseworkError(
            f"there is no test photo {options.object}: --object N is a number from 0 to "
            f"{len(data.test) - 1}"
        )
    return data


def encoded(data: DataSet, trunk: nn.Module, name: str) -> DataSet:
    """The data set with activations in half precision in the place of photos."""
    parts = {
        kind: Photos(forward_all(trunk, photos.inputs).half(), photos.labels, photos)
        for kind in ("train", "validation", "test")
        if (photos := getattr(data, kind))
    }
    return replace(data, name=f"{data.name}, {name}", **parts)


def recipes(backbone: Backbone, options: Options) -> tuple[Recipe, Recipe]:
    """Of the run on all photos, and of those that are compared."""
    rate = RECIPE.learning_rate * backbone.rate
    own = [replace(recipe, learning_rate=rate) for recipe in (RECIPE, COMPARED)]
    return options.recipe(own[0], FULL_EPOCHS), options.recipe(own[1], FULL_EPOCHS)


def runs(data: DataSet, options: Options, results: Mapping[str, Result]) -> Iterator[Run]:
    """The one on all photos, then those that are compared on fewer; or the one from scratch."""
    pretrained = options.weights != "random"
    backbone = choose(options.network, pretrained)
    few = data.subset(None if options.full else COMPARED_PHOTOS)
    if pretrained:
        yield from _pretrained(backbone, data, few, options)
    yield _from_scratch(backbone, few, options)
    if pretrained:
        yield _augmented(backbone, few, options)


def _pretrained(backbone: Backbone, data: DataSet, few: DataSet, options: Options) -> Iterator[Run]:
    frozen, classes = backbone.frozen, len(data.classes)
    recipe, compared = recipes(backbone, options)
    trunk = lower(backbone, frozen, pretrained=True)
    activations = encoded(data, trunk, f"{frozen} pretrained blocks")
    part = activations.subset(len(few.train))  # the same photos as in `few`
    build = partial(Upper, backbone, frozen, True, classes)
    change = f"pretrained; {frozen} blocks frozen, two rates"
    yield Run("all photos", change, build, activations, recipe)
    if compared != recipe or len(part.train) < len(activations.train):  # else it is that run again
        yield Run("pretrained", "the same on fewer photos", build, part, compared)
    one_rate = replace(compared, backbone_rate=1.0)
    yield Run("one rate", "the head's for all blocks", build, part, one_rate)
    everything = len(backbone.blocks())
    features = encoded(part, build().blocks, "all blocks pretrained")
    head = partial(Upper, backbone, everything, True, classes)
    yield Run("head only", "all blocks frozen", head, features, compared)


def _from_scratch(backbone: Backbone, few: DataSet, options: Options) -> Run:
    compared = recipes(backbone, options)[1]
    epochs = max(1, 2 * compared.epochs // 3)
    pixels = encoded(few, lower(backbone, 0, pretrained=False), "enlarged")
    build = partial(Upper, backbone, 0, False, len(few.classes))
    change = "no block frozen, one rate; fewer epochs, since each takes longer"
    recipe = replace(compared, epochs=epochs, backbone_rate=1.0)
    return Run("random weights", change, build, pixels, recipe)


def _augmented(backbone: Backbone, few: DataSet, options: Options) -> Run:
    """Changed photos have to pass the frozen blocks, too, so these are a part of the network."""
    trunk = lower(backbone, backbone.frozen, pretrained=True)
    build = partial(Upper, backbone, backbone.frozen, True, len(few.classes), trunk)
    recipe = replace(recipes(backbone, options)[1], augment=AUGMENTATION)
    return Run("augmented", "as pretrained, with augmentation", build, few, recipe)


ASSIGNMENT = Assignment(
    name="transfer",
    data_set="Fashion-MNIST",
    languages=("en", "ru"),
    summary="""\
What: VGG11, GoogLeNet or, without their weights, MobileNetV2 (--network) from ImageNet to
      Fashion-MNIST; pretrained against random weights, frozen against unfrozen, one learning rate
      against two, with and without augmentation; seven control questions.
Needs: Fashion-MNIST or class folders (--data DIR, or a download of 30 MB; without it, digits),
      and a network's ImageNet weights in torch's cache, or a download of 14 to 500 MB
      (--weights random: one run from scratch, without them).
Time: 8 minutes with MobileNetV2 on 2 cores (AMD EPYC, Zen 4); --full trains for 20 epochs on all
      photos in every run.""",
    load=load,
    runs=runs,
    points=(*POINTS, *QUESTIONS),
    preface=preface,
)
