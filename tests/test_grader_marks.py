"""The marks table, the interval, the mark to expect."""

import math

import pytest

from grader.marks import (
    MARKS,
    accuracy_text,
    grade_results,
    mark_of,
    mark_probabilities,
    wilson_interval,
)

TABLE = {
    "0.88": 10,
    "0.86": 9,
    "0.83": 8,
    "0.80": 7,
    "0.75": 6,
    "0.70": 5,
    "0.65": 4,
    "0.60": 3,
    "0.50": 2,
    "0.40": 1,
}


def test_table_is_the_one_of_the_assignment():
    assert dict(MARKS) == {float(threshold): mark for threshold, mark in TABLE.items()}


@pytest.mark.parametrize(("threshold", "mark"), TABLE.items())
def test_both_sides_of_a_threshold(threshold, mark):
    at = round(float(threshold) * 100_000)
    assert mark_of(accuracy_text(at, 100_000)) == mark
    assert mark_of(accuracy_text(at + 1, 100_000)) == mark
    assert mark_of(accuracy_text(at - 4, 100_000)) == mark  # 0.87996 is written as 0.8800
    assert mark_of(accuracy_text(at - 6, 100_000)) == mark - 1  # 0.87994 is written as 0.8799


@pytest.mark.parametrize(
    ("correct", "text", "mark"), [(0, "0.0000", 0), (39_994, "0.3999", 0), (100_000, "1.0000", 10)]
)
def test_ends_of_the_table(correct, text, mark):
    assert accuracy_text(correct, 100_000) == text
    assert mark_of(text) == mark


@pytest.mark.parametrize(
    ("results", "grade"),
    [
        ([], ("", 0)),
        ([{"status": "Runtime error"}], ("", 0)),
        ([{"status": "Checker error"}], ("", 0)),
        ([{"time": 1.0, "status": "Ok, accuracy 0.9000"}, {"status": "Runtime error"}], ("", 0)),
        (
            [{"status": "Runtime error"}, {"time": 1, "status": "Ok, accuracy 0.8600"}],
            ("0.8600", 9),
        ),
        ([{}], ("", 0)),
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


def test_more_validation_photos_make_the_mark_surer():
    few, many = mark_probabilities(17, 20, 500), mark_probabilities(1700, 2000, 500)
    assert many[8] > few[8]
