"""What caching the frozen trunk saves: `train_classifier` with the cache and without.

    python benchmarks/train_speed.py TESTS_DIR [--epochs 12] [--seed 0] [--init CHECKPOINT]

Trains twice on the first test's photos with the settings of `solution.Settings`: as it is, and with
a plain loop that decodes and augments every photo anew in every epoch, and passes it through the
whole network in float32. Prints the usual table, then seconds and validation accuracy of both. The
cache saves more, the more epochs there are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution
from course.layout import find_tests, read_csv
from course.marks import accuracy_text
from train_full import TrainingTable, positive


class PlainLoop(solution.TrunkCache):
    """No cache, with the interface of one: every view is computed whenever it is asked for."""

    def __init__(self, network: solution.BirdNet, *others: Any) -> None:
        super().__init__(network, *others)
        trunk = network.features[: -self.settings.unfrozen_blocks].eval()
        self.trunk = torch.inference_mode()(trunk)  # in the place of folded blocks

    def view(self, number: int) -> Tensor:
        """As in the cache, but random views are computed in each epoch that shows them."""
        self.views = {0: self.views[0]}
        return super().view(number)


def train(
    cache: type, gt: Mapping[str, int], images: Path, options: argparse.Namespace
) -> tuple[float, str]:
    """Seconds and validation accuracy of a training with one kind of cache."""
    cached, table = cache is solution.TrunkCache, TrainingTable()
    settings = solution.Settings(seed=options.seed, epochs=options.epochs, bfloat16=cached)
    start = time.perf_counter()
    with mock.patch.object(solution, "TrunkCache", cache), table.bars:
        network = solution.train_classifier(
            gt, images, settings=settings, init=options.init, progress=table
        )
    seconds, validation = time.perf_counter() - start, network.facts["validation"]
    return seconds, accuracy_text(validation["correct"], validation["total"])


def main() -> None:
    """Train both ways, print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests_dir", type=Path, metavar="TESTS_DIR")
    epochs = solution.Settings.epochs
    parser.add_argument("--epochs", type=positive, default=epochs, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args()
    folder = find_tests(options.tests_dir)[0].input / "train"
    gt = read_csv(folder / "gt.csv")
    print(f"{len(gt)} photos, torch {torch.__version__}, {torch.get_num_threads()} threads")
    kinds = {"cached": solution.TrunkCache, "plain loop": PlainLoop}
    results = {name: train(kind, gt, folder / "images", options) for name, kind in kinds.items()}
    for name, (seconds, accuracy) in results.items():
        print(f"{name:<10} {seconds:7.0f} s, validation accuracy {accuracy}")
    (cached, _), (plain, _) = results.values()
    print(f"the plain loop takes {plain / cached:.1f} times as long")


if __name__ == "__main__":
    main()
