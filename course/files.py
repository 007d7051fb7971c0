"""Files that are written whole or not at all, and the one error that a user sees."""

import errno
import glob
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

_PERMISSION = "no permission to {do} it; change its mode or owner, or take another"
_IN_THE_WAY = "something of that name is there already; move it away, or name another"
REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EFBIG: "it grows too large for this disk; name another disk",
    errno.EROFS: "the file system is read-only; name a folder that can be written",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of its path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder; name a file",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ENAMETOOLONG: "its name is too long; take a shorter one",
    errno.ELOOP: "its links lead round in a circle; remove one",
}

WHEN_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EEXIST}

UNINTERRUPTED: set[CodeType] = set()  # what `uninterrupted` was called with
Function = TypeVar("Function", bound=Callable)


class UserError(Exception):
    """A mistake in what the user gave or has; one line: cause, file, remedy."""

    user_facing = True  # course.cli prints errors of such classes as one line


def describe_error(
    error: OSError, path: str | Path | None = None, writing: bool | None = None
) -> str:
    """Return an error of the file system as one line: the file, the cause, the remedy.

    `path` is the file, where the error does not know it; `writing` is guessed where it is None.
    """
    file = os.fsdecode(path or _culprit(error) or "")
    if writing is None:
        writing = error.errno in WHEN_WRITING or os.access(file, os.R_OK)
    cause = cause_of(error, writing)
    return f"{file} cannot be {'written' if writing else 'read'}: {cause}" if file else cause


def cause_of(error: OSError, writing: bool = False) -> str:
    """Return the cause of an error of the file system, and its remedy, without the file."""
    if cause := REMEDIES.get(error.errno or 0):
        return cause.format(do="write" if writing else "read")
    return f"{error.strerror or error or type(error).__name__}; check its path and its disk"


def _culprit(error: OSError) -> Any:
    """Return the file that an error is about: of a copy that fails in writing, the second."""
    return (error.errno in WHEN_WRITING and error.filename2) or error.filename


@contextmanager
def name_errors(path: Path, writing: bool = False) -> Iterator[None]:
    """Turn an OSError within the block into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(describe_error(error, path, writing)) from None


def uninterrupted(function: Function) -> Function:
    """Let signals wait while this function runs: a step that is to be whole, or a clean-up."""
    UNINTERRUPTED.add(function.__code__)
    return function


# ---- What is temporary ---------------------------------------------------------------------------

# Folders to be removed, noted before they are made, and the folders that were missing above them.
_temporary: dict[Path, list[Path]] = {}


@uninterrupted
def _remove(path: Path) -> None:
    """Remove a temporary folder, and what was made above it and is empty."""
    shutil.rmtree(path, ignore_errors=True)
    for folder in _temporary.pop(path, []):
        with suppress(OSError):
            folder.rmdir()


@uninterrupted
def remove_temporary() -> None:
    """Remove what is left of temporary folders, where a signal came between."""
    for path in list(_temporary):
        _remove(path)


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that is gone after the block, whatever happens; by default in TMPDIR.

    A `parent` that is missing is made, and stays if something else is in it after the block.
    Raises UserError if the folder cannot be made.
    """
    try:
        folder = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(4)}"
    except OSError:
        raise UserError(
            "no folder for temporary files can be written; set TMPDIR to one that can"
        ) from None
    try:
        with name_errors(folder.parent, writing=True):
            _temporary[folder] = [above for above in folder.parents if not above.exists()]
            folder.mkdir(0o700, parents=parent is not None)
        yield folder
    finally:
        _remove(folder)


# ---- Files ---------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file, in a folder beside `path`, which replaces `path` after the block.

    Until then, and after an error, `path` is as it was; of a link it is the file that it leads to.
    Raises UserError for every OSError.
    """
    with _file_beside(path) as (temporary, target):
        yield temporary
        temporary.replace(target)


def check_writable(path: Path, size: int = 2**16) -> None:
    """Raise UserError, before the work, if so many bytes cannot be written to `path`."""
    with _file_beside(path) as (temporary, _):
        temporary.write_bytes(bytes(size))  # a full disk takes a name, but no more


def check_outputs(outputs: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Raise UserError if an output of a command would replace one of its inputs, or another one."""
    targets: dict[str, Path] = {}
    for path in outputs:
        if targets.setdefault(os.path.realpath(path), path) is not path:
            raise UserError(f"{path} would be written twice: name different files")
    for path in inputs:
        if output := targets.get(os.path.realpath(path)):
            raise UserError(f"{output} is read by this command: name another file to write")


@contextmanager
def _file_beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a file that is gone after the block, and the one that it may replace: on one disk."""
    if str(path) == "-":
        raise UserError("- is stdout, which carries other lines here: name a file to write")
    with name_errors(path, writing=True):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise UserError(f"{path} is a folder: name a file to write, or move it away")
        # Behind /dev/stdout there may be a file, but it is not to be replaced.
        special = re.fullmatch(r"/(dev/[^/]+|dev/fd/.+|proc/.+)", os.path.abspath(path))  # noqa: PTH100
        if special or (target.exists() and not target.is_file()):
            raise UserError(f"{path} is a device or a pipe: name a file to write")
    with temporary_folder(_prefix(target), target.parent) as folder:
        try:
            yield folder / target.name, target
        except OSError as error:
            ours = Path(str(_culprit(error) or folder)).is_relative_to(folder)
            line = describe_error(error, path if ours else None, ours or None)
            raise UserError(line) from None


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of their `atomic_write` of `path`."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}????????"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:50]}."  # of a name as long as names may be, a longer one is none


def write_json(path: Path, value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file, whole or as it was; `default` is that of json.dumps. Raises UserError."""
    text = json.dumps(value, indent=1, default=default) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
