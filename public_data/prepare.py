"""Write the course layout of tests from the photos that you have, or check them.

    python public_data/prepare.py SOURCE [--holdout 0.15] [--out DIR] [--seed N]
    python public_data/prepare.py --check DIR [--json FILE]

README.md beside this file says what SOURCE may be; the work is done in birddata/.
"""

import argparse
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # with `python -P` or -I it is not there

from birddata.writing import new_tests  # noqa: E402
from course.cli import natural, run  # noqa: E402
from course.files import check_writable  # noqa: E402


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        self.exit(2, f"Error: {message}; see {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is wrong."""
    parser = Parser(
        prog="prepare.py",
        description="Write the course layout of tests (NN_<name>_input, NN_<name>_gt) and "
        "species.csv from the photos that you have. Nothing is ever overwritten.",
    )
    add, seed = parser.add_argument, partial(natural, most=2**32 - 1)  # scikit-learn's
    # fmt: off
    add("source", type=Path, nargs="?", metavar="SOURCE",
        help="a folder, a zip or a tar of the course's archive, class folders (ids are positions "
        "in sorted order), a table of labels beside photos, or CUB-200-2011")
    add("--holdout", type=holdout_fraction, metavar="F",
        help="keep this part of the photos (up to 0.5, e.g. 0.15) out of training, stratified: "
        "test 00 then holds only the others, to train on and to classify, and test 01_holdout "
        "asks for the photos kept out. Without it test 00 holds all photos")
    add("--out", type=Path, metavar="DIR", default=HERE,
        help="where to write (default: %(default)s)")
    add("--seed", type=seed, default=0, metavar="N", help="of a split (default: 0)")
    add("--check", type=Path, metavar="DIR",
        help="write no tests, but report what is wrong with those in DIR (or with a folder of "
        "gt.csv and images, or class folders); the exit status is 4 with errors, 3 with warnings")
    add("--json", type=Path, metavar="FILE", help="with --check: write all findings there")
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; unwritable outputs are reported before torch is imported."""
    options = parse_arguments(arguments)
    if options.check:
        if options.json:
            check_writable(options.json)
        from birddata import dataset_check

        return dataset_check.run(options.check, options.json)
    with new_tests(options.out) as scratch:
        from birddata.prepare import prepare

        prepare(options.source, scratch, options.out, options.holdout, options.seed)
    return 0


if __name__ == "__main__":
    run(main, "Interrupted: no test is half-written.")
