"""The courseworks' data: reading, splitting, identity, augmentation."""

import csv
import time
from dataclasses import replace
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import coursework.data
from coursework.__main__ import main
from coursework.data import CourseworkError, DataSet, Photos, augmentation, load


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """A hundred digits to train on, forty to test on."""
    return coursework.data.digits(32).subset(100, 40)


# ------------------------------------------------------------------------------------------------
# Reading
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
    assert capsys.readouterr().err.startswith(f"skipped: {tmp_path / 'a' / '0.png'}: no photo")


def test_class_folders_without_photos_are_one_clear_line(tmp_path, capsys):
    draw_tree(tmp_path, ["a", "b"])
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"no photo")
    assert main(["case", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "cannot be read as class folders" in capsys.readouterr().err.splitlines()[-1]


def test_hidden_files_and_what_is_no_photo_are_passed_over_as_with_the_birds(tmp_path, capsys):
    draw_tree(tmp_path, ["a", "b", ".cache"])
    (tmp_path / "a" / "._0.png").write_bytes(b"macOS writes such files")
    (tmp_path / "a" / "notes.json").write_text("{}")
    (tmp_path / "a" / "photo").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    data = load("CIFAR10", str(tmp_path), 16)
    assert data.classes == ["a", "b"]
    assert len(data.train) + len(data.test) == 13  # content decides, so that `photo` is one
    assert "hidden folder" in capsys.readouterr().err


@pytest.mark.parametrize(("train", "held"), [("Training", "valid"), ("train", "testing")])
def test_splits_are_known_by_all_their_names(tmp_path, train, held):
    draw_tree(tmp_path / train, ["a", "b"])
    draw_tree(tmp_path / held, ["a", "b"], photos=2)
    data = load("CIFAR10", str(tmp_path), 16)
    assert (len(data.train), len(data.test)) == (12, 4)


def test_other_classes_in_the_test_folder_are_refused(tmp_path):
    draw_tree(tmp_path / "train", ["a", "b"])
    draw_tree(tmp_path / "test", ["a", "c"])
    with pytest.raises(CourseworkError, match="test are not those that are trained on"):
        load("CIFAR10", str(tmp_path), 16)


def test_photos_of_28_pixels_are_enlarged_for_a_network_of_32(tmp_path, monkeypatch):
    """And none is made smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    read = SimpleNamespace(data=pixels, targets=[0] * 6, classes=["a"])
    monkeypatch.setitem(
        coursework.data.TORCHVISION, "FashionMNIST", (lambda *_, **__: read, "FashionMNIST/raw")
    )
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    sides = {side: load("CIFAR10", str(tmp_path), side).side for side in (20, 28, 32, 64)}
    assert sides == {20: 28, 28: 28, 32: 32, 64: 32}
    enlarged = load("CIFAR10", str(tmp_path), 32).train.inputs
    assert enlarged.dtype == torch.uint8
    assert enlarged.float().mean() == pytest.approx(pixels.mean(), abs=2)


# ------------------------------------------------------------------------------------------------
# Sets of photos
# ------------------------------------------------------------------------------------------------


def test_the_parts_of_a_data_set_keep_the_proportion_of_classes(digits):
    held = digits.held_out(0.2)
    assert len(held.validation) == 20
    assert len(held.train) == 80
    assert set(held.validation.labels.tolist()) == set(range(10))
    assert held.watched is held.validation
    assert digits.watched is digits.test


def test_grey_photos_have_one_channel(digits):
    primary = torch.eye(3, dtype=torch.uint8)[:, :, None, None] * 200  # red, green, blue
    photos = Photos(primary.expand(3, 3, 8, 8), torch.zeros(3))
    grey = replace(digits, train=photos).grey().train.inputs
    assert grey.shape == (3, 1, 8, 8)
    red, green, blue = grey[:, 0, 0, 0].tolist()
    assert 0 < blue < red < green


def test_the_statistics_are_those_of_the_training_photos():
    shape, labels = (2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    dark, bright = (Photos(torch.full(shape, v, dtype=torch.uint8), labels) for v in (0, 255))
    data = DataSet("made up", ["a"], train=dark, test=bright, validation=bright)
    assert data.statistics() == ([0.0], [0.0])


def test_the_digest_tells_photos_apart_that_differ_in_one_pixel():
    photos = Photos(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    other = Photos(photos.inputs.clone(), photos.labels)
    assert other.digest == photos.digest
    other = Photos(photos.inputs.clone(), photos.labels)
    other.inputs[3, 2, 7, 7] = 1
    assert other.digest != photos.digest
    assert Photos(photos.inputs, photos.labels + 1).digest != photos.digest


def test_the_digest_of_activations_is_that_of_their_pixels():
    """Another machine computes others in the last bits."""
    photos = Photos(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    activations = Photos(torch.rand(4, 5, 2, 2).half(), photos.labels, photos)
    assert activations.digest == photos.digest
    chosen = np.array([2, 0])
    assert activations.take(chosen).digest == photos.take(chosen).digest != photos.digest


def test_the_digest_of_cifar_10_costs_next_to_nothing():
    pixels = torch.zeros(50_000, 3, 32, 32, dtype=torch.uint8)  # 154 MB
    photos = Photos(pixels, torch.zeros(50_000, dtype=torch.int64))
    start = time.process_time()
    assert photos.digest
    assert time.process_time() - start < 2  # 0.3 on a server of 2022


# ------------------------------------------------------------------------------------------------
# Augmentation
# ------------------------------------------------------------------------------------------------


AUGMENTATIONS = (
    *("flip", "vertical-flip", "shift", "erase", "grey", "blur", "jitter", "rand-augment"),
)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_changes_photos_and_keeps_their_shape(name):
    torch.manual_seed(0)
    photo = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    changed = [augmentation((name,), 32)(photo) for _ in range(20)]
    assert {(p.shape, p.dtype) for p in changed} == {(photo.shape, photo.dtype)}
    assert any(not torch.equal(p, photo) for p in changed)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_takes_photos_of_one_channel(name):
    photo = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    assert augmentation((name,), 28)(photo).shape == photo.shape
