"""All tests of a folder: run the submission, check its answer, keep results.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.check import check_answer, copy_truth, prepare_check_folder
from course.files import atomic_write, write_json
from course.layout import CheckerError, TestFolder, read_csv
from course.marks import accuracy_text
from grader.outcome import Failure, Outcome, Refusal
from grader.process import run
from grader.staging import Submission

RUNTIME_ERROR, CHECKER_ERROR = "Runtime error", "Checker error"


@dataclass
class TestResult:
    """What became of one test; `correct` and `total` only if the status is Ok."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    test: TestFolder
    outcome: Outcome
    answer: dict[str, int] = field(default_factory=dict)
    truth: dict[str, int] = field(default_factory=dict)
    correct: int = 0
    total: int = 0
    checker_error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the submission ran within the rules, and its answer could be checked."""
        return self.status.startswith("Ok")

    @property
    def status(self) -> str:
        """The testing system's text for it."""
        if self.outcome.problem:
            return RUNTIME_ERROR
        if self.checker_error:
            return CHECKER_ERROR
        return f"Ok, accuracy {accuracy_text(self.correct, self.total)}"

    @property
    def problem(self) -> Failure | Refusal | str | None:
        """Why it failed; a text if the check did."""
        return self.outcome.problem or self.checker_error or None

    @property
    def message(self) -> str:
        """Why it failed, in one line; "" if it did not."""
        return str(self.problem or "")

    def entry(self) -> dict[str, Any]:
        """Its entry in results.json; a failed test has no time."""
        entry: dict[str, Any] = {"time": self.outcome.seconds} if self.ok else {}
        return entry | {"status": self.status}

    def wrong(self) -> list[tuple[str, int, int]]:
        """Return the misclassified photos: name, true class, answer."""
        rows = ((name, true, self.answer[name]) for name, true in self.truth.items())
        return [row for row in rows if row[1] != row[2]]


def run_single_test(submission: Submission, input_dir: Path, output_dir: Path) -> Outcome:
    """Run the submission on one test, and keep the output.csv of one that ran within the rules."""
    if not submission.model.is_file():  # told at once, not after a quarter of an hour of training
        return Outcome(failure=Failure("start", f"no model file {submission.model}"))
    outcome = run("run_single_test", submission, input_dir)
    if outcome.output is not None and not outcome.problem:
        with atomic_write(output_dir / "output.csv") as temporary:
            temporary.write_bytes(outcome.output)
    return outcome


def grade_test(submission: Submission, test: TestFolder) -> TestResult:
    """Run and check one test, with the testing system's files in its check folder."""
    output = prepare_check_folder(test)
    result = TestResult(test, run_single_test(submission, test.input, output))
    if result.outcome.problem:
        return result
    try:
        copy_truth(test)
        result.truth = read_csv(test.check / "gt" / "gt.csv")
        result.answer = read_csv(output / "output.csv", empty_names=True)
        result.correct, result.total = check_answer(result.answer, result.truth)
        result.outcome.warnings += _oddities(result.answer, result.truth)
    except CheckerError as error:
        result.checker_error = str(error)
    return result


def _oddities(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[str]:
    """Return what the check lets pass, and a student would want to know."""
    odd = []
    extra = sorted(answer.keys() - truth.keys())
    if extra:
        # The check goes through the rows of the truth, so an answer beyond them is not looked at.
        odd.append(f"the answer has {len(extra)} file names that the test lacks: {extra[0]!r}")
    if len(answer) > 1 and len(set(answer.values())) == 1:
        odd.append(f"all {len(answer)} photos got the same class, {next(iter(answer.values()))}")
    return odd


def grade_tests(
    submission: Submission, tests: Sequence[TestFolder], results_file: Path
) -> Iterator[TestResult]:
    """Grade every test in order, and yield each result.

    results.json is there from the start, with every test failed: whatever ends this process, no
    test that was not passed can look like one that was.
    """
    entries: list[dict[str, Any]] = [{"status": RUNTIME_ERROR} for _ in tests]
    write_json(results_file, entries)
    for number, test in enumerate(tests):
        result = grade_test(submission, test)
        entries[number] = result.entry()
        write_json(results_file, entries)
        yield result
