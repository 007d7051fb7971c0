"""The operating-system layer of the rules: bubblewrap (`bwrap`) on Linux, without privileges.

The whole file system is read-only to the submission's processes, there is no network but a
loopback of its own, no device but the harmless ones, and its processes end with it.
"""

import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PROBE_SECONDS = 10


def sandboxed(command: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """The command, run by bwrap; it can write in the folders `writable`, and nowhere else."""
    options = "--die-with-parent --unshare-user --unshare-pid --unshare-net --unshare-ipc"
    binds = [word for path in writable for word in ("--bind", str(path), str(path))]
    return [
        *("bwrap", *options.split(), "--ro-bind", "/", "/", "--proc", "/proc"),
        # Semaphores and tensors of worker processes live in /dev/shm: memory, not a disk.
        *("--dev", "/dev", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *binds,
        *("--", *command),
    ]


@functools.cache
def why_no_sandbox() -> str:
    """Empty if the layer works on this machine, else the reason why not. Tried once."""
    if sys.platform != "linux":
        return f"none for {sys.platform}"
    if not shutil.which("bwrap"):
        return "bwrap is not installed (package bubblewrap)"
    try:
        command = sandboxed([sys.executable, "-I", "-S", "-c", ""], [])
        probe = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run here: {error}"
    message = probe.stderr.decode(errors="replace").strip().split("\n")[0]
    return f"bwrap does not run here: {message or probe.returncode}" if probe.returncode else ""
