"""Networks of torchvision that were trained on ImageNet, made to take grey photos and new classes.

They are rows of blocks: the lower ones are frozen, the upper ones learn, a new head answers.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision import models

from coursework.data import CourseworkError
from coursework.engine import Normalise

SIDE = 28
INPUT_SIDE = 56  # pixels: each one of Fashion-MNIST's twice; at 28 the last blocks would see 1 x 1

# ------------------------------------------------------------------------------------------------
# Which there are
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision as a row of blocks that ends before its pooling."""

    name: str  # on the command line
    title: str  # in texts
    blocks: Callable[[], nn.Sequential]  # for three channels, with random weights
    weights: models.WeightsEnum
    prefix: str  # of the blocks' names in the file of weights
    channels: int  # that the last block gives
    frozen: int  # blocks that keep their weights, counted from the input
    rate: float = 1.0  # times the recipe's learning rate
    mean: float = 0.449  # of ImageNet photos, over all channels
    std: float = 0.226

    @property
    def file(self) -> str:
        """Its ImageNet weights as torchvision names them."""
        return self.weights.url.rpartition("/")[2]


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


# In the order of preference: the assignment allows the first two.
NETWORKS = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "vgg11",
            "VGG11",
            _vgg11,
            models.VGG11_Weights.IMAGENET1K_V1,
            "features.",
            channels=512,
            frozen=11,
            # It has no batch norm: from random weights, three epochs on 400 digits ended at a test
            # accuracy of 0.10 with rate 1, and of 0.84 with this one.
            rate=0.1,
        ),
        # Its ImageNet weights expect photos on [-1, 1].
        Backbone(
            "googlenet",
            "GoogLeNet",
            _googlenet,
            models.GoogLeNet_Weights.IMAGENET1K_V1,
            "",
            channels=1024,
            frozen=7,
            mean=0.5,
            std=0.5,
        ),
        Backbone(
            "mobilenet_v2",
            "MobileNetV2",
            lambda: models.mobilenet_v2().features,
            models.MobileNet_V2_Weights.IMAGENET1K_V1,
            "features.",
            channels=1280,
            frozen=7,
        ),
    )
}
ALLOWED = ("vgg11", "googlenet")  # by the assignment


def choose(asked: str | None, pretrained: bool) -> Backbone:
    """The network that was asked for, or the first one whose ImageNet weights can be had.

    Raises CourseworkError if there are weights of none.
    """
    if asked or not pretrained:
        return NETWORKS[asked or ALLOWED[0]]
    reasons = {}
    for backbone in NETWORKS.values():
        try:
            imagenet_state(backbone)
        except CourseworkError as error:
            reasons[backbone.title] = error
            continue
        if reasons:
            missing, (reason, *_) = " and ".join(reasons), reasons.values()
            print(f"{backbone.title} in the place of {missing}: {reason}", file=sys.stderr)
        return backbone
    first, *others = reasons
    raise CourseworkError(f"{reasons[first]}; nor are there any of {' or '.join(others)}")


def imagenet_state(backbone: Backbone) -> Mapping[str, Tensor]:
    """The weights from torch's cache, downloaded if need be.

    Raises CourseworkError if they are neither there nor to be downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with redirect_stderr(sys.stdout):  # where torch 2.14 says that it is downloading, 2.6 not
            return backbone.weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise CourseworkError(
            f"no ImageNet weights of {backbone.title} ({reason}): put {backbone.file} into "
            f"{folder} (the folder $TORCH_HOME/hub/checkpoints), or be online once"
        ) from None


# ------------------------------------------------------------------------------------------------
# Their first layer
# ------------------------------------------------------------------------------------------------


def colour_blocks(backbone: Backbone, pretrained: bool) -> nn.Sequential:
    """The blocks for three channels, on pretrained or random weights.

    Raises CourseworkError as `imagenet_state` does.
    """
    blocks = backbone.blocks()
    if pretrained:
        state, expected = imagenet_state(backbone), blocks.state_dict()
        named = {name.removeprefix(backbone.prefix): value for name, value in state.items()}
        blocks.load_state_dict({name: named[name] for name in expected if name in named})
    return blocks


def first_convolution(blocks: nn.Module) -> tuple[str, nn.Conv2d]:
    """Its name and itself."""
    return next((n, m) for n, m in blocks.named_modules() if isinstance(m, nn.Conv2d))


def grey_first_convolution(blocks: nn.Module) -> None:
    """Make the first convolution take one channel instead of three, with the same result.

    A grey photo as three channels has the same value in each of them, so the convolution adds up
    w_r x + w_g x + w_b x: one channel with the weight w_r + w_g + w_b gives the same activations.
    That sum is what timm makes of the weights for one channel.
    """
    name, conv = first_convolution(blocks)
    shape = (conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    grey = nn.Conv2d(1, *shape, bias=conv.bias is not None)
    summed = adapt_input_conv(1, conv.weight.detach())  # (C, 3, k, k) -> (C, 1, k, k)
    grey.load_state_dict(conv.state_dict() | {"weight": summed})
    blocks.set_submodule(name, grey)


def grey_blocks(backbone: Backbone, pretrained: bool) -> nn.Sequential:
    """The blocks for one channel, on pretrained or random weights."""
    blocks = colour_blocks(backbone, pretrained)
    grey_first_convolution(blocks)
    return blocks


# ------------------------------------------------------------------------------------------------
# What is frozen, and what learns
# ------------------------------------------------------------------------------------------------


def preparation(backbone: Backbone) -> nn.Sequential:
    """Photos (B, 1, H, W) on [0, 1] -> normalised and enlarged, (B, 1, 2 H, 2 W)."""
    enlarge = nn.Upsample(scale_factor=INPUT_SIDE / SIDE, mode="bilinear")
    return nn.Sequential(Normalise([backbone.mean], [backbone.std]), enlarge)


def lower(backbone: Backbone, frozen: int, pretrained: bool) -> nn.Sequential:
    """What no training changes: photos (B, 1, H, W) on [0, 1] -> activations (B, C, h, w)."""
    prepare = preparation(backbone)
    return prepare.extend(grey_blocks(backbone, pretrained)[:frozen] if frozen else ())


class Upper(nn.Module):
    """The blocks that learn, global average pooling, dropout, and a new output layer.

    Takes what the frozen blocks give, (B, C, h, w) of any size, or photos if it has those blocks
    as its trunk; gives logits (B, classes).
    """

    def __init__(
        self,
        backbone: Backbone,
        frozen: int,
        pretrained: bool,
        classes: int,
        trunk: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.frozen, self.pretrained = backbone, frozen, pretrained
        self.blocks = grey_blocks(backbone, pretrained)[frozen:]
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(backbone.channels, classes)
        self.trunk = (trunk or nn.Identity()).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, classes)."""
        x = self.blocks(self.trunk(x))  # (B, channels, h', w')
        return self.head(self.dropout(x.mean((2, 3))))

    def train(self, mode: bool = True) -> Upper:
        """Frozen means frozen: the trunk's batch norms keep their statistics, too."""
        super().train(mode)
        self.trunk.eval()
        return self
