"""Time and memory of `classify`, against a textbook's classifier.

    python -m benchmarks.classify_speed IMG_DIR [--model birds_model.pt]

Every run is a process of its own with its own peak memory, end to end (model, decoding, network);
imports are not counted in its seconds. The textbook's classifier and `classify` take turns, and
medians are compared; then `classify` on one thread. Linux and macOS.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from PIL import Image

import solution
from course import cli
from course.files import UserError

ROUNDS = 3


def textbook() -> Callable[[Path], None]:
    """Return a classifier as accurate as `solution.py`, as a textbook would write it.

    EfficientNetV2-S at 310 pixels, one photo at a time, is the best that students of the course
    published: 0.885 on validation photos. Random weights take as long as trained ones.
    """
    from torchvision import models  # whose memory would count for `classify`, too

    network = models.efficientnet_v2_s(num_classes=50).eval()
    weights = models.EfficientNet_V2_S_Weights.IMAGENET1K_V1
    preprocess = weights.transforms(crop_size=310, resize_size=310)

    @torch.no_grad()
    def classify(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            network(preprocess(Image.open(path).convert("RGB"))[None]).argmax(1).item()

    return classify


def child(who: str, model: Path, folder: Path, threads: int) -> tuple[float, float]:
    """Classify the photos of a folder; return the seconds, and this process's peak memory in MB."""
    torch.set_num_threads(threads)
    run = textbook() if who == "textbook" else partial(solution.classify, model)
    start = time.perf_counter()
    run(folder)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each run, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, model = parser.add_argument, Path(solution.__file__).with_name("birds_model.pt")
    add("img_dir", type=Path, metavar="IMG_DIR")
    add("--model", type=Path, default=model, help="default: birds_model.pt")
    options = parser.parse_args(arguments)
    photos, threads = len(solution.list_photos(options.img_dir)), torch.get_num_threads()
    if not photos:
        raise UserError(f"no photo in {options.img_dir}: name a folder of photos")
    solution.load_classifier(options.model)  # or an error, before the work
    print(f"{photos} photos, torch {torch.__version__}")
    taken = defaultdict(list)
    for who, count in [*[("textbook", threads), ("solution", threads)] * ROUNDS, ("solution", 1)]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            run = pool.submit(child, who, options.model, options.img_dir, count)
        seconds, megabytes = run.result()
        taken[who].append(seconds)
        print(f"{who}, {count} threads: {photos / seconds:.1f} photos/s, {megabytes:.0f} MB")
    theirs, ours = (statistics.median(seconds[:ROUNDS]) for seconds in taken.values())
    print(f"medians: classify is {theirs / ours:.2f} times as fast as the textbook")


if __name__ == "__main__":
    cli.run(main)
