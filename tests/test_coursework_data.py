"""Data sets, class folders, splits."""

import os

import pytest
import torch
from torchvision.transforms import v2

from course.files import UserError
from coursework.data import Photos, load
from tests.coursework_helpers import class_folders, photos

COUNTS = {"crow": 12, "owl": 12, "wren": 12}


def test_one_tree_is_split_and_two_are_taken_as_they_are(tmp_path):
    one = load("CIFAR10", class_folders(tmp_path / "one", COUNTS), 16)
    assert (len(one.train), len(one.test), one.classes) == (29, 7, ["crow", "owl", "wren"])
    for part in ("train", "val"):
        class_folders(tmp_path / "two" / part, COUNTS)
    two = load("CIFAR10", tmp_path / "two", 16)
    assert (len(two.train), len(two.test), *two.train.inputs.shape[1:]) == (36, 36, 3, 16, 16)


def test_classes_of_the_test_are_numbered_as_those_of_the_training(tmp_path):
    class_folders(tmp_path / "train", COUNTS)
    class_folders(tmp_path / "test", {"owl": 2, "wren": 3})
    assert load("CIFAR10", tmp_path, 16).test.labels.tolist() == [1, 1, 2, 2, 2]
    class_folders(tmp_path / "test", {"stork": 2})
    with pytest.raises(UserError, match=r"without training photos .stork."):
        load("CIFAR10", tmp_path, 16)


def test_classes_without_a_readable_photo_are_named_and_left_out(tmp_path, capsys):
    class_folders(tmp_path, COUNTS | {"heron": 0})
    (tmp_path / "crow/0.png").write_bytes(b"no photo")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "crow/99.png")  # whoever opens it waits for ever
    for path in (tmp_path / "owl").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    class_folders(tmp_path, {"tern": 5})
    data = load("CIFAR10", tmp_path, 16)
    assert data.classes == ["crow", "tern", "wren"]
    assert len(data.train) + len(data.test) == 11 + 12 + 5
    errors = capsys.readouterr().err
    assert "no readable photo of heron, owl in" in errors
    assert f"Left out: {tmp_path / 'crow/0.png'}: no photo that Pillow reads" in errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no data set in .*No such file"),
        (lambda root: root.mkdir(), "no data set in"),
        (lambda root: class_folders(root, {"crow": 3}), "fewer than two classes"),
        (lambda root: (root / "cifar-10-batches-py").mkdir(parents=True), "is not whole"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, monkeypatch, make, message):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # no download
    root = tmp_path / "data"
    make(root)
    with pytest.raises(UserError, match=message) as caught:
        load("CIFAR10", root, 16)
    assert "\n" not in str(caught.value)


def test_without_data_and_download_there_is_one_line(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"FashionMNIST .* cannot be downloaded.* --data"):
        load("FashionMNIST", None, 28)


def test_parts_are_disjoint_and_the_same_each_time():
    whole = Photos(torch.arange(40).view(40, 1, 1, 1).byte(), torch.zeros(40, dtype=torch.int64))
    first, second = whole.split(10)
    assert sorted([*first.inputs.flatten(), *second.inputs.flatten()]) == list(range(40))
    assert first.inputs.flatten().tolist() != list(range(10))
    assert torch.equal(first.inputs, whole.split(10)[0].inputs)
    assert len(whole.at_most(10)) == 10
    assert len(whole.at_most(100)) == len(whole.at_most(None)) == 40


def test_photos_are_augmented_one_by_one():
    plain = photos(4)
    flipped = Photos(plain.inputs, plain.labels, v2.RandomHorizontalFlip(1.0))
    photo, label = flipped[2]
    assert torch.equal(photo, plain.inputs[2].flip(-1))
    assert label == plain.labels[2]
