"""One fault, and how it is put into a checkout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A change of one place in a file that somebody could have made."""

    file: str
    text: str  # stands in the file exactly once
    replacement: str
    lost: str  # what a user would lose
    tests: str  # what should notice: files or node ids, separated by blanks

    def __str__(self) -> str:
        return f"{self.file}: {self.lost}"

    @property
    def paths(self) -> list[str]:
        """The arguments for pytest."""
        return [f"tests/{test}" for test in self.tests.split()]

    def problem(self, root: Path) -> str | None:
        """Why the fault does not fit a checkout, if so."""
        file = root / self.file
        count = file.read_text(encoding="utf-8").count(self.text) if file.is_file() else 0
        if count == 1:
            return None
        return f"Error: {self}: found {count} times, not once: {self.text!r}; mend tests/mutation"

    @contextmanager
    def within(self, root: Path) -> Iterator[None]:
        """The checkout with the fault in it; afterwards it is as it was."""
        file = root / self.file
        before = file.read_text(encoding="utf-8")
        file.write_text(before.replace(self.text, self.replacement), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(before, encoding="utf-8")
