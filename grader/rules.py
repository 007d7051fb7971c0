"""The portable layer of the rules: an audit hook inside the submission's process.

Python announces what it is about to do (`sys.addaudithook`, PEP 578) before it does it: opening a
file, connecting a socket, starting a program. The hook turns what the rules forbid into an error
in the submission and reports it at once, so that catching the error changes nothing. Native code
does not announce anything: that is what the operating-system layer is for.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

NETWORK, FILES, ACCELERATOR = "no internet", "no file written", "no accelerator"

# A semaphore of multiprocessing is a "file" of 32 bytes in shared memory: zero would forbid it.
FILE_SIZE_LIMIT = 64  # bytes

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_GRADER = str(Path(__file__).resolve().parent)
_DRIVERS = re.compile(r"libcuda\.so|nvcuda\.dll|libamdhip64|libze_loader|ze_loader\.dll")
_DEVICES = re.compile(r"/dev/(nvidia|kfd|dri/|accel)")
# Started by the standard library and torch to find libraries and name the machine.
_HARMLESS_PROGRAMS = {"ldconfig", "gcc", "cc", "objdump", "ld", "uname", "lscpu", "sysctl", "ver"}

_LOOK_UPS = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
_SENDERS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_PROGRAMS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
}
_FORKS = {"os.fork", "os.forkpty"}
# Imported when multiprocessing starts its first worker without a fork that the hook would see.
_WORKER_MODULES = (
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.popen_spawn_win32",
    "multiprocessing.popen_forkserver",
)
_FILE_CHANGES = {
    *("os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.setxattr", "os.removexattr", "os.chflags"),
    *("shutil.copyfile", "shutil.copymode", "shutil.copystat", "shutil.copytree", "shutil.move"),
    *("shutil.rmtree", "shutil.chown", "shutil.make_archive", "shutil.unpack_archive"),
    *("tempfile.mkstemp", "tempfile.mkdtemp"),
}


class RuleBroken(PermissionError):
    """What a submission gets instead of what it asked for."""


class Rules:
    """The hook's state: installed once, switched on when the submission takes over.

    Args:
        submission: the folder whose lines count as the submission's own.
        workers: folder in which multiprocessing may keep its local sockets.
        tell: called with {"event": "violation", ...} or {"event": "warning", ...}.
    """

    def __init__(
        self, submission: str, workers: str, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        """Nothing is watched before `install`."""
        self.submission, self.workers, self.tell = submission, workers, tell
        self.phase = ""  # "": nothing is forbidden
        self.started_programs = False  # in this phase
        self._told: set[str] = set()

    def install(self) -> None:
        """Add the audit hook; Python has no way to remove it."""
        sys.addaudithook(self._watch)

    def begin(self, phase: str) -> None:
        """Switch the rules on, for the phase named."""
        limit_file_size(FILE_SIZE_LIMIT)
        self.phase, self.started_programs = phase, False

    def end(self) -> None:
        """Switch the rules off: the grader's own code runs, and may write."""
        self.phase = ""
        limit_file_size(None)

    def _watch(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.phase:
            return
        broken = None
        if event == "open":
            broken = self._judge_open(*args)
        elif event in _SENDERS:
            broken = _judge_address(args[0], args[1])
        elif event in _LOOK_UPS:
            broken = _judge_look_up(args[0])
        elif event in ("urllib.Request", "http.client.connect"):
            broken = _judge_request(event, args)
        elif event in ("os.mkdir", "sqlite3.connect") or event in _FILE_CHANGES:
            broken = self._judge_change(event, args)
        elif event == "ctypes.dlopen":
            broken = ACCELERATOR if _DRIVERS.search(str(args[0])) else None
        elif event in _PROGRAMS:
            self._note_program(event, args)
        elif event in _FORKS or (event == "import" and args[0].startswith(_WORKER_MODULES)):
            self.note_workers()
        if broken == FILES and self._library_probes(args[0]):
            limit_file_size(None)  # what it writes there is not the submission's
        elif broken:
            self._forbid(broken, f"{event}({_shown(args)})")

    def _judge_open(self, path: Any, mode: Any, flags: Any) -> str | None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None  # a descriptor: judged when it was opened
        name = os.fsdecode(path)
        if _DEVICES.match(name):
            return ACCELERATOR
        return FILES if (flags or 0) & _WRITING and name != os.devnull else None

    def _judge_change(self, event: str, args: Sequence[Any]) -> str | None:
        target = args[0]
        if isinstance(target, int):
            return None
        name = os.fsdecode(target)
        if event == "os.mkdir" and os.path.lexists(name):
            return None  # os.makedirs(exist_ok=True) on a folder that is there changes nothing
        if event == "sqlite3.connect" and name in (":memory:", ""):
            return None
        if event == "os.remove" and name.startswith(self.workers):
            return None
        return FILES

    def _library_probes(self, target: Any) -> bool:
        """Whether a library, while it is imported, tries out the temporary folder.

        Some releases of torch and of filelock (which timm imports) do, and a submission that uses
        what the course allows cannot help it. Relative names are those of files in a folder that
        the library has open.
        """
        name = os.fsdecode(target)
        if Path(name).is_absolute() and not name.startswith(tempfile.gettempdir() + os.sep):
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame and not line_name(self.submission, frame.f_code.co_filename):
            if frame.f_code.co_name == "<module>" and "site-packages" in frame.f_code.co_filename:
                return True
            frame = frame.f_back
        return False

    def _note_program(self, event: str, args: Sequence[Any]) -> None:
        self.started_programs = True
        program = _program(event, args)
        if re.split(r"[\\/]", program)[-1] not in _HARMLESS_PROGRAMS:
            self._warn(f"starts another program ({program}), which the audit hook cannot watch")

    def note_workers(self) -> None:
        """Worker processes: advised against in `classify`, and they share memory through files."""
        limit_file_size(None)
        if self.phase == "classify":
            self._warn("worker processes: the course advises against them in classify")

    def _warn(self, text: str) -> None:
        text = f"{self.phase}: {text}"
        if text not in self._told:
            self._told.add(text)
            where = own_line(self.submission)
            self.tell({"event": "warning", "text": f"{text} ({where})" if where else text})

    def _forbid(self, rule: str, call: str) -> None:
        where = own_line(self.submission)
        key = f"{rule} {where}"
        if key not in self._told:
            self._told.add(key)
            facts = {"phase": self.phase, "rule": rule, "call": call, "where": where}
            self.tell({"event": "violation", **facts})
        raise RuleBroken(f"the rule '{rule}' forbids {call}")


def _judge_address(connection: Any, address: Any) -> str | None:
    # Local sockets and the loopback join processes of this machine (Windows has no other pairs).
    if getattr(connection, "family", None) not in _INTERNET:
        return None
    host = address[0] if isinstance(address, tuple) else None
    return None if host is None or host in _LOOPBACK else NETWORK


_INTERNET = {2, 10, 23, 30}  # AF_INET everywhere; AF_INET6 on Linux, Windows, macOS


def _judge_look_up(host: Any) -> str | None:
    host = host[0] if isinstance(host, tuple) else host
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    return None if host is None or host in _LOOPBACK else NETWORK


def _judge_request(event: str, args: Sequence[Any]) -> str | None:
    if event == "urllib.Request":
        return None if str(args[0]).startswith(("file:", "data:")) else NETWORK
    return _judge_look_up(args[1])


def _program(event: str, args: Sequence[Any]) -> str:
    if event == "subprocess.Popen":
        words = args[1] or args[0]
    else:
        words = args[1] if event == "os.spawn" else args[0]
    if isinstance(words, (list, tuple)):
        return os.fsdecode(words[0]) if words else "?"
    return (os.fsdecode(words).split() or ["?"])[0]


def _shown(args: Sequence[Any]) -> str:
    """The arguments that say something: names and addresses, not descriptors, flags, objects."""
    names = [os.fspath(a) if isinstance(a, os.PathLike) else a for a in args]
    text = ", ".join(repr(name) for name in names if isinstance(name, (str, bytes, tuple)))
    return text if len(text) <= 200 else text[:200] + "..."


def own_line(submission: str) -> str:
    """The submission's innermost running line, as "solution.py:12"; "" if none is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        name = line_name(submission, frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def line_name(submission: str, file: str) -> str | None:
    """The file's path inside the submission; None if it is not one of the submission's files."""
    inside = file.startswith(submission + os.sep) and not file.startswith(_GRADER + os.sep)
    if not inside or "site-packages" in file:  # a virtual environment may lie in the folder
        return None
    return file[len(submission) + 1 :].replace(os.sep, "/")


def limit_file_size(limit: int | None) -> None:
    """Where the system can: no file of this process grows beyond `limit` bytes; None: any size."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if limit is None else limit, hard))


def hide_accelerators() -> None:
    """Make CUDA and ROCm find no device. To be called before torch is imported."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        os.environ[name] = ""


def hide_apple_gpu(torch: Any) -> None:
    """No variable hides Apple's GPU: tell a submission that asks torch that there is none."""
    if hasattr(torch.backends, "mps"):
        torch.backends.mps.is_available = lambda: False
