"""The rules, call by call: the hook is asked directly, and once for real in a child process."""

import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.error import URLError

import pytest

from grader import rules
from grader.rules import ACCELERATOR, FILES, LIBRARY, NETWORK, OWN, WAITED, Rules
from grader.sandbox import sandboxed, why_no_sandbox

HERE = str(Path(__file__).resolve().parent)
READ, WRITE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT
BASE = "/w"  # the run's own folder


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(rules, "limit_file_size", lambda limit: None)
    return []


@pytest.fixture
def watched(told):
    watched = Rules(HERE, BASE, told.append)
    watched.phase = "classify"
    return watched


@pytest.fixture
def watch(watched):
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
    (FILES, "open", ("/d/a.txt", None, os.O_RDONLY | os.O_CREAT)),
    (FILES, "os.chmod", ("/d/a", 0o777, -1)),
    (FILES, "os.utime", ("/d/a", None, None, -1)),
    (FILES, "os.link", ("/w/temporary/a", "/d/a", -1, -1)),
    (FILES, "os.symlink", ("/w/temporary/a", "/d/a", -1)),
    (FILES, "os.truncate", ("/d/a", 0)),
    (FILES, "shutil.rmtree", ("/d", None)),
    (FILES, "tempfile.mkstemp", ("/tmp/x",)),
    (FILES, "tempfile.mkdtemp", ("/w/temporary/x",)),
    (FILES, "open", ("/dev/shm/a.pt", "w", WRITE)),
    (FILES, "open", ("/dev/shm/../../d/a.pt", "w", WRITE)),
    (FILES, "shutil.copyfile", ("/w/temporary/a", "/d/a")),
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
    ("open", ("/dev/stderr", "w", WRITE)),
    ("socket.gethostbyaddr", (socket.gethostname(),)),  # as socket.getfqdn does
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
    with pytest.raises(OSError) as caught:  # noqa: PT011 - of which kind: below
        watch(event, args)
    [message] = told
    assert caught.value.refusal == {k: v for k, v in message.items() if k != "event"}
    assert (message["event"], message["phase"], message["rule"]) == ("refusal", "classify", rule)
    assert message["call"].startswith(f"{event}(")
    assert message["where"].startswith("test_grader_rules.py:")
    assert message["who"] == OWN


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
            with pytest.raises(OSError, match="unreachable"):
                watch(event, (sockets[name], address))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no local sockets here")
def test_local_sockets_are_no_network(watch, told):
    with socket.socket(socket.AF_UNIX) as local:
        watch("socket.connect", (local, "/w/workers/listener-1"))
    assert told == []


def test_nothing_is_forbidden_to_the_grader_itself(told):
    Rules(HERE, BASE, told.append)._watch("open", ("/d/a.txt", "w", WRITE))
    assert told == []


def test_one_line_is_told_once_however_often_it_breaks_the_rule(watch, told):
    for _ in range(100):
        with pytest.raises(OSError, match="Read-only"):
            watch("os.remove", ("/d/a", -1))
    assert len(told) == 1


def test_workers_are_no_matter_in_training(told):
    training = Rules(HERE, BASE, told.append)
    training.phase = "fast_train"
    training._watch("os.fork", ())
    assert told == []


# ---- who did it ----

SCRATCH = "/w/temporary/probe"
IMPORTED = "watch('open', (target, 'w', flags))"
CALLED = f"def work(path=None):\n    {IMPORTED}\n"


def library(code, watch, tmp_path, **names):
    """Run code as the body of an installed library's module; returns its names."""
    names = {"target": SCRATCH, "watch": watch, "flags": WRITE, "__name__": "library", **names}
    exec(compile(code, str(tmp_path / "site-packages" / "library.py"), "exec"), names)
    return names


def who_told(told):
    return [message["who"] for message in told]


def test_a_library_has_its_scratch_while_it_is_imported(watch, told, tmp_path):
    library(IMPORTED, watch, tmp_path)
    assert told == []


@pytest.mark.parametrize("target", ["/home/me/.cache/fonts.json", "cache.json"])
def test_a_library_that_is_imported_is_refused_elsewhere_and_blamed(watch, told, tmp_path, target):
    with pytest.raises(OSError, match="Read-only"):
        library(IMPORTED, watch, tmp_path, target=target)
    assert who_told(told) == [LIBRARY]
    assert told[0]["through"] == ("library.<module>",)


@pytest.mark.parametrize("event", ["os.rename", "os.link", "os.symlink", "shutil.copyfile"])
def test_a_library_may_not_move_its_scratch_elsewhere(watch, told, tmp_path, event):
    code = f"watch({event!r}, ('/w/temporary/x', target, -1, -1))"
    library(code, watch, tmp_path)
    with pytest.raises(OSError, match="Read-only"):
        library(code, watch, tmp_path, target="/home/me/model.pt")
    assert who_told(told) == [LIBRARY]


def test_what_the_submission_waits_for_is_refused_in_its_name(watch, told, tmp_path):
    work = library(CALLED, watch, tmp_path, target="/home/me/log.txt")["work"]
    with pytest.raises(OSError, match="Read-only"):
        work()
    assert who_told(told) == [WAITED]
    assert told[0]["where"].startswith("test_grader_rules.py:")


def test_a_library_has_its_scratch_when_it_is_called(watch, told, tmp_path):
    library(CALLED, watch, tmp_path)["work"]()
    assert told == []


@pytest.mark.parametrize("name", [SCRATCH, Path(SCRATCH), "/w/temporary/pro"])
def test_not_under_a_name_that_the_submission_gave(watch, told, tmp_path, name):
    """It would find the file again: under that name, or in a folder of that name."""
    work = library(CALLED, watch, tmp_path)["work"]
    with pytest.raises(OSError, match="Read-only"):
        work(path=name)
    assert who_told(told) == [WAITED]


def test_not_under_a_name_that_the_submission_holds(watch, told, tmp_path):
    work, folder = library(CALLED, watch, tmp_path)["work"], "/w/temporary/probe"
    with pytest.raises(OSError, match="Read-only"):
        work()
    assert folder
    assert who_told(told) == [WAITED]


def in_thread(call, *arguments):
    errors = []

    def run():
        try:
            call(*arguments)
        except OSError as error:
            errors.append(error)

    run = type(run)(
        run.__code__.replace(co_filename="<thread>"), globals(), "run", None, run.__closure__
    )
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors


def test_a_thread_of_a_librarys_own_is_its_background(watch, told, tmp_path):
    assert in_thread(library(CALLED, watch, tmp_path)["work"]) == []
    assert len(in_thread(library(CALLED, watch, tmp_path, target="/home/me/log.txt")["work"])) == 1
    assert who_told(told) == [LIBRARY]


def test_a_name_handed_to_a_thread_is_still_given(watch, told, tmp_path):
    """As ThreadPoolExecutor.submit(torch.save, state, name) does."""
    assert len(in_thread(library(CALLED, watch, tmp_path)["work"], SCRATCH)) == 1
    assert who_told(told) == [WAITED]


def test_a_file_in_scratch_is_not_found_again(watched, told, tmp_path):
    """However it came there: what was made during the run is not for the submission to read."""
    watched.scratch = (str(tmp_path) + os.sep,)
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (1, 1))
    watched.began = os.stat(tmp_path / "old").st_ctime + 0.001  # noqa: PTH116
    watched._watch("open", (tmp_path / "old", "r", READ))
    watched.began -= 10
    with pytest.raises(OSError, match="Read-only"):
        watched._watch("open", (str(tmp_path / "old"), "r", READ))
    assert who_told(told) == [OWN]


def test_the_standard_library_passes_on_what_it_is_told(watch, told):
    with pytest.raises(OSError, match="Read-only"):
        exec(compile("watch('os.mkdir', ('/d/a', 511, -1))", os.__file__, "exec"), {"watch": watch})
    assert who_told(told) == [OWN]


def test_multiprocessing_keeps_its_sockets(watch, told):
    file = Path(os.__file__).parent / "multiprocessing" / "heap.py"
    code = "def start():\n    watch('tempfile.mkstemp', ('/dev/shm/pym-1-x',))\n"
    names = {"watch": watch, "__name__": "multiprocessing.heap"}
    exec(compile(code, str(file), "exec"), names)
    names["start"]()
    assert told == []


# ---- the errors are those of the box ----

TRIES = {
    "open": "open('/etc/birds.txt', 'w')",
    "mkdir": "os.mkdir('/etc/birds')",
    "look-up": "socket.getaddrinfo('birds.invalid', 80)",
    "look-up by name": "socket.gethostbyname('birds.invalid')",
    "connect": "socket.create_connection(('192.0.2.1', 80), 5)",
    "send": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 80))",
    "url of a number": "urllib.request.urlopen('http://192.0.2.1/', timeout=5)",
    "url": "urllib.request.urlopen('http://birds.invalid/')",
    "driver": "ctypes.CDLL('libcuda.so.1')",
}
ASK = """
import ctypes, os, socket, sys, urllib.request
{install}
try:
    {call}
except OSError as error:
    print(type(error).__name__, error.errno, getattr(error, "reason", ""))
"""
INSTALL = """
sys.path.insert(0, {root!r})
from grader.rules import Rules
rules = Rules({here!r}, "/w", lambda message: None, watch_code=False)
rules.install()
rules.begin("classify")
"""


@pytest.mark.parametrize("name", TRIES)
def test_the_hook_gives_the_error_that_the_box_gives(name):
    expected = in_sandbox(ASK.format(install="", call=TRIES[name]))
    install = INSTALL.format(root=str(Path(HERE).parent), here=HERE)
    code = ASK.format(install=install, call=TRIES[name])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert "Error" in expected or "gaierror" in expected


def test_a_url_error_is_one_of_the_system_too(watch):
    with pytest.raises(URLError) as caught:
        watch("urllib.Request", ("https://example.org/", None, {}, "GET"))
    assert caught.value.reason.errno == socket.EAI_AGAIN
    assert errno.EROFS == 30


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
