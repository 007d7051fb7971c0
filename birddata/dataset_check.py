"""Report what is wrong with a training set before an hour is lost on it: prepare.py --check."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from scipy.cluster.hierarchy import DisjointSet
from scipy.ndimage import affine_transform
from scipy.sparse import triu
from sklearn.neighbors import radius_neighbors_graph

import solution
from birddata.findings import FEW_PHOTOS, IMBALANCE, KINDS, MAX_ASPECT, MIN_SIDE, Findings, Item
from birddata.samples import find_sample
from birddata.sources import SIDE, reason, walk_folder, with_bar
from birddata.writing import Sample
from course.cli import printable
from course.files import UserError, check_outputs, check_writable, write_json
from course.layout import digest_of

EXIT_STATUS = {"error": 4, "warning": 3, "note": 0}  # 1 and 2: the check itself could not be done
VERDICTS = {
    "error": "correct the errors before training",
    "warning": "training will run; see the warnings first",
    "note": "nothing in the way of training",
}
SHOWN = 3  # items of a kind in the summary

THUMB = 48  # pixels a side of the grey thumbnails that photos are compared by
CELLS = 12  # a side of the grid of means whose differences are the bits of the hash
HASH_DISTANCE = 0.28  # share of the bits; pairs above it are not compared
MAX_PAIRS = 2_000  # that are compared, a quarter of a minute; drawn pictures may have millions
SAME = 0.95  # correlation of two thumbnails, laid over one another, from which on they are copies
BLANK = 2  # standard deviation of the grey values, of 255, below which a picture shows nothing
MIN_OVERLAP = 0.6  # of the thumbnail

# ---- One file ------------------------------------------------------------------------------------


@dataclass
class Content:
    """What the bytes of a photo decode to."""

    digest: str = ""
    problem: tuple[str, str] | None = None  # code and cause
    size: tuple[int, int] = (0, 0)  # pixels, width and height
    thumb: Any = None  # (THUMB, THUMB), uint8, grey; None if it is unreadable


class PhotoRecord(NamedTuple):
    """A photo in one part of a test."""

    content: Content
    origin: str
    name: str  # identifies it in its part; tests that share photos share their names
    label: str  # the species; "" without
    test: str  # what comes before `_input`; "" where there are no tests
    role: str  # train or test


def examine(path: Path, known: dict[str, Content]) -> Content:
    """Read a photo strictly, or else as training does, which reads damaged ones as far as they go.

    Bytes that are `known` by their digest are not decoded again.
    """
    content = Content()
    for strict in (True, False):
        code = "odd-metadata"
        ImageFile.LOAD_TRUNCATED_IMAGES = not strict
        try:
            content.digest = digest_of(path, 64)
            if content.digest in known:
                return known[content.digest]
            with solution.open_photo(path) as header:
                content.size = header.size
            code = "truncated"
            grey = solution.read_photo(path, SIDE).convert("L")
            content.thumb = np.array(grey.resize((THUMB, THUMB), Image.Resampling.LANCZOS))
            break
        except Exception as error:  # a damaged photo makes Pillow raise nearly anything
            content.problem = code if strict else "unreadable", reason(error, path)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
    known[content.digest] = content
    return content


def read_records(sample: Sample) -> list[PhotoRecord]:
    """Read all photos of a sample, with a bar on a terminal."""
    parts = [
        (photo, test.stem, role)
        for test in sample.tests
        for role, photos in (("train", test.train), ("test", test.test))
        for photo in photos
    ]
    known: dict[str, Content] = {}
    records = []
    for photo, test, role in with_bar(parts):
        label = ""
        if photo.class_id is not None:
            label = sample.species.get(photo.class_id) or f"class {photo.class_id}"
        content = examine(photo.path, known)
        records.append(PhotoRecord(content, photo.origin, photo.name, label, test, role))
    return records


def check_file(record: PhotoRecord, found: Findings) -> None:
    """Check one file by itself."""
    path, content = record.origin, record.content
    if content.problem:
        code, cause = content.problem
        found.add(code, path, cause)
        if code != "odd-metadata":
            return
    if content.thumb.std() < BLANK:
        found.add("blank", path)
    width, height = content.size
    if min(width, height) < MIN_SIDE:
        found.add("tiny", path, f"{width} x {height} pixels")
    elif max(width, height) > MAX_ASPECT * min(width, height):
        found.add("odd-shape", path, f"{width} x {height} pixels")


# ---- Species and copies --------------------------------------------------------------------------


def check_species(records: Sequence[PhotoRecord], found: Findings) -> None:
    """Find species with few training photos, or with far fewer than another."""
    for test in sorted({record.test for record in records}):
        here = [record for record in records if record.test == test and record.label]
        count: Counter[str] = Counter()  # of readable training photos
        for record in here:
            if record.role == "train":
                count[record.label] += record.content.thumb is not None
        if not count:  # there is no usable table
            continue
        for name, number in sorted(count.items()):
            if number < FEW_PHOTOS:
                code = "few-photos" if number > 1 else "lone-species"
                found.add(code, (), f"{name} ({number})")
        present = sorted((number, name) for name, number in count.items() if number)
        if present and present[-1][0] > IMBALANCE * present[0][0]:
            (fewest, small), (most, large) = present[0], present[-1]
            found.add("imbalance", (), f"{large} ({most}) and {small} ({fewest})")
        for name in sorted({record.label for record in here} - count.keys()):
            found.add("untrained-species", (), name)


def check_copies(photos: Sequence[PhotoRecord], found: Findings) -> None:
    """Find duplicate photos, byte-identical or altered."""
    by_digest: dict[str, list[PhotoRecord]] = defaultdict(list)
    for record in photos:
        by_digest[record.content.digest].append(record)
    trained = {(r.test, r.name, r.content.digest) for r in photos if r.role == "train"}
    asked = [record for record in photos if record.role == "test"]
    # The tests that ask for more than their own training photos, as the course's sample does not.
    fresh = {r.test for r in asked if (r.test, r.name, r.content.digest) not in trained}
    for test in sorted({record.test for record in asked} - fresh):
        found.add("trained-test", (), test)
    for group in by_digest.values():
        report_copies(group, "", fresh, found)
    textured = [group for group in by_digest.values() if group[0].content.thumb.std() >= BLANK]
    for alike in same_photos([group[0].content.thumb for group in textured], found):
        group = [record for i in alike for record in textured[i]]
        report_copies(group, "near-", fresh, found)


def report_copies(
    records: Sequence[PhotoRecord], near: str, fresh: set[str], found: Findings
) -> None:
    """Add a group of copies to the findings, once; tests may share their photos."""
    reported = set()
    for test in sorted({record.test for record in records}):
        here = [record for record in records if record.test == test]
        train = [record for record in here if record.role == "train"]
        asked = [record for record in here if record.role == "test" and test in fresh]
        if len({record.label for record in here} - {""}) > 1:
            code, here = "two-species", list({(s.name, s.label): s for s in here[::-1]}.values())
        elif train and asked:
            code, here = f"leaked-{near}copy", train + asked
        elif len(train) > 1:
            code, here = f"{near or 'exact-'}copy", train
        else:
            continue
        group = code, *sorted(record.name for record in here)
        if group not in reported:
            reported.add(group)
            found.add(code, sorted(record.origin for record in here))


def same_photos(thumbs: Sequence[np.ndarray], found: Findings) -> list[list[int]]:
    """Return groups of two or more thumbnails (THUMB, THUMB) of the same photo, as indices.

    Pairs with similar hashes are copies if they correlate once laid over one another.
    """
    if not thumbs:
        return []
    pairs, number = similar_hashes(difference_hash(thumbs))
    if number > len(pairs):
        found.add("look-alikes", (), f"{number:,} pairs, the {len(pairs):,} closest compared")
    groups = DisjointSet(range(len(thumbs)))
    for i, j in pairs:
        if not groups.connected(i, j):
            one, other = thumbs[i].astype(np.float32), thumbs[j].astype(np.float32)
            if max(best_correlation(one, other), best_correlation(other, one)) >= SAME:
                groups.merge(i, j)
    return [sorted(group) for group in groups.subsets() if len(group) > 1]


def difference_hash(thumbs: Sequence[np.ndarray]) -> np.ndarray:
    """Return bits (N, 2 * CELLS * (CELLS - 1)): whether a cell is brighter than its neighbour.

    That is dHash (Krawetz 2013, "Kind of Like That", The Hacker Factor Blog) in both directions.
    """
    step = THUMB // CELLS
    pixels = np.stack(thumbs).reshape(-1, CELLS, step, CELLS, step)
    cells = pixels.mean(axis=(2, 4))  # (N, THUMB, THUMB) -> (N, CELLS, CELLS)
    brighter = [np.diff(cells, axis=axis).reshape(len(cells), -1) > 0 for axis in (1, 2)]
    return np.concatenate(brighter, axis=1)


def similar_hashes(bits: np.ndarray) -> tuple[list[list[int]], int]:
    """Return the closest pairs of hashes (N, bits) within HASH_DISTANCE, and how many there are."""
    graph = radius_neighbors_graph(bits, HASH_DISTANCE, mode="distance", metric="hamming")
    pairs = triu(graph, 1, format="coo")
    closest = np.lexsort((pairs.col, pairs.row, pairs.data))[:MAX_PAIRS]
    return np.stack([pairs.row, pairs.col], axis=1)[closest].tolist(), pairs.nnz


def best_correlation(still: np.ndarray, moved: np.ndarray) -> float:
    """Lay one thumbnail over another step by step; returns the best correlation on the way.

    Each step refines scale and shift in y and x by least squares, together with gain and offset of
    the brightness: Lucas-Kanade (Baker and Matthews 2004, "Lucas-Kanade 20 Years On", section 2).
    """
    middle = (THUMB - 1) / 2
    y, x = np.mgrid[:THUMB, :THUMB] - middle
    images = (moved, *np.gradient(moved))
    scale, shift, best = np.ones(2), np.zeros(2), -1.0  # in y and x, from the middle
    for _ in range(12):
        how = {"matrix": np.diag(scale), "offset": middle * (1 - scale) + shift}
        warped, dy, dx = (affine_transform(i, **how, order=1, cval=np.nan) for i in images)
        inside = np.isfinite(warped)
        if inside.mean() < MIN_OVERLAP or min(warped[inside].std(), still[inside].std()) < BLANK:
            break
        best = max(best, float(np.corrcoef(warped[inside], still[inside])[0, 1]))
        columns = np.stack([warped, np.ones_like(warped), dy * y, dx * x, dy, dx], axis=2)[inside]
        gain, _, *step = np.linalg.lstsq(columns, still[inside], rcond=None)[0]
        if gain <= 0:
            break
        scale, shift = scale + np.array(step[:2]) / gain, shift + np.array(step[2:]) / gain
    return best


# ---- The whole check -----------------------------------------------------------------------------


def check_folder(folder: Path) -> tuple[Findings, int, int]:
    """Check a folder; returns the findings, and how many readable photos and species it holds.

    Of a folder with tests only what lies in them is checked. Raises UserError for a folder that
    holds no training set.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one, an archive must be unpacked first")
    found = Findings()
    sample = find_sample(folder, walk_folder(folder, found), 0, found)
    if sample.tests[0].stem:
        for item in found.pop("not-an-image", {}):
            if re.match(r"(.+/)?[0-9]{2}_[^/]+_(input|gt)/", item.files[0]):
                found.add("not-an-image", *item)
    records = read_records(sample)
    distinct: dict[tuple[str, str], PhotoRecord] = {}
    for record in records:
        distinct.setdefault((record.name, record.content.digest), record)
    for record in distinct.values():
        check_file(record, found)
    photos = [record for record in records if record.content.thumb is not None]
    check_species(records, found)
    check_copies(photos, found)
    readable = sum(record.content.thumb is not None for record in distinct.values())
    return found, readable, len({record.label for record in records} - {""})


def example(item: Item) -> str:
    """Name a finding by the ends of its paths, such as train/0.jpg, or by its detail."""
    parts = [[part for part in path.split("/") if part != "images"] for path in item.files]
    names = ["/".join(part[-2:]) for part in parts[:SHOWN]] + ["..."] * (len(parts) > SHOWN)
    detail = f"({item.detail})" if names and item.detail else item.detail
    return printable(" ".join(filter(None, [" = ".join(names), detail])))


def run(folder: Path, json_to: Path | None = None) -> int:
    """Check a folder; print a line for each kind of finding, the most severe first, and a verdict.

    All findings go to a file. Returns the exit status.
    """
    start = time.monotonic()
    if json_to:
        check_writable(json_to)
        check_outputs([json_to], walk_folder(folder, Findings()).values())
    found, photos, species = check_folder(folder)
    seconds = round(time.monotonic() - start, 1)
    kinds = [kind for code, kind in KINDS.items() if found.get(code)]
    verdict = kinds[0].severity if kinds else "note"
    findings = []
    print(f"Checked {photos:,} photos of {species} species in {folder} in {seconds} s")
    for kind in kinds:
        items = [item._asdict() for item in found[kind.code]]
        findings.append({**kind._asdict(), "count": len(items), "items": items})
        shown = [example(item) for item in found[kind.code]]
        examples = ", ".join([*shown[:SHOWN], *["..."] * (len(shown) > SHOWN)])
        what = f"{kind.severity:<7}  {kind.code:<18} {len(shown):>5,}"
        print(f"{what}  {examples} -> {kind.remedy}")
    print(f"Verdict: {VERDICTS[verdict]}")
    if json_to:
        result = {"folder": str(folder), "photos": photos, "species": species, "seconds": seconds}
        write_json(json_to, {**result, "verdict": verdict, "findings": findings})
    return EXIT_STATUS[verdict]
