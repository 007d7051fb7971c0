"""The processes of a run, through psutil: what they cost, and what a submission left behind."""

import contextlib
import os
import time

import psutil

MARK = "GRADER_RUN"  # in the environment of the submission's process, and of all it starts
# Kept by libraries for their workers; they end when the program does.
_HELPERS = ("resource_tracker", "multiprocessing.forkserver", "loky", "torch_shm_manager")
_LOOK_AGAIN = 1.0  # seconds between two looks at who belongs to a tree


def processes_marked(token: str) -> list[psutil.Process]:
    """Other processes of the run with this token that are still alive.

    A process keeps its environment when its parent ends or it opens a session of its own, so this
    finds what the process tree has lost.
    """
    others = {os.getpid(), os.getppid()}  # the parent is the grader, or bwrap's first process
    return [p for p in psutil.process_iter() if p.pid not in others and _is_marked(p, token)]


def _is_marked(process: psutil.Process, token: str) -> bool:
    try:
        marked = process.environ().get(MARK) == token
        return marked and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # it has ended, or belongs to somebody else
        return False


def is_helper(process: psutil.Process) -> bool:
    """Whether a library keeps this process for its workers, and ends it when the program ends."""
    with contextlib.suppress(psutil.Error):
        return any(helper in word for word in process.cmdline() for helper in _HELPERS)
    return True


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


class Tree:
    """A process and all that it started."""

    def __init__(self, pid: int) -> None:
        """Nothing is read before `sample`."""
        self.root = psutil.Process(pid)
        self.peak = 0  # bytes: the most that one of these processes was seen to hold
        self._members: list[psutil.Process] = []
        self._looked = 0.0

    def sample(self, look_again: bool = False) -> int:
        """Look how much memory each process holds now; returns the peak so far, in bytes."""
        if look_again or time.monotonic() - self._looked > _LOOK_AGAIN:
            self._members, self._looked = self.members(), time.monotonic()
        for process in self._members:
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak, process.memory_info().rss)
        return self.peak

    def members(self) -> list[psutil.Process]:
        """The process and its descendants that are alive."""
        with contextlib.suppress(psutil.Error):
            return [self.root, *self.root.children(recursive=True)]
        return []

    def kill(self) -> None:
        """End all of them, children first seen before their parent is gone."""
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                process.kill()
