"""Folders, csv files and the check."""

import json
import os

import pytest

from grader.limits import LIMITS, limits_with
from grader.protocol import (
    CheckerError,
    GraderError,
    TestFolder,
    check_answer,
    check_test,
    find_tests,
    grade,
    prepare_check_folder,
    read_csv,
    save_csv,
    write_json,
    written,
)


def test_tests_are_found_in_order(tmp_path):
    for name in ("01_b_input", "00_test_img_input", "00_test_img_gt", "1_x_input", "species.csv"):
        (tmp_path / name).mkdir()
    tests = find_tests(tmp_path)
    assert [test.number for test in tests] == ["00", "01"]
    assert tests[0].gt == tmp_path / "00_test_img_gt"
    assert tests[0].check == tmp_path / "00_test_img_check"
    assert find_tests(tmp_path / "nowhere") == []


def test_csv_is_written_sorted_and_read_back(tmp_path):
    answer = {"b.jpg": 2, "a,b.jpg": -7, "ä.jpg": 1000}
    save_csv(answer, tmp_path / "new" / "output.csv")
    content = (tmp_path / "new" / "output.csv").read_bytes()
    assert content == "filename,class_id\na,b.jpg,-7\nb.jpg,2\nä.jpg,1000\n".encode()
    assert read_csv(tmp_path / "new" / "output.csv") == answer


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "begins with ''"),
        ("name,id\na,1\n", "begins with 'name,id'"),
        ("filename,class_id\na.jpg,1\nb.jpg,one\n", "line 3: 'b.jpg,one'"),
        ("filename,class_id\na.jpg,1.0\n", "line 2: 'a.jpg,1.0'"),
        ("filename,class_id\na.jpg\n", "line 2: 'a.jpg'"),
    ],
)
def test_a_bad_csv_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "gt.csv"
    path.write_text(content)
    with pytest.raises(CheckerError, match="gt") as caught:
        read_csv(path)
    assert message in str(caught.value)


def test_a_missing_csv_is_a_checker_error(tmp_path):
    with pytest.raises(CheckerError, match="no file"):
        read_csv(tmp_path / "gt.csv")


def test_check_counts_rows_of_the_truth_only():
    assert check_answer({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0}) == (1, 2)
    with pytest.raises(CheckerError, match="lacks 'a' and 1 more"):
        check_answer({}, {"b": 1, "a": 1})
    with pytest.raises(CheckerError, match="no row"):
        check_answer({"a": 1}, {})


def test_check_test_reads_the_check_folder(tmp_path):
    save_csv({"a": 1, "b": 1, "c": 5}, tmp_path / "output" / "output.csv")
    save_csv({"a": 1, "b": 2, "c": 5}, tmp_path / "gt" / "gt.csv")
    assert check_test(tmp_path) == "Ok, accuracy 0.6667"


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]", '"Ok"'])
def test_a_broken_results_file_is_no_grade(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(GraderError, match="results"):
        grade(tmp_path)


def test_no_results_file_is_no_grade(tmp_path):
    with pytest.raises(GraderError, match="run the tests first"):
        grade(tmp_path)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, [1])
    with pytest.raises(FileNotFoundError), written(path) as temporary:
        temporary.with_name("elsewhere").rename(temporary)
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_who_holds_the_old_file_keeps_it(tmp_path):
    """Written in place, a file would be half of the new one and half of the old for a while."""
    path, held = tmp_path / "results.json", tmp_path / "held"
    write_json(path, [1])
    held.hardlink_to(path)
    write_json(path, [2])
    assert (json.loads(held.read_text()), json.loads(path.read_text())) == ([1], [2])


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_others_may_read_what_is_written(tmp_path):
    write_json(tmp_path / "results.json", [])
    save_csv({}, tmp_path / "output.csv")
    modes = [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()]
    assert modes == [0o644, 0o644]


def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GraderError, match="cannot be written"):
        write_json(tmp_path / "file" / "results.json", [])


@pytest.mark.parametrize(
    "write", [lambda path: write_json(path, []), lambda path: save_csv({}, path)]
)
def test_a_folder_in_the_place_of_a_file_is_the_users_error(tmp_path, write):
    (tmp_path / "results").mkdir()
    with pytest.raises(GraderError, match="is a folder"):
        write(tmp_path / "results")
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_a_results_file_that_is_a_folder_is_no_grade(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(GraderError, match="move it away"):
        grade(tmp_path)


@pytest.mark.parametrize("file", ["00_a_check", "00_a_check/output"])
def test_a_file_in_the_place_of_the_check_folder_is_the_users_error(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(GraderError, match="in the way"):
        prepare_check_folder(TestFolder(tmp_path / "00_a_input"))


def test_the_limits_are_those_of_the_assignment_and_of_a_laptop():
    assert {LIMITS[phase] for phase in ("fast_train", "classify")} == {15 * 60}
    assert LIMITS["memory"] == 8  # GiB, so that a machine of 16 stays alive


def test_limits_are_changed_by_name():
    assert limits_with(["classify=60", "memory=0.5"]) == {**LIMITS, "classify": 60, "memory": 0.5}


@pytest.mark.parametrize(
    "change", ["clasify=60", "classify=0", "classify=-1", "classify", "classify=x", "classify=nan"]
)
def test_a_wrong_limit_is_refused(change):
    with pytest.raises(GraderError, match="--limit"):
        limits_with([change])
