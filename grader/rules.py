"""The portable layer of the rules: an audit hook inside the submission's process.

Python announces what it is about to do (`sys.addaudithook`, PEP 578) before it does it: opening a
file, connecting a socket, starting a program. What the testing system's box would refuse, the hook
refuses, with the error that the box would give, and reports who wanted it. docs/grader.md, "Who did
it", explains the judgement. Native code does not announce anything, but for what writers.py wraps:
that is what the operating-system layer is for.
"""

import contextlib
import errno
import inspect
import ipaddress
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

NETWORK, FILES, ACCELERATOR = "no internet", "no file written", "no accelerator"
# Who did it: a line of the submission, a library that such a line waits for, a library by itself.
OWN, WAITED, LIBRARY = "own", "waited for", "library"

# A semaphore of multiprocessing is a "file" of 32 bytes in shared memory: zero would forbid it.
FILE_SIZE_LIMIT = 64  # bytes

_MOST_TOLD = 100  # refusals and warnings of a process

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_GRADER = str(Path(__file__).resolve().parent)
_STANDARD = str(Path(os.__file__).parent) + os.sep
_DRIVERS = re.compile(r"libcuda\.so|nvcuda\.dll|libamdhip64|libze_loader|ze_loader\.dll")
_DEVICES = re.compile(r"/dev/(nvidia|kfd|dri/|accel)")
_STREAMS = re.compile(r"/dev/(null|zero|full|tty|stdout|stderr|fd/.*)$|/proc/|nul$", re.IGNORECASE)
_SHARED_MEMORY = "/dev/shm"
# Started by the standard library to find libraries and name the machine.
_HARMLESS_PROGRAMS = {"ldconfig", "gcc", "cc", "objdump", "ld", "uname", "lscpu", "sysctl", "ver"}

# Events, and which of their arguments is the host.
_REVERSE = {"socket.gethostbyaddr": 0, "socket.getnameinfo": 0}
_LOOK_UPS = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "http.client.connect": 1}
_LOOK_UPS |= _REVERSE
_SENDERS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_PROGRAMS = {"subprocess.Popen", "os.startfile"}
_PROGRAMS |= {"os.system", "os.exec", "os.posix_spawn", "os.spawn"}
_FORKS = {"os.fork", "os.forkpty"}
# Imported when multiprocessing starts its first worker without a fork that the hook would see.
_WORKER_MODULES = tuple(
    f"multiprocessing.popen_{way}" for way in ("spawn_posix", "spawn_win32", "forkserver")
)
# Calls that change a file system, and which of their arguments name what is changed.
_CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"), (0,)),
    **dict.fromkeys(("os.chown", "os.utime", "os.setxattr", "os.removexattr"), (0,)),
    **dict.fromkeys(("os.chflags", "sqlite3.connect", "tempfile.mkstemp"), (0,)),
    **dict.fromkeys(("tempfile.mkdtemp", "shutil.rmtree", "shutil.make_archive"), (0,)),
    **dict.fromkeys(("os.link", "os.symlink", "shutil.copyfile", "shutil.copytree"), (1,)),
    **dict.fromkeys(("os.rename", "shutil.move"), (0, 1)),
}


@dataclass(frozen=True)
class Doer:
    """Who wanted a call: found by walking the stack outwards from it.

    `through` names the library's functions on the way, the innermost first; `given` holds what the
    submission's line had at hand or passed on, where a file's name may come from.
    """

    who: str
    where: str = ""
    through: tuple[str, ...] = ()
    given: tuple[Any, ...] = ()


class Rules:
    """The hook's state: installed once, switched on when the submission takes over.

    Args:
        submission: the folder whose lines count as the submission's own.
        base: the run's own folder; in it `temporary` and `workers`, and `current`.
        tell: called with {"event": "refusal", ...} or {"event": "warning", ...}.
        watch_code: whether the folder `submission` can change at all.
    """

    def __init__(
        self,
        submission: str,
        base: str,
        tell: Callable[[dict[str, Any]], None],
        watch_code: bool = True,
    ) -> None:
        """Nothing is watched before `install`."""
        self.submission, self.base, self.tell = submission, base, tell
        self.watch_code = watch_code
        self.workers = os.path.join(base, "workers") + os.sep
        self.temporary = os.path.join(base, "temporary") + os.sep
        self.scratch = (self.temporary, self.workers, _SHARED_MEMORY + os.sep)
        self.phase = ""  # "": nothing is forbidden
        self.pid, self.began = os.getpid(), time.time()
        self._told: set[str] = set()
        self._made: set[str] = set()  # by libraries, right in a scratch folder
        self._had_workers = False
        self._before: dict[str, Any] = {}

    def install(self) -> None:
        """Add the audit hook; Python has no way to remove it."""
        self._before = self._listing()
        sys.addaudithook(self._watch)

    def begin(self, phase: str) -> None:
        """Switch the rules on, for the phase named."""
        limit_file_size(FILE_SIZE_LIMIT)
        self.phase = phase

    def end(self) -> None:
        """Switch the rules off: the grader's own code runs, and may write."""
        self.phase = ""
        limit_file_size(None)
        for path in self._made:
            if path.startswith(_SHARED_MEMORY):  # the other folders go as a whole
                shutil.rmtree(path, ignore_errors=True)
                Path(path).unlink(missing_ok=True)

    # ---- the judgement ----

    def _watch(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.phase:
            return
        if event == "open":
            self._watch_open(*args)
        elif event in _CHANGES:
            self._watch_change(event, args)
        elif event in _SENDERS and not _is_near(args[0], args[1]):
            self._refuse(NETWORK, event, args, _unreachable())
        elif event in _LOOK_UPS and _needs_look_up(args[_LOOK_UPS[event]], event in _REVERSE):
            self._refuse(NETWORK, event, args, _unknown_host())
        elif event == "urllib.Request" and _needs_look_up(urlsplit(str(args[0])).hostname):
            self._refuse(NETWORK, event, args, URLError(_unknown_host()))
        elif event == "ctypes.dlopen" and _DRIVERS.search(str(args[0])):
            missing = f"{args[0]}: cannot open shared object file: No such file or directory"
            self._refuse(ACCELERATOR, event, args, OSError(missing))
        elif event in _PROGRAMS:
            self._note_program(event, args)
        elif event in _FORKS or (event == "import" and args[0].startswith(_WORKER_MODULES)):
            self.note_workers()

    def _watch_open(self, path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a descriptor: judged when it was opened
        name = os.fsdecode(path)
        writes = (flags or 0) & _WRITING and not _STREAMS.match(name)
        if _DEVICES.match(name):
            self._refuse(ACCELERATOR, "open", (path, mode), _no_file(name))
        elif writes or (name.startswith(self.scratch) and self._is_new(name)):
            self._judge_files("open", (path, mode), [name], bool(writes))

    def _watch_change(self, event: str, args: tuple[Any, ...]) -> None:
        names = [os.fsdecode(args[i]) for i in _CHANGES[event] if not isinstance(args[i], int)]
        if not names:
            return
        if event == "os.mkdir" and os.path.lexists(names[0]):
            return  # os.makedirs(exist_ok=True) on a folder that is there changes nothing
        if event == "os.remove" and names[0].startswith(self.workers):
            return
        if event == "sqlite3.connect" and names[0] in (":memory:", ""):
            return
        self._judge_files(event, args, [_in_folder(name, args[-1]) for name in names])

    def _judge_files(
        self, event: str, args: Sequence[Any], names: Sequence[str], writes: bool = True
    ) -> None:
        """Let a library use its scratch, in memory as in the box; refuse everything else.

        What the submission names itself it could find again: that is refused in scratch, too.
        """
        doer, paths = who_does_it(self.submission), [os.path.abspath(n) for n in names]
        given = any(self._is_given(path, doer) for path in paths)
        if given and doer.who == LIBRARY:
            doer = replace(doer, who=WAITED)  # by way of a thread of its own
        if not given and doer.who != OWN and all(path.startswith(self.scratch) for path in paths):
            return self._let_write(paths) if writes else None
        return self._refuse(FILES, event, args, _read_only(names[-1]), doer)

    def _let_write(self, paths: Sequence[str]) -> None:
        limit_file_size(None)
        for path in paths:
            root = next(root for root in self.scratch if path.startswith(root))
            top = root + path[len(root) :].partition(os.sep)[0]
            if not os.path.lexists(top):
                self._made.add(top)

    def _is_given(self, name: str, doer: Doer) -> bool:
        """Whether the submission's line holds this name, or that of a folder around it."""
        for value in doer.given:
            if isinstance(value, (str, bytes, os.PathLike)):
                text = os.path.abspath(os.fsdecode(value))
                if name.startswith(text) and text.startswith(self.scratch):
                    return True
        return False

    def _is_new(self, name: str) -> bool:
        try:
            return os.stat(name).st_ctime >= self.began
        except OSError:
            return False

    def _refuse(
        self,
        rule: str,
        event: str,
        args: Sequence[Any],
        error: Exception,
        doer: Doer | None = None,
    ) -> None:
        doer = doer or who_does_it(self.submission)
        call = f"{event}({_shown(args)})"
        error.refusal = self._tell_refusal(rule, call, doer)
        raise error

    def _tell_refusal(self, rule: str, call: str, doer: Doer) -> dict[str, Any]:
        facts = {
            **{"phase": self.phase, "rule": rule, "call": call, "who": doer.who},
            **{"where": doer.where, "through": doer.through},
            "in_worker": os.getpid() != self.pid,
        }
        key = f"{rule} {doer.where} {call}"
        if key not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(key)
            self.tell({"event": "refusal", **facts})
        return facts

    # ---- programs and workers ----

    def _note_program(self, event: str, args: Sequence[Any]) -> None:
        program, doer = _program(event, args), who_does_it(self.submission)
        harmless = re.split(r"[\\/]", program)[-1] in _HARMLESS_PROGRAMS
        if not harmless and doer.who != LIBRARY:
            self._warn(f"starts another program ({program}), which the audit hook cannot watch")

    def note_workers(self) -> None:
        """Worker processes: advised against in `classify`, and they share memory through files."""
        limit_file_size(None)
        self._had_workers = True
        if self.phase == "classify":
            self._warn("worker processes: the course advises against them in classify")

    def _warn(self, text: str) -> None:
        text = f"{self.phase}: {text}"
        if text not in self._told:
            self._told.add(text)
            where = who_does_it(self.submission).where
            self.tell({"event": "warning", "text": f"{text} ({where})" if where else text})

    # ---- what native code wrote ----

    def tell_files(self) -> None:
        """Report the files that have appeared since the last look, written by native code.

        The folders around the run are new and empty, and the submission's own is as it was.
        """
        now = self._listing()
        new = sorted(name for name, facts in now.items() if self._before.get(name) != facts)
        self._before = now
        if new:
            call = f"native code wrote {', '.join(new[:3])}"
            self._tell_refusal(FILES, call, Doer(OWN))

    def _listing(self) -> dict[str, Any]:
        """Size and time of files by name, without those that libraries announced."""
        found = {}
        for path in self._paths():
            with contextlib.suppress(OSError):  # it may go while we look
                facts = path.lstat()
                found[self._short(path)] = (facts.st_size, facts.st_mtime_ns)
        return found

    def _paths(self) -> Iterator[Path]:
        yield from Path(self.base, "current").rglob("*")
        for top in Path(self.temporary).glob("*"):
            # Of what workers put there nobody knows whose it is; to be read it is too new anyway.
            if str(top) not in self._made and not self._had_workers:
                yield from (p for p in (top, *top.rglob("*")) if p.is_file())
        if self.watch_code:
            files = Path(self.submission).iterdir()
            yield from (p for p in files if p.is_file() and not p.name.startswith("."))

    def _short(self, path: Path) -> str:
        inside = path.is_relative_to(self.base)
        return path.relative_to(self.base).as_posix() if inside else str(path)


def who_does_it(submission: str) -> Doer:
    """Walk the stack outwards, to the innermost line of the submission's.

    A library's module body on the way means that it is being imported, and no line at all that it
    runs in a background of its own: then the library does it by itself. The standard library only
    passes on what it is told, but for multiprocessing, which keeps sockets and shared memory.
    """
    frame: FrameType | None = sys._getframe(1)
    called, through, by_itself = None, [], False
    while frame:
        code = frame.f_code
        name = line_name(submission, code.co_filename)
        if name:
            who = LIBRARY if by_itself else WAITED if called else OWN
            where = f"{name}:{frame.f_lineno}"
            given = (*_arguments(called), *frame.f_locals.values(), *code.co_consts)
            return Doer(who, where, tuple(through), given)
        if not _passes_on(code.co_filename):
            called = frame
            through.append(f"{frame.f_globals.get('__name__', '')}.{code.co_name}")
            by_itself = by_itself or code.co_name == "<module>"
        frame = frame.f_back
    return Doer(LIBRARY, "", tuple(through), tuple(_arguments(called)))


def _passes_on(file: str) -> bool:
    if file.startswith(("<", _GRADER + os.sep)):
        return not file.endswith("writers.py")  # stands for a library's own function
    if not file.startswith(_STANDARD) or "site-packages" in file:
        return False
    return not file.startswith(os.path.join(_STANDARD, "multiprocessing", ""))


def _arguments(frame: FrameType | None) -> Iterator[Any]:
    """What a function was called with."""
    if frame is None:
        return
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        values = value.values() if isinstance(value, dict) else value
        yield from values if isinstance(value, (dict, tuple)) else (value,)


def line_name(submission: str, file: str) -> str | None:
    """The file's path inside the submission; None if it is not one of the submission's files."""
    inside = file.startswith(submission + os.sep) and not file.startswith(_GRADER + os.sep)
    if not inside or "site-packages" in file:  # a virtual environment may lie in the folder
        return None
    return file[len(submission) + 1 :].replace(os.sep, "/")


def _in_folder(name: str, descriptor: Any) -> str:
    """A name relative to an open folder made absolute, where the system can tell."""
    if os.path.isabs(name) or not isinstance(descriptor, int) or descriptor < 0:
        return name
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), name)
    except OSError:
        return name


# ---- the errors that the box gives ----


def _read_only(name: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), name)


def _no_file(name: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _unreachable() -> OSError:
    return OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def _unknown_host() -> OSError:
    return socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


# ---- addresses, programs ----

_INTERNET = {2, 10, 23, 30}  # AF_INET everywhere; AF_INET6 on Linux, Windows, macOS


def _is_near(connection: Any, address: Any) -> bool:
    # Local sockets and the loopback join processes of this machine (Windows has no other pairs).
    if getattr(connection, "family", None) not in _INTERNET:
        return True
    host = address[0] if isinstance(address, tuple) else None
    return host is None or _is_this_machine(host)


def _is_this_machine(host: Any) -> bool:
    host = host[0] if isinstance(host, tuple) else host
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname())


def _needs_look_up(host: Any, reverse: bool = False) -> bool:
    """Whether the internet is asked for a host; a number is not, but for its name (`reverse`)."""
    if not reverse:
        with contextlib.suppress(ValueError):
            return not ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    return not _is_this_machine(host)


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


# ---- what the process may do at all ----


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
