"""The testing system's files: folders of tests, csv files, results.json, the check."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birddata import layout
from grader.marks import accuracy_text, grade_results


class GraderError(Exception):
    """Something the user can mend; the message names cause, file and cure in one line."""


class CheckerError(Exception):
    """The answer cannot be compared with the true labels."""


@dataclass(frozen=True)
class TestFolder:
    """The folders of one test, such as 00_test_img_input, 00_test_img_gt, 00_test_img_check."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    input: Path
    check_base: Path | None = None  # where the check folder goes; None: beside the input

    @property
    def number(self) -> str:
        """The two digits that tests are told apart by."""
        return self.input.name[:2]

    @property
    def gt(self) -> Path:
        """The folder with the true labels of the test photos."""
        return self.input.with_name(self.input.name[: -len("input")] + "gt")

    @property
    def check(self) -> Path:
        """The folder that the run makes."""
        base = self.check_base or self.input.parent
        return base / (self.input.name[: -len("input")] + "check")


def find_tests(tests_dir: Path) -> list[TestFolder]:
    """The tests in a folder, in order; empty if there are none, or no such folder."""
    return [TestFolder(path) for path in layout.find_inputs(tests_dir)]


def read_csv(path: str | Path) -> dict[str, int]:
    """Class id by file name, as strictly as the testing system's script reads its csv files.

    It knows no quotes, and lets Python's `int` decide what a number is.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise CheckerError(f"no file {path}") from None
    except OSError as error:
        raise CheckerError(f"{path} cannot be read: {error}") from None
    header, *rows = text.split("\n")
    if header != layout.HEADER:
        raise CheckerError(f"{path} begins with {header!r}: its header must be {layout.HEADER!r}")
    labels = {}
    for number, row in enumerate(rows, start=2):
        if row:
            name, _, class_id = row.rpartition(",")
            try:
                labels[name] = int(class_id if name else "")
            except ValueError:
                raise CheckerError(
                    f"{path}, line {number}: {row!r} is not `{layout.HEADER}`"
                ) from None
    return labels


def script_remark(path: Path, labels: Mapping[str, int]) -> str | None:
    """What the testing system's script would make of a table that was read as `labels`."""
    try:
        differing = read_csv(path).items() ^ labels.items()
    except CheckerError as error:
        return f"the testing system's script would stop here: {error}"
    if not differing:
        return None
    return f"the testing system's script would read {len(differing)} rows of {path} differently"


def save_csv(answer: Mapping[str, int], path: str | Path) -> None:
    """Write class ids by file name, rows sorted by file name."""
    with written(Path(path)) as temporary:
        temporary.write_bytes(layout.gt_bytes(answer))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is either whole or not there."""
    with written(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def check_writable(path: Path) -> None:
    """Raise GraderError before the work, not after it, if `path` cannot be written."""
    _new_file_beside(path).unlink()


def _new_file_beside(path: Path) -> Path:
    if path.is_dir():
        raise GraderError(f"{path} is a folder: name a file to write, or move it away")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise GraderError(f"{path} cannot be written: {error.strerror}") from None
    os.close(handle)
    return Path(name)


def remove_left_over(path: Path) -> None:
    """Remove what killed processes left of their writing of `path`: see `written`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which becomes `path` at the end of the block."""
    temporary = _new_file_beside(path)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the result from everybody else
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        raise GraderError(
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
        raise GraderError(f"no file {path}: run the tests first") from None
    except OSError as error:
        raise GraderError(f"{path} cannot be read ({error.strerror}): move it away") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise GraderError(f"{path} is not a list of results: run the tests again") from None
