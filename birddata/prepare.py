"""Write the course layout of tests from the photos that you have: public_data/prepare.py."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import numpy as np

from birddata import dataset_check
from birddata.findings import FATAL, LEFT_OUT, Findings
from birddata.photos import HEIC, as_jpeg, problem, with_bar
from birddata.samples import find_sample, with_ids, with_names
from birddata.sources import Entry, read_source
from birddata.writing import Photo, Sample, Test, build_tests, move_into_place, new_tests
from course import tables
from course.files import UserError
from course.layout import digest_of
from solution import split_photos

ONLY_TEST = "00_test_img"  # what the course calls it

# ---- What is left out ----------------------------------------------------------------------------


def usable(sample: Sample, scratch: Path, found: Findings) -> Sample:
    """Leave out the photos that training would leave out; HEIC becomes JPEG in `scratch`.

    Raises UserError for a table that cannot be used, or if no test is left.
    """
    for code in FATAL:
        for item in found[code]:
            raise UserError(found.format_finding(code, item, with_remedy=True))
    every = {photo.path: None for test in sample.tests for photo in (*test.train, *test.test)}
    bad = {path: why for path in with_bar(list(every)) if (why := problem(path))}
    keep = partial(readable, bad=bad, scratch=scratch, found=found)
    tests = [replace(test, train=keep(test.train), test=keep(test.test)) for test in sample.tests]
    if not tests[0].stem:
        tests = [Test(ONLY_TEST, tests[0].train, tests[0].train)]
    for test in tests:
        if not test.train or not test.test:
            raise UserError(
                f"SOURCE holds no readable, labelled photo for test {test.stem}; the lines above "
                "name the reasons"
            )
    return replace(sample, tests=tests)


def readable(
    photos: list[Photo], bad: dict[Path, str], scratch: Path, found: Findings
) -> list[Photo]:
    """Return the photos that can be read, those that can be made so among them."""
    rows = []
    for photo in photos:
        why, jpeg = bad.get(photo.path, ""), scratch / f"{secrets.token_hex(8)}.jpg"
        if not why:
            rows.append((photo.name, photo.class_id, Entry(photo.origin, photo.path)))
        elif why == HEIC and as_jpeg(photo.path, jpeg):
            found.add("converted", photo.origin)
            name = str(Path(photo.name).with_suffix(".jpg"))
            rows.append((name, photo.class_id, Entry(photo.origin, jpeg)))
        else:
            found.add("unreadable", photo.origin, why)
    return with_names(rows)


def name_left_out(found: Findings) -> None:
    """Name everything that is left out on stderr, each once."""
    skipped = [found.format_finding(code, item) for code in LEFT_OUT for item in found[code]]
    lines = [f"skipped: {line}" for line in skipped]
    for code in ("repeated-row", "other-name", "script-differs"):
        if items := list(found[code]):
            more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
            lines.append(f"note: {found.format_finding(code, items[0])}{more}")
    heic = sum(item.detail == HEIC for item in found["unreadable"])
    if heic and not find_spec("pillow_heif"):
        lines.append(f"note: {heic} are HEIC; after `pip install pillow-heif` they become JPEG")
    if lines:
        print("\n".join(lines), file=sys.stderr)


# ---- --holdout -----------------------------------------------------------------------------------


def hold_out(source: Path, sample: Sample, fraction: float, seed: int, found: Findings) -> Sample:
    """Split the training photos: test 00 keeps the larger part, test 01 asks for the rest.

    Both tests have the same training photos, so a network trained from either has seen none of
    the photos that test 01 asks for. Byte-identical copies are left out, or one might be trained
    on and the other held out.
    """
    if len(sample.tests) > 1:
        raise UserError(
            f"{source} has {len(sample.tests)} tests; --holdout splits an archive of one test"
        )
    (only,) = sample.tests
    names = {photo.name for photo in only.train}
    for photo in only.test:
        if photo.name not in names:
            why = "not a training photo, and --holdout splits those"
            found.add("passed-over", photo.origin, why)
    first: dict[str, Photo] = {}
    for photo in only.train:
        if (kept := first.setdefault(digest_of(photo.path, 64), photo)) is not photo:
            found.add("passed-over", photo.origin, f"the same bytes as {kept.origin}")
    train, held = stratified_split(list(first.values()), fraction, seed)
    count = Counter(photo.known_id for photo in train)
    for class_id in sorted(count.keys() - {photo.known_id for photo in held}):
        name = sample.name_of(class_id)
        print(f"not in the holdout: {name} (photos: {count[class_id]})", file=sys.stderr)
    tests = [Test(ONLY_TEST, train, train), Test("01_holdout", train, held)]
    return replace(sample, tests=tests)


def stratified_split(
    photos: list[Photo], fraction: float, seed: int
) -> tuple[list[Photo], list[Photo]]:
    """Split into (train, held out), as training splits off its validation photos.

    A species with a single photo stays in training. Raises UserError when no species has two.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    _, labels = np.unique([photo.class_id for photo in photos], return_inverse=True)
    train, held = split_photos(labels, fraction, seed)
    if held is None:
        raise UserError("no species has two photos, so none can be held out; drop --holdout")
    return [photos[index] for index in train], [photos[index] for index in held]


# ---- Writing -------------------------------------------------------------------------------------


def prepare(
    source: Path, out: Path, holdout: float | None = None, seed: int = 0, ids: Path | None = None
) -> None:
    """Do the whole job: read SOURCE, write its tests below `out`, print what was written.

    `ids` is a species.csv whose class ids are kept. After an error or a signal `out` is as it was.
    """
    found = Findings()
    known = tables.read_species(ids) if ids else {}
    if ids and not known:
        raise UserError(f"{ids} names no species; give the species.csv of an earlier sample")
    with new_tests(out) as scratch:
        print(f"Reading {source}", flush=True)
        try:
            files = read_source(source, scratch / "unpacked", found)
            sample = find_sample(source, files, seed, found)
            if known:
                sample = with_ids(sample, known)
            sample = usable(sample, scratch, found)
            if holdout is not None:
                sample = hold_out(source, sample, holdout, seed, found)
            made = build_tests(sample, scratch / "built", out)
        finally:
            name_left_out(found)

        def report(names: str) -> None:
            print(*summary(sample, found), f"Wrote {names} in {out} ({made})", sep="\n")

        move_into_place(scratch / "built", out, report)


def summary(sample: Sample, found: Findings) -> list[str]:
    """Return a line a test, and how many files were skipped and why."""
    lines = []
    trained = {photo.class_id for test in sample.tests for photo in test.train}
    for test in sample.tests:
        names = {photo.name for photo in test.train}
        shared = sum(photo.name in names for photo in test.test)
        kinds = {0: "none of them trained on", len(test.test): "the same photos"}
        lines.append(
            f"{test.stem:<12} {len({photo.class_id for photo in test.train})} species, "
            f"{len(test.train):,} photos to train on, {len(test.test):,} to classify "
            f"({kinds.get(shared, f'{shared:,} trained on')})"
        )
    if lost := [name for class_id, name in sample.species.items() if class_id not in trained]:
        lines.append(f"species without a photo to train on: {', '.join(lost)}")
    if sample.species_source:
        lines.append(f"names of the species: {sample.species_source}, see public_data/README.md")
    if found["converted"]:
        lines.append(f"HEIC photos that became JPEG: {len(found['converted']):,}")
    count = {code: len(found[code]) for code in LEFT_OUT if found[code]}
    why = ", ".join(f"{number:,} {code}" for code, number in count.items())
    skipped = f"{sum(count.values()):,}{f' ({why})' if why else ''}"
    return [*lines, f"SOURCE was {sample.kind}; files skipped: {skipped}"]


# ---- Command line --------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"Error: {message}; see {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None, out: Path) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is wrong."""
    parser = Parser(
        prog="prepare.py",
        description="Write the course layout of tests (NN_<name>_input, NN_<name>_gt) and "
        "species.csv from the photos that you have. Nothing is ever overwritten.",
    )
    add = parser.add_argument
    # fmt: off
    add("source", type=Path, nargs="?", metavar="SOURCE",
        help="a folder, a zip or a tar of the course's archive, class folders (ids are positions "
        "in sorted order), a table of labels beside photos, or CUB-200-2011")
    add("--holdout", type=holdout_fraction, metavar="F",
        help="keep this part of the photos (up to 0.5, e.g. 0.15) out of training, stratified: "
        "test 00 then holds only the others, to train on and to classify, and test 01_holdout "
        "asks for the photos kept out. Without it test 00 holds all photos")
    add("--out", type=Path, metavar="DIR", default=out,
        help="where to write (default: %(default)s)")
    add("--seed", type=seed_number, default=0, metavar="N", help="of a split (default: 0)")
    add("--ids", type=Path, metavar="SPECIES.csv",
        help="keep the class ids of the species named there; others get the ids after them")
    add("--check", type=Path, metavar="DIR",
        help="write no tests, but report what is wrong with those in DIR (or with a folder of "
        "gt.csv and images, or class folders); the exit status is 4 with errors, 3 with warnings")
    add("--json", metavar="FILE",
        help="with --check: write all findings there; - is stdout")
    # fmt: on
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.check is None):
        parser.error("give either SOURCE or --check DIR")
    if options.json and options.check is None:
        parser.error("--json goes with --check")
    return options


def holdout_fraction(text: str) -> float:
    """Parse --holdout: more than 0 and at most 0.5, so that every species keeps training photos."""
    with suppress(ValueError):
        if 0 < float(text) <= 0.5:
            return float(text)
    raise argparse.ArgumentTypeError(
        f"must be more than 0 and at most 0.5, such as 0.15, not {text!r}"
    )


def seed_number(text: str) -> int:
    """Parse --seed: what scikit-learn accepts."""
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 4294967295, not {text!r}")


def main(arguments: list[str] | None = None, out: Path = Path("public_data")) -> int:
    """Run the command line, which writes to `out` by default; return the exit status."""
    options = parse_arguments(arguments, out)
    if options.check:
        return dataset_check.run(options.check, options.json)
    prepare(options.source, options.out, options.holdout, options.seed, options.ids)
    return 0
