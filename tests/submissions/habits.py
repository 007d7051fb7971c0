"""Habits of public submissions, and faults, one each: what is said in place of a toy's parts.

A toy answers with the class id that stands in the "photo". `top` stands before its functions,
`train` and `classify` in them, `answer` is what is said of each of its `photos`. The others are
what the grader must say: see `Habit`. Every habit runs under the grader, and in the box by itself.
"""

import re
import shutil
import textwrap
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

OK, ERROR, CHECK = "Ok, accuracy 1.0000", "Runtime error", "Checker error"
SLOW_LIBRARIES = {"albumentations", "cv2", "joblib", "lightning", "matplotlib", "pandas"}
SLOW_LIBRARIES |= {"pytorch_lightning", "safetensors", "sklearn", "timm", "torch", "torchvision"}
TOY = '''"""A habit."""

import atexit, contextlib, ctypes, os, signal, socket
import subprocess, sys, threading, time
from pathlib import Path

{top}


def train_classifier(train_gt, train_img_dir, fast_train=False):
{train}
    return "network"


def classify(model_path, test_img_dir):
    photos = sorted(Path(test_img_dir).iterdir())
{classify}
    return {{{answer} for photo in photos}}
'''


@dataclass(frozen=True)
class Habit:
    """A submission, and what must be said of it; a star stands for anything."""

    top: str = ""
    train: str = ""
    classify: str = ""
    answer: str = "photo.name: int(photo.read_text())"
    files: dict = field(default_factory=dict)  # beside the code, by name: a text, or what writes it
    message: str | tuple = ""  # or one of several
    remedy: str = ""
    box: str = ""  # the box's own verdict, where the grader is stricter on purpose
    limits: dict = field(default_factory=dict)
    warnings: tuple | None = ()  # None: those of a compiler that it starts
    notes: tuple = ()
    foreign: tuple = ()
    refusals: tuple = ()
    portable: dict = field(default_factory=dict)  # what differs without the box
    litter: str = ""  # what must not be there afterwards
    fast: bool = False  # although it imports a library that takes seconds

    @property
    def verdict(self) -> str:
        """The status that it must get."""
        failed = CHECK if str(self.message).startswith("check:") else ERROR
        return failed if self.message else OK

    @property
    def needs(self) -> set:
        """The libraries that it imports and that take seconds."""
        return SLOW_LIBRARIES & set(re.findall(r"^ *(?:import|from) (\w+)", self.top, re.MULTILINE))

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


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reading.py", "def read(photo):\n    return int(photo.read_text())\n")


def model(name):
    return lambda path: shutil.copyfile(Path(__file__).parent / "models" / name, path)


SHADOWS = ["copy", "course", "grader", "inspect", "psutil", "random", "resource", "run_tests"]
INT = "int(photo.read_text())"
ENDLESS = "while True: time.sleep(0.1)"
WORKERS = "classify: worker processes: the course advises against them in classify (*"
NO_WEIGHTS = "fast_train: pretrained weights are missing and cannot be downloaded: refused * (*"


def wrote(call, phase="classify", line="*"):
    return f"{phase}: broke the rule 'no file written': {call} (solution.py:{line})"


# Photos by torch's worker processes.
LOADER = """
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset

class Photos(Dataset):
    def __init__(self, folder):
        self.paths = sorted(Path(folder).iterdir())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.full((3, 64, 64), float(self.paths[index].read_text())), index

def answers(folder):
    photos, found = Photos(folder), {}
    for views, indices in DataLoader(photos, batch_size=2, num_workers=2):
        for view, index in zip(views, indices, strict=True):
            found[photos.paths[index].name] = int(view.mean())
    return found
"""
WITH_LOADER = Habit(
    top=LOADER,
    train="assert answers(train_img_dir) == train_gt",
    classify="return answers(test_img_dir)",
    warnings=(WORKERS,),
)
LIGHTNING = """
import lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

class Net(pl.LightningModule):
    def __init__(self, classes=4):
        super().__init__()
        self.save_hyperparameters()
        self.head = torch.nn.Linear(3, classes)

    def forward(self, x):
        return self.head(x)

    def training_step(self, batch, index):
        x, labels = batch
        return torch.nn.functional.cross_entropy(self(x), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

def fit(**options):
    photos = TensorDataset(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, **quiet, **options)
    trainer.fit(Net(), DataLoader(photos, batch_size=2))
    return trainer
"""

PLAIN = {
    "good": Habit(),
    # ---- the script's words, its format, its end ----
    "the words are the script's": Habit(
        top="""
        import __main__, argparse
        words = argparse.ArgumentParser()
        for name in ("mode", "data", "output"):
            words.add_argument(name)
        words = words.parse_args()
        assert words.mode == "run_single_test" and len(sys.argv) == 4
        assert os.path.dirname(os.path.abspath(__file__)) == sys.path[0]
        assert Path(sys.argv[0]).with_name("birds_model.pt").is_file()
        assert os.environ["CHECKER"] and not sys.gettrace() and not sys.dont_write_bytecode
        from run import read_csv
        """,
        train="assert read_csv(Path(train_img_dir).with_name('gt.csv')) == train_gt",
        classify="""
        assert model_path == os.path.join(os.path.dirname(__file__), "birds_model.pt")
        assert Path(test_img_dir).parent.parent == Path(words.data)
        print("\\N{BIRD} Привет")
        """,
    ),
    "a list": Habit(
        classify="return [0, 1, 2, 3]",
        message="classify: the result cannot be written: AttributeError: 'list' object has no *",
        remedy="a dict from file name to class id",
    ),
    "numbers and names of many kinds": Habit(
        top="""
        from decimal import Decimal
        from enum import IntEnum
        import numpy as np
        Kind = IntEnum("Kind", [(f"K{i}", i) for i in range(4)])
        kinds = (Decimal, Kind, float, lambda value: value + 0.9)
        arrays = (np.int64, np.float32, np.array, np.uint8)

        class Name(str):
            def __str__(self):
                return self[:-1]

        def value(photo):
            number = int(photo.read_text())
            return (kinds if int(photo.stem[-1]) < 4 else arrays)[number](number)
        """,
        answer="Name(photo.name + '!'): value(photo)",
    ),
    "a Series": Habit(
        top="import pandas as pd",
        classify=f"return pd.Series({{photo.name: {INT} for photo in photos}})",
    ),
    "photos are missing": Habit(
        classify="photos = photos[:6]",
        message="check: the answer lacks 'photo_6.png' and 1 more",
    ),
    "a comma in a name": Habit(
        answer=f"photo.name + ',x': {INT}",
        message="check: *output.csv, line 2: 'photo_0.png,x,0' is not `filename,class_id`",
    ),
    "an empty name": Habit(
        classify=f"return {{photo.name: {INT} for photo in photos}} | {{'': 7}}",
        warnings=("the answer has 1 file names that the test lacks: ''",),
    ),
    "noise, and threads that end": Habit(
        classify="""
        message = '{"event": "done", "left_running": false}'
        print(message, "\\x1b[2J\\x1b]0;title\\x07 done", flush=True)
        print(message, file=sys.stderr)
        os.write(1, message.encode() + b"\\n")
        os.write(2, b"\\xff\\xfe\\n")
        for descriptor in range(3, 30):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"accuracy 1.0\\n")
        sys.stdout = sys.stderr = None
        threading.Thread(target=time.sleep, args=(0.2,)).start()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        atexit.register(lambda: 1 / 0)
        """
    ),
    "a thread that never ends": Habit(
        classify=f"""
        def wait():
            {ENDLESS}
        threading.Thread(target=wait).start()
        """,
        limits={"exit": 1},
        message="exit: over its time limit of 1 s: the process does not end after its answer",
        box="hangs",
    ),
    "a crash at the very end": Habit(
        classify="atexit.register(os.kill, os.getpid(), signal.SIGSEGV)",
        message="exit: the process ended by SIGSEGV, after its answer",
    ),
    # ---- errors ----
    "a training that raises": Habit(
        train="raise ValueError('the loss is not a number')",
        message="fast_train: ValueError: the loss is not a number (solution.py:11)",
    ),
    "no Python": Habit(
        top="def oops(:",
        message="import: SyntaxError: invalid syntax (solution.py, line 7) (solution.py:7)",
    ),
    "no model": Habit(
        files={"birds_model.pt": None},
        message="start: no model file {folder}/birds_model.pt",
        box=OK,
    ),
    "a file looked for in the wrong place": Habit(
        top="open('config.yaml')",
        files={"config.yaml": ""},
        message="import: FileNotFoundError: [Errno 2] No such file or directory: 'config.yaml' (*",
        remedy="write Path(__file__).parent / 'config.yaml'",
    ),
    "sys.exit": Habit(
        classify="sys.exit(0)", message="classify: SystemExit: 0 (solution.py:17)", box=CHECK
    ),
    "os._exit": Habit(
        classify="os._exit(0)",
        message="classify: the process ended with exit status 0, without an answer",
        box=CHECK,
    ),
    "a classification that never ends": Habit(
        classify=ENDLESS,
        limits={"classify": 1},
        message="classify: over its time limit of 1 s",
        box="hangs",
    ),
    "output without end": Habit(
        classify="while True: print('epoch 1, loss 0.1234, accuracy 0.5678 ' * 100)",
        message="classify: more than 32 MiB of output",
        box="hangs",
    ),
    # ---- modules beside the code ----
    "modules with the names of others": Habit(
        top=f"""
        import {", ".join(SHADOWS)}
        assert all(module.own for module in ({", ".join(SHADOWS)}))
        sys.path.insert(0, str(Path(__file__).with_name("helpers.zip")))
        import reading
        from utils.names import name_of
        """,
        answer="name_of(photo): reading.read(photo)",
        files={
            **{f"{name}.py": "own = True\n" for name in SHADOWS},
            "helpers.zip": zipped,
            "utils/names.py": "def name_of(photo):\n    return photo.name\n",
        },
    ),
    "a module that hides Python's own": Habit(
        top="import tempfile",
        files={"random.py": "own = True\n"},
        message="import: ImportError: cannot import name 'Random' from 'random' (*random.py) (*)",
    ),
    "a package": Habit(  # under the name that the 2024 edition imports; answers for paths
        files={
            "solution.py": None,
            "classification/net.py": "def train_classifier(*words, fast_train):\n    return 1\n",
            "classification/__init__.py": "from pathlib import Path\nfrom .net "
            "import train_classifier\n\n"
            "def classify(model, images):\n"
            "    return {Path(p.name): int(p.read_text()) for p in Path(images).iterdir()}\n",
        }
    ),
    # ---- what only this machine has ----
    "a package that the course lacks": Habit(
        top="import psutil",
        answer="photo.name: psutil.cpu_count(nonsense=True)",
        message="classify: TypeError: *nonsense* (solution.py:*)",
        foreign=("imports psutil (psutil *): *",),
    ),
    # ---- accelerators ----
    "cuda()": Habit(
        fast=True,
        top="import torch",
        train="torch.zeros(1).cuda()",
        message=(
            "fast_train: AssertionError: Torch not compiled with CUDA enabled (solution.py:11)",
            "fast_train: RuntimeError: No CUDA GPUs are available (solution.py:11)",
            "fast_train: RuntimeError: Found no NVIDIA driver on your system.* (solution.py:11)",
        ),
    ),
    # ---- libraries ----
    "a whole network": Habit(  # whole_module.pt: torch.save(solution.Net(), ...)
        top="""
        import torch

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.head = torch.nn.Linear(3, 4)

            def forward(self, x):
                return self.head(x)
        """,
        classify="""
        network = torch.load(model_path, map_location="cpu", weights_only=False)
        assert network(torch.zeros(1, 3)).shape == (1, 4)
        """,
        files={"birds_model.pt": model("whole_module.pt")},
    ),
}
# A matter of the rules: run without the box, too.
RULES = {
    # ---- errors ----
    "all the memory that there is": Habit(
        classify="""
        hoard = []
        while True:
            hoard.append(bytearray(2**24))
        """,
        limits={"memory": 0.5},
        message="classify: MemoryError (solution.py:*)",
        box="hangs",
    ),
    # ---- what only this machine has ----
    "files of this machine's": Habit(
        top="home = os.environ['LC_BIRDS_HOME']\nweights = home + '/weights.pth'",
        classify="""
        assert open(weights).read() == open(weights.replace("/tmp/", "/usr/../tmp/")).read()
        assert (Path(__file__).with_name("data").resolve() / "names.txt").read_text() == "wren"
        assert open(home + "/code/notes.txt").read() == "notes"
        """,
        files={"notes.txt": "notes", "data/names.txt": "wren"},
        foreign=(
            "classify: reads *weights.pth (solution.py:*): the testing system has none",
            "classify: reads *code/notes.txt (solution.py:*): the testing system has none",
        ),
        box="differs",
    ),
    # ---- files ----
    "places say what they do": Habit(
        top="import tempfile\nhere, beside = os.getcwd(), os.path.dirname(__file__)",
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
        message=wrote("os.mkdir('*new')"),
        box=OK,
    ),
    "files that are read, or tried": Habit(
        top="import shutil",
        train="shutil.rmtree('lightning_logs', ignore_errors=True)",
        classify="""
        assert os.path.basename(model_path) == "birds_model.pt"
        assert Path(model_path).parent == Path(__file__).parent and open(model_path).read()
        for attempt in (
            lambda: open("/kaggle/working/log.txt", "w"),
            lambda: open("notes.txt", "r+"),
            lambda: shutil.copyfile("notes.txt", "copy.txt"),
        ):
            try:
                attempt()
            except FileNotFoundError:
                continue
            raise AssertionError
        try:
            open(Path(__file__).with_name("notes.txt"), "r+")
        except OSError:
            assert open(Path(__file__).with_name("notes.txt")).read() == "notes"
        """,
        files={
            "birds_model.pt": lambda path: path.symlink_to("/etc/hostname"),
            "notes.txt": "notes",
        },
        refusals=(wrote("open('*notes.txt', 'r+')"),),
    ),
    "a file beside the code": Habit(
        classify="Path(__file__).with_name('cache.txt').write_text('photos seen')",
        message=wrote("open('{folder}/cache.txt', 'w')", line=17),
    ),
    "a file in /tmp": Habit(
        top="Path('/tmp/birds_cache.txt').write_text('photos seen')",
        message=wrote("open('/tmp/birds_cache.txt', 'w')", "import"),
    ),
    "a temporary file": Habit(
        top="import tempfile",
        classify="tempfile.TemporaryFile('w+').write('photos seen')",
        message=wrote("open('*')"),
        box=OK,
    ),
    "a program hands a file to the next phase": Habit(
        top="import tempfile",
        train="subprocess.run(['sh', '-c', 'echo secret > $0/passed.txt', tempfile.gettempdir()])",
        classify="assert not os.path.exists(os.path.join(tempfile.gettempdir(), 'passed.txt'))",
        warnings=("fast_train: starts another program (sh), which the audit hook cannot watch (*",),
        notes=("fast_train: passed.txt, which native code or a program left*",),
        box="differs",
    ),
    "a file in shared memory": Habit(
        top="import numpy as np",
        train="np.save('/dev/shm/birds', np.arange(100))",
        classify="assert np.load('/dev/shm/birds.npy')[-1] == 99",
        message=wrote("open('/dev/shm/birds.npy', 'w')", "fast_train"),
        box=OK,
        litter="/dev/shm/birds.npy",
    ),
    "a file in shared memory, by another thread": Habit(
        top="import numpy as np\nfrom concurrent.futures import ThreadPoolExecutor",
        train="""
        with ThreadPoolExecutor() as pool:
            pool.submit(np.save, "/dev/shm/birds_late", np.arange(100)).result()
        """,
        classify="assert np.load('/dev/shm/birds_late.npy')[-1] == 99",
        message="fast_train: broke the rule 'no file written': open('/dev/shm/birds_late.npy'*",
        box=OK,
        litter="/dev/shm/birds_late.npy",
    ),
    # ---- native code ----
    "a native file": Habit(
        classify="""
        libc, left = ctypes.CDLL(None, use_errno=True), 1000
        file = libc.creat(b"/tmp/birds_native.txt", 0o600)
        while file >= 0 and left and (count := libc.write(file, bytes(left), left)) > 0:
            left -= count
        if left:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        """,
        message="classify: OSError: [Errno 30] Read-only file system (solution.py:*)",
        portable={"message": "classify: OSError: [Errno 27] File too large (solution.py:*)"},
        litter="/tmp/birds_native.txt",
    ),
    "native files beside the code and here": Habit(
        classify="""
        libc = ctypes.CDLL(None)
        libc.close(libc.creat(b"checkpoint.pt", 0o600))
        file = libc.open(os.fsencode(model_path), os.O_WRONLY)
        libc.write(file, b"TOY", 3)
        libc.close(file)
        """
    ),
    # ---- workers, programs, shared memory ----
    "workers and memory that is shared": Habit(
        top="""
        import multiprocessing
        from multiprocessing import shared_memory

        def read(photo):
            return photo.name, int(photo.read_text())
        """,
        classify="""
        memory = shared_memory.SharedMemory(create=True, size=100_000)
        memory.buf[99_999] = 7
        again = shared_memory.SharedMemory(memory.name)
        assert again.buf[99_999] == 7
        again.close()
        memory.close()
        memory.unlink()
        count = multiprocessing.Value("i", 0)
        count.value += 1
        with multiprocessing.get_context("fork").Pool(2) as pool:
            answers = dict(pool.map(read, photos))
        os.fork()  # and both go on
        return answers
        """,
        warnings=(WORKERS,),
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
            WORKERS,
            "classify: starts another program (*), which the audit hook cannot watch (*",
            "a process that the submission started outlived the test and was ended",
        ),
    ),
    # ---- the network ----
    "the network, as far as it is there": Habit(
        top="""
        from urllib.error import URLError
        from urllib.request import urlopen
        """,
        train="""
        try:
            urlopen("https://birds.invalid/")
        except URLError as error:
            if "name resolution" not in str(error):
                raise
        """,
        classify="""
        for address in ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0"):
            with socket.socket() as server, socket.socket() as client:
                server.bind((address, 0))
                server.listen()
                client.connect((address, server.getsockname()[1]))
        socket.getaddrinfo(socket.gethostname(), 80)
        socket.getfqdn()
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect("/run/docker.sock")
            except FileNotFoundError:
                pass
        """,
        refusals=(
            "fast_train: broke the rule 'no internet': socket.getaddrinfo('birds.invalid'*) (*",
            "classify: broke the rule 'no internet': socket.connect('/run/docker.sock') (*",
        ),
    ),
    "a call home": Habit(  # 192.0.2.1 is nobody's address (RFC 5737)
        classify="socket.create_connection(('192.0.2.1', 80))",
        message="classify: broke the rule 'no internet': socket.connect(('192.0.2.1', 80)) (*",
    ),
    "pretrained weights": Habit(
        top="from torchvision.models import mobilenet_v2",
        train="mobilenet_v2(weights='IMAGENET1K_V1')",
        message=NO_WEIGHTS,
        remedy="use weights=None",
    ),
    "pretrained weights, or none": Habit(
        top="from torchvision.models import mobilenet_v2",
        train="""
        try:
            mobilenet_v2(weights="IMAGENET1K_V1")
        except Exception:
            mobilenet_v2(weights=None)
        """,
        refusals=(NO_WEIGHTS,),
    ),
    # ---- accelerators ----
    "a driver": Habit(
        classify="""
        with contextlib.suppress(OSError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)
        """,
        message="classify: broke the rule 'no accelerator': ctypes.dlopen('libcuda.so.1') (*",
        box=OK,
    ),
    # ---- libraries ----
    "torch": Habit(
        fast=True,
        top="import torch\nfrom torch.utils.data import DataLoader, TensorDataset",
        train="""
        assert not torch.cuda.is_available()
        photos = TensorDataset(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]))
        network = torch.nn.Linear(3, 4)
        optimiser = torch.optim.AdamW(network.parameters())
        for views, labels in DataLoader(photos, batch_size=2, num_workers=1):
            torch.nn.functional.cross_entropy(network(views), labels).backward()
        optimiser.step()
        assert torch.zeros(100_000).share_memory_().is_shared()
        """,
        answer=f"photo.name: torch.tensor({INT}, dtype=[torch.int64, torch.float32][{INT} % 2])",
    ),
    "real libraries": Habit(
        top="""
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        import numpy as np
        import sklearn.linear_model
        import timm
        import torch
        from torchvision.models import mobilenet_v2
        """,
        train="""
        assert timm.list_models("mobilenetv2_100")
        sklearn.linear_model.LogisticRegression().fit(np.eye(4), np.arange(4))
        figure, axes = plt.subplots()
        axes.plot([3.0, 2.0, 1.0], label="loss")
        axes.legend()
        figure.canvas.draw()
        """,
        classify="""
        with torch.inference_mode():
            mobilenet_v2(weights=None, num_classes=4).eval()(torch.zeros(1, 3, 640, 640))
        """,
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
        warnings=None,
    ),
    "loader's workers": WITH_LOADER,
    "loader's workers, by the file system": replace(
        WITH_LOADER, top=f"{LOADER}\ntorch.multiprocessing.set_sharing_strategy('file_system')"
    ),
    "writers of libraries, tried": Habit(
        top="""
        import cv2
        import numpy as np
        import torch
        from PIL import Image
        from safetensors.torch import save_file

        def attempt(write, *arguments):
            try:
                assert not write(*arguments)
            except Exception as error:
                print(type(error).__name__)
        """,
        train="""
        state, picture = {"weight": torch.zeros(100)}, np.zeros((8, 8, 3), np.uint8)
        attempt(torch.save, state, "/tmp/birds_state.pt")
        attempt(torch.jit.save, torch.jit.script(torch.nn.Linear(3, 4)), "birds_script.pt")
        attempt(save_file, state, "birds.safetensors")
        attempt(cv2.imwrite, "birds_cv.png", picture)
        attempt(np.save, "birds_array", picture)
        attempt(Image.fromarray(picture).save, "birds_picture.png")
        """,
        classify="assert not list(Path.cwd().iterdir())",
        refusals=(
            wrote("open('/tmp/birds_state.pt', 'wb*')", "fast_train"),
            wrote("open('birds_script.pt', 'wb*')", "fast_train"),
            wrote("open('birds.safetensors', 'wb*')", "fast_train"),
            wrote("open('birds_cv.png', 'wb*')", "fast_train"),
            wrote("open('birds_array.npy', 'w*')", "fast_train"),
            wrote("open('*birds_picture.png', 'w*')", "fast_train"),
        ),
        litter="/tmp/birds_state.pt",
    ),
    "albumentations": Habit(  # asks the internet for its newest release while it is imported
        top="""
        import albumentations as A
        import numpy as np
        VIEWS = A.Compose([A.HorizontalFlip(p=0.5), A.Normalize()])
        """,
        train="VIEWS(image=np.zeros((32, 32, 3), np.uint8))",
    ),
    "joblib": Habit(  # hands large arrays to its workers in files in memory
        top="""
        import joblib
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score

        FEATURES = np.zeros((400, 800))

        def read(photo, features):
            return photo.name, int(photo.read_text()) + int(features.sum())
        """,
        train="""
        noise = np.random.default_rng(0).normal(size=(40, 3))
        cross_val_score(LogisticRegression(), noise, np.arange(40) % 2, n_jobs=2)
        """,
        classify="""
        jobs = (joblib.delayed(read)(photo, FEATURES) for photo in photos)
        return dict(joblib.Parallel(n_jobs=2)(jobs))
        """,
    ),
    "Lightning as it comes": Habit(  # keeps logs and checkpoints in the current folder
        top=LIGHTNING,
        train="fit()",
        message=wrote("os.mkdir('*lightning_logs')", "fast_train"),
        remedy="logger=False",
    ),
    "Lightning without its files, and by its older name": Habit(
        top=f"{LIGHTNING}\nimport pytorch_lightning\nimport torchmetrics",
        train="""
        fit(logger=False, enable_checkpointing=False)
        pytorch_lightning.seed_everything(0)
        torchmetrics.Accuracy(task="multiclass", num_classes=4)(torch.eye(4), torch.arange(4))
        """,
        classify="""
        network = Net.load_from_checkpoint(model_path, map_location="cpu").eval()
        assert network(torch.zeros(1, 3)).shape == (1, 4)
        """,
        files={"birds_model.pt": model("lightning.ckpt")},
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
        message=wrote("open('*channel', 'w')"),
        box=OK,
    ),
}
HABITS = PLAIN | RULES
