"""Say what is wrong with a training set before an hour is lost on it: prepare.py --check."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from rich.console import Console
from rich.progress import track

import solution
from birddata import DataError
from birddata.copies import BLANK, Facts, Shot, check_copies, thumbnail
from birddata.findings import FEW_PHOTOS, IMBALANCE, MAX_ASPECT, MIN_SIDE, OUTLIER, Findings, Item
from birddata.samples import SIDE, digest_of, find_sample, reason
from birddata.sources import walk_folder
from birddata.writing import Photo, Sample
from grader.protocol import GraderError, write_json

EXIT_STATUS = {"error": 4, "warning": 3, "note": 0}  # 1 and 2: the check itself could not be done
VERDICTS = {
    "error": "mend the errors before training",
    "warning": "training will run; look at the warnings first",
    "note": "nothing in the way of training",
}
SHOWN = 3  # items of a kind in the summary

# ---- One file ------------------------------------------------------------------------------------


def examine(path: Path, known: dict[str, Facts]) -> Facts:
    """Return the facts of a file; bytes that are `known` by their digest are not decoded again."""
    try:
        digest = digest_of(path)
    except OSError as error:
        return Facts("", problem=f"cannot be opened ({error.strerror})")
    if digest not in known:
        known[digest] = look(path, digest)
    return known[digest]


def look(path: Path, digest: str) -> Facts:
    """Read a photo as training does, and say what a reader without patience would stumble over."""
    facts = Facts(digest)
    try:
        photo, facts.damage = read_twice(path)
        facts.thumb = thumbnail(photo)
        with solution.tolerant_pillow(), solution.open_photo(path) as header:
            facts.format, facts.mode, facts.size = header.format, header.mode, header.size
    except Exception as error:  # a damaged photo makes Pillow raise nearly anything
        facts.problem = reason(error)
    return facts


def read_twice(path: Path) -> tuple[Image.Image, tuple[str, str] | None]:
    """Return a photo, and the code and cause of its damage if it is not read without tolerance."""
    opened = False
    try:
        with impatient_pillow(), solution.open_photo(path) as photo:
            opened = True
            return solution.decode(photo, SIDE), None
    except Exception as error:
        damage = ("truncated" if opened else "odd-metadata"), reason(error)
    return solution.read_photo(path, SIDE), damage


@contextmanager
def impatient_pillow() -> Iterator[None]:
    """Let Pillow stumble over damage, but over nothing else that training tolerates."""
    with solution.tolerant_pillow():
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def shots_of(sample: Sample, found: Findings) -> list[Shot]:
    """Read all photos of a sample, with a bar on a terminal."""
    parts = [
        (test.stem, role, photo)
        for test in sample.tests
        for role, photos in (("train", test.train), ("test", test.test))
        for photo in photos
    ]
    known: dict[str, Facts] = {}
    console = Console(stderr=True)
    reading = {"console": console, "transient": True, "disable": not console.is_terminal}
    return [
        Shot(
            photo.origin,
            photo.name,
            label_of(photo, sample),
            test,
            role,
            examine(photo.path, known),
        )
        for test, role, photo in track(parts, "Reading photos", **reading)
    ]


def label_of(photo: Photo, sample: Sample) -> str | None:
    """Return what a photo's species is called."""
    if photo.class_id is None:
        return None
    return species_name(photo.class_id, sample)


def species_name(class_id: int, sample: Sample) -> str:
    """Return what a species is called."""
    return sample.species.get(class_id, f"class {class_id}")


def check_file(shot: Shot, found: Findings) -> bool:
    """Say what is wrong with one file by itself; returns whether it is a whole photo."""
    path, facts = shot.origin, shot.facts
    if facts.problem:
        found.add("unreadable", path, facts.problem)
        return False
    if facts.damage:
        found.add(facts.damage[0], path, facts.damage[1])
        if facts.damage[0] == "truncated":
            return False
    content = facts.format.replace("MPO", "JPEG")
    if Image.registered_extensions().get(Path(path).suffix.lower()) != content:
        found.add("wrong-extension", path, f"it is {content}")
    if facts.mode in {"1", "L"}:
        found.add("grey", path)
    elif facts.mode != "RGB":
        found.add("colour-mode", path, facts.mode)
    if facts.thumb.std() < BLANK:
        found.add("blank", path)
    return True


# ---- Sizes and species ---------------------------------------------------------------------------


def check_sizes(photos: Sequence[Shot], found: Findings) -> None:
    """Find photos of odd size, each for one reason."""
    median = float(np.median([np.sqrt(np.prod(shot.facts.size)) for shot in photos]))
    for shot in photos:
        width, height = shot.facts.size
        side = np.sqrt(width * height)
        if min(width, height) < MIN_SIDE:
            code = "tiny"
        elif max(width, height) > MAX_ASPECT * min(width, height):
            code = "odd-shape"
        elif max(side / median, median / side) > OUTLIER:
            code = "odd-size"
        else:
            continue
        found.add(code, shot.origin, f"{width} x {height} pixels")


def check_species(photos: Sequence[Shot], sample: Sample, found: Findings) -> None:
    """Find species with few training photos, or with far fewer than another."""
    trained = Counter((shot.test, shot.label) for shot in photos if shot.role == "train")
    for test in sample.tests:
        if test.train_ids is not None:
            names = [species_name(class_id, sample) for class_id in sorted(test.train_ids)]
            check_counts({name: trained[test.stem, name] for name in names}, found)
        if None not in (test.train_ids, test.test_ids):
            for class_id in sorted(test.test_ids - test.train_ids):
                found.add("untrained-species", (), species_name(class_id, sample))


def check_counts(count: dict[str, int], found: Findings) -> None:
    """Judge the number of photos by species."""
    for label, number in count.items():
        if number < FEW_PHOTOS:
            found.add("few-photos" if number > 1 else "lone-species", (), f"{label} ({number})")
    present = sorted((number, label) for label, number in count.items() if number)
    if present and present[-1][0] > IMBALANCE * present[0][0]:
        (fewest, small), (most, large) = present[0], present[-1]
        found.add("imbalance", (), f"{large} ({most}) and {small} ({fewest})")


# ---- The whole check -----------------------------------------------------------------------------


def diagnose(folder: Path) -> tuple[Findings, int, int]:
    """Check a folder; returns the findings and how many photos and species it holds.

    Raises DataError for a folder that holds no training set.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one, an archive must be unpacked first")
    found = Findings()
    sample = find_sample(folder, walk_folder(folder, found), 0, found)
    shots = shots_of(sample, found)
    distinct = {(shot.name, shot.facts.digest): shot for shot in reversed(shots)}
    whole = [shot for shot in list(distinct.values())[::-1] if check_file(shot, found)]
    if whole:
        check_sizes(whole, found)
    photos = [shot for shot in shots if shot.facts.problem is None]
    check_species(photos, sample, found)
    check_copies(photos, found)
    return found, len(whole), len({shot.label for shot in shots} - {None})


def summary(found: Findings) -> list[str]:
    """Return a line for each kind of finding, most severe first, and one with the verdict."""
    kinds = found.kinds()
    lines = [
        f"{kind.severity:<7}  {kind.code:<18} {len(found[kind.code]):>5,}  "
        f"{examples(found[kind.code])} -> {kind.cure}"
        for kind in kinds
    ]
    count = Counter(kind.severity for kind in kinds)
    kinds_of = ", ".join(f"{count[severity]} of {severity}s" for severity in EXIT_STATUS)
    return [*lines, f"Verdict: {VERDICTS[worst(found)]} (kinds of findings: {kinds_of})"]


def worst(found: Findings) -> str:
    """Return the highest severity among the findings, note if there is none."""
    return next((kind.severity for kind in found.kinds()), "note")


def examples(items: Iterable[Item]) -> str:
    """Name the first few findings of a kind in short."""
    shown = [example(item) for item in items]
    return ", ".join([*shown[:SHOWN], *["..."] * (len(shown) > SHOWN)])


def example(item: Item) -> str:
    """Name a finding by the ends of its paths, such as train/0.jpg, or by its detail."""
    parts = [[part for part in path.split("/") if part != "images"] for path in item.files]
    names = ["/".join(part[-2:]) for part in parts[:SHOWN]] + ["..."] * (len(parts) > SHOWN)
    detail = f"({item.detail})" if names and item.detail else item.detail
    return " ".join(filter(None, [" = ".join(names), detail]))


def details(found: Findings) -> list[dict[str, Any]]:
    """Return all findings as plain values for JSON."""
    items = {kind: [item._asdict() for item in found[kind.code]] for kind in found.kinds()}
    return [{**kind._asdict(), "count": len(items[kind]), "items": items[kind]} for kind in items]


def run(folder: Path, json_to: str | None = None) -> int:
    """Check a folder and print the summary; returns the exit status.

    `json_to` is a file for the details, or - for stdout, and then the summary goes to stderr.
    """
    start = time.monotonic()
    try:
        found, photos, species = diagnose(folder)
        seconds = round(time.monotonic() - start, 1)
        result = {
            "folder": str(folder),
            "photos": photos,
            "species": species,
            "seconds": seconds,
            "verdict": worst(found),
            "findings": details(found),
        }
        if json_to == "-":
            print(json.dumps(result, indent=1))
        elif json_to is not None:
            write_json(Path(json_to), result)
    except (DataError, GraderError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    head = f"Checked {photos:,} photos of {species} species in {folder} in {seconds} s"
    print("\n".join([head, *summary(found)]), file=sys.stderr if json_to == "-" else sys.stdout)
    return EXIT_STATUS[worst(found)]
