"""Submissions, good and bad: each must get exactly its expected result, in both layers.

And it must be that of the box: what the course's five steps say in a read-only box without network.
"""

import os
import re
import shutil
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest
from submissions.course import FIXTURES, copy_submission, expected, fixture_names, make_test

from course.layout import CheckerError, find_tests, read_csv
from course.marks import grade_results
from grader.advice import advice
from grader.check import check_answer
from grader.limits import LIMITS
from grader.sandbox import why_no_sandbox
from grader.session import Submission, grade_tests

POSIX_ONLY = {"forks_twice", "killed", "lingering_fork", "worker_processes", "loader_workers"}
POSIX_ONLY |= {name for name in fixture_names() if name.startswith("native")} | {"memory_hog"}
POSIX_ONLY |= {name for name in fixture_names() if "shared" in name}
LITTER = ("/tmp/birds_native.txt", "/tmp/birds_native_folder", "/tmp/birds_state.pt")
LITTER += ("/dev/shm/birds.npy", "/dev/shm/birds_late.npy")
# Without the grader's limits, these run for ever or take the machine's memory.
ENDLESS = {"hang", "endless_output", "memory_hog"}


def with_slow_ones(names):
    """Those that import a library of the course's take seconds: marked as slow."""
    slow = {name: "needs" in expected(name) and expected(name)["needs"] != ["numpy"]
            for name in names}  # fmt: skip
    return [pytest.param(n, marks=pytest.mark.slow) if slow[n] else n for n in names]


@pytest.fixture(params=["portable", "os"])
def layer(request):
    if request.param == "os" and why_no_sandbox():
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    return request.param


@pytest.fixture
def tidy():
    remove_litter()
    yield
    left = [path for path in LITTER[2:] if Path(path).exists()]
    remove_litter()
    assert left == []


def remove_litter():
    for path in map(Path, LITTER):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def skip_where_it_cannot_run(name):
    if name in POSIX_ONLY and os.name != "posix":
        pytest.skip("needs POSIX")
    for library in expected(name).get("needs", []):
        if find_spec(library) is None:
            pytest.skip(f"needs {library}")


def like(text, pattern):
    """Whether a text is the pattern, in which a star stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", with_slow_ones(fixture_names()))
def test_a_submission_gets_exactly_its_result(name, layer, tmp_path, monkeypatch):
    skip_where_it_cannot_run(name)
    run = uuid.uuid4().hex
    monkeypatch.setenv("BIRDS_TEST_RUN", run)
    want = expected(name, layer)
    folder = copy_submission(name, tmp_path / "code").resolve()
    before = sorted(folder.iterdir())
    tests = find_tests(make_test(tmp_path / "tests"))
    limits = {**LIMITS, "import": 600, **want.get("limits", {})}  # on a machine that is busy
    submission = Submission.at(folder, limits=limits, use_sandbox=layer == "os")

    [result] = grade_tests(submission, tests, tmp_path / "results.json")

    if want.get("as_box"):
        status = box_status(submission, tests[0], tmp_path)
        want = {"status": status, "message": "" if status.startswith("Ok") else "*", **want}
    messages = want["message"] if isinstance(want["message"], list) else [want["message"]]
    messages = [text.replace("{folder}", str(folder)) for text in messages]
    assert any(like(result.message, text) for text in messages), result.message
    assert result.status == want["status"]
    if "mark" in want:
        assert grade_results([result.entry()])["mark"] == want["mark"]
    assert result.outcome.warnings == want.get("warnings", [])
    refusals = [str(refusal) for refusal in result.outcome.survived]
    assert len(refusals) == len(want.get("refusals", [])), refusals
    assert all(map(like, refusals, want.get("refusals", []))), refusals
    if result.problem:
        _, cure = advice(result.problem, folder, limits)
        assert want.get("advice", "") in cure
    assert ("time" in result.entry()) == result.ok
    assert (tests[0].check / "output" / "output.csv").exists() == (result.status != "Runtime error")
    assert sorted(folder.iterdir()) == before
    assert not processes_of(run)


def processes_of(run):
    """Processes that inherited this test's variable: only Linux tells."""
    if sys.platform != "linux":
        return []
    mark, found = f"BIRDS_TEST_RUN={run}".encode(), []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return [pid for pid in found if int(pid) != os.getpid()]


# ---- the differential test: the box itself ----


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", with_slow_ones(sorted(set(fixture_names()) - ENDLESS)))
def test_the_verdict_is_that_of_the_box(name, tmp_path):
    """What the grader says of a fixture, the course's steps say in a box, where nothing else is.

    Where the grader is stricter, on purpose, the fixture's file names the box's verdict: "box".
    """
    skip_where_it_cannot_run(name)
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    want = expected(name, "os")
    folder = copy_submission(name, tmp_path / "code").resolve()
    [test] = find_tests(make_test(tmp_path / "tests"))
    status = box_status(Submission.at(folder), test, tmp_path)
    if want.get("as_box"):
        assert status in ("Ok, accuracy 1.0000", "Runtime error")
    else:
        assert status == want.get("box", want["status"])


def box_status(submission, test, tmp_path):
    """The verdict of the course's own steps, as a bare process in a read-only box."""
    code = tmp_path / "beside the script"
    shutil.copytree(submission.folder, code)
    shutil.copy(FIXTURES / "script.py", code / "run.py")
    out, current = tmp_path / "out", tmp_path / "current"
    out.mkdir()
    current.mkdir()
    # /dev/shm is memory: worker processes are known to work in the testing system.
    options = "--die-with-parent --unshare-all --ro-bind / / --proc /proc --dev /dev"
    box = ["bwrap", *options.split(), "--bind", str(out), str(out), "--chdir", str(current), "--"]
    module, model = submission.code.removesuffix(".py"), str(code / submission.model.name)
    words = [module, model, str(test.input), str(out / "output.csv")]
    caches = {"TORCH_HOME": str(tmp_path / "torch"), "HF_HOME": str(tmp_path / "huggingface")}
    done = subprocess.run(
        [*box, sys.executable, "-B", str(code / "run.py"), *words],
        env={**os.environ, **caches, "TMPDIR": "/dev/shm"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    print(done.stderr.decode(errors="replace"))
    if done.returncode:
        return "Runtime error"
    try:
        answer, truth = read_csv(out / "output.csv"), read_csv(test.gt / "gt.csv")
        correct, total = check_answer(answer, truth)
    except CheckerError:
        return "Checker error"
    return f"Ok, accuracy {correct / total:.4f}"
