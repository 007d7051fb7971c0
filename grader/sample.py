"""The built-in sample: drawn birds, for a clone that has no course data."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from birddata import sketchbook
from course.files import UserError
from grader.report import say
from grader.strays import ends_with_this_process


@contextmanager
def trained_sample(folder: Path, model: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Draw the sample and train on it, starting from the backbone of `model`, which stays as it is.

    Gives the folder of the tests and the new model's file, both gone after the block, and the
    training's report, which stays.
    """
    report = folder / "report" / "sample"
    with tempfile.TemporaryDirectory(prefix="birds-sample-") as name:
        tests, trained = Path(name) / "tests", Path(name) / "birds_model.pt"
        sketchbook.draw_sample(tests, seed=0)
        say("Training on it, from the backbone of the model at hand:")
        _train(folder, tests, model, trained, report)
        yield tests, trained, report / "report.html"


def _train(folder: Path, tests: Path, model: Path, trained: Path, report: Path) -> None:
    script = folder / "train_full.py"
    for path in (script, model):
        if not path.is_file():
            raise UserError(f"no {path}: the sample is trained with it; name a folder of tests")
    options = ["--init", str(model), "--out", str(trained), "--report", str(report)]
    command = [sys.executable, str(script), str(tests), *options]
    with subprocess.Popen(command) as process, ends_with_this_process(process.pid):
        try:
            status = process.wait()
        finally:
            process.kill()  # after an interrupt it would go on
    if status or not trained.is_file():
        raise UserError(f"{script} ended with status {status} and made no model")
