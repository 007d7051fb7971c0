"""CIFAR-10 from scratch: eight steps, each one change away from the step before.

    python -m coursework ladder

The recipe of steps 2 to 8 is the assignment's, so that only the architecture differs between two
rows. With it no step is done in a few epochs; the last row trains the network of step 8 with
another recipe, to show what that network can do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms.v2.functional import resize

from coursework.data import DataSet, Photos, one_hot
from coursework.engine import Recipe, Result, Run, accepts, probabilities, save
from coursework.pages import (
    Options,
    compared,
    page_of,
    plot,
    plots,
    predictions,
    runs_table,
    samples,
)
from reporting.charts import bars
from reporting.page import Page

SUMMARY = """\
What: eight networks on CIFAR-10, from two convolutions of 5 filters to four blocks with batch
      norm, dropout and global average pooling; what each change brings.
Needs: CIFAR-10 (--data DIR, or a download of 170 MB); without it, digits.
Time: 12 minutes on 2 cores (AMD EPYC, Zen 4); --full trains each of the nine networks for 150
      epochs."""

SIDE = 32  # pixels
FILTERS = (20, 40, 80, 160)  # doubled whenever pooling halves the sides: the work stays alike
DROPOUT = (0.1, 0.2, 0.3, 0.4)  # more towards the end, where most parameters are
ANY_SIZE, TUNED_LABEL = "8 average pooling", "8 other recipe"
OTHER_SIZES = ((28, 32), (36, 30), (48, 64))  # height, width

# The assignment's: small steps, no schedule, inputs only scaled to [0, 1].
ASSIGNED = Recipe(epochs=6, batch_size=64, learning_rate=1e-3, momentum=0.9)
ASSIGNED_EPOCHS = 150  # --full
COMPARED_PHOTOS = 5_000  # a step without --full; the last row trains on all photos

# What step 8's network needs to get somewhere in few epochs. Batch norm allows a rate a hundred
# times as high; one cycle warms up to it and ends near zero, so that the last epochs settle.
# A mirrored photo is as good as a new one. Shifts are left out: dropout keeps so small a network
# from overfitting in six epochs, and what is harder to learn takes longer. Batches of 128 cost
# less per photo than those of 64.
TUNED = Recipe(
    epochs=6,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one-cycle",
    augment=("flip",),
)


EXPLANATIONS = {
    "3 filters": "More filters see more kinds of edges, but pooling 8 x 8 keeps of each only "
    "whether it occurs in a sixteenth of the photo.",
    "4 sigmoid blocks": "Fine pooling keeps where things are; but a sigmoid passes on at most a "
    "quarter of the gradient, so of four in a row the first hardly learns.",
    "4 ReLU blocks": "ReLU passes the gradient on whole wherever it is active.",
    "5 four blocks": "Each pooling doubles what a filter sees of the photo, up to parts of "
    "objects; more layers also take longer to set in.",
    "6 batch norm": "Every layer gets inputs of the same scale whatever the layers before it "
    "do, so that each step of the optimiser is of use.",
    "7 dropout": "It trains a random part of the network at a time, which costs accuracy on "
    "training photos and pays where training is far above test.",
    ANY_SIZE: "A filter's mean over the photo replaces its value at each of four places: a quarter "
    "of the last layer's weights, and no place that an object has to be at.",
    TUNED_LABEL: "No new architecture: more photos, and steps that are larger and then decay.",
}


# ------------------------------------------------------------------------------------------------
# The networks: photos (B, C, 32, 32) on [0, 1] -> logits (B, classes)
# ------------------------------------------------------------------------------------------------


def minimal(channels: int, classes: int, filters: int) -> nn.Sequential:
    """Step 2 (5 filters) and step 3 (20 filters): two convolutions, one coarse pooling."""
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
    """Convolution, convolution, pooling; from step 6 and 7 on with batch norm and dropout.

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
    """Steps 4 to 8: blocks one after the other, then one linear layer."""
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


def networks(channels: int, classes: int) -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """By step: what changed, and how to build the network."""
    block = partial(blocks, channels, classes)
    two, four = FILTERS[:2], FILTERS
    steps = {
        "2 minimal": ("two convolutions of 5 filters", partial(minimal, channels, classes, 5)),
        "3 filters": ("20 filters instead of 5", partial(minimal, channels, classes, 20)),
        "4 sigmoid blocks": ("two blocks, 20 and 40 filters", partial(block, two, nn.Sigmoid)),
        "4 ReLU blocks": ("ReLU instead of sigmoid", partial(block, two)),
        "5 four blocks": ("two more blocks, 80 and 160 filters", partial(block, four)),
        "6 batch norm": ("after every convolution", partial(block, four, norm=True)),
        "7 dropout": (
            "0.1 to 0.4 after every pooling",
            partial(block, four, norm=True, dropout=True),
        ),
        ANY_SIZE: (
            "global average instead of the last pooling: photos of any size",
            partial(block, four, norm=True, dropout=True, any_size=True),
        ),
    }
    return {label: (change, partial(glorot, build)) for label, (change, build) in steps.items()}


def runs_of(data: DataSet, options: Options) -> list[Run]:
    """One run a step, and a last one with the tuned recipe."""
    assigned, tuned = (options.recipe(recipe, ASSIGNED_EPOCHS) for recipe in (ASSIGNED, TUNED))
    steps = networks(data.channels, len(data.classes))
    part = data if options.full else data.subset(COMPARED_PHOTOS)
    runs = [Run(label, change, build, part, assigned) for label, (change, build) in steps.items()]
    change = "all photos, mirrored or not; one cycle up to rate 0.1, batches of 128, weight decay"
    return [*runs, Run(TUNED_LABEL, change, steps[ANY_SIZE][1], data, tuned)]


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def report(options: Options) -> Page:
    """Train all steps, and say what each brought."""
    data = options.load("CIFAR10", SIDE)
    runs = runs_of(data, options)
    page = page_of("CIFAR-10 from scratch, in eight steps", data, "CIFAR-10")
    _show_samples(page, data)
    results: list[Result] = []
    by_label = {run.label: options.train(run, results) for run in runs}
    page.heading("Step 2: probabilities before and after training")
    _show_probabilities(page, by_label["2 minimal"])
    page.heading("All steps")
    runs_table(page, results)
    plots(page, results, options.smoothing)
    for pair in pairwise(results):
        step = pair[1].run
        page.heading(f"{step.label}: {step.change}")
        page.text(EXPLANATIONS[step.label])
        name = f"step_{step.label.replace(' ', '_')}"
        page.picture(plot(name, pair, "accuracy", options.smoothing))
    page.heading("Step 8: photos of any size")
    _show_sizes(page, results)
    _show_other_shapes(page, by_label[TUNED_LABEL], options.out)
    page.heading("Sample predictions")
    predictions(page, "predictions", by_label[TUNED_LABEL].network, data)
    page.heading("Conclusions")
    _conclude(page, results)
    return page


def _show_samples(page: Page, data: DataSet) -> None:
    page.heading("Step 1: samples and labels")
    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:8]
    labels = data.train.labels[chosen]
    names = [data.classes[label] for label in labels]
    samples(page, "samples", data.train.inputs[chosen], names, "Random training photos.")
    vectors = one_hot(labels, len(data.classes)).int().tolist()
    page.text(
        "As one-hot vectors; the cross-entropy of training is the same for them as for the index."
    )
    page.table(("label", *data.classes), [(n, *v) for n, v in zip(names, vectors, strict=True)])


def _show_probabilities(page: Page, minimal: Result) -> None:
    data, count = minimal.run.data, 4
    stages = {"before": minimal.run.fresh(), "after": minimal.network}
    rows = []
    for stage, network in stages.items():
        for p, label in zip(
            probabilities(network, data.test.inputs[:count]), data.test.labels, strict=False
        ):
            rows.append((data.classes[label], stage, *(f"{value:.2f}" for value in p)))
    page.text(
        f"{minimal.parameters:,} parameters. Softmax outputs for the first {count} test photos; "
        f"without knowledge each of them would be {1 / len(data.classes):.2f}."
    )
    page.table(("photo of", "training", *data.classes), rows)


def _show_sizes(page: Page, results: Sequence[Result]) -> None:
    sizes = ((SIDE, SIDE), *OTHER_SIZES)
    page.table(
        ("run", *(f"{height} x {width}" for height, width in sizes)),
        [
            (
                result.run.label,
                *(
                    "takes" if accepts(result.network, result.run.data.channels, *size) else "fails"
                    for size in sizes
                ),
            )
            for result in results
        ],
    )


def _show_other_shapes(page: Page, result: Result, folder: Path) -> None:
    """Test photos that are no longer square, classified by the parameters that were saved."""
    data, count, saved = result.run.data, 4, folder / "step8_parameters.pt"
    save(result.network.state_dict(), saved)
    network = result.run.build()
    network.load_state_dict(torch.load(saved, weights_only=True))
    for height, width in OTHER_SIZES[:2]:
        photos = resize(data.test.inputs[:count], [height, width])
        predictions(
            page,
            f"predictions_{height}x{width}",
            network,
            replace(data, test=Photos(photos, data.test.labels[:count])),
            caption=f"Test photos of {height} x {width}, by the parameters in {saved.name}.",
        )


def _conclude(page: Page, results: Sequence[Result]) -> None:
    accuracies = {r.run.label: r.final["test_accuracy"] for r in results}
    page.picture(bars("accuracies", accuracies, "test accuracy"))
    order = sorted(accuracies, key=accuracies.get, reverse=True)
    page.text(f"From the highest test accuracy to the lowest: {', '.join(order)}.")
    page.text("What brought each of them there:")
    page.items(compared(results))
    chance = 1 / len(results[0].run.data.classes)
    idle = [label for label, accuracy in accuracies.items() if accuracy < 1.2 * chance]
    if idle:
        page.text(
            f"At chance ({chance:.2f}) after so few steps of so small a rate: {', '.join(idle)}."
        )
    best, last = results[-1], results[-2]
    page.text(
        f"The same network reaches {_reached(last)} with the assignment's recipe, and "
        f"{_reached(best)} with the other one: differences between the steps above are differences "
        "in how fast the networks learn as much as in what they can learn."
    )


def _reached(result: Result) -> str:
    photos, epochs = len(result.run.data.train), len(result.rows)
    return f"{result.final['test_accuracy']:.4f} (photos: {photos:,}, epochs: {epochs})"
