"""Write the course layout of tests from the photos that you have: public_data/prepare.py."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from birddata import DataError, doctor
from birddata.findings import FATAL, KINDS, LEFT_OUT, Findings, Item
from birddata.samples import digest_of, find_sample, problem
from birddata.sources import read_source
from birddata.writing import Photo, Sample, Test, new_tests, write_tests

ONLY_TEST = "00_test_img"  # what the course calls it

# ---- What is left out ----------------------------------------------------------------------------


def usable(sample: Sample, found: Findings) -> Sample:
    """Leave out the photos that training would leave out; raise DataError if no test is left."""
    for code in FATAL:
        for item in found[code]:
            raise DataError(f"{told(code, item)}; {cure_of(code)}")
    for item in found["no-true-labels"]:
        raise DataError(f"{item.files[0]} is missing; a test needs it, give the whole archive")
    bad: dict[Path, str | None] = {}
    tests = [
        replace(test, train=readable(test.train, bad, found), test=readable(test.test, bad, found))
        for test in sample.tests
    ]
    if not tests[0].stem:
        tests = [Test(ONLY_TEST, tests[0].train, tests[0].train)]
    for test in tests:
        if not test.train or not test.test:
            raise DataError(
                f"SOURCE holds no readable, labelled photo for test {test.stem}; the lines above "
                "name the reasons"
            )
    return replace(sample, tests=tests)


def readable(photos: list[Photo], bad: dict[Path, str | None], found: Findings) -> list[Photo]:
    """Return the photos that can be read; `bad` says what is known of a file already."""
    for photo in photos:
        if photo.path not in bad:
            bad[photo.path] = problem(photo.path)
        if bad[photo.path]:
            found.add("unreadable", photo.origin, bad[photo.path])
    return [photo for photo in photos if not bad[photo.path]]


def told(code: str, item: Item) -> str:
    """Say what a finding is about, and what is the matter."""
    kind = next((kind.what for kind in KINDS if kind.code == code), "")
    plain = code in ("passed-over", "not-an-image", "unreadable", "bad-table")
    what = item.detail if plain else f"{kind}{f' ({item.detail})' if item.detail else ''}"
    return f"{' = '.join(item.files)}: {what}"


def cure_of(code: str) -> str:
    """Return what mends a kind of finding."""
    return next(kind.cure for kind in KINDS if kind.code == code)


def name_left_out(found: Findings) -> int:
    """Name everything that is left out on stderr, each once; returns how many."""
    lines = [f"skipped: {told(code, item)}" for code in LEFT_OUT for item in found[code]]
    if lines:
        print("\n".join(lines), file=sys.stderr)
    for code in ("repeated-row", "other-name", "script-differs"):
        if items := list(found[code]):
            more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
            print(f"note: {told(code, items[0])}{more}", file=sys.stderr)
    return len(lines)


# ---- --holdout -----------------------------------------------------------------------------------


def hold_out(source: Path, sample: Sample, fraction: float, seed: int, found: Findings) -> Sample:
    """Split the training photos: test 00 keeps the larger part, test 01 asks for the rest.

    Both tests have the same training photos, so a network trained from either has seen none of
    the photos that test 01 asks for.
    """
    if len(sample.tests) > 1:
        raise DataError(
            f"{source} has {len(sample.tests)} tests; --holdout splits an archive of one test"
        )
    (only,) = sample.tests
    names = {photo.name for photo in only.train}
    for photo in only.test:
        if photo.name not in names:
            found.add(
                "passed-over", photo.origin, "not a training photo, and --holdout splits those"
            )
    train, held = stratified_split(without_copies(only.train, found), fraction, seed)
    seen = Counter(photo.class_id for photo in train)
    lone = seen.keys() - {photo.class_id for photo in held}
    for class_id in sorted(lone):
        name = sample.species.get(class_id, f"class {class_id}")
        print(f"not in the holdout: {name} (photos: {seen[class_id]})", file=sys.stderr)
    tests = [Test(ONLY_TEST, train, train), Test("01_holdout", train, held)]
    return Sample(sample.kind, tests, sample.species)


def without_copies(photos: list[Photo], found: Findings) -> list[Photo]:
    """Leave out byte-identical copies, or one might be trained on and the other held out."""
    first: dict[str, Photo] = {}
    for photo in photos:
        digest = digest_of(photo.path)
        if digest in first:
            found.add("passed-over", photo.origin, f"the same bytes as {first[digest].origin}")
        first.setdefault(digest, photo)
    return list(first.values())


def stratified_split(
    photos: list[Photo], fraction: float, seed: int
) -> tuple[list[Photo], list[Photo]]:
    """Split into (train, held out); a species with a single photo stays in training.

    At least as many photos as there are species with two or more are held out, which scikit-learn
    requires. Raises DataError when no species has two photos.
    """
    # Imported here because it takes a second that the other ways of calling do without.
    from sklearn.model_selection import train_test_split

    photos = sorted(photos, key=lambda photo: photo.name)
    count = Counter(photo.class_id for photo in photos)
    single = [photo for photo in photos if count[photo.class_id] == 1]
    several = [photo for photo in photos if count[photo.class_id] > 1]
    if not several:
        raise DataError("no species has two photos, so none can be held out; drop --holdout")
    labels = [photo.class_id for photo in several]
    size = max(int(fraction * len(several)), len(set(labels)))
    train, held = train_test_split(several, test_size=size, stratify=labels, random_state=seed)
    return single + train, held


# ---- Writing -------------------------------------------------------------------------------------


def prepare(source: Path, out: Path, holdout: float | None = None, seed: int = 0) -> None:
    """Do the whole job: read SOURCE, write its tests below `out`, say on stdout what was written.

    Raises DataError, or OSError from the file system; `out` is then as it was.
    """
    found = Findings()
    try:
        with new_tests(out) as scratch:
            print(f"Reading {source}", flush=True)
            files = read_source(source, scratch / "unpacked", found)
            sample = usable(find_sample(source, files, seed, found), found)
            if holdout is not None:
                sample = hold_out(source, sample, holdout, seed, found)
            written, links, copies = write_tests(sample, scratch, out)
    finally:
        skipped = name_left_out(found)
    report(sample, found, skipped)
    print(f"Wrote {', '.join(written)} in {out} ({links:,} hard links, {copies:,} copies)")


def report(sample: Sample, found: Findings, skipped: int) -> None:
    """Print a line a test, and how many files were skipped and why."""
    for test in sample.tests:
        trained = {photo.name for photo in test.train}
        shared = sum(photo.name in trained for photo in test.test)
        kinds = {0: "none of them trained on", len(test.test): "the same photos"}
        classes = len({photo.class_id for photo in test.train})
        print(
            f"{test.stem:<12} {classes} species, {len(test.train):,} photos to train on, "
            f"{len(test.test):,} to classify ({kinds.get(shared, f'{shared:,} trained on')})"
        )
    count = ", ".join(f"{len(found[code]):,} {code}" for code in LEFT_OUT if found[code])
    count = f" ({count})" if count else ""
    print(f"SOURCE was {sample.kind}; files skipped: {skipped:,}{count}")


# ---- Command line --------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"Error: {message}; see {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None, out: Path) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is wrong."""
    parser = Parser(
        prog="prepare.py",
        description="Write the course layout of tests (NN_<name>_input, NN_<name>_gt) and "
        "species.csv from the photos that you have. Nothing is ever overwritten.",
    )
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="the course's archive, class folders SOURCE/<species>/*.jpg (class ids are positions "
        "in sorted order), a table of files and labels beside photos, or CUB-200-2011 (the "
        "course's sample is made again: tests 00 and 01); each a folder, a zip or a tar",
    )
    parser.add_argument(
        "--holdout",
        type=holdout_fraction,
        metavar="F",
        help="keep this part of the photos (up to 0.5, e.g. 0.15) out of training, stratified: "
        "test 00 then holds only the others, to train on and to classify, and test 01_holdout "
        "asks for the photos kept out. Without it test 00 holds all photos",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=out,
        help="where to write (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="of a split (default: 0)"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="DIR",
        help="write no tests, but say what is wrong with those in DIR (or with a folder of gt.csv "
        "and images, or class folders); the exit status is 4 with errors, 3 with warnings",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="with --check: write all findings there; - is stdout"
    )
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
            return doctor.run(options.check, options.json)
        prepare(options.source, options.out, options.holdout, options.seed)
    except DataError as error:
        message, status = str(error), 1
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename or options.source or options.check
        message, status = f"{error.strerror or error} ({where})", 1
    except KeyboardInterrupt:
        message, status = "interrupted; no test is half-written", 130
    else:
        return 0
    print(f"Error: {message}", file=sys.stderr)
    return status
