"""One photo: can training and classify read it, and can it be made a JPEG?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from solution import DETAIL, Settings, read_photo

SIDE = DETAIL * Settings.input_size  # pixels, as training and classify read photos

HEIC = "HEIC, which Pillow lacks here"
HEIC_BRANDS = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heif")}
T = TypeVar("T")


def problem(path: Path) -> str | None:
    """Return why training leaves a photo out and classify cannot read it; None if they can."""
    try:
        read_photo(path, SIDE)
    except Exception as error:  # a damaged photo makes Pillow raise nearly anything
        return reason(error, path)
    return None


def reason(error: Exception, path: Path) -> str:
    """Return in a few words why a photo cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(12)[4:] in HEIC_BRANDS:
            return HEIC
    cause = error.strerror if isinstance(error, OSError) else None
    return cause or " ".join(str(error).split()) or type(error).__name__


def with_bar(photos: Sequence[T]) -> Iterable[T]:
    """Yield them with a progress bar, if stderr is a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(photos, "Reading photos", console=console, transient=True, disable=hidden)


def as_jpeg(heic: Path, jpeg: Path) -> bool:
    """Save a HEIC photo as JPEG, upright; False without pillow-heif, or if it cannot read it."""
    try:
        from pillow_heif import read_heif  # optional; a submission may not import it

        read_heif(heic).to_pillow().convert("RGB").save(jpeg, "JPEG", quality=95)
    except Exception:  # ImportError, and whatever a damaged file makes the library raise
        return False
    return True
