"""The nine points of the assignment `transfer`, answered from its runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn
from torchvision.transforms import v2

from coursework.data import Photos, augmentation
from coursework.engine import Result, count_parameters, forward_all
from coursework.pretrained import (
    ALLOWED,
    INPUT_SIDE,
    NETWORKS,
    SIDE,
    Backbone,
    Upper,
    colour_blocks,
    first_convolution,
    grey_first_convolution,
    preparation,
)
from coursework.report import Point, Report
from reporting.charts import bars, confusion

ADEQUATE = 0.9  # accuracy from which on the reports call a network adequate
MEASURED = 10_000  # training photos at most in the confusion matrix, as in the engine
SHOWN = 4  # photos in a row of samples
SAME = 1e-4  # share of the greatest activation that rounding explains


def main_run(report: Report) -> Result:
    """The first one: on all photos, or the only one where weights are random."""
    return next(iter(report.results.values()))


def reference(report: Report) -> str:
    """The run that the others are compared with; without its own it is the one on all photos."""
    return "pretrained" if "pretrained" in report.results else "all photos"


def network_of(report: Report) -> Upper:
    """The trained network of the main run."""
    return main_run(report).network


def preface(report: Report) -> None:
    """Which network, and why that one."""
    backbone, options = network_of(report).backbone, report.options
    if options.weights == "random":
        key = "network random"
    elif options.network:
        key = "network asked" if backbone.name in ALLOWED else "network asked other"
    elif backbone.name == ALLOWED[0]:
        key = "network first"
    else:
        key = "network second" if backbone.name in ALLOWED else "network fallback"
    allowed = ", ".join(NETWORKS[name].title for name in ALLOWED)
    report.text(key, name=backbone.title, allowed=allowed)


# ------------------------------------------------------------------------------------------------
# 1 to 4: data and network
# ------------------------------------------------------------------------------------------------


def statement(report: Report) -> None:
    """The task, the classes and their photos."""
    data = report.data
    report.text("task", name=data.name, classes=len(data.classes))
    kinds = ("train", "validation", "test")
    counts = [_counts(getattr(data, kind), len(data.classes)) for kind in kinds]
    header = ("class", "training", "validation", "test")
    rows = zip(data.classes, *counts, strict=True)
    report.page.table([report.say(word) for word in header], rows)
    least, most = min(counts[0]), max(counts[0])
    key = "balanced" if most <= 1.1 * least else "unbalanced"
    report.text(key, least=f"{least:,}", most=f"{most:,}")
    first = [int((data.train.labels == c).nonzero()[0]) for c in range(len(data.classes))]
    report.samples("classes", data.train.inputs[first], data.classes, "classes caption", 5)


def _counts(photos: Photos, classes: int) -> list[int]:
    return torch.bincount(photos.labels, minlength=classes).tolist()


def network(report: Report) -> None:
    """Which network it is, and its size."""
    used = network_of(report)
    backbone, blocks = used.backbone, used.backbone.blocks()
    report.text(f"about {backbone.name}")
    sides = [INPUT_SIDE * report.data.side // SIDE] * 2
    shape = forward_all(blocks, torch.zeros(1, 3, *sides), False).shape  # (1, channels, h, w)
    rows = {
        "blocks": len(blocks),
        "layers with weights": sum(isinstance(m, nn.Conv2d | nn.Linear) for m in blocks.modules()),
        "block parameters": f"{count_parameters(blocks):,}",
        "input": f"{sides[0]} x {sides[1]}",
        "after the blocks": " x ".join(map(str, shape[1:])),
        "weights file": backbone.file if used.pretrained else report.say("random"),
    }
    cells = [(report.say(key), value) for key, value in rows.items()]
    report.page.table([report.say(word) for word in ("property", "value")], cells)


@dataclass(frozen=True)
class Grey:
    """What the adapted first layer does to grey photos, against three equal channels."""

    before: Sequence[int]  # shape of its weights
    after: Sequence[int]
    greatest: float  # activation after all blocks
    difference: float  # the greatest one

    @property
    def same(self) -> bool:
        """But for rounding."""
        return self.difference <= SAME * self.greatest


@lru_cache(maxsize=2)
def measured_grey(backbone: Backbone, pretrained: bool, photos: Tensor) -> Grey:
    """Activations of the first photos (N, 1, H, W), uint8, before and after the change."""
    colour = colour_blocks(backbone, pretrained)
    grey = copy.deepcopy(colour)
    grey_first_convolution(grey)
    x = forward_all(preparation(backbone), photos[:8], False)  # (8, 1, 2 H, 2 W)
    expected = forward_all(colour, x.expand(-1, 3, -1, -1), False)
    difference = (forward_all(grey, x, False) - expected).abs().max().item()
    shapes = [tuple(first_convolution(blocks)[1].weight.shape) for blocks in (colour, grey)]
    return Grey(*shapes, expected.abs().max().item(), difference)


def grey_of(report: Report) -> Grey:
    """Measured on test photos."""
    used = network_of(report)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return measured_grey(used.backbone, used.pretrained, report.data.test.inputs)


def first_layer(report: Report) -> None:
    """How it takes one channel, and that nothing is lost."""
    grey = grey_of(report)
    report.text("first layer", before=by(grey.before), after=by(grey.after))
    report.code(grey_first_convolution)
    report.text(
        "grey same" if grey.same else "grey different",
        greatest=f"{grey.greatest:.4g}",
        difference=f"{grey.difference:.1e}",
    )


def by(shape: Sequence[int]) -> str:
    """A shape as it is read."""
    return " x ".join(map(str, shape))


def output_layer(report: Report) -> None:
    """The new head, and which blocks learn."""
    used = network_of(report)
    outputs, inputs = used.head.weight.shape
    report.text("output layer", inputs=inputs, outputs=outputs, count=f"{inputs * outputs:,}")
    report.code(Upper)
    blocks = used.backbone.blocks()
    grey_first_convolution(blocks)
    rows = [
        (i, type(block).__name__, f"{count_parameters(block):,}", _frozen(report, i < used.frozen))
        for i, block in enumerate(blocks, 1)
    ]
    header = ("block", "kind", "parameters", "learns")
    report.page.table([report.say(word) for word in header], rows)
    learns = count_parameters(used)
    total = learns + sum(count_parameters(block) for block in blocks[: used.frozen])
    values = {"blocks": len(blocks), "frozen": used.frozen}
    values |= {"learns": f"{learns:,}", "total": f"{total:,}"}
    report.text("frozen some" if used.frozen else "frozen none", **values)


def _frozen(report: Report, frozen: bool) -> str:
    return report.say("frozen" if frozen else "yes")


# ------------------------------------------------------------------------------------------------
# 5 and 6: preprocessing and training
# ------------------------------------------------------------------------------------------------


def preprocessing(report: Report) -> None:
    """What is done to a photo before the network sees it, and in training besides."""
    backbone, photos = network_of(report).backbone, report.data.train.inputs[:SHOWN]
    values = {"mean": backbone.mean, "std": backbone.std}
    values |= {"before": report.data.side, "after": INPUT_SIDE * report.data.side // SIDE}
    keys = ("grey", "scaled", "normalised", "enlarged")
    report.page.items(report.say(f"prepare {key}", **values) for key in keys)
    report.code(preparation)
    prepared = forward_all(preparation(backbone), photos, False)  # (N, 1, 2 H, 2 W)
    both = [("before", photos / 255), ("after", prepared)]
    report.page.table(
        [report.say(word) for word in ("photos", "size", "least", "mean", "greatest")],
        [
            (report.say(key), by(x.shape[2:]), *(f"{v:.3f}" for v in (x.min(), x.mean(), x.max())))
            for key, x in both
        ],
    )
    _prepared_samples(report, photos, prepared)
    _augmentation(report, photos)


def _prepared_samples(report: Report, photos: Tensor, prepared: Tensor) -> None:
    names = [report.data.classes[c] for c in report.data.train.labels[:SHOWN]]
    enlarged = v2.functional.resize(photos, list(prepared.shape[2:]), v2.InterpolationMode.NEAREST)
    titles = [f"{name}, {report.say(key)}" for key in ("before", "after") for name in names]
    shown = torch.cat([enlarged, visible(prepared)])
    report.samples("prepared", shown, titles, "prepared caption", SHOWN)


def visible(values: Tensor) -> Tensor:
    """Numbers of any range as grey values, uint8."""
    low, high = values.min(), values.max()
    return ((values - low) * (255 / (high - low).clamp(min=1e-6))).round().byte()


def _augmentation(report: Report, photos: Tensor) -> None:
    main, used = main_run(report), report.results.get("augmented")
    report.text("augment main some" if main.run.recipe.augment else "augment main none")
    names = used.run.recipe.augment if used else main.run.recipe.augment
    if not names:
        return
    report.text("augment used")
    report.page.items(report.say(f"augment {name}") for name in names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        change = augmentation(names, report.data.side)
        views = torch.stack([change(photo) for _ in range(2) for photo in photos])
    words = [report.say("before")] * SHOWN + [report.say("augmented view")] * (2 * SHOWN)
    shown = torch.cat([photos, views])
    report.samples("augmented", shown, words, "augmented caption", SHOWN)
    if used:
        report.page.text(report.compare(reference(report), "augmented"))


def training(report: Report) -> None:
    """Settings, rates, curves and time."""
    main = main_run(report)
    report.text("main run", run=main.run.label)
    report.settings(main.run.label)
    _rates(report)
    report.runs_table()
    row = {"seconds": f"{main.seconds / len(main.rows):.1f}", "epochs": len(main.rows)}
    row |= {"batches": len(main.run.data.train) // main.run.recipe.batch_size or 1}
    report.text("an epoch", **row)
    first, last = main.rows[0], main.rows[-1]
    fell = last.val_loss < first.val_loss
    values = {"first": f"{first.val_loss:.4f}", "last": f"{last.val_loss:.4f}"}
    values |= {"loss": f"{last.loss:.4f}", "accuracy": f"{last.val_accuracy:.4f}"}
    one = len(main.rows) == 1
    report.text("curves one" if one else "curves fell" if fell else "curves rose", **values)
    report.overview()
    for label in report.results:
        report.curves(label)


def _rates(report: Report) -> None:
    rows = []
    for label, result in report.results.items():
        recipe, blocks = result.run.recipe, len(result.network.backbone.blocks())
        learning = blocks - result.network.frozen
        rate = f"{recipe.learning_rate * recipe.backbone_rate:.2g}" if learning else "-"
        augmented = ", ".join(recipe.augment) or report.say("none")
        head = f"{recipe.learning_rate:.2g}"
        rows.append((label, result.network.frozen, learning, head, rate, augmented))
    header = ("run", "blocks frozen", "blocks learning", "rate head", "rate blocks")
    names = [report.say(word) for word in (*header, "setting augmentation")]
    report.page.table(names, rows)
    recipe = main_run(report).run.recipe
    values = {"head": f"{recipe.learning_rate:.2g}"}
    values |= {"blocks": f"{recipe.learning_rate * recipe.backbone_rate:.2g}"}
    report.text("two rates" if recipe.backbone_rate < 1 else "one rate for all", **values)


# ------------------------------------------------------------------------------------------------
# 7 to 9: adequacy, and one object
# ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def outputs(trained: nn.Module, inputs: Tensor, most: int) -> Tensor:
    """Softmax outputs (N, classes) for at most so many inputs; kept, for a report drawn again."""
    return forward_all(trained, inputs[:most], bfloat16=False).softmax(1)


@dataclass(frozen=True)
class Answers:
    """What the trained network of the main run says, and what is right."""

    probabilities: Tensor  # (N, classes)
    labels: np.ndarray  # (N,)
    matrix: np.ndarray  # (classes, classes): row of the true class, column of the answer
    precision: np.ndarray  # (classes,), as the next ones
    recall: np.ndarray
    f1: np.ndarray
    count: np.ndarray  # photos of the class

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.matrix.trace() / self.matrix.sum())

    def confused(self) -> tuple[int, int, int]:
        """The true class, the answer and the number of the most frequent mistake."""
        wrong = self.matrix - np.diag(self.matrix.diagonal())
        truth, answer = np.unravel_index(wrong.argmax(), wrong.shape)
        return int(truth), int(answer), int(wrong.max())


def answers(report: Report, kind: str) -> Answers:
    """For the photos of a kind, `train` or `test`."""
    main, classes = main_run(report), range(len(report.data.classes))
    photos: Photos = getattr(main.run.data, kind)
    most = MEASURED if kind == "train" else len(photos)
    p = outputs(main.network, photos.inputs, most)
    labels, said = photos.labels[:most].numpy(), p.argmax(1).numpy()
    by_class = precision_recall_fscore_support(labels, said, labels=classes, zero_division=0)
    return Answers(p, labels, confusion_matrix(labels, said, labels=classes), *by_class)


def adequacy(accuracy: float, photos: int, classes: int) -> str:
    """The phrase that an accuracy bears out."""
    if accuracy >= ADEQUATE:
        return "adequate"
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / photos)
    return "partly adequate" if accuracy > chance + 2 * error else "not adequate"


def _judge(report: Report, kind: str) -> None:
    """Accuracy, confusion matrix and verdict."""
    measured, names = answers(report, kind), report.data.classes
    photos, final = len(measured.labels), main_run(report).final
    word = "training" if kind == "train" else "test"
    values = {"accuracy": f"{measured.accuracy:.4f}", "photos": f"{photos:,}"}
    report.text(f"measured {word}", loss=f"{final[f'{word}_loss']:.4f}", **values)
    axes = (report.say("answer"), report.say("true class"))
    caption = report.say("confusion caption", kind=report.say(word))
    report.page.picture(confusion(f"confusion_{word}", measured.matrix, names, caption, axes))
    key = adequacy(measured.accuracy, photos, len(names))
    report.text(key, bound=ADEQUATE, chance=f"{1 / len(names):.2f}", **values)


def _most_confused(report: Report, measured: Answers) -> None:
    truth, answer, count = measured.confused()
    names, photos = report.data.classes, int(measured.count[truth])
    if not count:
        report.text("no mistakes")
        return
    back = int(measured.matrix[answer, truth])
    values = {"truth": names[truth], "answer": names[answer], "count": count, "photos": photos}
    report.text("most confused", back=back, **values)


def adequacy_training(report: Report) -> None:
    """Does it know what it learned?"""
    _judge(report, "train")
    _most_confused(report, answers(report, "train"))


def adequacy_test(report: Report) -> None:
    """Does it know what it has not seen?"""
    _judge(report, "test")
    measured, names = answers(report, "test"), report.data.classes
    columns = (measured.precision, measured.recall, measured.f1)
    rows = [
        (name, *(f"{column[i]:.3f}" for column in columns), int(measured.count[i]))
        for i, name in enumerate(names)
    ]
    means = (*(f"{column.mean():.3f}" for column in columns), int(measured.count.sum()))
    header = ("class", "precision", "recall", "F1", "photos")
    report.page.table(
        [report.say(word) for word in header], [*rows, (report.say("macro mean"), *means)]
    )
    best, worst = int(measured.f1.argmax()), int(measured.f1.argmin())
    values = {"best": names[best], "worst": names[worst]}
    values |= {"high": f"{measured.f1[best]:.3f}", "low": f"{measured.f1[worst]:.3f}"}
    report.text(
        "best and worst" if measured.f1[best] > measured.f1[worst] else "all alike", **values
    )
    _most_confused(report, measured)
    report.text(gap_key(report), **gap_values(main_run(report)))
    _surest_mistakes(report, measured)


def gap_key(report: Report) -> str:
    """Whether training accuracy is above test accuracy by more than chance."""
    main = main_run(report)
    test = main.final["test_accuracy"]
    photos = (min(len(main.run.data.train), MEASURED), len(main.run.data.test))
    error = math.sqrt(test * (1 - test) * sum(1 / n for n in photos))
    gap = main.final["training_accuracy"] - test
    return "gap some" if gap > 2 * error else "gap none"


def gap_values(result: Result) -> dict[str, str]:
    """What the phrases on training against test are filled with."""
    final = result.final
    gap = f"{final['training_accuracy'] - final['test_accuracy']:+.4f}"
    words = ("training_accuracy", "test_accuracy", "training_loss", "test_loss")
    return {"gap": gap} | {word: f"{final[word]:.4f}" for word in words}


def _surest_mistakes(report: Report, measured: Answers) -> None:
    p, said = measured.probabilities.max(1)
    wrong = np.flatnonzero(said.numpy() != measured.labels)
    wrong = sorted(wrong.tolist(), key=lambda i: -p[i])[: 2 * SHOWN]
    if not wrong:
        return
    names = report.data.classes
    titles = [
        f"{names[said[i]]} {p[i]:.2f}\n({report.say('is', truth=names[measured.labels[i]])})"
        for i in wrong
    ]
    shown = report.data.test.inputs[wrong]
    report.samples("mistakes", shown, titles, "mistakes caption", SHOWN)


def chosen_object(report: Report) -> None:
    """One test photo, large; then results and conclusions."""
    number, data = report.options.object or 0, report.data
    photo, truth = data.test.inputs[[number]], int(data.test.labels[number])
    p = answers(report, "test").probabilities[number]  # (classes,)
    report.text("object", number=number, truth=data.classes[truth])
    prepared = forward_all(preparation(network_of(report).backbone), photo, False)
    sides = list(prepared.shape[2:])
    raw = v2.functional.resize(photo, sides, v2.InterpolationMode.NEAREST)
    titles = [f"{data.classes[truth]}, {report.say(key)}" for key in ("before", "after")]
    shown = torch.cat([raw, visible(prepared)])
    report.samples("object", shown, titles, "object caption", 2)
    values = dict(zip(data.classes, p.tolist(), strict=True))
    report.page.picture(
        bars("object_probabilities", values, report.say("probability"), report.say("bars caption"))
    )
    _object_verdict(report, p, truth)
    report.page.heading(report.say("results"), 3)
    conclusions(report)


def _object_verdict(report: Report, p: Tensor, truth: int) -> None:
    names, (first, second) = report.data.classes, p.topk(2).indices.tolist()
    key = "object wrong"
    if first == truth:
        key = "object sure" if p[first] >= ADEQUATE else "object unsure"
    values = {"truth": names[truth], "answer": names[first], "second": names[second]}
    values |= {"p": f"{p[first]:.4f}", "q": f"{p[second]:.4f}", "t": f"{p[truth]:.4f}"}
    report.text(key, **values)


def conclusions(report: Report) -> None:
    """Some sentences, each with its number."""
    main, measured = main_run(report), answers(report, "test")
    names, words = report.data.classes, gap_values(main)
    photos = f"{len(main.run.data.train):,}"
    values = {
        "name": main.network.backbone.title,
        "photos": photos,
        "seconds": f"{main.seconds:.0f}",
    }
    report.text("concluded", run=main.run.label, epochs=len(main.rows), **values, **words)
    worst = int(measured.f1.argmin())
    chance = f"{1 / len(names):.2f}"
    key = adequacy(measured.accuracy, len(measured.labels), len(names))
    shown = {"accuracy": words["test_accuracy"], "photos": f"{len(measured.labels):,}"}
    report.text(key, bound=ADEQUATE, chance=chance, **shown)
    report.text("weakest", name=names[worst], f1=f"{measured.f1[worst]:.3f}")
    base = reference(report)
    pairs = [("random weights", base), ("head only", base), ("one rate", base), (base, "augmented")]
    known = [pair for pair in pairs if set(pair) <= set(report.results)]
    report.page.items(report.compare(*pair) for pair in known) if known else None
    report.text("limits", seed=main.run.recipe.seed)


POINTS = (
    Point("1", statement),
    Point("2", network),
    Point("3", first_layer),
    Point("4", output_layer),
    Point("5", preprocessing),
    Point("6", training),
    Point("7", adequacy_training),
    Point("8", adequacy_test),
    Point("9", chosen_object),
)
