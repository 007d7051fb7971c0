"""What the command line asks of an assignment, and the folder that its results go into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from course.files import atomic_write, check_writable, remove_leftovers
from coursework.data import CourseworkError, DataSet, load
from coursework.engine import Hardware, Recipe, Result, Run, train


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

    Raises CourseworkError if it holds another's, UserError if it cannot be written.
    """
    mark = folder / "assignment.txt"
    holds = mark.read_text(encoding="utf-8").strip() if mark.is_file() else assignment
    if holds != assignment:
        raise CourseworkError(
            f"{folder} holds the results of {holds}: choose another --out, or delete it"
        )
    for name in (mark.name, "history.json", "report.html", "report.md"):
        check_writable(folder / name)
        remove_leftovers(folder / name)
    with atomic_write(mark) as temporary:
        temporary.write_text(f"{assignment}\n", encoding="utf-8")
