"""What a change of the settings is worth: accuracy on folds of the sample, paired photo by photo.

    python benchmarks/folds.py TESTS_DIR --set input_size=384 --set epochs=20
                               [--look box_threshold=0.5] [--folds 0,1,2,3,4] [--seeds 0]
                               [--photos 10,15] [--init CHECKPOINT] [--table FILE]

Trains `solution.py`'s way on four fifths of the first test's photos, for each fold and seed, and
classifies the other fifth as `classify` does. `--set` changes a setting for training and looking,
`--look` only for looking: the networks trained with the settings are then taken as they are.
`--photos` trains on so many photos of each species at most, a row for each number.

Prints accuracy, cross-entropy after temperature (nats), and the differences from the unchanged
settings on the same folds and seeds, with the standard error over photos and McNemar's counts
(right only so / only otherwise); appends the row to a table. Every finished fold is kept in
--scratch, so an interrupted or repeated command goes on where it was. No test photo is used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution
from course.files import atomic_write
from course.layout import find_tests, read_csv
from solution import Settings
from train_full import TrainingTable

FOLDS = 5
HEADER = (
    "| changed | folds | seeds | accuracy | cross-entropy | difference | standard error "
    "| only so / only otherwise | cross-entropy's | seconds a fold |\n" + "| --- " * 10 + "|\n"
)


@dataclass(frozen=True)
class Trial:
    """One training on one fold: with `settings`, then looking with `look` changed."""

    settings: Settings
    look: tuple[tuple[str, Any], ...]
    fold: int
    photos: int | None

    def key(self, *, trained: bool) -> str:
        """A name for the file of the trained network, or of what it answered."""
        what = [asdict(self.settings), self.fold, self.photos, None if trained else self.look]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """Logits (N, classes) and labels (N,) of the fold's photos; seconds of the training."""

    logits: Tensor
    labels: Tensor
    seconds: float


class Sample:
    """The photos with their labels, and the views that trials with the same settings share."""

    def __init__(self, tests_dir: Path, init: Path | None, scratch: Path) -> None:
        folder = find_tests(tests_dir)[0].input / "train"
        gt = read_csv(folder / "gt.csv")
        self.class_ids = sorted(set(gt.values()))
        self.paths = [folder / "images" / name for name in gt]
        self.labels = torch.tensor([self.class_ids.index(class_id) for class_id in gt.values()])
        self.init, self.scratch = init, scratch
        self.caches: dict[Settings, solution.TrunkCache] = {}
        scratch.mkdir(parents=True, exist_ok=True)

    def split(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the photos to train on and of the fold's."""
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        train, held_out = list(folds.split(self.labels, self.labels))[trial.fold]
        if trial.photos is not None:
            shuffled, taken = np.random.default_rng(trial.fold).permutation(train), defaultdict(int)
            kept = []
            for index in shuffled.tolist():
                taken[int(self.labels[index])] += 1
                if taken[int(self.labels[index])] <= trial.photos:
                    kept.append(index)
            train = np.sort(np.array(kept))
        return train, held_out

    def result(self, trial: Trial, progress: solution.Progress) -> Result:
        """What a trial's network answers on its fold: from the scratch folder, or trained now."""
        file = self.scratch / f"{trial.key(trained=False)}.answers.pt"
        if not file.is_file():
            checkpoint = self._trained(trial, progress)
            changed = checkpoint["preprocessing"] | dict(trial.look)
            classifier = solution.Classifier(checkpoint | {"preprocessing": changed})
            _, held_out = self.split(trial)
            photos = [self.paths[index] for index in held_out]
            logits = torch.stack([seen.logits for _, seen in classifier.answers(photos)])
            _save((logits, self.labels[held_out], checkpoint["seconds"]), file)
        return Result(*torch.load(file))

    def _trained(self, trial: Trial, progress: solution.Progress) -> dict[str, Any]:
        file = self.scratch / f"{trial.key(trained=True)}.network.pt"
        if not file.is_file():
            settings, (train, _) = trial.settings, self.split(trial)
            with solution._seeded(settings.seed):
                network, head = solution.pretrained(self.class_ids, None, settings, self.init)
                cache = self._cache(settings, network, head, progress)
                start = time.perf_counter()
                what = f"fold {trial.fold}, seed {settings.seed}"
                solution._fit(what, network, cache, self.labels, train)
            seconds = time.perf_counter() - start
            described = solution._described(network.eval(), settings)
            _save(described | {"seconds": seconds}, file)
        return torch.load(file)

    def _cache(
        self,
        settings: Settings,
        network: solution.BirdNet,
        head: solution.Head | None,
        progress: solution.Progress,
    ) -> solution.TrunkCache:
        if settings not in self.caches:
            progress.stage("first look", len(self.paths))
            birds = solution.find_birds(network, head, self.paths, settings, progress)
            self.caches = {settings: solution.TrunkCache(network, birds, settings, progress)}
        return self.caches[settings]


def _save(content: Any, file: Path) -> None:
    with atomic_write(file) as temporary:
        torch.save(content, temporary)


def cross_entropies(results: list[Result]) -> tuple[Tensor, Tensor]:
    """Whether each photo is answered right, and its cross-entropy at one common temperature."""
    logits = torch.cat([result.logits for result in results])
    labels = torch.cat([result.labels for result in results])
    logits = logits / solution.fit_temperature(logits, labels)
    right = logits.argmax(1) == labels
    return right.double(), functional.cross_entropy(logits, labels, reduction="none").double()


def row(what: str, options: argparse.Namespace, new: list[Result], old: list[Result]) -> str:
    """A row of the table. The same photo under several seeds counts as one, by its mean."""
    (right, loss), (right_before, loss_before) = cross_entropies(new), cross_entropies(old)
    seeds = len(options.seeds)
    difference = (right - right_before).view(seeds, -1)  # (seeds, photos)
    error = difference.mean(0).std().item() / math.sqrt(difference.shape[1])
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    seconds = sum(result.seconds for result in new) / len(new)
    folds = ",".join(map(str, options.folds))
    return (
        f"| {what} | {folds} | {','.join(map(str, options.seeds))} | {right.mean():.4f} "
        f"| {loss.mean():.4f} | {difference.mean():+.4f} | {error:.4f} | {gained} / {lost} "
        f"| {(loss - loss_before).mean():+.4f} | {seconds:.0f} |"
    )


def changes(texts: list[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE, each with the type of its default."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not hasattr(Settings, name) or not value:
            known = ", ".join(asdict(Settings()))
            raise SystemExit(f"Error: {text} is no NAME=VALUE with one of the settings: {known}")
        kind = type(getattr(Settings, name))
        found[name] = value == "True" if kind is bool else kind(value)
    return found


def whole_numbers(text: str) -> list[int]:
    """`0,1,2` for argparse."""
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("tests_dir", type=Path, metavar="TESTS_DIR")
    add("--set", action="append", default=[], metavar="NAME=VALUE")
    add("--look", action="append", default=[], metavar="NAME=VALUE")
    add("--folds", type=whole_numbers, default=list(range(FOLDS)), metavar="0,1,2,3,4")
    add("--seeds", type=whole_numbers, default=[0], metavar="0,1")
    add("--photos", type=whole_numbers, default=[None], metavar="10,15", help="a row for each")
    add("--init", type=Path, metavar="CHECKPOINT")
    add("--scratch", type=Path, default=Path("report/folds"), metavar="DIR")
    add("--table", type=Path, metavar="FILE", help="default: table.md in the scratch folder")
    return parser.parse_args()


def results_of(
    sample: Sample, options: argparse.Namespace, changed: Mapping[str, Any], look: tuple,
    photos: int | None, progress: solution.Progress
) -> list[Result]:  # fmt: skip
    """The results of all seeds and folds, one seed after the other."""
    return [
        sample.result(Trial(replace(Settings(seed=s), **changed), look, f, photos), progress)
        for s in options.seeds
        for f in options.folds
    ]


def main() -> None:
    """Train what is missing, print the row."""
    options, table, rows = parse(), TrainingTable(), []
    sample = Sample(options.tests_dir, options.init, options.scratch)
    look, named = tuple(changes(options.look).items()), [*options.set]
    named += [f"look {text}" for text in options.look]
    with table.bars:
        usual = results_of(sample, options, {}, (), None, table)
        for photos in options.photos:
            new = results_of(sample, options, changes(options.set), look, photos, table)
            what = named + ([f"{photos} photos a species"] if photos else [])
            rows.append(row(" ".join(what) or "nothing: the settings", options, new, usual))
    file = options.table or options.scratch / "table.md"
    with file.open("a", encoding="utf-8") as open_table:
        open_table.writelines(f"{line}\n" for line in rows)
    print(HEADER + "\n".join(rows))


if __name__ == "__main__":
    main()
