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
from typing import TYPE_CHECKING

from course.cli import run
from course.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from solution import Classifier

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def save(figure: Figure, name: str, folder: Path) -> None:
    """Write a figure as a PNG file, in 256 colours: a third of the size. Raises UserError."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    with Image.open(buffer) as image, atomic_write(folder / name) as temporary:
        image.convert("RGB").quantize(256).save(temporary, "png", optimize=True)
    print(f"Wrote {folder / name}")


def confusion(report_dir: Path) -> Figure:
    """Return the confusion matrix of a training. Raises UserError without its history."""
    from reporting import charts, history, report

    read = history.read_history(report_dir)
    return charts.confusion(report.Outcome(read).matrix, read.names())


def train_on_sample(sample: Path) -> Classifier:
    """Return a network trained, as `train_full.py` does, on a sample in the course's layout."""
    import solution
    from course.layout import load_training_set
    from reporting.calibration import calibrate

    data, settings = load_training_set(sample), solution.Settings()
    network = solution.train_classifier(data.gt, data.images)
    network.class_names = [data.species[class_id] for class_id in network.class_ids]
    network.metadata |= calibrate(network.validation, settings.whole_share)
    return solution.Classifier(solution.to_checkpoint(network, settings))


def two_stages(classifier: Classifier, sample: Path) -> Figure:
    """Return what both stages see of that test photo whose species gains most by the second."""
    from course.layout import find_tests, read_csv
    from reporting.drawing import stages_figure
    from solution import Prediction, read_pixels

    test, predictor = find_tests(sample)[-1], classifier.predictor
    images, gt = test.input / "test" / "images", read_csv(test.gt / "gt.csv")

    def gain(prediction: Prediction, name: str) -> float:
        label = classifier.class_ids.index(gt[name])
        logits = (prediction.view_logits[0], prediction.logits)
        before, now = (classifier.probabilities(each)[label].item() for each in logits)
        return now - before

    gains = {
        name: gain(prediction, name)
        for name, prediction in zip(gt, predictor.predict([images / n for n in gt]), strict=True)
        if isinstance(prediction, Prediction)
    }
    pixels = read_pixels(images / max(gains, key=gains.__getitem__), predictor.preprocessing)
    return stages_figure(classifier, pixels, predictor(pixels))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the pictures that README and docs show.")
    parser.add_argument("report_dir", type=Path, metavar="REPORT_DIR", help="with history.json")
    parser.add_argument("--out", type=Path, default=PICTURES, help="default: docs/pictures")
    options = parser.parse_args(arguments)
    from birddata.drawn_sample import draw_sample

    save(confusion(options.report_dir), "confusion.png", options.out)
    with tempfile.TemporaryDirectory() as folder:
        draw_sample(Path(folder))
        figure = two_stages(train_on_sample(Path(folder)), Path(folder))
    save(figure, "two_stages.png", options.out)


if __name__ == "__main__":
    run(main)
