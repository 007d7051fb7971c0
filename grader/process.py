"""The submission in a child process: start it, listen to it, end it with everything it started."""

import contextlib
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from grader import sandbox
from grader.rules import ACCELERATOR, FILES, LIBRARY, OWN
from grader.strays import MARK, Tree, end_marked, ends_with_this_process

LOG_LIMIT = 32 * 2**20  # bytes of output; a submission that prints more is ended
TAIL = 4000  # bytes of output that are kept for the report
LOOK = 0.1  # seconds between two looks at the memory
BETWEEN = 60.0  # seconds to start the process, and between phases
MESSAGES_LIMIT = 256 * 2**20  # bytes of messages: an answer for millions of photos

# Functions of libraries that fetch pretrained weights: torch.hub's, and of the hub that timm uses.
_FETCHING = re.compile(r"load_state_dict_from_url|download_url_to_file|huggingface_hub|_hub\.")

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


@dataclass(frozen=True)
class Refusal:
    """A call that the rules forbid and that was refused, and who wanted it (grader/rules.py)."""

    phase: str
    rule: str
    call: str
    who: str
    where: str
    through: tuple[str, ...] = ()
    in_worker: bool = False

    @property
    def is_breach(self) -> bool:
        """Whether it makes the run a runtime error even if the submission goes on.

        A file or a device that the submission's own line asks for: docs/grader.md says why.
        """
        return self.who == OWN and self.rule in (FILES, ACCELERATOR) and self.phase != "inspect"

    @property
    def wants_weights(self) -> bool:
        """Whether the call was on its way to pretrained weights."""
        return any(map(_FETCHING.search, self.through))

    def __str__(self) -> str:
        """One line: the phase, the rule, the call, and the submission's own line."""
        what = f"broke the rule '{self.rule}': {self.call}"
        if self.wants_weights:
            what = f"pretrained weights are not there and cannot be fetched: refused {self.call}"
        return f"{self.phase}: {what}" + (f" ({self.where})" if self.where else "")


@dataclass(frozen=True)
class Failure:
    """Why a run ended without an answer: one line for people, and the details."""

    phase: str
    message: str
    where: str = ""
    traceback: str = ""
    refusal: Refusal | None = None  # that it comes from

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
    refusals: list[Refusal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)  # imported from the submission's folder
    log: str = ""

    @property
    def problem(self) -> Failure | Refusal | None:
        """What makes the run a runtime error; a broken rule comes before what followed from it."""
        breach = next((refusal for refusal in self.refusals if refusal.is_breach), None)
        return breach or (self.failure and self.failure.refusal) or self.failure

    @property
    def survived(self) -> list[Refusal]:
        """Refusals that are no library's own affair, and that the submission went on after."""
        own = [r for r in self.refusals if r.who != LIBRARY and r.phase != "inspect"]
        problem = self.problem
        call = (problem.phase, problem.call) if isinstance(problem, Refusal) else None
        return [refusal for refusal in own if (refusal.phase, refusal.call) != call]

    @property
    def seconds(self) -> float:
        """Wall time of the phases that the testing system goes through."""
        return sum(p.wall or 0.0 for p in self.phases if p.name != "inspect")


class Run:
    """One child process, from its start to the end of all it started.

    Args:
        job: see grader/child.py; `task`, `submission`, `module`, and what the task needs.
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
            process = self._start(Path(name).resolve())
            # The box ends with this process by itself.
            watched = ends_with_this_process(process.pid, self.token)
            with contextlib.nullcontext() if self.boxed else watched:
                try:
                    _send_job(process, self.job)
                    self._listen(process)
                finally:
                    self._end(process)
        self.outcome.log = bytes(self.tail[-TAIL:]).decode(errors="replace")
        return self.outcome

    def _start(self, base: Path) -> subprocess.Popen[bytes]:
        folders = _make_folders(base)
        memory = int(self.limits["memory"] * 2**30)
        self.job |= {"token": self.token, "base": str(base), "boxed": self.boxed, "memory": memory}
        command = [sys.executable, "-B", "-X", "faulthandler", "-c", _BOOT, str(_ROOT)]
        if self.boxed:
            results = [Path(self.job["save_to"]).parent] if "save_to" in self.job else []
            command = sandbox.sandboxed(command, [*folders, *results])
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=base / "current",
            env=_environment(base, self.keep_caches) | {MARK: self.token},
            start_new_session=_POSIX,
            creationflags=0 if _POSIX else subprocess.CREATE_NEW_PROCESS_GROUP,
        )
        for source, read in ((process.stdout, self._read_messages), (process.stderr, self._drain)):
            thread = threading.Thread(target=read, args=(source,), daemon=True)
            thread.start()
            self.readers.append((thread, source))
        self.tree = Tree(process.pid)
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
            over_memory = self.tree.sample() > self.job["memory"] and sys.platform != "linux"
            try:
                kind, line = self.events.get(timeout=max(0.0, min(LOOK, self._left())))
            except queue.Empty:
                if over_memory:
                    self._fail(f"MemoryError: over {self.limits['memory']:g} GiB")
                elif self._left() <= 0:
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

    def _on_modules(self, modules: list[str]) -> None:
        self.outcome.modules = modules

    def _on_refusal(self, **facts: Any) -> None:
        refusal = _refusal(facts)
        self.outcome.refusals.append(refusal)
        if refusal.who != LIBRARY:
            self._current_phase().verdict = "rule broken" if refusal.is_breach else "refused"

    def _on_failure(
        self,
        message: str,
        where: str,
        traceback: str,
        refusal: dict[str, Any] | None,
        **cost: float,
    ) -> None:
        self._spend(**cost)
        self._fail(message, where, traceback, refusal and _refusal(refusal))

    def _spend(self, wall: float, cpu: float, memory: int) -> None:
        phase = self._current_phase()
        self.tree.peak = max(self.tree.peak, memory)
        phase.wall, phase.cpu, phase.peak = wall, cpu, self.tree.sample(look_again=True)

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

    def _fail(
        self, message: str, where: str = "", traceback: str = "", refusal: Refusal | None = None
    ) -> None:
        self.over = True
        phase = self._current_phase()
        if phase.name == "inspect":  # the answer is there: the test is not in doubt
            self.outcome.facts = {"unreadable": message}
            phase.verdict = "error"
            return
        # What a worker process raises comes back as a text, without what it was raised from.
        in_workers = (r for r in self.outcome.survived if r.in_worker and r.phase == phase.name)
        refusal = refusal or next(in_workers, None)
        if refusal and not refusal.where:  # it was in another thread
            refusal = replace(refusal, where=where)
        phase.verdict = "rule broken" if refusal or self.outcome.problem else "error"
        self.outcome.failure = Failure(phase.name, message, where, traceback, refusal)

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
        code = 128 - code if code < 0 else code  # bwrap and shells count that way
        signalled = _POSIX and code > 128
        how = f"by {_signal_name(code - 128)}" if signalled else f"with exit status {code}"
        return self._fail(f"the process ended {how}, without an answer")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if self.done:
            _wait(process, 5.0)
        self.tree.kill()
        process.wait()
        end_marked(self.token)
        for thread, stream in self.readers:
            thread.join(1.0)
            if not thread.is_alive():  # else somebody still has the other end
                stream.close()


def _refusal(facts: Mapping[str, Any]) -> Refusal:
    return Refusal(**{**facts, "through": tuple(facts["through"])})


def _make_folders(base: Path) -> list[Path]:
    """New, empty folders around one run: what a submission finds as its surroundings.

    The current folder is one of them. Where the testing system starts a submission is not known,
    so one that only works from its own folder should fail here. Even the sandbox lets native code
    write to them: what appears there is reported.
    """
    folders = [base / name for name in ("current", "temporary", "workers")]
    for path in folders:
        path.mkdir()
    return folders


def _environment(base: Path, keep_caches: bool) -> dict[str, str]:
    """This process' environment, with the new folders in it.

    The caches of pretrained weights are hidden: there are none in the testing system.
    """
    names = {name: str(base / "temporary") for name in ("TMPDIR", "TEMP", "TMP")}
    if not keep_caches:
        names["TORCH_HOME"] = str(base / "caches" / "torch")
        names["HF_HOME"] = str(base / "caches" / "huggingface")
    return {**os.environ, **names}


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
