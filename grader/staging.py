"""The surroundings of a run: the code beside the script, new folders, a bare environment."""

import os
import secrets
import shutil
import site
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import course
from course.files import UserError, describe_error

MODULES = ("solution", "classification")  # of the code: this project's, the 2024 edition's
NAMES = tuple(f"{module}.py" for module in MODULES)

# Seconds, except for memory. `--limit NAME=VALUE` changes one for a run.
LIMITS = {
    "import": 120.0,  # `import solution`, with torch from a cold disk
    "fast_train": 15 * 60.0,  # the assignment's own number
    "classify": 15 * 60.0,  # not stated in the assignment: taken to be the same
    # The interpreter's end, after that. The testing system waits longer for a thread that never
    # ends: until its own limit.
    "exit": 120.0,
    "train": 4 * 3600.0,  # the full training of --reproduce
    # GiB of memory that the child may allocate. The testing system's limit is not known: 8 is
    # several times what training MobileNetV2 takes, and leaves a 16 GiB laptop alive.
    "memory": 8.0,
}

SCRIPT = "run.py"  # the script's name in the 2024 edition
OFFERED = (SCRIPT, "run_tests.py")  # names under which a submission may import its helpers
LINKED_FROM = 64 * 2**20  # bytes: a larger file beside the code is linked, not copied

_HERE = Path(__file__).resolve().parent
# What is kept of this user's variables: how programs are found and speak, how many threads they
# have. All others, caches of weights and PYTHONPATH first, are this machine's own.
_KEPT = {"PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TERM", "VIRTUAL_ENV"}
_KEPT |= {"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS"}
_KEPT_PREFIXES = ("LC_", "LD_", "DYLD_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "CONDA_")
_ACCELERATORS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
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
    watch: Callable[..., None] | None = None  # called while it runs

    @property
    def module(self) -> str:
        """The name that the script imports it by."""
        return self.code.partition("/")[0].removesuffix(".py")

    @classmethod
    def at(cls, folder: Path, model: Path | None = None, **options: Any) -> "Submission":
        """Return the submission in a folder. Raises UserError if there is none."""
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link stays one
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise UserError(f"{folder} cannot be read: no permission; change its mode or owner")
        codes = [name for module in MODULES for name in (f"{module}/__init__.py", f"{module}.py")]
        code = next((name for name in codes if (folder / name).is_file()), None)
        if code is None:
            raise UserError(
                f"no {' or '.join(NAMES)} in {folder}: name its folder with --submission"
            )
        return cls(folder, model or folder / "birds_model.pt", code, **options)


class Stage:
    """The folders of one run, all below `base`, and what its process is started with."""

    def __init__(self, base: Path, submission: Submission, data: Path, boxed: bool) -> None:
        self.base, self.submission, self.data, self.boxed = base, submission, data, boxed
        self.code = base / "code"  # the code, the model and the script, as they are there
        self.current = base / "current"  # the current folder: empty, read-only, not the code's
        self.home = base / "home"
        self.temporary = base / "temporary"  # where libraries may write
        self.output = base / "output"  # where the script writes
        self.channel = base / "channel"  # for the hook's reports: a pipe, or a file on Windows
        users = [site.getuserbase()] if site.ENABLE_USER_SITE else []
        self.python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *users]

    def with_original_path(self, text: str) -> str:
        """Return a text that names the user's folder where the run has a copy."""
        return text.replace(str(self.code), str(self.submission.folder))

    def make_removable(self) -> None:
        """Let what is read-only be removed."""
        for folder in (self.code, self.current, self.home):
            if folder.is_dir():
                folder.chmod(stat.S_IRWXU)

    def command(self, task: str) -> list[str]:
        """Return the script's command line."""
        words = [str(self.code / SCRIPT), task, str(self.data), str(self.output)]
        return [sys.executable, "-X", "utf8", *words]

    def environment(self, keep_caches: bool) -> dict[str, str]:
        """Return the variables of the submission's process; `keep_caches`: with the user's own."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if keep_caches or name.upper() in _KEPT or name.upper().startswith(_KEPT_PREFIXES)
        }
        temporary = ("TMPDIR",) if os.name == "posix" else ("TEMP", "TMP")
        names = dict.fromkeys(temporary, str(self.temporary)) | {"CHECKER": "1"}
        if not keep_caches:
            names["HOME" if os.name == "posix" else "USERPROFILE"] = str(self.home)
            if site.ENABLE_USER_SITE and Path(site.getuserbase()).is_dir():
                names["PYTHONUSERBASE"] = site.getuserbase()
        if not self.boxed:  # the box has no device
            names |= dict.fromkeys(_ACCELERATORS, "")
        return kept | names


def prepare(stage: Stage) -> str:
    """Make the folders of a run; returns the word that the hook's reports begin with.

    Raises UserError if the submission cannot be read.
    """
    token, submission = secrets.token_hex(8), stage.submission
    for folder in (stage.code, stage.current, stage.temporary, stage.output, stage.home):
        folder.mkdir()
    if os.name == "posix":
        os.mkfifo(stage.channel)
    else:
        stage.channel.touch()
    config = {
        **{"code": str(stage.code), "submission": str(submission.folder), "base": str(stage.base)},
        **{"data": str(stage.data), "output": str(stage.output)},
        **{"scratch": [str(stage.temporary), "/dev/shm"], "known": [*_SYSTEM, *stage.python]},
        **{"channel": str(stage.channel), "token": token},
        "limit_files": os.name == "posix" and not stage.boxed,
    }
    try:
        _copy_code(submission.folder, stage.code, submission.model)
    except OSError as error:
        raise UserError(describe_error(error)) from None
    _add_script(stage.code, submission.module, config)
    for folder in (stage.code, stage.current, stage.home):
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return token


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
            _link(source.resolve(), code / name)


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source, source.is_dir())
    except OSError:  # Windows wants a privilege for it
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, link)


def _add_script(code: Path, module: str, config: Mapping[str, Any]) -> None:
    """Lay the script beside the code; as `run.py` it begins with the hook."""
    text = (
        (Path(course.__file__).with_name("script.py"))
        .read_text(encoding="utf-8")
        .replace("solution", module)
    )
    offered = [name for name in OFFERED if name == SCRIPT or not (code / name).exists()]
    config = {**config, "scripts": [str(code / name) for name in offered]}
    (code / SCRIPT).unlink(missing_ok=True)  # the user's copy of it
    for name in offered:
        (code / name).write_text(_prologue(config) + text if name == SCRIPT else text)


def _prologue(config: Mapping[str, Any]) -> str:
    """Return lines that install the hook and leave no name and no module behind."""
    hook = (_HERE / "rules.py").read_text(encoding="utf-8")
    return (
        'if __name__ == "__main__":\n'
        f'    (lambda names: (exec(compile({hook!r}, "<grader>", "exec"), names),'
        f" names['install']({config!r})))({{'__name__': 'grader.rules'}})\n"
    )
