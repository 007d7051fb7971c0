"""What each choice in `solution.Settings` is worth, as the difference that another one makes.

    python benchmarks/choices.py TESTS_DIR [--epochs 4] [--seeds 3] [--init CHECKPOINT]

Trains the validation run of `train_classifier` on the first test's photos for every row of `ROWS`,
always on the same split. A seed decides the new head, the order of the photos, and what is mixed;
the augmented views are the same for all seeds. Prints for each row the mean and the spread
(standard deviation) of the validation accuracy, and of the cross-entropy of the probabilities
after their temperature. Few epochs, so that the table takes less than an hour on two cores: read
it for the differences between its rows.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution
from grader.protocol import find_tests, read_csv
from solution import Settings
from train_full import positive

HEAD_EPOCHS = 2  # of "head first"
STATISTICS_PHOTOS = 64  # for the batch norms of random weights


@dataclass(frozen=True)
class Row:
    """One line of the table: what is done otherwise."""

    what: str
    changes: dict[str, Any] = field(default_factory=dict)  # of solution.Settings
    pretrained: bool = True
    head_first: bool = False


ROWS = (
    Row("the settings"),
    Row("head first, the blocks from the third epoch on", head_first=True),
    Row("no label smoothing", {"label_smoothing": 0.0}),
    Row("neither mixup nor CutMix", {"mixup": 0.0, "cutmix": 0.0}),
    Row("no averaging of the weights", {"average_decay": 0.0}),
    Row("no discriminants in the head", {"discriminants": 0.0}),
    Row("one learning rate", {"head_learning_rate": 1e-3, "backbone_learning_rate": 1e-3}),
    Row("no mirror images", {"mirror": 0.0}),
    Row("no random crops", {"crop_share": 1.0, "crop_stretch": 1.0}),
    Row("no change of colours", {"colour_jitter": 0.0}),
    Row("linear probe: no block trained", {"unfrozen_blocks": 0}),
    Row("3 blocks trained", {"unfrozen_blocks": 3}),
    Row("5 blocks trained", {"unfrozen_blocks": 5}),
    Row("6 blocks trained", {"unfrozen_blocks": 6}),
    Row("random weights, also in the frozen blocks", pretrained=False),
)


@dataclass(frozen=True)
class SharedViews:
    """All views of a `solution.TrunkCache`, in memory that other processes see."""

    views: list[Tensor]  # (photos, h, w, C), float16

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.views)

    def view(self, number: int, _photos: np.ndarray) -> Tensor:
        """Activations (photos, h, w, C), float16."""
        return self.views[number]


@dataclass(frozen=True)
class Job:
    """A row with one seed, and all that a process needs to train it."""

    row: Row
    seed: int
    usual: Settings
    views: SharedViews
    labels: Tensor  # (photos,)
    init: Path | None

    @property
    def settings(self) -> Settings:
        """The usual ones, but for the row's changes."""
        return replace(self.usual, **self.row.changes)


def network_of(job: Job) -> solution.BirdNet:
    """What the training starts from."""
    class_ids = range(int(job.labels.max()) + 1)
    return solution.pretrained(class_ids, None, job.settings, job.init)


def save_random_weights(paths: Sequence[Path], file: Path) -> Path:
    """Random weights whose batch norms hold the statistics of some of the photos.

    Training keeps those statistics; with none, the signal would be lost on its way up.
    """
    constants = solution.preprocessing_of(Settings())
    some = paths[:: max(1, len(paths) // STATISTICS_PHOTOS)][:STATISTICS_PHOTOS]
    photos = [solution.read_photo(path, constants["input_size"]) for path in some]
    x = solution.normalise([solution.evaluation_view(p, constants) for p in photos], constants)
    with solution._seeded(0), torch.no_grad():
        network = solution.BirdNet(range(2))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # these photos' statistics, nothing of those before
        network.train()(x)
    torch.save(network.state_dict(), file)
    return file


def validated(job: Job) -> tuple[Row, float, float, float]:
    """The row, its accuracy and cross-entropy on validation photos, and the seconds it took."""
    torch.set_num_threads(1)
    start, quiet, settings = time.perf_counter(), solution.Progress(), job.settings
    labels = job.labels.numpy()
    train, held_out = solution.split_photos(labels, settings.validation_share, seed=0)
    with solution._seeded(job.seed):
        run = solution._Run(network_of(job), job.views, job.labels, train, settings)
        for number in range(settings.epochs):
            trained = not job.row.head_first or number >= HEAD_EPOCHS
            run.upper.blocks.requires_grad_(trained)
            run.epoch(number, quiet)
        logits = solution._logits(run.delivered(), job.views.view(0, held_out)[held_out])
    truth = job.labels[held_out]
    accuracy = (logits.argmax(1) == truth).float().mean().item()
    temperature = solution.fit_temperature(logits, truth)
    loss = functional.cross_entropy(logits / temperature, truth).item()
    return job.row, accuracy, loss, time.perf_counter() - start


def jobs(arguments: argparse.Namespace, scratch: Path) -> Iterator[list[Job]]:
    """The jobs whose rows share their views, together; `scratch` is for a file of weights."""
    folder = find_tests(arguments.tests_dir)[0].input / "train"
    gt = read_csv(folder / "gt.csv")
    class_ids = sorted(set(gt.values()))
    labels = torch.tensor([class_ids.index(class_id) for class_id in gt.values()])
    paths = [folder / "images" / name for name in gt]
    usual = replace(Settings(), epochs=arguments.epochs)
    shown = {"mirror", "crop_share", "crop_stretch", "colour_jitter", "unfrozen_blocks"}
    for _, rows in itertools.groupby(
        ROWS, lambda row: (row.pretrained, {k: v for k, v in row.changes.items() if k in shown})
    ):
        first, *others = rows
        random = None if first.pretrained else save_random_weights(paths, scratch / "random.pt")
        job = Job(first, 0, usual, SharedViews([]), labels, random or arguments.init)
        job = replace(job, views=_all_views(job, paths))
        seeds = range(arguments.seeds)
        yield [replace(job, row=row, seed=seed) for row in (first, *others) for seed in seeds]


def _all_views(job: Job, paths: list[Path]) -> SharedViews:
    with solution._seeded(0):
        cache = solution.TrunkCache(network_of(job), paths, job.settings, solution.Progress())
        every, needed = np.arange(len(cache.paths)), min(job.settings.epochs, cache.count)
        return SharedViews([cache.view(n, every).share_memory_() for n in range(needed)])


def main() -> None:
    """Train all rows, print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests_dir", type=Path, metavar="TESTS_DIR")
    parser.add_argument("--epochs", type=positive, default=4)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT")
    arguments = parser.parse_args()
    processes = torch.multiprocessing.get_context("spawn")
    with processes.Pool(torch.get_num_threads()) as pool, TemporaryDirectory() as scratch:
        print(f"{'what':<48} accuracy  spread    loss  spread  seconds")
        for group in jobs(arguments, Path(scratch)):
            results = pool.map(validated, group, chunksize=1)
            for row in dict.fromkeys(result[0].what for result in results):
                _print_row(row, np.array([r[1:] for r in results if r[0].what == row]))


def _print_row(what: str, values: np.ndarray) -> None:
    """Values (seeds, 3): accuracy, cross-entropy, seconds."""
    accuracy, loss, seconds = values.T.tolist()
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (accuracy, loss)]
    print(
        f"{what:<48} {statistics.mean(accuracy):8.4f} {spread[0]:7.4f} "
        f"{statistics.mean(loss):7.4f} {spread[1]:7.4f} {statistics.mean(seconds):8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
