"""Any archive, zip or tar, as a series of members whose bytes are checked to the end."""

from __future__ import annotations

import errno
import io
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from course.files import UserError, describe_error
from course.tables import decode_russian

BLOCK = 2**20  # bytes read at once
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


class Member(NamedTuple):
    """A file of an archive: its path there, with slashes, its size in bytes, its bytes in parts.

    A link has the path of another member as its target. What has neither is a device or a pipe.
    """

    name: str
    size: int = 0
    chunks: Callable[[], Iterator[bytes]] | None = None
    target: str | None = None


def read_archive(source: Path) -> Iterator[Member]:
    """Yield the members of an archive in order; each is to be read before the next.

    Its end means that the archive is whole: nothing is missing, and the checksums are right of
    all that was read of a zip, and of all of a tar. Raises UserError for one that is damaged, has
    a password, or names what lies outside of it.
    """
    with _damage_named(source):
        yield from (_zip_members if zipfile.is_zipfile(source) else _tar_members)(source)


@contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            f"{source} is packed in a way that Python does not know ({error}); unpack it yourself "
            "and give the folder"
        ) from None
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(describe_error(error, source)) from None
        raise UserError(f"{source} is damaged ({error}); download it again") from None


def _chunks(opened: Callable[[], IO[bytes] | None], source: Path) -> Iterator[bytes]:
    with _damage_named(source), opened() or io.BytesIO() as packed:
        while chunk := packed.read(BLOCK):
            yield chunk


def _normalise(name: str, source: Path) -> str:
    """Return a member's path without empty parts. Raises UserError if it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or re.match(r"/|[A-Za-z]:", name) or "\0" in name:
        raise UserError(
            f"{source} is refused: its member {name!r} leads out of the folder, or is a link to "
            "something else than a member; get the archive from its own source"
        )
    return "/".join(parts)


def _link(name: str, target: str, source: Path) -> str:
    """Return the path of the member that a symbolic link means. Raises UserError if outside."""
    return _normalise(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)), source)


def _zip_members(source: Path) -> Iterator[Member]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if member.flag_bits & 0x1:
                raise UserError(f"{source} has a password; unpack it yourself and give the folder")
            if member.is_dir():
                continue
            name = _normalise(_zip_name(member), source)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if stat.S_ISLNK(kind):
                target = archive.read(member).decode(errors="replace")
                yield Member(name, target=_link(name, target, source))
            elif kind and not stat.S_ISREG(kind):
                yield Member(name)
            else:
                opened = partial(archive.open, member)
                yield Member(name, member.file_size, partial(_chunks, opened, source))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a zip's member as its maker wrote it, with slashes.

    Names without the flag for UTF-8 are read as code page 437 by zipfile, but macOS writes UTF-8,
    and a Russian Windows code page 866, which we believe where it gives Russian letters.
    """
    name = member.orig_filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):
            read = name.encode("cp437").decode(errors="surrogateescape")
            read = decode_russian(read, "cp866")
            name = read if read.isprintable() else name
    return name.replace("\\", "/")


def _open_tar(source: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(source)
    except tarfile.ReadError:
        with source.open("rb") as file:
            start = file.read(max(map(len, OTHERS)))
        what = next(what for magic, what in OTHERS.items() if start.startswith(magic))
        raise UserError(f"{source} is {what}") from None


def _tar_members(source: Path) -> Iterator[Member]:
    with _open_tar(source) as archive:
        for member in archive:
            name = _normalise(member.name, source)
            if member.size < 0:  # it leads back, perhaps for ever
                raise tarfile.ReadError("a negative size")
            if member.issym():
                yield Member(name, target=_link(name, member.linkname, source))
            elif member.islnk():
                yield Member(name, target=_normalise(member.linkname, source))
            elif member.isfile():
                opened = partial(archive.extractfile, member)
                yield Member(name, member.size, partial(_chunks, opened, source))
            elif not member.isdir():
                yield Member(name)
        # tarfile takes a damaged header for the end, and reads no checksum that follows it.
        stream: Any = archive.fileobj
        stream.seek(archive.offset)
        rest = stream.read(tarfile.BLOCKSIZE)
        if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
            raise tarfile.ReadError("it ends early" if not rest else "a damaged header")
        while rest := stream.read(BLOCK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something follows its end")
