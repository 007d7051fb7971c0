"""What the command line asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from coursework.data import DataSet, load
from coursework.engine import Recipe


@dataclass(frozen=True)
class Options:
    """What the command line says; None stands for the assignment's own value."""

    out: Path
    data: Path | None = None
    epochs: int | None = None
    subset: int | None = None
    seed: int | None = None
    full: bool = False  # the assignment's own numbers
    smoothing: int = 1
    network: str | None = None  # of transfer; None: the first one whose weights there are
    object: int = 0  # of transfer: the test photo to be classified
    photo: Path | None = None  # of ladder: the new photo

    def load(self, wanted: str, side: int, subset: int | None = None) -> DataSet:
        """Return the data set, or as much of it as was asked for; `subset` is the default."""
        data = load(wanted, self.data, side)
        return data.subset(self.subset or (None if self.full else subset), self.subset)

    def recipe(self, recipe: Recipe, full_epochs: int | None = None) -> Recipe:
        """Return a recipe with the epochs and the seed that were asked for."""
        own = full_epochs if self.full and full_epochs else recipe.epochs
        return replace(recipe, epochs=self.epochs or own, seed=recipe.seed + (self.seed or 0))
