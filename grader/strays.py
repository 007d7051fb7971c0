"""The processes of a run, through psutil: what they cost, and how they end with the grader."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "GRADER_RUN"  # in the environment of the submission's process, and of all it starts
# Kept by libraries for their workers; they end when the program does.
_HELPERS = ("resource_tracker", "multiprocessing.forkserver", "loky", "torch_shm_manager")
_LOOK_AGAIN = 1.0  # seconds between two looks at who belongs to a tree
_ROOT = Path(__file__).resolve().parent.parent
# Nothing is imported before it is needed: a run should not wait for its watcher to start.
_WATCH = """import sys
sys.stdin.read()
sys.path.insert(0, sys.argv[1])
from grader.strays import end_run
end_run(int(sys.argv[2]), sys.argv[3])
"""


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


def end_marked(token: str) -> None:
    """End what is left of the run with this token, for five seconds at most."""
    end = time.monotonic() + 5.0
    while (strays := processes_marked(token)) and time.monotonic() < end:
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        time.sleep(0.01)


def end_run(pid: int, token: str) -> None:
    """End a process, all that it started, and all that is marked with the token."""
    with contextlib.suppress(psutil.Error):  # it has ended
        Tree(pid).kill()
    end_marked(token)


@contextlib.contextmanager
def ends_with_this_process(pid: int, token: str = "") -> Iterator[None]:
    """In the block: whatever ends this process, `end_run` is called for the other one.

    A third process waits for the end of a pipe, which the system closes when this one is killed.
    """
    command = [sys.executable, "-c", _WATCH, str(_ROOT), str(pid), token]
    # A session of its own: a signal to this process' group is not to end the watcher too.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, start_new_session=os.name == "posix"
    ) as watcher:
        try:
            yield
        finally:
            watcher.kill()


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
