"""One fault, and how it is put into a checkout."""

import ast
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A change of an expression that somebody could have made.

    `where` is a file and the function, method, class or constant in it: `solution.py:Settings`.
    """

    where: str
    text: str  # stands there exactly once, however it is broken into lines
    replacement: str
    lost: str  # what a user would lose
    tests: str  # what should notice: files or node ids, separated by blanks

    def __str__(self) -> str:
        return f"{self.where}: {self.lost}"

    @property
    def file(self) -> str:
        return self.where.partition(":")[0]

    @property
    def paths(self) -> list[str]:
        """The arguments for pytest."""
        return [f"tests/{test}" for test in self.tests.split()]

    def spans(self, source: str) -> list[tuple[int, int]]:
        """Return where the text stands in a file's source: starts and ends, in letters."""
        start, end = span_of(source, self.where.partition(":")[2])
        tokens = [re.escape(token) for token in re.findall(r"\w+|[^\w\s]", self.text)]
        found = re.compile(r"\s*".join(tokens)).finditer(source, start, end)
        return [match.span() for match in found]

    def problem(self, root: Path) -> str | None:
        """Return why the fault does not fit a checkout, if so."""
        try:
            count = len(self.spans((root / self.file).read_text(encoding="utf-8")))
        except (OSError, KeyError):
            return f"Error: {self}: there is no such place; correct tests/mutation/faults.py"
        if count == 1:
            return None
        return f"Error: {self}: found {count} times, not once: {self.text!r}"

    @contextmanager
    def within(self, root: Path) -> Iterator[None]:
        """Put the fault into a checkout; afterwards it is as it was."""
        file = root / self.file
        before = file.read_text(encoding="utf-8")
        ((start, end),) = self.spans(before)
        file.write_text(before[:start] + self.replacement + before[end:], encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(before, encoding="utf-8")


parsed: Callable[[str], ast.AST] = functools.cache(ast.parse)


def span_of(source: str, name: str) -> tuple[int, int]:
    """Return where the definition of a name, such as `Class.method`, starts and ends in a source.

    Raises KeyError if there is none.
    """
    node = parsed(source)
    for part in name.split("."):
        node = next((n for n in ast.iter_child_nodes(node) if part in names_of(n)), None)
        if node is None:
            raise KeyError(name)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return starts[first - 1], starts[node.end_lineno]


def names_of(node: ast.AST) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]
