"""A course folder in miniature: the "photos" are text files that hold their class id."""

import contextlib
import os
from pathlib import Path

import psutil

FIXTURES = Path(__file__).resolve().parent
PHOTOS, CLASSES = 8, 4


def make_test(folder, name="00_test_img", photos=PHOTOS, prefix="photo"):
    """One test: the same photos to train on and to classify."""
    gt = {f"{prefix}_{i}.png": i % CLASSES for i in range(photos)}
    end = "" if prefix == "photo" else "\t"
    text = "filename,class_id\n" + "".join(f"{n},{i}\n" for n, i in gt.items())
    for part in ("train", "test"):
        images = folder / f"{name}_input" / part / "images"
        images.mkdir(parents=True)
        for photo, class_id in gt.items():
            # Every photo has bytes of its own.
            (images / photo).write_text(f"{class_id}{' ' * int(photo[len(prefix) + 1 : -4])}{end}")
    for gt_file in (folder / f"{name}_input/train/gt.csv", folder / f"{name}_gt/gt.csv"):
        gt_file.parent.mkdir(exist_ok=True)
        gt_file.write_text(text)
    return folder


def processes_of(word):
    """Other processes with this word in their environment or on their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            there = {*process.cmdline(), *process.environ().values()}
            alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if alive and word in there:
                found.append(process)
    return found
