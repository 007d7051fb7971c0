"""Say what is wrong with a training set before an hour is lost on it: prepare.py --check."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

import solution
from birddata.copies import BLANK, Facts, Shot, check_copies, thumbnail
from birddata.findings import FEW_PHOTOS, IMBALANCE, MAX_ASPECT, MIN_SIDE, OUTLIER, Findings, Item
from birddata.photos import SIDE, digest_of, reason, with_bar
from birddata.samples import find_sample
from birddata.sources import walk_folder
from birddata.writing import Sample
from course.files import UserError, check_writable, write_json

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
    facts, damage = Facts(digest), "odd-metadata"
    try:
        with solution.tolerant_pillow(), solution.open_photo(path) as header:
            facts.format, facts.mode, facts.size = header.format, header.mode, header.size
        try:
            with impatient_pillow(), solution.open_photo(path) as opened:
                damage = "truncated"
                photo = solution.decode(opened, SIDE)
        except Exception as error:  # a damaged photo makes Pillow raise nearly anything
            facts.damage = damage, reason(error)
            photo = solution.read_photo(path, SIDE)
        facts.thumb = thumbnail(photo)
    except Exception as error:
        facts.problem = reason(error)
    return facts


@contextmanager
def impatient_pillow() -> Iterator[None]:
    """Let Pillow stumble over damage, but over nothing else that training tolerates."""
    with solution.tolerant_pillow():
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def shots_of(sample: Sample) -> list[Shot]:
    """Read all photos of a sample, with a bar on a terminal."""
    parts = [
        (photo, test.stem, role)
        for test in sample.tests
        for role, photos in (("train", test.train), ("test", test.test))
        for photo in photos
    ]
    known: dict[str, Facts] = {}
    shots = []
    for photo, test, role in with_bar(parts):
        label = None if photo.class_id is None else sample.name_of(photo.class_id)
        facts = examine(photo.path, known)
        shots.append(Shot(photo.origin, photo.name, label, test, role, facts))
    return shots


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
            names = [sample.name_of(class_id) for class_id in sorted(test.train_ids)]
            check_counts({name: trained[test.stem, name] for name in names}, found)
        if None not in (test.train_ids, test.test_ids):
            for class_id in sorted(test.test_ids - test.train_ids):
                found.add("untrained-species", (), sample.name_of(class_id))


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

    Raises UserError for a folder that holds no training set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one, an archive must be unpacked first")
    found = Findings()
    sample = find_sample(folder, walk_folder(folder, found), 0, found)
    shots = shots_of(sample)
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
    lines, count = [], Counter(kind.severity for kind in found.kinds())
    for kind in found.kinds():
        shown = [example(item) for item in found[kind.code]]
        examples = ", ".join([*shown[:SHOWN], *["..."] * (len(shown) > SHOWN)])
        line = f"{kind.severity:<7}  {kind.code:<18} {len(shown):>5,}  {examples} -> {kind.cure}"
        lines.append(line)
    kinds_of = ", ".join(f"{count[severity]} of {severity}s" for severity in EXIT_STATUS)
    return [*lines, f"Verdict: {VERDICTS[found.worst()]} (kinds of findings: {kinds_of})"]


def example(item: Item) -> str:
    """Name a finding by the ends of its paths, such as train/0.jpg, or by its detail."""
    parts = [[part for part in path.split("/") if part != "images"] for path in item.files]
    names = ["/".join(part[-2:]) for part in parts[:SHOWN]] + ["..."] * (len(parts) > SHOWN)
    detail = f"({item.detail})" if names and item.detail else item.detail
    return " ".join(filter(None, [" = ".join(names), detail]))


def run(folder: Path, json_to: str | None = None) -> int:
    """Check a folder and print the summary; returns the exit status.

    `json_to` is a file for the details, or - for stdout, and then the summary goes to stderr.
    """
    start = time.monotonic()
    try:
        if json_to not in (None, "-"):
            check_writable(Path(json_to))
        found, photos, species = diagnose(folder)
        seconds = round(time.monotonic() - start, 1)
        of = {kind: [item._asdict() for item in found[kind.code]] for kind in found.kinds()}
        result = {
            "folder": str(folder),
            "photos": photos,
            "species": species,
            "seconds": seconds,
            "verdict": found.worst(),
            "findings": [
                {**kind._asdict(), "count": len(items), "items": items}
                for kind, items in of.items()
            ],
        }
        if json_to == "-":
            print(json.dumps(result, indent=1))
        elif json_to is not None:
            write_json(Path(json_to), result)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    head = f"Checked {photos:,} photos of {species} species in {folder} in {seconds} s"
    print("\n".join([head, *summary(found)]), file=sys.stderr if json_to == "-" else sys.stdout)
    return EXIT_STATUS[found.worst()]
