"""What runs inside the submission's process: the phases, their cost, the answer.

The job comes in on stdin, as JSON. Messages go out one JSON object a line on what was stdout;
file descriptors 1 and 2 become one pipe for what the submission prints, so that no output can
end up among the messages. The messages:

    {"event": "start", "phase": ...}              {"event": "end", "wall", "cpu", "peak"}
    {"event": "answer", "answer": {name: id}}     {"event": "facts", "facts": {...}}
    {"event": "violation", "phase", "rule", "call", "where"}
    {"event": "warning", "text": ...}
    {"event": "failure", "message", "where", "traceback", "wall", "cpu", "peak"}
    {"event": "done", "left_running": bool}
"""

import contextlib
import importlib
import json
import multiprocessing.process
import operator
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from grader.rules import Rules, hide_accelerators, hide_apple_gpu, line_name
from grader.strays import processes_marked

_GRADER = str(Path(__file__).resolve().parent)
_TEXT_LIMIT = 20_000  # characters of a traceback


def main() -> None:
    """Do the job on stdin, tell about it on stdout, and never return."""
    job = json.loads(sys.stdin.buffer.read())
    Child(job, _private_stdout()).run()


def _private_stdout() -> int:
    """Keep stdout for the messages; the submission prints to stderr's pipe, and reads nothing."""
    channel = os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel


class Child:
    """One job: "test" (all of a test), "classify" (only that) or "train" (fast_train=False)."""

    def __init__(self, job: dict[str, Any], channel: int) -> None:
        """Messages go to the descriptor `channel`."""
        self.job, self.channel = job, channel
        self.pid = os.getpid()
        self.began = time.monotonic(), _cpu_seconds()
        self.rules = Rules(job["submission"], job["workers"], self.tell)

    def tell(self, message: dict[str, Any]) -> None:
        """Send one message; a single write, so that forked workers cannot mix theirs in."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.channel, data) :]

    def run(self) -> None:
        """Do the job and end the process, without the interpreter's own last steps."""
        self._settle()
        try:
            getattr(self, f"_do_{self.job['task']}")()
        except BaseException as error:
            self._stop_if_forked()
            limit_memory(None)  # there must be some left to report with
            facts = describe(error, self.job["submission"])
            self.tell({"event": "failure", **facts, **self._cost()})
        self._stop_if_forked()
        self.tell({"event": "done", "left_running": self._left_running()})
        _flush()
        os._exit(0)

    def _left_running(self) -> bool:
        """Whether something that the submission started is still there, half a second later."""
        for _ in range(10):
            if not processes_marked(self.job["token"]):
                return False
            time.sleep(0.05)
        return True

    def _stop_if_forked(self) -> None:
        if os.getpid() != self.pid:  # a fork of the submission's ran on into the grader's code
            os._exit(1)

    def _settle(self) -> None:
        """Make the process what a submission finds in the testing system."""
        job = self.job
        die_with_parent()
        own = {"", str(Path(_GRADER).parent)}
        sys.path[:] = [job["submission"], *(p for p in sys.path if p not in own)]
        sys.argv[:] = [str(Path(job["submission"], "solution.py"))]
        tempfile.tempdir = job["temporary"]  # or tempfile would try to write there to find out
        multiprocessing.process.current_process()._config["tempdir"] = job["workers"]
        hide_accelerators()
        limit_memory(job["memory"])
        self.rules.install()

    def _phase(self, name: str, call: Callable[[], Any]) -> Any:
        self.tell({"event": "start", "phase": name})
        self.rules.begin(name)
        self.began = time.monotonic(), _cpu_seconds()
        before = _ended_children()
        result = call()
        self._stop_if_forked()
        if _ended_children() != before and not self.rules.started_programs:
            self.rules.note_workers()
        self.tell({"event": "end", **self._cost()})
        return result

    def _cost(self) -> dict[str, float]:
        """Seconds of wall clock and CPU since the phase began, peak memory so far in bytes."""
        wall, cpu = self.began
        return {
            "wall": time.monotonic() - wall,
            "cpu": _cpu_seconds() - cpu,
            "peak": peak_memory(),
        }

    def _import(self) -> ModuleType:
        solution = self._phase("import", lambda: importlib.import_module("solution"))
        if sys.platform == "darwin" and "torch" in sys.modules:
            hide_apple_gpu(sys.modules["torch"])
        for name in ("train_classifier", "classify"):
            if not callable(getattr(solution, name, None)):
                raise AttributeError(f"solution.py has no function {name}")
        return solution

    def _train(self, solution: ModuleType, phase: str, fast_train: bool) -> Any:
        gt, images = dict(self.job["train_gt"]), self.job["train_images"]
        network = self._phase(
            phase, lambda: solution.train_classifier(gt, images, fast_train=fast_train)
        )
        if network is None:
            text = f"{phase}: train_classifier returns None; the assignment wants the network"
            self.tell({"event": "warning", "text": text})
        return network

    def _classify(self, solution: ModuleType) -> None:
        model, images = self.job["model"], self.job["test_images"]
        answer = self._phase("classify", lambda: checked_answer(solution.classify(model, images)))
        self.tell({"event": "answer", "answer": answer})

    def _do_test(self) -> None:
        solution = self._import()
        self._train(solution, "fast_train", fast_train=True)
        self._classify(solution)
        if "torch" in sys.modules:  # else there is nothing that could read the file
            self.tell({"event": "facts", "facts": self._phase("inspect", self._facts)})

    def _do_classify(self) -> None:
        self._classify(self._import())

    def _do_train(self) -> None:
        solution = self._import()
        network = self._train(solution, "train", fast_train=False)
        to_checkpoint = getattr(solution, "to_checkpoint", None)
        if to_checkpoint is None:
            raise AttributeError("solution.py has no function to_checkpoint(network) -> dict")
        checkpoint = to_checkpoint(network)
        self.rules.end()
        sys.modules["torch"].save(checkpoint, self.job["save_to"])

    def _facts(self) -> dict[str, Any]:
        """What birds_model.pt says about itself; plain values only."""
        try:
            return model_facts(sys.modules["torch"], sys.modules["solution"], self.job["model"])
        except Exception as error:  # no reason to take back an answer that was given
            return {"unreadable": f"{type(error).__name__}: {error}".split("\n")[0]}


def checked_answer(answer: Any) -> dict[str, int]:
    """The answer as file name to int, or a TypeError.

    The page on the testing system does not say what happens to an id that is no int. Whatever
    counts as an integer for Python (numpy's, a 0-d tensor) is one; a string, None or a float is
    refused where output.csv would be written, which makes it a runtime error.
    """
    if not isinstance(answer, dict):
        raise TypeError(f"classify returned {_a(answer)}, not a dict from file name to class id")
    checked = {}
    for name, class_id in answer.items():
        if not isinstance(name, str) or {"\n", "\r"} & set(name):
            raise TypeError(f"classify returned the key {name!r}, which is no file name")
        try:
            checked[str(name)] = operator.index(class_id)
        except Exception:
            value = f"{class_id!r:.80}"
            raise TypeError(
                f"classify returned {value} ({type(class_id).__name__}) for {name!r}, not an int"
            ) from None
    return checked


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def model_facts(torch: Any, solution: ModuleType, path: str) -> dict[str, Any]:
    """The checkpoint's own account of its training and validation, and its known answer."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    names = ("format", "training", "validation")
    facts = {name: checkpoint.get(name) for name in names}
    json.dumps(facts)  # a tensor among them: TypeError, the facts are not readable
    if hasattr(solution, "known_answer_error"):
        facts["known_answer_error"] = float(solution.known_answer_error(path))
    return facts


def describe(error: BaseException, submission: str) -> dict[str, str]:
    """Message, the submission's own line, and the traceback without the grader's frames."""
    tb = error.__traceback__
    while tb and tb.tb_frame.f_code.co_filename.startswith((_GRADER, "<frozen importlib")):
        tb = tb.tb_next
    while tb and "importlib" in tb.tb_frame.f_code.co_filename:
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb))
    where = _where(error, tb, submission)
    return {"message": _message(error), "where": where, "traceback": text[-_TEXT_LIMIT:]}


def _message(error: BaseException) -> str:
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split())[:500]
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return type(error).__name__


def _where(error: BaseException, tb: TracebackType | None, submission: str) -> str:
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(tb)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno or 0))
    for file, line in reversed(lines):
        name = line_name(submission, file)
        if name:
            return f"{name}:{line}"
    return ""


def die_with_parent() -> None:
    """On Linux: let the system end this process if the grader is killed."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def limit_memory(limit: int | None) -> None:
    """Let this process allocate at most `limit` bytes; None: any number.

    Linux refuses the allocation itself, which Python turns into a MemoryError. RLIMIT_DATA counts
    what is allocated; RLIMIT_AS would count the gigabytes of address space that torch only
    reserves. Other systems have no working limit: there a thread watches the peak.
    """
    if sys.platform != "linux":
        _MemoryWatch.limit = limit
        return _MemoryWatch.start()
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    return resource.setrlimit(resource.RLIMIT_DATA, (hard if limit is None else limit, hard))


class _MemoryWatch:
    """Ends the process with the status MEMORY_EXIT when its peak memory is over the limit."""

    limit: int | None = None
    thread: threading.Thread | None = None

    @classmethod
    def start(cls) -> None:
        """Begin to watch, once."""
        if cls.thread is None:
            cls.thread = threading.Thread(target=cls._watch, daemon=True)
            cls.thread.start()

    @classmethod
    def _watch(cls) -> None:
        while True:
            time.sleep(0.1)
            if cls.limit is not None and peak_memory() > cls.limit:
                os._exit(MEMORY_EXIT)


MEMORY_EXIT = 86  # exit status of a process that its own watch has ended


def peak_memory() -> int:
    """The largest amount of physical memory that this process has held, in bytes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            # Unlike getrusage, this does not begin with the memory of the process it came from.
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024
    if sys.platform == "win32":
        return _windows_peak_memory()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_peak_memory() -> int:
    import ctypes
    from ctypes import wintypes

    sizes = ["peak", "now", *("quota",) * 4, "pagefile", "peak_pagefile"]
    fields = [("size", wintypes.DWORD), ("faults", wintypes.DWORD)]
    fields += [(f"{name}{i}", ctypes.c_size_t) for i, name in enumerate(sizes)]
    counters = type("Counters", (ctypes.Structure,), {"_fields_": fields})()
    counters.size = ctypes.sizeof(counters)
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    process = wintypes.HANDLE(kernel.GetCurrentProcess())
    kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return counters.peak0


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ended_children() -> int:
    """Grows with every child process that has ended; 0 where the system does not count."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the submission may have closed or replaced it
            stream.flush()
