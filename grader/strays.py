"""Processes that a submission started, found by a variable in their environment."""

import os
from pathlib import Path

MARK = "GRADER_RUN"  # in the environment of the submission's process, and of all it starts
_HELPERS = (b"resource_tracker", b"multiprocessing.forkserver")  # end by themselves, later


def processes_marked(token: str) -> list[int]:
    """Other processes of the run with this token that are still alive; empty without /proc.

    A process keeps its environment when its parent ends or it opens a session of its own, so this
    finds what the process tree has lost.
    """
    mark = f"{MARK}={token}".encode()
    others = {os.getpid(), os.getppid()}  # the parent is the grader, or bwrap's first process
    numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in numbers if pid not in others and _is_marked(pid, mark)]


def _is_marked(pid: int, mark: bytes) -> bool:
    folder = Path("/proc", str(pid))
    try:
        if mark not in (folder / "environ").read_bytes().split(b"\0"):
            return False
        return not any(helper in (folder / "cmdline").read_bytes() for helper in _HELPERS)
    except OSError:  # it has ended, or belongs to somebody else
        return False
