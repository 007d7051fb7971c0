"""The testing system's check: the folder of a run, its answer against the truth, the grade."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course.files import UserError
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text, grade_results


def check_answer(answer: Mapping[str, int], truth: Mapping[str, int]) -> tuple[int, int]:
    """How many answers are right, of how many rows of the truth. Other answers do not count."""
    missing = sorted(truth.keys() - answer.keys())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckerError(f"the answer lacks {missing[0]!r}{more}")
    if not truth:
        raise CheckerError("the true labels hold no row")
    return sum(answer[name] == class_id for name, class_id in truth.items()), len(truth)


def check_test(data_dir: Path) -> str:
    """The status of a finished run, from DATA_DIR/output/output.csv and DATA_DIR/gt/gt.csv."""
    truth = read_csv(data_dir / "gt" / "gt.csv")
    correct, total = check_answer(read_csv(data_dir / "output" / "output.csv"), truth)
    return f"Ok, accuracy {accuracy_text(correct, total)}"


def prepare_check_folder(test: TestFolder) -> Path:
    """Make NN_name_check without an old answer in it, and return its folder for the output."""
    output = test.check / "output"
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "output.csv").unlink(missing_ok=True)
        shutil.rmtree(test.check / "gt", ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{test.check}, which the run makes, is in the way ({error.strerror}): move it away"
        ) from None
    return output


def copy_truth(test: TestFolder) -> None:
    """Copy the true labels into the check folder, where the check looks for them."""
    if not test.gt.is_dir():
        raise CheckerError(f"no folder {test.gt}")
    shutil.copytree(test.gt, test.check / "gt", dirs_exist_ok=True)


def grade(data_dir: Path) -> dict[str, Any]:
    """The grade, from DATA_DIR/results.json."""
    path = data_dir / "results.json"
    try:
        return grade_results(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"no file {path}: run the tests first") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): move it away") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is not a list of results: run the tests again") from None
