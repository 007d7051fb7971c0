"""The course's layout: test folders, and gt.csv as strictly as the course's script reads it.

A folder of tests holds `NN_<name>_input/train/gt.csv`, `.../train/images`, `.../test/images` and
`NN_<name>_gt/gt.csv`.
"""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from course import tables
from course.files import UserError, atomic_write
from course.tables import HEADER

TEST_INPUT = re.compile(r"[0-9]{2}_.+_input")


class CheckerError(Exception):
    """The answer cannot be compared with the true labels."""


@dataclass(frozen=True)
class TestFolder:
    """The folders of one test, such as 00_test_img_input, 00_test_img_gt, 00_test_img_check."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    input: Path
    check_base: Path | None = None  # where the check folder goes; None: beside the input

    @property
    def number(self) -> str:
        """The two digits that number the test."""
        return self.input.name[:2]

    @property
    def gt(self) -> Path:
        """The folder with the true labels of the test photos."""
        return self.input.with_name(self.input.name.removesuffix("input") + "gt")

    @property
    def files(self) -> Iterator[Path]:
        """The tables and photos of the test, which no command may replace."""
        yield from (self.gt / "gt.csv", self.input / "train" / "gt.csv")
        yield from self.input.glob("*/images/*")

    @property
    def check(self) -> Path:
        """The folder that the run makes."""
        base = self.check_base or self.input.parent
        return base / (self.input.name.removesuffix("input") + "check")


def find_tests(tests_dir: Path) -> list[TestFolder]:
    """Return the tests in a folder, in order; none if there is no such folder."""
    paths = tests_dir.iterdir() if tests_dir.is_dir() else ()
    inputs = (path for path in paths if TEST_INPUT.fullmatch(path.name) and path.is_dir())
    return [TestFolder(path) for path in sorted(inputs)]


# ---- gt.csv and output.csv -----------------------------------------------------------------------


def read_csv(path: str | Path, empty_names: bool = False) -> dict[str, int]:
    """Return class ids by file name, read as strictly as the course's script reads a csv.

    It knows no quotes, and a number is what Python's `int` takes; an empty name is a mistake in
    labels, but not in an answer. Raises CheckerError.
    """
    try:
        if not Path(path).is_file():  # opening a pipe would block
            raise CheckerError(f"no file {path}")
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise CheckerError(f"{path} cannot be read: {error}") from None
    header, *rows = text.split("\n")
    if header != HEADER:
        raise CheckerError(f"{path} begins with {header!r}: its header must be {HEADER!r}")
    labels = {}
    for number, row in enumerate(rows, start=2):
        if row:
            name, _, class_id = row.partition(",")  # a second comma makes it no number
            try:
                labels[name] = int(class_id if name or empty_names else "")
            except ValueError:
                raise CheckerError(f"{path}, line {number}: {row!r} is not `{HEADER}`") from None
    return labels


def script_remark(path: Path, labels: Mapping[str, int]) -> str | None:
    """Return what the course's script would make of a table that was read as `labels`."""
    try:
        differing = len(read_csv(path).items() ^ labels.items())
    except CheckerError as error:
        return f"the testing system's script would stop here: {error}"
    remark = f"the testing system's script would read {differing} rows of {path} differently"
    return remark if differing else None


def gt_bytes(labels: Mapping[str, int | None]) -> bytes:
    """Return what a gt.csv or output.csv with these class ids holds, sorted by file name."""
    rows = (f"{name},{class_id}" for name, class_id in sorted(labels.items()))
    return "\n".join([HEADER, *rows, ""]).encode(errors="surrogateescape")


def save_csv(answer: Mapping[str, int], path: str | Path) -> None:
    """Write class ids by file name, rows sorted by file name. Raises UserError."""
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(gt_bytes(answer))


def labels_fingerprint(gt: Mapping[str, int]) -> str:
    """Return the SHA-256 of the rows of a gt.csv: which photos, labelled how."""
    return hashlib.sha256(gt_bytes(gt).partition(b"\n")[2]).hexdigest()


def photo_digests(paths: Iterable[Path]) -> str:
    """Return what identifies photos by their bytes, whatever their names: see `digest_of`."""
    return "".join(sorted(digest_of(path) for path in paths))


def digest_of(path: Path, digits: int = 8) -> str:
    """Return the first hex digits of the SHA-256 of a file of any size; all are 64."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()[:digits]


# ---- The photos to train on ----------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSet:
    """The labelled photos of a folder, and the names of their species where they are known."""

    images: Path  # the folder of the photos
    gt: dict[str, int]  # class ids by file name, as the files are called
    species: dict[int, str]  # by class id; empty without a species.csv
    missing: list[str]  # labels without a file; they are in `gt`
    unlabelled: list[str]  # files without a label


def inferred_species(class_ids: Iterable[int | None]) -> dict[int, str]:
    """Return names by class id if the photos' class ids are those of the course's sample, or {}.

    That has 50 photos of each id from 0 to 49; how its names were found: public_data/README.md.
    """
    names = tables.read_species(Path(__file__).with_name("species.csv"))
    return names if Counter(class_ids) == dict.fromkeys(names, 50) else {}


def load_training_set(tests_dir: Path, may_be_photo: Callable[[str], bool]) -> TrainingSet:
    """Read the training photos of the first test in a folder, with tolerance for people's tables.

    `may_be_photo` decides by the name which files count. What the course's script would read
    otherwise is noted on stderr. Raises UserError if there is no test or no usable table.
    """
    tests = find_tests(tests_dir)
    if not tests:
        raise UserError(
            f"no test in {tests_dir}, which is a folder NN_<name>_input: put photos there as "
            "public_data/README.md says"
        )
    table, images = tests[0].input / "train" / "gt.csv", tests[0].input / "train" / "images"
    labels = tables.read_labels(table)
    if remark := script_remark(table, labels):
        print(f"note: {remark}", file=sys.stderr)
    if not images.is_dir():
        raise UserError(f"no folder {images}: it holds the photos that {table} labels")
    files = (path for path in images.iterdir() if may_be_photo(path.name))
    there = sorted(path.name for path in files if path.is_file() or path.is_symlink())
    matched = tables.match_names(sorted(labels), there, str(table))
    gt = {matched.get(name, name): class_id for name, class_id in labels.items()}
    species = tables.read_species(tests_dir / "species.csv")
    if not species and (species := inferred_species(gt.values())):
        print("note: the names of the species are inferred, no species.csv", file=sys.stderr)
    missing, unlabelled = sorted(gt.keys() - set(there)), [n for n in there if n not in gt]
    return TrainingSet(images, gt, species, missing, unlabelled)
