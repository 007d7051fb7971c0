"""The archive to upload: the code, what it imports from its folder, and birds_model.pt.

The same bytes every time.
"""

import ast
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path

from course.files import atomic_write, temporary_folder
from course.layout import TestFolder
from grader.session import TestResult, grade_tests
from grader.staging import OFFERED, Submission


class PackError(Exception):
    """The archive does not do what the folder does."""


def files_to_pack(
    submission: Submission, results: Sequence[TestResult], module: str
) -> dict[str, Path]:
    """Return the files by their name in the archive, in which the code is the module `module`.

    What the code imports is found by reading it, in functions and branches, too; what it imported
    by other means during the run comes in addition. Raises PackError for a file outside.
    """
    folder, code = submission.folder, submission.code
    names = imported_files(folder, code).union(*(result.outcome.modules for result in results))
    files = {code: folder / code, "birds_model.pt": submission.model}
    for name in sorted(names - {code, *OFFERED}):
        files[name] = folder / name
        if not files[name].resolve().is_relative_to(folder.resolve()):
            raise PackError(f"{name} leads out of {folder}: copy it beside the code")
    own = rf"^{submission.module}\b"
    return {re.sub(own, module, name): file for name, file in files.items()}


def imported_files(folder: Path, code: str) -> set[str]:
    """Return the files in the folder that the code imports, itself included, wherever in it."""
    found = [code]
    for name in found:  # which grows meanwhile
        # An error may be that of a branch never taken.
        with suppress(OSError, SyntaxError, ValueError, ImportError):
            for module in imports(folder / name, name.rpartition("/")[0].replace("/", ".")):
                for path in accumulate(module.split("."), "{}/{}".format):  # packages around it
                    files = (f"{path}/__init__.py", f"{path}.py")
                    found += [f for f in files if f not in found and (folder / f).is_file()]
    return set(found)


def imports(file: Path, package: str = "") -> Iterator[str]:
    """Yield the modules that a file of a package imports; the last part may be a name in one."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def pack(
    path: Path, files: Mapping[str, Path], submission: Submission, results: Sequence[TestResult]
) -> int:
    """Write the archive, and grade it from an empty folder; returns its size in bytes.

    It becomes `path` only if every test ends as it did before. The first of `files` is the code.
    """
    with atomic_write(path) as temporary, temporary_folder("grader-pack-") as base:
        folder, checks = base.resolve() / "submission", base / "checks"
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, source in files.items():
                # Stored: weights hardly shrink, and another zlib would give other bytes.
                entry = zipfile.ZipInfo(name)  # of 1980, whenever the file was written
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                archive.writestr(entry, source.read_bytes())
            archive.extractall(folder)
        model = folder / "birds_model.pt"
        alone = replace(submission, folder=folder, model=model, code=next(iter(files)))
        tests = [TestFolder(result.test.input, check_base=checks) for result in results]
        again = grade_tests(alone, tests, checks / "results.json")
        for before, after in zip(results, again, strict=True):
            if before.status != after.status:
                raise PackError(
                    f"test {before.test.number} gives {after.status!r} from the archive, "
                    f"{before.status!r} from {submission.folder}: {after.outcome.problem}. The "
                    f"archive holds {', '.join(files)}: the code, the model, and what the code "
                    "imports"
                )
        return temporary.stat().st_size
