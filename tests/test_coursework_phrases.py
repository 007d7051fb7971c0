"""The texts of the reports: every phrase in every language, with the same values to fill in."""

from __future__ import annotations

from string import Formatter

import pytest

from coursework.__main__ import ASSIGNMENTS
from coursework.report import PHRASES, Phrases, read_phrases

MODULES = list(ASSIGNMENTS.values())


def fields(text: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("module", MODULES, ids=ASSIGNMENTS)
def test_every_phrase_is_there_in_every_language(module):
    assignment = module.ASSIGNMENT
    for key, texts in read_phrases(assignment.name).items():
        assert set(texts) >= set(assignment.languages), key
        assert all(texts.values()), key
        assert len({frozenset(fields(text)) for text in texts.values()}) == 1, key


@pytest.mark.parametrize("module", MODULES, ids=ASSIGNMENTS)
def test_every_point_has_its_wording(module):
    assignment = module.ASSIGNMENT
    numbers = [point.number for point in assignment.points]
    assert len(set(numbers)) == len(numbers)
    assert all(number in Phrases(assignment.name, "en") for number in numbers)


def test_no_table_of_phrases_is_left_over():
    assert {path.stem for path in PHRASES.iterdir()} == {"common", *ASSIGNMENTS}
