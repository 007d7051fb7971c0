"""What the student sees: the testing system's lines, and below each what they do not say."""

import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from course import marks
from course.cli import printable
from course.environment import unknown_packages
from grader.hints import hint
from grader.model import Metadata
from grader.outcome import Outcome, Problem
from grader.process import CLEAR
from grader.session import TestResult, fault_of
from grader.staging import Submission

ERRORS_SHOWN = 10
DEMONSTRATION = (
    "this model is a demonstration, trained on other photos than the sample at hand: whoever "
    "submits trains on the course's sample first (python train_full.py)"
)


def say(text: str) -> None:
    """Print a text at once, even into a pipe; control codes are shown, not obeyed."""
    if sys.stderr.isatty():  # there may be a line of progress
        print(CLEAR, end="", file=sys.stderr, flush=True)
    print(printable(text, keep="\n\t"), flush=True)


def say_indented(text: str) -> None:
    """Print a sentence below the testing system's line, wrapped at 80 columns."""
    wrap = textwrap.TextWrapper(80, "   ", "      ", break_long_words=False, break_on_hyphens=False)
    say(wrap.fill(text))


# ---- A test --------------------------------------------------------------------------------------


def show_result(result: TestResult, submission: Submission) -> None:
    """Print the testing system's line for a test, then its costs, accuracy, warnings."""
    outcome, seconds = result.outcome, f"{result.outcome.seconds:.2f}s " if result.ok else ""
    say(f"{result.test.number} {seconds}{result.status}")
    if outcome.problem:
        if outcome.traceback:
            say(outcome.traceback.rstrip())
        say(f"   {outcome.problem}")
        show_hint(outcome.problem, submission, fault_of(result.test))
    for refusal in outcome.swallowed_refusals:
        say_indented(f"!! {refusal}")
        if result.ok:
            say_indented(
                "It was refused, the submission went on and answered. The testing system most "
                f"probably says the same as this run, {result.status!r}."
            )
            show_hint(refusal, submission)
    for line in foreign_lines(outcome):
        say_indented(f"!! {line}")
    show_phases(outcome)
    if result.ok:
        correct, total = result.score
        (low, high), accuracy = marks.wilson_interval(correct, total), result.status.split()[-1]
        say(
            f"   accuracy {accuracy} (95 % interval {low:.4f} to {high:.4f}, "
            f"{correct} of {total}), mark {marks.mark_of(accuracy)}"
        )
    for warning in outcome.warnings:
        say_indented(f"Warning: {warning}")
    for note in outcome.notes:
        say_indented(f"Note: {note}")
    if lines := outcome.log.splitlines():  # such as how many photos could not be read
        say("   the end of what it printed:")
        say("\n".join(f"   | {line}" for line in lines[-3 if result.ok else -20 :]))


def show_hint(problem: Problem, submission: Submission, fault: str = "") -> None:
    """Print why the testing system refuses something, or the test's fault; and what to do."""
    why, remedy = hint(problem, submission)
    if fault:
        why = f"the test itself is at fault, not the submission: {fault}"
        remedy = "make the tests anew (python public_data/prepare.py)"
    say_indented(f"Why: {why}")
    say_indented(f"What to do: {remedy}")


def foreign_lines(outcome: Outcome) -> list[str]:
    """Say what the run used that the testing system does not have."""
    packages = [f"imports {name}" for name in unknown_packages(outcome.imported)]
    return [f"{text}: the testing system has none" for text in [*outcome.foreign, *packages]]


def show_phases(outcome: Outcome) -> None:
    """Print the table of the phases, and which layers of the rules were active."""
    rows = [
        (p.name, f"{p.limit:g} s", f"{p.wall:.1f} s", f"{p.cpu:.1f} s",
         f"{p.peak / 2**20:.0f} MiB", p.verdict)
        for p in outcome.phases
    ]  # fmt: skip
    if rows:
        show_table(("phase", "limit", "wall", "CPU", "peak memory", "verdict"), *rows)
    if outcome.layers:
        say(f"   rules enforced: {'; '.join(outcome.layers)}")


def show_table(*rows: Sequence[str]) -> None:
    """Print a table in plain columns, its header first."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        say(f"   {'  '.join(map(str.ljust, row, widths)).rstrip()}")


# ---- All tests -----------------------------------------------------------------------------------


def show_model(metadata: Metadata, results: Sequence[TestResult]) -> None:
    """Print what a real grader would not say: has the model seen these photos?"""
    if not metadata:
        return
    say("Model")
    if metadata.is_demonstration([result.test for result in results]):
        say(f"   {DEMONSTRATION}")
    for result in results:
        if result.ok:
            say(f"   test {result.test.number}: {_trained_line(metadata, result)}")
    for line in _validation_lines(metadata, results[-1]) if results[-1].ok else ():
        say(f"   {line}")


def _trained_line(metadata: Metadata, result: TestResult) -> str:
    trained = metadata.trained_photos(result.test)
    if trained is None:
        return "whether the model was trained on these photos is unknown, it keeps no digests"
    count = len(trained & result.truth.keys())
    if not count:
        return "photos that the model was not trained on"
    seen = f"trained on {count} of these {len(result.truth)} photos"
    return f"{seen}, so this accuracy says nothing about the hidden sample"


def _validation_lines(metadata: Metadata, last: TestResult) -> list[str]:
    """Return the stored validation accuracy, or why it cannot hold on these photos."""
    asked, known = set(last.truth.values()), metadata.get("class_ids")
    if isinstance(known, list) and (unknown := asked.difference(known)):
        return [
            f"WRONG: the model knows other species than the test asks for: {len(unknown)} of "
            f"{len(asked)} class ids are unknown to it, such as {min(unknown)}"
        ]
    if not (validation := metadata.validation) or metadata.trained_photos(last.test) == set():
        return []
    if marks.wilson_interval(*last.score)[1] < marks.wilson_interval(*validation)[0]:
        here, stored = (marks.accuracy_text(*score) for score in (last.score, validation))
        return [
            f"WRONG: accuracy {here} here, {stored} in its validation: the same class ids seem to "
            "mean other species, or the photos differ in kind; train on these photos first"
        ]
    return marks.expectation_lines(*validation, photos=len(last.truth))


def show_errors(last: TestResult, names: Mapping[int, str]) -> None:
    """Print misclassified photos of a test, the most frequent confusions first."""
    wrong = last.wrong() if last.ok else []
    if not wrong:
        return
    pairs = Counter(row[1:] for row in wrong)
    wrong.sort(key=lambda row: (-pairs[row[1:]], row[1:], row[0]))
    say(f"Misclassified in test {last.test.number}: {len(wrong)} photos")
    rows = [(name, *(names.get(i, f"class {i}") for i in pair)) for name, *pair in wrong]
    show_table(("photo", "species", "answer"), *rows[:ERRORS_SHOWN])


def as_json(metadata: Metadata, results: Sequence[TestResult]) -> dict[str, Any]:
    """Return everything in the report, for programs."""
    tests = []
    for result in results:
        entry = {"test": result.test.input.name, **result.entry(), **asdict(result.outcome)}
        entry["message"] = str(result.outcome.problem or "")
        if result.ok:
            entry["correct"], entry["total"] = result.score
            entry["misclassified"] = result.wrong()
        tests.append(entry)
    grade = marks.grade_results([result.entry() for result in results])
    return {**grade, "tests": tests, "model": metadata or None}
