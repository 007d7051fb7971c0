"""Report what is wrong with a training set before an hour is lost on it: prepare.py --check."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

import solution
from birddata.copies import BLANK, PhotoRecord, check_copies, thumbnail
from birddata.findings import (
    FEW_PHOTOS,
    IMBALANCE,
    MAX_ASPECT,
    MIN_SIDE,
    OUTLIER,
    Findings,
    Item,
    printable,
)
from birddata.samples import find_sample
from birddata.sources import SIDE, reason, walk_folder, with_bar
from birddata.writing import Sample
from course.cli import print_result
from course.files import UserError, write_json
from course.layout import digest_of

EXIT_STATUS = {"error": 4, "warning": 3, "note": 0}  # 1 and 2: the check itself could not be done
VERDICTS = {
    "error": "correct the errors before training",
    "warning": "training will run; see the warnings first",
    "note": "nothing in the way of training",
}
SHOWN = 3  # items of a kind in the summary

# ---- One file ------------------------------------------------------------------------------------


def examine(path: Path, known: dict[str, PhotoRecord]) -> PhotoRecord:
    """Read a photo as training does, and note what a stricter reader would not take.

    Bytes that are `known` by their digest are not decoded again.
    """
    try:
        record = PhotoRecord(digest_of(path, 64))
    except OSError as error:
        return PhotoRecord("", problem=f"cannot be opened ({error.strerror})")
    if record.digest in known:
        return known[record.digest]
    known[record.digest] = record
    try:
        with solution.open_photo(path) as header:
            record.format, record.mode = header.format or "", header.mode
            record.size = header.size
        photo, record.damage = read_photo(path)
        record.thumb = thumbnail(photo)
    except Exception as error:
        record.problem = reason(error, path)
    return record


def read_photo(path: Path) -> tuple[Image.Image, tuple[str, str] | None]:
    """Return a photo, and code and cause of damage, which training reads as far as it goes."""
    code = "odd-metadata"
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        solution.open_photo(path).close()
        code = "truncated"
        return solution.read_photo(path, SIDE), None
    except Exception as error:  # a damaged photo makes Pillow raise nearly anything
        damage = code, reason(error, path)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
    return solution.read_photo(path, SIDE), damage


def read_records(sample: Sample) -> list[PhotoRecord]:
    """Read all photos of a sample, with a bar on a terminal."""
    parts = [
        (photo, test.stem, role)
        for test in sample.tests
        for role, photos in (("train", test.train), ("test", test.test))
        for photo in photos
    ]
    known: dict[str, PhotoRecord] = {}
    records = []
    for photo, test, role in with_bar(parts):
        label = None if photo.class_id is None else sample.name_of(photo.class_id)
        record = replace(examine(photo.path, known), origin=photo.origin, name=photo.name)
        records.append(replace(record, label=label, test=test, role=role))
    return records


def check_file(record: PhotoRecord, found: Findings) -> bool:
    """Check one file by itself; returns whether it is a whole photo."""
    path = record.origin
    if record.problem:
        found.add("unreadable", path, record.problem)
        return False
    if record.damage:
        found.add(record.damage[0], path, record.damage[1])
        if record.damage[0] == "truncated":
            return False
    kind = record.format.replace("MPO", "JPEG")
    if Image.registered_extensions().get(Path(path).suffix.lower()) != kind:
        found.add("wrong-extension", path, f"it is {kind}")
    if record.mode in {"1", "L"}:
        found.add("grey", path)
    elif record.mode != "RGB":
        found.add("colour-mode", path, record.mode)
    if record.thumb.std() < BLANK:
        found.add("blank", path)
    return True


# ---- Sizes and species ---------------------------------------------------------------------------


def check_sizes(photos: Sequence[PhotoRecord], found: Findings) -> None:
    """Find photos of odd size, each for one reason."""
    median = float(np.median([np.sqrt(np.prod(record.size)) for record in photos]))
    for record in photos:
        width, height = record.size
        side = np.sqrt(width * height)
        if min(width, height) < MIN_SIDE:
            code = "tiny"
        elif max(width, height) > MAX_ASPECT * min(width, height):
            code = "odd-shape"
        elif max(side / median, median / side) > OUTLIER:
            code = "odd-size"
        else:
            continue
        found.add(code, record.origin, f"{width} x {height} pixels")


def check_species(photos: Sequence[PhotoRecord], sample: Sample, found: Findings) -> None:
    """Find species with few training photos, or with far fewer than another."""
    trained = Counter((record.test, record.label) for record in photos if record.role == "train")
    for test in sample.tests:
        if test.train_ids is None:
            continue
        names = [sample.name_of(class_id) for class_id in sorted(test.train_ids)]
        count = {name: trained[test.stem, name] for name in names}
        for name, number in count.items():
            if number < FEW_PHOTOS:
                code = "few-photos" if number > 1 else "lone-species"
                found.add(code, (), f"{name} ({number})")
        present = sorted((number, name) for name, number in count.items() if number)
        if present and present[-1][0] > IMBALANCE * present[0][0]:
            (fewest, small), (most, large) = present[0], present[-1]
            found.add("imbalance", (), f"{large} ({most}) and {small} ({fewest})")
        for class_id in sorted((test.test_ids or set()) - test.train_ids):
            found.add("untrained-species", (), sample.name_of(class_id))


# ---- The whole check -----------------------------------------------------------------------------


def check_folder(folder: Path) -> tuple[Findings, int, int]:
    """Check a folder; returns the findings and how many photos and species it holds.

    Of a folder with tests only what lies in them is checked. Raises UserError for a folder that
    holds no training set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one, an archive must be unpacked first")
    found = Findings()
    sample = find_sample(folder, walk_folder(folder, found), 0, {}, found)
    if sample.tests[0].stem:
        inside = tuple(f"{test.stem}_{part}/" for test in sample.tests for part in ("input", "gt"))
        for item in found.pop("not-an-image", {}):
            if item.files[0].removeprefix(sample.root).startswith(inside):
                found.add("not-an-image", *item)
    records = read_records(sample)
    distinct = {(record.name, record.digest): record for record in reversed(records)}
    whole = [record for record in list(distinct.values())[::-1] if check_file(record, found)]
    if whole:
        check_sizes(whole, found)
    photos = [record for record in records if record.problem is None]
    check_species(photos, sample, found)
    check_copies(photos, found)
    return found, len(whole), len({record.label for record in records} - {None})


def summary(found: Findings) -> list[str]:
    """Return a line for each kind of finding, most severe first, and one with the verdict."""
    lines, count = [], Counter(kind.severity for kind in found.kinds())
    for kind in found.kinds():
        shown = [example(item) for item in found[kind.code]]
        examples = ", ".join([*shown[:SHOWN], *["..."] * (len(shown) > SHOWN)])
        line = f"{kind.severity:<7}  {kind.code:<18} {len(shown):>5,}  {examples} -> {kind.remedy}"
        lines.append(line)
    kinds_of = ", ".join(f"{count[severity]} of {severity}s" for severity in EXIT_STATUS)
    return [*lines, f"Verdict: {VERDICTS[found.worst()]} (kinds of findings: {kinds_of})"]


def example(item: Item) -> str:
    """Name a finding by the ends of its paths, such as train/0.jpg, or by its detail."""
    parts = [[part for part in path.split("/") if part != "images"] for path in item.files]
    names = ["/".join(part[-2:]) for part in parts[:SHOWN]] + ["..."] * (len(parts) > SHOWN)
    detail = f"({item.detail})" if names and item.detail else item.detail
    return printable(" ".join(filter(None, [" = ".join(names), detail])))


def run(folder: Path, json_to: str | None = None) -> int:
    """Check a folder and print the summary; returns the exit status.

    `json_to` is a file for the details, or - for stdout, and then the summary goes to stderr.
    """
    start = time.monotonic()
    found, photos, species = check_folder(folder)
    seconds = round(time.monotonic() - start, 1)
    items = {kind: [item._asdict() for item in found[kind.code]] for kind in found.kinds()}
    findings = [{**kind._asdict(), "count": len(of), "items": of} for kind, of in items.items()]
    result = {
        "folder": str(folder),
        "photos": photos,
        "species": species,
        "seconds": seconds,
        "verdict": found.worst(),
        "findings": findings,
    }
    if json_to == "-":
        print_result(json.dumps(result, indent=1))
    elif json_to is not None:
        write_json(Path(json_to), result)
    head = f"Checked {photos:,} photos of {species} species in {folder} in {seconds} s"
    print("\n".join([head, *summary(found)]), file=sys.stderr if json_to == "-" else sys.stdout)
    return EXIT_STATUS[found.worst()]
