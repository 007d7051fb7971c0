"""Files that are written whole or not at all, and the one error that a user sees."""

import errno
import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota of the disk is used up; free some space",
    errno.EROFS: "the file system is read-only; name a folder that can be written",
    errno.EACCES: "no permission to {do} it; change its mode or owner, or take another",
    errno.EPERM: "no permission to {do} it; change its mode or owner, or take another",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of its path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "its name is too long; take a shorter one",
    errno.ELOOP: "its links lead round in a circle; remove one",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.EIO: "the disk reports an error; check it, and copy what can be read",
}

WHEN_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class UserError(Exception):
    """A mistake in what the user gave or has; one line: cause, file, remedy."""

    user_facing = True  # course.cli prints errors of such classes as one line


def describe_error(
    error: OSError, path: str | Path | None = None, writing: bool | None = None
) -> str:
    """Return an error of the file system as one line: the file, the cause, the remedy.

    `path` is the file that was meant, where the error does not know it. Whether it was written or
    read is guessed from the error where it is not told.
    """
    file = os.fsdecode(path or error.filename or "")
    if writing is None:
        writing = error.errno in WHEN_WRITING or os.access(file, os.R_OK)
    cause = REMEDIES.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)
    what = f"{file} cannot be {'written' if writing else 'read'}: " if file else ""
    return what + cause.format(do="write" if writing else "read")


_temporary: set[Path] = set()  # files and folders that are to be removed, before they are made


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces `path` at the end of the block.

    Until then, and after an error, `path` is as it was. Raises UserError for every OSError.
    """
    temporary = _name_beside(path)
    _temporary.add(temporary)
    try:
        _make_file(temporary)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):
            raise UserError(describe_error(error, path, writing=True)) from None
        raise UserError(describe_error(error)) from None
    finally:
        _remove(temporary)


def _name_beside(path: Path) -> Path:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file to write, or move it away")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is a device or a pipe: name a file to write")
    except OSError as error:
        raise UserError(describe_error(error, path, writing=True)) from None
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o644, exist_ok=False)


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that is gone after the block, whatever happens; by default where TMPDIR says.

    Raises UserError if it cannot be made.
    """
    try:
        folder = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(4)}"
    except OSError:
        raise UserError(
            "no folder for temporary files can be written; set TMPDIR to one that can"
        ) from None
    _temporary.add(folder)
    try:
        try:
            folder.mkdir(0o700, parents=parent is not None)
        except OSError as error:
            raise UserError(describe_error(error, folder.parent, writing=True)) from None
        yield folder
    finally:
        _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    _temporary.discard(path)


def remove_temporary() -> None:
    """Remove what is left of temporary files and folders, such as by a signal in a clean-up."""
    for path in list(_temporary):
        _remove(path)


class _Unused(Exception):
    """Ends an `atomic_write` before the file is replaced."""


def check_writable(path: Path) -> None:
    """Raise UserError before the work, not after it, if `path` cannot be written."""
    with suppress(_Unused), atomic_write(path):
        raise _Unused


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of their `atomic_write` of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is either whole or as it was. Raises UserError."""
    text = json.dumps(value, indent=1) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
