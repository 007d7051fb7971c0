"""benchmarks/folds.py: trials on folds, paired differences, resuming."""

import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from conftest import TINY

import solution
from benchmarks import folds

LABELS = torch.tensor([0, 1, 0, 1])


def result(right: list[bool]) -> folds.Result:
    """Logits that answer so, one photo in five twice as surely."""
    answers = torch.where(torch.tensor(right), LABELS, 1 - LABELS)
    return folds.Result(3.0 * torch.nn.functional.one_hot(answers, 2).float(), LABELS, 1.0)


def test_a_row_counts_what_only_one_way_answers_right():
    options = Namespace(folds=[0, 1], seeds=[0])
    new = [result([True, True, True, True]), result([True, False, True, True])]
    old = [result([True, False, False, True]), result([True, True, True, True])]
    cells = [cell.strip() for cell in folds.row("x", options, new, old).split("|")[1:-1]]
    assert cells[:4] == ["x", "0,1", "0", "0.8750"]
    assert cells[5] == "+0.1250"
    # differences +1, +1, -1 and five zeros: their standard deviation over the root of 8
    assert float(cells[6]) == pytest.approx(0.2266, abs=1e-4)
    assert cells[7] == "2 / 1"


def test_photos_count_once_whatever_the_number_of_seeds():
    """Two seeds that answer alike are no more evidence than one."""
    cells = []
    for seeds in ([0], [0, 1]):
        options = Namespace(folds=[0], seeds=seeds)
        new = [result([True, True, True, False])] * len(seeds)
        old = [result([True, False, True, True])] * len(seeds)
        row = folds.row("x", options, new, old)
        cells.append([cell.strip() for cell in row.split("|")[1:-1]])
    assert cells[0][6] == cells[1][6]
    # differences 0, 1, 0 and -1: their standard deviation over the root of 4
    assert float(cells[0][6]) == pytest.approx(0.4082, abs=1e-4)
    assert cells[1][9] == "1", "seconds a fold"


def test_cross_entropies_are_compared_at_the_best_temperature_of_each():
    options, sure = Namespace(folds=[0], seeds=[0]), result([True, True, True, False])
    louder, worse = replace(sure, logits=2 * sure.logits), result([True, False, True, False])
    rows = (folds.row("x", options, [sure], [old]).split("|")[1:-1] for old in (louder, worse))
    equal, better = ([cell.strip() for cell in row] for row in rows)
    assert float(equal[8]) == pytest.approx(0, abs=1e-3)
    assert float(better[8]) < -0.1
    # three of four right: at the best temperature, the entropy of three to one
    assert float(equal[4]) == pytest.approx(0.5623, abs=1e-3)


def test_changes_take_the_type_of_the_setting():
    assert folds.changes(["epochs=3", "bfloat16=False", "dropout=0.5"]) == {
        "epochs": 3,
        "bfloat16": False,
        "dropout": 0.5,
    }
    with pytest.raises(SystemExit, match="one of the settings: input_size"):
        folds.changes(["eposch=3"])


@pytest.fixture
def sample(photos, init, tmp_path):
    gt, folder = photos
    root = tmp_path / "tests/00_x_input/train"
    root.mkdir(parents=True)
    (root / "images").symlink_to(folder)
    (root / "gt.csv").write_text(
        "filename,class_id\n" + "".join(f"{k},{v}\n" for k, v in gt.items())
    )
    return folds.Sample(tmp_path / "tests", init, tmp_path / "scratch")


def test_a_fold_is_kept_out_of_training_and_done_once(sample, monkeypatch):
    trial = folds.Trial(replace(TINY, epochs=1), (), 1, 2)
    trained, fit = [], solution._fit

    def watched(stage, network, cache, labels, train, *others):
        trained.append(train)
        return fit(stage, network, cache, labels, train, *others)

    monkeypatch.setattr(solution, "_fit", watched)
    first = sample.result(trial, solution.Progress())
    again = sample.result(trial, solution.Progress())
    assert torch.equal(first.logits, again.logits)
    (train,) = trained
    _, held_out = sample.split(trial)
    assert not set(train) & set(held_out)
    assert torch.equal(first.labels, sample.labels[held_out])
    assert sample.labels[train].bincount().max() == 2  # photos a species, at most


def test_only_the_look_changes_without_a_new_training(sample, monkeypatch):
    trial = folds.Trial(replace(TINY, epochs=1), (), 0, None)
    usual = sample.result(trial, solution.Progress())
    monkeypatch.setattr(solution, "_fit", None)  # a training would fail
    other = sample.result(replace(trial, look=(("first_size", 96),)), solution.Progress())
    assert not torch.equal(usual.logits, other.logits)


def test_what_differs_has_another_file_and_the_look_needs_no_other_network(sample):
    usual, look = folds.Trial(TINY, (), 0, None), (("first_size", 96),)
    others = [replace(usual, fold=1), replace(usual, photos=5)]
    others += [replace(usual, settings=replace(TINY, seed=1))]
    trials = [usual, *others, replace(usual, look=look)]
    assert len({trial.key(trained=False) for trial in trials}) == 5
    assert len({trial.key(trained=True) for trial in trials}) == 4
    parts = [sample.split(replace(usual, fold=fold))[1].tolist() for fold in range(folds.FOLDS)]
    assert sorted(index for part in parts for index in part) == list(range(24))
    assert parts[0] == sample.split(usual)[1].tolist(), "the same every time"


def test_the_command_prints_a_row_and_appends_it(sample, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(folds, "Settings", lambda **changed: replace(TINY, epochs=1, **changed))
    arguments = [str(tmp_path / "tests"), "--folds", "0", "--scratch", str(sample.scratch)]
    monkeypatch.setattr(sys, "argv", ["folds.py", *arguments, "--init", str(sample.init)])
    folds.main()
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("| nothing: the settings | 0 | 0 | ")
    assert (sample.scratch / "table.md").read_text() == line + "\n"
