"""Make the pictures that README and docs show of a training, in docs/pictures.

    python -m reporting.pictures REPORT_DIR

confusion.png comes from the history.json in REPORT_DIR, which `python train_full.py` writes.
two_stages.png is what both stages see of a bird of the built-in drawn sample, by a network that
is trained on that sample here.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import train_full
from birddata.drawn_sample import draw_sample
from course.cli import run
from course.files import atomic_write
from course.layout import find_tests
from reporting import charts, drawing, history, report
from solution import Classifier, list_photos, load_classifier, read_pixels

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def save(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file, in 256 colours: a third of the size. Raises UserError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    with Image.open(buffer) as image, atomic_write(file) as temporary:
        image.convert("RGB").quantize(256).save(temporary, "png", optimize=True)
    print(f"Wrote {file}")


def two_stages(classifier: Classifier, photos: Sequence[Path]) -> Figure:
    """Return what both stages see of that photo whose prediction the second changes most."""
    predictor = classifier.predictor

    def change(photo: Path) -> float:
        seen = predictor(read_pixels(photo, predictor.preprocessing))
        return torch.dist(seen.view_logits[0], seen.logits).item()

    pixels = read_pixels(max(photos, key=change), predictor.preprocessing)
    return drawing.stages_figure(classifier, pixels, predictor(pixels))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the pictures that README and docs show.")
    parser.add_argument("report_dir", type=Path, metavar="REPORT_DIR", help="with history.json")
    parser.add_argument("--out", type=Path, default=PICTURES, help="default: docs/pictures")
    options = parser.parse_args(arguments)
    numbers = history.read_history(options.report_dir)
    names = numbers.names()
    matrix = charts.confusion(report.Outcome(numbers, names).matrix, names)
    save(matrix, options.out / "confusion.png")
    with tempfile.TemporaryDirectory() as folder:
        sample, model = Path(folder, "sample"), Path(folder, "model.pt")
        draw_sample(sample)
        train_full.main([str(sample), "--out", str(model)])
        photos = list_photos(find_tests(sample)[-1].input / "test" / "images")
        save(two_stages(load_classifier(model), photos), options.out / "two_stages.png")


if __name__ == "__main__":
    run(main)
