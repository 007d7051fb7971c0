"""What caching the frozen trunk saves: seconds until a validation accuracy is reached.

    python benchmarks/train_speed.py TESTS_DIR [--target 0.93] [--epochs 3] [--seed 0]
                                     [--init CHECKPOINT] [--out DIR]

Trains twice on the first test's photos with the settings of `solution.Settings`: as
`train_classifier` does, and with a plain loop that decodes, augments and passes the whole network
in every epoch, in float32 throughout. After each epoch the model is finished and evaluated on the
same validation photos; the seconds of an epoch are those of a training that ends there, so the
finishing of earlier epochs does not count. Both go on to the target, and for a few epochs at least.
Prints an epoch a line and the ratio of the times to the target, and with --out draws both curves as
DIR/train_speed.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution
from grader.protocol import find_tests, read_csv, written
from reporting import charts
from train_full import positive

Curve = list[tuple[float, float]]  # seconds since the start, validation accuracy; an epoch each


class PlainPhotos:
    """The trunk's activations as a plain loop makes them: anew for every batch, in float32.

    Stands in for a view in `solution.TrunkCache`: indexing with photos gives (B, h, w, C).
    """

    def __init__(
        self, trunk: torch.nn.Module, paths: list[Path], view_of: Callable, constants: dict
    ) -> None:
        self.trunk, self.paths, self.view_of, self.constants = trunk, paths, view_of, constants

    @torch.no_grad()
    def __getitem__(self, photos: np.ndarray) -> Tensor:
        """Decode, augment, normalise, compute."""
        return torch.cat([self._batch(part) for part in solution._parts(photos, 32)])

    def _batch(self, photos: np.ndarray) -> Tensor:
        side = solution.Settings.input_size
        views = [self.view_of(solution.read_photo(self.paths[i], 2 * side)) for i in photos]
        x = self.trunk(solution.normalise(views, self.constants))  # (B, C, h, w)
        return x.permute(0, 2, 3, 1)


class PlainCache:
    """No cache at all, with the interface of `solution.TrunkCache`."""

    def __init__(
        self,
        network: solution.BirdNet,
        paths: list[Path],
        settings: solution.Settings,
        progress: solution.Progress,
    ) -> None:
        trunk = network.features[: solution.first_unfrozen(network, settings)].eval()
        augment, constants = solution.augmentation(settings), solution.preprocessing_of(settings)
        self.count = settings.views
        self.evaluation, self.augmented = (
            PlainPhotos(trunk, paths, view_of, constants)
            for view_of in (
                lambda photo: solution.evaluation_view(photo, constants),
                lambda photo: augment(solution._pixels(photo)),
            )
        )

    def view(self, number: int, _photos: np.ndarray) -> PlainPhotos:
        """As in the cache, but augmented anew each time."""
        return self.augmented if number else self.evaluation


def train(
    cache_class: type, folder: Path, gt: dict[str, int], options: argparse.Namespace
) -> Curve:
    """The validation run of `train_classifier` on one kind of cache, up to the target."""
    bfloat16 = cache_class is solution.TrunkCache
    settings = solution.Settings(seed=options.seed, bfloat16=bfloat16)
    quiet = solution.Progress()
    class_ids = sorted(set(gt.values()))
    labels = torch.tensor([class_ids.index(class_id) for class_id in gt.values()])
    photos, held_out = solution.split_photos(labels.numpy(), settings.validation_share, 0)
    curve, start = [], time.perf_counter()
    with solution._seeded(settings.seed):
        network = solution.pretrained(class_ids, None, settings, options.init)
        cache = cache_class(network, [folder / "images" / name for name in gt], settings, quiet)
        run = solution._Run(network, cache, labels, photos, settings)
        for number in range(settings.epochs):
            run.epoch(number, quiet)
            trained = time.perf_counter()
            logits = solution._logits(run.delivered(), cache.view(0, held_out)[held_out])
            right = (logits.argmax(1) == labels[held_out]).float().mean().item()
            curve.append((time.perf_counter() - start, right))
            print(f"{cache_class.__name__:<10} {number + 1:2} {curve[-1][0]:7.1f} s {right:.4f}")
            if number + 1 >= options.epochs and reached(curve, options.target) is not None:
                break
            start += time.perf_counter() - trained
    return curve


def reached(curve: Curve, target: float) -> float | None:
    """The seconds after which a curve first is at the target."""
    return next((seconds for seconds, accuracy in curve if accuracy >= target), None)


def draw(curves: dict[str, Curve], folder: Path) -> None:
    """Write the picture of accuracy against time."""
    series = {name: tuple(zip(*curve, strict=True)) for name, curve in curves.items()}
    picture = charts.lines("train_speed", series, "seconds", "validation accuracy")
    with written(folder / f"{picture.name}.{picture.kind}") as temporary:
        temporary.write_bytes(picture.image)


def main() -> None:
    """Train both ways, print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests_dir", type=Path, metavar="TESTS_DIR")
    parser.add_argument("--target", type=float, default=0.93)
    parser.add_argument("--epochs", type=positive, default=3, help="at least; default: 3")
    parser.add_argument("--seed", type=int, default=0, help="of all but the split; default: 0")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--out", type=Path, metavar="DIR")
    options = parser.parse_args()
    folder = find_tests(options.tests_dir)[0].input / "train"
    gt = read_csv(folder / "gt.csv")
    print(f"{len(gt)} photos, torch {torch.__version__}, {torch.get_num_threads()} threads")
    curves = {
        name: train(kind, folder, gt, options)
        for name, kind in {"cached": solution.TrunkCache, "plain loop": PlainCache}.items()
    }
    cached, plain = (reached(curve, options.target) for curve in curves.values())
    if cached is None or plain is None:
        print(f"{options.target} was not reached by both")
    else:
        print(f"{cached:.0f} s cached, {plain:.0f} s plain: {plain / cached:.1f} times as long")
    if options.out:
        draw(curves, options.out)


if __name__ == "__main__":
    main()
