"""Submissions, good and bad: each must get exactly its result, in both layers, and in the box.

The box runs what the course's steps say in a read-only box without network: run_box.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from submissions.course import FIXTURES, make_test, processes_of
from submissions.habits import HABITS, RULES

from course.layout import CheckerError, find_tests
from grader.hints import hint
from grader.process import run as run_submission
from grader.report import foreign_lines
from grader.sandbox import why_no_sandbox
from grader.session import check_test, grade_tests
from grader.staging import KEPT, LIMITS, Submission


def cases():
    """Each habit in the strongest layer; what is a matter of the rules in the other one, too."""
    return [
        pytest.param(name, layer, marks=marks(habit))
        for name, habit in HABITS.items()
        for layer in (("os", "portable") if name in RULES else ("os",))
    ]


def marks(habit):
    return pytest.mark.slow if habit.needs and not habit.fast else ()


@pytest.fixture
def habit(name):
    """The habit of that name, if it can be run here; what it litters is gone before and after."""
    habit = HABITS[name]
    if os.name != "posix":
        pytest.skip("needs POSIX")
    for library in habit.needs:
        if find_spec(library) is None:
            pytest.skip(f"needs {library}")
    remove(habit.litter)
    yield habit
    remove(habit.litter)


def remove(litter):
    if litter:
        shutil.rmtree(litter, ignore_errors=True)
        Path(litter).unlink(missing_ok=True)


def like(text, pattern):
    """Whether a text is the pattern, in which a star stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL) is not None


def all_like(texts, patterns):
    texts = list(map(str, texts))
    assert len(texts) == len(patterns), texts
    assert all(map(like, texts, patterns)), texts


@pytest.mark.parametrize(("name", "layer"), cases())
def test_a_submission_gets_exactly_its_result(name, habit, layer, tmp_path, monkeypatch):
    if why_no_sandbox() and layer == "os" and name in RULES:
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    run = uuid.uuid4().hex
    monkeypatch.setenv("LC_BIRDS_TEST_RUN", run)
    monkeypatch.setenv("LC_BIRDS_HOME", str(tmp_path))
    (tmp_path / "weights.pth").write_text("weights")
    want = replace(habit, **habit.portable) if layer == "portable" else habit
    folder = habit.write(tmp_path / "code").resolve()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    [test] = find_tests(make_test(tmp_path / "tests"))
    limits = {**LIMITS, "import": 600, **want.limits}  # on a machine that is busy
    submission = Submission.at(folder, limits=limits, use_sandbox=layer == "os")

    [result] = grade_tests(submission, [test], tmp_path / "results.json")

    outcome, messages = result.outcome, want.message
    print(outcome.log)
    message = str(outcome.problem or "")
    messages = [messages] if isinstance(messages, str) else messages
    assert any(like(message, text.replace("{folder}", str(folder))) for text in messages), message
    assert result.status == want.verdict
    if want.warnings is not None:
        all_like(outcome.warnings, want.warnings)
    all_like(outcome.swallowed_refusals, want.refusals)
    all_like(outcome.notes, want.notes)
    all_like(foreign_lines(outcome), want.foreign)
    if outcome.problem:
        assert want.remedy in hint(outcome.problem, submission)[1]
    assert ("time" in result.entry()) == result.ok
    assert (test.check / "output" / "output.csv").exists() == (result.status != "Runtime error")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not processes_of(run)
    if not (want.portable and layer == "portable"):  # native code writes without the box
        assert not want.litter or not Path(want.litter).exists()


# ---- the differential test: the box itself ----


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=marks(habit))
        for name, habit in HABITS.items()
        # Without the grader's limits, some run for ever or take the machine's memory.
        if habit.box not in ("hangs", "differs")
    ],
)
def test_the_verdict_is_that_of_the_box(name, habit, tmp_path):
    """What the grader says of a habit, the course's steps say in a box, where nothing else is.

    Where the grader is stricter, on purpose, the habit names the box's verdict: `box`.
    """
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    folder = habit.write(tmp_path / "code")
    [test] = find_tests(make_test(tmp_path / "tests"))
    done = run_box(Submission.at(folder), test, tmp_path)
    print(done.stderr.decode(errors="replace"))
    shutil.copytree(test.gt, tmp_path / "box" / "gt")
    try:
        status = "Runtime error" if done.returncode else check_test(tmp_path / "box")
    except CheckerError:
        status = "Checker error"
    assert status == (habit.box or habit.verdict)


def run_box(submission, test, tmp_path):
    """Take the course's own steps as a bare process in a read-only box."""
    code, out, current = tmp_path / "beside the script", tmp_path / "box/output", tmp_path / "here"
    shutil.copytree(submission.folder, code)
    script = (FIXTURES / "script.py").read_text()
    (code / "run.py").write_text(script.replace("solution", submission.module))
    out.mkdir(parents=True)
    current.mkdir()
    # /dev/shm is memory: worker processes are known to work in the testing system.
    options = "--die-with-parent --unshare-all --ro-bind / / --proc /proc --dev /dev --cap-drop ALL"
    options += f" --tmpfs /run --remount-ro /run --bind {out} {out} --chdir {current} --"
    words = [sys.executable, "-X", "utf8", str(code / "run.py"), "run_single_test"]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        ["bwrap", *options.split(), *words, str(test.input), str(out)],
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
OWN = {"os", "sys", "audit", "read_csv", "save_csv", "main", "train", "run_single_test"}
print("FACTS", json.dumps(facts()))
"""


def test_what_a_submission_finds_is_what_it_finds_in_the_box(tmp_path):
    """Its words, `__main__`, streams, flags, variables, modules: the hook is all that differs."""
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    folder = HABITS["good"].write(tmp_path / "code")
    code = (folder / "solution.py").read_text()
    (folder / "solution.py").write_text(f"{ASKS}\n{code}")
    [test] = find_tests(make_test(tmp_path / "tests"))
    done = run_box(Submission.at(folder), test, tmp_path)
    outcome = run_submission("run_single_test", Submission.at(folder), test.input, tmp_path)
    found = []
    for text in (done.stdout.decode(), outcome.log):
        [line] = [line for line in text.splitlines() if line.startswith("FACTS")]
        found.append(json.loads(line.removeprefix("FACTS")))
    box, here = found
    assert here.pop("beside") == sorted([*box.pop("beside"), "run_tests.py"])
    more = set(here.pop("environment")) - set(box.pop("environment"))
    assert all(name.startswith(KEPT) for name in more), more
    assert set(here.pop("modules")) - set(box.pop("modules")) <= {"errno"}
    assert {k: (here[k], box[k]) for k in here if here[k] != box[k]} == {}
