"""The operating-system layer of the rules: bubblewrap (`bwrap`) on Linux, without privileges.

The whole file system is read-only to the submission's processes, there is no network but a
loopback of its own, no device but the harmless ones, no socket of the host, no capability even for
root, and its processes end with it.
"""

import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def sandboxed(
    command: Sequence[str],
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
    scratch: Sequence[Path] = (),
    size: int = 2**30,
) -> list[str]:
    """Return the command, run by bwrap: it can write in the folders `writable`.

    `readable` stay readable in places that the sandbox hides. The folders `scratch`,
    and /dev/shm, are in memory, of so many bytes each, and gone afterwards.
    """
    readable = [path.resolve() for path in readable]  # bwrap mounts nothing behind a link
    sockets = map(Path, ("/run", "/var/run"))  # of the host's programs
    hidden = [str(path) for path in sockets if path.is_dir() and not path.is_symlink()]
    return [
        *("bwrap", "--die-with-parent", "--new-session", "--unshare-user", "--unshare-pid"),
        *("--unshare-net", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--proc", "/proc"),
        # Semaphores and tensors of worker processes live in /dev/shm: memory, not a disk.
        *("--dev", "/dev", "--size", str(size), "--tmpfs", "/dev/shm"),
        *(word for path in hidden for word in ("--tmpfs", path)),
        *(word for path in readable for word in ("--ro-bind", str(path), str(path))),
        *(word for path in scratch for word in ("--size", str(size), "--tmpfs", str(path))),
        *(word for path in writable for word in ("--bind", str(path), str(path))),
        *(word for path in ("/dev", *hidden) for word in ("--remount-ro", path)),
        *("--", *command),
    ]


@functools.cache
def why_no_sandbox() -> str:
    """Return "" if the layer works on this machine, else the reason why not. Tried once."""
    if sys.platform != "linux":
        return f"none for {sys.platform}"
    if not shutil.which("bwrap"):
        return "bwrap is not installed (package bubblewrap)"
    try:
        python = [Path(sys.prefix), Path(sys.base_prefix)]
        command = sandboxed([sys.executable, "-I", "-S", "-c", ""], readable=python)
        probe = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run here: {error}"
    message = probe.stderr.decode(errors="replace").strip().split("\n")[0]
    return f"bwrap does not run here: {message or probe.returncode}" if probe.returncode else ""
