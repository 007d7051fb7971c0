"""What caching the frozen trunk saves: seconds for the same training, plain and cached.

    python benchmarks/train_speed.py TESTS_DIR [--photos 256] [--init CHECKPOINT]

Times both ways on the first photos of the first test, in turns, and computes from the photos a
second what a whole training costs: views and epochs as in `solution.Settings`, all photos.
The plain loop is what the course's notebooks show: decode, augment, whole network, every epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution
from grader.protocol import find_tests, read_csv

ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain_epoch(
    network: solution.BirdNet, paths: list[Path], labels: torch.Tensor, settings: solution.Settings
) -> None:
    """One epoch of the plain loop: every batch from the files through the whole network."""
    augment, constants = solution.augmentation(settings), solution.preprocessing_of(settings)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    for batch in np.array_split(np.arange(len(paths)), len(paths) // settings.batch_size):
        photos = [solution.read_photo(paths[i], settings.input_size) for i in batch]
        views = [augment(solution._pixels(photo)) for photo in photos]
        loss = functional.cross_entropy(
            network(solution.normalise(views, constants)), labels[batch]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def measure(folder: Path, gt: dict[str, int], init: Path | None) -> dict[str, float]:
    """Photos a second: of the plain loop, of encoding a view, of a cached epoch."""
    settings = solution.Settings()
    paths = [folder / "images" / name for name in gt]
    class_ids = sorted(set(gt.values()))
    labels = torch.tensor([class_ids.index(class_id) for class_id in gt.values()])
    network = solution.BirdNet(class_ids)
    solution._load_backbone(network, init, fast_train=False)
    network.eval().requires_grad_(False)
    cut = len(network.features) - settings.unfrozen_blocks
    solution.UpperNet(network, cut).requires_grad_(True)
    quiet, rates = solution.Progress(), {"plain": [], "encode": [], "cached": []}
    for _ in range(ROUNDS):
        rates["plain"].append(
            len(gt) / seconds(lambda: plain_epoch(network, paths, labels, settings))
        )
        start = time.perf_counter()
        cache = solution.encode(network.features[:cut], paths, settings, quiet)
        rates["encode"].append(len(gt) * settings.views / (time.perf_counter() - start))
        run = solution._Run(network, cache, labels, cache.readable, settings)
        rates["cached"].append(len(gt) / seconds(lambda run=run: run.epoch(0, quiet)))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests_dir", type=Path, metavar="TESTS_DIR")
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args()
    folder = find_tests(options.tests_dir)[0].input / "train"
    gt = read_csv(folder / "gt.csv")
    rate = measure(folder, dict(list(gt.items())[: options.photos]), options.init)
    settings, total = solution.Settings(), len(gt)
    # The validation run sees four fifths of the photos, the final run all of them.
    shown = settings.epochs * total * (2 - settings.validation_share)
    plain = shown / rate["plain"]
    cached = total * settings.views / rate["encode"] + shown / rate["cached"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {ROUNDS}")
    for name, value in rate.items():
        print(f"{name:<8} {value:8.1f} photos/s")
    print(f"{total:,} photos, validation run and final run of {settings.epochs} epochs:")
    print(f"plain {plain:.0f} s, cached {cached:.0f} s: {plain / cached:.1f} times faster")


if __name__ == "__main__":
    main()
