"""benchmarks/folds.py: trials on folds, paired differences, resuming."""

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from commands import call
from conftest import TINY
from torch.nn import functional

import solution
from benchmarks import folds

LABELS = torch.tensor([0, 1, 0, 1])


def outcome(right: list[bool], labels=LABELS, seconds=1.0) -> folds.Outcome:
    """Logits that answer so, all as surely."""
    answers = torch.where(torch.tensor(right), labels, 1 - labels)
    return folds.Outcome(3.0 * functional.one_hot(answers, 2).float(), labels, seconds)


def row_of(new, old, seeds=(0,)) -> dict[str, str]:
    """The cells of a row by their columns; of two columns with one name, the first."""
    options = Namespace(folds=list(range(len(new) // len(seeds))), seeds=list(seeds))
    cells = [cell.strip() for cell in folds.row("x", options, new, old).split("|")[1:-1]]
    return dict(reversed([*zip(folds.COLUMNS, cells, strict=True)])) | {"difference by": cells[7]}


def test_a_row_counts_what_only_one_way_answers_right():
    new = [outcome([True, True, True, True]), outcome([True, False, True, True])]
    old = [outcome([True, False, False, True]), outcome([True, True, True, True])]
    row = row_of(new, old)
    assert (row["changed"], row["folds"], row["seeds"]) == ("x", "0,1", "0")
    assert row["accuracy"] == "0.8750"
    # differences +1, +1, -1 and five zeros: their standard deviation over the root of 8
    assert row["difference"] == "+0.1250 ± 0.2266"
    assert row["only changed / only unchanged right"] == "2 / 1"


def test_all_species_count_alike_whatever_their_photos():
    labels = torch.tensor([0, 0, 0, 1])
    row = row_of(
        [outcome([True, True, True, False], labels)], [outcome([True, False, True, True], labels)]
    )
    assert (row["accuracy"], row["by species"]) == ("0.7500", "0.5000")
    assert row["difference"].startswith("+0.0000")
    assert row["difference by"].startswith("-0.3333")  # a third of one species, one whole other


def test_seeds_that_answer_alike_are_no_more_evidence_than_one():
    new, old = [outcome([True, True, True, False])], [outcome([True, False, True, True])]
    one, two = row_of(new, old), row_of(2 * new, 2 * old, seeds=(0, 1))
    # differences 0, 1, 0 and -1: their standard deviation over the root of 4
    assert one["difference"] == two["difference"] == "+0.0000 ± 0.4082"
    assert two["seconds a fold"] == "1"


def test_seeds_that_differ_add_to_the_standard_error():
    new = [outcome([True, True, True, True]), outcome([False, False, False, False])]
    old = [outcome([True, True, False, False])] * 2
    # by seed +0.5 and -0.5, whose mean has a standard error of 0.5; by photo -0.5 and +0.5
    error = (0.5**2 + (4 * 0.5**2 / 3) / 4) ** 0.5
    assert row_of(new, old, seeds=(0, 1))["difference"] == f"+0.0000 ± {error:.4f}"


def test_cross_entropies_are_compared_at_the_best_temperature_of_each():
    sure = outcome([True, True, True, False])
    louder, worse = sure._replace(logits=2 * sure.logits), outcome([True, False, True, False])
    equal, better = (row_of([sure], [old]) for old in (louder, worse))
    assert float(equal["cross-entropy's"].split(" ± ")[0]) == pytest.approx(0, abs=1e-3)
    assert float(better["cross-entropy's"].split(" ± ")[0]) < -0.1
    # three of four right: at the best temperature, the entropy of three to one
    assert float(equal["cross-entropy"]) == pytest.approx(0.5623, abs=1e-3)


@pytest.fixture
def sample(tests_dir, tmp_path):
    return folds.Folds(tests_dir, tmp_path / "scratch")


@pytest.fixture
def usual(tiny):
    return folds.Trial(replace(tiny, epochs=1), (), 0, None)


def test_common_errors_are_those_of_every_seed_both_ways_together():
    labels = torch.tensor([0, 0, 1, 2])
    answers = ([1, 1, 0, 2], [0, 2, 0, 2])
    outcomes = [folds.Outcome(torch.eye(3)[list(answer)], labels, 1.0) for answer in answers]
    text = folds.common_errors(outcomes, 2, ["Wren", "Auk", "Owl"])
    assert text == "Wrong with every seed: 2 of 4 photos; most often Auk / Wren: 2"


def test_a_fold_is_kept_out_of_training_and_done_once(sample, usual, monkeypatch):
    trial, trained, fit = replace(usual, fold=1, photos=2), [], solution.TrainingRun.fit

    def watched(run, stage, train, *others):
        trained.append(train)
        return fit(run, stage, train, *others)

    monkeypatch.setattr(solution.TrainingRun, "fit", watched)
    first, again = sample.outcome(trial), sample.outcome(trial)
    assert torch.equal(first.logits, again.logits)
    (train,) = trained
    _, held_out = sample.split(trial)
    assert not set(train) & set(held_out)
    assert torch.equal(first.labels, sample.labels[held_out])
    assert sample.labels[train].bincount().max() == 2  # photos a species, at most


def test_only_the_views_change_without_a_new_training(sample, usual, monkeypatch):
    before = sample.outcome(usual)
    monkeypatch.setattr(solution, "TrainingRun", None)  # a training would fail
    other = sample.outcome(replace(usual, views=(("first_size", 96),)))
    assert not torch.equal(before.logits, other.logits)


def test_what_differs_is_kept_in_another_file_and_views_need_no_other_network(usual):
    seed = replace(usual.settings, seed=1)
    changes = ({}, {"fold": 1}, {"photos": 5}, {"settings": seed}, {"views": (("first_size", 96),)})
    trials, parts = [replace(usual, **change) for change in changes], ("settings", "fold", "photos")
    assert len({trial.key(*parts, "views") for trial in trials}) == 5
    assert len({trial.key(*parts) for trial in trials}) == 4


def test_the_folds_are_the_whole_sample_and_the_same_every_time(sample, usual):
    parts = [sample.split(replace(usual, fold=fold))[1].tolist() for fold in range(folds.FOLDS)]
    assert sorted(index for part in parts for index in part) == list(range(24))
    assert parts[0] == sample.split(usual)[1].tolist()


def test_the_command_prints_its_rows_and_appends_them(
    tests_dir, init, monkeypatch, capsys, tmp_path
):
    def small(**changes):
        return replace(TINY, weights=str(init), epochs=1, **changes)

    monkeypatch.setattr(folds, "Settings", small)
    scratch = tmp_path / "scratch"
    arguments = [tests_dir, "--folds", "0", "--seeds", "0,1", "--scratch", scratch]
    assert call(folds.main, *arguments, "--photos", "2", "--set", "batch_size=4") == 0
    line, errors = capsys.readouterr().out.strip().splitlines()[-2:]
    assert errors.startswith("Wrong with every seed: ")
    assert line.startswith("| batch_size=4 2 photos per species | 0 | 0,1 | ")
    assert (scratch / "table.md").read_text() == line + "\n"
