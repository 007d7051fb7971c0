"""Duplicate photos: byte-identical or altered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from scipy.ndimage import affine_transform

from birddata.findings import Findings

THUMB = 48  # pixels a side of the grey thumbnails that photos are compared by
CELLS = 12  # a side of the grid of means whose differences are the bits of the hash
HASH_DISTANCE = 0.28  # share of the bits; pairs above it are not compared
MAX_PAIRS = 2_000  # that are compared, a quarter of a minute; drawn pictures may have millions
SAME = 0.95  # correlation of two thumbnails, laid over one another, from which on they are copies
BLANK = 2  # standard deviation of the grey values, of 255, below which a picture shows nothing
HASHES = 256  # whose distances to all others are held at once
ALIGN_STEPS = 12
MIN_OVERLAP = 0.6  # of the thumbnail


@dataclass
class PhotoRecord:
    """A photo in one part of a test, and what its bytes decode to: nothing if it has a problem."""

    digest: str
    problem: str | None = None
    damage: tuple[str, str] | None = None  # code and cause, of a photo that is read nevertheless
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # pixels, width and height
    thumb: np.ndarray = field(default_factory=partial(np.empty, (0, 0)))  # (THUMB, THUMB), grey
    origin: str = ""
    name: str = ""  # identifies it in its part; tests that share photos share their names
    label: str | None = None
    test: str = ""  # what comes before `_input`; "" where there are no tests
    role: str = ""  # train or test


def thumbnail(photo: Image.Image) -> np.ndarray:
    """Return a photo as (THUMB, THUMB), uint8, grey, whatever its proportions."""
    return np.array(photo.convert("L").resize((THUMB, THUMB), Image.Resampling.LANCZOS))


def check_copies(photos: Sequence[PhotoRecord], found: Findings) -> None:
    """Find duplicate photos, byte-identical or altered."""
    parts: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    by_digest: dict[str, list[PhotoRecord]] = defaultdict(list)
    for record in photos:
        parts[record.test, record.role].add((record.name, record.digest))
        by_digest[record.digest].append(record)
    # Those that ask only for their own training photos, as the course's sample does.
    asking = sorted(test for test, role in parts if role == "test")
    trained_tests = {test for test in asking if parts[test, "test"] <= parts[test, "train"]}
    for test in sorted(trained_tests):
        found.add("trained-test", (), test)
    for group in by_digest.values():
        report_copies(group, "", trained_tests, found)
    textured = [group for group in by_digest.values() if group[0].thumb.std() >= BLANK]
    for alike in same_photos([group[0].thumb for group in textured], found):
        group = [record for i in alike for record in textured[i]]
        report_copies(group, "near-", trained_tests, found)


def report_copies(
    records: Sequence[PhotoRecord], near: str, trained_tests: set[str], found: Findings
) -> None:
    """Add a group of copies to the findings, once; tests may share their photos."""
    reported = set()
    for test in sorted({record.test for record in records}):
        here = [record for record in records if record.test == test]
        train = [record for record in here if record.role == "train"]
        asked = [record for record in here if record.role == "test" and test not in trained_tests]
        if len({record.label for record in here} - {None}) > 1:
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
    """Group thumbnails (THUMB, THUMB) of the same photo; returns their indices, groups of two on.

    Pairs with similar hashes are candidates; those that correlate once laid over one another are
    copies. Groups are joined through common members.
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
    """Return bits (N, 2 * CELLS * (CELLS - 1)) of N thumbnails.

    A bit tells whether a cell is brighter than its neighbour: dHash (Krawetz 2013, "Kind of Like
    That", The Hacker Factor Blog), in both directions and on a finer grid.
    """
    step = THUMB // CELLS
    pixels = np.stack(thumbs).reshape(-1, CELLS, step, CELLS, step)
    cells = pixels.mean(axis=(2, 4))  # (N, THUMB, THUMB) -> (N, CELLS, CELLS)
    brighter = [np.diff(cells, axis=axis).reshape(len(cells), -1) > 0 for axis in (1, 2)]
    return np.concatenate(brighter, axis=1)


def similar_hashes(bits: np.ndarray) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs of hashes (N, bits) within HASH_DISTANCE, and how many there are.

    The closest come first, MAX_PAIRS of them at most, however many there are.
    """
    signs: np.ndarray = 2 * bits.astype(np.float32) - 1
    closest: np.ndarray = np.empty((0, 3), int)  # bits that differ, and two indices
    number = 0
    for start in range(0, len(bits), HASHES):
        more_agree = signs[start : start + HASHES] @ signs[start:].T  # (HASHES, N - start)
        differing = (bits.shape[1] - more_agree) / 2
        i, j = np.nonzero(np.triu(differing <= HASH_DISTANCE * bits.shape[1], 1))
        rows = np.stack([differing[i, j].astype(int), start + i, start + j], axis=1)
        closest, number = np.concatenate([closest, rows]), number + len(rows)
        closest = closest[np.lexsort(closest.T[::-1])[:MAX_PAIRS]]
    return [(i, j) for _, i, j in closest.tolist()], number


def best_correlation(still: np.ndarray, moved: np.ndarray) -> float:
    """Lay one thumbnail over another step by step; returns the best correlation on the way.

    Each step refines scale and shift in y and x by least squares, together with gain and offset of
    the brightness: Lucas-Kanade (Baker and Matthews 2004, "Lucas-Kanade 20 Years On", section 2).
    """
    middle = (THUMB - 1) / 2
    y, x = np.mgrid[:THUMB, :THUMB] - middle
    images = (moved, *np.gradient(moved))
    scale, shift = np.ones(2), np.zeros(2)  # in y and x, from the middle
    best = -1.0
    for _ in range(ALIGN_STEPS):
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
