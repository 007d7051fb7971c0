"""Habits of public submissions, and faults, one each: what is said in place of a toy's parts.

A toy answers with the class id that stands in the "photo". `top` stands before its functions,
`train` and `classify` in them, `answer` is what is said of a photo. The other words are what the
grader must say: see `Habit`. Every habit is run in both layers, and in the box by itself.
"""

import contextlib
import sqlite3
import textwrap
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

OK = "Ok, accuracy 1.0000"
TOY = '''"""A habit."""

import os
import sys
from pathlib import Path

{top}


def train_classifier(train_gt, train_img_dir, fast_train=False):
{train}
    return "network"


def classify(model_path, test_img_dir):
{classify}
    return {{{answer} for photo in sorted(Path(test_img_dir).iterdir())}}
'''


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reading.py", "def read(photo):\n    return int(photo.read_text())\n")


def database(path):
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("create table birds (name)")
        base.execute("insert into birds values ('wren')")
        base.commit()


@dataclass(frozen=True)
class Habit:
    """A submission, and what must be said of it."""

    top: str = ""
    train: str = ""
    classify: str = ""
    answer: str = "photo.name: int(photo.read_text())"
    files: dict = field(default_factory=dict)  # beside the code, by name
    status: str = OK
    message: str = ""  # a star stands for anything
    box: str = ""  # the box's own verdict, where the grader is stricter on purpose
    limits: dict = field(default_factory=dict)
    warnings: tuple = ()
    notes: tuple = ()
    foreign: tuple = ()
    refusals: tuple = ()
    portable: dict = field(default_factory=dict)  # what differs without the box
    needs: str = ""
    slow: bool = False

    def write(self, folder: Path) -> Path:
        """Write the submission; returns its folder."""
        folder.mkdir(parents=True)
        parts = {name: textwrap.indent(textwrap.dedent(getattr(self, name)), "    ")
                 for name in ("train", "classify")}  # fmt: skip
        code = TOY.format(top=textwrap.dedent(self.top), answer=self.answer, **parts)
        files = {"solution.py": code, "birds_model.pt": "toy weights\n", **self.files}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            elif content is not None:
                path.write_text(content)
        return folder


ERROR = "Runtime error"
CHECK = "Checker error"
INT = "int(photo.read_text())"
ENDLESS = "while True: time.sleep(0.1)"
TWO_SECONDS = {"exit": 1}
NOT_ENDING = "exit: over its time limit of 1 s: the process does not end after its answer"

HABITS = {
    # ---- the script's words, its format, its end ----
    "the words are the script's": Habit(
        top="""
        import __main__, argparse
        words = argparse.ArgumentParser()
        for name in ("mode", "data", "output"):
            words.add_argument(name)
        words = words.parse_args()
        assert words.mode == "run_single_test" and len(sys.argv) == 4
        assert os.path.samefile(sys.argv[0], __main__.__file__)
        assert os.path.basename(sys.argv[0]) == "run.py"
        assert os.path.dirname(os.path.abspath(__file__)) == sys.path[0]
        assert sys.stdout.encoding == "utf-8" and sys.flags.utf8_mode
        assert __main__.read_csv and not [n for n in vars(__main__) if "grader" in n]
        assert Path(sys.argv[0]).with_name("birds_model.pt").is_file()
        assert os.environ["CHECKER"] and not sys.gettrace() and not sys.dont_write_bytecode
        from run import read_csv
        """,
        classify="""
        assert model_path == os.path.join(os.path.dirname(__file__), "birds_model.pt")
        assert Path(test_img_dir).parent.parent == Path(words.data)
        print("\\N{BIRD} Привет")
        """,
    ),
    "parse_args": Habit(
        top="import argparse\nargparse.ArgumentParser().parse_args()",
        status=ERROR,
        message="import: SystemExit: 2 (solution.py:8)",
    ),
    "a tuple of one": Habit(
        answer=f"photo.name: ({INT},)",
        status=ERROR,
        message="classify: TypeError: classify returned (0,) (tuple) for 'photo_0.png', not an int",
    ),
    "a named tuple of one": Habit(
        top="from collections import namedtuple\nId = namedtuple('Id', 'value')",
        answer=f"photo.name: Id({INT})",
        status=ERROR,
        message="classify: TypeError: classify returned Id(value=0) (solution"
        ".Id) for 'photo_0.png', "
        "not an int",
    ),
    "a dict": Habit(
        answer=f"photo.name: {{'id': {INT}}}", status=ERROR, message="classify: *not an int"
    ),
    "not a number": Habit(
        answer="photo.name: float('nan')", status=ERROR, message="classify: *nan *"
    ),
    "numbers of many kinds": Habit(
        top="""
        from decimal import Decimal
        from enum import IntEnum
        Kind = IntEnum("Kind", [(f"K{i}", i) for i in range(4)])
        kinds = (Decimal, Kind, float, lambda value: value + 0.9)
        """,
        answer=f"photo.name: kinds[{INT}]({INT})",
    ),
    "a string is a name, any is": Habit(
        top="class Name(str):\n    def __str__(self):\n        return self[:-1]\n",
        answer=f"Name(photo.name + '!'): {INT}",
    ),
    "a comma in a name": Habit(
        answer=f"photo.name + ',x': {INT}",
        status=CHECK,
        message="*output.csv, line 2: 'photo_0.png,x,0' is not `filename,class_id`",
    ),
    "a line end in a name": Habit(
        answer=f"photo.name + '\\r': {INT}",
        status=CHECK,
        message="*output.csv, line 2: 'photo_0.png' is not `filename,class_id`",
    ),
    "an empty name": Habit(
        answer="name: value for name, value in [('', 7), *read(test_img_dir)]} or {None: None",
        top="""
        def read(folder):
            return [(photo.name, int(photo.read_text())) for photo in Path(folder).iterdir()]
        """,
        warnings=("the answer has 1 file names that the test lacks: ''",),
    ),
    "a thread that never ends": Habit(
        top="import threading, time",
        classify=f"""
        def wait():
            {ENDLESS}
        threading.Thread(target=wait).start()
        """,
        limits=TWO_SECONDS,
        status=ERROR,
        message=NOT_ENDING,
        box="hangs",
    ),
    "a job that never ends": Habit(
        top="import time\nfrom concurrent.futures import ThreadPoolExecutor",
        classify="ThreadPoolExecutor().submit(time.sleep, 600)",
        limits=TWO_SECONDS,
        status=ERROR,
        message=NOT_ENDING,
        box="hangs",
    ),
    "a process that nobody joins": Habit(
        top="import time\nfrom multiprocessing import get_context",
        train="get_context('fork').Process(target=time.sleep, args=(600,)).start()",
        limits=TWO_SECONDS,
        status=ERROR,
        message=NOT_ENDING,
        box="hangs",
    ),
    "threads that end": Habit(
        top="import atexit, threading, time",
        classify="""
        threading.Thread(target=time.sleep, args=(0.2,)).start()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        atexit.register(lambda: 1 / 0)
        """,
    ),
    "a crash at the very end": Habit(
        top="import atexit, os, signal",
        classify="atexit.register(os.kill, os.getpid(), signal.SIGSEGV)",
        status=ERROR,
        message="exit: the process ended by SIGSEGV, after its answer",
    ),
    "an exit status at the very end": Habit(
        top="import atexit, os",
        classify="atexit.register(os._exit, 3)",
        status=ERROR,
        message="exit: the process ended with exit status 3, after its answer",
    ),
    # ---- modules beside the code ----
    "modules with the names of others": Habit(
        top="""
        import birddata, copy, course, grader, hook, inspect, psutil, random, resource
        import rules, run_tests, supervisor
        modules = (birddata, copy, course, grader, hook, inspect, psutil, random, resource)
        assert all(m.own for m in (*modules, rules, run_tests, supervisor))
        """,
        files={
            f"{name}.py": "own = True\n"
            for name in (
                *("birddata", "copy", "course", "grader", "hook", "inspect"),
                *("psutil", "random", "resource", "rules", "run_tests", "supervisor"),
            )
        },
    ),
    "a module that hides Python's own": Habit(
        top="import tempfile",
        files={"random.py": "own = True\n"},
        status=ERROR,
        message="import: ImportError: cannot import name 'Random' from 'random' (*random.py) (*)",
    ),
    "types of its own": Habit(
        files={"types.py": ""},
        top="import enum",
        status=ERROR,
        message="import: ImportError: cannot import name 'MappingProxyType' from 'types' (*",
    ),
    "a package": Habit(
        files={
            "solution.py": None,
            "solution/net.py": "def train_classifier(gt, images, fast_train):\n    return 1\n",
            "solution/__init__.py": "from pathlib import Path\nfrom .net "
            "import train_classifier\n\n"
            "def classify(model, images):\n"
            "    return {p.name: int(p.read_text()) for p in Path(images).iterdir()}\n",
        },
    ),
    "a helper in a zip": Habit(
        top="""
        sys.path.insert(0, str(Path(__file__).with_name("helpers.zip")))
        import reading
        """,
        answer="photo.name: reading.read(photo)",
        files={"helpers.zip": zipped},
    ),
    # ---- what only this machine has ----
    "a package that the course lacks": Habit(
        top="import pytest", foreign=("imports pytest (pytest *): *",)
    ),
    "a release that differs from the course's": Habit(
        top="import psutil",
        answer="photo.name: psutil.cpu_count(nonsense=True)",
        status=ERROR,
        message="classify: TypeError: *nonsense* (solution.py:*)",
        foreign=("imports psutil (psutil *): *",),
    ),
    "a file of this machine's": Habit(
        top="home = os.path.join(os.environ['LC_BIRDS_HOME'], 'weights.pth')",
        classify="assert open(home).read() == open(home.replace('/tmp/', '/usr/../tmp/')).read()",
        foreign=("classify: reads *weights.pth (solution.py:*): the testing system has none",),
        box="differs",
    ),
    "its own folder, by its name on this machine": Habit(
        top="home = os.path.join(os.environ['LC_BIRDS_HOME'], 'code')",
        classify="""
        assert (Path(__file__).with_name("data").resolve() / "names.txt").read_text() == "wren"
        assert open(os.path.join(home, "notes.txt")).read() == "notes"
        """,
        files={"notes.txt": "notes", "data/names.txt": "wren"},
        foreign=("classify: reads *code/notes.txt (solution.py:*): the testing system has none",),
        box="differs",
    ),
    "caches of the user's": Habit(
        top="""
        names = [n for n in os.environ if n.startswith(("HF_", "TORCH", "XDG_", "TIMM", "PYTHON"))]
        assert not [n for n in names if n != "PYTHONUSERBASE"], names
        home = os.path.expanduser("~/.cache")
        """,
        classify="assert not os.path.exists(home)",
        box="differs",
    ),
    # ---- places ----
    "places say what they do": Habit(
        top=(
            "here, beside = os.getcwd(), os.path.dirname(os.path.abspath("
            "__file__))\nimport tempfile"
        ),
        classify="""
        for folder in (here, beside):
            assert not os.access(folder, os.W_OK), folder
            for path in (os.path.join(folder, "new"), __file__, model_path):
                try:
                    open(path, "r+") if os.path.exists(path) else os.mkdir(path)
                except OSError:
                    continue
                raise AssertionError(path)
        assert os.access(tempfile.gettempdir(), os.W_OK)
        assert os.listdir() == []
        """,
        status=ERROR,  # the attempts in the current folder are the submission's own
        message="classify: broke the rule 'no file written': os.mkdir('*new') (solution.py:*)",
        box=OK,
    ),
    "a database beside the code": Habit(
        top="import sqlite3",
        classify="""
        with sqlite3.connect(os.path.join(os.path.dirname(__file__), "birds.db")) as base:
            assert base.execute("select count(*) from birds").fetchone() == (1,)
        sqlite3.connect(":memory:").execute("create table t (x)")
        """,
        files={"birds.db": database},
    ),
    "a file that may be written, tried": Habit(
        classify="""
        try:
            file = open(Path(__file__).with_name("notes.txt"), "r+")
        except OSError:
            file = open(Path(__file__).with_name("notes.txt"))
        assert file.read() == "notes"
        file.close()
        """,
        files={"notes.txt": "notes"},
        refusals=("classify: broke the rule 'no file written': open('*notes.txt', 'r+') (*",),
    ),
    "what is not there cannot be written": Habit(
        top="import shutil",
        train="shutil.rmtree('lightning_logs', ignore_errors=True)",
        classify="""
        for attempt in (
            lambda: open("/kaggle/working/log.txt", "w"),
            lambda: open("notes.txt", "r+"),
            lambda: os.mkdir("logs/today"),
            lambda: os.utime("notes.txt"),
            lambda: shutil.copyfile("notes.txt", "copy.txt"),
        ):
            try:
                attempt()
            except FileNotFoundError:
                continue
            raise AssertionError
        """,
    ),
    "the temporary folder, if it can be written": Habit(
        top="import tempfile",
        classify="""
        folder = tempfile.gettempdir()
        if os.access(folder, os.W_OK):
            Path(folder, "cache.txt").write_text("photos seen")
        """,
        status=ERROR,
        message=(
            "classify: broke the rule 'no file written': open('*cache.txt', 'w') (solution.py:*)"
        ),
        box=OK,
    ),
    "a library's file in the temporary folder": Habit(
        top="""
        import ctypes, tempfile
        libc = ctypes.CDLL(None)
        name = os.fsencode(os.path.join(tempfile.gettempdir(), "telemetry"))
        file = libc.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        assert libc.write(file, bytes(1000), 1000) == 1000
        """,
        classify="assert not os.path.exists(name)",
        notes=("import: telemetry, which native code or a program left in the temporary folder*",),
        box="differs",
    ),
    "a program hands a file to the next phase": Habit(
        top="import subprocess, tempfile",
        train="subprocess.run(['sh', '-c', 'echo secret > $0/passed.txt', tempfile.gettempdir()])",
        classify="assert not os.path.exists(os.path.join(tempfile.gettempdir(), 'passed.txt'))",
        warnings=("fast_train: starts another program (sh), which the audit hook cannot watch (*",),
        notes=("fast_train: passed.txt, which native code or a program left*",),
        box="differs",
    ),
    # ---- memory that is shared, addresses of this machine ----
    "shared memory": Habit(
        top="from multiprocessing import shared_memory",
        classify="""
        memory = shared_memory.SharedMemory(create=True, size=100_000)
        memory.buf[99_999] = 7
        again = shared_memory.SharedMemory(memory.name)
        assert again.buf[99_999] == 7
        again.close()
        memory.close()
        memory.unlink()
        """,
    ),
    "shared tensors": Habit(
        top="import torch",
        classify="assert torch.zeros(100_000).share_memory_().is_shared()",
        needs="torch",
    ),
    "addresses of this machine": Habit(
        top="import socket",
        classify="""
        for address in ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0"):
            with socket.socket() as server, socket.socket() as client:
                server.bind((address, 0))
                server.listen()
                client.connect((address, server.getsockname()[1]))
        socket.getaddrinfo(socket.gethostname(), 80)
        """,
    ),
    "a socket of the host's": Habit(
        top="import socket",
        classify="""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect("/run/docker.sock")
            except FileNotFoundError:
                pass
        """,
        refusals=("classify: broke the rule 'no internet': socket.connect('/run/docker.sock') (*",),
    ),
    # ---- writing by other names ----
    "the root by another name": Habit(
        classify="open('/proc/self/root/tmp/birds_root.txt', 'w')",
        status=ERROR,
        message="classify: broke the rule 'no file written': open('/proc/self"
        "/root/tmp/birds_root.txt', "
        "'w') (solution.py:*)",
    ),
    "the current folder by another name": Habit(
        classify="open('/proc/self/cwd/birds.txt', 'w')",
        status=ERROR,
        message=(
            "classify: broke the rule 'no file written': open('/proc/self/cwd/birds.txt', 'w') (*"
        ),
    ),
    "a folder by its descriptor": Habit(
        classify="""
        folder = os.open("/tmp", os.O_RDONLY)
        open(f"/dev/fd/{folder}/birds_fd.txt", "w")
        """,
        status=ERROR,
        message=(
            "classify: broke the rule 'no file written': open('/dev/fd/*/birds_fd.txt', 'w') (*"
        ),
    ),
    # ---- against the grader's own means ----
    "descriptors closed, messages forged": Habit(
        top="os.closerange(3, 200)",
        classify="""
        base = Path(os.path.dirname(__file__)).parent
        if (base / "channel").exists():
            with open(base / "channel", "wb", buffering=0) as channel:
                channel.write(b'{"event": "done"}\\n' + b"\\xff" * 10 + b"\\n")
        sys.stdout.flush()
        os.close(1)
        """,
        status=ERROR,
        message="classify: broke the rule 'no file written': open('*channel', 'w') (*",
        box=OK,
    ),
    "a daemon without an environment": Habit(
        classify="""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)",
                          os.environ["LC_BIRDS_TEST_RUN"]], {})
            os._exit(0)
        """,
        warnings=(
            "classify: worker processes: the course advises against them in classify (*",
            "classify: starts another program (*), which the audit hook cannot watch (*",
            "a process that the submission started outlived the test and was ended",
        ),
    ),
    "a remount": Habit(
        top="import ctypes",
        classify="""
        libc = ctypes.CDLL(None, use_errno=True)
        for target in (b"/", b"/tmp", os.fsencode(os.path.dirname(__file__))):
            libc.mount(None, target, None, 32 | 4096, None)
        libc.creat(b"/tmp/birds_remounted.txt", 0o600)
        assert not os.path.exists("/tmp/birds_remounted.txt")
        """,
        portable={"status": ERROR, "message": "classify: AssertionError (solution.py:*)"},
    ),
    "compiled by torch": Habit(
        top="import torch",
        classify="""
        try:
            compiled = torch.compile(lambda x: torch.relu(x) * 2 + 1)
            assert compiled(torch.ones(8)).sum() == 24
        except ImportError as error:  # no compiler there
            print(error)
        """,
        needs="torch",
        warnings=None,
    ),
    "a model that is a link": Habit(
        files={"birds_model.pt": lambda path: path.symlink_to("/etc/hostname")},
        classify="""
        assert os.path.basename(model_path) == "birds_model.pt"
        assert Path(model_path).parent == Path(__file__).parent and open(model_path).read()
        """,
    ),
    "control codes": Habit(classify="print('\\x1b[2J\\x1b]0;title\\x07 done')"),
    "print to nowhere": Habit(classify="sys.stdout = sys.stderr = None"),
}
