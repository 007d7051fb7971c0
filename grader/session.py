"""All tests of a folder: run the submission, check its answer, keep results.json.

The testing system's own check, of a folder with an answer and the truth, is `check_test`.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.files import UserError, check_writable, name_errors, write_json
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text, grade_results
from grader.outcome import CHECK, Failure, Outcome
from grader.process import run
from grader.staging import Submission

RUNTIME_ERROR, CHECKER_ERROR = "Runtime error", "Checker error"


@dataclass
class TestResult:
    """What became of one test; answer and truth are there if they could be read."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    test: TestFolder
    outcome: Outcome
    answer: dict[str, int] = field(default_factory=dict)
    truth: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the submission ran within the rules, and its answer could be checked."""
        return not self.outcome.problem

    @property
    def score(self) -> tuple[int, int]:
        """How many answers are right, of how many photos with a true label."""
        return check_answer(self.answer, self.truth)

    @property
    def status(self) -> str:
        """The testing system's text for it."""
        if problem := self.outcome.problem:
            return CHECKER_ERROR if problem.phase == CHECK else RUNTIME_ERROR
        return f"Ok, accuracy {accuracy_text(*self.score)}"

    def entry(self) -> dict[str, Any]:
        """Its entry in results.json; a failed test has no time."""
        entry: dict[str, Any] = {"time": self.outcome.seconds} if self.ok else {}
        return entry | {"status": self.status}

    def wrong(self) -> list[tuple[str, int, int]]:
        """Return the misclassified photos: name, true class, answer."""
        rows = ((name, true, self.answer[name]) for name, true in self.truth.items())
        return [row for row in rows if row[1] != row[2]]


def grade_tests(
    submission: Submission, tests: Sequence[TestFolder], results_file: Path
) -> Iterator[TestResult]:
    """Grade every test in order, and yield each result.

    results.json exists from the start, with every test failed: whatever ends this process, no
    test that was not passed can look like one that was.
    """
    entries: list[dict[str, Any]] = [{"status": RUNTIME_ERROR} for _ in tests]
    write_json(results_file, entries)
    for number, test in enumerate(tests):
        result = grade_test(submission, test)
        entries[number] = result.entry()
        write_json(results_file, entries)
        yield result


def grade_test(submission: Submission, test: TestFolder) -> TestResult:
    """Run and check one test, with the testing system's files in its check folder.

    Raises UserError if the answer cannot be written there.
    """
    output = test.check / "output" / "output.csv"
    check_writable(output)
    output.unlink(missing_ok=True)  # that of an older run
    result = TestResult(test, run("run_single_test", submission, test.input, output.parent))
    if not result.ok:
        return result
    try:
        result.truth = read_csv(test.gt / "gt.csv")
        shutil.copytree(test.gt, test.check / "gt", dirs_exist_ok=True)
        result.answer = read_csv(output, empty_names=True)
        check_answer(result.answer, result.truth)
        result.outcome.warnings += _oddities(result.answer, result.truth)
    except CheckerError as error:
        result.outcome.failure = Failure(CHECK, str(error))
    return result


def fault_of(test: TestFolder) -> str:
    """Return what is wrong with the files of a test, for which no submission is to blame, or ""."""
    for path, part in ((test.input / "train" / "gt.csv", "train"), (test.gt / "gt.csv", "test")):
        try:
            labels, photos = read_csv(path), test.input / part / "images"
        except CheckerError as error:
            return str(error)
        if not labels:
            return f"{path} holds no row"
        if missing := next((name for name in labels if not (photos / name).is_file()), None):
            return f"{path} names {missing}, which is no file in {photos}"
    return ""


def _oddities(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[str]:
    """Return what the check lets pass, and a student would want to know."""
    odd = []
    if extra := sorted(answer.keys() - truth.keys()):  # the check ignores them
        odd.append(f"the answer has {len(extra)} file names that the test lacks: {extra[0]!r}")
    if len(answer) > 1 and len(set(answer.values())) == 1:
        odd.append(f"all {len(answer)} photos got the same class, {str(min(answer.values()))[:20]}")
    return odd


# ---- The testing system's check and grade --------------------------------------------------------


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


def check_test(data_dir: Path) -> str:
    """Return the status of a run whose answer and truth are in DATA_DIR. Raises CheckerError."""
    truth = read_csv(data_dir / "gt" / "gt.csv")
    answer = read_csv(data_dir / "output" / "output.csv", empty_names=True)
    return TestResult(TestFolder(data_dir), Outcome(), answer, truth).status


def grade(data_dir: Path) -> dict[str, Any]:
    """Return the grade, from DATA_DIR/results.json. Raises UserError."""
    path = data_dir / "results.json"
    with name_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        return grade_results(json.loads(text))
    except (ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is not a list of results: run the tests again") from None
