"""The archive to upload: the code, what it imports from its folder, and birds_model.pt.

The same bytes every time.
"""

import ast
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from course.files import UserError, atomic_write, describe_error, temporary_folder
from course.layout import TestFolder
from grader.session import TestResult, grade_tests
from grader.staging import OFFERED, Submission

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


class PackError(Exception):
    """The archive does not do what the folder does."""


def files_to_pack(
    submission: Submission, results: Sequence[TestResult], code: str
) -> dict[str, Path]:
    """Return the files by their name in the archive, in which the code is called `code`.

    What the code imports is found by reading it, in functions and branches, too; what it imported
    by other means during the run comes in addition. Raises PackError for a file outside.
    """
    imported = {name for result in results for name in result.outcome.modules}
    names = {*imported_files(submission.folder, submission.code), *imported}
    # A module may lie in an archive beside the code, which is taken whole.
    files = {_existing(submission.folder, name) for name in names} - {submission.code, *OFFERED}
    for name in files:
        _check_inside(submission.folder, name)
    old, new = (name.partition("/")[0] for name in (submission.code, code))
    renamed = {f"{new}{name[len(old) :]}" if name.startswith(f"{old}/") else name: name
               for name in sorted(files)}  # fmt: skip
    return {
        code: submission.folder / submission.code,
        "birds_model.pt": submission.model,
        **{name: submission.folder / source for name, source in renamed.items()},
    }


def imported_files(folder: Path, code: str) -> set[str]:
    """Return the files in the folder that the code imports, itself included, wherever in it."""
    found: set[str] = set()
    todo = [code]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        with suppress(OSError, SyntaxError, ValueError):  # that of a branch never taken, perhaps
            tree = ast.parse((folder / name).read_bytes())
            for module in _imports(tree, PurePosixPath(name).parent.parts):
                todo += _files_of(folder, module)
    return found


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the modules that a file of a package imports, as parts of their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield module
            yield from ((*module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield tuple(node.args[0].value.split("."))


def _files_of(folder: Path, module: tuple[str, ...]) -> Iterator[str]:
    """Yield a module's file, and those of the packages around it."""
    for length in range(1, len(module) + 1):
        path = "/".join(module[:length])
        names = (f"{path}/__init__.py", f"{path}.py")
        yield from [name for name in names if path and (folder / name).is_file()][:1]


def _existing(folder: Path, name: str) -> str:
    """Return the file or archive that holds a module."""
    parts = PurePosixPath(name).parts
    paths = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((path for path in paths if (folder / path).is_file()), name)


def _check_inside(folder: Path, name: str) -> None:
    path, whole = PurePosixPath(name), (folder / name).resolve()
    if path.is_absolute() or ".." in path.parts or not whole.is_relative_to(folder.resolve()):
        raise PackError(f"{name} leads out of {folder}: copy it beside the code, the upload has it")


def pack(
    path: Path, files: Mapping[str, Path], submission: Submission, results: Sequence[TestResult]
) -> int:
    """Write the archive, and grade it from an empty folder; returns its size in bytes.

    It becomes `path` only if every test ends as it did before. The first of `files` is the code.
    """
    with atomic_write(path) as temporary, temporary_folder("grader-pack-") as base:
        _write_zip(temporary, files)
        folder, checks = base.resolve() / "submission", base / "checks"
        with zipfile.ZipFile(temporary) as archive:
            archive.extractall(folder)
        model = folder / "birds_model.pt"
        alone = replace(submission, folder=folder, model=model, code=next(iter(files)))
        tests = [TestFolder(result.test.input, check_base=checks) for result in results]
        again = grade_tests(alone, tests, checks / "results.json")
        for before, after in zip(results, again, strict=True):
            if before.status != after.status:
                raise PackError(
                    f"test {before.test.number} gives {after.status!r} from the archive, "
                    f"{before.status!r} from {submission.folder}: {after.message}. The archive "
                    f"holds {', '.join(files)}: the code, the model, and what the code imports"
                )
        return temporary.stat().st_size


def _write_zip(path: Path, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in files.items():
            # Stored: weights hardly shrink, and another zlib would give other bytes.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            try:
                content = source.read_bytes()
            except OSError as error:  # it was there when it was imported
                raise UserError(describe_error(error, source)) from None
            archive.writestr(entry, content)
