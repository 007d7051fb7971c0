"""A folder, a zip or a tar becomes one table of files; which of them are photos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.progress import track

from birddata.archives import read_archive
from birddata.findings import Findings
from birddata.writing import STAGING_PREFIX
from course.files import UserError, name_errors
from solution import DETAIL, Settings, may_be_photo, read_photo

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar"}
INNER_ARCHIVE = "a nested archive, which is not read; unpack it and give its folder"
EMPTY_FOLDER = "an empty folder"
DEVICE = "a device or a pipe"
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
MAX_UNPACKED_BYTES = 8 * 2**30  # the whole of CUB-200-2011 is 1.2 GB, the course's sample far less

SIDE = DETAIL * Settings.input_size  # pixels, as training and classify read photos
HEIC = "HEIC, which Pillow lacks here"
HEIC_BRANDS = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heif")}

T = TypeVar("T")
# Where the files lie that may matter, by their path below the folder that is read, with slashes.
Files = dict[str, Path]


def read_source(source: Path, unpack_to: Path, found: Findings) -> Files:
    """List the photos and tables of a folder, or of an archive unpacked into `unpack_to`."""
    if source.is_dir():
        return walk_folder(source, found)
    if not source.is_file():
        what = f"is {DEVICE}" if source.exists() else "does not exist"
        raise UserError(f"{source} {what}; give a folder or an archive")
    unpack_to.mkdir()
    return unpack(source, unpack_to, found)


def is_table(path: str) -> bool:
    """Tell by the extension whether a file may be a table."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


def is_wanted(path: str, found: Findings) -> bool:
    """Tell whether a file, or a folder/, may hold photos or labels; otherwise name it."""
    *folders, name = path.split("/")
    for depth, part in enumerate((*folders, name), start=1):
        if part.startswith(".") or part.lower() in SYSTEM_FILES:
            if not part.startswith(STAGING_PREFIX):
                why = "hidden" if depth > len(folders) else "hidden folder"
                found.add("passed-over", "/".join(path.split("/")[:depth]), why)
            return False
    inner = Path(name).suffix.lower() in ARCHIVE_SUFFIXES
    if not inner and (is_table(path) or may_be_photo(name)):
        return True
    found.add("not-an-image", path, INNER_ARCHIVE if inner else "not an image")
    return False


def walk_folder(source: Path, found: Findings) -> Files:
    """List the files below a folder in sorted order; links to folders are followed."""
    files: Files = {}
    for place, folders, names in os.walk(source, followlinks=True, onerror=_raise):
        here = Path(place)
        below = "" if here == source else f"{here.relative_to(source).as_posix()}/"
        above = (folder.resolve() for folder in here.parents if folder.is_relative_to(source))
        if here.is_symlink() and here.resolve() in above:
            found.add("passed-over", below[:-1], "a link to a folder above it")
            folders.clear()
            names.clear()
        elif not folders and not names:
            found.add("passed-over", below[:-1] or ".", EMPTY_FOLDER)
        folders[:] = [name for name in sorted(folders) if is_wanted(f"{below}{name}/", found)]
        for name in sorted(names):
            path, file = f"{below}{name}", here / name
            if file.exists() and not file.is_file():  # opening it would block
                found.add("passed-over", path, DEVICE)
            elif is_wanted(path, found):
                files[path] = file
    return files


def _raise(error: OSError) -> NoReturn:
    raise error


def unpack(source: Path, folder: Path, found: Findings) -> Files:
    """Unpack what is wanted of an archive into numbered files: no member's name becomes a path.

    A link is the member that it means. Raises UserError for what is refused, and for too much:
    no member has more bytes than it declares, and also a skipped one of a tar has to be unpacked.
    """
    files: Files = {}
    links: dict[str, str] = {}
    members: set[str] = set()
    room = MAX_UNPACKED_BYTES
    for member in read_archive(source):
        name = member.name
        members.add(name)
        room -= member.size
        if room < 0:
            raise UserError(
                f"{source} would unpack to more than {MAX_UNPACKED_BYTES / 2**30:g} GiB; if you "
                "trust it, unpack it yourself and give the folder"
            )
        if not is_wanted(name, found):
            continue
        if name in files or name in links:
            found.add("passed-over", f"{name} (again)", "twice in the archive, the first is taken")
        elif member.target is not None:
            links[name] = member.target
        elif member.chunks:
            files[name] = folder / f"{len(files):06d}"
            with name_errors(folder, writing=True), files[name].open("wb") as unpacked:
                unpacked.writelines(member.chunks())
        else:
            found.add("passed-over", name, DEVICE)
    for name in links:
        target = _follow(name, links)
        if target in files:
            files[name] = files[target]
        elif target in members and target not in links:
            found.add("passed-over", name, f"a link to {target}, which is left out")
        else:
            raise UserError(
                f"{source} is refused: its member {name!r} is a link to {links[name]!r}, which is "
                "no member; get the archive from its own source"
            )
    return dict(sorted(files.items()))


def _follow(name: str, links: dict[str, str]) -> str:
    """Return the member that a link leads to, through others; a link if they form a circle."""
    for _ in links:
        if name not in links:
            break
        name = links[name]
    return name


# ---- Photos --------------------------------------------------------------------------------------


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
    """Yield them with a progress bar, if stderr is a terminal that can redraw a line."""
    console = Console(stderr=True)
    hidden = not console.is_interactive
    return track(photos, "Reading photos", console=console, transient=True, disable=hidden)
