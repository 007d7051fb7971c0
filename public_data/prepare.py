"""Write the course layout of tests from the photos that you have, or check them.

    python public_data/prepare.py SOURCE [--holdout 0.15] [--out DIR] [--seed N]
    python public_data/prepare.py --check DIR [--json FILE]

README.md beside this file says what SOURCE may be.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # with `python -P` or -I it is not there

from course import cli

ONLY_TEST = "00_test_img"  # what the course calls it


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Write tests in the course's layout, and species.csv, from the photos that you "
        "have. Nothing is ever overwritten."
    )
    add, seed = parser.add_argument, partial(cli.natural, most=2**32 - 1)  # scikit-learn's
    # fmt: off
    add("source", type=Path, nargs="?", metavar="SOURCE",
        help="a folder, a zip or a tar: the course's archive, class folders, photos with a table "
        "of labels, or CUB-200-2011")
    add("--holdout", type=float, metavar="F",
        help="keep this part of the photos (up to 0.5, e.g. 0.15) out of training, stratified: "
        "test 01_holdout asks for them, and test 00 holds only the others")
    add("--out", type=Path, metavar="DIR", default=HERE,
        help="where to write (default: %(default)s)")
    add("--seed", type=seed, default=0, metavar="N", help="of a split (default: 0)")
    add("--check", type=Path, metavar="DIR",
        help="write no tests, but report what is wrong with those in DIR (or with its gt.csv and "
        "images, or class folders); the exit status is 4 with errors, 3 with warnings")
    add("--json", type=Path, metavar="FILE", help="with --check: write all findings there")
    # fmt: on
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.check is None):
        parser.error("give either SOURCE or --check DIR")
    if options.json and options.check is None:
        parser.error("--json goes with --check")
    if options.holdout is not None and not 0 < options.holdout <= 0.5:
        parser.error("--holdout must be more than 0 and at most 0.5, such as 0.15")
    return options


if __name__ == "__main__":
    interrupted = "Interrupted: no test is half-written."
    cli.run_module("public_data.prepare", parse_arguments, interrupted)

import numpy as np

from birddata import dataset_check
from birddata.findings import FATAL, KINDS, LEFT_OUT, Findings, Item
from birddata.samples import find_sample, with_names
from birddata.sources import HEIC, problem, read_source, with_bar
from birddata.writing import Photo, Sample, Test, new_tests, write_tests
from course.cli import printable
from course.files import UserError
from course.layout import digest_of
from solution import split_photos


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: check a folder, or write the tests of SOURCE and say what they are."""
    options = parse_arguments(arguments)
    if options.check:
        return dataset_check.run(options.check, options.json)
    found = Findings()
    with new_tests(options.out) as scratch:
        print(f"Reading {options.source}", flush=True)
        try:
            files = read_source(options.source, scratch / "unpacked", found)
            sample = find_sample(options.source, files, options.seed, found)
            sample = usable(sample, scratch, found)
            if options.holdout is not None:
                sample = hold_out(sample, options.holdout, options.seed, found)
            names = write_tests(sample, scratch, options.out)
        finally:
            name_left_out(found)
    print(*summary(sample, found), f"Wrote {', '.join(names)} in {options.out}", sep="\n")
    return 0


def usable(sample: Sample, scratch: Path, found: Findings) -> Sample:
    """Leave out unreadable photos, make JPEG of HEIC. Raises UserError for a bad table or test."""
    for code in FATAL:
        for item in found[code]:
            raise UserError(f"{describe(code, item)}; {KINDS[code].remedy}")
    every = {photo.path: None for test in sample.tests for photo in (*test.train, *test.test)}
    read = {}
    for number, path in enumerate(with_bar(list(every))):
        why, jpeg = problem(path), scratch / f"{number}.jpg"
        read[path] = (jpeg, None) if why == HEIC and as_jpeg(path, jpeg) else (path, why)

    def readable(photos: list[Photo]) -> list[Photo]:
        kept = []
        for photo in photos:
            path, why = read[photo.path]
            if why:
                found.add("unreadable", photo.origin, why)
            else:
                jpeg = str(Path(photo.name).with_suffix(".jpg"))
                name = photo.name if path == photo.path else jpeg
                kept.append(replace(photo, name=name, path=path))
        return with_names(kept)

    tests = [replace(t, train=readable(t.train), test=readable(t.test)) for t in sample.tests]
    if not tests[0].stem:
        tests = [Test(ONLY_TEST, tests[0].train, tests[0].train)]
    for test in tests:
        if not test.train or not test.test:
            raise UserError(
                f"SOURCE holds no readable, labelled photo for test {test.stem}; the lines above "
                "name the reasons"
            )
    return replace(sample, tests=tests)


def as_jpeg(heic: Path, jpeg: Path) -> bool:
    """Save a HEIC photo as JPEG, upright; False without pillow-heif, or if it cannot read it."""
    try:
        from pillow_heif import read_heif  # optional; a submission may not import it

        read_heif(heic).to_pillow().convert("RGB").save(jpeg, "JPEG", quality=95)
    except Exception:  # ImportError, and whatever a damaged file makes the library raise
        return False
    return True


def hold_out(sample: Sample, fraction: float, seed: int, found: Findings) -> Sample:
    """Split the training photos: test 00 keeps the larger part, test 01 asks for the rest.

    Both have the same training photos. The split is that of training and validation. Byte-identical
    copies are left out, or one might be trained on and the other held out.
    """
    if len(sample.tests) > 1:
        raise UserError("--holdout splits one test, and SOURCE has several; drop --holdout")
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
    photos = sorted(first.values(), key=lambda photo: photo.name)
    _, labels = np.unique([photo.class_id for photo in photos], return_inverse=True)
    kept_in, kept_out = split_photos(labels, fraction, seed)
    if kept_out is None:
        raise UserError("no species has two photos, so none can be held out; drop --holdout")
    train, held = ([photos[index] for index in part] for part in (kept_in, kept_out))
    tests = [Test(ONLY_TEST, train, train), Test("01_holdout", train, held)]
    return replace(sample, tests=tests)


def describe(code: str, item: Item) -> str:
    """Return a line on a finding about one file, and what is the matter with it."""
    return printable(f"{item.files[0]}: {item.detail or KINDS[code].what}")


def name_left_out(found: Findings) -> None:
    """Name everything that is left out on stderr, each once."""
    skipped = [describe(code, item) for code in LEFT_OUT for item in found[code]]
    lines = [f"skipped: {line}" for line in skipped]
    for code in ("guessed-name", "joined-name", "repeated-row", "other-name", "script-differs"):
        if items := list(found[code]):
            more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
            lines.append(f"note: {describe(code, items[0])}{more}")
    if lines:
        print("\n".join(lines), file=sys.stderr)


def summary(sample: Sample, found: Findings) -> list[str]:
    """Return a line a test, and how many files were skipped and why."""
    lines = [
        f"{test.stem:<12} {len({photo.class_id for photo in test.train})} species, "
        f"{len(test.train):,} photos to train on, {len(test.test):,} to classify"
        for test in sample.tests
    ]
    if sample.species_source:
        lines.append(f"names of the species: {sample.species_source}, see public_data/README.md")
    why = [f"{len(found[code]):,} {code}" for code in LEFT_OUT if found[code]]
    skipped = f"{sum(len(found[code]) for code in LEFT_OUT):,}"
    skipped += f" ({', '.join(why)})" if why else ""
    return [*lines, f"SOURCE was {sample.kind}; files skipped: {skipped}"]
