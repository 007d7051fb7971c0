"""Native code that opens files to write, made to announce it as Python's own `open` does.

The audit hook judges what is announced. These functions announce nothing: torch's writer, for one,
opens the file in C++. Each is wrapped when its module has been imported, raises the audit event of
`open`, and, where the hook refuses, fails as it does on a path that cannot be opened: with its own
kind of error, as in a read-only file system.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# By module: the path of attributes to a function, and where its arguments hold the file's name.
_WRITERS = {
    "torch": (("_C", "PyTorchFileWriter", "__init__", 1), ("_C", "ScriptModule", "save", 1)),
    "torchvision.io.image": (("write_file", 0),),
    "safetensors._safetensors_rust": (("serialize_file", 1),),
    "cv2": (("imwrite", 0), ("imwritemulti", 0)),
}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def announce_writers() -> None:
    """From now on, native writers of modules that are imported announce what they open."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds a module as the other finders do, and wraps its writers once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _WRITERS:
            return None
        others = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in others if spec), None)
        if spec and spec.loader:
            spec.loader.exec_module = _then_wrap(spec.loader.exec_module)
        return spec


def _then_wrap(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def execute_and_wrap(module: ModuleType) -> None:
        execute(module)
        for *way, last, position in _WRITERS[module.__name__]:
            owner = functools.reduce(lambda found, name: getattr(found, name, None), way, module)
            function = owner and getattr(owner, last, None)
            if function and not hasattr(function, "announces"):
                setattr(owner, last, _announcing(function, position))

    return execute_and_wrap


def _announcing(write: Callable[..., Any], position: int) -> Callable[..., Any]:
    @functools.wraps(write)
    def announce(*args: Any, **options: Any) -> Any:
        name = args[position] if len(args) > position else None
        if not isinstance(name, (str, bytes, os.PathLike)):
            return write(*args, **options)
        try:
            sys.audit("open", name, "wb", _CREATE)
        except OSError as error:
            refusal = error.refusal
        else:
            return write(*args, **options)
        nowhere = os.path.join(os.devnull, os.path.basename(os.fsdecode(name)))  # noqa: PTH118, PTH119
        try:
            return write(*args[:position], nowhere, *args[position + 1 :], **options)
        except Exception as error:
            error.refusal = refusal
            raise

    announce.announces = True
    return announce
