"""Say what is wrong with a training set before an hour is lost on it.

    python public_data/prepare.py --check DIR [--json FILE]

DIR holds tests in the course layout, or is one `train` folder (gt.csv and images/), or a folder of
class folders (DIR/<species>/*.jpg). Nothing in it is changed. README.md beside this file lists the
kinds of findings, the exit status, and how well copies are found.

Needs Pillow, NumPy and rich.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps
from rich.console import Console
from rich.progress import track

from grader.protocol import HEADER, GraderError, write_json
from public_data.prepare import (
    TEST_INPUT,
    Entry,
    Files,
    Log,
    PrepareError,
    choose_root,
    class_roots,
    course_roots,
    is_image,
    nfc,
    read_table,
    try_image,
    walk_folder,
)

# ----------------------------------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------------------------------

FEW_PHOTOS = 5  # a species with fewer is named
IMBALANCE = 10  # times as many photos in the largest species as in the smallest
MIN_SIDE = 32  # pixels
MAX_ASPECT = 4  # longer side by shorter side
OUTLIER = 4  # times as large or as small as the median, in sqrt(width * height)
BLANK = 2  # standard deviation of the grey values, of 255

THUMB = 48  # pixels a side of the grey thumbnails that photos are compared by
CELLS = 12  # a side of the grid of means whose differences are the bits of the hash
HASH_DISTANCE = 0.28  # share of the bits; pairs above it are not looked at any further
MAX_PAIRS = 2_000  # that are looked at, a quarter of a minute; drawn pictures may have millions
SAME = 0.95  # correlation of two thumbnails, laid over one another, from which on they are copies
ALIGN_STEPS = 12
HASH_BLOCK = 1024  # rows of the table of distances that are in memory at a time
MIN_OVERLAP = 0.6  # of the thumbnail

EXIT_STATUS = {"error": 4, "warning": 3, "note": 0}  # 1 and 2: the check itself could not be done
VERDICTS = {
    "error": "mend the errors before training",
    "warning": "training will run; look at the warnings first",
    "note": "nothing in the way of training",
}
SHOWN = 3  # items of a kind in the summary

# ----------------------------------------------------------------------------------------------
# Kinds of findings
# ----------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of finding; `code` is stable, so that programs may rely on it."""

    code: str
    severity: str  # error: training fails or its result is wrong; warning: it suffers; note
    what: str
    cure: str


KINDS = (
    Kind("bad-table", "error", "a table of labels that cannot be used",
         f"write it as UTF-8 text whose first line is {HEADER}"),
    Kind("bad-row", "error", "a row that is not a file name, a comma and an integer",
         "mend the row"),
    Kind("two-ids", "error", "a file with two class ids in one table",
         "keep the row that is right"),
    Kind("label-without-file", "error", "a label without a file",
         "add the file or delete the row; names must agree in upper and lower case"),
    Kind("unreadable", "error", "a file that cannot be decoded", "fetch it again, or delete it"),
    Kind("two-species", "error", "the same photo under two labels", "keep it where it belongs"),
    Kind("leaked-copy", "error", "the same bytes in training and in test",
         "take the photo out of training"),
    Kind("untrained-species", "error", "a species of the test without training photos",
         "add training photos, or check the class ids"),
    Kind("leaked-near-copy", "warning", "the same photo, altered, in training and in test",
         "take the photo out of training"),
    Kind("truncated", "warning", "a photo of which only a part can be decoded",
         "fetch it again, or delete it"),
    Kind("file-without-label", "warning", "a photo without a label, which is not trained on",
         "add its label, or delete it"),
    Kind("repeated-row", "warning", "a file with the same class id twice in one table",
         "delete one of the rows"),
    Kind("exact-copy", "warning", "the same bytes more than once in training", "keep one"),
    Kind("near-copy", "warning", "the same photo, altered, more than once in training",
         "keep one"),
    Kind("blank", "warning", "a picture of a single colour", "delete it"),
    Kind("tiny", "warning", f"a photo with a side under {MIN_SIDE} pixels",
         "find a larger version, or delete it"),
    Kind("colour-mode", "warning", "a photo that is neither RGB nor grey",
         "save it as RGB, or convert it where it is read"),
    Kind("wrong-extension", "warning", "a photo whose extension is not that of its format",
         "rename it"),
    Kind("not-an-image", "warning", "another file among the photos", "move it elsewhere"),
    Kind("lone-species", "warning", "a species with a single training photo or none",
         "add photos, or leave the species out"),
    Kind("imbalance", "warning", f"over {IMBALANCE} times as many photos in one species as in "
         "another", "add photos to the small ones, or weight the loss"),
    Kind("few-photos", "note", f"a species with fewer than {FEW_PHOTOS} training photos",
         "add photos"),
    Kind("odd-shape", "note", f"a photo over {MAX_ASPECT} times as long as wide", "crop it"),
    Kind("odd-size", "note", f"a photo over {OUTLIER} times as large or small as the median",
         "look at it: it may not belong here"),
    Kind("grey", "note", "a photo without colour", "none needed, if the loader converts to RGB"),
    Kind("look-alikes", "note", "more pairs look alike than are compared closely",
         "none needed; altered copies may have been missed"),
    Kind("trained-test", "note", "a test that asks only for photos of its training set",
         "none needed; its accuracy says nothing about new photos"),
    Kind("no-true-labels", "note", "a test without true labels",
         "add its _gt/gt.csv to grade it here"),
)  # fmt: skip


class Item(NamedTuple):
    """One finding: the files it is about, as paths below DIR, and what is the matter with them."""

    files: tuple[str, ...]
    detail: str = ""


class Findings(defaultdict[str, dict[Item, None]]):
    """What was found, by the code of its kind, in the order in which it was found."""

    def __init__(self) -> None:
        super().__init__(dict)

    def add(self, code: str, files: str | Iterable[str], detail: str = "") -> None:
        """Add a finding about one file or several, once."""
        self[code][Item((files,) if isinstance(files, str) else tuple(files), detail)] = None

    def kinds(self) -> list[Kind]:
        """Return the kinds of which there is a finding, most severe first."""
        return [kind for kind in KINDS if self.get(kind.code)]


# ----------------------------------------------------------------------------------------------
# Which files are there, and which labels
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """A file among the photos of one part of a test, with its label if it has one."""

    entry: Entry
    label: str | None  # `class <id>`, or the name of the class folder
    test: str  # what comes before `_input`; "" where there are no tests
    role: str  # train or test

    @property
    def name(self) -> str:
        """What tells it from others of its part; tests that share photos share their names."""
        origin = self.entry.origin
        return nfc(origin.rpartition("/")[2] if self.test else origin)


class Part(NamedTuple):
    """The training or the test photos of one test, and where they are."""

    test: str
    role: str
    gt: str
    images: str


@dataclass
class DataSet:
    """All files among the photos, the labels of each part by (test, role), and the findings."""

    shots: list[Shot] = field(default_factory=list)
    labels: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    found: Findings = field(default_factory=Findings)


class SilentLog(Log):
    """Collects the skipped files without naming them on stderr."""

    def note(self, text: str) -> None:
        """Print nothing."""


def read_folder(folder: Path) -> DataSet:
    """Recognise the layout of a folder and match its files with their labels.

    Raises PrepareError if the folder is none, or in none of the three layouts.
    """
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder; give one, a zip must be unpacked first")
    log = SilentLog()
    files = walk_folder(folder, log)
    others = [path for path, reason in log.skipped.items() if reason == "not an image"]
    files |= {path: Entry(path, folder / path) for path in others}
    data = DataSet()
    if (root := choose_root(course_roots(files), "tests", folder)) is not None:
        read_tests(files, root, data)
    elif "gt.csv" in files or {Path(p).parent for p in files if is_image(p)} == {Path("images")}:
        read_part(files, Part("", "train", "gt.csv", "images"), data)
    elif (root := choose_root(class_roots(files), "class folders", folder)) is not None:
        read_class_folders(files, root, data)
    else:
        raise PrepareError(
            f"{folder} holds neither NN_<name>_input folders, nor gt.csv and images/, nor "
            "<species>/*.jpg; give the folder right above them"
        )
    return data


def read_tests(files: Files, root: str, data: DataSet) -> None:
    """Read all tests of a folder in the course layout."""
    inputs = {path.removeprefix(root).split("/")[0] for path in files if path.startswith(root)}
    for name in sorted(name for name in inputs if re.fullmatch(TEST_INPUT, name)):
        stem, here = name.removesuffix("_input"), f"{root}{name}"
        train = Part(stem, "train", f"{here}/train/gt.csv", f"{here}/train/images")
        test = Part(stem, "test", f"{root}{stem}_gt/gt.csv", f"{here}/test/images")
        read_part(files, train, data)
        read_part(files, test, data)


def read_part(files: Files, part: Part, data: DataSet) -> None:
    """Match the labels of one table with the files of one folder."""
    labels, named = read_labels(files, part, data.found)
    there = set()
    for path, entry in sorted(files.items()):
        folder, _, name = path.rpartition("/")
        if folder == part.images:
            there.add(nfc(name))
        elif path.startswith(part.images.removesuffix("images")) and is_image(path):
            name = ""  # beside or below the folder, where no training looks
        else:
            continue
        data.shots.append(Shot(entry, labels.get(nfc(name)), part.test, part.role))
        if named is not None and nfc(name) not in named and is_image(path):
            data.found.add("file-without-label", entry.origin)
    if named is not None:
        data.labels[part.test, part.role] = set(labels.values())
    for name in sorted(labels.keys() - there):
        data.found.add("label-without-file", f"{part.images}/{name}", f"in {part.gt}")


def read_labels(
    files: Files, part: Part, found: Findings
) -> tuple[dict[str, str], set[str] | None]:
    """Read a table: the labels by file name, and which files it names, rightly or not.

    Without a usable table there are no labels, and None for the files.
    """
    if part.gt not in files:
        found.add("bad-table" if part.role == "train" else "no-true-labels", part.gt, "is missing")
        return {}, None
    try:
        header, *rows = read_table(files[part.gt])
    except PrepareError as error:
        found.add("bad-table", part.gt, str(error))
        return {}, None
    if header != HEADER:
        found.add("bad-table", part.gt, f"its first line is {header!r}")
        return {}, None
    labels: dict[str, str] = {}
    lines = enumerate(rows, start=2)
    return labels, {read_row(row, f"line {n}", part, labels, found) for n, row in lines if row}


def read_row(row: str, line: str, part: Part, labels: dict[str, str], found: Findings) -> str:
    """Add the label of one row, or find fault with it; returns the file that the row names."""
    name, _, class_id = row.rpartition(",")
    name = nfc(name)
    if not (name and re.fullmatch(r"[+-]?[0-9]{1,18}", class_id.strip())):
        found.add("bad-row", part.gt, f"{line}: {row!r}")
        return name or nfc(row)
    label = f"class {int(class_id)}"
    if name in labels:
        code = "repeated-row" if labels[name] == label else "two-ids"
        found.add(code, f"{part.images}/{name}", f"{part.gt} {line}")
    labels.setdefault(name, label)
    return name


def read_class_folders(files: Files, root: str, data: DataSet) -> None:
    """Read <species>/<photo>; the label is the name of the folder."""
    for path, entry in sorted(files.items()):
        species, *inner = path.removeprefix(root).split("/")
        if not path.startswith(root) or (len(inner) != 1 and not is_image(path)):
            continue
        label = nfc(species) if len(inner) == 1 and is_image(path) else None
        data.shots.append(Shot(entry, label, "", "train"))
        if label is None and is_image(path):
            data.found.add("file-without-label", path)
    data.labels["", "train"] = {shot.label for shot in data.shots if shot.label is not None}


# ----------------------------------------------------------------------------------------------
# One file
# ----------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """What there is to know of a file's bytes; the rest is empty where they cannot be decoded."""

    digest: str
    problem: str | None = None
    truncated: bool = False
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # pixels, width and height
    thumb: np.ndarray | None = None  # (THUMB, THUMB), float32, grey from 0 to 255

    def look(self, image: Image.Image) -> None:
        """Take the facts from an opened image, decoding it whole, a large JPEG at reduced size."""
        self.format, self.mode, self.size = image.format, image.mode, image.size
        image.draft("RGB", (256, 256))
        image.load()
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            image = ImageOps.exif_transpose(image)
        self.thumb = thumbnail(image)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return an image as (THUMB, THUMB), float32, grey from 0 to 255, whatever its proportions."""
    deep = image.mode.startswith(("I", "F"))  # more than 8 bits a pixel: any range of values
    grey = image.convert("F" if deep else "L")
    pixels = np.array(grey.resize((THUMB, THUMB), Image.Resampling.LANCZOS), dtype=np.float32)
    return (pixels - pixels.min()) * (255 / max(np.ptp(pixels), 1e-6)) if deep else pixels


def examine(path: Path, known: dict[str, Facts]) -> Facts:
    """Return the facts of a file; bytes that are `known` by their digest are not decoded again."""
    try:
        digest = digest_of(path)
    except OSError as error:
        return Facts("", problem=f"cannot be opened ({error.strerror})")
    if digest not in known:
        facts = known[digest] = Facts(digest)
        facts.problem = try_image(path, facts.look)
        if facts.problem and facts.format:
            with tolerant_pillow():
                facts.truncated = try_image(path, facts.look) is None
    return known[digest]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def tolerant_pillow() -> Iterator[None]:
    """Let Pillow read what is there of a truncated file."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def check_file(shot: Shot, facts: Facts, found: Findings) -> bool:
    """Say what is wrong with one file by itself; returns whether it is a whole photo."""
    path, suffix = shot.entry.origin, Path(shot.entry.origin).suffix.lower()
    if facts.problem:
        if facts.truncated:
            found.add("truncated", path, facts.problem)
        elif is_image(path) or shot.label is not None:
            found.add("unreadable", path, facts.problem)
        else:
            found.add("not-an-image", path)
        return False
    content = facts.format.replace("MPO", "JPEG")
    if Image.registered_extensions().get(suffix) != content:
        found.add("wrong-extension", path, f"it is {content}")
    if facts.mode in {"1", "L"}:
        found.add("grey", path)
    elif facts.mode != "RGB":
        found.add("colour-mode", path, facts.mode)
    if facts.thumb.std() < BLANK:
        found.add("blank", path)
    return True


# ----------------------------------------------------------------------------------------------
# Sizes and species
# ----------------------------------------------------------------------------------------------


def check_sizes(photos: Sequence[Shot], facts: dict[Shot, Facts], found: Findings) -> None:
    """Find photos of odd size, each for one reason."""
    median = float(np.median([np.sqrt(np.prod(facts[shot].size)) for shot in photos]))
    for shot in photos:
        width, height = facts[shot].size
        side = np.sqrt(width * height)
        if min(width, height) < MIN_SIDE:
            code = "tiny"
        elif max(width, height) > MAX_ASPECT * min(width, height):
            code = "odd-shape"
        elif max(side / median, median / side) > OUTLIER:
            code = "odd-size"
        else:
            continue
        found.add(code, shot.entry.origin, f"{width} x {height} pixels")


def check_species(photos: Sequence[Shot], data: DataSet) -> None:
    """Find species with few training photos, or with far fewer than another."""
    trained = Counter((shot.test, shot.label) for shot in photos if shot.role == "train")
    for (test, role), labels in data.labels.items():
        if role == "train":
            check_counts({label: trained[test, label] for label in sorted(labels)}, data.found)
        for label in sorted(labels - data.labels.get((test, "train"), labels)):
            data.found.add("untrained-species", (), label)


def check_counts(count: dict[str, int], found: Findings) -> None:
    """Judge the number of photos by species."""
    for label, number in count.items():
        if number < FEW_PHOTOS:
            found.add("few-photos" if number > 1 else "lone-species", (), f"{label} ({number})")
    present = sorted((number, label) for label, number in count.items() if number)
    if present and present[-1][0] > IMBALANCE * present[0][0]:
        (fewest, small), (most, large) = present[0], present[-1]
        found.add("imbalance", (), f"{large} ({most}) and {small} ({fewest})")


# ----------------------------------------------------------------------------------------------
# Copies
# ----------------------------------------------------------------------------------------------


def check_copies(photos: Sequence[Shot], facts: dict[Shot, Facts], found: Findings) -> None:
    """Find photos that are there more than once, byte by byte or by their looks."""
    trained_tests = find_trained_tests(photos, facts, found)
    by_digest: dict[str, list[Shot]] = defaultdict(list)
    for shot in photos:
        by_digest[facts[shot].digest].append(shot)
    for shots in by_digest.values():
        judge_copies(shots, "", trained_tests, found)
    thumbs = {shots[0]: facts[shots[0]].thumb for shots in by_digest.values()}
    textured = [shot for shot, thumb in thumbs.items() if thumb.std() >= BLANK]
    for group in same_photos([thumbs[shot] for shot in textured], found):
        shots = [shot for i in group for shot in by_digest[facts[textured[i]].digest]]
        judge_copies(shots, "near-", trained_tests, found)


def find_trained_tests(
    photos: Sequence[Shot], facts: dict[Shot, Facts], found: Findings
) -> set[str]:
    """Return the tests that ask only for their own training photos, as the course's sample does."""
    parts: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for shot in photos:
        parts[shot.test, shot.role].add((shot.name, facts[shot].digest))
    trained = {
        test for test, role in parts if role == "test" and parts[test, role] <= parts[test, "train"]
    }
    for test in sorted(trained):
        found.add("trained-test", (), test)
    return trained


def judge_copies(
    shots: Sequence[Shot], near: str, trained_tests: set[str], found: Findings
) -> None:
    """Say what is wrong with a group of copies in each test; tests may share their photos."""
    told: dict[tuple[str, ...], list[Shot]] = {}
    for test in sorted({shot.test for shot in shots}):
        here = [shot for shot in shots if shot.test == test]
        train = [shot for shot in here if shot.role == "train"]
        asked = [shot for shot in here if shot.role == "test" and test not in trained_tests]
        if len({shot.label for shot in here} - {None}) > 1:
            code, here = "two-species", list({(s.name, s.label): s for s in here[::-1]}.values())
        elif train and asked:
            code, here = f"leaked-{near}copy", train + asked
        elif len(train) > 1:
            code, here = f"{near or 'exact-'}copy", train
        else:
            continue
        told.setdefault((code, *sorted(shot.name for shot in here)), here)
    for (code, *_), copies in told.items():
        found.add(code, sorted(shot.entry.origin for shot in copies))


def same_photos(thumbs: Sequence[np.ndarray], found: Findings) -> list[list[int]]:
    """Group thumbnails (THUMB, THUMB) of the same photo; returns their indices, groups of two on.

    Pairs with similar hashes are candidates; those that correlate once laid over one another are
    copies. Groups are joined through common members.
    """
    if not thumbs:
        return []
    pairs = similar_hashes(difference_hash(thumbs))
    if len(pairs) > MAX_PAIRS:
        found.add("look-alikes", (), f"{len(pairs):,} pairs, the {MAX_PAIRS:,} closest compared")
    groups = {i: [i] for i in range(len(thumbs))}
    for i, j in pairs[:MAX_PAIRS]:
        if groups[i] is not groups[j] and alignment(thumbs[i], thumbs[j]) >= SAME:
            groups[i] += groups[j]
            groups.update(dict.fromkeys(groups[j], groups[i]))
    return [group for i, group in groups.items() if i == min(group) and len(group) > 1]


def difference_hash(thumbs: Sequence[np.ndarray]) -> np.ndarray:
    """Return bits (N, 2 * CELLS * (CELLS - 1)), as float32 of -1 and 1, of N thumbnails.

    A bit tells whether a cell is brighter than its neighbour: dHash (Krawetz 2013, "Kind of Like
    That", The Hacker Factor Blog), in both directions and on a finer grid.
    """
    step = THUMB // CELLS
    pixels = np.stack(thumbs).reshape(-1, CELLS, step, CELLS, step)
    cells = pixels.mean(axis=(2, 4))  # (N, THUMB, THUMB) -> (N, CELLS, CELLS)
    brighter = [np.diff(cells, axis=axis).reshape(len(cells), -1) > 0 for axis in (1, 2)]
    return np.concatenate(brighter, axis=1).astype(np.float32) * 2 - 1


def similar_hashes(bits: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of hashes (N, bits) of -1 and 1 within HASH_DISTANCE, the closest first."""
    pairs: list[tuple[float, int, int]] = []
    for start in range(0, len(bits), HASH_BLOCK):
        block = bits[start : start + HASH_BLOCK]
        distance = (1 - block @ bits.T / bits.shape[1]) / 2  # Hamming: (block, N)
        rows, columns = np.nonzero(distance <= HASH_DISTANCE)
        found = zip(distance[rows, columns], rows + start, columns, strict=True)
        pairs += [(float(d), int(i), int(j)) for d, i, j in found if j > i]
    return [(i, j) for _, i, j in sorted(pairs)]


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the best correlation of two thumbnails when either is stretched over the other."""
    return max(stretch(first, second), stretch(second, first))


def stretch(still: np.ndarray, moved: np.ndarray) -> float:
    """Stretch one thumbnail over another step by step; returns the best correlation on the way.

    Each step refines scale and shift in x and y by least squares, together with gain and offset of
    the brightness: Lucas-Kanade (Baker and Matthews 2004, "Lucas-Kanade 20 Years On", section 2).
    """
    axis = np.arange(THUMB) - (THUMB - 1) / 2  # pixels from the centre
    y, x = np.meshgrid(axis, axis, indexing="ij")
    slope_y, slope_x = np.gradient(moved)
    warp = np.array([1.0, 0.0, 1.0, 0.0])  # scale and shift in x, scale and shift in y
    best = -1.0
    for _ in range(ALIGN_STEPS):
        across, inside_x = sampling(warp[0] * axis + warp[1])
        down, inside_y = sampling(warp[2] * axis + warp[3])
        inside = np.outer(inside_y, inside_x)
        if inside.mean() < MIN_OVERLAP:
            break
        seen, dx, dy = ((down @ image @ across.T)[inside] for image in (moved, slope_x, slope_y))
        wanted = still[inside]
        if min(seen.std(), wanted.std()) < BLANK:
            break
        best = max(best, float(np.corrcoef(seen, wanted)[0, 1]))
        columns = [seen, np.ones_like(seen), dx * x[inside], dx, dy * y[inside], dy]
        gain, _, *step = np.linalg.lstsq(np.stack(columns, axis=1), wanted, rcond=None)[0]
        if gain <= 0:
            break
        warp += np.array(step) / gain
    return best


def sampling(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix of linear interpolation (THUMB, THUMB) at positions from the centre.

    Also returns which of them lie inside (THUMB,).
    """
    place = positions + (THUMB - 1) / 2
    left = np.clip(np.floor(place), 0, THUMB - 2).astype(int)
    matrix = np.zeros((THUMB, THUMB))
    rows = np.arange(THUMB)
    matrix[rows, left] = 1 - (place - left)
    matrix[rows, left + 1] = place - left
    return matrix, (place >= 0) & (place <= THUMB - 1)


# ----------------------------------------------------------------------------------------------
# The whole check
# ----------------------------------------------------------------------------------------------


def diagnose(folder: Path) -> tuple[Findings, int, int]:
    """Check a folder; returns the findings and how many photos and species it holds.

    Raises PrepareError for a folder that holds no training set.
    """
    data = read_folder(folder)
    known: dict[str, Facts] = {}
    console = Console(stderr=True)
    reading = {"console": console, "transient": True, "disable": not console.is_terminal}
    facts = {
        shot: examine(shot.entry.path, known)
        for shot in track(data.shots, "Reading photos", **reading)
    }
    distinct: dict[tuple[str, str], Shot] = {}
    for shot in data.shots:
        distinct.setdefault((shot.name, facts[shot].digest), shot)
    whole = [shot for shot in distinct.values() if check_file(shot, facts[shot], data.found)]
    if whole:
        check_sizes(whole, facts, data.found)
    photos = [shot for shot in data.shots if facts[shot].problem is None]
    check_species(photos, data)
    check_copies(photos, facts, data.found)
    return data.found, len(whole), len(set().union(*data.labels.values()))


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
    except (PrepareError, GraderError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    head = f"Checked {photos:,} photos of {species} species in {folder} in {seconds} s"
    print("\n".join([head, *summary(found)]), file=sys.stderr if json_to == "-" else sys.stdout)
    return EXIT_STATUS[worst(found)]
