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

from birddata.findings import Findings
from birddata.writing import STAGING_PREFIX
from course.files import UserError
from course.tables import decode_russian
from solution import may_be_photo

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
EMPTY_FOLDER = "an empty folder"
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
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
        raise UserError(f"{source} does not exist; give a folder or an archive")
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return unpack(zip_members(archive, source), source, unpack_to, found)
        with tarfile.open(source) as archive:
            return unpack(tar_members(archive), source, unpack_to, found)
    except tarfile.ReadError:
        raise UserError(
            f"{source} is neither a folder nor a whole zip or tar; unpack it and give the folder"
        ) from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{source} cannot be unpacked ({error}); download it again") from None


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
    if is_table(path) or may_be_photo(name):
        return True
    found.add("not-an-image", path, "not an image")
    return False


def walk_folder(source: Path, found: Findings) -> Files:
    """List the files below a folder in sorted order; links to folders are followed."""
    files: Files = {}
    for place, folders, names in os.walk(source, followlinks=True, onerror=_raise):
        here = Path(place)
        below = "" if here == source else f"{here.relative_to(source).as_posix()}/"
        above = {folder.resolve() for folder in here.parents if folder.is_relative_to(source)}
        if here.is_symlink() and here.resolve() in above:
            found.add("passed-over", below[:-1], "a link to a folder above it")
            folders.clear()
        elif not folders and not names:
            found.add("passed-over", below[:-1] or ".", EMPTY_FOLDER)
        else:
            folders[:] = [name for name in sorted(folders) if is_wanted(f"{below}{name}/", found)]
            for name in sorted(names):
                path, file = f"{below}{name}", here / name
                if file.exists() and not file.is_file():  # it would be waited for in vain
                    found.add("passed-over", path, "a device or a pipe")
                elif is_wanted(path, found):
                    files[path] = Entry(path, file)
    return files


def _raise(error: OSError) -> NoReturn:
    raise error


# ---- Archives ------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A file in an archive: its path there, its size in bytes, how to open it; is it a link?"""

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    is_link: bool


def unpack(members: Iterable[Member], source: Path, folder: Path, found: Findings) -> Files:
    """Unpack what is wanted into numbered files, so that no member's name ever becomes a path.

    Raises UserError for links, for names that lead out of the folder, and for too much.
    """
    folder.mkdir()
    files: Files = {}
    room = MAX_UNPACKED_BYTES
    for name, size, opened, is_link in members:
        if is_link or ".." in name.split("/") or re.match(r"/|[A-Za-z]:", name) or "\0" in name:
            raise UserError(
                f"{source} is refused: its member {name!r} is a link or leads out of the folder "
                "(.., absolute path, drive letter); get the archive from its own source"
            )
        if not is_wanted(name, found):
            continue
        if name in files:
            found.add("passed-over", f"{name} (again)", "twice in the archive, the first is taken")
            continue
        if (room := room - size) < 0:
            raise UserError(
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
    """Yield the files in a zip; raises UserError for a password or a strange method."""
    for member in archive.infolist():
        if member.flag_bits & 0x1:
            raise UserError(f"{source} has a password; unpack it yourself and give the folder")
        if not member.is_dir():
            try:
                archive.open(member).close()
            except NotImplementedError:
                method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
                raise UserError(
                    f"{source} is packed by the method {method}, which Python does not know; "
                    "unpack it yourself and give the folder"
                ) from None
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            opened = partial(archive.open, member)
            yield Member(member_name(member), member.file_size, opened, is_link)


def member_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a zip's member as its maker wrote it, with slashes.

    Names without the flag for UTF-8 are read as code page 437 by zipfile, but macOS writes UTF-8,
    and a Russian Windows code page 866, which we believe where it gives Russian letters.
    """
    name = member.orig_filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):
            read = decode_russian(name.encode("cp437").decode(errors="surrogateescape"), "cp866")
            name = read if read.isprintable() else name
    return name.replace("\\", "/")


def tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    """Yield the files and links in a tar."""
    for member in archive:
        is_link = member.issym() or member.islnk()
        if member.isfile() or is_link:
            opened = partial(archive.extractfile, member)
            yield Member(member.name.removeprefix("./"), member.size, opened, is_link)
