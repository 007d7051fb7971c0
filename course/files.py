"""Files that are written whole or not at all, and the one error that a user sees."""

import errno
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces `path` at the end of the block.

    Until then, and after an error, `path` is as it was. Raises UserError for every OSError.
    """
    temporary = _new_file_beside(path)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the result from everybody else
        temporary.replace(path)
    except OSError as error:
        other = error.filename not in (None, str(temporary), temporary)
        raise UserError(
            describe_error(error) if other else describe_error(error, path, writing=True)
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _new_file_beside(path: Path) -> Path:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file to write, or move it away")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is a device or a pipe: name a file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(describe_error(error, path, writing=True)) from None
    return Path(name)


def check_writable(path: Path) -> None:
    """Raise UserError before the work, not after it, if `path` cannot be written."""
    _new_file_beside(path).unlink()


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of their `atomic_write` of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is either whole or as it was. Raises UserError."""
    text = json.dumps(value, indent=1) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
