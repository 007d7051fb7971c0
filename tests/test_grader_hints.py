"""What a student reads: why and what to do for each kind of failure, on 80 columns.

The errors are those that the libraries raise, word for word; the fixtures run them for real.
"""

import pytest

from course.environment import unknown_packages
from grader.outcome import CHECK, Failure, Refusal
from grader.report import say, show_hint
from grader.rules import ACCELERATOR, DIRECT, FILES, NETWORK, VIA_LIBRARY
from grader.staging import Submission

FIT = ("lightning.pytorch.trainer.trainer.fit",)
HUB = ("huggingface_hub.file_download.hf_hub_download", "timm.models._hub.load")


def error(message, phase="classify"):
    return Failure(phase, message, "solution.py:7")


def refused(rule, kind=DIRECT, through=()):
    return Refusal("classify", rule, "call()", kind, "solution.py:7", through)


CUDA = ("no", "graphics accelerator", 'map_location="cpu"')
# What went wrong, a part of why the testing system refuses it, a part of the remedy.
HINTS = {
    "lightning's files": (refused(FILES, VIA_LIBRARY, FIT), "Lightning keeps", "logger=False"),
    "a file": (refused(FILES), "must not write files", "take the write out"),
    "the internet": (refused(NETWORK), "has no internet", "take it out"),
    "pretrained weights": (refused(NETWORK, VIA_LIBRARY, HUB), "no pretrained", "weights=None"),
    "a driver": (refused(ACCELERATOR), *CUDA),
    ".cuda()": (error("AssertionError: Torch not compiled with CUDA enabled"), *CUDA),
    "a model saved on CUDA": (
        error("RuntimeError: Attempting to deserialize object on a CUDA device but ..."),
        *CUDA,
    ),
    "a network pickled in a notebook": (
        error("AttributeError: Can't get attribute 'Net' on <module '__main__' from '/c/run.py'>"),
        "whole pickled network",
        "save its state_dict",
    ),
    "a network that torch refuses": (
        error("UnpicklingError: Weights only load failed. Re-running `torch.load` with ..."),
        "from 2.6 on refuses it",
        "weights_only=False",
    ),
    "a missing library": (
        error("ModuleNotFoundError: No module named 'tensorflow'", "import"),
        "tensorflow is neither Python's, nor installed",
        "requirements-course.txt",
    ),
    "other names": (error("the answer lacks '0000.jpg'", CHECK), "by file name", "path.name"),
    "an answer of texts": (
        error("the result cannot be written: TypeError: %d format: a real number is required"),
        "'%s,%d' % (name, answer[name])",
        "int(...)",
    ),
    "a damaged model": (
        error("UnpicklingError: invalid load key, 'v'."),
        "no file that torch.save has written",
        "git lfs pull",
    ),
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
    "any error": (error("ZeroDivisionError: division by zero"), "runtime error", "traceback"),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_student_reads_why_and_what_to_do(name, tmp_path, capsys):
    problem, *parts = HINTS[name]
    show_hint(problem, Submission(tmp_path, tmp_path / "birds_model.pt"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(map(str.strip, lines))
    why, remedy = text.removeprefix("Why: ").split(" What to do: ")
    assert parts[0] in why
    assert parts[-1] in remedy
    assert all(part in text for part in parts)


def test_control_codes_are_shown_and_not_obeyed(capsys):
    say("\x1b[2J\x07Ü \U0001f426\n")
    assert capsys.readouterr().out == "\\x1b[2J\\x07Ü \U0001f426\n\n"


def test_packages_are_held_against_the_courses():
    assert unknown_packages(["pytest", "torch", "numpy", "PIL"]) == [
        f"pytest (pytest {pytest.__version__})"
    ]
