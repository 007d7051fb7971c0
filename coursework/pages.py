"""What the reports of the assignments share: options, tables, plots, predictions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch import Tensor, nn

from coursework.data import DIGITS, CourseworkError, DataSet, load
from coursework.engine import (
    Hardware,
    Recipe,
    Result,
    Run,
    in_bfloat16,
    probabilities,
    train,
)
from grader.protocol import check_writable, remove_left_over
from reporting.charts import curves, photo_grid
from reporting.page import Page, Picture

CURVES = {"loss": "cross-entropy in nats", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Options:
    """What the command line says; None stands for the assignment's own value."""

    out: Path
    name: str = ""  # of the assignment
    epochs: int | None = None
    subset: int | None = None
    data: str | None = None
    hardware: Hardware = Hardware()  # noqa: RUF009 (it is frozen)
    seed: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    preset: str = "quick"  # or "full", the assignment's own numbers, or "night" in between
    smoothing: int = 1
    language: str = "en"
    network: str | None = None  # of transfer; None: what the assignment allows and there is
    weights: str | None = None  # of transfer: "random" instead of ImageNet's
    photo: Path | None = None  # of ladder: a new one to be classified
    object: int | None = None  # of transfer: the test photo to be looked at

    @property
    def full(self) -> bool:
        """Whether the assignment's own numbers are asked for."""
        return self.preset == "full"

    def load(self, wanted: str, side: int, subset: int | None = None) -> DataSet:
        """The data set, or so much of it as was asked for; `subset` is the assignment's own."""
        own = None if self.full else subset
        data = load(wanted, self.data, side).subset(self.subset or own, self.subset)
        claim(self.out, self.name)
        return data

    def recipe(self, recipe: Recipe, full_epochs: int) -> Recipe:
        """A recipe with the epochs, seed, learning rate and batch size that were asked for."""
        given = {name: getattr(self, name) for name in ("seed", "learning_rate", "batch_size")}
        given |= {"epochs": self.epochs or (full_epochs if self.full else recipe.epochs)}
        return replace(recipe, **{name: v for name, v in given.items() if v is not None})

    def train(self, run: Run) -> Result:
        """Train from the last whole epoch that `out` holds of the run."""
        return train(run, self.out, self.hardware)


@rank_zero_only
def claim(folder: Path, assignment: str) -> None:
    """Mark the folder of results as the assignment's, before anything is trained.

    Raises CourseworkError if it holds another's, GraderError if it cannot be written.
    """
    mark = folder / "assignment.txt"
    holds = mark.read_text(encoding="utf-8").strip() if mark.is_file() else assignment
    if holds != assignment:
        raise CourseworkError(
            f"{folder} holds the results of {holds}: choose another --out, or delete it"
        )
    for name in (mark.name, "history.json", "report.html", "report.md"):
        check_writable(folder / name)
        remove_left_over(folder / name)
    mark.write_text(f"{assignment}\n", encoding="utf-8")


def page_of(title: str, data: DataSet, wanted: str) -> Page:
    """A page that begins with the facts of the data and of the machine."""
    page = Page(title)
    counts = f"{len(data.train):,} to train on, {len(data.test):,} to test on"
    if data.validation:
        counts += f", {len(data.validation):,} held out of the training photos for validation"
    size = " x ".join(str(n) for n in data.train.inputs.shape[2:])
    page.text(f"Data: {data.name}, {len(data.classes)} classes, photos of {size}: {counts}.")
    if data.name.startswith(DIGITS):
        page.text(
            f"These are not the assignment's photos: in the place of {wanted} stand 1,797 digits "
            "that scikit-learn brings along, so the numbers below say nothing of that data set."
        )
    arithmetic = "bfloat16 where a run asks for it" if in_bfloat16(True) else "float32"
    page.text(
        f"Machine: {os.cpu_count()} processors, {torch.get_num_threads()} of them used, "
        f"torch {torch.__version__}, convolutions in {arithmetic}."
    )
    return page


def samples(
    page: Page, name: str, photos: Tensor, titles: Sequence[str], caption: str, columns: int = 4
) -> None:
    """A grid of photos (N, C, H, W), uint8, with a title each."""
    page.picture(photo_grid(name, [as_image(p) for p in photos], titles, columns, caption))


def as_image(pixels: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> a picture large enough to be looked at."""
    array = pixels.permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)
    image = Image.fromarray(array)
    return image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)


def predictions(
    page: Page, name: str, network: nn.Module, data: DataSet, count: int = 8, caption: str = ""
) -> None:
    """The first test photos with answer, its probability, and the truth where it is another."""
    shown = data.test.inputs[:count]
    titles = []
    for p, label in zip(probabilities(network, shown), data.test.labels[:count], strict=True):
        answer, truth = int(p.argmax()), int(label)
        title = f"{data.classes[answer]} {p[answer]:.2f}"
        titles.append(title if answer == truth else f"{title}\n(is {data.classes[truth]})")
    samples(page, name, shown, titles, caption or "Test photos with answer and probability.")


def runs_table(page: Page, results: Sequence[Result]) -> None:
    """A row a run: what changed, size, cost, accuracies of the trained network."""
    header = ("run", "what changed", "parameters", "photos", "epochs", "seconds an epoch")
    header += ("seconds", "training accuracy", "test accuracy")
    page.table(
        header,
        [
            (
                r.run.label,
                r.run.change,
                f"{r.parameters:,}",
                f"{len(r.run.data.train):,}",
                len(r.rows),
                f"{r.seconds / len(r.rows):.1f}",
                f"{r.seconds:.0f}",
                f"{r.final['training_accuracy']:.4f}",
                f"{r.final['test_accuracy']:.4f}",
            )
            for r in results
        ],
    )
    page.text(
        "Accuracies are those of the network after its last epoch, on untouched photos, for "
        "training up to 10,000 of them. No epoch was chosen by its result. Seconds include the "
        "evaluation after each epoch."
    )


def plots(page: Page, results: Sequence[Result], smoothing: int, suffix: str = "") -> None:
    """Loss and accuracy of all runs on the same axes."""
    kind = results[0].run.data.watched_kind
    caption = (
        "Training values are means over the epoch, with dropout and on augmented photos where "
        f"the run has them; {kind} values are measured after it on untouched ones."
    )
    for value in CURVES:
        page.picture(plot(f"{value}{suffix}", results, value, smoothing, caption))


def plot(
    name: str, results: Sequence[Result], value: str, smoothing: int, caption: str = ""
) -> Picture:
    """`loss` or `accuracy` of the runs by epoch, in training and on the watched photos."""
    runs = {
        r.run.label: {
            "training": [getattr(row, value) for row in r.rows],
            r.run.data.watched_kind: [getattr(row, f"val_{value}") for row in r.rows],
        }
        for r in results
    }
    return curves(name, runs, CURVES[value], smoothing, caption)


def compared(results: Sequence[Result]) -> list[str]:
    """A sentence for each run after the first: against the one before, and what that tells."""
    return [_compared(*pair) for pair in pairwise(results)]


def _compared(before: Result, after: Result) -> str:
    test, training = (
        after.final[f"{kind}_accuracy"] - before.final[f"{kind}_accuracy"]
        for kind in ("test", "training")
    )
    gap = after.final["training_accuracy"] - after.final["test_accuracy"]
    photos = len(after.run.data.test)
    p = (after.final["test_accuracy"] + before.final["test_accuracy"]) / 2
    chance = 2 * math.sqrt(2 * p * (1 - p) / photos)  # two standard errors of a difference
    if test > chance:
        verdict = "better"
    elif training > chance:
        verdict = "no better, though better on training photos: it overfits more"
    elif test >= -chance:
        verdict = f"no difference that {photos:,} test photos could tell"
    else:
        verdict = (
            "worse, and no better on training photos either: that is not overfitting, but a "
            "task that is harder to learn in so many steps"
        )
    return (
        f"{after.run.label} ({after.run.change}): test accuracy {test:+.4f}, training accuracy "
        f"{training:+.4f} against {before.run.label}: {verdict}. "
        f"Training is {gap:.4f} above test."
    )
