"""Data sets as tensors in memory, and the augmentations that training may ask for."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torchvision import datasets
from torchvision.transforms import v2

from birddata.findings import Findings
from birddata.photos import reason
from birddata.prepare import name_left_out
from birddata.samples import read_class_folders
from birddata.sources import walk_folder
from course.files import UserError
from solution import read_photo

# What a data set of torchvision is, and the folder below its root by which it is recognised.
TORCHVISION = {
    "CIFAR10": (datasets.CIFAR10, "cifar-10-batches-py"),
    "FashionMNIST": (datasets.FashionMNIST, "FashionMNIST/raw"),
}
DIGITS = "digits"
SMALL = 32  # pixels a side of a small photo, which need not be enlarged further
HELD = ("val", "valid", "validation", "test", "testing")  # folders beside train/; the first counts


class CourseworkError(Exception):
    """A mistake that the user can mend; its text is one line with cause, file and cure."""


@dataclass(frozen=True)
class Photos:
    """N inputs of one shape with their classes."""

    inputs: Tensor  # (N, C, H, W): pixels as uint8, or activations in half precision
    labels: Tensor  # (N,), int64: index of the class
    pixels: Photos | None = None  # what activations were computed from

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels and labels, and of nothing that another machine would compute else."""
        if self.pixels:
            return self.pixels.digest
        content = hashlib.sha256(repr(self.inputs.shape).encode())
        for tensor in (self.inputs, self.labels):
            content.update(tensor.contiguous().numpy())
        return content.hexdigest()

    def take(self, indices: np.ndarray) -> Photos:
        """Those photos, in that order."""
        chosen, pixels = torch.from_numpy(indices), self.pixels
        return Photos(
            self.inputs[chosen], self.labels[chosen], pixels.take(indices) if pixels else None
        )

    def split(self, first: int) -> tuple[Photos, Photos]:
        """`first` photos and the others; every class in the same proportion in both.

        Raises CourseworkError if a class would be missing in one of them.
        """
        labels = self.labels.numpy()
        try:
            parts = train_test_split(
                np.arange(len(self)), train_size=first, stratify=labels, random_state=0
            )
        except ValueError as error:
            raise CourseworkError(
                f"{len(self)} photos cannot be split into {first} and others: {error} "
                "(give more photos of each class, or a larger --subset)"
            ) from None
        return self.take(parts[0]), self.take(parts[1])


@dataclass(frozen=True)
class DataSet:
    """Photos to train on and photos to test on, of the same classes."""

    name: str
    classes: Sequence[str]
    train: Photos
    test: Photos
    validation: Photos | None = None  # held out of the training photos

    @property
    def watched(self) -> Photos:
        """What is evaluated after each epoch: the validation photos, without any the test ones."""
        return self.validation or self.test

    @property
    def watched_kind(self) -> str:
        """`validation` or `test`."""
        return "validation" if self.validation else "test"

    @property
    def channels(self) -> int:
        """1 or 3 for photos."""
        return self.train.inputs.shape[1]

    @property
    def side(self) -> int:
        """Height and width of a photo in pixels."""
        return self.train.inputs.shape[2]

    def subset(self, train: int | None, test: int | None = None) -> DataSet:
        """At most so many training photos and test photos; None: all."""
        parts = [
            photos.split(most)[0] if most and most < len(photos) else photos
            for photos, most in ((self.train, train), (self.test, test))
        ]
        return replace(self, train=parts[0], test=parts[1])

    def held_out(self, share: float) -> DataSet:
        """The same with a share of the training photos kept for validation."""
        count = max(round(share * len(self.train)), len(self.classes))
        validation, train = self.train.split(count)
        return replace(self, train=train, validation=validation)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the training photos, on [0, 1]."""
        pixels = self.train.inputs[:10_000].float() / 255  # (N, C, H, W)
        return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()

    def grey(self) -> DataSet:
        """The same photos with one channel."""
        parts = {"train": self.train, "test": self.test}
        return replace(
            self,
            **{
                kind: Photos(v2.functional.rgb_to_grayscale(photos.inputs), photos.labels)
                for kind, photos in parts.items()
            },
        )


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N,) class indices -> (N, classes) float32: 1 in the column of the class, else 0."""
    return functional.one_hot(labels, classes).float()


# ------------------------------------------------------------------------------------------------
# Reading
# ------------------------------------------------------------------------------------------------


def load(wanted: str, source: str | None, side: int) -> DataSet:
    """The data set of an assignment.

    Args:
        wanted: the key of `TORCHVISION` that the assignment is made for.
        source: a folder that holds one of those data sets or a tree of class folders, or
            "digits"; None: torch's cache, into which the wanted one is downloaded if need be, and
            the digits where that fails.
        side: pixels, for photos from class folders; smaller photos of the others are enlarged
            to it, or to `SMALL` if that is less.

    Raises:
        CourseworkError: nothing usable in the folder.
    """
    if source == DIGITS:
        return digits(side)
    if source is not None:
        return _from_folder(Path(source), side)
    root = Path(torch.hub.get_dir()).parent / "datasets"
    try:
        return _from_torchvision(wanted, root, side)
    except (OSError, RuntimeError) as error:
        print(
            f"{wanted} is not in {root} and cannot be downloaded ({error}): training on "
            "scikit-learn's digits instead; --data DIR names a folder that holds it",
            file=sys.stderr,
        )
        return digits(side)


def digits(side: int) -> DataSet:
    """scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels, enlarged to `side` or 32."""
    bundled = load_digits()
    pixels = torch.from_numpy(bundled.images).float()[:, None] * (255 / 16)  # (N, 1, 8, 8)
    photos = Photos(enlarged(pixels, side), torch.from_numpy(bundled.target).long())
    train, test = photos.split(1437)
    return DataSet(f"{DIGITS} (scikit-learn)", [str(i) for i in range(10)], train, test)


def enlarged(pixels: Tensor, side: int) -> Tensor:
    """Photos (N, C, h, w) as uint8, with at least `side` or else `SMALL` pixels a side."""
    side = min(side, SMALL)
    if pixels.shape[-1] >= side:
        return pixels
    sized = functional.interpolate(pixels.float(), (side, side), mode="bilinear")
    return sized.round().byte()  # (N, C, side, side)


def _from_folder(folder: Path, side: int) -> DataSet:
    for name, (_, marker) in TORCHVISION.items():
        if (folder / marker).is_dir():
            try:
                return _from_torchvision(name, folder, side)
            except (OSError, RuntimeError) as error:
                raise CourseworkError(
                    f"{folder / marker} is not whole and cannot be downloaded ({error}): "
                    "copy it again"
                ) from None
    if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
        return _from_class_folders(folder, side)
    raise CourseworkError(
        f"no data set in {folder}: give a folder that holds cifar-10-batches-py, "
        "FashionMNIST/raw or a folder of photos for each class"
    )


def _from_torchvision(name: str, root: Path, side: int) -> DataSet:
    """Raises OSError or RuntimeError if the files are neither there nor to be downloaded."""
    kind = TORCHVISION[name][0]
    parts = []
    for train in (True, False):
        # "download" checks what is there, unpacks it, and opens no socket if nothing is missing.
        read = kind(root, train=train, download=True)
        pixels = torch.as_tensor(read.data)  # (N, H, W) or (N, H, W, 3)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        parts.append(Photos(enlarged(pixels, side), torch.as_tensor(read.targets)))
    return DataSet(name, read.classes, *parts)


def _from_class_folders(folder: Path, side: int) -> DataSet:
    """A folder with photos to train on and others to test on, or one tree to be split."""
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    trained = [parts[name] for name in ("train", "training") if name in parts]
    held = [parts[name] for name in HELD if name in parts]
    found = Findings()
    try:
        classes, files = _class_folders(trained[0] if trained and held else folder, found)
        read = [_photos_of(files, side, found)]
        if trained and held:
            read.append(_photos_of(_tested(held[0], classes, found), side, found))
        else:
            read = read[0].split(round(0.8 * len(read[0])))
    except (UserError, OSError, ValueError) as error:
        raise CourseworkError(f"{folder} cannot be read as class folders: {error}") from None
    finally:
        name_left_out(found)
    return DataSet(folder.name, classes, *read)


def _class_folders(folder: Path, found: Findings) -> tuple[list[str], list[tuple[Path, int]]]:
    """Names of classes, and files with their class, by the rules of the birds' photos."""
    sample = read_class_folders(folder, walk_folder(folder, found), found)
    files = [(photo.path, photo.class_id) for photo in sample.tests[0].train]
    return [sample.species[number] for number in sorted(sample.species)], files


def _tested(folder: Path, classes: Sequence[str], found: Findings) -> list[tuple[Path, int]]:
    """Files and classes of class folders, or of Tiny ImageNet's one folder with a list."""
    listed = folder / "val_annotations.txt"
    if not listed.is_file():
        names, files = _class_folders(folder, found)
        if names != classes:
            raise ValueError(f"the classes in {folder} are not those that are trained on")
        return files
    with listed.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    unknown = {row[1] for row in rows}.difference(classes)
    if unknown:
        raise ValueError(f"{listed} names {sorted(unknown)[0]}, a class without training photos")
    return [(folder / "images" / row[0], classes.index(row[1])) for row in rows]


def _photos_of(files: Sequence[tuple[Path, int]], side: int, found: Findings) -> Photos:
    """Each photo's shorter side brought to `side` pixels, and the middle kept."""
    shape = v2.Compose([v2.PILToTensor(), v2.Resize(side, antialias=True), v2.CenterCrop(side)])
    pixels, labels = [], []
    for path, label in files:
        try:
            pixels.append(shape(read_photo(path, 2 * side)))
            labels.append(label)
        except Exception as error:  # see read_photo
            found.add("unreadable", str(path), reason(error))
    if not pixels:
        raise ValueError("not one of its files is a photo that can be read")
    return Photos(torch.stack(pixels), torch.tensor(labels))


# ------------------------------------------------------------------------------------------------
# Augmentation
# ------------------------------------------------------------------------------------------------


def augmentation(names: Sequence[str], side: int) -> nn.Module | None:
    """The named transforms in a row, for one photo (C, side, side) of uint8; None for none.

    They are applied photo by photo, since v2 gives all photos of a batch the same random
    values. Measured on one core (Sapphire Rapids, torch 2.14.1), microseconds a photo of 32 x 32:
    flip 23, shift 77, erase 70, rand-augment 420. A vectorised flip and shift took 36 for both,
    which would save 3 s of the ladder's epoch of 50 to 60 s: not worth code of our own.
    """
    known = {
        "flip": v2.RandomHorizontalFlip(),
        "vertical-flip": v2.RandomVerticalFlip(),
        "grey": v2.RandomGrayscale(p=0.2),
        "blur": v2.GaussianBlur(3, sigma=(0.1, 1.0)),
        "jitter": v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
        "shift": v2.RandomCrop(side, padding=side // 10),  # cut from a frame of black pixels
        "erase": v2.RandomErasing(p=0.5),
        "rand-augment": v2.RandAugment(),
    }
    return v2.Compose([known[name] for name in names]) if names else None
