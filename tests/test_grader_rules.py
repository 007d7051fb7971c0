"""The rules, call by call: the hook is asked directly, and once for real in a child process."""

import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from grader.rules import ACCELERATOR, DIRECT, FILES, LIBRARY_INTERNAL, NETWORK, VIA_LIBRARY, Rules
from grader.sandbox import sandboxed, why_no_sandbox

HERE = str(Path(__file__).resolve().parent)
READ, WRITE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT
THERE = os.__file__  # a file that is there, outside the submission


@pytest.fixture
def told():
    return []


@pytest.fixture
def base(tmp_path):
    for name in ("temporary", "code"):
        (tmp_path / name).mkdir()
    return str(tmp_path)


@pytest.fixture
def watched(told, base, monkeypatch):
    monkeypatch.setattr(Rules, "send", lambda rules, event, **facts: told.append((event, facts)))
    config = {name: f"{base}/{name}" for name in ("code", "output", "data")}
    config |= {"base": base, "submission": HERE, "scripts": [], "known": ["/usr", *sys.path]}
    config |= {"scratch": [f"{base}/temporary", "/dev/shm"], "limit_files": False}
    watched = Rules({**config, "token": "", "channel": ""})
    watched.phase = "classify"
    return watched


@pytest.fixture
def watch(watched):
    return watched.watch


@pytest.fixture
def sockets():
    with socket.socket() as internet, socket.socket(socket.AF_INET6) as six:
        yield {"internet": internet, "six": six}


def refusals(told):
    return [facts for event, facts in told if event == "refusal"]


FORBIDDEN = [
    (FILES, "open", ("/etc/a.txt", "w", WRITE)),
    (FILES, "open", (os.fsencode(THERE), "a", os.O_WRONLY | os.O_APPEND)),
    (FILES, "os.mkdir", ("/etc/folder", 511, -1)),
    (FILES, "os.rename", ("/etc/a", "/etc/b", -1, -1)),
    (FILES, "os.remove", ("/etc/a", -1)),
    (FILES, "open", ("/etc/a.txt", None, os.O_RDONLY | os.O_CREAT)),
    (FILES, "os.chmod", (THERE, 0o777, -1)),
    (FILES, "os.link", ("/etc/b", "/etc/a", -1, -1)),
    (FILES, "os.truncate", (THERE, 0)),
    (FILES, "open", ("/dev/shm/../../etc/a.pt", "w", WRITE)),
    (FILES, "open", ("/proc/self/root/etc/a.txt", "w", WRITE)),
    (NETWORK, "socket.getaddrinfo", ("example.org", 80, 0, 0, 0)),
    (NETWORK, "socket.getnameinfo", (("192.0.2.1", 80),)),
    (ACCELERATOR, "open", ("/dev/nvidia0", "r", READ)),
    (ACCELERATOR, "ctypes.dlopen", ("libcuda.so.1",)),
]
ALLOWED = [
    ("open", ("/d/a.txt", "r", READ)),
    ("open", (os.devnull, "w", WRITE)),
    ("socket.gethostbyaddr", (socket.gethostname(),)),  # as socket.getfqdn does
    ("open", (5, "w", WRITE)),
    ("os.mkdir", (HERE, 511, -1)),  # as os.makedirs(exist_ok=True) does
    ("os.truncate", (7, 100)),
    # What is not there: the system says so itself, and whoever expects it catches its error.
    ("open", ("/no/such/folder/a.txt", "w", WRITE)),
    ("open", ("/etc/no_such_file", "r+", os.O_RDWR)),
    ("os.remove", ("/no/such/file", -1)),
    ("os.utime", ("/etc/no_such_file", None, None, -1)),
    ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
    ("ctypes.dlopen", ("libcudart.so.13",)),  # what torch itself loads
    ("subprocess.Popen", ("/sbin/ldconfig", ["/sbin/ldconfig", "-p"], None, None)),
    ("import", ("multiprocessing.pool", None, None, None, None)),
]
WARNED = [
    ("another program (wget)", "subprocess.Popen", (b"wget", ["wget", "-q"], None, None)),
    ("another program (curl)", "os.system", (b"curl -O",)),
    ("another program (/bin/true)", "os.spawn", (0, "/bin/true", ["true"], None)),
    ("worker processes", "os.fork", ()),
    ("worker processes", "import", ("multiprocessing.popen_spawn_posix", *[None] * 4)),
]


@pytest.mark.parametrize(("rule", "event", "args"), FORBIDDEN)
def test_forbidden_calls_raise_and_are_reported(watch, told, rule, event, args):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - of which kind: below
        watch(event, args)
    [facts] = refusals(told)
    assert caught.value._refusal == facts
    assert (facts["phase"], facts["rule"], facts["kind"]) == ("classify", rule, DIRECT)
    assert facts["call"].startswith(f"{event}(")
    assert facts["where"].startswith("test_grader_rules.py:")
    assert facts["breach"] == (rule != NETWORK)


def test_a_new_database_is_refused_in_the_words_of_sqlite(watch, told):
    for name in (":memory:", THERE):  # SQLite itself falls back to reading what is there
        watch("sqlite3.connect", (name,))
    with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
        watch("sqlite3.connect", ("file:/etc/birds.db?mode=rwc",))
    assert refusals(told) == [caught.value._refusal]
    assert caught.value._refusal["rule"] == FILES


@pytest.mark.parametrize(("event", "args"), ALLOWED)
def test_harmless_calls_pass(watch, told, event, args):
    watch(event, args)
    assert told == []


@pytest.mark.parametrize(("text", "event", "args"), WARNED)
def test_programs_and_workers_are_warned_of_once(watch, told, text, event, args):
    watch(event, args)
    watch(event, args)
    [(kind, facts)] = told
    assert kind == "warnings"
    assert text in facts["text"]


def test_connections_beyond_this_machine_are_forbidden(watch, told, sockets):
    for address in ("127.0.0.1", "127.1.2.3", "::ffff:127.0.0.1", "0.0.0.0", b"localhost"):
        watch("socket.connect", (sockets["internet"], (address, 80)))
    watch("socket.connect", (sockets["six"], ("::1", 80, 0, 0)))
    assert told == []
    for name, address in (("internet", ("192.0.2.1", 80)), ("six", ("2001:db8::1", 80, 0, 0))):
        for event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            with pytest.raises(OSError, match="unreachable"):
                watch(event, (sockets[name], address))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no local sockets here")
def test_sockets_of_the_run_are_no_network_those_of_the_host_are_not_there(watch, told, base):
    with socket.socket(socket.AF_UNIX) as local:
        watch("socket.connect", (local, f"{base}/temporary/listener-1"))
        watch("socket.connect", (local, "\0abstract"))
        assert told == []
        with pytest.raises(FileNotFoundError):
            watch("socket.connect", (local, "/run/docker.sock"))


def test_nothing_is_forbidden_before_the_first_phase(watched, told):
    watched.phase = ""
    watched.watch("open", ("/etc/a.txt", "w", WRITE))
    assert told == []


def test_one_line_is_told_once_however_often_it_breaks_the_rule(watch, told):
    for _ in range(100):
        with pytest.raises(OSError, match="Read-only"):
            watch("os.remove", ("/etc/a", -1))
    assert len(told) == 1


def test_a_fault_of_the_hooks_own_is_no_error_of_the_submissions(watch, told):
    watch("open", ("\0", "w", "no flags"))
    [(kind, facts)] = told
    assert kind == "notes"
    assert "the hook failed at open" in facts["text"]


def test_a_file_that_only_this_machine_has_is_named(watch, told, tmp_path_factory):
    path = tmp_path_factory.mktemp("home") / "weights.pth"
    watch("open", (path, "r", READ))  # not there: the submission finds out by itself
    path.touch()
    watch("open", (path, "r", READ))
    watch("open", (path, "r", READ))
    watch("open", (Path(HERE, "submissions", "course.py"), "r", READ))
    [(kind, facts)] = told
    assert kind == "foreign"
    assert facts["text"].startswith(f"classify: reads {path} (test_grader_rules.py:")


# ---- who made the call ----

IMPORTED = "watch('open', (target, 'w', flags))"
CALLED = f"def work(path=None):\n    {IMPORTED}\n"
LOOKING = CALLED.replace("work", "_get_default_tempdir")
STANDARD = Path(os.__file__).parent


@pytest.fixture
def scratch(base):
    return f"{base}/temporary/probe"


@pytest.fixture
def library(watch, tmp_path, scratch):
    """Run code as the body of an installed library's module; returns its function, if any."""

    def load(code, target=scratch, file="site-packages/library.py"):
        file = tmp_path / file
        names = {"target": target, "watch": watch, "flags": WRITE, "__name__": file.stem}
        exec(compile(code, str(file), "exec"), names)
        return names.get("work") or names.get("_get_default_tempdir")

    return load


def call(work):
    """Call it from a line that holds no name of a file."""
    work()


def kinds(told):
    return [(facts["kind"], facts["breach"]) for facts in refusals(told)]


@pytest.mark.parametrize(
    ("code", "file", "target"),
    [
        (IMPORTED, "site-packages/library.py", "temporary/probe"),
        (CALLED, "site-packages/library.py", "temporary/probe"),
        (CALLED, STANDARD / "multiprocessing" / "heap.py", "/dev/shm/pym-1-x"),
        (LOOKING, STANDARD / "tempfile.py", "temporary/probe"),  # looks for a folder
    ],
)
def test_a_library_has_its_scratch(library, told, base, code, file, target):
    work = library(code, target=str(Path(base, target)), file=file)
    if work:
        call(work)
    assert refusals(told) == []


@pytest.mark.parametrize("target", ["/etc/fonts.json", "cache.json"])
def test_a_library_that_is_imported_is_refused_elsewhere_and_blamed(library, told, target):
    with pytest.raises(OSError, match="Read-only"):
        library(IMPORTED, target=target)
    [facts] = refusals(told)
    assert (facts["kind"], facts["through"]) == (LIBRARY_INTERNAL, ("library.<module>",))


def test_a_library_may_not_move_its_scratch_elsewhere(library, told, base):
    code = f"watch('os.rename', ({base!r} + '/temporary/x', target, -1, -1))"
    library(code)
    with pytest.raises(OSError, match="Read-only"):
        library(code, target="/etc/model.pt")
    assert kinds(told) == [(LIBRARY_INTERNAL, False)]


def test_what_the_submission_waits_for_is_refused_in_its_name(library, told):
    work = library(CALLED, target="/etc/log.txt")
    with pytest.raises(OSError, match="Read-only"):
        work()
    [facts] = refusals(told)
    assert (facts["kind"], facts["breach"]) == (VIA_LIBRARY, False)
    assert facts["where"].startswith("test_grader_rules.py:")


@pytest.mark.parametrize(
    ("kind", "given"), [(str, "folder/file"), (Path, "folder"), (os.fsencode, "folder")]
)
def test_under_a_name_that_the_submission_gave_it_breaks_the_rule(library, told, base, given, kind):
    """It would find the file again: under that name, or in a folder of that name."""
    Path(base, "temporary", "folder").mkdir()
    work = library(CALLED, target=f"{base}/temporary/folder/file")
    work(path=kind(f"{base}/temporary/{given}"))
    assert kinds(told) == [(VIA_LIBRARY, True)]


def test_under_a_name_that_the_submission_holds_it_breaks_the_rule(library, told, scratch):
    library(CALLED)()
    assert kinds(told) == [(VIA_LIBRARY, True)]


def in_thread(call, *arguments):
    """Call it in a thread that has no line of this file's."""
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def test_a_thread_of_a_librarys_own_acts_by_itself(library, told, scratch):
    """As torch.compile's do, which hand names of their own on."""
    in_thread(library(CALLED), scratch)
    assert refusals(told) == []
    code = CALLED.replace(IMPORTED, f"try:\n        {IMPORTED}\n    except OSError:\n        pass")
    in_thread(library(code, target="/etc/log.txt"))
    assert kinds(told) == [(LIBRARY_INTERNAL, False)]


def test_installed_packages_and_the_script_are_not_the_submissions_own_lines(watched, base):
    name = watched.line_name
    watched.config["scripts"] = [f"{base}/code/run.py"]
    assert name(f"{base}/code/solution.py") == "solution.py"
    assert name(str(Path(HERE, "solution.py"))) == "solution.py"
    assert name(f"{base}/code/.venv/site-packages/torch.py") is None
    assert name(f"{base}/code/run.py") is None
    assert name("/elsewhere/solution.py") is None


# ---- the box, and that the hook's errors are those of the box ----

TRIES = {
    "open": "open('/etc/birds.txt', 'w')",
    "mkdir": "os.mkdir('/etc/birds')",
    "look-up": "socket.getaddrinfo('birds.invalid', 80)",
    "connect": "socket.create_connection(('192.0.2.1', 80), 5)",
    "send": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 80))",
    "url": "urllib.request.urlopen('http://birds.invalid/')",
    "driver": "ctypes.CDLL('libcuda.so.1')",
}
ASK = """
import ctypes, json, os, socket, sys, urllib.request
from pathlib import Path

def error_of(attempt, *words):
    try:
        attempt(*words)
    except OSError as error:
        return f"{type(error).__name__} {error.errno} {getattr(error, 'reason', '')}"

tries, folders, writable = json.loads(sys.argv[1])
status = Path("/proc/self/status").read_text()
facts = {
    "network": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "processes": len(list(Path("/proc").glob("[0-9]*"))),
    "powers": int(status.split("CapEff:")[1].split()[0], 16),
    "sockets": os.listdir("/run"), "own session": os.getsid(0) != 0,
    "accelerators": [n for n in os.listdir("/dev") if n.startswith(("nvidia", "kfd", "dri"))],
    "shared memory": os.listdir("/dev/shm"),
    "writes": [error_of(Path(folder, "birds_sandbox_test.txt").touch) for folder in folders],
    "written": Path(writable, "a").write_text("a"),
} if writable else {}
if not writable:
    sys.path.insert(0, folders[0])
    from grader import rules
    names = dict.fromkeys(("code", "submission", "output", "data", "base"), "/nowhere")
    rules.install({**names, "scratch": ["/nowhere"], "known": [], "channel": "/no/such",
                   "token": "", "scripts": [], "limit_files": False})
    sys.audit("grader.phase", "classify")
facts["errors"] = {name: error_of(eval, code) for name, code in tries.items()}
print(json.dumps(facts))
"""
FOLDERS = ["/tmp", "/dev", str(Path.home()), HERE]


def ask(before, folders, writable):
    words = [*before, sys.executable, "-c", ASK, json.dumps([TRIES, folders, writable])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """What a process finds in the sandbox."""
    if why_no_sandbox():
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    folder = tmp_path_factory.mktemp("writable").resolve()
    facts = ask(sandboxed([], [folder]), FOLDERS, str(folder))
    return facts | {"there": (folder / "a").exists()}


def test_the_hook_gives_the_errors_that_the_box_gives(box):
    assert ask([], [str(Path(HERE).parent)], "")["errors"] == box["errors"]
    assert all("Error" in error or "gaierror" in error for error in box["errors"].values())


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("writes", [f"OSError {errno.EROFS} "] * len(FOLDERS)),
        ("there", True),  # what is written in a folder that is named
        ("network", ["lo"]),
        ("processes", 2),
        ("powers", 0),
        ("sockets", []),
        ("own session", True),
        ("accelerators", []),
        ("shared memory", []),
    ],
)
def test_the_sandbox_has_nothing_of_the_host_but_files_to_read(box, fact, value):
    assert box[fact] == value
