"""What the student sees: the testing system's lines, and below each what they do not say."""

import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from course.files import UserError, atomic_write
from course.marks import accuracy_text, grade_results, mark_of, wilson_interval
from grader.advice import advice
from grader.model import (
    Seen,
    expectation_lines,
    find_seen,
    known_answer_line,
    mismatch,
    training_of,
    validation_of,
)
from grader.process import Outcome, Phase, Refusal
from grader.rules import FILES, LIBRARY
from grader.session import Submission, TestResult

COLUMNS = ("phase", "limit", "wall", "CPU", "peak memory", "verdict")
ERRORS_SHOWN = 10
DEMONSTRATION = (
    "this model is a demonstration, trained on other photos than the sample at hand: whoever "
    "submits trains on the course's sample first (python train_full.py)"
)


def say(line: str = "") -> None:
    """Print a line at once, even into a pipe."""
    print(line, flush=True)


def show_result(result: TestResult, submission: Submission) -> None:
    """The testing system's line for a test, then its costs, accuracy, warnings."""
    number, status = result.test.number, result.status
    if result.ok:
        say(f"{number} {result.entry()['time']:.2f}s {status}")
    else:
        say(f"{number} {status}")
        _show_failure(result, submission)
    for refusal in result.outcome.survived:
        _show_survived(refusal, result, submission)
    show_phases(result.outcome)
    if result.ok:
        low, high = wilson_interval(result.correct, result.total)
        accuracy = accuracy_text(result.correct, result.total)
        say(
            f"   accuracy {accuracy} (95 % interval {low:.4f} to {high:.4f}, "
            f"{result.correct} of {result.total}), mark {mark_of(accuracy)}"
        )
    for warning in result.outcome.warnings:
        say(f"   Warning: {warning}")
    for note in _library_notes(result.outcome):
        say(f"   Note: {note}")
    _show_log(result)


def _show_failure(result: TestResult, submission: Submission) -> None:
    problem, failure = result.problem, result.outcome.failure
    traceback = failure.traceback.rstrip() if failure else ""
    if traceback and problem is failure:
        say(traceback)
    say(f"   {result.message}")
    _show_advice(problem, submission)
    if traceback and problem is not failure:
        say(f"   what followed from it in {failure.phase}:")
        say(traceback)


def _show_log(result: TestResult) -> None:
    """The end of what the submission printed, such as how many photos it could not read."""
    if lines := result.outcome.log.splitlines():
        shown = lines[-3 if result.ok else -20 :]
        say("   the end of what it printed:")
        say("\n".join(f"   | {line}" for line in shown))


def _show_advice(problem: Any, submission: Submission) -> None:
    why, cure = advice(problem, submission.folder, submission.limits)
    say(f"   Why: {why}")
    say(f"   What to do: {cure}")


def _show_survived(refusal: Refusal, result: TestResult, submission: Submission) -> None:
    """A call that was refused without ending the run: what would the testing system say?"""
    say(f"   !! {refusal}")
    if result.outcome.problem:
        return None
    unsure = ", if it refuses the write as this run did" if refusal.rule == FILES else ""
    say("      It was refused, the submission went on and answered. The testing system most")
    say(f"      probably says the same as this run, {result.status!r}{unsure}.")
    return _show_advice(refusal, submission)


def _library_notes(outcome: Outcome) -> list[str]:
    """What libraries tried by themselves, one line for each of them."""
    tried: dict[tuple[str, str, str], str] = {}
    for refusal in outcome.refusals:
        if refusal.who == LIBRARY:
            library = refusal.through[-1].split(".")[0] if refusal.through else "a library"
            tried.setdefault((refusal.phase, library, refusal.rule), refusal.call)
    return [
        f"{phase}: {library} by itself tried {call}: refused ({rule}), as in the testing system"
        for (phase, library, rule), call in tried.items()
    ]


def show_phases(outcome: Outcome) -> None:
    """The table of the phases, and which layers of the rules were active."""
    rows = [_phase_row(phase) for phase in outcome.phases]
    if rows:
        show_table(COLUMNS, rows)
    if outcome.layers:
        say(f"   rules enforced: {'; '.join(outcome.layers)}")


def _phase_row(phase: Phase) -> tuple[str, ...]:
    wall, cpu = (f"{x:.1f} s" if x is not None else "-" for x in (phase.wall, phase.cpu))
    peak = "-" if phase.peak is None else f"{phase.peak / 2**20:.0f} MiB"
    return phase.name, f"{phase.limit:g} s", wall, cpu, peak, phase.verdict


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, plain columns otherwise."""
    if sys.stdout.isatty():
        return _show_rich_table(columns, rows)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        say(f"   {'  '.join(padded).rstrip()}")
    return None


def _show_rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # not needed in a pipe, so not imported there
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1))
    for cells in rows:
        table.add_row(*map(Text, cells))  # Text: a name in brackets is no markup
    Console().print(table)


def show_model(results: Sequence[TestResult]) -> None:
    """What a real grader would not say: has the model seen these photos, is it computed right?"""
    facts = facts_of(results)
    if facts is None:
        return
    say("Model")
    if "unreadable" in facts:
        say(f"   cannot be inspected: {facts['unreadable']}")
        return
    say(f"   {known_answer_line(facts)}")
    seen = find_seen(facts, [result.test for result in results])
    for line in _seen_lines(facts, seen, results):
        say(f"   {line}")
    last = results[-1]
    if last.ok:
        for line in _expectation(facts, last, seen is None or bool(seen.count(last.truth))):
            say(f"   {line}")


def _expectation(facts: Mapping[str, Any], last: TestResult, trained_on: bool) -> list[str]:
    wrong = mismatch(facts, last.truth, last.correct, trained_on)
    if wrong:
        return [f"WRONG: {wrong}", "no mark to expect: train on these photos first"]
    validation = validation_of(facts)
    return expectation_lines(*validation, last.total) if validation and trained_on else []


def facts_of(results: Sequence[TestResult]) -> dict[str, Any] | None:
    """What the first run that could read it found in birds_model.pt."""
    return next((r.outcome.facts for r in results if r.outcome.facts), None)


def _seen_lines(
    facts: Mapping[str, Any], seen: Seen | None, results: Sequence[TestResult]
) -> list[str]:
    fingerprint = training_of(facts).get("labels_sha256")
    if fingerprint is None:
        return ["training: no record in the file; whether it has seen these photos is not known"]
    if seen is None:
        return [
            f"training: on other labels than these tests' (fingerprint {fingerprint[:12]}); "
            "whether it has seen some of these photos is not known",
            DEMONSTRATION,
        ]
    lines = [f"training: on the {len(seen.labels)} {seen.what} (fingerprint {fingerprint[:12]})"]
    return lines + [_seen_line(seen, result) for result in results if result.truth]


def _seen_line(seen: Seen, result: TestResult) -> str:
    number, count, total = result.test.number, seen.count(result.truth), len(result.truth)
    if not count:
        return f"test {number}: photos that the model was not trained on"
    return (
        f"test {number}: trained on {count} of these {total} photos, so this accuracy says "
        "nothing about the hidden sample"
    )


def species_names(tests_dir: Path) -> dict[int, str]:
    """Names for class ids, from species.csv if there is one."""
    path = tests_dir / "species.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {int(row["class_id"]): row["name"] for row in csv.DictReader(file)}
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f"{path} is not a table class_id,name: delete or mend it") from None


def show_errors(results: Sequence[TestResult], names: Mapping[int, str]) -> None:
    """The misclassified photos of the last test, the most frequent confusions first."""
    wrong = results[-1].wrong() if results[-1].ok else []
    if not wrong:
        return
    pairs = Counter((true, answer) for _, true, answer in wrong)
    wrong.sort(key=lambda row: (-pairs[row[1:]], row[1:], row[0]))
    shown = wrong[:ERRORS_SHOWN]
    say(f"Misclassified in test {results[-1].test.number}: {len(wrong)} photos")
    rows = [(name, named(true, names), named(answer, names)) for name, true, answer in shown]
    show_table(("photo", "species", "answer"), rows)


def named(class_id: int, names: Mapping[int, str]) -> str:
    """The species' name, or its number if there is no name."""
    return names.get(class_id, str(class_id))


def write_errors(path: Path, results: Sequence[TestResult], names: Mapping[int, str]) -> int:
    """Write all misclassified photos of all tests as csv; returns how many."""
    rows = [
        (result.test.number, name, true, answer, named(true, names), named(answer, names))
        for result in results
        if result.ok
        for name, true, answer in result.wrong()
    ]
    header = ("test", "filename", "class_id", "answer", "species", "answered_species")
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return len(rows)


def show_mark(results: Sequence[TestResult]) -> None:
    """The testing system's last line."""
    grade = grade_results([result.entry() for result in results])
    say(f"Mark: {grade['mark']} {grade['description']}".rstrip())


def as_json(results: Sequence[TestResult]) -> dict[str, Any]:
    """Everything in the report, for programs."""
    return {
        **grade_results([result.entry() for result in results]),
        "tests": [_test_json(result) for result in results],
        "model": facts_of(results),
    }


def _test_json(result: TestResult) -> dict[str, Any]:
    outcome, ok = result.outcome, result.ok
    return {
        "test": result.test.input.name,
        **result.entry(),
        "message": result.message,
        "correct": result.correct if ok else None,
        "total": result.total if ok else None,
        "interval": wilson_interval(result.correct, result.total) if ok else None,
        "phases": [asdict(phase) for phase in outcome.phases],
        "layers": outcome.layers,
        "refusals": [asdict(refusal) for refusal in outcome.refusals],
        "warnings": outcome.warnings,
        "notes": _library_notes(outcome),
        "modules": outcome.modules,
    }
