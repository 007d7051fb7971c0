"""A folder, a zip or a tar becomes one table of files."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from birddata import DataError
from birddata.findings import Findings
from birddata.writing import STAGING_PREFIX
from solution import may_be_photo

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
MAX_UNPACKED_BYTES = 8 * 2**30  # the whole of CUB-200-2011 is 1.2 GB, the course's sample far less


class Entry(NamedTuple):
    """A file of SOURCE: its path below SOURCE, with slashes, and where its bytes lie now."""

    origin: str
    path: Path


# The files that may matter, by their path below the folder that is being read.
Files = dict[str, Entry]


def read_source(source: Path, unpack_to: Path, found: Findings) -> Files:
    """List the photos and tables of a folder, or of an archive unpacked into `unpack_to`."""
    if source.is_dir():
        return walk_folder(source, found)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder or an archive")
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return unpack(zip_members(archive, source), source, unpack_to, found)
        with tarfile.open(source) as archive:
            return unpack(tar_members(archive, source), source, unpack_to, found)
    except tarfile.ReadError:
        raise DataError(
            f"{source} is neither a folder nor a whole zip or tar; unpack it and give the folder"
        ) from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{source} cannot be unpacked ({error}); download it again") from None


# ---- Folders -------------------------------------------------------------------------------------


def walk_folder(source: Path, found: Findings) -> Files:
    """List the files below a folder in sorted order; links to folders are followed."""
    files: Files = {}
    for place, folders, names in os.walk(source, followlinks=True, onerror=raise_error):
        here = Path(place)
        if is_loop(here, source):
            folders.clear()
            found.add("passed-over", below_source(here, source), "a link to a folder above it")
            continue
        paths = [below_source(here / name, source) for name in sorted(names)]
        files.update((path, Entry(path, source / path)) for path in paths if is_wanted(path, found))
        hidden = {name for name in folders if is_hidden(name)}
        for name in sorted(hidden):
            if not name.startswith(STAGING_PREFIX):
                found.add("passed-over", below_source(here / name, source), "hidden folder")
        folders[:] = sorted(set(folders) - hidden)
    return files


def is_loop(here: Path, source: Path) -> bool:
    """Tell whether a folder is a link to one of the folders that led to it."""
    above = [folder for folder in here.parents if folder.is_relative_to(source)]
    return here.is_symlink() and here.resolve() in {folder.resolve() for folder in above}


def below_source(path: Path, source: Path) -> str:
    """Return a path as seen from SOURCE, with slashes on every system."""
    return path.relative_to(source).as_posix()


def raise_error(error: OSError) -> NoReturn:
    """Make os.walk fail on a folder that it may not read, instead of passing over it."""
    raise error


def is_wanted(path: str, found: Findings) -> bool:
    """Tell whether a file may be a photo or a table of labels; otherwise name it as passed over."""
    parts = path.split("/")
    for depth, part in enumerate(parts, start=1):
        if is_hidden(part):
            reason = "hidden" if depth == len(parts) else "hidden folder"
            found.add("passed-over", "/".join(parts[:depth]), reason)
            return False
    if is_table(path) or may_be_photo(parts[-1]):
        return True
    found.add("not-an-image", path, "not an image")
    return False


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is one that the system made for itself."""
    return name.startswith(".") or name.lower() in {"__macosx", "thumbs.db", "desktop.ini"}


def is_table(path: str) -> bool:
    """Tell by the extension whether a file may be a table."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


# ---- Archives ------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A file in an archive: its path there, its size in bytes and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(members: Iterable[Member], source: Path, folder: Path, found: Findings) -> Files:
    """Unpack what is wanted into numbered files, so that no member's name ever becomes a path."""
    folder.mkdir()
    files: Files = {}
    room = MAX_UNPACKED_BYTES
    for name, size, opened in members:
        if not is_wanted(name, found):
            continue
        if name in files:
            found.add("passed-over", f"{name} (again)", "twice in the archive, the first is taken")
            continue
        if (room := room - size) < 0:
            raise DataError(
                f"{source} would unpack to more than {MAX_UNPACKED_BYTES / 2**30:g} GiB; if you "
                "trust it, unpack it yourself and give the folder"
            )
        target = folder / f"{len(files):06d}"
        # Neither module reads more than a member's declared size, which was counted above.
        with opened() as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
        files[name] = Entry(name, target)
    return dict(sorted(files.items()))


def zip_members(archive: zipfile.ZipFile, source: Path) -> Iterator[Member]:
    """Yield the files in a zip; raises DataError for what cannot or must not be unpacked."""
    for member in archive.infolist():
        refuse_bad_name(source, member_name(member), stat.S_ISLNK(member.external_attr >> 16))
        if member.flag_bits & 0x1:
            raise DataError(f"{source} has a password; unpack it yourself and give the folder")
    for member in archive.infolist():
        if member.is_dir():
            continue
        try:
            archive.open(member).close()
        except NotImplementedError:
            method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
            raise DataError(
                f"{source} is packed by the method {method}, which Python does not know; unpack it "
                "yourself and give the folder"
            ) from None
        yield Member(member_name(member), member.file_size, partial(archive.open, member))


def member_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a zip's member as its maker wrote it, with slashes.

    Names without the flag for UTF-8 are read as code page 437 by zipfile, but macOS writes UTF-8,
    and a Russian Windows code page 866, which we believe where it gives Russian letters.
    """
    name = member.orig_filename
    if not member.flag_bits & 0x800 and not name.isascii():
        raw = name.encode("cp437", "replace")
        russian = raw.decode("cp866")
        if all(letter.isascii() or re.match("[а-яёА-ЯЁ]", letter) for letter in russian):
            name = russian
        with suppress(UnicodeError):
            name = raw.decode("utf-8")
    return name.replace("\\", "/")


def tar_members(archive: tarfile.TarFile, source: Path) -> Iterator[Member]:
    """Yield the files in a tar; raises DataError for what must not be unpacked."""
    for member in archive:
        name = member.name.removeprefix("./")
        refuse_bad_name(source, name, member.issym() or member.islnk())
        if member.isfile():
            yield Member(name, member.size, partial(archive.extractfile, member))


def refuse_bad_name(source: Path, name: str, is_link: bool) -> None:
    """Raise DataError for a link, or a name that leads out of the archive's folder."""
    if is_link or ".." in name.split("/") or re.match(r"/|[A-Za-z]:", name) or "\0" in name:
        raise DataError(
            f"{source} is refused: its member {name!r} is a link or leads out of the folder "
            "(.., absolute path, drive letter); get the archive from its own source"
        )
