"""The built-in sample: drawn birds, for a clone that has no course data."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from birddata import drawn_sample
from course.files import UserError
from grader.report import say


@contextmanager
def graded_sample(folder: Path | None, model: Path) -> Iterator[tuple[Path, Path]]:
    """Draw a sample, and train on it with `folder`, from the backbone of `model`, which it keeps.

    Yields the folder of the tests and the model to grade, both gone after the block; the
    training's report stays. Without `folder` nothing is trained: the model is `model`.
    """
    say("No tests in public_data: this run draws its own sample of birds.")
    with tempfile.TemporaryDirectory(prefix="birds-sample-") as name:
        tests, trained = Path(name) / "tests", Path(name) / "birds_model.pt"
        drawn_sample.draw_sample(tests, seed=0)
        if folder is None:
            say("The submission is graded on it as it is: its model has not learnt these birds.")
            yield tests, model
            return
        report = folder / "report" / "sample"
        say("Training on it, from the backbone of the model at hand:")
        _train(folder, tests, model, trained, report)
        yield tests, trained
    say(f"The report of the training is kept: {report / 'report.html'}")


def _train(folder: Path, tests: Path, model: Path, trained: Path, report: Path) -> None:
    script = folder / "train_full.py"
    for path in (script, model):
        if not path.is_file():
            raise UserError(f"no {path}: the sample is trained with it; name a folder of tests")
    options = ["--init", str(model), "--out", str(trained), "--report", str(report)]
    # The supervisor ends the training when this process ends, however it does.
    supervisor = [sys.executable, str(Path(__file__).with_name("supervisor.py")), "0"]
    command = [*supervisor, sys.executable, str(script), str(tests), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=os.name == "posix")
    try:
        status = process.wait()
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    if status or not trained.is_file():
        raise UserError(f"{script} ended with status {status} and made no model")
