"""Files that are whole, the course's csv files, marks and intervals."""

import json
import math
import os
from pathlib import Path

import pytest

from course.files import UserError, atomic_write, check_outputs, check_writable, write_json
from course.layout import find_tests, read_csv, save_csv
from course.marks import (
    THRESHOLDS,
    accuracy_text,
    grade_results,
    mark_of,
    mark_probabilities,
    wilson_interval,
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
    answer = {"b.jpg": 2, "a b.jpg": -7, "ä.jpg": 1000}
    save_csv(answer, tmp_path / "new" / "output.csv")
    content = (tmp_path / "new" / "output.csv").read_bytes()
    assert content == "filename,class_id\na b.jpg,-7\nb.jpg,2\nä.jpg,1000\n".encode()
    assert read_csv(tmp_path / "new" / "output.csv") == answer


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, [1])
    with pytest.raises(UserError), atomic_write(path) as temporary:
        temporary.with_name("elsewhere").rename(temporary)
    assert json.loads(path.read_text()) == [1]
    check_writable(tmp_path / "new" / "folder" / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_who_holds_the_old_file_keeps_it_and_a_link_stays_one(tmp_path):
    """Written in place, a file would be half of the new one and half of the old for a while."""
    path, held = tmp_path / "results.json", tmp_path / "held"
    write_json(path, [1])
    held.hardlink_to(path)
    (tmp_path / "link").symlink_to(path)
    write_json(tmp_path / "link", [2])
    assert (json.loads(held.read_text()), json.loads(path.read_text())) == ([1], [2])
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_others_may_read_what_is_written(tmp_path):
    write_json(tmp_path / "results.json", [])
    save_csv({}, tmp_path / "output.csv")
    modes = [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()]
    assert modes == [0o644, 0o644]


@pytest.mark.skipif(os.name != "posix", reason="devices of POSIX")
@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "-"])
def test_a_stream_is_no_file_to_replace(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "redirected").open("w") as file:
        with pytest.raises(UserError, match=r"is a device or a pipe|- is stdout"):
            write_json(Path(name.format(file.fileno())), [1])
        file.write("printed")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["printed"]


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
@pytest.mark.parametrize(
    ("outputs", "inputs", "cause"),
    [
        (["link"], ["a"], "link is read by this command"),
        (["a"], ["link"], "a is read by this command"),
        (["a", "here/../a"], [], "here/../a would be written twice"),
        (["loop", "loop"], ["a"], "loop would be written twice"),
        (["a", "b"], ["c", "loop"], None),
    ],
)
def test_an_output_replaces_no_input_and_no_other_output(tmp_path, outputs, inputs, cause):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    outputs, inputs = ([tmp_path / name for name in names] for names in (outputs, inputs))
    if cause is None:
        check_outputs(outputs, inputs)
    else:
        with pytest.raises(UserError, match=cause):
            check_outputs(outputs, inputs)


def test_table_is_the_one_of_the_assignment():
    assert THRESHOLDS == (0.40, 0.50, 0.60, 0.65, 0.70, 0.75, 0.80, 0.83, 0.86, 0.88)


@pytest.mark.parametrize(("mark", "threshold"), list(enumerate(THRESHOLDS, start=1)))
def test_both_sides_of_a_threshold(threshold, mark):
    at = round(threshold * 100_000)
    assert mark_of(accuracy_text(at, 100_000)) == mark
    assert mark_of(accuracy_text(at + 1, 100_000)) == mark
    assert mark_of(accuracy_text(at - 4, 100_000)) == mark  # 0.87996 is written as 0.8800
    assert mark_of(accuracy_text(at - 6, 100_000)) == mark - 1  # 0.87994 is written as 0.8799


@pytest.mark.parametrize(
    ("results", "grade"),
    [
        ([], ("", 0)),
        ([{"status": "Checker error"}], ("", 0)),
        ([{"time": 1.0, "status": "Ok, accuracy 0.9000"}, {"status": "Runtime error"}], ("", 0)),
        ([{"status": "Runtime error"}, {"status": "Ok, accuracy 0.8600"}], ("0.8600", 9)),
    ],
)
def test_the_last_result_decides(results, grade):
    assert grade_results(results) == {"description": grade[0], "mark": grade[1]}


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilson_interval_against_published_values(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_mark_probabilities_are_those_of_scipy():
    from scipy.stats import betabinom

    chances = mark_probabilities(419, 492, 500)
    assert math.isclose(sum(chances.values()), 1.0, abs_tol=1e-9)
    law = betabinom(500, 419.5, 73.5)
    assert chances[10] == pytest.approx(law.sf(439), abs=1e-9)  # 440 of 500 are 0.88
    assert chances[8] == pytest.approx(law.sf(414) - law.sf(429), abs=1e-9)
    assert chances[0] == pytest.approx(law.cdf(199), abs=1e-9)
