"""Data sets as tensors in memory: torchvision's own, or class folders; splits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, random_split
from torchvision import datasets
from torchvision.transforms import v2

<<<<<<< HEAD
from course.files import UserError
=======
from birddata.findings import Findings
from birddata.photos import reason
from birddata.prepare import name_left_out
from birddata.samples import read_class_folders
from birddata.sources import walk_folder
from course.files import UserError
from solution import read_photo
>>>>>>> 5c53be70e52b56b43a3a0c3d402156bd7a79d8d5

# Data sets of torchvision, and the folder below their root by which they are recognised.
TORCHVISION = {
    "CIFAR10": (datasets.CIFAR10, "cifar-10-batches-py"),
    "FashionMNIST": (datasets.FashionMNIST, "FashionMNIST/raw"),
}
TITLES = {"CIFAR10": "CIFAR-10", "FashionMNIST": "Fashion-MNIST"}


class Photos(Dataset):
    """N photos with their classes; a whole batch is read at once, and augmented photo by photo."""

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
        parts = random_split(
            self, [first, len(self) - first], generator=torch.Generator().manual_seed(0)
        )
        return self.take(list(parts[0].indices)), self.take(list(parts[1].indices))

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

    @property
    def side(self) -> int:
        """Height and width of a photo in pixels."""
        return self.train.inputs.shape[2]

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
        parts = [
            Photos(v2.functional.rgb_to_grayscale(p.inputs), p.labels)
            for p in (self.train, self.test)
        ]
        return replace(self, train=parts[0], test=parts[1])


def load(wanted: str, folder: Path | None, side: int) -> DataSet:
    """Return a data set with photos of `side` x `side` pixels.

    Args:
        wanted: the key of `TORCHVISION` that the assignment is made for.
        folder: holds one of those data sets, or a folder of photos for each class; None: torch's
            cache, into which the wanted one is downloaded if need be.
        side: pixels.

    Raises:
        UserError: there is nothing usable in the folder, or no download.
    """
    root = folder or Path(torch.hub.get_dir()).parent / "datasets"
    found = [name for name, (_, marker) in TORCHVISION.items() if (root / marker).is_dir()]
    name = wanted if folder is None or wanted in found else found[0] if found else ""
    if not name:
        return _class_folders(root, side)
    kind, _ = TORCHVISION[name]
    try:  # "download" checks what is there, and opens no socket if nothing is missing
        parts = [kind(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, EOFError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"{name} is not whole in {root} and cannot be downloaded ({cause}): give --data a "
            "folder that holds it, or be online once"
        ) from None
    photos = [_photos(torch.as_tensor(p.data), torch.as_tensor(p.targets), side) for p in parts]
    return DataSet(TITLES[name], list(parts[0].classes), *photos)


def _photos(pixels: Tensor, labels: Tensor, side: int) -> Photos:
    """Pixels (N, H, W) or (N, H, W, 3) as photos of the wanted size."""
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[-1] != side:
        pixels = v2.functional.resize(pixels, [side, side], antialias=True)
    return Photos(pixels, labels.long())


# ------------------------------------------------------------------------------------------------
# Class folders
# ------------------------------------------------------------------------------------------------


def _class_folders(root: Path, side: int) -> DataSet:
    """Read `root`/train and `root`/test (or val), or one tree, of which a fifth is for the test."""
    held = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    split = held is not None and (root / "train").is_dir()
    classes, train = _read_tree(root / "train" if split else root, side)
    if not split or held is None:
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


def _read_tree(folder: Path, side: int) -> tuple[list[str], Photos]:
    """Each photo's shorter side brought to `side` pixels, and the middle kept.

<<<<<<< HEAD
    A photo that cannot be read is left out, as is a class without any; stderr names them.
=======

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
>>>>>>> 5c53be70e52b56b43a3a0c3d402156bd7a79d8d5
    """
    shape = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side), v2.PILToTensor()])
    try:
        tree = datasets.ImageFolder(str(folder), allow_empty=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no data set in {folder} ({getattr(error, 'strerror', None) or error}): give --data a "
            "folder with cifar-10-batches-py, FashionMNIST/raw or a folder of photos for each class"
        ) from None
    pixels, labels = [], []
    for path, label in tree.samples:
        try:
            with Image.open(path) as photo:
                pixels.append(shape(photo.convert("RGB")))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            cause = getattr(error, "strerror", None) or "it is no photo, or damaged"
            print(f"Left out: {path}: {cause}", file=sys.stderr)
            continue
        labels.append(label)
    kept = sorted(set(labels))
    if empty := [name for i, name in enumerate(tree.classes) if i not in kept]:
        print(f"Left out: no readable photo of {', '.join(empty)} in {folder}", file=sys.stderr)
    if len(kept) < 2:
        raise UserError(
            f"{folder} has readable photos of fewer than two classes: give each class a folder "
            "with photos"
        )
    numbers = torch.tensor([kept.index(label) for label in labels])
    return [tree.classes[i] for i in kept], Photos(torch.stack(pixels), numbers)
