"""Write the course layout of tests from the photos that you have: public_data/prepare.py."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from birddata.findings import FATAL, LEFT_OUT, Findings
from birddata.samples import find_sample, with_names
from birddata.sources import HEIC, problem, read_source, with_bar
from birddata.writing import Photo, Sample, Test, build_tests, move_into_place
from course.files import UserError
from course.layout import digest_of
from solution import split_photos

ONLY_TEST = "00_test_img"  # what the course calls it


def prepare(source: Path, scratch: Path, out: Path, holdout: float | None, seed: int) -> None:
    """Do the whole job: read SOURCE, write its tests below `out`, print what was written.

    They are built in `scratch`, a folder in `out`.
    """
    found = Findings()
    print(f"Reading {source}", flush=True)
    try:
        files = read_source(source, scratch / "unpacked", found)
        sample = usable(find_sample(source, files, seed, found), scratch, found)
        if holdout is not None:
            sample = hold_out(sample, holdout, seed, found)
        build_tests(sample, scratch / "built", out)
    finally:
        name_left_out(found)

    def report(names: str) -> None:
        print(*summary(sample, found), f"Wrote {names} in {out}", sep="\n")

    move_into_place(scratch / "built", out, report)


def usable(sample: Sample, scratch: Path, found: Findings) -> Sample:
    """Leave out the photos that training would leave out; HEIC becomes JPEG in `scratch`.

    Raises UserError for a table that cannot be used, or if no test is left.
    """
    for code in FATAL:
        for item in found[code]:
            raise UserError(found.format_finding(code, item, with_remedy=True))
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

    Both tests have the same training photos, so a network trained from either has seen none of
    the photos that test 01 asks for. The split is the one by which training splits off its
    validation photos, so a species with a single photo stays in training. Byte-identical copies
    are left out, or one might be trained on and the other held out.
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


# ---- Messages ------------------------------------------------------------------------------------


def name_left_out(found: Findings) -> None:
    """Name everything that is left out on stderr, each once."""
    skipped = [found.format_finding(code, item) for code in LEFT_OUT for item in found[code]]
    lines = [f"skipped: {line}" for line in skipped]
    for code in ("guessed-name", "joined-name", "repeated-row", "other-name", "script-differs"):
        if items := list(found[code]):
            more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
            lines.append(f"note: {found.format_finding(code, items[0])}{more}")
    if lines:
        print("\n".join(lines), file=sys.stderr)


def summary(sample: Sample, found: Findings) -> list[str]:
    """Return a line a test, and how many files were skipped and why."""
    lines = [
        f"{test.stem:<12} {len({photo.class_id for photo in test.train})} species, "
        f"{len(test.train):,} photos to train on, {len(test.test):,} to classify"
        for test in sample.tests
    ]
    trained = {photo.class_id for test in sample.tests for photo in test.train}
    if lost := [name for class_id, name in sample.species.items() if class_id not in trained]:
        lines.append(f"species without a photo to train on: {', '.join(lost)}")
    if sample.species_source:
        lines.append(f"names of the species: {sample.species_source}, see public_data/README.md")
    why = [f"{len(found[code]):,} {code}" for code in LEFT_OUT if found[code]]
    skipped = f"{sum(len(found[code]) for code in LEFT_OUT):,}"
    skipped += f" ({', '.join(why)})" if why else ""
    return [*lines, f"SOURCE was {sample.kind}; files skipped: {skipped}"]
