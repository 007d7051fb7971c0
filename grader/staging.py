"""The surroundings of a run: the code beside the script, new folders, a bare environment."""

import os
import secrets
import shutil
import site
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import course
from course.files import UserError, describe_error

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
class Stage:
    """The folders of one run, all below `base`, and what its process is started with."""

    base: Path
    submission: Path
    data: Path
    boxed: bool

    @property
    def code(self) -> Path:
        """The code, the model and the course's script: what is uploaded, as it is there."""
        return self.base / "code"

    @property
    def current(self) -> Path:
        """The current folder: empty, read-only, and not the code's."""
        return self.base / "current"

    @property
    def temporary(self) -> Path:
        """Where libraries may write."""
        return self.base / "temporary"

    @property
    def output(self) -> Path:
        """Where the script writes."""
        return self.base / "output"

    @property
    def channel(self) -> Path:
        """Where the hook reports: a named pipe, or a file on Windows."""
        return self.base / "channel"

    @property
    def python(self) -> list[str]:
        """Folders of this Python and its packages."""
        base = [site.getuserbase()] if site.ENABLE_USER_SITE else []
        return [sys.prefix, sys.base_prefix, sys.exec_prefix, *base]

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
            home = str(self.base / "home")
            names |= {"HOME" if os.name == "posix" else "USERPROFILE": home}
            if site.ENABLE_USER_SITE and Path(site.getuserbase()).is_dir():
                names["PYTHONUSERBASE"] = site.getuserbase()
        if not self.boxed:  # the box has no device
            names |= dict.fromkeys(_ACCELERATORS, "")
        return kept | names


def prepare(
    base: Path, submission: Path, code: str, model: Path, data: Path, boxed: bool
) -> tuple[Stage, str]:
    """Make the folders of a run; returns them and the word that the hook's reports begin with.

    Raises UserError if the submission cannot be read.
    """
    stage, token = Stage(base, submission, data, boxed), secrets.token_hex(8)
    for folder in (stage.code, stage.current, stage.temporary, stage.output, base / "home"):
        folder.mkdir()
    if os.name == "posix":
        os.mkfifo(stage.channel)
    else:
        stage.channel.touch()
    module = code.partition("/")[0].removesuffix(".py")
    config = {
        **{"code": str(stage.code), "submission": str(submission), "base": str(base)},
        **{"data": str(data), "output": str(stage.output)},
        **{"current": str(stage.current), "scratch": [str(stage.temporary), "/dev/shm"]},
        **{"known": [*_SYSTEM, *stage.python], "channel": str(stage.channel), "token": token},
        **{"limit_files": os.name == "posix" and not boxed},
    }
    try:
        _copy_code(submission, stage.code, model)
    except OSError as error:
        raise UserError(describe_error(error)) from None
    _add_script(stage.code, module, config)
    for folder in (stage.code, stage.current, base / "home"):
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IRGRP | stat.S_IXGRP)
    return stage, token


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
