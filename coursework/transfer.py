"""Fashion-MNIST with a network that was trained on ImageNet.

    python -m coursework transfer

The frozen blocks pass every photo once; what they give is kept, and training sees only that. So an
epoch costs the blocks that learn, and nothing else.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torchvision import models

from coursework.data import CourseworkError, DataSet, Photos
from coursework.engine import Normalise, Recipe, Result, Run, forward_all, probabilities
from coursework.pages import (
    Options,
    page_of,
    plots,
    predictions,
    runs_table,
)
from reporting.charts import confusion
from reporting.page import Page

SUMMARY = """\
What: MobileNetV2 (or VGG11, GoogLeNet: --network) from ImageNet to Fashion-MNIST; pretrained
      against random weights, frozen against unfrozen, one learning rate against two.
Needs: Fashion-MNIST or class folders (--data DIR, or a download of 30 MB; without it, digits),
      and the network's ImageNet weights in torch's cache, or a download of 14 to 500 MB.
Time: 7 minutes on 2 cores (AMD EPYC, Zen 4); --full trains for 20 epochs on all photos in every
      run."""

SIDE = 28
INPUT_SIDE = 56  # pixels: each one of Fashion-MNIST's twice; at 28 the last blocks would see 1 x 1
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
    learning_rate=3e-3,
    weight_decay=1e-4,
    schedule="one-cycle",
    backbone_rate=0.3,
    bfloat16=False,
)
COMPARED = replace(RECIPE, epochs=3)

# ------------------------------------------------------------------------------------------------
# The networks
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision as a row of blocks that ends before its pooling."""

    blocks: Callable[[], nn.Sequential]  # for three channels, with random weights
    weights: models.WeightsEnum
    prefix: str  # of the blocks' names in the file of weights
    channels: int  # that the last block gives
    frozen: int  # blocks that keep their weights, counted from the input
    mean: float = 0.449  # of ImageNet photos, over all channels
    std: float = 0.226


def _vgg11() -> nn.Sequential:
    with torch.device("meta"):  # its 120 million weights after the last block are not wanted
        blocks = models.vgg11(init_weights=False).features
    blocks.to_empty(device="cpu")
    for module in blocks.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return blocks


def _googlenet() -> nn.Sequential:
    network = models.googlenet(weights=None, aux_logits=False, init_weights=False)
    children = dict(network.named_children())
    for name in ("avgpool", "dropout", "fc"):
        del children[name]
    return nn.Sequential(OrderedDict(children))


NETWORKS = {
    "mobilenet_v2": Backbone(
        lambda: models.mobilenet_v2().features,
        models.MobileNet_V2_Weights.IMAGENET1K_V1,
        "features.",
        channels=1280,
        frozen=7,
    ),
    "vgg11": Backbone(
        _vgg11, models.VGG11_Weights.IMAGENET1K_V1, "features.", channels=512, frozen=11
    ),
    # Its ImageNet weights expect photos on [-1, 1].
    "googlenet": Backbone(
        _googlenet,
        models.GoogLeNet_Weights.IMAGENET1K_V1,
        "",
        channels=1024,
        frozen=7,
        mean=0.5,
        std=0.5,
    ),
}


def grey_first_convolution(blocks: nn.Module) -> None:
    """Make the first convolution take one channel instead of three, with the same result.

    A grey photo as three channels has the same value in each of them, so the convolution adds up
    w_r x + w_g x + w_b x: one channel with the weight w_r + w_g + w_b gives the same activations.
    """
    name, conv = next((n, m) for n, m in blocks.named_modules() if isinstance(m, nn.Conv2d))
    grey = nn.Conv2d(
        1,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        bias=conv.bias is not None,
    )
    state = conv.state_dict()
    grey.load_state_dict(state | {"weight": state["weight"].sum(1, keepdim=True)})
    blocks.set_submodule(name, grey)


def grey_blocks(backbone: Backbone, pretrained: bool) -> nn.Sequential:
    """The blocks for one channel, on pretrained or random weights.

    Raises CourseworkError if the pretrained weights are neither there nor to be downloaded.
    """
    blocks = backbone.blocks()
    if pretrained:
        state, expected = imagenet_state(backbone.weights), blocks.state_dict()
        named = {name.removeprefix(backbone.prefix): value for name, value in state.items()}
        blocks.load_state_dict({name: named[name] for name in expected if name in named})
    grey_first_convolution(blocks)
    return blocks


def imagenet_state(weights: models.WeightsEnum) -> Mapping[str, Tensor]:
    """The weights from torch's cache, downloaded if need be."""
    folder, name = Path(torch.hub.get_dir()) / "checkpoints", weights.url.rpartition("/")[2]
    try:
        with redirect_stderr(sys.stdout):  # where torch 2.14 says that it is downloading, 2.6 not
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise CourseworkError(
            f"no ImageNet weights ({reason}): put {name} into {folder} (the folder "
            "$TORCH_HOME/hub/checkpoints), or be online once"
        ) from None


class Upper(nn.Module):
    """The blocks that learn, global average pooling, dropout, and a new output layer.

    Takes what the frozen blocks give, (B, C, h, w) of any size; gives logits (B, classes).
    """

    def __init__(self, blocks: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.blocks, self.dropout = blocks, nn.Dropout(0.2)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, classes)."""
        x = self.blocks(x)  # (B, channels, h', w')
        return self.head(self.dropout(x.mean((2, 3))))


def lower(backbone: Backbone, frozen: int, pretrained: bool) -> nn.Sequential:
    """What no training changes: photos (B, 1, H, W) on [0, 1] -> activations (B, C, h, w)."""
    enlarge = nn.Upsample(scale_factor=INPUT_SIDE / SIDE, mode="bilinear")
    prepare = nn.Sequential(Normalise([backbone.mean], [backbone.std]), enlarge)
    return prepare.extend(grey_blocks(backbone, pretrained)[:frozen] if frozen else ())


def upper(backbone: Backbone, frozen: int, pretrained: bool, classes: int) -> Upper:
    """What training changes."""
    return Upper(grey_blocks(backbone, pretrained)[frozen:], backbone.channels, classes)


def encoded(data: DataSet, trunk: nn.Module, name: str) -> DataSet:
    """The data set with activations in half precision in the place of photos."""
    parts = {
        kind: Photos(forward_all(trunk, photos.inputs).half(), photos.labels, photos)
        for kind in ("train", "validation", "test")
        if (photos := getattr(data, kind))
    }
    return replace(data, name=f"{data.name}, {name}", **parts)


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def report(options: Options) -> Page:
    """Train on all photos, then compare on a part of them."""
    data = options.load("FashionMNIST", SIDE).grey().held_out(VALIDATION_SHARE)
    backbone, name = NETWORKS[options.network], options.network
    page = page_of(f"Fashion-MNIST with {name} from ImageNet", data, "Fashion-MNIST")
    trunk = lower(backbone, backbone.frozen, pretrained=True)
    activations = encoded(data, trunk, f"{backbone.frozen} pretrained blocks")
    results: list[Result] = []
    runs = runs_of(backbone, data, activations, options)
    best, *compared = (options.train(run, results) for run in runs)
    _show_method(page, backbone)
    page.heading("Runs")
    runs_table(page, results)
    plots(page, results, options.smoothing)
    page.heading(f"Test photos and the answers of the run on {best.run.label}")
    logits = forward_all(best.network, activations.test.inputs, RECIPE.bfloat16)
    matrix = confusion_matrix(data.test.labels, logits.argmax(1), labels=range(len(data.classes)))
    page.picture(confusion("confusion", matrix, data.classes, "Test photos."))
    page.heading("One chosen object, and some others")
    network = nn.Sequential(trunk, best.network)
    _show_one(page, network, data)
    predictions(page, "predictions", network, data)
    page.heading("Control questions")
    page.items(answers(*compared))
    return page


def runs_of(backbone: Backbone, data: DataSet, activations: DataSet, options: Options) -> list[Run]:
    """The one on all photos, and four to compare on fewer."""
    few = None if options.full else COMPARED_PHOTOS
    part, frozen, classes = activations.subset(few), backbone.frozen, len(data.classes)
    everything = len(backbone.blocks())
    build = partial(upper, backbone, frozen, True, classes)
    recipe, compared = (options.recipe(r, FULL_EPOCHS) for r in (RECIPE, COMPARED))
    one_rate = replace(compared, backbone_rate=1.0)
    features = encoded(part, build().blocks, "all blocks pretrained")
    pixels = encoded(data.subset(few), lower(backbone, 0, pretrained=False), "enlarged")
    head = partial(upper, backbone, everything, True, classes)
    random = partial(upper, backbone, 0, False, classes)
    return [
        Run(
            "all photos",
            f"pretrained; {frozen} blocks frozen, two rates",
            build,
            activations,
            recipe,
        ),
        Run("pretrained", "the same on fewer photos", build, part, compared),
        Run("one rate", "the head's for all blocks", build, part, one_rate),
        Run("head only", "all blocks frozen", head, features, compared),
        Run(
            "random weights",
            "no block frozen, one rate; fewer epochs, since each takes longer",
            random,
            pixels,
            replace(one_rate, epochs=max(1, 2 * compared.epochs // 3)),
        ),
    ]


def _show_method(page: Page, backbone: Backbone) -> None:
    page.heading("Method")
    page.items(
        [
            f"Photos are enlarged to {INPUT_SIDE} x {INPUT_SIDE}; one channel, normalised by the "
            f"mean {backbone.mean} and the deviation {backbone.std} of the network's own data.",
            "The first convolution takes one channel: its weight is the sum of the pretrained "
            "weights of the three colours, which gives what three equal channels would give.",
            "After the last block: mean over all places, dropout, a new output layer.",
            "Frozen blocks pass each photo once, before the first epoch; the seconds below are "
            "those of the epochs, without that pass.",
        ]
    )


def _show_one(page: Page, network: nn.Module, data: DataSet, chosen: int = 0) -> None:
    p, label = probabilities(network, data.test.inputs[[chosen]])[0], int(data.test.labels[chosen])
    page.text(f"Test photo {chosen} shows: {data.classes[label]}. The network's answers:")
    first = p.topk(3)
    page.table(
        ("answer", "probability"),
        [
            (data.classes[i], f"{value:.4f}")
            for value, i in zip(first.values.tolist(), first.indices.tolist(), strict=True)
        ],
    )


def answers(pretrained: Result, one_rate: Result, head: Result, random: Result) -> list[str]:
    """The control questions, answered by the runs on equally many photos."""

    def against(other: Result) -> str:
        return " against ".join(
            f"{r.final['test_accuracy']:.4f} (in {r.seconds:.0f} s)" for r in (pretrained, other)
        )

    return [
        f"Pretrained against random weights: {against(random)}.",
        f"Upper blocks unfrozen against all blocks frozen: {against(head)}.",
        f"{RECIPE.backbone_rate:g} times the head's rate for the blocks against one rate for all: "
        f"{against(one_rate)}.",
    ]
