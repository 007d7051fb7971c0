"""One run of a submission in a process of its own: start it, listen to its hook, see it end."""

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil

from course.files import atomic_write, temporary_folder
from grader.outcome import Failure, Outcome, Phase, Refusal
from grader.rules import LIBRARY_INTERNAL
from grader.staging import SCRIPT, Stage, Submission
from grader.supervisor import LEFT

LOG_LIMIT = 32 * 2**20  # bytes of output; a submission that prints more is ended
TAIL = 20_000  # bytes of output that are kept for the report
TRACEBACK = "Traceback (most recent call last)"
# Of a traceback: the frames of the hook, of Python's own import, and of the script.
FRAMES = r'  File "(<grader>|<frozen importlib[^"]*|{script})", line .*\n(    .*\n)*'
POLL = 0.02  # seconds between two reads of the reports
SAMPLE = 0.5  # seconds between two measurements of memory and CPU time
AFTER_FAILURE = 3.0  # seconds in which a process that has failed ends by itself
CLEAR = "\r\x1b[2K"  # erases a terminal's line

_POSIX = os.name == "posix"


def run(task: str, submission: Submission, data: Path, output: Path) -> Outcome:
    """Run a mode of course/script.py, the `task`, in a process of its own, to its end or its limit.

    `data` and `output` are the course's DATA_DIR and OUTPUT_DIR; that gets the file of a run that
    kept the rules.
    """
    if not submission.model.is_file():  # reported before the training, not after
        return Outcome(failure=Failure("start", f"no model file {submission.model}"))
    with temporary_folder("grader-") as folder:
        stage = Stage(folder.resolve(), submission, data.absolute())
        try:
            return Run(task, stage).go(output)
        finally:
            for path in stage.read_only:
                path.chmod(0o700)  # so that it can be removed


def show_progress(test: str, phase: Phase) -> None:
    """Show on a terminal how long a phase has run; the name `test` begins with its number."""
    if sys.stderr.isatty():  # stdout holds what the testing system says
        costs = f"{phase.wall:.0f} s of {phase.limit:.0f} s, CPU {phase.cpu:.0f} s"
        print(f"{CLEAR}{test[:2]} {phase.name}, {costs}", end="", file=sys.stderr, flush=True)


class Run:
    """One process, from its start to the end of all it started."""

    def __init__(self, task: str, stage: Stage) -> None:
        self.task, self.stage, self.outcome = task, stage, Outcome(stage.layers())
        self.limits = stage.submission.limits
        self.memory = int(self.limits["memory"] * 2**30)
        # Opened for writing, too: so it is not at its end where nobody writes.
        self.channel = os.open(stage.channel, os.O_RDWR | os.O_NONBLOCK if _POSIX else os.O_RDONLY)
        self.unread = b""  # the beginning of a report
        self.phase, self.began = Phase("import", self.limits["import"]), time.monotonic()
        self.cpu = self.cpu_before = 0.0  # seconds of all processes: now, when the phase began
        self.peak = 0  # bytes: the most that one of the processes was seen to hold
        self.printed, self.tail = 0, bytearray()  # bytes of output, and the last of them

    def go(self, output: Path) -> Outcome:
        """Start it, listen to it, end it; a run that kept the rules leaves its file in `output`."""
        self.process = process = subprocess.Popen(
            self.stage.command(self.task, self.memory),
            stdin=subprocess.PIPE,  # closed when this process ends
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.stage.current,
            env=self.stage.environment(self.task),
            start_new_session=_POSIX,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdin
        assert process.stdout
        reader = threading.Thread(target=self._drain, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            self._listen()
        finally:
            process.stdin.close()  # the supervisor ends what is left
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(1.0)
            if not reader.is_alive():  # else somebody still has the other end
                process.stdout.close()
            os.close(self.channel)
        for path in () if self.stage.boxed else map(Path, self.outcome.made):
            if path.parent == Path("/dev/shm"):  # the other folders go as a whole
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
        self._keep_words()
        if not self.outcome.failure:
            self._keep_output(output)
        return self.outcome

    def _drain(self, source: IO[bytes]) -> None:
        """Read all that is printed, so that the child never waits for us; keep the end of it."""
        while data := source.read1(65536):  # type: ignore[attr-defined]
            self.printed += len(data)
            self.tail += data
            del self.tail[:-TAIL]

    def _keep_words(self) -> None:
        """Keep the end of what was printed, the traceback of a failure by itself."""
        if self.tail.endswith(LEFT):
            del self.tail[-len(LEFT) :]
            text = "a process that the submission started outlived the test and was ended"
            self.outcome.warnings.append(text)
        log, traceback = bytes(self.tail).decode(errors="replace"), ""
        if self.outcome.failure and TRACEBACK in log:
            log, _, traceback = log.partition(TRACEBACK)
            frames = FRAMES.format(script=re.escape(str(self.stage.code / SCRIPT)))
            traceback = TRACEBACK + re.sub(frames, "", traceback)
        self.outcome.log = self.stage.with_original_path(log)
        self.outcome.traceback = self.stage.with_original_path(traceback)

    # ---- Listening ----

    def _listen(self) -> None:
        sampled = 0.0
        while not self.outcome.failure:
            status = self.process.poll()  # before the reports: what has ended has reported all
            self._read_reports()
            if self.outcome.failure:  # it ends by itself, with its last words
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(AFTER_FAILURE)
            elif status is not None:
                return self._judge_end(status)
            elif self.printed > LOG_LIMIT:
                self._fail(f"more than {LOG_LIMIT >> 20} MiB of output")
            elif time.monotonic() - self.began > self.phase.limit:
                exiting = self.phase.name == "exit"
                how = ": the process does not end after its answer" if exiting else ""
                self._fail(f"over its time limit of {self.phase.limit:g} s{how}")
                self.phase.verdict = "over time"
            elif time.monotonic() - sampled > SAMPLE:
                sampled = time.monotonic()
                self._sample()
                if self.peak > self.memory and sys.platform != "linux":
                    self._fail(f"MemoryError: over {self.limits['memory']:g} GiB")
                show_progress(self.stage.data.name, self.phase)
            time.sleep(POLL)
        return None

    def _sample(self) -> None:
        """Measure what the phase has cost so far."""
        cpu, phase = 0.0, self.phase
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    self.peak = max(self.peak, process.memory_info().rss)
                    cpu += sum(process.cpu_times()[:4])  # its own and its ended children's
        self.cpu = max(self.cpu, cpu)
        phase.wall, phase.cpu = time.monotonic() - self.began, self.cpu - self.cpu_before
        phase.peak = self.peak

    def _read_reports(self) -> None:
        """Take what the hook has reported since: lines that begin with the run's token."""
        token = self.stage.token.encode() + b" "
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.channel, 65536):
                self.unread += data
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:
            with contextlib.suppress(Exception):  # a forged one that makes no sense is none
                if line.startswith(token):
                    text = self.stage.with_original_path(line[len(token) :].decode())
                    self._understand(**ast.literal_eval(text))

    def _understand(self, event: str, memory: int, **facts: Any) -> None:
        self.peak = max(self.peak, memory)
        match event:
            case "start":
                self._start_phase(facts["phase"])
            case "refusal":
                self.outcome.refusals.append(Refusal(**facts))
                if facts["kind"] != LIBRARY_INTERNAL:
                    self.phase.verdict = "rule broken" if facts["breach"] else "refused"
            case "failure":
                refusal = facts.pop("refusal")
                self._fail(**facts, refusal=refusal and Refusal(**refusal))
            case "modules":
                self.outcome.modules, self.outcome.imported = facts["own"], facts["imported"]
            case _ if facts["text"] not in (lines := getattr(self.outcome, event)):
                lines.append(str(facts["text"]))

    def _start_phase(self, name: str) -> None:
        """End the phase before and begin this one."""
        self._sample()
        if self.phase.verdict == "running":
            self.phase.verdict = "ok"
        self.phase = Phase(name, self.limits[name])
        self.began, self.cpu_before = time.monotonic(), self.cpu
        if name != "exit":
            self.outcome.phases.append(self.phase)

    # ---- The end ----

    def _fail(self, message: str, where: str = "", refusal: Refusal | None = None) -> None:
        self._sample()
        if refusal and not refusal.where:  # it was in another thread
            refusal = replace(refusal, where=where)
        self.phase.verdict = "rule broken" if refusal or self.outcome.problem else "error"
        self.outcome.failure = Failure(self.phase.name, message, where, refusal)
        if self.phase not in self.outcome.phases:  # the exit, or before the script has begun
            self.outcome.phases.append(self.phase)

    def _judge_end(self, status: int) -> None:
        """Judge how the process ended: as the testing system does, by its exit status."""
        status = 128 - status if status < 0 else status
        if status == 0 and self.phase.name == "exit":
            return
        name = {128 + number: number.name for number in signal.Signals}.get(status)
        how = f"by {name}" if name else f"with exit status {status}"
        last = bytes(self.tail).decode(errors="replace").strip().split("\n")[-1]
        if status == 1 and last.startswith("MemoryError"):
            self._fail(last)  # there was none left to report with
        else:
            when = "after its answer" if self.phase.name == "exit" else "without an answer"
            self._fail(f"the process ended {how}, {when}")

    def _keep_output(self, folder: Path) -> None:
        file = self.stage.output / ("birds_model.pt" if self.task == "train" else "output.csv")
        if not file.is_file():
            self._fail("the output is gone")
        elif not self.outcome.problem:
            with atomic_write(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)
