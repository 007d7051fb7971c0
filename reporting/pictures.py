"""Make the pictures that README and docs show of a training, in docs/pictures.

    python -m reporting.pictures REPORT_DIR

confusion.png comes from the history.json in REPORT_DIR, which `python train_full.py` writes.
two_stages.png is what both stages see of a bird of the built-in drawn sample, by a network that
is trained on that sample here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import predict
import train_full
from birddata.drawn_sample import draw_sample
from course.cli import run
from course.files import atomic_write
from course.layout import find_tests
from reporting import charts, report
from solution import list_photos

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the pictures that README and docs show.")
    parser.add_argument("report_dir", type=Path, metavar="REPORT_DIR", help="with history.json")
    parser.add_argument("--out", type=Path, default=PICTURES, help="default: docs/pictures")
    options = parser.parse_args(arguments)
    numbers = report.read_history(options.report_dir)
    names = numbers.names()
    figure = charts.confusion(report.Outcome(numbers, names).matrix, names)
    with atomic_write(options.out / "confusion.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
    with tempfile.TemporaryDirectory() as folder:
        sample, model = Path(folder, "sample"), Path(folder, "model.pt")
        draw_sample(sample)
        train_full.main([str(sample), "--out", str(model)])
        photo = list_photos(find_tests(sample)[-1].input / "test" / "images")[0]
        out = options.out / "two_stages.png"
        predict.main([str(photo), "--model", str(model), "--show", str(out)])


if __name__ == "__main__":
    run(main)
