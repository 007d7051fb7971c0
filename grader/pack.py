"""The archive to upload: the code, what it imports from its folder, and birds_model.pt.

The same bytes every time.
"""

import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from course.files import atomic_write
from course.layout import TestFolder
from grader.session import Submission, TestResult, grade_tests

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_SCRIPTS = {"run.py", "run_tests.py"}  # the testing system has its own


class PackError(Exception):
    """The archive does not do what the folder does."""


def files_to_pack(
    submission: Submission, results: Sequence[TestResult], code: str
) -> dict[str, Path]:
    """The files by their name in the archive, in which the code is called `code`."""
    imported = {name for result in results for name in result.outcome.modules}
    helpers = sorted(imported - {submission.code} - _SCRIPTS)
    return {
        code: submission.folder / submission.code,
        "birds_model.pt": submission.model,
        **{name: submission.folder / name for name in helpers},
    }


def pack(
    path: Path,
    files: Mapping[str, Path],
    submission: Submission,
    results: Sequence[TestResult],
    tell: Callable[[TestResult], None],
) -> int:
    """Write the archive, and grade it from an empty folder; returns its size in bytes.

    It becomes `path` only if every test ends as it did before. The first of `files` is the code.
    """
    with atomic_write(path) as temporary:
        _write_zip(temporary, files)
        with tempfile.TemporaryDirectory(prefix="grader-pack-") as name:
            folder = Path(name).resolve() / "submission"
            model = folder / "birds_model.pt"
            alone = replace(submission, folder=folder, model=model, code=next(iter(files)))
            again = _grade_archive(temporary, alone, results, tell)
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
            archive.writestr(entry, source.read_bytes())


def _grade_archive(
    archive: Path,
    alone: Submission,
    results: Sequence[TestResult],
    tell: Callable[[TestResult], None],
) -> list[TestResult]:
    checks = alone.folder.with_name("checks")
    with zipfile.ZipFile(archive) as content:
        content.extractall(alone.folder)
    tests = [TestFolder(result.test.input, check_base=checks) for result in results]
    return grade_tests(alone, tests, checks / "results.json", tell)
