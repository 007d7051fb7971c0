"""What birds_model.pt says about itself, held against the tests it was graded with.

The file is a zip of torch.save: its plain values are read without torch, and nothing of it is run.
"""

import functools
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from course.layout import TestFolder, digest_of
from course.marks import accuracy_text, wilson_interval


class _PlainValues(pickle.Unpickler):
    """Reads what is plain; a tensor becomes None, anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch"):
            return lambda *parts: None
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, so it cannot be inspected")

    def persistent_load(self, pid: Any) -> None:
        """Read no weights."""


def read_metadata(model: Path) -> dict[str, Any] | None:
    """Return what a checkpoint says of its training and validation; None if it says nothing.

    A file that cannot be read so gives {"unreadable": why}.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            checkpoint = _PlainValues(archive.open(name)).load()
    except (OSError, zipfile.BadZipFile):
        return None  # no file of torch.save
    except Exception as error:  # a pickle may fail in every way
        return {"unreadable": str(error) or type(error).__name__}
    names = ("training", "validation", "class_ids")
    return {name: checkpoint.get(name) for name in names} if isinstance(checkpoint, dict) else None


def training_of(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the checkpoint's record of its training; {} if it holds none."""
    training = (metadata or {}).get("training")
    return training if isinstance(training, dict) else {}


def trained_digests(metadata: Mapping[str, Any] | None) -> set[str] | None:
    """Return the digests of the photos that the model was trained on; None if it keeps none."""
    text = training_of(metadata).get("photo_digests")
    if not isinstance(text, str) or not text:
        return None
    return {text[start : start + 8] for start in range(0, len(text), 8)}


@functools.cache
def digests_in(images: Path) -> dict[str, str]:
    """Return the digest of each photo in a folder, by name."""
    found = {}
    for path in images.iterdir() if images.is_dir() else ():
        with suppress(OSError):
            if path.is_file():  # a pipe would be waited for in vain
                found[path.name] = digest_of(path)
    return found


def trained_photos(metadata: Mapping[str, Any] | None, test: TestFolder) -> set[str] | None:
    """Return which of the test's photos the model was trained on, by what is in the files.

    None if the model does not say: names tell nothing, since every sample starts at 0000.jpg.
    """
    trained = trained_digests(metadata)
    if trained is None:
        return None
    photos = digests_in(test.input / "test" / "images")
    return {name for name, digest in photos.items() if digest in trained}


def is_demonstration(metadata: Mapping[str, Any] | None, tests: Sequence[TestFolder]) -> bool:
    """Tell whether the model says that it was trained on other photos than those at hand."""
    trained = trained_digests(metadata)
    folders = [test.input / part / "images" for test in tests for part in ("train", "test")]
    known = (set(digests_in(folder).values()) for folder in folders)
    return trained is not None and not any(trained & digests for digests in known)


def mismatch(
    metadata: Mapping[str, Any], truth: Mapping[str, int], correct: int, trained_on: bool
) -> str:
    """Return why the stored validation accuracy cannot hold on these photos; "" if it may.

    It answered `correct` of the photos in `truth` right, and may have been `trained_on` some.
    """
    known, asked = metadata.get("class_ids"), set(truth.values())
    unknown = sorted(asked - set(known)) if isinstance(known, list) else []
    if unknown:
        return (
            f"the model knows other species than the test asks for: {len(unknown)} of "
            f"{len(asked)} class ids are unknown to it, such as {unknown[0]}"
        )
    validation = validation_of(metadata)
    if validation is None or not trained_on:
        return ""
    high, low = wilson_interval(correct, len(truth))[1], wilson_interval(*validation)[0]
    if high >= low:
        return ""
    return (
        f"accuracy {accuracy_text(correct, len(truth))} here, {accuracy_text(*validation)} in its "
        "validation: the same class ids seem to mean other species, or the photos differ in kind"
    )


def validation_of(metadata: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Return right answers and photos of the stored validation; None if it cannot be used."""
    validation: Any = (metadata or {}).get("validation")
    with suppress(TypeError, KeyError, ValueError):
        correct, total = int(validation["correct"]), int(validation["total"])
        return (correct, total) if 0 <= correct <= total and total else None
    return None
