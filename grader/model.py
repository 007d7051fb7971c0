"""The metadata of birds_model.pt, compared with the tests that it was graded with.

The file is a zip of torch.save: its plain values are read without torch, and nothing of it is run.
"""

import functools
import pickle
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from course.layout import TestFolder, digest_of

_DIGITS = 8  # of the digest of each photo


class _Object(dict):
    """Stands for a tensor, or any other object that is no plain value."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


class _PlainValues(pickle.Unpickler):
    """Reads what is plain, and no weights."""

    def find_class(self, _module: str, _name: str) -> Any:
        return _Object

    def persistent_load(self, _pid: Any) -> None:
        pass


class Metadata(dict[str, Any]):
    """What a checkpoint says of its training and validation; empty for any other file."""

    @classmethod
    def of(cls, model: Path) -> "Metadata":
        """Read it from a file, which need not be a model."""
        with suppress(Exception), zipfile.ZipFile(model) as archive:  # a pickle fails in every way
            [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            checkpoint = _PlainValues(archive.open(name)).load()
            names = ("training", "validation", "class_ids")
            return cls((name, checkpoint.get(name)) for name in names)
        return cls()

    @property
    def validation(self) -> tuple[int, int] | None:
        """Right answers and photos of the stored validation; None if it cannot be used."""
        with suppress(TypeError, KeyError, ValueError):
            correct, total = (int(self["validation"][name]) for name in ("correct", "total"))
            return (correct, total) if 0 <= correct <= total and total else None
        return None

    def trained_photos(self, test: TestFolder, part: str = "test") -> set[str] | None:
        """Return which photos of a test the model was trained on, by what is in the files.

        None if the model does not say: names tell nothing, since every sample starts at 0000.jpg.
        """
        training = self.get("training")
        kept = training.get("photo_digests") if isinstance(training, dict) else None
        if not isinstance(kept, str) or not kept:
            return None
        trained = {kept[start : start + _DIGITS] for start in range(0, len(kept), _DIGITS)}
        photos = digests_in(test.input / part / "images")
        return {name for name, digest in photos.items() if digest in trained}

    def is_demonstration(self, tests: Sequence[TestFolder]) -> bool:
        """Tell whether the model says that it was trained on other photos than those at hand."""
        found = [self.trained_photos(test, part) for test in tests for part in ("train", "test")]
        return None not in found and not any(found)


@functools.cache
def digests_in(images: Path) -> dict[str, str]:
    """Return the digest of each photo in a folder, by name."""
    found = {}
    for path in images.iterdir() if images.is_dir() else ():
        with suppress(OSError):
            if path.is_file():  # opening a pipe would block
                found[path.name] = digest_of(path, _DIGITS)
    return found
