"""Write the course layout of tests from the photos that you have: public_data/prepare.py."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import astuple, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import numpy as np

from birddata import doctor
from birddata.findings import FATAL, LEFT_OUT, Findings
from birddata.photos import as_jpeg, digest_of, problem, with_bar
from birddata.samples import find_sample, with_names
from birddata.sources import Entry, read_source
from birddata.writing import Photo, Sample, Test, new_tests, write_tests
from course.files import UserError
from solution import split_photos

ONLY_TEST = "00_test_img"  # what the course calls it

# ---- What is left out ----------------------------------------------------------------------------


def usable(sample: Sample, scratch: Path, found: Findings) -> Sample:
    """Leave out the photos that training would leave out; HEIC becomes JPEG in `scratch`.

    Raises UserError for a table that cannot be used, or if no test is left.
    """
    for code in FATAL:
        for item in found[code]:
            raise UserError(found.told(code, item, with_cure=True))
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
    for name, class_id, origin, path in map(astuple, photos):
        why = bad.get(path, "")
        jpeg = scratch / f"{secrets.token_hex(8)}.jpg"
        if why.startswith("HEIC") and as_jpeg(path, jpeg):
            found.add("converted", origin)
            name, path = str(Path(name).with_suffix(".jpg")), jpeg
        elif why:
            found.add("unreadable", origin, why)
            continue
        rows.append((name, class_id, Entry(origin, path)))
    return with_names(rows)


def name_left_out(found: Findings) -> int:
    """Name everything that is left out on stderr, each once; returns how many."""
    lines = [f"skipped: {found.told(code, item)}" for code in LEFT_OUT for item in found[code]]
    for code in ("repeated-row", "other-name", "script-differs"):
        if items := list(found[code]):
            more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
            lines.append(f"note: {found.told(code, items[0])}{more}")
    heic = sum(item.detail.startswith("HEIC") for item in found["unreadable"])
    if heic and not find_spec("pillow_heif"):
        lines.append(f"note: {heic} are HEIC; after `pip install pillow-heif` they become JPEG")
    if lines:
        print("\n".join(lines), file=sys.stderr)
    return sum(len(found[code]) for code in LEFT_OUT)


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
        if (kept := first.setdefault(digest_of(photo.path), photo)) is not photo:
            found.add("passed-over", photo.origin, f"the same bytes as {kept.origin}")
    train, held = stratified_split(list(first.values()), fraction, seed)
    seen = Counter(photo.class_id for photo in train)
    for class_id in sorted(seen.keys() - {photo.class_id for photo in held}):
        name = sample.name_of(class_id)
        print(f"not in the holdout: {name} (photos: {seen[class_id]})", file=sys.stderr)
    tests = [Test(ONLY_TEST, train, train), Test("01_holdout", train, held)]
    return Sample(sample.kind, tests, sample.species)


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


def prepare(source: Path, out: Path, holdout: float | None = None, seed: int = 0) -> None:
    """Do the whole job: read SOURCE, write its tests below `out`, say on stdout what was written.

    Raises UserError, or OSError from the file system; `out` is then as it was.
    """
    found = Findings()
    try:
        with new_tests(out) as scratch:
            print(f"Reading {source}", flush=True)
            files = read_source(source, scratch / "unpacked", found)
            sample = usable(find_sample(source, files, seed, found), scratch, found)
            if holdout is not None:
                sample = hold_out(source, sample, holdout, seed, found)
            written, links, copies = write_tests(sample, scratch, out)
    finally:
        skipped = name_left_out(found)
    report(sample, found, skipped)
    print(f"Wrote {', '.join(written)} in {out} ({links:,} hard links, {copies:,} copies)")


def report(sample: Sample, found: Findings, skipped: int) -> None:
    """Print a line a test, and how many files were skipped and why."""
    trained = {photo.class_id for test in sample.tests for photo in test.train}
    for test in sample.tests:
        names = {photo.name for photo in test.train}
        shared = sum(photo.name in names for photo in test.test)
        kinds = {0: "none of them trained on", len(test.test): "the same photos"}
        print(
            f"{test.stem:<12} {len({photo.class_id for photo in test.train})} species, "
            f"{len(test.train):,} photos to train on, {len(test.test):,} to classify "
            f"({kinds.get(shared, f'{shared:,} trained on')})"
        )
    if lost := [name for class_id, name in sample.species.items() if class_id not in trained]:
        print(f"species without a photo to train on: {', '.join(lost)}")
    if found["converted"]:
        print(f"HEIC photos that became JPEG: {len(found['converted']):,}")
    count = ", ".join(f"{len(found[code]):,} {code}" for code in LEFT_OUT if found[code])
    print(f"SOURCE was {sample.kind}; files skipped: {skipped:,}{f' ({count})' if count else ''}")


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
    add("--check", type=Path, metavar="DIR",
        help="write no tests, but say what is wrong with those in DIR (or with a folder of gt.csv "
        "and images, or class folders); the exit status is 4 with errors, 3 with warnings")
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
    """Run the command line, which writes to `out` unless told otherwise; the exit status."""
    options = parse_arguments(arguments, out)
    for stream in (sys.stdout, sys.stderr):  # a console or a pipe may not hold every name
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if options.check:
            status = doctor.run(options.check, options.json)
        else:
            prepare(options.source, options.out, options.holdout, options.seed)
            status = 0
        sys.stdout.flush()  # not at the exit, where nobody would catch what goes wrong
        return status
    except UserError as error:
        message, status = str(error), 1
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename or options.source or options.check
        message, status = f"{error.strerror or error} ({where})", 1
    except KeyboardInterrupt:
        message, status = "interrupted; no test is half-written", 130
    print(f"Error: {message}", file=sys.stderr)
    return status
