"""Measure what a change of the settings is worth: accuracy on folds, paired photo by photo.

    python -m benchmarks.folds TESTS_DIR --set layer_decay=0.8 --set epochs=20
                               [--views first_size=288] [--folds 0,1,2,3,4] [--seeds 0,1]
                               [--photos 10,15] [--scratch DIR] [--table FILE]

Trains as `solution.py` does on four fifths of the first test's photos, for each fold and seed, and
classifies the other fifth as `classify` does, by all views. `--set` changes a setting of training,
`--views` a constant of the views alone: the networks trained with the settings are then taken as
they are. `--photos` trains on so many photos of each species at most, a row for each number.

Prints accuracy by photo and by species (the mean of the species' recalls; the course's samples are
balanced), cross-entropy after temperature (nats), and the differences from the unchanged settings
on the same folds and seeds, with standard errors over photos and, from two seeds on, over seeds.
Finished folds are kept in the scratch folder, so that an interrupted or repeated command goes on
where it was. No test photo is used.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from course.files import UserError
from course.layout import load_training_set
from reporting.calibration import fit_temperature
from solution import EpochRow, Prediction, Sample, Settings
from train_full import changes, save

FOLDS = 5
COLUMNS = (
    *("changed", "folds", "seeds", "accuracy", "by species", "cross-entropy", "difference"),
    *("by species", "cross-entropy's", "only changed / only unchanged right", "seconds a fold"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|\n"


@dataclass(frozen=True)
class Trial:
    """One training on one fold, then classifying with some constants of the views changed."""

    settings: Settings
    views: tuple[tuple[str, Any], ...]
    fold: int
    photos: int | None

    def key(self, *parts: str) -> str:
        """Return a name for the file that keeps what these parts of the trial decide."""
        what = {part: str(getattr(self, part)) for part in parts}
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


class Outcome(NamedTuple):
    """Logits (N, classes) and labels (N,) of the fold's photos; seconds of the training."""

    logits: Tensor
    labels: Tensor
    seconds: float


class Folds:
    """The sample in five stratified folds, and what is known of them already."""

    def __init__(self, tests_dir: Path, scratch: Path) -> None:
        training = load_training_set(tests_dir, solution.may_be_photo)
        self.class_ids = sorted(set(training.gt.values()))
        self.names = [training.species.get(i, f"class {i}") for i in self.class_ids]
        self.paths, self.scratch = training.paths, scratch
        self.labels = torch.tensor([self.class_ids.index(i) for i in training.gt.values()])
        self.samples: dict[Settings, tuple[solution.BirdNet, Sample]] = {}

    def split(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of the photos to train on and of the fold's."""
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        train, held_out = list(folds.split(self.labels, self.labels))[trial.fold]
        if trial.photos is not None:
            shuffled = np.random.default_rng(trial.fold).permutation(train)
            species = self.labels.numpy()[shuffled]
            of_each = [shuffled[species == label][: trial.photos] for label in np.unique(species)]
            train = np.sort(np.concatenate(of_each))
        return train, held_out

    def outcome(self, trial: Trial) -> Outcome:
        """Return what a trial's network predicts on its fold: kept, or computed now."""
        file = self.scratch / f"{trial.key('settings', 'views', 'fold', 'photos')}.logits.pt"
        if not file.is_file():
            network, seconds = self._trained(trial)
            constants = solution.preprocessing_of(trial.settings) | dict(trial.views)
            predictor = solution.TwoStagePredictor(network, constants)
            _, held_out = self.split(trial)
            predictions = predictor.predict([self.paths[index] for index in held_out])
            logits = torch.stack([cast(Prediction, one).logits for one in predictions])
            save((logits, self.labels[held_out], seconds), file)
        return Outcome(*torch.load(file))

    def _trained(self, trial: Trial) -> tuple[solution.BirdNet, float]:
        file = self.scratch / f"{trial.key('settings', 'fold', 'photos')}.pt"
        network, settings = solution.BirdNet(self.class_ids), trial.settings
        if not file.is_file():
            with solution.standard_torch(settings.seed):
                start_network, sample = self._sample(settings)
                start, network = time.perf_counter(), copy.deepcopy(start_network)
                run = solution.TrainingRun(network, sample, settings)
                run.fit(f"fold {trial.fold}, seed {settings.seed}", self.split(trial)[0], print_row)
            save((network.state_dict(), time.perf_counter() - start), file)
        state, seconds = torch.load(file)
        network.load_state_dict(state)
        return network.eval(), seconds

    def _sample(self, settings: Settings) -> tuple[solution.BirdNet, Sample]:
        """Return the network to start from, and the photos with the birds' boxes."""
        if settings not in self.samples:
            network = solution.BirdNet(self.class_ids, seed=settings.seed)
            head = solution.load_pretrained(network, settings.weights)
            boxes = solution.locate_birds(network, head, self.paths, settings)
            if len(boxes) < len(self.paths):
                raise UserError("the photos above cannot be read: take them out of the sample")
            sample = Sample(self.paths, self.labels, list(boxes.values()))
            self.samples = {settings: (network, sample)}
        return self.samples[settings]


def print_row(row: EpochRow) -> None:
    """Print that an epoch ended."""
    print(f"{row.stage}, epoch {row.epoch}: loss {row.loss:.4f}, {row.seconds:.0f} s", flush=True)


# ---- The row ---------------------------------------------------------------------------------


def scores(outcomes: list[Outcome], seeds: int) -> tuple[Tensor, Tensor]:
    """Return of each photo under each seed whether it is right, and its cross-entropy.

    Both are (seeds, photos); the outcomes, one seed after the other, get one common temperature.
    """
    logits = torch.cat([outcome.logits for outcome in outcomes])
    labels = torch.cat([outcome.labels for outcome in outcomes])
    right = (logits.argmax(1) == labels).double()
    logits = logits / fit_temperature(logits, labels)
    loss = functional.cross_entropy(logits, labels, reduction="none").double()
    return right.view(seeds, -1), loss.view(seeds, -1)


def difference(values: Tensor) -> str:
    """Return the mean of differences (seeds, photos) with its standard error.

    The error has two parts: from the choice of the photos and, where known, of the seeds.
    """
    seeds, photos = values.shape
    of_photos = values.mean(0).var() / photos
    of_seeds = values.mean(1).var() / seeds if seeds > 1 else torch.zeros(())
    return f"{values.mean():+.4f} ± {math.sqrt(of_photos + of_seeds):.4f}"


def row(what: str, options: argparse.Namespace, new: list[Outcome], old: list[Outcome]) -> str:
    """Return a row of the table, in Markdown."""
    seeds = len(options.seeds)
    (right, loss), (right_before, loss_before) = scores(new, seeds), scores(old, seeds)
    labels = torch.cat([outcome.labels for outcome in new]).view(seeds, -1)[0]
    balance = torch.from_numpy(compute_sample_weight("balanced", labels.numpy()))  # (photos,)
    change = right - right_before
    cells = [
        what,
        ",".join(map(str, options.folds)),
        ",".join(map(str, options.seeds)),
        f"{right.mean():.4f}",
        f"{(right * balance).mean():.4f}",
        f"{loss.mean():.4f}",
        difference(change),
        difference(change * balance),
        difference(loss - loss_before),
        f"{int((change > 0).sum())} / {int((change < 0).sum())}",
        f"{sum(outcome.seconds for outcome in new) / len(new):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def common_errors(outcomes: list[Outcome], seeds: int, names: list[str]) -> str:
    """Return how many photos the networks of all seeds get wrong, and what they mix up most."""
    predicted = torch.cat([outcome.logits.argmax(1) for outcome in outcomes]).view(seeds, -1)
    labels = torch.cat([outcome.labels for outcome in outcomes]).view(seeds, -1)[0]
    wrong = (predicted != labels).all(0)  # (photos,)
    mixed_up = zip(labels[wrong].tolist(), predicted[0, wrong].tolist(), strict=True)
    pairs = Counter(" / ".join(sorted((names[a], names[b]))) for a, b in mixed_up)
    most = ", ".join(f"{pair}: {count}" for pair, count in pairs.most_common(5))
    return f"Wrong with every seed: {int(wrong.sum())} of {len(labels)} photos; most often {most}"


# ---- The command -----------------------------------------------------------------------------


def whole_numbers(text: str) -> list[int]:
    """`0,1,2` for argparse."""
    return [int(part) for part in text.split(",")]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("tests_dir", type=Path, metavar="TESTS_DIR", help="folder with NN_<name>_input")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="of training and views")
    add("--views", action="append", default=[], metavar="NAME=VALUE", help="of the views alone")
    add("--folds", type=whole_numbers, default=list(range(FOLDS)), metavar="0,1,2,3,4")
    add("--seeds", type=whole_numbers, default=[0], metavar="0,1")
    add("--photos", type=whole_numbers, default=[None], metavar="10,15", help="a row for each")
    add("--scratch", type=Path, default=Path("report/folds"), metavar="DIR")
    add("--table", type=Path, metavar="FILE", help="default: table.md in the scratch folder")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, print the rows."""
    options, rows = parse(arguments), []
    folds, views = Folds(options.tests_dir, options.scratch), tuple(changes(options.views).items())

    def outcomes(
        changed: Mapping[str, Any], views: tuple[tuple[str, Any], ...], photos: int | None
    ) -> list[Outcome]:
        return [
            folds.outcome(Trial(replace(Settings(seed=s), **changed), views, fold, photos))
            for s in options.seeds
            for fold in options.folds
        ]

    usual = outcomes({}, (), None)
    for photos in options.photos:
        new = outcomes(changes(options.set), views, photos)
        what = [*options.set, *(f"views {text}" for text in options.views)]
        what += [f"{photos} photos per species"] if photos else []
        rows.append(row(" ".join(what) or "nothing: the settings", options, new, usual))
    file = options.table or options.scratch / "table.md"
    with file.open("a", encoding="utf-8") as table:
        table.writelines(f"{line}\n" for line in rows)
    print(HEADER + "\n".join(rows))
    print(common_errors(usual, len(options.seeds), folds.names))


if __name__ == "__main__":
    cli.run(main)
