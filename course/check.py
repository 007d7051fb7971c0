"""The testing system's check: the folder of a run, its answer against the truth, the grade."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course.files import UserError, check_writable, name_errors
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text, grade_results


def check_answer(answer: Mapping[str, int], truth: Mapping[str, int]) -> tuple[int, int]:
    """Return how many answers are right, of how many rows of the truth.

    Other answers do not count. Raises CheckerError, which shows the names that are there.
    """
    missing = sorted(truth.keys() - answer.keys())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        others = sorted(answer.keys() - truth.keys())
        there = f"; it has {others[0]!r:.80}" if others else ""
        raise CheckerError(f"the answer lacks {missing[0]!r}{more}{there}")
    if not truth:
        raise CheckerError("the true labels hold no row")
    return sum(answer[name] == class_id for name, class_id in truth.items()), len(truth)


def read_answer(data_dir: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return answer and truth, from DATA_DIR/output/output.csv and DATA_DIR/gt/gt.csv."""
    truth = read_csv(data_dir / "gt" / "gt.csv")
    return read_csv(data_dir / "output" / "output.csv", empty_names=True), truth


def check_test(data_dir: Path) -> str:
    """Return the status of a run whose answer and truth are in DATA_DIR."""
    return ok_status(*check_answer(*read_answer(data_dir)))


def ok_status(correct: int, total: int) -> str:
    """Return the testing system's text for an answer that could be checked."""
    return f"Ok, accuracy {accuracy_text(correct, total)}"


def prepare_check_folder(test: TestFolder) -> Path:
    """Remove an old answer and its truth, and return the folder that the run's answer goes to.

    Raises UserError if it cannot be written there.
    """
    answer = test.check / "output" / "output.csv"
    check_writable(answer)
    answer.unlink(missing_ok=True)
    shutil.rmtree(test.check / "gt", ignore_errors=True)
    return answer.parent


def fault_of(test: TestFolder) -> str | None:
    """Return what is wrong with the files of a test, for which no submission is to blame."""
    for path, part in ((test.input / "train" / "gt.csv", "train"), (test.gt / "gt.csv", "test")):
        photos = test.input / part / "images"
        try:
            labels = read_csv(path)
        except CheckerError as error:
            return str(error)
        if not labels:
            return f"{path} holds no row"
        if missing := next((name for name in labels if not (photos / name).is_file()), None):
            return f"{path} names {missing}, which is no file in {photos}"
    return None


def copy_truth(test: TestFolder) -> None:
    """Copy the true labels into the check folder, where the check reads them."""
    try:
        shutil.copytree(test.gt, test.check / "gt", dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise CheckerError(f"{test.gt} cannot be copied: {error}") from None


def grade(data_dir: Path) -> dict[str, Any]:
    """Return the grade, from DATA_DIR/results.json."""
    path = data_dir / "results.json"
    with name_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        return grade_results(json.loads(text))
    except (ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is not a list of results: run the tests again") from None
