"""Bad submissions: each must get exactly its expected result, with and without the sandbox."""

import os
import shutil
import sys
import uuid
from pathlib import Path

import pytest
from submissions.course import copy_submission, expected, fixture_names, make_test

from grader.limits import LIMITS
from grader.marks import grade_results
from grader.protocol import find_tests
from grader.sandbox import why_no_sandbox
from grader.session import Submission, grade_tests

POSIX_ONLY = {"forks_twice", "killed", "lingering_fork", "worker_processes"}
POSIX_ONLY |= {"memory_hog", "native_mkdir", "native_write", "native_write_here"}
LITTER = (Path("/tmp/birds_native.txt"), Path("/tmp/birds_native_folder"))


@pytest.fixture(params=["portable", "os"])
def layer(request):
    if request.param == "os" and why_no_sandbox():
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    return request.param


@pytest.fixture
def tidy():
    remove_litter()
    yield
    remove_litter()


def remove_litter():
    for path in LITTER:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", fixture_names())
def test_a_submission_gets_exactly_its_result(name, layer, tmp_path, monkeypatch):
    if name in POSIX_ONLY and os.name != "posix":
        pytest.skip("needs POSIX")
    run = uuid.uuid4().hex
    monkeypatch.setenv("BIRDS_TEST_RUN", run)
    want = expected(name, layer)
    folder = copy_submission(name, tmp_path / "code").resolve()
    before = sorted(folder.iterdir())
    tests = find_tests(make_test(tmp_path / "tests"))
    limits = {**LIMITS, **want.get("limits", {})}
    submission = Submission.at(folder, limits=limits, use_sandbox=layer == "os")

    [result] = grade_tests(submission, tests, tmp_path / "results.json")

    messages = want["message"] if isinstance(want["message"], list) else [want["message"]]
    assert result.message in [text.replace("{folder}", str(folder)) for text in messages]
    assert result.status == want["status"]
    assert grade_results([result.entry()])["mark"] == want["mark"]
    assert result.outcome.warnings == want.get("warnings", [])
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
