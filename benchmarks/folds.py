"""Measure what a change of the settings is worth: accuracy on folds, paired photo by photo.

    python -m benchmarks.folds TESTS_DIR --set layer_decay=0.8 --set epochs=20
                               [--views first_size=288] [--folds 0,1,2,3,4] [--seeds 0,1]
                               [--photos 10,15] [--scratch DIR]

Trains as `solution.py` does on four fifths of the first test's photos, for each fold and seed, and
classifies the other fifth as `classify` does, by all views. `--set` changes a setting of training,
`--views` a constant of the views alone: the networks trained with the settings are then taken as
they are. `--photos` trains on so many photos of each species at most, a row for each number.

Prints accuracy by photo and by species (the mean of the species' recalls), cross-entropy after
temperature (nats), and the differences from the unchanged settings on the same folds and seeds,
with standard errors over photos and seeds; from two seeds on also a row of all seeds' mean logits.
Finished folds are kept in the scratch folder: an interrupted command goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.nn import functional

import solution
from course import cli
from course.files import UserError, check_writable
from course.layout import labels_fingerprint, load_training_set, photo_digests
from reporting.calibration import fit_temperature
from solution import Prediction, Sample, Settings
from train_full import changes, save

FOLDS = 5


class Outcome(NamedTuple):
    """What the networks of one seed after the other predict of all folds' photos."""

    logits: Tensor  # (seeds, photos, classes)
    labels: Tensor  # (photos,)


class Folds:
    """The sample in five stratified folds, and what is known of them already."""

    def __init__(self, tests_dir: Path, scratch: Path) -> None:
        training = load_training_set(tests_dir, solution.may_be_photo)
        self.class_ids = sorted(set(training.gt.values()))
        self.paths, self.scratch = [training.images / name for name in training.gt], scratch
        self.labels = torch.tensor([self.class_ids.index(i) for i in training.gt.values()])
        self.sample = photo_digests(self.paths) + labels_fingerprint(training.gt)
        self.start = lru_cache(maxsize=1)(self._start)  # takes a minute, for each settings

    def split(self, fold: int, photos: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of the photos to train on, so many of each species, and of the fold's."""
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        train, held_out = list(folds.split(self.labels, self.labels))[fold]
        shuffled = np.random.default_rng(fold).permutation(train)
        species = self.labels.numpy()[shuffled]
        of_each = [shuffled[species == label][:photos] for label in np.unique(species)]
        return np.sort(np.concatenate(of_each)), held_out

    def outcome(self, folds: list[int], settings: list[Settings], **arguments: Any) -> Outcome:
        """Return what is `predicted` with these settings, which differ in the seed alone."""
        parts = [
            self.kept(self.predicted, settings=one, fold=fold, **arguments)
            for one in settings
            for fold in folds
        ]
        held_out = np.concatenate([self.split(fold, None)[1] for fold in folds])
        by_seed = torch.cat(parts).unflatten(0, (len(settings), -1))
        return Outcome(by_seed, self.labels[held_out])

    def kept(self, compute: Callable[..., Any], **arguments: Any) -> Any:
        """Return what a method computes of these arguments; once computed, it is kept in a file."""
        texts = {name: str(value) for name, value in arguments.items()}
        what = json.dumps([compute.__name__, self.sample, texts])
        file = self.scratch / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.pt"
        if not file.is_file():
            save(compute(**arguments), file)
        return torch.load(file)

    def predicted(
        self, settings: Settings, fold: int, photos: int | None, views: dict[str, Any]
    ) -> Tensor:
        """Return logits (N, classes) of a fold."""
        network, (_, held_out) = solution.BirdNet(self.class_ids), self.split(fold, photos)
        state = self.kept(self.trained, settings=settings, fold=fold, photos=photos)
        network.load_state_dict(state)
        constants = solution.preprocessing_of(settings) | views
        predictor = solution.TwoStagePredictor(network.eval(), constants)
        predictions = predictor.predict([self.paths[index] for index in held_out])
        return torch.stack([cast(Prediction, one).logits for one in predictions])

    def trained(self, settings: Settings, fold: int, photos: int | None) -> dict[str, Tensor]:
        """Return the weights of a network that has not seen a fold."""
        with solution.standard_torch(settings.seed):
            network, sample = self.start(settings)
            network = copy.deepcopy(network)
            run = solution.TrainingRun(network, sample, settings)
            train, _ = self.split(fold, photos)
            run.fit(f"fold {fold}, seed {settings.seed}", train, lambda row: print(row, flush=True))
        return network.state_dict()

    def _start(self, settings: Settings) -> tuple[solution.BirdNet, Sample]:
        """Return the network to start from, and the photos with the birds' boxes."""
        network = solution.BirdNet(self.class_ids, seed=settings.seed)
        head = solution.load_pretrained(network, settings.weights)
        boxes = solution.locate_birds(network, head, self.paths, settings)
        if len(boxes) < len(self.paths):
            raise UserError("the photos above cannot be read: take them out of the sample")
        return network, Sample(self.paths, self.labels, list(boxes.values()))


# ---- The row ---------------------------------------------------------------------------------


def scores(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """Return whether each answer is right, and its cross-entropy (nats); both (seeds, photos)."""
    logits, labels = outcome.logits.flatten(0, 1), outcome.labels.repeat(len(outcome.logits))
    right = (logits.argmax(1) == labels).double()
    logits = logits / fit_temperature(logits, labels)
    loss = functional.cross_entropy(logits, labels, reduction="none").double()
    return right.view(len(outcome.logits), -1), loss.view(len(outcome.logits), -1)


def difference(values: Tensor) -> str:
    """Return the mean of differences (seeds, photos) and its standard error over both."""
    seeds, photos = values.shape
    of_photos = values.mean(0).var() / photos
    of_seeds = values.mean(1).var() / seeds if seeds > 1 else torch.zeros(())
    return f"{values.mean():+.4f} ± {math.sqrt(of_photos + of_seeds):.4f}"


def compared(new: Outcome, old: Outcome) -> dict[str, str]:
    """Return what the table says of changed settings and of the unchanged ones, by column."""
    (right, loss), (right_before, loss_before) = scores(new), scores(old)
    balance = torch.from_numpy(compute_sample_weight("balanced", new.labels.numpy()))  # (photos,)
    change = right - right_before
    return {
        "accuracy": f"{right.mean():.4f}",
        "by species": f"{(right * balance).mean():.4f}",
        "cross-entropy": f"{loss.mean():.4f}",
        "difference": difference(change),
        "difference by species": difference(change * balance),
        "difference of cross-entropy": difference(loss - loss_before),
        "only changed / only unchanged right": f"{(change > 0).sum()} / {(change < 0).sum()}",
    }


# ---- The command -----------------------------------------------------------------------------


def whole_numbers(text: str, **limits: int) -> list[int]:
    """`0,1,2` for argparse."""
    return [cli.natural(part, **limits) for part in text.split(",")]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, least_one = parser.add_argument, partial(whole_numbers, least=1)
    of_folds = partial(whole_numbers, most=FOLDS - 1)
    add("tests_dir", type=Path, metavar="TESTS_DIR", help="folder with NN_<name>_input")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="of training and views")
    add("--views", action="append", default=[], metavar="NAME=VALUE", help="of the views alone")
    add("--folds", type=of_folds, default=list(range(FOLDS)), metavar="0,1,2,3,4")
    add("--seeds", type=whole_numbers, default=[0], metavar="0,1")
    add("--photos", type=least_one, default=[None], metavar="10,15", help="a row for each")
    add("--scratch", type=Path, default=Path("report/folds"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print a table in Markdown."""
    options = parse(arguments)
    check_writable(options.scratch / "logits.pt")
    folds, views = Folds(options.tests_dir, options.scratch), changes(options.views)
    seeds = [Settings(seed=seed) for seed in options.seeds]
    changed = [replace(settings, **changes(options.set)) for settings in seeds]
    usual = folds.outcome(options.folds, seeds, photos=None, views={})
    rows = []
    for photos in options.photos:
        new = folds.outcome(options.folds, changed, photos=photos, views=views)
        what = [*options.set, *(f"views {text}" for text in options.views)]
        what += [f"{photos} photos per species"] if photos else []
        outcomes = {" ".join(what) or "nothing: the settings": new}
        if len(seeds) > 1:  # without the chance of a single training
            mean = new.logits.mean(0, keepdim=True)  # (1, photos, classes)
            outcomes["the mean of the seeds' logits"] = new._replace(logits=mean)
        numbers = {name: ",".join(map(str, getattr(options, name))) for name in ("folds", "seeds")}
        for text, outcome in outcomes.items():
            rows.append({"changed": text} | numbers | compared(outcome, usual))
    for cells in (rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    cli.run(main)
