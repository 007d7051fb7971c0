"""The faults that tests/mutation tries: they fit the project, and leave it as it was."""

import pytest

from tests.mutation.__main__ import chosen, main
from tests.mutation.fault import Fault, span_of
from tests.mutation.faults import FAULTS
from tests.mutation.trial import ROOT

SOURCE = """\
LIMIT = 1
@decorated
def one():
    return call(1,
                2)

class Two:
    def one(self):
        return 3
"""


def test_every_fault_fits_the_project_and_its_tests_exist():
    assert [problem for fault in FAULTS if (problem := fault.problem(ROOT))] == []
    assert len({(fault.where, fault.text) for fault in FAULTS}) == len(FAULTS)
    for path in {path for fault in FAULTS for path in fault.paths}:
        file, _, test = path.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test.partition('[')[0]}(" in source, path


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("LIMIT", 1, 1), ("one", 2, 5), ("Two", 7, 9), ("Two.one", 8, 9)],
)
def test_a_place_is_a_definition(name, first, last):
    start, end = span_of(SOURCE, name)
    lines = SOURCE.splitlines(keepends=True)
    assert SOURCE[start:end] == "".join(lines[first - 1 : last])


def test_a_fault_is_put_in_however_lines_are_broken_and_taken_out(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    fault = Fault("a.py:one", "call(1, 2)", "None", "the call", "test_a.py")
    with fault.within(tmp_path):
        source = (tmp_path / "a.py").read_text()
    assert source == SOURCE.replace("call(1,\n                2)", "None")
    assert (tmp_path / "a.py").read_text() == SOURCE


@pytest.mark.parametrize(
    ("where", "text", "problem"),
    [
        ("a.py:LIMIT", "1", None),
        ("a.py:one", "3", "found 0 times"),
        ("a.py:one", "o", "found 2 times"),
        ("a.py:three", "1", "there is no such place"),
        ("b.py:one", "1", "there is no such place"),
    ],
)
def test_a_fault_that_does_not_fit_is_named(where, text, problem, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    found = Fault(where, text, "", "something", "test_a.py").problem(tmp_path)
    assert (found is None) == (problem is None)
    assert problem is None or f"{where}: something: {problem}" in found


def test_a_share_is_chosen_by_its_seed():
    shares = [chosen(5, seed, "") for seed in (0, 0, 1)]
    assert shares[0] == shares[1] != shares[2]
    assert len(shares[0]) == round(len(FAULTS) / 5)
    assert {fault.file for fault in chosen(1, 0, "train_full.py")} == {"train_full.py"}


def test_a_stale_fault_ends_the_program(monkeypatch, capsys):
    stale = [Fault("a.py:one", "x", "y", "all", "t.py")]
    monkeypatch.setattr("tests.mutation.__main__.FAULTS", stale)
    assert main([]) == 2
    assert "a.py:one: all" in capsys.readouterr().err
