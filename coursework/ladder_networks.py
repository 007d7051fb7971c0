"""What the assignment `ladder` trains: eight networks, each one change away from the one before.

The runs of points 6 to 12 share one recipe, so that only the architecture differs between two of
them. With it no network is done in a few epochs; the last run trains the network of point 12 with
another recipe, to show what that network can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from coursework.data import DataSet, Photos
from coursework.engine import Recipe, Result, Run, count_parameters
from coursework.options import Options
from coursework.report import Phrases

SIDE = 32  # pixels
FILTERS = (20, 40, 80, 160)  # doubled whenever pooling halves the sides: the work stays alike
DROPOUT = (0.1, 0.2, 0.3, 0.4)  # more towards the end, where most parameters are

# Labels of the runs: the point that each answers first, and its change. They name the checkpoints.
MINIMAL, WIDER = "3 minimal", "8.1 filters"
SIGMOID, RELU = "8.2 sigmoid", "8.3 ReLU"
DEEPER, NORM, DROPPED = "9 four blocks", "10 batch norm", "11 dropout"
ANY_SIZE, TUNED = "12 any size", "12 tuned"
COMPARED = (MINIMAL, WIDER, SIGMOID, RELU, DEEPER, NORM, DROPPED, ANY_SIZE)

# The assignment's: small steps, no schedule, inputs only scaled to [0, 1].
ASSIGNED = Recipe(epochs=150, batch_size=64, learning_rate=1e-3, momentum=0.9)

# What point 12's network needs to get somewhere in few epochs. Batch norm allows a rate a hundred
# times as high; one cycle warms up to it and ends near zero, so that the last epochs settle.
# A mirrored photo is as good as a new one. Shifts are left out: dropout keeps so small a network
# from overfitting in few epochs, and what is harder to learn takes longer. Batches of 128 cost
# less per photo than those of 64.
OTHER = Recipe(
    epochs=150,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one-cycle",
    augment=("flip",),
)

# By preset: photos of the eight compared runs (None: all), their recipe, and that of the last run,
# which has all photos. "night" keeps the product of rate and epochs, 0.015 x 10 = 0.001 x 150: by
# so much the weights can move, in a fifteenth of the time. With 0.001 and half as many photos,
# "quick" left four of the eight networks at or near chance.
FASTER = replace(ASSIGNED, learning_rate=0.015)
PRESETS = {
    "quick": (10_000, replace(FASTER, epochs=6), replace(OTHER, epochs=8)),
    "night": (None, replace(FASTER, epochs=10), replace(OTHER, epochs=12)),
    "full": (None, ASSIGNED, OTHER),
}


# ------------------------------------------------------------------------------------------------
# The networks: photos (B, C, 32, 32) on [0, 1] -> logits (B, classes)
# ------------------------------------------------------------------------------------------------


def minimal(channels: int, classes: int, filters: int) -> nn.Sequential:
    """Point 3 (5 filters) and point 8.1 (20 filters): two convolutions, one coarse pooling."""
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, padding="same"),  # 3 x 3: the least that sees an edge
        nn.Sigmoid(),
        nn.Conv2d(filters, filters, 3, padding="same"),
        nn.Sigmoid(),
        nn.MaxPool2d(8),  # (B, filters, 32, 32) -> (B, filters, 4, 4)
        nn.Flatten(),
        nn.Linear(filters * (SIDE // 8) ** 2, classes),  # softmax is part of the loss
    )


def conv_block(
    inputs: int,
    filters: int,
    activation: type[nn.Module],
    norm: bool = False,
    pooling: nn.Module | None = None,
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Convolution, convolution, pooling; from points 10 and 11 on with batch norm and dropout.

    Batch norm stands between a convolution and its activation and takes the place of the bias
    (Ioffe and Szegedy, ICML 2015, section 3.2).
    """
    layers: list[nn.Module] = []
    for channels in (inputs, filters):
        layers.append(nn.Conv2d(channels, filters, 3, padding="same", bias=not norm))
        layers += [nn.BatchNorm2d(filters)] if norm else []
        layers.append(activation())
    layers.append(pooling or nn.MaxPool2d(2))
    return layers + ([nn.Dropout(dropout)] if dropout else [])


def blocks(
    channels: int,
    classes: int,
    filters: Sequence[int],
    activation: type[nn.Module] = nn.ReLU,
    norm: bool = False,
    dropout: bool = False,
    any_size: bool = False,
) -> nn.Sequential:
    """Points 8.2 to 12: blocks one after the other, then one linear layer."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(zip((channels, *filters), filters, strict=False)):
        average = nn.AdaptiveAvgPool2d(1) if any_size and index == len(filters) - 1 else None
        share = DROPOUT[index] if dropout else 0.0
        layers += conv_block(inputs, outputs, activation, norm, average, share)
    side = 1 if any_size else SIDE // 2 ** len(filters)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters[-1] * side**2, classes))


def glorot(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with weights by Glorot and Bengio (AISTATS 2010, equation 16) and biases of 0.

    That keeps the size of signals and gradients from layer to layer; it was derived for
    activations like the sigmoid, with which torch's own starting weights learn later still.
    """
    network = build()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def networks(channels: int, classes: int) -> dict[str, Callable[[], nn.Module]]:
    """How to build the network of each compared run."""
    block = partial(blocks, channels, classes)
    two, four = FILTERS[:2], FILTERS
    steps = {
        MINIMAL: partial(minimal, channels, classes, 5),
        WIDER: partial(minimal, channels, classes, 20),
        SIGMOID: partial(block, two, nn.Sigmoid),
        RELU: partial(block, two),
        DEEPER: partial(block, four),
        NORM: partial(block, four, norm=True),
        DROPPED: partial(block, four, norm=True, dropout=True),
        ANY_SIZE: partial(block, four, norm=True, dropout=True, any_size=True),
    }
    return {label: partial(glorot, build) for label, build in steps.items()}


def runs(data: DataSet, options: Options, results: Mapping[str, Result]) -> Iterator[Run]:
    """One run a network, and a last one of the last network with the other recipe."""
    photos, assigned, other = PRESETS[options.preset]
    assigned, other = (options.recipe(recipe, recipe.epochs) for recipe in (assigned, other))
    steps, say = networks(data.channels, len(data.classes)), Phrases("ladder", "en")
    part = data.subset(photos)
    for label, build in steps.items():
        yield Run(label, say(f"change {label}"), build, part, assigned)
    yield Run(TUNED, say(f"change {TUNED}"), steps[ANY_SIZE], data, other)


# ------------------------------------------------------------------------------------------------
# What can be said of a network before it is trained
# ------------------------------------------------------------------------------------------------


def layers(network: nn.Sequential, shape: Sequence[int]) -> list[tuple[str, str, str, str]]:
    """Layer, shape of its output for an input (C, H, W), formula and number of its parameters."""
    x, rows = torch.zeros(1, *shape), []
    for layer in network.eval():
        x = layer(x)
        size, count = " x ".join(map(str, x.shape[1:])), f"{count_parameters(layer):,}"
        rows.append((type(layer).__name__, size, formula(layer), count))
    return rows


def formula(layer: nn.Module) -> str:
    """How the parameters of a layer are counted: outputs times (inputs and bias)."""
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        bias = "" if layer.bias is None else " + 1"
        return f"{layer.out_channels} x ({height} x {width} x {layer.in_channels}{bias})"
    if isinstance(layer, nn.Linear):
        return f"{layer.out_features} x ({layer.in_features} + 1)"
    return f"2 x {layer.num_features}" if isinstance(layer, nn.BatchNorm2d) else ""


def receptive_field(network: nn.Sequential) -> int:
    """Pixels, along a side, that one value before the last layer depends on."""
    field, jump = 1, 1
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel = layer.kernel_size if isinstance(layer, nn.MaxPool2d) else layer.kernel_size[0]
            field += (kernel - 1) * jump
            jump *= layer.stride if isinstance(layer, nn.MaxPool2d) else 1
    return field


def first_gradient(network: nn.Sequential, photos: Photos) -> float:
    """Root mean square of the loss's gradient by the weights of the first convolution."""
    logits = network.train()(photos.inputs.float() / 255)
    functional.cross_entropy(logits, photos.labels).backward()
    return network[0].weight.grad.square().mean().sqrt().item()
