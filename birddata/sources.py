"""A folder, a zip or a tar becomes one table of files; which of them are photos."""

import errno
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from birddata.findings import GUESSED, Findings
from birddata.writing import STAGING_PREFIX
from course.files import WHEN_WRITING, UserError, cause_of, describe_error
from course.tables import SURROGATE, decode_surely
from solution import DETAIL, Settings, may_be_photo, read_photo

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
DEVICE = "a device or a pipe"
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}

MAX_UNPACKED_BYTES = 8 * 2**30  # the whole of CUB-200-2011 is 1.2 GB, the course's sample far less
BLOCK = 2**20  # bytes read at once
# What zipfile, tarfile and the decompressors raise for damage, or an unknown method.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(ValueError, LookupError, OverflowError, NotImplementedError),
)

SIDE = DETAIL * Settings.input_size  # pixels, as training and classify read photos
HEIC = "HEIC, which prepare.py makes JPEG if it is whole, after `pip install pillow-heif`"
HEIC_BRANDS = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heif")}

T = TypeVar("T")
# Where the files lie that may matter, by their path below the folder that is read, with slashes.
Files = dict[str, Path]
# A member of an archive, also of a zip, as a tar describes it; and what opens its content.
Member = tuple[tarfile.TarInfo, Callable[[], Any]]


def read_source(source: Path, unpack_to: Path, found: Findings) -> Files:
    """List the photos and tables of a folder, or of an archive unpacked into `unpack_to`."""
    if source.is_dir():
        return walk_folder(source, found)
    if source.exists() and not source.is_file():
        raise UserError(f"{source} is {DEVICE}; give a folder or an archive")
    unpack_to.mkdir()
    try:
        return unpack(source, unpack_to, found)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            writing = error.errno in WHEN_WRITING
            cause = describe_error(error, unpack_to if writing else source, writing)
            raise UserError(cause) from None
        raise UserError(
            f"{source} cannot be unpacked ({error}): download it again, or unpack it yourself and "
            "give the folder"
        ) from None


def is_table(path: str) -> bool:
    """Tell by the extension whether a file may be a table."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


def prefixes(path: str) -> list[str]:
    """Return the folders that a path leads through, and the path itself: a, a/b, a/b/c."""
    return list(accumulate(path.split("/"), "{}/{}".format))


def is_wanted(path: str, found: Findings) -> bool:
    """Tell whether a file, or a folder/, may hold photos or labels; otherwise name it."""
    for part in prefixes(path):
        name = posixpath.basename(part)
        if name.startswith(".") or name.lower() in SYSTEM_FILES:
            if not name.startswith(STAGING_PREFIX):
                found.add("passed-over", part, "hidden" if part == path else "hidden folder")
            return False
    if is_table(path) or may_be_photo(posixpath.basename(path)):
        return True
    found.add("not-an-image", path, "not an image")
    return False


def walk_folder(source: Path, found: Findings, below: str = "") -> Files:
    """List the files below a folder in sorted order; links to folders are followed."""
    files: Files = {}
    paths = sorted((source / below).iterdir())
    if not paths:
        found.add("passed-over", below[:-1] or ".", "an empty folder")
    for file in paths:
        path = f"{below}{file.name}"
        if not is_wanted(f"{path}/" if file.is_dir() else path, found):
            continue
        if file.is_dir():
            above = [folder for folder in file.parents if folder.is_relative_to(source)]
            if file.is_symlink() and os.path.realpath(file) in map(os.path.realpath, above):
                found.add("passed-over", path, "a link to a folder above it")
            else:
                files |= walk_folder(source, found, f"{path}/")
        elif file.exists() and not file.is_file():  # opening it would block
            found.add("passed-over", path, DEVICE)
        else:
            files[path] = file
    return files


# ---- Archives ------------------------------------------------------------------------------------


def unpack(source: Path, folder: Path, found: Findings) -> Files:
    """Unpack what is wanted of an archive into numbered files: no member's name becomes a path.

    A link is the member that it means. Raises an error for what is refused, and unless the archive
    is whole to its end, and all checksums are right but those of what a zip has besides.
    """
    files: Files = {}
    links: dict[str, str] = {}
    members = {"."}  # their paths, and those of the folders that these lead through
    for member, opened in read_members(source, found):
        name = member.name
        members.update(prefixes(name))
        if not is_wanted(f"{name}/" if member.isdir() else name, found) or member.isdir():
            continue
        if name in files or name in links:
            found.add("passed-over", f"{name} (again)", "twice in the archive, the first is taken")
        elif member.issym() or member.islnk():
            folder_of = posixpath.dirname(name) if member.issym() else ""
            links[name] = posixpath.normpath(posixpath.join(folder_of, member.linkname))
        elif member.isfile():
            files[name] = folder / f"{len(files):06d}"
            with opened() as packed, files[name].open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, BLOCK)
        else:
            found.add("passed-over", name, "no file, folder or link")
    if len(members) == 1:
        raise UserError(f"{source} is empty; download it again, or give another archive")
    resolve_links(source, files, links, members, found)
    return dict(sorted(files.items()))


def read_members(source: Path, found: Findings) -> Iterator[Member]:
    """Yield the members of a zip or a tar in order, each to be read before the next.

    Raises UserError for another file, for a path that leads out, and for too much, also for what is
    skipped: no member has more bytes than it declares.
    """
    if zipfile.is_zipfile(source):
        members = zip_members(source, found)
    elif tarfile.is_tarfile(source):
        members = tar_members(source)
    else:
        raise UserError(
            f"{source} is no whole zip or tar; download it again, or unpack it yourself and give "
            "the folder"
        )
    room = MAX_UNPACKED_BYTES
    for member, opened in members:
        room -= member.size
        if room < 0:
            raise UserError(
                f"{source} would unpack to more than {MAX_UNPACKED_BYTES / 2**30:g} GiB; if you "
                "trust it, unpack it yourself and give the folder"
            )
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or re.match(r"/|[A-Za-z]:", member.name) or "\0" in member.name:
            raise UserError(
                f"{source} is refused: its member {member.name!r} leads out of the folder; get the "
                "archive from its own source"
            )
        if parts:  # otherwise it is the folder itself
            member.name = "/".join(parts)
            yield member, opened


def resolve_links(
    source: Path, files: Files, links: dict[str, str], members: set[str], found: Findings
) -> None:
    """Add the files that links lead to, or those below. Raises UserError if it is no member."""
    targets = {name: follow(name, links) for name in links}
    files |= {name: files[target] for name, target in targets.items() if target in files}
    there = dict(files)
    for name in sorted(targets.keys() - there.keys()):
        target, folder = targets[name], f"{targets[name]}/"
        if target not in members:
            raise UserError(
                f"{source} is refused: its member {name!r} is a link to {links[name]!r}, which is "
                "no member; get the archive from its own source"
            )
        above = target == "." or name.startswith(folder)
        inside = [path for path in there if path.startswith(folder) and not above]
        if not inside:
            found.add("passed-over", name, f"a link to {target}, which is above it or left out")
        for path in inside:
            files.setdefault(name + path.removeprefix(target), there[path])


def follow(path: str, links: dict[str, str]) -> str:
    """Return where a path leads through links, of its folders, too; "" in a circle."""
    for _ in range(40):  # links that lead to one another, as in Linux
        first = next((part for part in prefixes(path) if part in links), None)
        if first is None:
            return path
        path = links[first] + path.removeprefix(first)
    return ""


def zip_members(source: Path, found: Findings) -> Iterator[Member]:
    """Yield the members of a zip in order."""
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 0x1:
                raise zipfile.BadZipFile("it has a password")
            member = tarfile.TarInfo(zip_name(entry, found))
            member.size = entry.file_size
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if member.name.endswith("/"):
                member.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(kind):
                member.type = tarfile.SYMTYPE
                with archive.open(entry) as file:
                    member.linkname = file.read(4096).decode(errors="replace")  # as in Linux
            elif kind and not stat.S_ISREG(kind):
                member.type = tarfile.FIFOTYPE
            yield member, partial(archive.open, entry)


def zip_name(member: zipfile.ZipInfo, found: Findings) -> str:
    """Return the path of a zip's member as its maker wrote it, with slashes.

    Without the flag for UTF-8 zipfile reads code page 437, but the path may stand in Info-ZIP's
    extra field; macOS writes UTF-8, and a Russian Windows code page 866.
    """
    name = member.orig_filename
    if not member.flag_bits & 0x800:
        raw = name.encode("cp437")
        read = raw.decode(errors="surrogateescape")
        checksum = re.escape(struct.pack("<L", zlib.crc32(raw)))
        if field := re.search(b"up(..)." + checksum, member.extra, re.DOTALL):
            size = int.from_bytes(field[1], "little") - 5  # without version and checksum
            read = member.extra[field.end() :][:size].decode()
        read = decode_surely(read, ("cp866", "cp1251"))
        if SURROGATE.search(read):
            found.add("guessed-name", name.replace("\\", "/"), GUESSED)
        else:
            name = read
    return name.replace("\\", "/")


class TarInfo(tarfile.TarInfo):
    """A tar's header; in an old one of GNU tar, what ustar has for folders are times."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Read a header, and check its sum."""
        member = super().frombuf(buf, encoding, errors)
        if buf[257:265] == b"ustar  \0":
            member.name = buf[:100].partition(b"\0")[0].decode(encoding, errors)
        return member


def tar_members(source: Path) -> Iterator[Member]:
    """Yield the members of a tar in order; each is to be read before the next."""
    with tarfile.open(source, tarinfo=TarInfo) as archive:
        for member in archive:
            if member.size < 0:  # it leads back, perhaps for ever
                raise tarfile.ReadError("a negative size")
            if member.type == b"M":
                raise tarfile.ReadError("a part of a larger tar; tar -xM unpacks them all")
            if member.type == b"D":  # a folder in an incremental backup of GNU tar
                member.type = tarfile.DIRTYPE
            if member.type != b"V":  # the name of a volume
                yield member, partial(archive.extractfile, member)
        check_end(archive, source)


def check_end(archive: tarfile.TarFile, source: Path) -> None:
    """Raise an error unless a tar is whole: tarfile takes a damaged header for its end."""
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    rest = stream.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise tarfile.ReadError("it ends early" if not rest else "a damaged header")
    try:
        while rest := stream.read(BLOCK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something follows its end")
    except EOFError:  # Python takes zeros after an xz stream for the start of another
        with source.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BLOCK))
            if not file.read().rstrip(b"\0").endswith(b"YZ"):
                raise


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
    if isinstance(error, OSError) and error.errno:  # Pillow raises some without, of damage
        return cause_of(error)
    return " ".join(str(error).split()) or type(error).__name__


def with_bar(photos: Sequence[T]) -> Iterable[T]:
    """Yield them with a progress bar, if stderr is a terminal that can redraw a line."""
    console = Console(stderr=True)
    hidden = not console.is_interactive
    return track(photos, "Reading photos", console=console, transient=True, disable=hidden)
