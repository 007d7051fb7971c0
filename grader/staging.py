"""The set-up of a run: the code beside the script, new folders, a minimal environment."""

import os
import secrets
import shutil
import site
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import course
from course.files import UserError
from grader.sandbox import sandboxed, why_no_sandbox

MODULES = ("solution", "classification")  # of the code: this project's, the 2024 edition's
NAMES = tuple(f"{module}.py" for module in MODULES)

# Seconds, except for memory. `--limit NAME=VALUE` changes one for a run.
LIMITS = {
    "import": 120.0,  # `import solution`, with torch from a cold disk
    "fast_train": 15 * 60.0,  # the assignment's own number
    "classify": 15 * 60.0,  # not stated in the assignment: taken to be the same
    "exit": 120.0,  # the interpreter's end: the testing system waits until its own limit
    "train": 4 * 3600.0,  # the full training of --reproduce
    # GiB that each process may allocate. The testing system's limit is not known: 8 is several
    # times what training MobileNetV2 takes, and leaves a 16 GiB laptop alive.
    "memory": 8.0,
}

SCRIPT = "run.py"  # the script's name in the 2024 edition
OFFERED = (SCRIPT, "run_tests.py")  # names under which a submission may import its helpers
LINKED_FROM = 64 * 2**20  # bytes: a larger file beside the code is linked, not copied

_HERE = Path(__file__).resolve().parent
# The beginnings of the user's variables that are kept: how programs are found and speak, how many
# threads they have. All others, caches of weights and PYTHONPATH first, are this machine's own.
KEPT = (
    *("PATH", "LANG", "LC_", "TZ", "USER", "LOGNAME", "SHELL", "TERM", "VIRTUAL_ENV", "CONDA_"),
    *("LD_", "DYLD_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "NUMBER_OF_PROCESSORS"),
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC"),
)
# What the testing system has as well: Python, its packages, the system.
_SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/dev"]
_SYSTEM += ["/var", "/run", "/System", "/Library", "/private/etc", "/private/var/db"]


@dataclass(frozen=True)
class Submission:
    """What is graded: the folder with its code, and the model file that goes with it."""

    folder: Path
    model: Path
    code: str = NAMES[0]  # or solution/__init__.py
    limits: Mapping[str, float] = field(default_factory=lambda: LIMITS)
    use_sandbox: bool = True

    @property
    def module(self) -> str:
        """The name that the script imports it by."""
        return self.code.partition("/")[0].removesuffix(".py")

    @classmethod
    def at(cls, folder: Path, model: Path | None = None, **options: Any) -> "Submission":
        """Return the submission in a folder. Raises UserError if there is none."""
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link stays one
        codes = [name for module in MODULES for name in (f"{module}/__init__.py", f"{module}.py")]
        code = next((name for name in codes if (folder / name).is_file()), None)
        if code is None:
            raise UserError(f"no {' or '.join(NAMES)} in {folder}: name it with --submission")
        return cls(folder, model or folder / "birds_model.pt", code, **options)


class Stage:
    """The folders of one run, all below `base`, and what its process is started with."""

    def __init__(self, base: Path, submission: Submission, data: Path) -> None:
        self.base, self.submission, self.data = base, submission, data
        self.boxed = submission.use_sandbox and not why_no_sandbox()
        self.token = secrets.token_hex(8)  # which the hook's reports begin with
        self.code = base / "code"  # the code, the model and the script
        self.current = base / "current"  # the current folder: empty, read-only, not the code's
        self.home = base / "home"
        self.temporary = base / "temporary"  # where libraries may write
        self.output = base / "output"  # where the script writes
        self.channel = base / "channel"  # for the hook's reports: a pipe, or a file on Windows
        users = [site.getuserbase()] if site.ENABLE_USER_SITE else []
        self.python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *users]
        self.read_only = (self.code, self.current, self.home)
        for folder in (*self.read_only, self.temporary, self.output):
            folder.mkdir()
        if os.name == "posix":
            os.mkfifo(self.channel)
        else:
            self.channel.touch()
        _copy_code(submission.folder, self.code, submission.model)
        self._add_script()
        for folder in self.read_only:
            folder.chmod(0o500)

    def with_original_path(self, text: str) -> str:
        """Return a text that names the user's folder where the run has a copy."""
        return text.replace(str(self.code), str(self.submission.folder))

    def layers(self) -> list[str]:
        """Return how the rules are enforced, for people."""
        if self.boxed:
            return ["portable (audit hook)", "operating system (bwrap)"]
        limit = ", file-size limit" if os.name == "posix" else ""
        why = why_no_sandbox() if self.submission.use_sandbox else "switched off"
        return [f"portable (audit hook{limit})", f"no operating-system layer: {why}"]

    def command(self, task: str, memory: int) -> list[str]:
        """Return the command line: the supervisor, which starts the script, in a sandbox if any."""
        supervisor = self.base / "supervisor.py"
        shutil.copyfile(_HERE / supervisor.name, supervisor)
        command = [sys.executable, str(supervisor), str(memory), sys.executable, "-X", "utf8"]
        command += [str(self.code / SCRIPT), task, str(self.data), str(self.output)]
        if not self.boxed:
            return command
        readable = [Path(path) for path in self.python if Path(path).is_dir()]
        readable += [self.submission.folder, self.submission.model.absolute().parent]
        readable += [self.data, self.base]
        return sandboxed(command, [self.output], readable, [self.temporary], size=memory)

    def environment(self, task: str) -> dict[str, str]:
        """Return the variables of the process; "train" has the user's, for caches of weights."""
        names = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary)) | {"CHECKER": "1"}
        if not self.boxed:  # the sandbox has no such device
            names |= {f"{kind}_VISIBLE_DEVICES": "" for kind in ("CUDA", "HIP", "ROCR")}
        if task == "train":
            return {**os.environ, **names}
        names["HOME" if os.name == "posix" else "USERPROFILE"] = str(self.home)
        if site.ENABLE_USER_SITE and Path(site.getuserbase()).is_dir():
            names["PYTHONUSERBASE"] = site.getuserbase()
        return {n: v for n, v in os.environ.items() if n.upper().startswith(KEPT)} | names

    def _add_script(self) -> None:
        """Lay the script beside the code; `run.py` begins with the hook, which leaves no name."""
        text = Path(course.__file__).with_name("script.py").read_text(encoding="utf-8")
        text = text.replace("solution", self.submission.module)
        (self.code / SCRIPT).unlink(missing_ok=True)  # the user's copy of it
        scripts = [self.code / name for name in OFFERED if not (self.code / name).exists()]
        names = ("code", "base", "data", "output", "channel", "token")
        config: dict[str, Any] = {name: str(getattr(self, name)) for name in names}
        config |= {"submission": str(self.submission.folder), "scripts": list(map(str, scripts))}
        config |= {"scratch": [str(self.temporary), "/dev/shm"], "known": [*_SYSTEM, *self.python]}
        config |= {"limit_files": os.name == "posix" and not self.boxed}
        hook = (_HERE / "rules.py").read_text(encoding="utf-8")
        prologue = (
            'if __name__ == "__main__":\n'
            f'    (lambda names: (exec(compile({hook!r}, "<grader>", "exec"), names),'
            f" names['install']({config!r})))({{'__name__': 'grader.rules'}})\n"
        )
        for path in scripts:
            path.write_text(prologue + text if path.name == SCRIPT else text)


def _copy_code(submission: Path, code: Path, model: Path) -> None:
    """Copy files, and link folders and what is large: the code is what is uploaded, not a link."""
    sources = {path.name: path for path in submission.iterdir() if path.name != "__pycache__"}
    if model.is_file():
        sources["birds_model.pt"] = model
    for name, source in sources.items():
        if source.is_file() and source.stat().st_size < LINKED_FROM:
            shutil.copyfile(source, code / name)
            (code / name).chmod(0o444 | source.stat().st_mode & 0o111)
        elif source.exists():
            try:
                (code / name).symlink_to(source.resolve(), source.is_dir())
            except OSError:  # Windows wants a privilege for it
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, code / name)
