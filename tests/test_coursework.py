"""The courseworks: networks, engine, data, and each assignment on a few digits."""

import csv
import json
import sys
from dataclasses import replace
from functools import partial
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import coursework.__main__
import coursework.data
from coursework import ladder, resnet, transfer
from coursework.__main__ import main
from coursework.data import CourseworkError, DataSet, Photos, augmentation, load, one_hot
from coursework.engine import Recipe, Result, Run, Trainer, accepts, count_parameters, train
from coursework.pages import Options, compared
from solution import EpochRow, Progress

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """A hundred digits to train on, forty to test on."""
    return coursework.data.digits(32).subset(100, 40)


def small_run(data: DataSet, **recipe) -> Run:
    """Dropout, batch norm, augmentation: all that draws random numbers or keeps a state."""
    build = partial(ladder.blocks, 1, 10, (4, 8), norm=True, dropout=True, any_size=True)
    settings = {"batch_size": 32, "learning_rate": 0.05, "augment": ("flip", "shift")} | recipe
    return Run("small", "", build, data, Recipe(**({"epochs": 3} | settings)))


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


@pytest.mark.parametrize(
    ("step", "parameters"),
    [
        # convolutions: 3 * 9 * 5 + 5 and 5 * 9 * 5 + 5; linear: 5 * 4 * 4 * 10 + 10
        ("2 minimal", 140 + 230 + 810),
        ("3 filters", 560 + 3_620 + 3_210),
        ("4 sigmoid blocks", 560 + 3_620 + 7_240 + 14_440 + 40 * 8 * 8 * 10 + 10),
        ("4 ReLU blocks", 560 + 3_620 + 7_240 + 14_440 + 40 * 8 * 8 * 10 + 10),
        ("5 four blocks", 464_750),
        ("6 batch norm", 464_750 + 600),  # a gain more for each filter, a shift for a bias
        ("7 dropout", 465_350),
        ("8 average pooling", 465_350 - 3 * 160 * 10),
    ],
)
def test_parameters_of_each_step(step, parameters):
    assert count_parameters(ladder.networks(3, 10)[step][1]()) == parameters


def test_the_minimal_network_has_1180_parameters():
    assert count_parameters(ladder.minimal(3, 10, 5)) == 1180


@pytest.mark.parametrize("size", [(28, 32), (36, 30), (48, 64)])
def test_step_8_takes_photos_of_any_size_and_step_7_does_not(size):
    steps = ladder.networks(3, 10)
    assert accepts(steps["8 average pooling"][1](), 3, *size)
    assert not accepts(steps["7 dropout"][1](), 3, *size)
    assert accepts(steps["7 dropout"][1](), 3, 32, 32)


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


@pytest.mark.parametrize(("small_stem", "side"), [(True, 4), (False, 1)])
def test_the_small_stem_leaves_more_of_a_photo(digits, small_stem, side):
    network = resnet.ResNet(digits, resnet.BasicBlock, (1, 1, 1, 1), 4, small_stem).eval()
    assert network.groups(network.stem(torch.rand(1, 1, 32, 32))).shape == (1, 32, side, side)


def test_resnet_50_at_full_width_has_the_published_number_of_parameters(digits):
    data = replace(digits, classes=range(1000))
    photos = Photos(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1))
    network = resnet.ResNet(
        replace(data, train=photos), **resnet.RESNET50, width=64, small_stem=False
    )
    assert count_parameters(network) == 25_557_032


# ------------------------------------------------------------------------------------------------
# Engine
# ------------------------------------------------------------------------------------------------


class Stop(Progress):
    """Interrupts in the middle of an epoch."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, photos: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def numbers(result: Result) -> list[EpochRow]:
    return [replace(row, seconds=0.0) for row in result.rows]


@pytest.mark.parametrize("schedule", ["constant", "one-cycle", "plateau"])
def test_an_interrupted_run_ends_with_the_same_bits(digits, tmp_path, schedule):
    run = small_run(digits, schedule=schedule, patience=0)
    whole = train(run, tmp_path / "whole", CPU, Progress())
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "parts", CPU, Stop(after=5))  # of three steps an epoch
    kept = json.loads((tmp_path / "parts" / "runs" / "small.json").read_text())
    assert len(kept) == 1
    torch.rand(3)  # another process would have other random numbers
    resumed = train(run, tmp_path / "parts", CPU, Progress())
    assert numbers(resumed) == numbers(whole)
    assert resumed.final == whole.final
    for one, other in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_finished_run_is_not_trained_again(digits, tmp_path):
    run = small_run(digits, epochs=1)
    first = train(run, tmp_path, CPU, Progress())
    again = train(run, tmp_path, CPU, Stop(after=1))
    assert again.rows == first.rows
    assert again.final == first.final


def test_training_leaves_the_random_numbers_of_the_caller_alone(digits, tmp_path):
    before = torch.get_rng_state()
    train(small_run(digits, epochs=1), tmp_path, CPU, Progress())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_with_another_run_is_refused(digits, tmp_path):
    train(small_run(digits, epochs=1), tmp_path, CPU, Progress())
    with pytest.raises(CourseworkError, match="other settings"):
        train(small_run(digits, epochs=2), tmp_path, CPU, Progress())


def test_a_damaged_checkpoint_is_refused(digits, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "small.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CourseworkError, match="cannot be read"):
        train(small_run(digits), tmp_path, CPU, Progress())


def test_a_run_starts_from_the_weights_of_another(digits, tmp_path):
    first = train(small_run(digits, epochs=1), tmp_path, CPU, Progress())
    second = replace(small_run(digits), start=first)
    for one, other in zip(second.fresh().parameters(), first.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert second.fingerprint != small_run(digits).fingerprint


def test_the_backbone_learns_at_its_own_rate(digits):
    build = partial(resnet.ResNet, digits, resnet.BasicBlock, (1, 1, 1, 1), 4, True)
    recipe = Recipe(epochs=1, learning_rate=0.1, backbone_rate=0.01)
    trainer = Trainer(Run("", "", build, digits, recipe), CPU)
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    assert rates == pytest.approx([0.001, 0.1])
    assert len(trainer.optimiser.param_groups[1]["params"]) == 2  # weight and bias of the head


def test_a_plateau_divides_the_rate_by_ten(digits):
    run = small_run(digits, schedule="plateau", patience=0, cooldown=1, learning_rate=0.1)
    trainer, rates = Trainer(run, CPU), []
    for _ in range(4):  # the first loss, a plateau, an epoch that does not count, a plateau
        trainer.scheduler.step(1.0)
        rates.append(trainer.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_training_lowers_the_loss(digits, tmp_path):
    rows = train(small_run(digits, epochs=4, augment=()), tmp_path, CPU, Progress()).rows
    assert rows[-1].loss < rows[0].loss


# ------------------------------------------------------------------------------------------------
# Data
# ------------------------------------------------------------------------------------------------


def draw_tree(folder, classes, photos=6):
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(photos):
            pixels = np.full((20, 30, 3), 80 * index + i, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def test_digits_stand_in_when_there_is_no_network(monkeypatch, capsys):
    def offline(*args, **kwargs):
        raise URLError("no network")

    for kind, _ in coursework.data.TORCHVISION.values():
        monkeypatch.setattr(kind, "download", offline)
    data = load("CIFAR10", None, 32)
    assert data.name.startswith("digits")
    assert len(data.train) + len(data.test) == 1797
    said = capsys.readouterr().err
    assert "cannot be downloaded" in said
    assert "--data DIR" in said


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_data_is_one_clear_line(tmp_path, made, capsys):
    folder = tmp_path / "data"
    if made:
        folder.mkdir()
    assert main(["ladder", "--data", str(folder), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Error: no data set in {folder}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_tree_of_class_folders_is_split(tmp_path):
    draw_tree(tmp_path, ["a", "b"])
    data = load("CIFAR10", str(tmp_path), 16)
    assert data.classes == ["a", "b"]
    assert data.train.inputs.shape == (10, 3, 16, 16)
    assert sorted(data.test.labels.tolist()) == [0, 1]
    assert all(
        (data.train.inputs[i] // 80 == label).all() for i, label in enumerate(data.train.labels)
    )


def test_tiny_imagenet_layout_is_read(tmp_path):
    draw_tree(tmp_path / "train", ["n01", "n02"])
    draw_tree(tmp_path / "val", ["images"], photos=3)
    with (tmp_path / "val" / "val_annotations.txt").open("w", newline="") as file:
        rows = [("2.png", "n02", 0, 0, 9, 9), ("0.png", "n01", 0, 0, 9, 9)]
        csv.writer(file, delimiter="\t").writerows(rows)
    data = load("CIFAR10", str(tmp_path), 16)
    assert len(data.train) == 12
    assert data.test.labels.tolist() == [1, 0]
    assert data.test.inputs[:, 0, 0, 0].tolist() == [2, 0]


def test_damaged_photos_are_left_out_and_named(tmp_path, capsys):
    draw_tree(tmp_path, ["a", "b"])
    (tmp_path / "a" / "0.png").write_bytes(b"no photo")
    data = load("CIFAR10", str(tmp_path), 16)
    assert len(data.train) + len(data.test) == 11
    assert capsys.readouterr().err.startswith(f"left out: {tmp_path / 'a' / '0.png'} (no photo")


def test_class_folders_without_photos_are_one_clear_line(tmp_path, capsys):
    draw_tree(tmp_path, ["a", "b"])
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"no photo")
    assert main(["case", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "cannot be read as class folders" in capsys.readouterr().err.splitlines()[-1]


def test_the_parts_of_a_data_set_keep_the_proportion_of_classes(digits):
    held = digits.held_out(0.2)
    assert len(held.validation) == 20
    assert len(held.train) == 80
    assert set(held.validation.labels.tolist()) == set(range(10))
    assert held.watched is held.validation
    assert digits.watched is digits.test


def test_grey_photos_have_one_channel(digits):
    photos = Photos(torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8), torch.zeros(3))
    assert replace(digits, train=photos).grey().train.inputs.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("name", ["flip", "shift", "erase", "rand-augment"])
def test_an_augmentation_changes_photos_and_keeps_their_shape(name):
    torch.manual_seed(0)
    photo = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    changed = [augmentation((name,), 32)(photo) for _ in range(10)]
    assert {(p.shape, p.dtype) for p in changed} == {(photo.shape, photo.dtype)}
    assert any(not torch.equal(p, photo) for p in changed)


# ------------------------------------------------------------------------------------------------
# Assignments
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "runs"), [("ladder", 9), ("transfer", 5), ("resnet", 6)])
def test_an_assignment_runs_from_data_to_report(name, runs, tmp_path, init, monkeypatch, capsys):
    state = torch.load(init, weights_only=True)
    monkeypatch.setattr(transfer, "imagenet_state", lambda weights: state)
    monkeypatch.setattr(transfer, "INPUT_SIDE", 28)
    monkeypatch.setattr(resnet, "WIDTH", 4)
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
    [["no"], ["case", "--epochs", "0"], ["case", "--device", "x"], ["case", "--network", "vgg11"]],
)
def test_wrong_calls_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        main(wrong)
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(assignment, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(coursework.__main__, "work", interrupted)
    assert main(["case", "--out", str(tmp_path)]) == 130
    assert "the same command" in capsys.readouterr().err


def result_of(data, label="x", losses=(2.0, 1.0), training=0.9, test=0.8) -> Result:
    run = Run(label, "changed", nn.Identity, data, Recipe(epochs=2, augment=("flip",)))
    rows = [EpochRow("x", i, 1.0, 0.5, v, 1 / v, 0.1, 1.0) for i, v in enumerate(losses)]
    final = {"training_accuracy": training, "test_accuracy": test, "test_loss": 1.0}
    return Result(run, nn.Identity(), rows, final)


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
