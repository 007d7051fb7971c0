"""Tests in the course's layout appear whole or not at all: built aside, then moved."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from course import layout, tables
from course.files import UserError, name_errors, temporary_folder, uninterrupted

STAGING_PREFIX = ".prepare-"


@dataclass(frozen=True)
class Photo:
    """One photo: what it is called and where it lies."""

    name: str  # in the result
    class_id: int | None  # None in a test without true labels
    origin: str  # its path below SOURCE
    path: Path


@dataclass(frozen=True)
class Test:
    """One test; photos in another layout are one test without a stem, all of them to train on."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    stem: str  # what comes before `_input` and `_gt`; "" where there is neither
    train: list[Photo]
    test: list[Photo]


@dataclass(frozen=True)
class Sample:
    """Tests, and the names of their species."""

    kind: str  # in words, where they come from
    tests: list[Test]
    species: dict[int, str] = field(default_factory=dict)  # by class id
    species_source: str = ""  # inferred, unless they are the photos' own


@contextmanager
def new_tests(out: Path) -> Iterator[Path]:
    """Yield a scratch folder in `out`. Raises UserError if there are tests or names already."""
    for path in sorted(out.iterdir()) if out.exists() else []:
        if re.match(r"[0-9]{2}_", path.name) or path.name == "species.csv":
            raise UserError(f"{path} exists already; move or delete it, or give another folder")
    with temporary_folder(STAGING_PREFIX, out) as scratch:
        yield scratch


def write_tests(sample: Sample, scratch: Path, out: Path) -> list[str]:
    """Build all tests and species.csv in `scratch`, then rename them into `out`; returns the names.

    Raises UserError, which names `out`, where the file system fails.
    """
    built = scratch / "built"
    with name_errors(out, writing=True):
        built.mkdir()
        for test in sample.tests:
            of = built / f"{test.stem}_input"
            for photos, images, gt in (
                (test.train, of / "train/images", of / "train"),
                (test.test, of / "test/images", built / f"{test.stem}_gt"),
            ):
                images.mkdir(parents=True)
                for photo in photos:
                    link_or_copy(photo.path, images / photo.name)
                gt.mkdir(exist_ok=True)
                (gt / "gt.csv").write_bytes(layout.gt_bytes({p.name: p.class_id for p in photos}))
        if sample.species:
            names = tables.species_bytes(sample.species, sample.species_source)
            (built / "species.csv").write_bytes(names)
        return move_into_place(built, out)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where that fails."""
    origin = Path(os.path.realpath(source))
    try:
        target.hardlink_to(origin)
    except (OSError, NotImplementedError):
        with name_errors(origin), origin.open("rb"):  # it may be gone by now
            pass
        shutil.copyfile(origin, target)


@uninterrupted
def move_into_place(built: Path, out: Path) -> list[str]:
    """Rename all that was built into `out`, or nothing of it; returns the names."""
    names = sorted(path.name for path in built.iterdir())
    with ExitStack() as undo:
        for name in names:
            (built / name).rename(out / name)
            undo.callback((out / name).rename, built / name)
        undo.pop_all()
    return names
