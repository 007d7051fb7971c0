"""The process between the grader and the submission: whatever ends, all that was started ends.

    python supervisor.py MEMORY COMMAND...

It starts the command, each process with at most MEMORY bytes, and ends with the command's exit
status (128 + number for a signal). Its stdin is a pipe from the grader: when that
closes, because the grader has ended or wants an end, everything is killed. On Linux orphans are
handed to this process, so it finds daemons that have left their session and their environment. What
is left when the command has ended is killed as well, and named in the last line of output.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time

import psutil

LEFT = b"\n<grader: a process was left>\n"
# Kept by libraries for their workers; they end by themselves, some after a while.
_HELPERS = ("resource_tracker", "multiprocessing.forkserver", "loky", "torch_shm_manager")
PATIENCE = 1.0  # seconds that helpers of libraries have to end by themselves
_SUBREAPER, _DROP_BOUND = 36, 24  # prctl(2): PR_SET_CHILD_SUBREAPER, PR_CAPBSET_DROP
_READ_ANYTHING = 2  # CAP_DAC_READ_SEARCH: the data may belong to somebody else


def main(memory: int, command: list[str]) -> int:
    """Run the command and clear up after it; returns its exit status."""
    if sys.platform == "linux":
        _set_up_linux(memory)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_grader, daemon=True).start()
    status = process.wait()
    psutil.wait_procs(descendants(), PATIENCE)
    if not all(map(_is_helper, descendants())):
        os.write(2, LEFT)
    kill_descendants()
    return 128 - status if status < 0 else status


def _set_up_linux(memory: int) -> None:
    """Adopt orphans, give up root's power to write where the mode forbids it, limit the memory.

    An allocation over the limit fails, which Python turns into a MemoryError. RLIMIT_DATA counts
    what is allocated; RLIMIT_AS would count the gigabytes of address space that torch only
    reserves. Elsewhere there is no working limit: there the grader ends the process.
    """
    import ctypes
    import resource

    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    for capability in range(64):
        if capability != _READ_ANYTHING:
            prctl(_DROP_BOUND, capability, 0, 0, 0)  # from the next exec on
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def _end_with_grader() -> None:
    while os.read(0, 1):
        pass
    kill_descendants()
    os._exit(1)


def descendants() -> list[psutil.Process]:
    """Return all processes below this one; those that have ended may be among them."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def _is_helper(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(helper in word for word in process.cmdline() for helper in _HELPERS)
    return True


def kill_descendants() -> None:
    """Kill everything below this process, for five seconds at most."""
    end = time.monotonic() + 5.0
    while (left := descendants()) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, 0.01)


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]), sys.argv[2:]))  # whatever the thread is doing
