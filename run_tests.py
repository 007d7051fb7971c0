"""Grade a submission as the course's testing system does: `python run_tests.py --help`.

Exit status: 0 if every test is Ok (and --require is met), 1 if not, 2 for a wrong call.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]  # python -P and -I

from course import cli  # noqa: E402

if __name__ == "__main__":  # what follows is imported by the entry point, where Ctrl-C is one line
    interrupted = "Interrupted: the tests that were not finished count as failed."
    cli.run_module("run_tests", lambda: None, interrupted)

from course.files import (  # noqa: E402
    UserError,
    check_outputs,
    check_writable,
    temporary_folder,
    write_json,
)
from course.layout import CheckerError, find_tests, read_csv, save_csv  # noqa: E402
from course.marks import grade_results  # noqa: E402
from course.tables import read_species  # noqa: E402
from grader import report  # noqa: E402
from grader.model import Metadata  # noqa: E402
from grader.pack import PackError, files_to_pack, imported_files, pack  # noqa: E402
from grader.process import run  # noqa: E402
from grader.report import say  # noqa: E402
from grader.reproduce import find_test, reproduce  # noqa: E402
from grader.session import TestResult, check_test, grade, grade_tests  # noqa: E402
from grader.staging import LIMITS, NAMES, Submission  # noqa: E402

__all__ = ["main", "read_csv", "save_csv"]  # submissions may import the last two

DEFAULT_TESTS = ROOT / "public_data"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        if os.environ.get("CHECKER"):
            return run_as_checker(sys.argv[1:] if argv is None else argv)
        return run_locally(parse(argv))
    except (UserError, OSError) as error:
        print(cli.one_line(error), file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description="Grade a submission as the course's testing system does.",
        epilog=f"Limits: {', '.join(f'{k}={v:g}' for k, v in LIMITS.items())} "
        "(seconds; memory in GiB). docs/grader.md explains the checks.",
    )
    add = parser.add_argument
    text = "folder with the NN_*_input and NN_*_gt folders (default: public_data)"
    add("tests", nargs="?", type=Path, default=DEFAULT_TESTS, metavar="TESTS_DIR", help=text)
    text = f"folder of {' or '.join(NAMES)}"
    add("--submission", type=Path, default=ROOT, metavar="DIR", help=text)
    add("--model", type=Path, metavar="FILE", help="model file (default: birds_model.pt there)")
    text = "fail below this accuracy in the last test"
    add("--require", type=_accuracy, default=0.0, metavar="ACC", help=text)
    text = "change a limit"
    add("--limit", action="append", type=_limit, default=[], metavar="NAME=VALUE", help=text)
    add("--json", type=Path, metavar="FILE", help="write the whole report as JSON")
    add("--reproduce", action="store_true", help="retrain, and compare with the submitted model")
    add("--pack", type=Path, metavar="FILE", help="after a passing run: write the upload as a zip")
    add("--as", dest="code", choices=NAMES, help="name of the code in the zip (default: as it is)")
    text = "pack even a model that was trained on other photos than these"
    add("--demonstration", action="store_true", help=text)
    return parser.parse_args(argv)


def _accuracy(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is no accuracy: give one from 0 to 1, as 0.88")


def _limit(change: str) -> tuple[str, float]:
    name, _, text = change.partition("=")
    with suppress(ValueError):
        if name in LIMITS and 0 < float(text) < math.inf:
            return name, float(text)
    names = ", ".join(LIMITS)
    raise argparse.ArgumentTypeError(f"{change}: give a positive number for one of {names}")


def run_as_checker(argv: Sequence[str]) -> int:
    """Take the testing system's own calls, recognised by the environment variable CHECKER."""
    match argv:
        case ["run_single_test", data_dir, output_dir]:
            submission = Submission.at(ROOT)
            outcome = run("run_single_test", submission, Path(data_dir), Path(output_dir))
            if outcome.problem:
                print(f"{outcome.traceback}Runtime error: {outcome.problem}", file=sys.stderr)
                return 1
        case ["check_test", data_dir] | ["check_test", data_dir, _]:
            try:
                say(check_test(Path(data_dir)))
            except CheckerError as error:
                print(f"Checker error: {error}", file=sys.stderr)
                return 1
        case ["grade", data_dir] | ["grade", data_dir, _]:
            say(json.dumps(grade(Path(data_dir))))
        case _:
            # The real script exits with 0 here: no wrong call should look like success.
            raise UserError(
                "with CHECKER set, the usage is run_tests.py MODE DATA_DIR OUTPUT_DIR, "
                "MODE being run_single_test, check_test or grade"
            )
    return 0


def run_locally(options: argparse.Namespace) -> int:
    """Grade all tests of a folder, or a drawn sample if public_data holds none."""
    limits = LIMITS | dict(options.limit)
    submission = Submission.at(options.submission, options.model, limits=limits)
    if options.model and not options.model.is_file():
        raise UserError(f"no model file {options.model}: check --model")
    check_files(options, submission)
    if find_tests(options.tests):
        return grade_folder(submission, options)
    if Path(os.path.realpath(options.tests)) != DEFAULT_TESTS or options.pack:
        raise UserError(f"no NN_*_input folder in {options.tests}: nothing to grade")
    say("No tests in public_data: this run draws its own sample of birds.")
    with temporary_folder("birds-sample-") as base:
        options.tests = base / "tests"
        return grade_sample(submission, options)


def check_files(options: argparse.Namespace, submission: Submission) -> None:
    """Raise UserError for an output that cannot be written, or would replace what is read."""
    outputs = [path for path in (options.json, options.pack) if path]
    model, code = submission.model, imported_files(submission.folder, submission.code)
    inputs = [model, options.tests / "species.csv", *(submission.folder / name for name in code)]
    inputs += (path for test in find_tests(options.tests) for path in test.files)
    check_outputs([*outputs, options.tests / "results.json"], inputs)
    packed = model.stat().st_size if model.is_file() else 0
    for path in outputs:
        check_writable(path, 2**16 + packed * (path == options.pack))


def grade_sample(submission: Submission, options: argparse.Namespace) -> int:
    """Draw a sample, train on it from the backbone of the model at hand, which stays, and grade.

    Only this project's own training runs here: another submission's runs under the rules alone,
    so it is graded with the model that it has.
    """
    from birddata import drawn_sample

    drawn_sample.draw_sample(options.tests, seed=0)
    if submission.folder != ROOT:
        say("The submission is graded on it as it is: its model has not learnt these birds.")
        return grade_folder(submission, options)
    import train_full

    kept = ROOT / "report" / "sample"
    trained = kept / "birds_model.pt"
    say("Training on it, from the backbone of the model at hand:")
    words = ["--init", str(submission.model), "--out", str(trained), "--report", str(kept)]
    train_full.main([str(options.tests), *words])
    status = grade_folder(replace(submission, model=trained), options)
    say(f"The model and the report of the training are kept in {kept}")
    return status


def grade_folder(submission: Submission, options: argparse.Namespace) -> int:
    """Grade every test of the folder, and report; returns the exit status."""
    tests, names = find_tests(options.tests), read_species(options.tests / "species.csv")
    chosen = find_test(tests) if options.reproduce else None  # an error comes before the work
    results = []
    for result in grade_tests(submission, tests, options.tests / "results.json"):
        report.show_result(result, submission)
        results.append(result)
    metadata = Metadata.of(submission.model)
    report.show_model(metadata, results)
    report.show_errors(results[-1], names)
    if options.json:
        write_json(options.json, report.as_json(metadata, results))
    passed = all(result.ok for result in results)
    accuracy = results[-1].status.split()[-1]  # as the testing system rounds it
    if passed and float(accuracy) < options.require:
        say(f"Failed: {accuracy} is below the required {options.require:g}")
        passed = False
    if chosen and passed:
        passed = reproduce(submission, metadata, *chosen)
    if options.pack:
        passed = show_pack(options, submission, metadata, results, passed)
    grade = grade_results([result.entry() for result in results])
    say(f"Mark: {grade['mark']} {grade['description']}".rstrip())
    return 0 if passed else 1


def show_pack(
    options: argparse.Namespace,
    submission: Submission,
    metadata: Metadata,
    results: Sequence[TestResult],
    passed: bool,
) -> bool:
    """Write and verify the archive after a passing run; returns whether there is one now."""
    try:
        if not passed:
            raise PackError("only a submission that passes is packed")
        demonstration = metadata.is_demonstration([result.test for result in results])
        if demonstration and not options.demonstration:
            raise PackError(f"{report.DEMONSTRATION}; --demonstration packs it all the same")
        module = options.code.removesuffix(".py") if options.code else submission.module
        files = files_to_pack(submission, results, module)
        say("Grading the archive from an empty folder:")
        size = pack(options.pack, files, submission, results)
    except PackError as error:
        say(f"{options.pack} not written: {error}")
        return False
    say(f"{options.pack}: {size / 1e6:.1f} MB, {', '.join(files)}")
    return True
