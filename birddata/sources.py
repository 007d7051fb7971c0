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
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.progress import track

from birddata.findings import GUESSED, Findings
from birddata.writing import STAGING_PREFIX
from course.files import WHEN_WRITING, UserError, cause_of, describe_error
from course.tables import SURROGATE, decode_surely
from solution import DETAIL, Settings, may_be_photo, read_photo

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar"}
INNER_ARCHIVE = "a nested archive, which is not read; unpack it and give its folder"
EMPTY_FOLDER = "an empty folder"
DEVICE = "a device or a pipe"
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}

MAX_UNPACKED_BYTES = 8 * 2**30  # the whole of CUB-200-2011 is 1.2 GB, the course's sample far less
BLOCK = 2**20  # bytes read at once
MAX_LINKS = 40  # that lead to one another, as in Linux
NO_TAR = "damaged, or holds no tar; download it again"
# What a file is that is neither a zip nor a tar, by its first bytes.
OTHERS = {
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0"), NO_TAR),
    b"PK\x07\x08": "a part of a split zip; join the parts (zip -s 0 IT.zip --out WHOLE.zip)",
    b"PK": "no whole zip; download it again, or join it if it is a part of a split one",
    b"7z\xbc\xaf": "a 7z archive; unpack it yourself and give the folder",
    b"Rar!": "a RAR archive; unpack it yourself and give the folder",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard; unpack it yourself and give the folder",
    b"<": "a web page; download the archive again, in a browser",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` fetches the archive",
    b"": "neither a folder nor a whole zip or tar; unpack it and give the folder",
}
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(ValueError, LookupError, OverflowError),  # of sizes and places that make no sense
)

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
    with damage_named(source, unpack_to):
        if not zipfile.is_zipfile(source) and not tarfile.is_tarfile(source):
            with source.open("rb") as file:
                start = file.read(BLOCK).lstrip(b"\xef\xbb\xbf \t\r\n")
            what = next(what for magic, what in OTHERS.items() if start.startswith(magic))
            raise UserError(f"{source} is {what}")
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
    errors: list[OSError] = []
    for place, folders, names in os.walk(source, followlinks=True, onerror=errors.append):
        here = Path(place)
        below = "" if here == source else f"{here.relative_to(source).as_posix()}/"
        above = [folder for folder in here.parents if folder.is_relative_to(source)]
        if here.is_symlink() and os.path.realpath(here) in map(os.path.realpath, above):
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
    for error in errors:
        raise error
    return files


# ---- Archives ------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A member of an archive: its path, with slashes, its size in bytes, and how it is opened.

    A link has the path of another member as its target. What has neither is a folder, or has a
    reason why it is passed over.
    """

    name: str
    size: int = 0
    opened: Callable[[], Any] | None = None
    target: str | None = None
    why: str = ""


def unpack(source: Path, folder: Path, found: Findings) -> Files:
    """Unpack what is wanted of an archive into numbered files: no member's name becomes a path.

    A link is the member that it means. Raises UserError for what is refused, and for too much:
    no member has more bytes than it declares, and also a skipped one of a tar has to be unpacked.

    At its end the archive is whole: nothing is missing, and the checksums are right of all that
    was read of a zip, and of all of a tar.
    """
    files: Files = {}
    links: dict[str, str] = {}
    members: set[str] = set()
    folders: set[str] = set()
    room = MAX_UNPACKED_BYTES
    for member in (zip_members if zipfile.is_zipfile(source) else tar_members)(source, found):
        name = member.name
        is_folder = not (member.opened or member.target or member.why)
        members.add(name)
        room -= member.size
        if room < 0:
            raise UserError(
                f"{source} would unpack to more than {MAX_UNPACKED_BYTES / 2**30:g} GiB; if you "
                "trust it, unpack it yourself and give the folder"
            )
        if not is_wanted(f"{name}/" if is_folder else name, found):
            continue
        if is_folder:
            folders.add(name)
        elif name in files or name in links:
            found.add("passed-over", f"{name} (again)", "twice in the archive, the first is taken")
        elif member.target:
            links[name] = member.target
        elif member.opened:
            files[name] = folder / f"{len(files):06d}"
            with member.opened() as packed, files[name].open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, BLOCK)
        else:
            found.add("passed-over", name, member.why)
    members.discard("")  # the folder itself
    if not members:
        raise UserError(f"{source} is empty; download it again, or give another archive")
    everything = sorted(members)
    name_empty(sorted(folders & members), everything, found)
    resolve_links(source, files, links, everything, found)
    return dict(sorted(files.items()))


def name_empty(folders: list[str], members: list[str], found: Findings) -> None:
    """Name the folders that have no members."""
    for folder in folders:
        if not below(folder, members):
            found.add("passed-over", folder, EMPTY_FOLDER)


def below(folder: str, paths: list[str]) -> list[str]:
    """Return those of the sorted paths that are below a folder."""
    return paths[bisect_left(paths, f"{folder}/") : bisect_left(paths, f"{folder}0")]  # 0 follows /


def resolve_links(
    source: Path, files: Files, links: dict[str, str], members: list[str], found: Findings
) -> None:
    """Add the files that links mean: of a link to a folder, those below it. Raises UserError."""
    folders = {}
    for name in links:
        target = follow(name, links)
        if target in files:
            files[name] = files[target]
        elif f"{name}/".startswith(f"{target}/".removeprefix("./")):
            found.add("passed-over", name, "a link to a folder above it")
        elif below(target, members):
            folders[name] = target
        elif target in members:
            found.add("passed-over", name, f"a link to {target}, which is left out")
        else:
            raise UserError(
                f"{source} is refused: its member {name!r} is a link to {links[name]!r}, which is "
                "no member; get the archive from its own source"
            )
    there, inner = sorted(files), sorted(folders)
    for name, target in folders.items():
        for path in below(target, there):
            files.setdefault(name + path.removeprefix(target), files[path])
        for path in below(target, inner):
            found.add("passed-over", name + path.removeprefix(target), "a link in a linked folder")


def follow(path: str, links: dict[str, str]) -> str:
    """Return where a path leads through links, of its folders, too; "" in a circle."""
    for _ in range(MAX_LINKS):
        places = (path[: match.start()] for match in re.finditer("/|$", path))
        first = next((place for place in places if place in links), None)
        if first is None:
            return path
        path = links[first] + path.removeprefix(first)
    return ""


@contextmanager
def damage_named(source: Path, folder: Path) -> Iterator[None]:
    """Turn what damage makes the libraries raise, and what a disk does, into a UserError."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            f"{source} is packed in a way that Python does not know ({error}); unpack it yourself "
            "and give the folder"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source} is damaged (its name {error.object!r} is said to be UTF-8 and is not); "
            "pack it anew"
        ) from None
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            writing = error.errno in WHEN_WRITING
            line = describe_error(error, folder if writing else source, writing)
            raise UserError(line) from None
        raise UserError(f"{source} is damaged ({error}); download it again") from None


def normalise(name: str, source: Path) -> str:
    """Return a member's path without empty parts. Raises UserError if it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or re.match(r"/|[A-Za-z]:", name) or "\0" in name:
        raise UserError(
            f"{source} is refused: its member {name!r} leads out of the folder; get the archive "
            "from its own source"
        )
    return "/".join(parts)


def link(name: str, target: str) -> Member:
    """Return a symbolic link, whose target is a path from its own folder."""
    path = posixpath.join(posixpath.dirname(name), target)
    return Member(name, target=posixpath.normpath(path))


def zip_members(source: Path, found: Findings) -> Iterator[Member]:
    """Yield the members of a zip in order."""
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if member.flag_bits & 0x1:
                raise UserError(f"{source} has a password; unpack it yourself and give the folder")
            path = zip_name(member, found)
            name, kind = normalise(path, source), stat.S_IFMT(member.external_attr >> 16)
            if path.endswith("/"):
                yield Member(name)
            elif stat.S_ISLNK(kind):
                yield link(name, archive.read(member).decode(errors="replace"))
            elif kind and not stat.S_ISREG(kind):
                yield Member(name, why=DEVICE)
            else:
                yield Member(name, member.file_size, partial(archive.open, member))


def zip_name(member: zipfile.ZipInfo, found: Findings) -> str:
    """Return the path of a zip's member as its maker wrote it, with slashes.

    A path in Unicode may stand in an extra field. Other names without the flag for UTF-8 are read
    as code page 437 by zipfile, but macOS writes UTF-8, and a Russian Windows code page 866.
    """
    name = member.orig_filename
    if not member.flag_bits & 0x800:
        raw = name.encode("cp437")
        read = unicode_path(member.extra, raw) or raw.decode(errors="surrogateescape")
        read = decode_surely(read, ("cp866", "cp1251"))
        if SURROGATE.search(read):
            found.add("guessed-name", name.replace("\\", "/"), GUESSED)
        else:
            name = read
    return name.replace("\\", "/")


def unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return Info-ZIP's Unicode Path of a member, if it is that of its raw name."""
    while len(extra) > 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == 0x7075 and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return field[5:].decode()
    return None


class TarInfo(tarfile.TarInfo):
    """A tar's header; in an old one of GNU tar, what ustar has for folders are times."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Read a header, and check its sum."""
        member = super().frombuf(buf, encoding, errors)
        if buf[257:265] == b"ustar  \0":
            member.name = buf[:100].partition(b"\0")[0].decode(encoding, errors)
        return member


def tar_members(source: Path, _: Findings) -> Iterator[Member]:
    """Yield the members of a tar in order; each is to be read before the next."""
    with tarfile.open(source, tarinfo=TarInfo) as archive:
        for member in archive:
            name = normalise(member.name, source)
            if member.size < 0:  # it leads back, perhaps for ever
                raise tarfile.ReadError("a negative size")
            if member.type == b"M":
                raise UserError(
                    f"{source} is a part of a larger tar; unpack all with tar -xM yourself"
                )
            if member.issym():
                yield link(name, member.linkname)
            elif member.islnk():
                yield Member(name, target=posixpath.normpath(member.linkname))
            elif member.isfile():
                yield Member(name, member.size, partial(archive.extractfile, member))
            elif member.isdir() or member.type == b"D":  # GNU tar's incremental backups
                yield Member(name)
            elif member.type != b"V":  # the name of a volume
                yield Member(name, why=DEVICE if member.isdev() else "no file")
        check_end(archive, source)


def check_end(archive: tarfile.TarFile, source: Path) -> None:
    """Raise an error unless a tar that was read is whole.

    tarfile takes a damaged header for the end, and reads no checksum that follows it.
    """
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
