"""The archive to upload: solution.py and birds_model.pt, the same bytes every time."""

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from grader.protocol import TestFolder, written
from grader.session import Submission, TestResult, grade_tests

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


class PackError(Exception):
    """The archive does not do what the folder does."""


def pack(
    path: Path,
    submission: Submission,
    results: Sequence[TestResult],
    tell: Callable[[TestResult], None],
) -> int:
    """Write the archive, and grade it from an empty folder; returns its size in bytes.

    It becomes `path` only if every test ends as it did before.
    """
    with written(path) as temporary:
        _write_zip(temporary, submission)
        with tempfile.TemporaryDirectory(prefix="grader-pack-") as name:
            again = _grade_archive(temporary, Path(name), submission, results, tell)
        for before, after in zip(results, again, strict=True):
            if before.status != after.status:
                raise PackError(
                    f"test {before.test.number} gives {after.status!r} from "
                    f"the archive, {before.status!r} from {submission.folder}. {after.message}"
                )
        return temporary.stat().st_size


def _write_zip(path: Path, submission: Submission) -> None:
    files = {"solution.py": submission.folder / "solution.py", "birds_model.pt": submission.model}
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in files.items():
            # Stored: weights hardly shrink, and another zlib would give other bytes.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, source.read_bytes())


def _grade_archive(
    archive: Path,
    folder: Path,
    submission: Submission,
    results: Sequence[TestResult],
    tell: Callable[[TestResult], None],
) -> list[TestResult]:
    code, checks = folder / "submission", folder / "checks"
    with zipfile.ZipFile(archive) as content:
        content.extractall(code)
    extracted = replace(submission, folder=code.resolve(), model=code.resolve() / "birds_model.pt")
    tests = [TestFolder(result.test.input, check_base=checks) for result in results]
    return grade_tests(extracted, tests, checks / "results.json", tell)
