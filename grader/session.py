"""All tests of a folder: run the submission, check its answer, keep results.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.files import UserError, write_json
from course.layout import CheckerError, TestFolder, read_csv, save_csv
from course.marks import accuracy_text
from grader.check import check_answer, copy_truth, prepare_check_folder
from grader.limits import LIMITS
from grader.process import Failure, Outcome, Refusal, Run

RUNTIME_ERROR, CHECKER_ERROR = "Runtime error", "Checker error"
NAMES = ("solution.py", "classification.py")  # of the code: this project's, the 2024 edition's


@dataclass(frozen=True)
class Submission:
    """What is graded: the folder with its code, and the model file that goes with it."""

    folder: Path
    model: Path
    code: str = NAMES[0]
    limits: Mapping[str, float] = field(default_factory=lambda: LIMITS)
    use_sandbox: bool = True

    @classmethod
    def at(cls, folder: Path, model: Path | None = None, **options: Any) -> "Submission":
        """The submission in a folder; a UserError if there is none."""
        folder = folder.resolve()
        code = next((name for name in NAMES if (folder / name).is_file()), None)
        if code is None:
            raise UserError(
                f"no {' or '.join(NAMES)} in {folder}: name its folder with --submission"
            )
        return cls(folder, (model or folder / "birds_model.pt").resolve(), code, **options)

    def run(self, task: str, keep_caches: bool = False, **job: Any) -> Outcome:
        """One child process for one task; see grader/child.py for the tasks."""
        job |= {"task": task, "submission": str(self.folder), "model": str(self.model)}
        job["module"] = self.code.removesuffix(".py")
        return Run(job, self.limits, self.use_sandbox, keep_caches).go()


@dataclass
class TestResult:
    """What became of one test; `correct` and `total` only if the status is Ok."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    test: TestFolder
    outcome: Outcome
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
        """The test's entry in results.json."""
        time = {"time": round(self.outcome.seconds, 3)} if self.ok else {}
        return time | {"status": self.status}

    def wrong(self) -> list[tuple[str, int, int]]:
        """File name, true and answered class id of each wrong answer."""
        answer = self.outcome.answer or {}
        rows = sorted(self.truth.items())
        return [(name, true, answer[name]) for name, true in rows if answer[name] != true]


def run_single_test(submission: Submission, input_dir: Path, output_dir: Path) -> Outcome:
    """Run the submission on one test, and write output.csv if it gave an answer."""
    try:
        train_gt = read_csv(input_dir / "train" / "gt.csv")
    except CheckerError as error:
        return Outcome([], failure=Failure("start", str(error)))
    if not submission.model.is_file():  # told at once, not after a quarter of an hour of training
        return Outcome([], failure=Failure("start", f"no model file {submission.model}"))
    outcome = submission.run(
        "test",
        train_gt=train_gt,
        train_images=str((input_dir / "train" / "images").resolve()),
        test_images=str((input_dir / "test" / "images").resolve()),
    )
    if outcome.answer is not None and not outcome.problem:
        save_csv(outcome.answer, output_dir / "output.csv")
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
        answer = read_csv(output / "output.csv")
        result.correct, result.total = check_answer(answer, result.truth)
    except CheckerError as error:
        result.checker_error = str(error)
    else:
        result.outcome.warnings += _oddities(answer, result.truth)
    return result


def _oddities(answer: Mapping[str, int], truth: Mapping[str, int]) -> list[str]:
    """What the check lets pass, and a student would want to know."""
    odd = []
    extra = sorted(answer.keys() - truth.keys())
    if extra:
        # The check goes through the rows of the truth, so an answer beyond them is not looked at.
        odd.append(f"the answer has {len(extra)} file names that the test lacks: {extra[0]!r}")
    if len(answer) > 1 and len(set(answer.values())) == 1:
        odd.append(f"all {len(answer)} photos got the same class, {next(iter(answer.values()))}")
    return odd


def grade_tests(
    submission: Submission,
    tests: Sequence[TestFolder],
    results_file: Path,
    tell: Callable[[TestResult], None] = lambda result: None,
) -> list[TestResult]:
    """Grade every test in order.

    results.json is there from the start, with every test failed: whatever ends this process, no
    test that was not passed can look like one that was.
    """
    results: list[TestResult] = []
    entries: list[dict[str, Any]] = [{"status": RUNTIME_ERROR} for _ in tests]
    write_json(results_file, entries)
    for number, test in enumerate(tests):
        results.append(grade_test(submission, test))
        entries[number] = results[-1].entry()
        write_json(results_file, entries)
        tell(results[-1])
    return results
