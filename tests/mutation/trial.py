"""Copies of the checkout, and the tests run in them, each time in a new process."""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.fault import Fault

ROOT = Path(__file__).resolve().parents[2]
PASSED, FAILED = 0, 1  # pytest's exit statuses
# Seconds for one test, which hangs because of a fault if it takes longer: that is noticed too.
OPTIONS = ["-x", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=120"]
OPTIONS += ["-o", "faulthandler_exit_on_timeout=true"]
OPTIONS += ["-o", "addopts=-q -m 'not slow'"]  # one after the other: few tests, many trials
# Slow to import, and not the project's: each process that runs tests begins as a copy of one that
# has imported them.
PRELOAD = ["numpy", "torch", "torchvision.transforms.v2", "torchvision.models", "timm.data.mixup"]
PRELOAD += ["timm.utils", "sklearn.model_selection", "pytest", "PIL.Image"]


def checkout(folder: Path) -> Path:
    """A copy of the files that git knows, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _run_pytest(root: Path, paths: Sequence[str], output: Path) -> None:
    """What pytest prints goes to a file; its status is that of this process."""
    import pytest

    os.setpgrp()  # what the tests start is ended with it
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(root)
    sys.path[:] = [str(root), *(path for path in sys.path if Path(path or ROOT).resolve() != ROOT)]
    sys.dont_write_bytecode = True  # a fault of the same length may come within the same second
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.exit(int(pytest.main([*OPTIONS, *paths])))


def status_of(root: Path, paths: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status, and what it printed."""
    context, output = multiprocessing.get_context("forkserver"), root / "pytest.out"
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=_run_pytest, args=(root, paths, output))
    process.start()
    process.join()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what a test that was ended has left
    return process.exitcode, output.read_text(
        encoding="utf-8", errors="replace"
    ) if output.exists() else ""


def verdict(fault: Fault, root: Path) -> tuple[str, str]:
    """What the tests do about a fault: "killed", "alive" or "unknown", and which test or why."""
    with fault.within(root):
        status, said = status_of(root, fault.paths)
    if status == PASSED:
        return "alive", ""
    if status == FAILED or status < 0:  # or died of a signal
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        return "killed", failed[0] if failed else "a test that hangs or ends the process"
    return "unknown", f"pytest says {status}: {' '.join(said.split()[-30:])}"
