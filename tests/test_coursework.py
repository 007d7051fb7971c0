"""The command line of the courseworks, and what it asks of an assignment."""

import errno
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import coursework.data
from coursework.__main__ import main, options_of, parse
from coursework.data import DataSet, one_hot
from coursework.engine import Hardware, Recipe
from coursework.options import Options, claim


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """A hundred digits to train on, forty to test on."""
    return coursework.data.digits(32).subset(100, 40)


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


def test_one_hot_has_its_one_in_the_column_of_the_class():
    vectors = one_hot(torch.tensor([2, 0]), 3)
    assert vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert vectors.dtype == torch.float32


def test_cross_entropy_of_one_hot_labels_is_that_of_indices():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    loss = nn.functional.cross_entropy
    torch.testing.assert_close(loss(logits, one_hot(labels, 3)), loss(logits, labels))


# ------------------------------------------------------------------------------------------------
# Assignments
# ------------------------------------------------------------------------------------------------


def test_list_says_what_each_is_needs_and_takes(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name in ("ladder", "transfer", "resnet", "case"):
        assert f"{name}\n" in said
    assert said.count("What:") == said.count("Needs:") == said.count("Time:") == 4


@pytest.mark.parametrize(
    "wrong",
    [
        *("no", "case --epochs 0", "case --accelerator x", "case --network vgg11"),
        *("case --devices 0", "case --lang pl"),
    ],
)
def test_wrong_calls_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        main(wrong.split())
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(assignment, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(coursework.__main__, "work", interrupted)
    assert main(["case", "--out", str(tmp_path)]) == 130
    assert "the same command" in capsys.readouterr().err


def test_options_keep_the_assignments_numbers_for_full(tmp_path):
    recipe = Recipe(epochs=3)
    assert Options(tmp_path).recipe(recipe, 150).epochs == 3
    assert Options(tmp_path, preset="full").recipe(recipe, 150).epochs == 150
    assert Options(tmp_path, preset="full", epochs=2).recipe(recipe, 150).epochs == 2


def test_options_change_what_was_asked_for_and_nothing_else(tmp_path):
    recipe, given = Recipe(epochs=3), {"seed": 7, "learning_rate": 0.5, "batch_size": 8}
    assert Options(tmp_path).recipe(recipe, 150) == recipe
    assert Options(tmp_path, **given).recipe(recipe, 150) == replace(recipe, **given)


def test_the_command_line_says_what_to_train_on(tmp_path):
    words = "case --accelerator cpu --devices 2 --num-nodes 3 --strategy ddp --precision 32-true"
    options = options_of(parse([*words.split(), "--seed", "7", "--lr", "0.5"]))
    assert options.hardware == Hardware("cpu", 2, 3, "ddp", "32-true")
    assert (options.seed, options.learning_rate, options.batch_size) == (7, 0.5, None)
    assert options_of(parse(["case"])).hardware == Hardware()


@pytest.mark.parametrize("wrong", ["--lr 0", "--lr nan", "--seed -1", "--batch-size 0"])
def test_numbers_that_cannot_be_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        main(["case", *wrong.split()])
    assert f"argument {wrong.split()[0]}" in capsys.readouterr().err


def test_hardware_that_is_not_there_is_one_clear_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    out = ["--out", str(tmp_path)]
    assert main(["case", "--data", "digits", "--accelerator", "gpu", *out]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: cannot train as told")
    assert said.count("\n") == 1


def test_results_of_another_assignment_are_refused(tmp_path, capsys):
    claim(tmp_path, "ladder")
    claim(tmp_path, "ladder")
    assert main(["case", "--data", "digits", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path} holds the results of ladder")


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(coursework.options, "train", None)
    (tmp_path / "file").touch()
    assert main(["case", "--data", "digits", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_what_a_killed_command_left_is_removed(tmp_path):
    left = tmp_path / ".report.html.a1b2c3d4"
    left.touch()
    claim(tmp_path, "case")
    assert not left.exists()


def test_a_full_disk_is_one_clear_line(tmp_path, capsys, monkeypatch):
    def full(assignment, options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coursework.__main__, "work", full)
    assert main(["case", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: [Errno 28] No space left on device")
    assert said.count("\n") == 1


def test_without_lightning_it_is_said_what_to_install():
    program = "import runpy, sys; sys.modules['lightning'] = None; runpy.run_module('coursework')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: lightning is not installed, which the courseworks need: "
        "pip install -r requirements-coursework.txt\n"
    )


@pytest.mark.slow
def test_two_processes_write_one_report(tmp_path):
    words = "case --data digits --subset 40 --epochs 1 --accelerator cpu --devices 2 --strategy ddp"
    command = [sys.executable, "-W", "error", "-m", "coursework", *words.split(), "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    history = json.loads((tmp_path / "history.json").read_text())
    assert [line.split(",")[0] for line in done.stdout.splitlines()[:-1]] == list(history)
    assert (tmp_path / "report.html").is_file()
