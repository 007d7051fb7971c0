"""What a student reads: why and what to do for each kind of failure, on 80 columns.

The errors are those that the libraries raise, word for word; the fixtures run them for real.
"""

import pytest

from course.check import check_answer
from course.environment import VERSIONS, differing_versions, unknown_packages
from course.layout import CheckerError
from grader.hints import hint
from grader.outcome import CHECK, Failure, Outcome, Refusal
from grader.report import say, show_hint
from grader.rules import ACCELERATOR, DIRECT, FILES, NETWORK, VIA_LIBRARY
from grader.staging import Submission

FIT = ("lightning.pytorch.trainer.trainer.fit",)
HUB = ("huggingface_hub.file_download.hf_hub_download", "timm.models._hub.load")


def error(message, phase="classify", where="solution.py:7", traceback=""):
    return Failure(phase, message, where, traceback)


def refused(rule, kind=DIRECT, through=()):
    return Refusal("classify", rule, "call()", kind, "solution.py:7", through)


def lacking(*keys):
    with pytest.raises(CheckerError) as caught:
        check_answer(dict.fromkeys(keys, 0), {"0000.jpg": 0, "0001.jpg": 1})
    return Failure(CHECK, str(caught.value))


CUDA = ("no", "graphics accelerator", 'map_location="cpu"')
# What went wrong, a part of why the testing system refuses it, a part of the remedy.
HINTS = {
    "lightning's files": (refused(FILES, VIA_LIBRARY, FIT), "Lightning keeps", "logger=False"),
    "a file": (refused(FILES), "must not write files", "take the write out"),
    "the internet": (refused(NETWORK), "has no internet", "take it out"),
    "pretrained weights": (refused(NETWORK, VIA_LIBRARY, HUB), "no pretrained", "weights=None"),
    "a driver": (refused(ACCELERATOR), *CUDA),
    ".cuda()": (error("AssertionError: Torch not compiled with CUDA enabled"), *CUDA),
    "a gpu": (error("MisconfigurationException: No supported gpu backend found!"), *CUDA),
    "a model saved on CUDA": (
        error("RuntimeError: Attempting to deserialize object on a CUDA device but ..."),
        *CUDA,
    ),
    "a network pickled in a notebook": (
        error("AttributeError: Can't get attribute 'Net' on <module '__main__' from '/c/run.py'>"),
        "its class Net was in __main__",
        "save its state_dict",
    ),
    "a missing library": (
        error("ModuleNotFoundError: No module named 'tensorflow'", "import"),
        "tensorflow is neither Python's, nor installed",
        "requirements-course.txt",
    ),
    "a library of the course's": (
        error("ModuleNotFoundError: No module named 'cv2'", "import"),
        "cv2 is neither Python's, nor installed",
        "pip install opencv-python-headless",
    ),
    "another library of the course's": (
        error("ModuleNotFoundError: No module named 'skimage.io'", "import"),
        "skimage is neither Python's, nor installed",
        "pip install scikit-image",
    ),
    "a notebook": (
        error(
            "SyntaxError: invalid syntax (solution.py, line 1)",
            "import",
            traceback='  File "solution.py", line 1\n    %matplotlib inline\n    ^\n',
        ),
        "3.12 there",
        "begin with % or !",
    ),
    "an encoding": (
        error("SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xcf", "import"),
        "reads code as UTF-8",
        "save it as UTF-8",
    ),
    "keys of bytes": (lacking("b'0000.jpg'"), "by file name", "name.decode()"),
    "keys without an ending": (lacking("0000", "0001"), "by file name", "not path.stem"),
    "keys that are paths": (lacking("/data/images/0000.jpg"), "by file name", "use path.name"),
    "a process that does not end": (
        error("over its time limit of 120 s: the process does not end after its answer", "exit"),
        "keeps Python from ending",
        "process.join()",
    ),
    "killed": (
        error("the process ended by SIGKILL, without an answer"),
        "short of memory",
        "smaller batches",
    ),
    "too slow": (error("over its time limit of 900 s"), "too long", "--limit classify=SECONDS"),
    "a release that differs": (
        error("TypeError: ReduceLROnPlateau.__init__() got an unexpected argument 'verbose'"),
        "torch 2.14.1 here, 2.4.1 there",
        "correct the line named above",
    ),
    "any error": (error("ZeroDivisionError: division by zero"), "runtime error", "line named"),
}


@pytest.fixture
def submission(tmp_path):
    (tmp_path / "birds_model.pt").write_bytes(b"PK\x03\x04")
    return Submission(tmp_path, tmp_path / "birds_model.pt")


@pytest.mark.parametrize("name", HINTS)
def test_a_student_reads_why_and_what_to_do(name, submission, capsys, monkeypatch):
    monkeypatch.setattr("course.environment._version", lambda name: {"torch": "2.14.1"}.get(name))
    problem, *parts = HINTS[name]
    show_hint(problem, Outcome(imported=["torch", "numpy"]), submission)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(map(str.strip, lines))
    why, remedy = text.removeprefix("Why: ").split(" What to do: ")
    assert parts[0] in why
    assert parts[-1] in remedy
    assert all(part in text for part in parts)


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML page", "download it again"),
        (b"", "empty", "again"),
        (b"hello\n", "a text", "python train_full.py"),
    ],
)
def test_what_lies_in_place_of_a_model_is_named(submission, content, what, remedy):
    submission.model.write_bytes(content)
    failure = error("UnpicklingError: invalid load key, 'v'.", traceback="torch/serialization.py")
    why, to_do = hint(failure, Outcome(), submission)
    assert what in why
    assert remedy in to_do


def test_control_codes_are_shown_and_not_obeyed(capsys):
    say("\x1b[2J\x07Ü \U0001f426\n")
    assert capsys.readouterr().out == "\\x1b[2J\\x07Ü \U0001f426\n\n"


def test_packages_are_held_against_the_courses():
    assert unknown_packages(["pytest", "torch", "numpy", "PIL"]) == [
        f"pytest (pytest {pytest.__version__})"
    ]
    assert all("here, " in words for words in differing_versions(["numpy", "torch"]))


def test_the_pinned_environment_is_the_courses():
    from pathlib import Path

    file = Path(__file__).parents[1] / "requirements-course.txt"
    pins = (line.split("==") for line in file.read_text().splitlines() if "==" in line)
    assert [(name, pin) for name, pin in pins if VERSIONS.get(name) != pin] == []
