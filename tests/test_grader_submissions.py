"""Submissions, good and bad: each must get exactly its result, in both layers, and in the box.

The box is what the course's steps say in a read-only box without network: tests/submissions/box.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from submissions.course import (
    FIXTURES,
    copy_submission,
    expected,
    fixture_names,
    make_test,
    processes_of,
)
from submissions.habits import HABITS

from course.check import check_answer
from course.layout import CheckerError, find_tests, read_csv
from course.marks import grade_results
from grader.hints import hint
from grader.process import run as run_submission
from grader.report import foreign_lines
from grader.sandbox import why_no_sandbox
from grader.session import grade_tests
from grader.staging import _KEPT_PREFIXES, LIMITS, Submission

LITTER = ("/tmp/birds_native.txt", "/tmp/birds_native_folder", "/tmp/birds_remounted.txt")
MUST_NOT_STAY = {
    **dict.fromkeys(("writers", "torch_save_after_workers"), "/tmp/birds_state.pt"),
    "shared_memory_file": "/dev/shm/birds.npy",
    "shared_memory_in_background": "/dev/shm/birds_late.npy",
}
# Without the grader's limits, these run for ever or take the machine's memory.
ENDLESS = {"hang", "endless_output", "memory_hog"}
ENDLESS |= {name for name, habit in HABITS.items() if habit.box in ("hangs", "differs")}
NAMES = [*fixture_names(), *HABITS]


def wanted(name, layer="os"):
    """What the grader must say of a fixture or a habit."""
    if name not in HABITS:
        return expected(name, layer)
    facts = asdict(HABITS[name])
    facts |= facts["portable"] if layer == "portable" else {}
    return facts | {"needs": facts["needs"].split()}


def write(name, folder):
    write_it = HABITS[name].write if name in HABITS else lambda to: copy_submission(name, to)
    return write_it(folder).resolve()


def with_slow_ones(names):
    """Those that import a library of the course's take seconds: marked as slow."""
    slow = {name: not set(wanted(name).get("needs", [])) <= {"numpy"} for name in names}
    return [pytest.param(n, marks=pytest.mark.slow) if slow[n] else n for n in names]


@pytest.fixture(params=["portable", "os"])
def layer(request):
    if request.param == "os" and why_no_sandbox():
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    return request.param


@pytest.fixture
def tidy():
    """What native code may write without the box is gone before and after."""
    remove_litter()
    yield
    remove_litter()


def remove_litter():
    for path in map(Path, LITTER):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def skip_where_it_cannot_run(name):
    if os.name != "posix":
        pytest.skip("needs POSIX")
    for library in wanted(name).get("needs", []):
        if find_spec(library) is None:
            pytest.skip(f"needs {library}")


def like(text, pattern):
    """Whether a text is the pattern, in which a star stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL) is not None


def all_like(texts, patterns):
    texts = list(map(str, texts))
    assert len(texts) == len(patterns), texts
    assert all(map(like, texts, patterns)), texts


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", with_slow_ones(NAMES))
def test_a_submission_gets_exactly_its_result(name, layer, tmp_path, monkeypatch):
    skip_where_it_cannot_run(name)
    run = uuid.uuid4().hex
    monkeypatch.setenv("LC_BIRDS_TEST_RUN", run)
    monkeypatch.setenv("LC_BIRDS_HOME", str(tmp_path))
    (tmp_path / "weights.pth").write_text("weights")
    want = wanted(name, layer)
    folder = write(name, tmp_path / "code")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    tests = find_tests(make_test(tmp_path / "tests"))
    limits = {**LIMITS, "import": 600, **want.get("limits", {})}  # on a machine that is busy
    submission = Submission.at(folder, limits=limits, use_sandbox=layer == "os")

    [result] = grade_tests(submission, tests, tmp_path / "results.json")

    if want.get("as_box"):
        status = box_status(submission, tests[0], tmp_path)
        want = {"status": status, "message": "" if status.startswith("Ok") else "*", **want}
    messages = want["message"] if isinstance(want["message"], list) else [want["message"]]
    messages = [text.replace("{folder}", str(folder)) for text in messages]
    print(result.outcome.log)
    message = str(result.outcome.problem or "")
    assert any(like(message, text) for text in messages), message
    assert result.status == want["status"]
    if "mark" in want:
        assert grade_results([result.entry()])["mark"] == want["mark"]
    outcome = result.outcome
    if want.get("warnings", []) is not None:  # None: those of a compiler that it starts
        all_like(outcome.warnings, want.get("warnings", []))
    all_like(outcome.swallowed_refusals, want.get("refusals", []))
    all_like(outcome.notes, want.get("notes", []))
    all_like(foreign_lines(outcome), want.get("foreign", []))
    if outcome.problem:
        _, remedy = hint(outcome.problem, outcome, submission)
        assert want.get("remedy", "") in remedy
    assert ("time" in result.entry()) == result.ok
    assert (tests[0].check / "output" / "output.csv").exists() == (result.status != "Runtime error")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not Path(MUST_NOT_STAY.get(name, "/no/such")).exists()
    assert not processes_of(run)


# ---- the differential test: the box itself ----


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", with_slow_ones([n for n in NAMES if n not in ENDLESS]))
def test_the_verdict_is_that_of_the_box(name, tmp_path):
    """What the grader says of a fixture, the course's steps say in a box, where nothing else is.

    Where the grader is stricter, on purpose, the fixture's file names the box's verdict: "box".
    """
    skip_where_it_cannot_run(name)
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    want = wanted(name)
    folder = write(name, tmp_path / "code")
    [test] = find_tests(make_test(tmp_path / "tests"))
    status = box_status(Submission.at(folder), test, tmp_path)
    if want.get("as_box"):
        assert status in ("Ok, accuracy 1.0000", "Runtime error")
    else:
        assert status == (want.get("box") or want["status"])


def box_status(submission, test, tmp_path):
    """The verdict of the course's own steps, as a bare process in a read-only box."""
    done = run_box(submission, test, tmp_path)
    print(done.stderr.decode(errors="replace"))
    if done.returncode:
        return "Runtime error"
    try:
        answer = read_csv(tmp_path / "out" / "output.csv", empty_names=True)
        truth = read_csv(test.gt / "gt.csv")
        correct, total = check_answer(answer, truth)
    except CheckerError:
        return "Checker error"
    return f"Ok, accuracy {correct / total:.4f}"


def run_box(submission, test, tmp_path):
    code = tmp_path / "beside the script"
    shutil.copytree(submission.folder, code)
    shutil.copy(FIXTURES / "script.py", code / "run.py")
    module = submission.code.partition("/")[0].removesuffix(".py")
    script = (code / "run.py").read_text()
    (code / "run.py").write_text(script.replace("solution", module))
    out, current = tmp_path / "out", tmp_path / "current"
    out.mkdir()
    current.mkdir()
    # /dev/shm is memory: worker processes are known to work in the testing system.
    options = "--die-with-parent --unshare-all --ro-bind / / --proc /proc --dev /dev --cap-drop ALL"
    hidden = ("--tmpfs", "/run", "--remount-ro", "/run")
    box = ["bwrap", *options.split(), *hidden, "--bind", str(out), str(out)]
    words = ["run_single_test", str(test.input), str(out)]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [
            *box,
            "--chdir",
            str(current),
            "--",
            sys.executable,
            "-X",
            "utf8",
            str(code / "run.py"),
            *words,
        ],
        env={**kept, "TMPDIR": "/dev/shm", "HOME": str(current), "CHECKER": "1"},
        capture_output=True,
        check=False,
    )


ASKS = """
import __main__, json, os, sys
def facts():
    return {
        "argv": [os.path.basename(word) for word in sys.argv[:3]], "words": len(sys.argv),
        "main": sorted(name for name in vars(__main__) if name not in OWN),
        "file": os.path.basename(__main__.__file__),
        "beside": sorted(os.listdir(os.path.dirname(__main__.__file__))),
        "path": len(sys.path),
        "first": os.path.samefile(sys.path[0], os.path.dirname(__main__.__file__)),
        "streams": [(s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "flags": str(sys.flags), "options": sys._xoptions, "limit": sys.getrecursionlimit(),
        "environment": sorted(set(os.environ) - {"TEMP", "TMP", "LANG", "LC_CTYPE"}),
        "modules": sorted(sys.modules), "here": os.listdir(), "hooks": len(sys.path_hooks),
    }
OWN = {"os", "sys", "audit", "read_csv", "save_csv", "main", "MODES", "train", "classify_only",
       "run_single_test", "_classify"}
before = facts()
"""
TELLS = """
import sys
print("FACTS", json.dumps(before))
"""


def test_what_a_submission_finds_is_what_it_finds_in_the_box(tmp_path):
    """Its words, `__main__`, streams, flags, variables, modules: the hook is all that differs."""
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    folder = write("good", tmp_path / "code")
    code = (folder / "solution.py").read_text()
    (folder / "solution.py").write_text(f"{ASKS}\n{code}\n{TELLS}")
    [test] = find_tests(make_test(tmp_path / "tests"))
    done = run_box(Submission.at(folder), test, tmp_path)
    outcome = run_submission("run_single_test", Submission.at(folder), test.input, tmp_path)
    found = []
    for text in (done.stdout.decode(), outcome.log):
        [line] = [line for line in text.splitlines() if line.startswith("FACTS")]
        found.append(json.loads(line.removeprefix("FACTS")))
    box, here = found
    assert here.pop("beside") == sorted([*box.pop("beside"), "run_tests.py"])
    kept = ("LANGUAGE", "SHELL", "TERM", "TZ", "USER", "LOGNAME", "VIRTUAL_ENV", *_KEPT_PREFIXES)
    more = set(here.pop("environment")) - set(box.pop("environment"))
    assert all(name.startswith(kept) for name in more), more
    assert set(here.pop("modules")) - set(box.pop("modules")) <= {"errno"}
    assert {k: (here[k], box[k]) for k in here if here[k] != box[k]} == {}
