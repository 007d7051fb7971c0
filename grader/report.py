"""What the student sees: the testing system's lines, and below each what they do not say."""

import csv
import io
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from course import marks
from course.check import fault_of
from course.cli import printable
from course.environment import unknown_packages
from course.files import atomic_write
from grader.hints import hint
from grader.model import Metadata
from grader.outcome import Outcome, Phase, Problem
from grader.rules import FILES, LIBRARY_INTERNAL
from grader.session import TestResult
from grader.staging import Submission

ERRORS_SHOWN = 10
PLAIN_LINE = 30.0  # seconds between two lines of progress where there is no terminal
CLEAR = "\r\x1b[2K"  # erases a terminal's line
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
    wrapper = textwrap.TextWrapper(80, "   ", "      ", break_long_words=False)
    wrapper.break_on_hyphens = False
    say(wrapper.fill(text))


class Progress:
    """How far a run is: a line that lives on a terminal, now and then a plain one otherwise.

    On stderr: stdout holds what the testing system says.
    """

    def __init__(self) -> None:
        self.shown = time.monotonic()

    def __call__(self, test: str, phase: Phase, photos: int, total: int) -> None:
        """Show a phase that goes on, if it is time for it; `test` begins with its number."""
        of = f"{photos} of {total} photos, " if photos else ""
        line = f"{test[:2]} {phase.name}, {of}{phase.wall:.0f} s of {phase.limit:.0f} s, "
        line += f"CPU {phase.cpu:.0f} s"
        if sys.stderr.isatty():
            print(f"{CLEAR}{line[:78]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.shown >= PLAIN_LINE:
            self.shown = time.monotonic()
            print(line, file=sys.stderr, flush=True)


# ---- A test --------------------------------------------------------------------------------------


def show_result(result: TestResult, submission: Submission) -> None:
    """Print the testing system's line for a test, then its costs, accuracy, warnings."""
    outcome, seconds = result.outcome, f"{result.outcome.seconds:.2f}s " if result.ok else ""
    say(f"{result.test.number} {seconds}{result.status}")
    if outcome.problem:
        _show_failure(outcome.problem, result, submission)
    for refusal in outcome.swallowed_refusals:
        say_indented(f"!! {refusal}")
        if result.ok:
            unsure = ", if it refuses the write as this run did" if refusal.rule == FILES else ""
            say_indented(
                "It was refused, the submission went on and answered. The testing system most "
                f"probably says the same as this run, {result.status!r}{unsure}."
            )
            show_hint(refusal, outcome, submission)
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
    for warning in [*outcome.warnings, *_busy_lines(outcome)]:
        say_indented(f"Warning: {warning}")
    for note in [*_library_notes(outcome), *outcome.notes]:
        say_indented(f"Note: {note}")
    if lines := outcome.log.splitlines():  # such as how many photos could not be read
        say("   the end of what it printed:")
        say("\n".join(f"   | {line}" for line in lines[-3 if result.ok else -20 :]))


def _show_failure(problem: Problem, result: TestResult, submission: Submission) -> None:
    outcome, failure = result.outcome, result.outcome.failure
    traceback = failure.traceback.rstrip() if failure else ""
    if traceback and problem is failure:
        say(traceback)
    say(f"   {problem}")
    if fault := fault_of(result.test):
        say_indented(f"Why: the test itself is at fault, not the submission: {fault}")
        say_indented("What to do: make the tests anew (python public_data/prepare.py)")
    else:
        show_hint(problem, outcome, submission)
    if failure and traceback and problem is not failure:
        say(f"   what followed from it in {failure.phase}:\n{traceback}")


def show_hint(problem: Problem, outcome: Outcome, submission: Submission) -> None:
    """Print why the testing system refuses something, and what to do."""
    why, remedy = hint(problem, outcome, submission)
    say_indented(f"Why: {why}")
    say_indented(f"What to do: {remedy}")


def foreign_lines(outcome: Outcome) -> list[str]:
    """Say what the run used that the testing system does not have."""
    packages = [f"imports {name}" for name in unknown_packages(outcome.imported)]
    return [f"{text}: the testing system has none" for text in [*outcome.foreign, *packages]]


def _busy_lines(outcome: Outcome) -> list[str]:
    """Return one line on the phases that took long and used little CPU time."""
    waited = [
        f"{phase.name} used {phase.cpu:.0f} s in {phase.wall:.0f} s"
        for phase in outcome.phases
        if phase.wall >= 10 and phase.cpu < 0.5 * phase.wall
    ]
    why = "the machine was busy, or the submission waited; the testing system's may be busy as well"
    return [f"little CPU time: {', '.join(waited)}: {why}"] if waited else []


def _library_notes(outcome: Outcome) -> list[str]:
    """Say what libraries tried by themselves, one line for each of them."""
    tried: dict[tuple[str, str, str], str] = {}
    for refusal in outcome.refusals:
        if refusal.kind == LIBRARY_INTERNAL:
            library = refusal.through[-1].split(".")[0] if refusal.through else "a library"
            tried.setdefault((refusal.phase, library, refusal.rule), refusal.call)
    return [
        f"{phase}: {library} by itself tried {call}: refused ({rule}), as in the testing system"
        for (phase, library, rule), call in tried.items()
    ]


def show_phases(outcome: Outcome) -> None:
    """Print the table of the phases, and which layers of the rules were active."""
    if outcome.phases:
        rows = [
            (p.name, f"{p.limit:g} s", f"{p.wall:.1f} s", f"{p.cpu:.1f} s",
             f"{p.peak / 2**20:.0f} MiB", p.verdict)
            for p in outcome.phases
        ]  # fmt: skip
        show_table(("phase", "limit", "wall", "CPU", "peak memory", "verdict"), rows)
    if outcome.layers:
        say(f"   rules enforced: {'; '.join(outcome.layers)}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in plain columns."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        say(f"   {'  '.join(padded).rstrip()}")


# ---- All tests -----------------------------------------------------------------------------------


def show_model(metadata: Metadata, results: Sequence[TestResult]) -> None:
    """Print what a real grader would not say: has the model seen these photos?"""
    if not metadata:
        return
    say("Model")
    if "unreadable" in metadata:
        say(f"   cannot be inspected: {metadata['unreadable']}")
        return
    if metadata.is_demonstration([result.test for result in results]):
        say(f"   {DEMONSTRATION}")
    for result in results:
        if result.truth:
            say(f"   test {result.test.number}: {_trained_line(metadata, result)}")
    if results[-1].ok:
        for line in _expectation(metadata, results[-1]):
            say(f"   {line}")


def _trained_line(metadata: Metadata, result: TestResult) -> str:
    trained = metadata.trained_photos(result.test)
    if trained is None:
        why = "no digests of its photos" if metadata.training else "no record of its training"
        return f"whether the model was trained on these photos is unknown, it keeps {why}"
    count = len(trained & result.truth.keys())
    if not count:
        return "photos that the model was not trained on"
    seen = f"trained on {count} of these {len(result.truth)} photos"
    return f"{seen}, so this accuracy says nothing about the hidden sample"


def _expectation(metadata: Metadata, last: TestResult) -> list[str]:
    trained_on = metadata.trained_photos(last.test) != set()  # or nobody knows
    asked, validation = set(last.truth.values()), metadata.validation
    if wrong := metadata.mismatch(asked, *last.score, trained_on):
        return [f"WRONG: {wrong}", "no mark to expect: train on these photos first"]
    photos = len(last.truth)
    return marks.expectation_lines(*validation, photos) if validation and trained_on else []


def show_errors(results: Sequence[TestResult], names: Mapping[int, str]) -> None:
    """Print the misclassified photos of the last test, the most frequent confusions first."""
    wrong = _misclassified(results[-1], names)
    if not wrong:
        return
    pairs = Counter(row[1:3] for row in wrong)
    wrong.sort(key=lambda row: (-pairs[row[1:3]], row[1:3], row[0]))
    say(f"Misclassified in test {results[-1].test.number}: {len(wrong)} photos")
    rows = [(name, species, answer) for name, *_, species, answer in wrong[:ERRORS_SHOWN]]
    show_table(("photo", "species", "answer"), rows)


def _misclassified(result: TestResult, names: Mapping[int, str]) -> list[tuple[Any, ...]]:
    """Return the photos: name, true class, answer, and the species of both, or "class 25"."""
    wrong = result.wrong() if result.ok else []
    return [(*row, *(names.get(i, f"class {i}") for i in row[1:])) for row in wrong]


def write_errors(path: Path, results: Sequence[TestResult], names: Mapping[int, str]) -> None:
    """Write all misclassified photos of all tests as csv, and say how many."""
    rows = [(r.test.number, *row) for r in results for row in _misclassified(r, names)]
    header = ("test", "filename", "class_id", "answer", "species", "answered_species")
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    with atomic_write(path) as temporary:
        temporary.write_bytes(table.getvalue().encode(errors="surrogateescape"))
    say(f"{path}: {len(rows)} misclassified photos")


def as_json(metadata: Metadata, results: Sequence[TestResult]) -> dict[str, Any]:
    """Return everything in the report, for programs."""
    tests = []
    for result in results:
        entry = {"test": result.test.input.name, **result.entry()}
        entry["message"] = str(result.outcome.problem or "")
        if result.ok:
            entry |= dict(zip(("correct", "total"), result.score, strict=True))
        tests.append({**entry, **asdict(result.outcome)})
    grade = marks.grade_results([result.entry() for result in results])
    return {**grade, "tests": tests, "model": metadata or None}
