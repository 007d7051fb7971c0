"""Each command in each broken environment: it works, or says in one line why it does not.

A command is a row of COMMANDS. PROBE is a small one, which shows what `course.cli` does for all;
EACH calls several in one process, as their entry point does.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import pytest

from course.cli import one_line
from public_data.prepare import main as prepare
from tests.commands import call
from tests.conftest import draw_photo

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from course.cli import run
from course.files import atomic_write, temporary_folder

def main():
    out = Path(sys.argv[2])
    print("Дрозд \\u2192 \\udcff" * 2000)
    print("Zaunkönig", file=sys.stderr)
    with temporary_folder("probe-", out.parent), atomic_write(out) as temporary:
        temporary.write_bytes(bytes(2**20))
        print("working", flush=True)
        time.sleep(float(sys.argv[3]))

run(main)
"""


EACH = """
import importlib, io, json, sys
from contextlib import redirect_stderr
sys.path.insert(0, sys.argv[1])
from course.cli import status_of

told = {}
for name, (module, words) in json.loads(sys.argv[2]).items():
    with redirect_stderr(io.StringIO()) as error:
        status = status_of(lambda: importlib.import_module(module).main(words))
    told[name] = status, error.getvalue()
print(json.dumps(told))
"""


class Command(NamedTuple):
    """Words after `python`, from the checkout; {given} holds photos and tests, {out} the results.

    `result` is there when it went well, or nothing of it; `reads` is the folder that it cannot do
    without; `refused` is the exit status after an error that a user sees.
    """

    words: str
    result: str
    reads: str = "photos"
    refused: int = 1

    def at(self, root: Path, **places: Path) -> list[str]:
        script, *words = self.words.format(root=root, **places).split()
        return [str(root / script), *words]


TINY = "--set epochs=1 --set input_size=64 --set first_size=64 --set unfrozen_blocks=1"
COMMANDS = {
    "prepare": Command("public_data/prepare.py {given}/photos --out {out}/data", "data"),
    "check": Command(
        "public_data/prepare.py --check {given}/photos --json {out}/found.json", "found.json"
    ),
    "predict": Command("predict.py {given}/photos/Auk --csv {out}/table.csv", "table.csv"),
    "train_full": Command(
        "train_full.py {given}/tests --init {root}/birds_model.pt --out {out}/model.pt " + TINY,
        "model.pt",
        "tests",
    ),
    "run_tests": Command(
        "run_tests.py {given}/tests --submission {root}/tests/submissions/constant_class "
        "--model {root}/birds_model.pt --json {out}/report.json",
        "report.json",
        "tests",
        refused=2,
    ),
    "coursework": Command(
        "coursework/__main__.py case --data {given}/photos --out {out}/case --epochs 1", "case"
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """photos: two class folders of six; tests: the same photos in the course's layout."""
    folder = tmp_path_factory.mktemp("given")
    for number in range(12):
        path = folder / "photos" / ("Auk", "Owl")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_photo(path, number % 2, seed=number)
    assert call(prepare, folder / "photos", "--out", folder / "tests") == 0
    return folder


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def launch(
    words, python=(), before=(), first=":", redirect="", stdout=PIPE, cwd=ROOT, **environment
):
    """Start Python with these words in a shell, which redirects its streams."""
    shell = ["sh", "-c", f'{first}; exec "$@" {redirect}', "sh"]
    return subprocess.Popen(
        [*before, *shell, sys.executable, *python, *words],
        stdout=stdout,
        stderr=PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


def finish(process) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=1200)
    return process.returncode, (out or b"").decode(errors="replace"), error.decode(errors="replace")


def probe(out, seconds=0.0, **how):
    script = out.parent / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    return launch([str(script), str(ROOT), str(out / "result"), str(seconds)], **how)


def assert_nothing_left(out) -> None:
    assert [path.name for path in out.rglob("*") if path.name.startswith((".", "probe-"))] == []


# --- What a command works in ----------------------------------------------------------------------

WORKABLE = {
    "as usual": {},
    "no streams": {"redirect": "<&- >&- 2>&-"},
    "stdout on a full device": {"redirect": ">/dev/full"},
    "both on a full device": {"redirect": ">/dev/full 2>&1"},
    "a Russian Windows": {"PYTHONIOENCODING": "cp1251:strict"},
    "no terminal": {"TERM": "", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "python -I": {"python": ["-I"]},
}
needs_shell = pytest.mark.skipif(os.name != "posix", reason="redirections of a POSIX shell")


@needs_shell
@pytest.mark.parametrize("name", WORKABLE)
def test_the_entry_point_works_wherever_it_can(name, out):
    status, _, error = finish(probe(out, **WORKABLE[name]))
    assert status == 0, error
    assert (out / "result").stat().st_size == 2**20
    assert "Traceback" not in error
    assert ("stdout cannot be written" in error) == (name == "stdout on a full device")
    assert_nothing_left(out)


@needs_shell
def test_an_empty_argument_is_no_folder(out):
    """It stands for a variable of the shell that is not set, and not for this folder."""
    (out.parent / "probe.py").write_text(PROBE, encoding="utf-8")
    status, _, error = finish(launch([str(out.parent / "probe.py"), str(ROOT), ""], cwd=out))
    assert (status, error) == (2, "Error: an argument is empty; is a shell variable not set?\n")
    assert list(out.iterdir()) == []


@needs_shell
def test_a_current_folder_that_is_gone_is_one_line(out):
    """torch would say that it cannot load a library."""
    status, _, error = finish(probe(out, first="mkdir gone; cd gone; rmdir ../gone", cwd=out))
    assert status == 2
    assert error == "Error: the current folder is gone; cd to one that exists\n"
    assert list(out.iterdir()) == []


@needs_shell
def test_who_has_read_enough_ends_no_work(out):
    read, write = os.pipe()
    os.close(read)
    process = probe(out, stdout=write)
    os.close(write)
    status, _, error = finish(process)
    assert (status, "Traceback" in error) == (0, False)
    assert (out / "result").is_file()


@needs_shell
@pytest.mark.parametrize("name", ["prepare", "predict", "run_tests"])
def test_a_command_works_in_all_that_is_odd_at_once(name, given, out, tmp_path):
    """A symlinked checkout, one core, isolated Python, no streams, no home, files from 1970."""
    command = COMMANDS[name]
    (tmp_path / "checkout").symlink_to(ROOT)
    for path in given.rglob("*.jpg"):
        os.utime(path, (0, 0))
    before = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    words = command.at(tmp_path / "checkout", given=given, out=out)
    how = {"HOME": "/nonexistent", "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": ""}
    process = launch(words, python=["-I"], before=before, redirect="<&- >&- 2>&-", **how)
    assert finish(process)[0] == 0
    assert (out / command.result).exists()
    assert_nothing_left(out)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("can't start new thread"), "Error: not enough memory or threads; close"),
        (MemoryError(), "Error: not enough memory or threads; close other programs"),
        (UnicodeEncodeError("ascii", "ü", 0, 1, ""), "Error: file names are ascii here"),
        (OSError(errno.ESTALE, "stale", "a"), "Error: a cannot be read: stale; check its path"),
        (OSError(errno.ENOSPC, "", "a", None, "b"), "Error: b cannot be written: the disk is full"),
        (OSError(errno.EACCES, "", "a", None, "b"), "Error: a cannot be read: no permission to"),
        (OSError(errno.ENOENT, "", "a\x1b[2J"), "Error: a\\x1b[2J cannot be read: no such file"),
        (ModuleNotFoundError("no", name="timm"), "Error: timm is not installed; pip install"),
        (ValueError("two\nlines"), None),
    ],
)
def test_what_goes_wrong_has_a_remedy_or_is_a_bug(error, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = one_line(error)
    assert found is None if line is None else found.startswith(line)


# --- Disks and permissions ------------------------------------------------------------------------


def boxed(*options):
    """The words of bubblewrap for a system without privileges, none where it may not be used."""
    words = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--dev-bind", "/", "/"]
    words += [*options, "--"]
    try:
        works = subprocess.run([*words, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    return words if works else []


needs_box = pytest.mark.skipif(not boxed(), reason="no bubblewrap that may be used")
BROKEN = {  # options of bubblewrap, and the cause that is named
    "a full disk": ("--size 8192 --tmpfs {out}", "the disk is full"),
    "a read-only folder": ("--ro-bind {out} {out}", "the file system is read-only"),
    "no permission to write": ("--chmod 0555 {out}", "no permission to write it"),
    "no permission to read": (
        "--perms 0000 --tmpfs {given}/photos --perms 0000 --tmpfs {given}/tests",
        "no permission to read it",
    ),
}


def assert_one_line(error, cause, place) -> None:
    lines = [line for line in error.splitlines() if not line.startswith(("skipped: ", "Zaun"))]
    assert len(lines) == 1, error
    assert lines[0].startswith("Error: ")
    assert cause in lines[0]
    assert str(place) in lines[0]


def in_a_broken(kind, given, out) -> dict:
    options = [word.format(out=out, given=given) for word in BROKEN[kind][0].split()]
    full = f"cat /dev/zero 2>/dev/null >{out}/filler" if kind == "a full disk" else ":"
    return {"before": boxed("--cap-drop", "ALL", *options), "first": full}


@needs_box
@pytest.mark.parametrize("kind", ["a full disk", "no permission to read"])
def test_a_broken_disk_is_one_line_of_every_command(kind, given, out):
    calls, reading = {}, kind == "no permission to read"
    for name, command in COMMANDS.items():
        script, *words = command.at(Path(), given=given, out=out)
        calls[name] = script.removesuffix(".py").replace("/", "."), words
    if reading:
        del calls["coursework"]  # which takes as long as all others
    words = ["-c", EACH, str(ROOT), json.dumps(calls)]
    status, told, error = finish(launch(words, **in_a_broken(kind, given, out)))
    assert status == 0, error
    for name, (status, error) in json.loads(told.splitlines()[-1]).items():
        assert status == COMMANDS[name].refused, name
        assert_one_line(error, BROKEN[kind][1], given / COMMANDS[name].reads if reading else out)
    assert list(out.iterdir()) == []


@needs_box
@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "no permission to read"])
def test_the_entry_point_tells_a_broken_disk_in_one_line(kind, given, out):
    status, _, error = finish(probe(out, **in_a_broken(kind, given, out)))
    assert status == 1
    assert_one_line(error, BROKEN[kind][1], out)
    assert list(out.iterdir()) == []


@needs_box
def test_a_umask_that_denies_everything_denies_the_command_nothing(out):
    status, _, error = finish(probe(out, before=boxed("--cap-drop", "ALL"), first="umask 777"))
    assert (status, (out / "result").stat().st_size) == (0, 2**20), error
    assert_nothing_left(out)


# --- Signals --------------------------------------------------------------------------------------


def wait_for_handlers(process) -> None:
    """Wait until the process catches SIGTERM, which Python by itself does not."""
    file, bit = Path(f"/proc/{process.pid}/status"), 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        caught = [row for row in file.read_text().splitlines() if row.startswith("SigCgt")]
        if caught and int(caught[0].split()[1], 16) & bit:
            return
        time.sleep(0.001)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("probe", number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        *((name, signal.SIGINT) for name in ("prepare", "run_tests")),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing_or_the_whole(name, number, given, out):
    if name == "probe":
        process = probe(out, seconds=60)
    else:
        process = launch(COMMANDS[name].at(ROOT, given=given, out=out))
    wait_for_handlers(process)
    time.sleep(random.uniform(0, 1.5))  # any moment will do
    process.send_signal(number)
    status, _, error = finish(process)
    assert_nothing_left(out)
    there = name != "probe" and (out / COMMANDS[name].result).exists()
    if status == 128 + number:
        lines = [line for line in error.splitlines() if not line.startswith("Zaun")]
        assert len(lines) == 1, error
        assert lines[0].startswith("Interrupted: ")
        assert there or list(out.iterdir()) == []
    else:  # it was done already
        assert status == 0, error
        assert there


SLOW_STEP = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from course import cli, files

@files.uninterrupted
def step(out):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    out.write_text("whole")

def main():
    with files.temporary_folder("probe-", Path(sys.argv[2], "new/folder")) as folder:
        step(folder / "file")
        (folder / "file").rename(folder.parent.parent / "file")
        time.sleep(60)

cli.run(main)
"""


@needs_shell
def test_a_signal_waits_for_a_step_that_is_to_be_whole(out, tmp_path):
    """And what was made for the temporary folder is gone, where nothing else is in it."""
    (tmp_path / "step.py").write_text(SLOW_STEP)
    status, _, error = finish(launch([str(tmp_path / "step.py"), str(ROOT), str(out)]))
    assert (status, error.count("\n")) == (128 + signal.SIGTERM, 1), error
    assert [path.relative_to(out).as_posix() for path in out.rglob("*")] == ["new", "new/file"]
