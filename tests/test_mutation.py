"""The faults that tests/mutation tries: they fit the project, and leave it as it was."""

from tests.mutation import FAULTS
from tests.mutation.__main__ import chosen, main
from tests.mutation.fault import Fault
from tests.mutation.trial import ROOT


def test_every_fault_fits_the_project_and_changes_it():
    assert [problem for fault in FAULTS if (problem := fault.problem(ROOT))] == []
    assert [str(fault) for fault in FAULTS if fault.text == fault.replacement] == []
    assert len({(fault.file, fault.text, fault.replacement) for fault in FAULTS}) == len(FAULTS)
    for path in {path.partition("::")[0] for fault in FAULTS for path in fault.paths}:
        assert (ROOT / path).is_file()


def test_a_fault_is_put_in_and_taken_out(tmp_path):
    (tmp_path / "a.py").write_text("one\ntwo\n")
    fault = Fault("a.py", "two", "three", "the second line", "test_a.py")
    with fault.within(tmp_path):
        assert (tmp_path / "a.py").read_text() == "one\nthree\n"
    assert (tmp_path / "a.py").read_text() == "one\ntwo\n"


def test_a_text_that_is_gone_or_there_twice_is_named(tmp_path):
    (tmp_path / "a.py").write_text("one\none\n")
    for text, count in (("two", 0), ("one", 2)):
        problem = Fault("a.py", text, "", "something", "test_a.py").problem(tmp_path)
        assert f"a.py: something: found {count} times" in problem
        assert repr(text) in problem


def test_a_share_is_chosen_by_its_seed():
    shares = [chosen(5, seed, "") for seed in (0, 0, 1)]
    assert shares[0] == shares[1] != shares[2]
    assert len(shares[0]) == round(len(FAULTS) / 5)
    assert {fault.file for fault in chosen(1, 0, "train_full.py")} == {"train_full.py"}


def test_a_stale_fault_ends_the_program(monkeypatch, capsys):
    monkeypatch.setattr("tests.mutation.__main__.FAULTS", [Fault("a.py", "x", "y", "all", "t.py")])
    assert main([]) == 2
    assert "a.py: all" in capsys.readouterr().err
