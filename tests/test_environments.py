"""Each command in each broken environment: it works, or says in one line why it does not.

A command is a row of COMMANDS. PROBE is a small one, which shows what `course.cli` does for all.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


@dataclass(frozen=True)
class Command:
    """Words after `python`, with {photos} and {out}; the file that is there when it went well."""

    words: tuple[str, ...]
    result: str
    status: int = 0


COMMANDS = {
    "prepare": Command(
        ("public_data/prepare.py", "{photos}", "--out", "{out}/data"), "data/species.csv"
    ),
    "check": Command(
        ("public_data/prepare.py", "--check", "{photos}", "--json", "{out}/found.json"),
        "found.json",
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two class folders of six photos."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / ("Auk", "Owl")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        blots = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        blots.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def words_of(command, photos, out, root=ROOT) -> list[str]:
    script, *words = command.words
    return [str(root / script), *(word.format(photos=photos, out=out) for word in words)]


def launch(
    words, *, python=(), before=(), first=":", redirect="", stdout=subprocess.PIPE, **environment
):
    """Start Python with these words in a shell, which redirects its streams."""
    shell = ["sh", "-c", f'{first}; exec "$@" {redirect}', "sh"]
    return subprocess.Popen(
        [*before, *shell, sys.executable, *python, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


def finish(process) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, (out or b"").decode(errors="replace"), error.decode(errors="replace")


def probe(out, *, root=ROOT, seconds=0.0, **how):
    script = out.parent / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    return launch([str(script), str(root), str(out / "result"), str(seconds)], **how)


def assert_nothing_left(out) -> None:
    assert [path.name for path in out.rglob("*") if path.name.startswith((".", "probe-"))] == []


# --- What a command works in ----------------------------------------------------------------------

WORKABLE = {
    "as usual": {},
    "no stdout": {"redirect": ">&-"},
    "no streams": {"redirect": "<&- >&- 2>&-"},
    "stdout on a full device": {"redirect": ">/dev/full"},
    "both on a full device": {"redirect": ">/dev/full 2>&1"},
    "Latin letters only": {"PYTHONIOENCODING": "ascii:strict"},
    "a Russian Windows": {"PYTHONIOENCODING": "cp1251:strict"},
    "a dumb terminal of 40 columns": {"TERM": "dumb", "COLUMNS": "40", "NO_COLOR": "1"},
    "no terminal": {"TERM": "", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "python -P": {"python": ["-P"]} if sys.version_info >= (3, 11) else {"PYTHONSAFEPATH": "1"},
    "python -I": {"python": ["-I"]},
    "a proxy that leads nowhere": {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": ""},
    "no home": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"},
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
def test_who_has_read_enough_ends_no_work(out):
    read, write = os.pipe()
    os.close(read)
    process = probe(out, stdout=write)
    os.close(write)
    status, _, error = finish(process)
    assert (status, "Traceback" in error) == (0, False)
    assert (out / "result").is_file()


@needs_shell
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_in_all_that_is_odd_at_once(name, photos, out, tmp_path):
    """A symlinked checkout, one core, isolated Python, no streams, no home, files from 1970."""
    command = COMMANDS[name]
    (tmp_path / "checkout").symlink_to(ROOT)
    for path in photos.rglob("*.jpg"):
        os.utime(path, (0, 0))
    one_core = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    words = words_of(command, photos, out, tmp_path / "checkout")
    how = WORKABLE["no home"] | WORKABLE["no streams"] | WORKABLE["a proxy that leads nowhere"]
    process = launch(words, python=["-I"], before=one_core, **how)
    assert finish(process)[0] == command.status
    assert (out / command.result).is_file()
    assert_nothing_left(out)


# --- Disks and permissions ------------------------------------------------------------------------


def boxed(*options):
    """The words of bubblewrap for a system without privileges; skips the test without it."""
    words = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--dev-bind", "/", "/"]
    words += [*options, "--"]
    try:
        works = subprocess.run([*words, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip("no bubblewrap that may be used")
    return words


def environments(out, photos) -> dict[str, tuple[list[str], str]]:
    return {
        "a full disk": (["--size", "8192", "--tmpfs", str(out)], "the disk is full"),
        "a read-only folder": (["--ro-bind", str(out), str(out)], "the file system is read-only"),
        "no permission to write": (["--chmod", "0555", str(out)], "no permission to write it"),
        "no permission to read": (["--perms", "0000", "--tmpfs", str(photos)], "no permission to"),
    }


@pytest.mark.parametrize("name", [*COMMANDS, "probe"])
@pytest.mark.parametrize("kind", environments(Path("x"), Path("x")))
def test_a_broken_disk_is_one_line(name, kind, photos, out):
    options, cause = environments(out, photos)[kind]
    before = boxed("--cap-drop", "ALL", *options)
    first = f"cat /dev/zero 2>/dev/null >{out}/filler" if kind == "a full disk" else ":"
    if name == "probe":
        if kind == "no permission to read":
            pytest.skip("it reads nothing")
        process = probe(out, before=before, first=first)
    else:
        process = launch(words_of(COMMANDS[name], photos, out), before=before, first=first)
    status, _, error = finish(process)
    lines = [line for line in error.splitlines() if not line.startswith(("skipped: ", "Zaun"))]
    assert status == 1
    assert len(lines) == 1, error
    assert lines[0].startswith("Error: ")
    assert cause in lines[0]
    assert str(photos if "read" in kind.split()[-1:] else out) in lines[0]
    assert list(out.iterdir()) == []


def test_nothing_but_the_target_needs_to_be_writable(photos, out):
    before = boxed("--remount-ro", "/", "--bind", str(out), str(out), "--tmpfs", "/dev/shm")
    command = COMMANDS["prepare"]
    status, _, error = finish(launch(words_of(command, photos, out), before=before))
    assert (status, error) == (0, "")


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
    ],
)
def test_a_signal_at_any_moment_leaves_nothing(name, number, photos, out):
    if name == "probe":
        process = probe(out, seconds=60)
    else:
        process = launch(words_of(COMMANDS[name], photos, out))
    wait_for_handlers(process)
    time.sleep(random.uniform(0, 1.5))  # any moment will do
    process.send_signal(number)
    status, _, error = finish(process)
    assert_nothing_left(out)
    if status == 128 + number:
        lines = [line for line in error.splitlines() if not line.startswith("Zaun")]
        assert len(lines) == 1, error
        assert lines[0].startswith("Interrupted: ")
        assert list(out.iterdir()) == []
    else:  # it was done already
        assert name != "probe"
        assert status == COMMANDS[name].status
        assert (out / COMMANDS[name].result).is_file()
