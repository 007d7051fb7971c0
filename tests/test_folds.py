"""benchmarks/folds.py: trials on folds, paired differences, resuming."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import call
from conftest import TINY
from torch.nn import functional

import solution
from benchmarks import folds

LABELS = torch.tensor([0, 1, 0, 1])


def outcome(*right: list[bool], labels=LABELS) -> folds.Outcome:
    """Logits that answer so under each seed, all as surely."""
    answers = torch.where(torch.tensor(right), labels, 1 - labels)
    return folds.Outcome(3.0 * functional.one_hot(answers, 2).float(), labels)


def test_a_row_counts_what_only_one_way_answers_right():
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    new = outcome([True, True, True, True, True, False, True, True], labels=labels)
    old = outcome([True, False, False, True, True, True, True, True], labels=labels)
    row = folds.compared(new, old)
    assert row["accuracy"] == "0.8750"
    # differences +1, +1, -1 and five zeros: their standard deviation over the root of 8
    assert row["difference"] == "+0.1250 ± 0.2266"
    assert row["only changed / only unchanged right"] == "2 / 1"


def test_all_species_count_alike_whatever_their_photos():
    labels = torch.tensor([0, 0, 0, 1])
    answers = [True, True, True, False], [True, False, True, True]
    row = folds.compared(*(outcome(right, labels=labels) for right in answers))
    assert (row["accuracy"], row["by species"]) == ("0.7500", "0.5000")
    assert row["difference"].startswith("+0.0000")
    # a third of one species, one whole other
    assert row["difference by species"].startswith("-0.3333")


def test_seeds_that_differ_add_to_the_standard_error():
    new = outcome([True, True, True, True], [False, False, False, False])
    old = outcome(*[[True, True, False, False]] * 2)
    # by seed +0.5 and -0.5, whose mean has a standard error of 0.5; by photo -0.5 and +0.5
    error = (0.5**2 + (4 * 0.5**2 / 3) / 4) ** 0.5
    assert folds.compared(new, old)["difference"] == f"+0.0000 ± {error:.4f}"


def test_cross_entropies_are_compared_at_the_best_temperature_of_each():
    sure = outcome([True, True, True, False])
    louder, worse = sure._replace(logits=2 * sure.logits), outcome([True, False, True, False])
    equal, better = (folds.compared(sure, old) for old in (louder, worse))
    assert float(equal["difference of cross-entropy"].split(" ± ")[0]) == pytest.approx(0, abs=1e-3)
    assert float(better["difference of cross-entropy"].split(" ± ")[0]) < -0.1
    # three of four right: at the best temperature, the entropy of three to one
    assert float(equal["cross-entropy"]) == pytest.approx(0.5623, abs=1e-3)


@pytest.fixture
def sample(tests_dir, tmp_path):
    return folds.Folds(tests_dir, tmp_path / "scratch")


def test_a_fold_is_kept_out_of_training_and_done_once_but_for_other_views(
    sample, tiny, monkeypatch
):
    trained, fit, settings = [], solution.TrainingRun.fit, [replace(tiny, epochs=1)]

    def watched(run, stage, train, *others):
        trained.append(train)
        return fit(run, stage, train, *others)

    monkeypatch.setattr(solution.TrainingRun, "fit", watched)
    first = sample.outcome([1, 3], settings, photos=2, views={})
    again = sample.outcome([1, 3], settings, photos=2, views={})
    other = sample.outcome([1, 3], settings, photos=2, views={"first_size": 96})
    assert len(trained) == 2
    assert torch.equal(first.logits, again.logits)
    assert not torch.isclose(first.logits, other.logits).all()
    held_out = [sample.split(fold, 2)[1] for fold in (1, 3)]
    assert first.labels.tolist() == sample.labels[np.concatenate(held_out)].tolist()
    for train, others in zip(trained, held_out, strict=True):
        assert not set(train) & set(others)
        assert sample.labels[train].bincount().max() == 2  # photos a species, at most


def test_an_outcome_is_every_fold_under_one_seed_after_the_other(sample, monkeypatch):
    def predicted(settings, fold):
        return torch.full((2, 3), 10.0 * settings.seed + fold)

    monkeypatch.setattr(sample, "predicted", predicted)
    outcome = sample.outcome([1, 3], [replace(TINY, seed=seed) for seed in (5, 6)])
    assert outcome.logits[..., 0].tolist() == [[51, 51, 53, 53], [61, 61, 63, 63]]


@pytest.mark.parametrize(
    "change", [{"fold": 1}, {"photos": 5}, {"settings": TINY}, {"views": {"first_size": 96}}]
)
def test_what_differs_is_kept_in_another_file(change, sample):
    usual = {"settings": replace(TINY, seed=1), "fold": 0, "photos": None, "views": {}}
    for number, arguments in enumerate((usual, usual | change, usual, usual | change)):
        assert sample.kept(lambda n=number, **_: n, **arguments) == number % 2


def test_another_sample_has_files_of_its_own(sample, tests_dir, tmp_path):
    other = shutil.copytree(tests_dir, tmp_path / "other")
    photo = next(other.glob("*_input/train/images/*"))
    photo.write_bytes(photo.read_bytes() + b"0")
    both = sample, folds.Folds(other, sample.scratch)
    kept = [one.kept(lambda n=number: n) for number, one in enumerate(both)]
    assert kept == [0, 1]


def test_the_folds_are_the_whole_sample_and_the_same_every_time(sample):
    parts = [sample.split(fold, None)[1].tolist() for fold in range(folds.FOLDS)]
    assert sorted(index for part in parts for index in part) == list(range(24))
    assert parts[0] == sample.split(0, None)[1].tolist()


def test_the_command_prints_a_table(tests_dir, init, monkeypatch, capsys, tmp_path):
    def small(**changes):
        return replace(TINY, weights=str(init), epochs=1, **changes)

    monkeypatch.setattr(folds, "Settings", small)
    arguments = [tests_dir, "--folds", "0", "--seeds", "0,1", "--scratch", tmp_path / "scratch"]
    assert call(folds.main, *arguments, "--photos", "2", "--set", "batch_size=4") == 0
    header, _, row, mean = capsys.readouterr().out.splitlines()[-4:]
    assert header.startswith("| changed | folds | seeds | accuracy | by species | ")
    assert row.startswith("| batch_size=4 2 photos per species | 0 | 0,1 | ")
    assert mean.startswith("| the mean of the seeds' logits | 0 | 0,1 | ")


@pytest.mark.parametrize(
    "words", [["--folds", "5"], ["--folds", ","], ["--seeds", "-1"], ["--photos", "3,0"]]
)
def test_numbers_that_make_no_sense_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        folds.parse(["tests", *words])
    assert "is no whole number from" in capsys.readouterr().err
