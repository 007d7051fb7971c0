"""The submission in a child process: start it, listen to it, end it with everything it started."""

import contextlib
import json
import os
import queue
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from grader import sandbox
from grader.child import MEMORY_EXIT
from grader.rules import FILES
from grader.strays import MARK, processes_marked

LOG_LIMIT = 32 * 2**20  # bytes of output; a submission that prints more is ended
TAIL = 4000  # bytes of output that are kept for the report
BETWEEN = 60.0  # seconds to start the process, and between phases
MESSAGES_LIMIT = 256 * 2**20  # bytes of messages: an answer for millions of photos

# What torch 2.6 writes into a temporary folder when torchvision is imported.
_LEFT_BY_TORCH = "/_remote_module_non_scriptable.py"

_ROOT = Path(__file__).resolve().parent.parent
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from grader.child import main; main()"
_POSIX = os.name == "posix"


@dataclass
class Phase:
    """Cost of one phase: seconds of wall clock and CPU, peak memory so far in bytes."""

    name: str
    limit: float
    wall: float | None = None
    cpu: float | None = None
    peak: int | None = None
    verdict: str = "running"


@dataclass
class Failure:
    """Why a run is a runtime error: one line for people, and the details."""

    phase: str
    message: str
    where: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        """One line: the phase, what happened, and the submission's own line."""
        return f"{self.phase}: {self.message}" + (f" ({self.where})" if self.where else "")


@dataclass
class Outcome:
    """All that is known of one run of a submission."""

    layers: list[str]
    phases: list[Phase] = field(default_factory=list)
    answer: dict[str, int] | None = None
    facts: dict[str, Any] | None = None
    failure: Failure | None = None
    violations: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def problem(self) -> Failure | None:
        """What makes the run a runtime error; a broken rule comes before what followed from it."""
        return self.violations[0] if self.violations else self.failure

    @property
    def seconds(self) -> float:
        """Wall time of the phases that the testing system goes through."""
        return sum(p.wall or 0.0 for p in self.phases if p.name != "inspect")


class Run:
    """One child process, from its start to the end of all it started.

    Args:
        job: see grader/child.py; `task`, `submission`, and what the task needs.
        limits: seconds by phase, and `memory` in GiB.
        use_sandbox: also use the operating-system layer where it works.
        keep_caches: let the submission see this user's caches of pretrained weights.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        limits: Mapping[str, float],
        use_sandbox: bool = True,
        keep_caches: bool = False,
    ) -> None:
        """Nothing is started before `go`."""
        self.job, self.limits, self.keep_caches = dict(job), limits, keep_caches
        self.boxed = use_sandbox and not sandbox.why_no_sandbox()
        self.token = secrets.token_hex(16)
        self.outcome = Outcome(self._layers(use_sandbox))
        self.events: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.tail = bytearray()
        self.readers: list[tuple[threading.Thread, IO[bytes]]] = []
        self.deadline = 0.0
        self.over = self.done = False  # done: the child has said so itself

    def _layers(self, wanted: bool) -> list[str]:
        portable = "audit hook" + (", file-size limit" if _POSIX else "")
        if self.boxed:
            return [f"portable ({portable})", "operating system (bwrap)"]
        why = sandbox.why_no_sandbox() if wanted else "switched off"
        return [f"portable ({portable})", f"no operating-system layer: {why}"]

    def go(self) -> Outcome:
        """Run the job to its end, or to the limit that it hits first."""
        with tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as name:
            folders = _Folders(Path(name).resolve())
            code = Path(self.job["submission"])
            before = _listing(code)
            process = self._start(folders)
            try:
                self._listen(process)
            finally:
                self._end(process)
            if not self.boxed and _listing(code) != before:
                self._warn(f"{code} changed during the run: by native code, or by somebody else?")
            self._note_files(folders)
        self.outcome.log = bytes(self.tail[-TAIL:]).decode(errors="replace")
        return self.outcome

    def _start(self, folders: "_Folders") -> subprocess.Popen[bytes]:
        self.job |= {
            "token": self.token,
            "workers": str(folders.workers),
            "temporary": str(folders.temporary),
            "memory": int(self.limits["memory"] * 2**30),
        }
        command = [sys.executable, "-B", "-X", "faulthandler", "-c", _BOOT, str(_ROOT)]
        if self.boxed:
            results = [Path(self.job["save_to"]).parent] if "save_to" in self.job else []
            command = sandbox.sandboxed(command, [*folders.writable, *results])
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folders.current,
            env=folders.environment(self.keep_caches) | {MARK: self.token},
            start_new_session=_POSIX,
            creationflags=0 if _POSIX else subprocess.CREATE_NEW_PROCESS_GROUP,
        )
        for source, read in ((process.stdout, self._read_messages), (process.stderr, self._drain)):
            thread = threading.Thread(target=read, args=(source,), daemon=True)
            thread.start()
            self.readers.append((thread, source))
        _send_job(process, self.job)
        return process

    def _read_messages(self, source: IO[bytes]) -> None:
        size = 0
        for line in source:
            size += len(line)
            if size > MESSAGES_LIMIT:
                break
            self.events.put(("message", line))
        self.events.put(("end", b""))

    def _drain(self, source: IO[bytes]) -> None:
        """Read all that is printed, so that the child never waits for us; keep the end of it."""
        size = 0
        while data := source.read1(65536):
            size += len(data)
            self.tail += data
            del self.tail[: -2 * TAIL]
            if size > LOG_LIMIT:
                self.events.put(("flood", b""))
                size = -sys.maxsize

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        self.deadline = time.monotonic() + BETWEEN
        while not self.over:
            try:
                kind, line = self.events.get(timeout=max(0.0, min(0.25, self._left())))
            except queue.Empty:
                if self._left() <= 0:
                    self._over_time()
                elif process.poll() is not None and self.events.empty():
                    self._died(process)  # while something that it started holds the pipe open
                continue
            if kind == "message":
                self._understand(line)
            elif kind == "flood":
                self._fail(f"more than {LOG_LIMIT >> 20} MiB of output")
            else:
                self._died(process)

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _understand(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            getattr(self, f"_on_{message.pop('event')}")(**message)
        except (ValueError, AttributeError, TypeError, KeyError, IndexError):
            self._fail("wrote to the descriptor of the grader's messages")

    def _on_start(self, phase: str) -> None:
        self.outcome.phases.append(Phase(phase, self.limits[phase]))
        self.deadline = time.monotonic() + self.limits[phase]

    def _on_end(self, **cost: float) -> None:
        self._spend(**cost)
        last = self.outcome.phases[-1]
        last.verdict = "ok" if last.verdict == "running" else last.verdict
        self.deadline = time.monotonic() + BETWEEN

    def _on_answer(self, answer: dict[str, int]) -> None:
        self.outcome.answer = answer

    def _on_facts(self, facts: dict[str, Any]) -> None:
        self.outcome.facts = facts

    def _on_warning(self, text: str) -> None:
        self._warn(text)

    def _on_violation(self, phase: str, rule: str, call: str, where: str) -> None:
        self.outcome.violations.append(Failure(phase, f"broke the rule '{rule}': {call}", where))
        self._current_phase().verdict = "rule broken"

    def _on_failure(self, message: str, where: str, traceback: str, **cost: float) -> None:
        self._spend(**cost)
        self._fail(message, where, traceback)

    def _spend(self, wall: float, cpu: float, peak: int) -> None:
        phase = self._current_phase()
        phase.wall, phase.cpu, phase.peak = wall, cpu, peak

    def _on_done(self, left_running: bool) -> None:
        self.over = self.done = True
        if left_running:
            self._warn_left()

    def _warn(self, text: str) -> None:
        if text not in self.outcome.warnings:
            self.outcome.warnings.append(text)

    def _warn_left(self) -> None:
        self._warn("a process that the submission started outlived the test and was ended")

    def _current_phase(self) -> Phase:
        return self.outcome.phases[-1] if self.outcome.phases else Phase("start", BETWEEN)

    def _fail(self, message: str, where: str = "", traceback: str = "") -> None:
        self.over = True
        phase = self._current_phase()
        if phase.name == "inspect":  # the answer is there: the test is not in doubt
            self.outcome.facts = {"unreadable": message}
            phase.verdict = "error"
            return
        phase.verdict = "rule broken" if self.outcome.violations else "error"
        self.outcome.failure = Failure(phase.name, message, where, traceback)

    def _over_time(self) -> None:
        phase = self._current_phase()
        between = phase.wall is not None  # over, and the next one has not begun
        limit = BETWEEN if between else phase.limit
        self._fail(f"over its time limit of {limit:g} s")
        if not between:
            phase.verdict, phase.wall = "over time", limit

    def _died(self, process: subprocess.Popen[bytes]) -> None:
        _wait(process, 2.0)
        code = process.poll()
        if code is None:
            return self._fail("closed the descriptor of the grader's messages")
        if code == MEMORY_EXIT:
            return self._fail(f"MemoryError: over {self.limits['memory']:g} GiB")
        code = 128 - code if code < 0 else code  # bwrap and shells count that way
        signalled = _POSIX and code > 128
        how = f"by {_signal_name(code - 128)}" if signalled else f"with exit status {code}"
        return self._fail(f"the process ended {how}, without an answer")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if self.done:
            _wait(process, 5.0)
        regular = self.done and process.poll() is not None
        # On Linux the child has looked for itself, and a group of zombies would count here.
        if end_tree(process, self.token) and regular and sys.platform != "linux":
            self._warn_left()
        for thread, stream in self.readers:
            thread.join(1.0)
            if not thread.is_alive():  # else somebody still has the other end
                stream.close()

    def _note_files(self, folders: "_Folders") -> None:
        """Native code may have written where a submission finds itself: those folders are new."""
        files = folders.strangers()
        if files and not self.outcome.violations:
            call = f"native code wrote {', '.join(files[:3])}"
            name = self._current_phase().name
            self.outcome.violations.append(Failure(name, f"broke the rule '{FILES}': {call}"))


class _Folders:
    """New, empty folders around one run: what a submission finds as its surroundings.

    The current folder is one of them. Where the testing system starts a submission is not known,
    so one that only works from its own folder should fail here.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.current, self.temporary = base / "current", base / "temporary"
        self.workers, self.caches = base / "workers", base / "caches"
        for path in (self.current, self.temporary, self.workers):
            path.mkdir()
        # torch makes such folders when it is asked for pretrained weights, before the download.
        (self.caches / "torch" / "hub" / "checkpoints").mkdir(parents=True)
        (self.caches / "inductor").mkdir()
        self.before = self._files()

    def environment(self, keep_caches: bool) -> dict[str, str]:
        """This process' environment, with the new folders in it.

        The caches of pretrained weights are hidden: there are none in the testing system.
        """
        names = {name: str(self.temporary) for name in ("TMPDIR", "TEMP", "TMP")}
        names["TORCHINDUCTOR_CACHE_DIR"] = str(self.caches / "inductor")  # made at torch's import
        if not keep_caches:
            names["TORCH_HOME"] = str(self.caches / "torch")
            names["HF_HOME"] = str(self.caches / "huggingface")
        return {**os.environ, **names}

    @property
    def writable(self) -> list[Path]:
        """What even the sandbox lets native code write to: what appears there is reported."""
        return [self.current, self.temporary, self.workers]

    def strangers(self) -> list[str]:
        """Files and folders that have appeared, but for the sockets of worker processes."""
        new = self._files() - self.before
        left = {path for path in new if path.endswith(_LEFT_BY_TORCH)}
        return sorted(new - left - {path.rpartition("/")[0] for path in left})

    def _files(self) -> set[str]:
        found = (p.relative_to(self.base) for p in self.base.rglob("*"))
        return {p.as_posix() for p in found if p.parts[0] != "workers"}


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the files right in a folder, but for hidden ones."""
    found = {}
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # it may go while we look
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and not path.name.startswith("."):
                found[path.name] = (facts.st_size, facts.st_mtime_ns)
    return found


def _send_job(process: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
    # An OSError: it has ended already, as whoever listens will be told.
    with contextlib.suppress(OSError), process.stdin:
        process.stdin.write(json.dumps(job).encode())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def end_tree(process: subprocess.Popen[bytes], token: str) -> bool:
    """End a process and all that it started; True if others than itself were still alive."""
    if not _POSIX:
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
        )
        process.wait()
        return False
    others = _end_group(process)
    process.wait()
    end = time.monotonic() + 5.0
    while (strays := processes_marked(token)) and time.monotonic() < end:
        others = True
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return others


def _end_group(process: subprocess.Popen[bytes]) -> bool:
    """Kill the process group; True if it outlived its leader."""
    ended = process.poll() is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS: a group of zombies
        return False
    return ended
