"""The check of an answer, the grade, the limits."""

import pytest

from course.files import UserError
from course.layout import CheckerError, TestFolder
from grader.session import check_answer, grade, prepare_check_folder
from grader.staging import LIMITS
from run_tests import parse


def test_check_counts_rows_of_the_truth_only():
    assert check_answer({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0}) == (1, 2)
    with pytest.raises(CheckerError, match="lacks 'a' and 1 more"):
        check_answer({}, {"b": 1, "a": 1})
    with pytest.raises(CheckerError, match="no row"):
        check_answer({"a": 1}, {})


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]", '"Ok"', None])
def test_a_results_file_that_cannot_be_read_is_no_grade(tmp_path, content):
    if content:
        (tmp_path / "results.json").write_text(content)
    text = "is not a list of results" if content else "no such file"
    with pytest.raises(UserError, match=text):
        grade(tmp_path)


@pytest.mark.parametrize("file", ["00_a_check", "00_a_check/output"])
def test_a_file_in_the_place_of_the_check_folder_is_the_users_error(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(UserError, match="a part of its path is a file"):
        prepare_check_folder(TestFolder(tmp_path / "00_a_input"))


def test_the_limits_are_those_of_the_assignment_and_of_a_laptop():
    assert {LIMITS[phase] for phase in ("fast_train", "classify")} == {15 * 60}
    assert LIMITS["memory"] == 8  # GiB, so that a machine of 16 stays alive


@pytest.mark.parametrize(
    "change", ["clasify=60", "classify=0", "classify=-1", "classify", "classify=x", "classify=nan"]
)
def test_a_wrong_limit_is_refused(change, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(["--limit", change])
    assert "argument --limit" in capsys.readouterr().err
