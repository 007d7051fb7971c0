"""The courseworks: networks, and each assignment on a few digits."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from torch import nn

import coursework.data
from coursework import case, transfer
from coursework.__main__ import main, options_of, parse
from coursework.data import DataSet, one_hot
from coursework.engine import Hardware, Recipe, Result, Run
from coursework.pages import Options, claim, compared
from reporting.page import Page
from solution import EpochRow


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


@pytest.mark.parametrize("name", transfer.NETWORKS)
def test_a_grey_photo_gives_the_activations_of_its_three_channel_copy(name):
    torch.manual_seed(0)
    blocks = transfer.NETWORKS[name].blocks()[:4].eval()
    grey = torch.randn(2, 1, 32, 32)
    expected = blocks(grey.expand(-1, 3, -1, -1))
    transfer.grey_first_convolution(blocks)
    torch.testing.assert_close(blocks(grey), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", transfer.NETWORKS)
def test_a_network_of_frozen_and_trained_blocks_gives_a_logit_a_class(name):
    backbone = transfer.NETWORKS[name]
    trunk = transfer.lower(backbone, backbone.frozen, pretrained=False)
    network = nn.Sequential(trunk, transfer.upper(backbone, backbone.frozen, False, 7)).eval()
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 7)


def test_pretrained_weights_are_those_of_the_file(init, monkeypatch):
    state = torch.load(init, weights_only=True)
    monkeypatch.setattr(transfer, "imagenet_state", lambda weights: state)
    blocks = transfer.grey_blocks(transfer.NETWORKS["mobilenet_v2"], pretrained=True)
    assert torch.equal(blocks[18][0].weight, state["features.18.0.weight"])
    summed = state["features.0.0.weight"].sum(1, keepdim=True)
    assert torch.equal(blocks[0][0].weight, summed)


def test_missing_weights_are_one_clear_line(monkeypatch, capsys, tmp_path):
    def offline(*args, **kwargs):
        print("Downloading", file=sys.stderr)  # torch 2.6
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    arguments = ["transfer", "--data", "digits", "--subset", "40", "--out", str(tmp_path)]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: no ImageNet weights")
    assert "mobilenet_v2-b0353104.pth" in said
    assert said.count("\n") == 1


# ------------------------------------------------------------------------------------------------
# Assignments
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "runs"), [("transfer", 5), ("case", 3)])
def test_an_assignment_runs_from_data_to_report(name, runs, tmp_path, init, monkeypatch, capsys):
    state = torch.load(init, weights_only=True)
    monkeypatch.setattr(transfer, "imagenet_state", lambda weights: state)
    monkeypatch.setattr(transfer, "INPUT_SIDE", 28)
    arguments = ["--data", "digits", "--subset", "40", "--epochs", "1", "--out", str(tmp_path)]
    assert main([name, *arguments]) == 0
    assert "report.html" in capsys.readouterr().out
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history) == runs
    assert all(len(run["epochs"]) == 1 and run["parameters"] > 0 for run in history.values())
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "These are not the assignment's photos" in text
    assert all(label in text for label in history)
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} >= {"loss", "accuracy"}


def test_list_says_what_each_is_needs_and_takes(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name in ("ladder", "transfer", "resnet", "case"):
        assert f"{name}\n" in said
    assert said.count("What:") == said.count("Needs:") == said.count("Time:") == 4


@pytest.mark.parametrize(
    "wrong",
    ["no", "case --epochs 0", "case --accelerator x", "case --network vgg11", "case --devices 0"],
)
def test_wrong_calls_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        main(wrong.split())
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(case, "report", interrupted)
    assert main(["case", "--out", str(tmp_path)]) == 130
    assert "the same command" in capsys.readouterr().err


def result_of(data, label="x", losses=(2.0, 1.0), training=0.9, test=0.8) -> Result:
    run = Run(label, "changed", nn.Identity, data, Recipe(epochs=2, augment=("flip",)))
    rows = [EpochRow("x", i, 1.0, 0.5, v, 1 / v, 0.1, 1.0) for i, v in enumerate(losses)]
    final = {"training_accuracy": training, "test_accuracy": test, "test_loss": 1.0}
    return Result(run, nn.Identity(), rows, final)


def test_criteria_are_judged_by_the_numbers(digits):
    data, page = digits.held_out(0.2), Page("")
    good, bare = result_of(data), result_of(data, training=0.99)
    met = {c.wanted: c.met for c in case.criteria(good, good, bare, page)}
    assert [wanted for wanted, ok in met.items() if not ok] == [
        "samples, curves and predictions shown"
    ]
    bad = result_of(digits, losses=(1.0, 2.0))
    assert sum(not c.met for c in case.criteria(bad, bare, good, page)) == 5


@pytest.mark.parametrize(
    ("training", "test", "verdict"),
    [
        (0.9, 0.9, "better."),
        (0.99, 0.8, "it overfits more."),
        (0.9, 0.82, "no difference that 360 test photos could tell."),
        (0.7, 0.7, "that is not overfitting"),
    ],
)
def test_runs_are_compared_by_their_accuracies(training, test, verdict):
    data = coursework.data.digits(8)
    pair = [result_of(data), result_of(data, training=training, test=test)]
    assert verdict in compared(pair)[0]


def test_options_keep_the_assignments_numbers_for_full(tmp_path):
    recipe = Recipe(epochs=3)
    assert Options(tmp_path).recipe(recipe, 150).epochs == 3
    assert Options(tmp_path, full=True).recipe(recipe, 150).epochs == 150
    assert Options(tmp_path, full=True, epochs=2).recipe(recipe, 150).epochs == 2


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
    monkeypatch.setattr(coursework.pages, "train", None)
    (tmp_path / "file").touch()
    assert main(["case", "--data", "digits", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_what_a_killed_command_left_is_removed(tmp_path):
    left = tmp_path / ".report.html.a1b2c3d4"
    left.touch()
    claim(tmp_path, "case")
    assert not left.exists()


def test_a_full_disk_is_one_clear_line(tmp_path, capsys, monkeypatch):
    def full(options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(case, "report", full)
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


def test_two_processes_write_one_report(tmp_path):
    words = "case --data digits --subset 40 --epochs 1 --accelerator cpu --devices 2 --strategy ddp"
    command = [sys.executable, "-W", "error", "-m", "coursework", *words.split(), "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(",")[0] for line in done.stdout.splitlines()[:-1]] == [
        "own CNN",
        "with dropout",
        "no dropout",
    ]
    assert (tmp_path / "report.html").is_file()
