"""The faults that tests/mutation tries: they fit the project, and the program says where not."""

import re

import pytest

from tests.mutation.__main__ import chosen, main
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.trial import ROOT

SOURCE = "def one():\n    return call(1,\n                2)\n"


def test_every_fault_fits_the_project_and_its_tests_exist():
    assert [problem for fault in FAULTS if (problem := fault.problem(ROOT))] == []
    assert len({(fault.file, fault.text) for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        file, part = fault.test.split("::")
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"def test_\w*{part}", source), fault.test


def test_a_fault_is_put_in_however_lines_are_broken(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    fault = Fault("a.py", "call(1, 2)", r"\1", "the call", "test_a.py::one")
    assert fault.broken(tmp_path) == "def one():\n    return \\1\n"


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("a.py", "1", None),
        ("a.py", "3", "found 0 times"),
        ("a.py", "l", "found 2 times"),
        ("b.py", "1", "No such file"),
    ],
)
def test_a_fault_that_does_not_fit_is_named(file, text, problem, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    found = Fault(file, text, "", "something", "test_a.py::one").problem(tmp_path)
    assert (found is None) == (problem is None)
    assert problem is None or (f"{file}: something: " in found and problem in found)


def test_a_share_is_chosen_by_its_seed():
    shares = [chosen(5, seed, "") for seed in (0, 0, 1)]
    assert shares[0] == shares[1] != shares[2]
    assert len(shares[0]) == round(len(FAULTS) / 5)
    assert {fault.file for fault in chosen(1, 0, "train_full.py")} == {"train_full.py"}


def test_a_stale_fault_ends_the_program(monkeypatch, capsys):
    stale = [Fault("a.py", "x", "y", "all", "t.py::one")]
    monkeypatch.setattr("tests.mutation.__main__.FAULTS", stale)
    assert main([]) == 2
    assert "a.py: all" in capsys.readouterr().err
