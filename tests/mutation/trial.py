"""Copies of the checkout, and the tests run in them, each time in a new process."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.mutation.faults import Fault

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


def copy_checkout(folder: Path) -> None:
    """Copy the files that git knows, as they are in the working tree."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _run_pytest(root: Path, arguments: Sequence[str], output: Path) -> None:
    """What pytest prints goes to a file; its status is that of this process."""
    import pytest

    os.setpgrp()  # what the tests start is ended with it
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(root)
    sys.path[:] = [str(root), *(path for path in sys.path if Path(path or ROOT).resolve() != ROOT)]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.exit(int(pytest.main([*OPTIONS, *arguments])))


def run_tests(faults: Sequence[Fault], broken: Fault | None = None) -> tuple[int, str]:
    """Run the tests of some faults in a copy of the checkout, with one of these faults or none.

    Returns pytest's exit status, and what it printed.
    """
    files, words = zip(*(fault.test.split("::") for fault in faults), strict=True)
    arguments = [*(f"tests/{file}" for file in sorted(set(files))), "-k", " or ".join(words)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        root, output = Path(folder, "checkout"), Path(folder, "output")
        copy_checkout(root)
        if broken:
            (root / broken.file).write_text(broken.broken(root), encoding="utf-8")
        process = context.Process(target=_run_pytest, args=(root, arguments, output))
        process.start()
        process.join()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a test that was ended has left
        return process.exitcode, output.read_text(encoding="utf-8", errors="replace")


def verdict(fault: Fault) -> tuple[str, str]:
    """What the tests do about a fault: "killed", "alive" or "unknown", and which test or why."""
    status, said = run_tests([fault], fault)
    if status == PASSED:
        return "alive", ""
    if status == FAILED or status < 0:  # or died of a signal
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        return "killed", failed[0] if failed else "a test that hangs or ends the process"
    return "unknown", f"pytest says {status}: {' '.join(said.split()[-30:])}"
