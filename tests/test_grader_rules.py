"""The rules, call by call: the hook is asked directly, and once for real in a child process."""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from grader import rules
from grader.rules import ACCELERATOR, FILES, NETWORK, RuleBroken, Rules
from grader.sandbox import sandboxed, why_no_sandbox

HERE = str(Path(__file__).resolve().parent)
READ, WRITE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(rules, "limit_file_size", lambda limit: None)
    return []


@pytest.fixture
def watch(told):
    watched = Rules(HERE, "/w/workers", told.append)
    watched.phase = "classify"
    return watched._watch


@pytest.fixture
def sockets():
    with socket.socket() as internet, socket.socket(socket.AF_INET6) as six:
        yield {"internet": internet, "six": six}


FORBIDDEN = [
    (FILES, "open", ("/d/a.txt", "w", WRITE)),
    (FILES, "open", (b"/d/a.txt", "a", os.O_WRONLY | os.O_APPEND)),
    (FILES, "open", (Path("/d/a.txt"), None, os.O_RDWR)),
    (FILES, "os.mkdir", ("/no/such/folder", 511, -1)),
    (FILES, "os.rename", ("/d/a", "/d/b", -1, -1)),
    (FILES, "os.remove", ("/d/a", -1)),
    (FILES, "os.truncate", ("/d/a", 0)),
    (FILES, "shutil.rmtree", ("/d", None)),
    (FILES, "tempfile.mkstemp", ("/tmp/x",)),
    (FILES, "sqlite3.connect", ("cache.db",)),
    (NETWORK, "socket.getaddrinfo", ("example.org", 80, 0, 0, 0)),
    (NETWORK, "socket.gethostbyname", (b"example.org",)),
    (NETWORK, "socket.getnameinfo", (("192.0.2.1", 80),)),
    (NETWORK, "urllib.Request", ("https://example.org/", None, {}, "GET")),
    (NETWORK, "http.client.connect", (None, "example.org", 443)),
    (ACCELERATOR, "open", ("/dev/nvidia0", "r", READ)),
    (ACCELERATOR, "ctypes.dlopen", ("libcuda.so.1",)),
    (ACCELERATOR, "ctypes.dlopen", ("nvcuda.dll",)),
]
ALLOWED = [
    ("open", ("/d/a.txt", "r", READ)),
    ("open", (os.devnull, "w", WRITE)),
    ("open", (5, "w", WRITE)),
    ("os.mkdir", (HERE, 511, -1)),  # as os.makedirs(exist_ok=True) does
    ("os.truncate", (7, 100)),
    ("os.remove", ("/w/workers/listener-1", -1)),
    ("sqlite3.connect", (":memory:",)),
    ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
    ("socket.getaddrinfo", (None, 80, 0, 0, 0)),
    ("urllib.Request", ("file:///d/a.txt", None, {}, "GET")),
    ("ctypes.dlopen", ("libcudart.so.13",)),  # what torch itself loads
    ("ctypes.dlopen", (None,)),
    ("subprocess.Popen", ("/sbin/ldconfig", ["/sbin/ldconfig", "-p"], None, None)),
    ("import", ("multiprocessing.pool", None, None, None, None)),
]
WARNED = [
    ("another program (wget)", "subprocess.Popen", (b"wget", ["wget", "-q"], None, None)),
    ("another program (curl)", "os.system", (b"curl -O",)),
    ("another program (/bin/true)", "os.exec", ("/bin/true", ["true"], None)),
    ("another program (/bin/true)", "os.spawn", (0, "/bin/true", ["true"], None)),
    ("worker processes", "os.fork", ()),
    ("worker processes", "import", ("multiprocessing.popen_spawn_posix", *[None] * 4)),
]


@pytest.mark.parametrize(("rule", "event", "args"), FORBIDDEN)
def test_forbidden_calls_raise_and_are_told(watch, told, rule, event, args):
    with pytest.raises(RuleBroken, match=rule):
        watch(event, args)
    assert [(m["event"], m["phase"], m["rule"]) for m in told] == [("violation", "classify", rule)]
    assert told[0]["call"].startswith(f"{event}(")
    assert told[0]["where"].startswith("test_grader_rules.py:")


@pytest.mark.parametrize(("event", "args"), ALLOWED)
def test_harmless_calls_pass(watch, told, event, args):
    watch(event, args)
    assert told == []


@pytest.mark.parametrize(("text", "event", "args"), WARNED)
def test_programs_and_workers_are_warned_of_once(watch, told, text, event, args):
    watch(event, args)
    watch(event, args)
    assert [message["event"] for message in told] == ["warning"]
    assert text in told[0]["text"]


def test_connections_beyond_this_machine_are_forbidden(watch, told, sockets):
    watch("socket.connect", (sockets["internet"], ("127.0.0.1", 80)))
    watch("socket.connect", (sockets["six"], ("::1", 80, 0, 0)))
    assert told == []
    for name, address in (("internet", ("192.0.2.1", 80)), ("six", ("2001:db8::1", 80, 0, 0))):
        for event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            with pytest.raises(RuleBroken, match=NETWORK):
                watch(event, (sockets[name], address))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no local sockets here")
def test_local_sockets_are_no_network(watch, told):
    with socket.socket(socket.AF_UNIX) as local:
        watch("socket.connect", (local, "/w/workers/listener-1"))
    assert told == []


def test_nothing_is_forbidden_to_the_grader_itself(told):
    Rules(HERE, "/w", told.append)._watch("open", ("/d/a.txt", "w", WRITE))
    assert told == []


def test_one_line_is_told_once_however_often_it_breaks_the_rule(watch, told):
    for _ in range(100):
        with pytest.raises(RuleBroken):
            watch("os.remove", ("/d/a", -1))
    assert len(told) == 1


def test_workers_are_no_matter_in_training(told):
    training = Rules(HERE, "/w", told.append)
    training.phase = "fast_train"
    training._watch("os.fork", ())
    assert told == []


@pytest.mark.parametrize(
    ("folder", "target", "allowed"),
    [
        ("site-packages", "{temporary}/probe", True),
        ("site-packages", "probe", True),  # in a folder that it has open
        ("site-packages", "/home/me/.cache/probe", False),
        ("helpers", "{temporary}/probe", False),
    ],
)
def test_a_library_may_try_the_temporary_folder_while_it_is_imported(
    watch, told, tmp_path, folder, target, allowed
):
    library = tmp_path / folder / "probing.py"
    code = compile("watch('open', (target, 'w', WRITE))", str(library), "exec")
    names = {"watch": watch, "WRITE": WRITE}
    names["target"] = target.format(temporary=tempfile.gettempdir())
    with nullcontext() if allowed else pytest.raises(RuleBroken):
        exec(code, names)  # as the import of that file would
    assert len(told) == (not allowed)


def test_installed_packages_are_not_the_submissions_own_lines():
    name = rules.line_name
    assert name("/s", f"{os.sep}s{os.sep}solution.py") == "solution.py"
    assert name("/s", str(Path("/s/.venv/site-packages/torch.py"))) is None
    assert name("/s", "/elsewhere/solution.py") is None
    assert name(str(Path(rules.__file__).parent.parent), rules.__file__) is None


def test_apples_gpu_is_hidden_from_torch():
    class Torch:
        class backends:
            class mps:
                is_available = staticmethod(lambda: True)

    rules.hide_apple_gpu(Torch)
    assert Torch.backends.mps.is_available() is False


def in_sandbox(code, writable=()):
    if why_no_sandbox():
        pytest.skip(f"no operating-system layer: {why_no_sandbox()}")
    command = sandboxed([sys.executable, "-I", "-c", code], writable)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() + done.stderr.strip().split("\n")[-1]


@pytest.mark.parametrize("folder", ["/tmp", "/dev", str(Path.home()), HERE])
def test_the_sandbox_is_read_only(folder):
    path = Path(folder, "birds_sandbox_test.txt")
    assert "Read-only file system" in in_sandbox(f"open({str(path)!r}, 'w')")
    assert not path.exists()


def test_the_sandbox_has_no_network_but_its_own_loopback():
    code = "print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])"
    assert in_sandbox(code) == "['lo']"


def test_the_sandbox_sees_only_its_own_processes():
    code = "import pathlib; print(len(list(pathlib.Path('/proc').glob('[0-9]*'))))"
    assert in_sandbox(code) == "2"


def test_the_sandbox_has_no_device_of_an_accelerator_and_shared_memory_of_its_own():
    code = "import os; print(sorted(set(os.listdir('/dev')) - {'core'}), os.listdir('/dev/shm'))"
    seen = in_sandbox(code)
    assert seen.endswith(" []")
    assert "null" in seen
    assert not any(name in seen for name in ("nvidia", "kfd", "dri"))


def test_the_sandbox_lets_write_what_is_named():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        assert in_sandbox(f"open({str(path / 'a')!r}, 'w')", [path]) == ""
        assert (path / "a").exists()
