"""All tests of a folder: run the submission, check its answer, keep results.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.check import check_answer, copy_truth, ok_status, prepare_check_folder, read_answer
from course.files import write_json
from course.layout import CheckerError, TestFolder
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
        return len(self.truth) - len(self.wrong()), len(self.truth)

    @property
    def status(self) -> str:
        """The testing system's text for it."""
        if problem := self.outcome.problem:
            return CHECKER_ERROR if problem.phase == CHECK else RUNTIME_ERROR
        return ok_status(*self.score)

    def entry(self) -> dict[str, Any]:
        """Its entry in results.json; a failed test has no time."""
        entry: dict[str, Any] = {"time": self.outcome.seconds} if self.ok else {}
        return entry | {"status": self.status}

    def wrong(self) -> list[tuple[str, int, int]]:
        """Return the misclassified photos: name, true class, answer."""
        rows = ((name, true, self.answer[name]) for name, true in self.truth.items())
        return [row for row in rows if row[1] != row[2]]


def grade_test(submission: Submission, test: TestFolder) -> TestResult:
    """Run and check one test, with the testing system's files in its check folder."""
    output = prepare_check_folder(test)
    result = TestResult(test, run("run_single_test", submission, test.input, output))
    if not result.ok:
        return result
    try:
        copy_truth(test)
        result.answer, result.truth = read_answer(test.check)
        check_answer(result.answer, result.truth)
        result.outcome.warnings += _oddities(result.answer, result.truth)
    except CheckerError as error:
        result.outcome.failure = Failure(CHECK, str(error))
    return result


def _oddities(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[str]:
    """Return what the check lets pass, and a student would want to know."""
    odd = []
    if extra := sorted(answer.keys() - truth.keys()):  # the check ignores them
        odd.append(f"the answer has {len(extra)} file names that the test lacks: {extra[0]!r}")
    if len(answer) > 1 and len(set(answer.values())) == 1:
        odd.append(f"all {len(answer)} photos got the same class, {str(min(answer.values()))[:20]}")
    return odd


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
