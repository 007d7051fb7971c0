"""Data sets as tensors in memory: torchvision's own, or class folders; splits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, random_split
from torchvision import datasets
from torchvision.transforms import v2

from course.files import UserError
from solution import may_be_photo, read_photo

# Data sets of torchvision, and the folder below their root by which they are recognised.
TORCHVISION = {
    "CIFAR10": (datasets.CIFAR10, "cifar-10-batches-py", "CIFAR-10"),
    "FashionMNIST": (datasets.FashionMNIST, "FashionMNIST/raw", "Fashion-MNIST"),
}


class Photos(Dataset):
    """N photos with their classes, augmented one by one."""

    def __init__(self, inputs: Tensor, labels: Tensor, augment: v2.Transform | None = None) -> None:
        self.inputs, self.labels, self.augment = inputs, labels, augment  # (N, C, H, W) uint8, (N,)

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one photo (C, H, W) as uint8 and its class."""
        photo = self.inputs[index]
        return self.augment(photo) if self.augment else photo, self.labels[index]

    def take(self, indices: list[int] | slice | Tensor) -> Photos:
        """Return those photos, in that order."""
        return Photos(self.inputs[indices], self.labels[indices], self.augment)

    def split(self, first: int) -> tuple[Photos, Photos]:
        """Return `first` photos drawn at random, the same ones each time, and the others."""
        fixed = torch.Generator().manual_seed(0)
        one, other = random_split(self, [first, len(self) - first], generator=fixed)
        return self.take(list(one.indices)), self.take(list(other.indices))

    def at_most(self, count: int | None) -> Photos:
        """Return `count` photos drawn at random, or all if there are no more."""
        return self.split(count)[0] if count and count < len(self) else self


@dataclass(frozen=True)
class DataSet:
    """Photos to train on and photos to test on, of the same classes."""

    name: str
    classes: list[str]
    train: Photos
    test: Photos
    validation: Photos | None = None  # held out of the training photos

    @property
    def watched(self) -> Photos:
        """What is evaluated after each epoch."""
        return self.validation or self.test

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.train.inputs.shape[1]

    def subset(self, train: int | None, test: int | None = None) -> DataSet:
        """Return the data set with at most so many training and test photos; None: all."""
        return replace(self, train=self.train.at_most(train), test=self.test.at_most(test))

    def held_out(self, share: float) -> DataSet:
        """Return the data set with a share of its training photos kept for validation."""
        validation, train = self.train.split(max(1, round(share * len(self.train))))
        return replace(self, train=train, validation=validation)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the training photos, on [0, 1]."""
        pixels = self.train.inputs[:10_000].float() / 255  # (N, C, H, W)
        deviation = pixels.std((0, 2, 3)).clamp(min=1e-3)
        return pixels.mean((0, 2, 3)).tolist(), deviation.tolist()

    def grey(self) -> DataSet:
        """Return the same photos with one channel."""
        grey = v2.functional.rgb_to_grayscale
        train, test = (Photos(grey(p.inputs), p.labels) for p in (self.train, self.test))
        return replace(self, train=train, test=test)


def load(wanted: str, folder: Path | None, side: int) -> DataSet:
    """Return the `wanted` data set, or what `folder` holds, as photos of `side` x `side` pixels.

    Without a folder torch's cache is taken, and filled by download. Raises UserError.
    """
    root = folder or Path(torch.hub.get_dir()).parent / "datasets"
    found = [name for name, (_, marker, _) in TORCHVISION.items() if (root / marker).is_dir()]
    name = wanted if folder is None or wanted in found else found[0] if found else ""
    if not name:
        return _class_folders(root, side)
    kind, _, title = TORCHVISION[name]
    try:  # "download" checks what is there, and opens no socket if nothing is missing
        parts = [kind(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, EOFError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"{name} is not whole in {root} and cannot be downloaded ({cause}): give --data a "
            "folder that holds it, or be online once"
        ) from None
    photos = [_photos(part.data, part.targets, side) for part in parts]
    return DataSet(title, list(parts[0].classes), *photos)


def _photos(data: Any, labels: Any, side: int) -> Photos:
    """Pixels (N, H, W) or (N, H, W, 3) as photos of the wanted size."""
    pixels = torch.as_tensor(data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[-1] != side:
        pixels = v2.functional.resize(pixels, [side, side], antialias=True)
    return Photos(pixels, torch.as_tensor(labels))


def _class_folders(root: Path, side: int) -> DataSet:
    """Read `root`/train and `root`/test (or val), or one tree, of which a fifth is for the test."""
    held = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    held = held if (root / "train").is_dir() else None
    classes, train = _read_tree(root / "train" if held else root, side)
    if not held:
        return DataSet(root.resolve().name, classes, *train.split(round(0.8 * len(train))))
    tested, test = _read_tree(held, side)
    if unknown := sorted(set(tested) - set(classes)):
        raise UserError(
            f"{held} has classes without training photos ({', '.join(unknown)}): add some to "
            f"{root / 'train'}, or remove these folders"
        )
    numbers = torch.tensor([classes.index(name) for name in tested])
    test = Photos(test.inputs, numbers[test.labels])
    return DataSet(root.resolve().name, classes, train, test)


def _is_photo(path: str) -> bool:
    return Path(path).is_file() and may_be_photo(Path(path).name)


def _read_tree(folder: Path, side: int) -> tuple[list[str], Photos]:
    """Each photo's shorter side brought to `side` pixels, and the middle kept.

    A photo that cannot be read is left out, as is a class without any; stderr names them.
    """
    shape = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side), v2.PILToTensor()])
    try:
        tree = datasets.ImageFolder(str(folder), is_valid_file=_is_photo, allow_empty=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no data set in {folder} ({getattr(error, 'strerror', None) or error}): give --data a "
            "folder with cifar-10-batches-py, FashionMNIST/raw or a folder of photos for each class"
        ) from None
    pixels, labels = [], []
    for path, label in tree.samples:
        try:
            pixels.append(shape(read_photo(Path(path), side)))
            labels.append(label)
        except Exception as error:  # see `read_photo`
            print(f"Left out: {path}: {error}", file=sys.stderr)
    kept = sorted(set(labels))
    if empty := [name for i, name in enumerate(tree.classes) if i not in kept]:
        print(f"Left out: no readable photo of {', '.join(empty)} in {folder}", file=sys.stderr)
    if len(kept) < 2:
        raise UserError(f"{folder} has readable photos of fewer than two classes: add some")
    numbers = torch.tensor([kept.index(label) for label in labels])
    return [tree.classes[i] for i in kept], Photos(torch.stack(pixels), numbers)


@dataclass(frozen=True)
class Options:
    """What the command line says; None stands for the assignment's own value."""

    out: Path
    data: Path | None = None
    epochs: int | None = None
    subset: int | None = None
    seed: int = 0
    full: bool = False  # the assignment's own numbers
    network: str | None = None  # of transfer; None: the first one whose weights there are
    object: int = 0  # of transfer: the test photo to be classified
    photo: Path | None = None  # of ladder: the new photo

    def load(self, wanted: str, side: int, subset: int | None = None) -> DataSet:
        """Return the data set, or as much of it as was asked for; `subset` is the default."""
        data = load(wanted, self.data, side)
        return data.subset(self.subset or (None if self.full else subset), self.subset)
