"""What runs inside the submission's process: the phases, their cost, the answer.

The job comes in on stdin, as JSON. Messages go out one JSON object a line on what was stdout;
file descriptors 1 and 2 become one pipe for what the submission prints, so that no output can
end up among the messages. The messages:

    {"event": "start", "phase": ...}              {"event": "end", "wall", "cpu", "memory"}
    {"event": "answer", "answer": {name: id}}     {"event": "facts", "facts": {...}}
    {"event": "modules", "modules": [...]}        {"event": "warning", "text": ...}
    {"event": "refusal", "phase", "rule", "call", "who", "where", "through", "in_worker"}
    {"event": "failure", "message", "where", "traceback", "refusal", "wall", "cpu", "memory"}
    {"event": "done", "left_running": bool}
"""

import contextlib
import importlib
import json
import multiprocessing.process
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from course.layout import read_csv, save_csv
from grader.rules import Rules, hide_accelerators, hide_apple_gpu, line_name
from grader.strays import cpu_seconds, is_helper, processes_marked
from grader.writers import announce_writers

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
        self.began = time.monotonic(), cpu_seconds()
        self.rules = Rules(job["submission"], job["base"], self.tell, not job["boxed"])

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
        self.rules.end()
        self.tell({"event": "done", "left_running": self._left_running()})
        _flush()
        os._exit(0)

    def _left_running(self) -> bool:
        """Whether something that the submission started is still there, half a second later."""
        for _ in range(10):
            if all(is_helper(process) for process in processes_marked(self.job["token"])):
                return False
            time.sleep(0.05)
        return True

    def _stop_if_forked(self) -> None:
        if os.getpid() != self.pid:  # a fork of the submission's ran on into the grader's code
            os._exit(1)

    def _settle(self) -> None:
        """Make the process what a submission finds in the testing system."""
        job, base = self.job, Path(self.job["base"])
        own = {"", str(Path(_GRADER).parent)}
        sys.path[:] = [job["submission"], *(p for p in sys.path if p not in own)]
        sys.argv[:] = [str(Path(job["submission"], f"{job['module']}.py"))]
        offer_script(job["submission"])
        tempfile.tempdir = str(base / "temporary")  # or tempfile would try to write to find out
        multiprocessing.process.current_process()._config["tempdir"] = str(base / "workers")
        hide_accelerators()
        announce_writers()
        limit_memory(job["memory"])
        self.rules.install()

    def _phase(self, name: str, call: Callable[[], Any]) -> Any:
        self.tell({"event": "start", "phase": name})
        self.rules.begin(name)
        self.began = time.monotonic(), cpu_seconds()
        children = set(psutil.Process().children())
        result = call()
        self._stop_if_forked()
        if set(psutil.Process().children()) - children:
            self.rules.note_workers()
        self.rules.tell_files()
        self.tell({"event": "end", **self._cost()})
        return result

    def _cost(self) -> dict[str, float]:
        """Seconds of wall clock and CPU since the phase began; memory held now, in bytes."""
        wall, cpu = self.began
        memory = psutil.Process().memory_info().rss
        return {"wall": time.monotonic() - wall, "cpu": cpu_seconds() - cpu, "memory": memory}

    def _import(self) -> ModuleType:
        module = self.job["module"]
        solution = self._phase("import", lambda: importlib.import_module(module))
        if sys.platform == "darwin" and "torch" in sys.modules:
            hide_apple_gpu(sys.modules["torch"])
        for name in ("train_classifier", "classify"):
            if not callable(getattr(solution, name, None)):
                raise AttributeError(f"{module}.py has no function {name}")
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
        self.tell({"event": "modules", "modules": own_modules(self.job["submission"])})
        if "torch" in sys.modules:  # else there is nothing that could read the file
            self.tell({"event": "facts", "facts": self._phase("inspect", self._facts)})

    def _do_classify(self) -> None:
        self._classify(self._import())

    def _do_train(self) -> None:
        solution = self._import()
        network = self._train(solution, "train", fast_train=False)
        to_checkpoint = getattr(solution, "to_checkpoint", None)
        if to_checkpoint is None:
            name = self.job["module"]
            raise AttributeError(f"{name}.py has no function to_checkpoint(network) -> dict")
        checkpoint = to_checkpoint(network)
        self.rules.end()
        sys.modules["torch"].save(checkpoint, self.job["save_to"])

    def _facts(self) -> dict[str, Any]:
        """What birds_model.pt says about itself; plain values only."""
        try:
            solution = sys.modules[self.job["module"]]
            return model_facts(sys.modules["torch"], solution, self.job["model"])
        except Exception as error:  # no reason to take back an answer that was given
            return {"unreadable": f"{type(error).__name__}: {error}".split("\n")[0]}


def offer_script(submission: str) -> None:
    """The testing system's script lies beside the code: let `from run import read_csv` work."""
    for name in ("run", "run_tests"):
        script = ModuleType(name, "The testing system's script, as far as submissions import it.")
        script.read_csv, script.save_csv = read_csv, save_csv
        if name == "run_tests" or not Path(submission, "run.py").is_file():
            sys.modules[name] = script


def own_modules(submission: str) -> list[str]:
    """Files of the submission's folder that have been imported, as "utils/views.py"."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    names = (line_name(submission, file) for file in files if file)
    return sorted({name for name in names if name})


def checked_answer(answer: Any) -> dict[str, int]:
    """The answer as the testing system writes it down, or a TypeError.

    It writes `'%s,%d' % (name, answer[name])` for the sorted names: whatever that takes is an
    answer (3.0, numpy's and torch's scalars), what it refuses is a runtime error.
    """
    if not hasattr(answer, "keys"):
        raise TypeError(f"classify returned {_a(answer)}, not a dict from file name to class id")
    checked = {}
    for key in sorted(answer.keys()):
        name, value = f"{key}", answer[key]
        if {"\n", "\r"} & set(name):
            raise TypeError(f"classify returned the key {name!r}, which is no file name")
        try:
            checked[name] = int("%d" % value)  # noqa: UP031 - this is the very question
        except Exception:
            shown = f"{value!r:.80}"
            raise TypeError(
                f"classify returned {shown} ({type(value).__name__}) for {name!r}, not an int"
            ) from None
    return checked


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def model_facts(torch: Any, solution: ModuleType, path: str) -> dict[str, Any]:
    """The checkpoint's own account of its training and validation, and its known answer."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    names = ("format", "training", "validation", "class_ids")
    facts = {name: checkpoint.get(name) for name in names}
    json.dumps(facts)  # a tensor among them: TypeError, the facts are not readable
    if hasattr(solution, "known_answer_error"):
        facts["known_answer_error"] = float(solution.known_answer_error(path))
    return facts


def describe(error: BaseException, submission: str) -> dict[str, Any]:
    """Message, the submission's own line, and the traceback without the grader's frames."""
    return {
        "message": _message(error),
        "where": _where(error, submission),
        "traceback": "".join(_without_grader(error).format())[-_TEXT_LIMIT:],
        "refusal": refusal_behind(error),
    }


def _without_grader(error: BaseException) -> traceback.TracebackException:
    told = traceback.TracebackException.from_exception(error)
    link = told
    while link:
        own = [f for f in link.stack if not f.filename.startswith((_GRADER, "<frozen importlib"))]
        link.stack[:] = [f for f in own if f.filename != importlib.__file__]
        link = link.__cause__ or link.__context__
    return told


def refusal_behind(error: BaseException) -> dict[str, Any] | None:
    """The refusal that the error comes from: its own, or that of one it was raised from."""
    seen = set()
    while error and id(error) not in seen:
        if hasattr(error, "refusal"):
            return error.refusal
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _message(error: BaseException) -> str:
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split())[:500]
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return type(error).__name__


def _where(error: BaseException, submission: str) -> str:
    lines = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno or 0))
    for file, line in reversed(lines):
        name = line_name(submission, file)
        if name:
            return f"{name}:{line}"
    return ""


def limit_memory(limit: int | None) -> None:
    """On Linux: let this process allocate at most `limit` bytes; None: any number.

    The allocation itself is refused, which Python turns into a MemoryError. RLIMIT_DATA counts
    what is allocated; RLIMIT_AS would count the gigabytes of address space that torch only
    reserves. Other systems have no working limit: there the grader ends the process.
    """
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard if limit is None else limit, hard))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the submission may have closed or replaced it
            stream.flush()
