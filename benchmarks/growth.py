"""How time and memory of `classify` grow with photos, their size, and threads.

    python benchmarks/growth.py IMG_DIR [--model birds_model.pt]

Takes the photos of IMG_DIR repeatedly to reach a number, and enlarges them to reach a size. Every
row is a process of its own, with its own peak memory; imports are not counted in its seconds.
"Pillow alone" decodes and resizes the same photos the plain way, without any network.
Linux and macOS.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solution

COUNTS = (250, 1_000, 2_500, 10_000)  # photos
SIDES = (227, 500, 1_500, 4_000)  # pixels
OF_EACH_SIDE = 60  # photos


def repeated(photos: list[Path], count: int, folder: Path) -> None:
    """Fill `folder` with `count` links to the photos, each as often as it takes."""
    for number, path in zip(range(count), itertools.cycle(photos)):
        os.link(path, folder / f"{number:05}{path.suffix}")


def enlarged(photos: list[Path], side: int, folder: Path) -> None:
    """Fill `folder` with the photos at `side` x `side` pixels."""
    for path in photos:
        with Image.open(path) as photo:
            photo.convert("RGB").resize((side, side)).save(folder / path.name, quality=90)


def pillow_alone(folder: Path, side: int) -> float:
    """Seconds to decode and resize the photos of a folder as a textbook does."""
    start = time.perf_counter()
    for path in solution.list_photos(folder):
        with Image.open(path) as photo:
            photo.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return time.perf_counter() - start


def in_a_process(model: Path, folder: Path, threads: int) -> tuple[float, float]:
    """Seconds and peak megabytes of `classify` in a new process."""
    command = [
        sys.executable,
        __file__,
        str(folder),
        "--model",
        str(model),
        "--child",
        str(threads),
    ]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, run.stdout.split())
    return seconds, megabytes


def child(model: Path, folder: Path, threads: int) -> None:
    """Classify the photos of a folder; print seconds and peak megabytes."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    solution.classify(model, folder)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def row(what: str, count: int, seconds: float, megabytes: float) -> None:
    """Print a line of the table."""
    print(f"{what:<34} {seconds:7.2f} s {count / seconds:7.1f} photos/s {megabytes:6.0f} MB")


def by_count(model: Path, photos: list[Path]) -> None:
    """The rows for more and more photos, on two threads and on one."""
    for threads, count in itertools.product((2, 1), COUNTS):
        with tempfile.TemporaryDirectory(dir=photos[0].parent.parent) as folder:
            repeated(photos, count, Path(folder))
            row(
                f"{count} photos, {threads} threads",
                count,
                *in_a_process(model, Path(folder), threads),
            )


def by_side(model: Path, photos: list[Path]) -> None:
    """The rows for larger and larger photos, and what Pillow alone takes for them."""
    input_side = solution.load_classifier(model).side
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            enlarged(photos, side, Path(folder))
            seconds, megabytes = in_a_process(model, Path(folder), 2)
            row(f"{side} px, 2 threads", len(photos), seconds, megabytes)
            plain = pillow_alone(Path(folder), input_side)
            print(f"{'   Pillow alone':<34} {plain:7.2f} s {plain / seconds:7.2f} times as long")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("img_dir", type=Path, metavar="IMG_DIR")
    parser.add_argument(
        "--model", type=Path, default=Path(solution.__file__).with_name("birds_model.pt")
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.model, options.img_dir, options.child)
        return
    photos = solution.list_photos(options.img_dir)
    by_count(options.model, photos)
    by_side(options.model, photos[:OF_EACH_SIDE])


if __name__ == "__main__":
    main()
