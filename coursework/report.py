"""The report of an assignment: its points in their order, each answered from the runs there are.

An assignment's module says what is loaded, what is trained and how each point is answered; this
module trains the runs, draws the report again as they end, and holds what the reports share.
"""

from __future__ import annotations

import inspect
import math
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch import Tensor, nn

from coursework.data import DIGITS, DataSet
from coursework.engine import Result, Run, probabilities, write_history
from coursework.options import Options
from reporting.charts import COLOURS, Frame, curves, photo_grid
from reporting.page import Page

PHRASES = Path(__file__).with_name("phrases")
REDRAW_SECONDS = 60  # between two drawings of the report while runs are trained


@dataclass(frozen=True)
class Point:
    """One point of an assignment."""

    number: str  # the assignment's own, as "8.2"; its wording is the phrase of that name
    answer: Callable[[Report], None]
    needs: Sequence[str] = ()  # labels of the runs that the answer speaks of


@dataclass(frozen=True)
class Assignment:
    """All that makes one assignment different from another."""

    name: str  # of its phrases, too
    data_set: str  # that the assignment was written for
    languages: Sequence[str]  # of the report, the first one by default
    summary: str  # what it is, what it needs, how long it takes
    load: Callable[[Options], DataSet]
    runs: Callable[[DataSet, Options, Mapping[str, Result]], Iterator[Run]]  # given those ended
    points: Sequence[Point]
    preface: Callable[[Report], None] | None = None  # what its first lines say


def work(assignment: Assignment, options: Options) -> None:
    """Train what is not trained yet; write numbers and report after a run if a minute has gone by
    since, and in the end, be it an interrupt."""
    data = assignment.load(options)
    results: dict[str, Result] = {}
    drawn = time.monotonic()
    try:
        for run in assignment.runs(data, options, results):
            results[run.label] = options.train(run)
            if time.monotonic() - drawn > REDRAW_SECONDS:
                _write(Report(assignment, data, options, results))
                drawn = time.monotonic()
    finally:
        if results:
            _write(Report(assignment, data, options, results))


@rank_zero_only
def _write(report: Report) -> None:
    """The numbers, then the page; of several processes the first one writes."""
    write_history(list(report.results.values()), report.options.out)
    report.draw().write(report.options.out)


class Phrases:
    """The texts of an assignment in one language, from the tables in `phrases/`.

    A table has a section a phrase, and in it a line a language; words in braces are filled in.
    """

    def __init__(self, name: str, language: str) -> None:
        self.table, self.language = read_phrases(name), language

    def __call__(self, key: str, **values: Any) -> str:
        """The phrase with its values filled in, on one line."""
        return self.table[key][self.language].format(**values)

    def __contains__(self, key: str) -> bool:
        """Whether there is such a phrase."""
        return key in self.table


def read_phrases(name: str) -> dict[str, dict[str, str]]:
    """Texts by phrase and language: those that all reports share, and those of `name`."""
    parser = ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    parser.read([PHRASES / "common.ini", PHRASES / f"{name}.ini"], encoding="utf-8")
    return {
        key: {language: " ".join(text.split()) for language, text in section.items()}
        for key, section in parser.items()
        if key != parser.default_section
    }


class Report:
    """What the answers to the points add to: the page, and what they answer from."""

    def __init__(
        self,
        assignment: Assignment,
        data: DataSet,
        options: Options,
        results: Mapping[str, Result],
    ) -> None:
        self.assignment, self.data = assignment, data
        self.options, self.results = options, results
        self.say = Phrases(assignment.name, options.language)
        self.page = Page(self.say("title"), options.language)
        self.colours = dict(zip(results, COLOURS * 3, strict=False))  # one a run throughout
        self.explained: set[str] = set()  # captions that were given once, for all plots like it

    def draw(self) -> Page:
        """All points, and which of them are answered."""
        if self.assignment.preface:
            self.assignment.preface(self)
        self._facts()
        rows = []
        for point in self.assignment.points:
            before = (len(self.page.markdown), len(self.page.pictures))
            wording = f"{point.number}. {self.say(point.number)}"
            self.page.heading(wording, 3 if "." in point.number else 2)
            missing = [label for label in point.needs if label not in self.results]
            if missing:
                self.text("not yet", runs=", ".join(missing))
            else:
                point.answer(self)
            blocks = len(self.page.markdown) - before[0] - 1
            pictures = len(self.page.pictures) - before[1]
            answered = self.say("no" if missing or not blocks else "yes")
            rows.append((point.number, self.say(point.number), answered, blocks, pictures))
        self.page.heading(self.say("self-check"))
        self.text("self-check text")
        header = ("point", "wording", "answered", "blocks", "pictures")
        self.page.table([self.say(word) for word in header], rows)
        return self.page

    def _facts(self) -> None:
        data = self.data
        counts = [
            self.say(f"photos {kind}", count=f"{len(photos):,}")
            for kind in ("train", "validation", "test")
            if (photos := getattr(data, kind))
        ]
        size = " x ".join(str(n) for n in data.train.inputs.shape[2:])
        values = {"classes": len(data.classes), "size": size, "counts": ", ".join(counts)}
        self.text("data", name=data.name, **values)
        if data.name.startswith(DIGITS):
            self.text("digits", wanted=self.assignment.data_set)
        processors, threads = os.cpu_count(), torch.get_num_threads()
        version = torch.__version__
        self.text("machine", processors=processors, threads=threads, torch=version)

    # -- text ------------------------------------------------------------------------------------

    def text(self, key: str, **values: Any) -> None:
        """Add a phrase as a paragraph."""
        self.page.text(self.say(key, **values))

    def code(self, *parts: Any) -> None:
        """Add the lines in which functions or classes are written."""
        self.page.code("\n\n".join(textwrap.dedent(inspect.getsource(part)) for part in parts))

    def settings(self, label: str) -> None:
        """A row for each setting of a run, with its reason: the phrases `why <setting>`."""
        rows = [
            (self.say(f"setting {name}"), value, self.say(f"why {name}"))
            for name, value in described(self.results[label].run, self.say).items()
        ]
        self.page.table([self.say(word) for word in ("setting", "value", "why")], rows)

    def recipes(self, labels: Sequence[str]) -> None:
        """The settings of several runs beside each other."""
        columns = [described(self.results[label].run, self.say) for label in labels]
        rows = [
            (self.say(f"setting {name}"), *(column[name] for column in columns))
            for name in columns[0]
        ]
        self.page.table([self.say("setting"), *labels], rows)

    # -- numbers ---------------------------------------------------------------------------------

    def runs_table(self, labels: Sequence[str] | None = None) -> None:
        """A row a run: size, cost, loss and accuracy of the trained network."""
        results = [self.results[label] for label in labels or self.results]
        words = ("run", "what changed", "parameters", "photos", "epochs", "seconds an epoch")
        words += ("training loss", "training accuracy", "test loss", "test accuracy")
        self.page.table([self.say(word) for word in words], [self._row(r) for r in results])
        self.text("runs text")

    def _row(self, result: Result) -> tuple[Any, ...]:
        finals = ("training_loss", "training_accuracy", "test_loss", "test_accuracy")
        return (
            result.run.label,
            self.change(result.run.label),
            f"{result.parameters:,}",
            f"{len(result.run.data.train):,}",
            len(result.rows),
            f"{result.seconds / len(result.rows):.1f}",
            *(f"{result.final[name]:.4f}" for name in finals),
        )

    def change(self, label: str) -> str:
        """What is different in a run: the phrase `change <label>`, or else its own words."""
        key = f"change {label}"
        return self.say(key) if key in self.say else self.results[label].run.change

    def compare(self, before: str, after: str) -> str:
        """A sentence on two runs: how far apart they are, and whether that is more than chance."""
        one, other = (self.results[label] for label in (before, after))
        test, training = (
            other.final[f"{kind}_accuracy"] - one.final[f"{kind}_accuracy"]
            for kind in ("test", "training")
        )
        verdict = self.say(verdict_on(one, other))
        gap = f"{other.final['training_accuracy'] - other.final['test_accuracy']:+.4f}"
        values = {"test": f"{test:+.4f}", "training": f"{training:+.4f}", "gap": gap}
        return self.say("compared", before=before, after=after, verdict=verdict, **values)

    # -- pictures --------------------------------------------------------------------------------

    def curves(self, label: str) -> None:
        """Accuracy and loss of a run, training and watched photos, on the axes of all runs."""
        for value in ("accuracy", "loss"):
            self._plot(f"{_slug(label)}_{value}", [label], value)

    def overview(self, labels: Sequence[str] | None = None, name: str = "all") -> None:
        """Accuracy and loss of several runs on the watched photos, named where they end."""
        for value in ("accuracy", "loss"):
            self._plot(f"{name}_{value}", list(labels or self.results), value, together=True)

    def _plot(self, name: str, labels: Sequence[str], value: str, together: bool = False) -> None:
        watched = self.say(self.data.watched_kind)
        runs = {}
        for label in labels:
            rows = self.results[label].rows
            kept = {} if together else {self.say("training"): [getattr(row, value) for row in rows]}
            runs[label] = kept | {watched: [getattr(row, f"val_{value}") for row in rows]}
        smoothing = self.options.smoothing
        key = "overview caption" if together else "curves caption"
        captions = [] if key in self.explained else [self.say(key, watched=watched)]
        self.explained.add(key)
        if smoothing > 1:
            captions.append(self.say("smoothed", epochs=smoothing))
        what = self.say(f"axis {value}")
        style = {"epoch": self.say("epoch"), "frame": self._frame(value), "colours": self.colours}
        caption = " ".join(captions)
        self.page.picture(curves(name, runs, what, smoothing, caption, direct=together, **style))

    def _frame(self, value: str) -> Frame:
        """Axes that hold all runs, but for losses of more than twice what chance gives."""
        epochs = max(len(result.rows) for result in self.results.values())
        if value == "accuracy":
            return Frame(epochs, 0.0, 1.0)
        rows = [row for result in self.results.values() for row in result.rows]
        losses = [loss for row in rows for loss in (row.loss, row.val_loss)]
        greatest = max((loss for loss in losses if math.isfinite(loss)), default=1.0)
        return Frame(epochs, 0.0, 1.05 * min(greatest, 2 * math.log(len(self.data.classes))))

    def samples(
        self, name: str, photos: Tensor, titles: Sequence[str], caption: str, columns: int = 4
    ) -> None:
        """A grid of photos (N, C, H, W) uint8 with a title each; `caption` is a phrase's key."""
        images = [as_image(photo) for photo in photos]
        self.page.picture(photo_grid(name, images, titles, columns, self.say(caption)))

    def predictions(self, name: str, network: nn.Module, photos: Tensor, labels: Tensor) -> None:
        """Photos with the network's answer, its probability, and the truth where it is another."""
        titles = []
        for p, truth in zip(probabilities(network, photos), labels.tolist(), strict=True):
            answer = int(p.argmax())
            title = f"{self.data.classes[answer]} {p[answer]:.2f}"
            wrong = self.say("is", truth=self.data.classes[truth])
            titles.append(title if answer == truth else f"{title}\n({wrong})")
        self.samples(name, photos, titles, "predictions caption")


def described(run: Run, say: Phrases) -> dict[str, str]:
    """The settings of a run in words: loss, optimiser, rate, batches, loaders, augmentation."""
    recipe = run.recipe
    optimiser = recipe.optimiser.upper().replace("ADAM", "Adam")
    momentum = f", momentum {recipe.momentum:g}" if recipe.optimiser == "sgd" else ""
    schedule = say(
        f"schedule {recipe.schedule}",
        patience=recipe.patience,
        cooldown=recipe.cooldown,
        milestones=", ".join(map(str, recipe.milestones)),
    )
    augmented = "; ".join(f"{say(f'augment {name}')}" for name in recipe.augment)
    return {
        "loss": say("cross-entropy"),
        "optimiser": optimiser + momentum,
        "learning rate": f"{recipe.learning_rate:g}",
        "schedule": schedule,
        "weight decay": f"{recipe.weight_decay:g}",
        "batch size": str(recipe.batch_size),
        "loader": say("loader", batch=recipe.batch_size),
        "epochs": str(recipe.epochs),
        "augmentation": augmented or say("none"),
    }


def verdict_on(before: Result, after: Result) -> str:
    """The phrase that the difference in test accuracy bears out, in two standard errors."""
    test, training = (
        after.final[f"{kind}_accuracy"] - before.final[f"{kind}_accuracy"]
        for kind in ("test", "training")
    )
    chance = noise(before, after)
    if test > chance:
        return "verdict better"
    if test >= -chance:
        return "verdict overfits more" if training > chance else "verdict no difference"
    return "verdict overfits" if training > chance else "verdict harder"


def noise(before: Result, after: Result) -> float:
    """Two standard errors of the difference of two test accuracies."""
    p = (after.final["test_accuracy"] + before.final["test_accuracy"]) / 2
    return 2 * math.sqrt(2 * p * (1 - p) / len(after.run.data.test))


def as_image(pixels: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a picture large enough to be looked at."""
    array = pixels.permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)
    image = Image.fromarray(np.ascontiguousarray(array))
    return image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in label.lower())
