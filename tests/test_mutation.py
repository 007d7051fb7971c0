"""The faults that tests/mutation tries: they fit the project, and the program says where not."""

import re

from tests.mutation.__main__ import main
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.trial import ROOT


def test_every_fault_fits_the_project_and_its_tests_exist():
    assert [problem for fault in FAULTS if (problem := fault.problem(ROOT))] == []
    assert len({(fault.file, fault.text) for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        file, part = fault.test.split("::")
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"def test_\w*{part}", source), fault.test


def test_a_fault_is_put_in_however_lines_are_broken(tmp_path):
    (tmp_path / "a.py").write_text("def one():\n    return call(1,\n                2)\n")
    fault = Fault("a.py", "call(1, 2)", r"\1", "the call", "test_a.py::one")
    assert fault.broken(tmp_path) == "def one():\n    return \\1\n"


def test_a_stale_fault_ends_the_program(monkeypatch, capsys):
    stale = [Fault("a.py", "x", "y", "all", "t.py::one")]
    monkeypatch.setattr("tests.mutation.__main__.FAULTS", stale)
    assert main([]) == 2
    assert "a.py: all" in capsys.readouterr().err
