"""What a student reads: one golden text a kind of failure, as it stands on 80 columns.

The errors are those that the libraries raise, word for word; the fixtures run them for real.
"""

import pytest

from course.check import check_answer
from course.environment import VERSIONS, differing_versions, unknown_packages
from course.layout import CheckerError
from grader.hints import hint
from grader.outcome import Failure, Outcome, Refusal
from grader.report import _show_hint, harmless
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
    return str(caught.value)


GOLDEN = {
    "lightning's files": (
        refused(FILES, VIA_LIBRARY, FIT),
        """
   Why: Lightning keeps logs and checkpoints in files unless it is told not to
   What to do: give the Trainer logger=False, enable_checkpointing=False
""",
    ),
    "a file": (
        refused(FILES),
        """
   Why: a submission must not write files: its folder is read-only there
   What to do: take the write out: what classify needs belongs in
      birds_model.pt, saved by a script of your own; what must pass between
      functions belongs in memory (io.BytesIO)
""",
    ),
    "the internet": (
        refused(NETWORK),
        """
   Why: the testing system has no internet; the call fails there as it did here
   What to do: take it out, or keep what it fetches in birds_model.pt
""",
    ),
    "a driver": (
        refused(ACCELERATOR),
        """
   Why: a submission must not use a graphics accelerator, and the testing system
      has none
   What to do: work on the CPU: device "cpu", and torch.load(...,
      map_location="cpu")
""",
    ),
    "pretrained weights": (
        refused(NETWORK, VIA_LIBRARY, HUB),
        """
   Why: the testing system has no pretrained weights and no internet to fetch
      them from
   What to do: use weights=None (timm: pretrained=False) where fast_train is
      set, and in classify, whose weights all come from birds_model.pt
""",
    ),
    ".cuda()": (
        error("AssertionError: Torch not compiled with CUDA enabled"),
        """
   Why: the testing system has no graphics accelerator
   What to do: work on the CPU: device "cpu" instead of .cuda(),
      accelerator="cpu" for Lightning
""",
    ),
    'accelerator="gpu"': (
        error("MisconfigurationException: No supported gpu backend found!"),
        """
   Why: the testing system has no graphics accelerator
   What to do: work on the CPU: device "cpu" instead of .cuda(),
      accelerator="cpu" for Lightning
""",
    ),
    "a model saved on CUDA": (
        error("RuntimeError: Attempting to deserialize object on a CUDA device but ..."),
        """
   Why: the model was saved on a graphics accelerator, and the testing system
      has none
   What to do: give torch.load map_location="cpu"
""",
    ),
    "a network pickled in a notebook": (
        error("AttributeError: Can't get attribute 'Net' on <module '__main__' from '/c/run.py'>"),
        """
   Why: the file holds a whole network that was pickled in a notebook or script,
      where its class Net was in __main__; there it is not
   What to do: save its state_dict: torch.save(network.state_dict(),
      'birds_model.pt'), and load it into a network that classify builds
""",
    ),
    "a missing library": (
        error("ModuleNotFoundError: No module named 'tensorflow'", "import"),
        """
   Why: tensorflow is neither Python's, nor installed, nor beside the code
   What to do: do without it: the testing system has what
      requirements-course.txt lists
""",
    ),
    "a library of the course's": (
        error("ModuleNotFoundError: No module named 'cv2'", "import"),
        """
   Why: cv2 is neither Python's, nor installed, nor beside the code
   What to do: install what the course has: pip install opencv-python-headless
""",
    ),
    "a notebook": (
        error("SyntaxError: invalid syntax (solution.py, line 1)", "import", "solution.py:1",
              '  File "solution.py", line 1\n    %matplotlib inline\n    ^\n'),
        """
   Why: Python cannot read the code; Python * runs here, 3.12 there
   What to do: take out the notebook's lines that begin with % or !, they are no
      Python
""",
    ),
    "an encoding": (
        error("SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xcf", "import"),
        """
   Why: Python reads code as UTF-8, and this file is in another encoding
   What to do: save it as UTF-8 in your editor
""",
    ),
    "keys of bytes": (
        lacking(b"0000.jpg".__repr__()),
        """
   Why: the check compares the answers with all true labels, by file name
   What to do: the keys are bytes: decode them, name.decode()
""",
    ),
    "keys without an ending": (
        lacking("0000", "0001"),
        """
   Why: the check compares the answers with all true labels, by file name
   What to do: the keys lack the file's ending: use path.name, not path.stem
""",
    ),
    "keys that are paths": (
        lacking("/data/images/0000.jpg"),
        """
   Why: the check compares the answers with all true labels, by file name
   What to do: the keys are paths: use path.name, or os.path.basename(path)
""",
    ),
    "a process that does not end": (
        error("over its time limit of 120 s: the process does not end after its answer", "exit"),
        """
   Why: a thread that is no daemon, or a process that nobody joins, keeps Python
      from ending: the testing system waits until its own limit
   What to do: join or end what you start (with ... as pool:, process.join()),
      or make it a daemon
""",
    ),
    "a release that differs": (
        error("TypeError: ReduceLROnPlateau.__init__() got an unexpected argument 'verbose'"),
        """
   Why: an exception that leaves the submission is a runtime error; this one may
      come from the release: torch * here, 2.4.1 there
   What to do: correct the line named above, in a way that both releases take
""",
    ),
    "any error": (
        error("ZeroDivisionError: division by zero"),
        """
   Why: an exception that leaves the submission is a runtime error there, too
   What to do: correct the line named above
""",
    ),
}  # fmt: skip


@pytest.fixture
def submission(tmp_path):
    (tmp_path / "birds_model.pt").write_bytes(b"PK\x03\x04")
    return Submission(tmp_path, tmp_path / "birds_model.pt")


@pytest.mark.parametrize("name", GOLDEN)
def test_a_student_reads_why_and_what_to_do(name, submission, capsys, monkeypatch):
    monkeypatch.setattr("course.environment._version", lambda name: {"torch": "2.14.1"}.get(name))
    problem, text = GOLDEN[name]
    _show_hint(problem, Outcome(imported=["torch", "numpy"]), submission)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    wanted = text.strip("\n").splitlines()
    assert len(lines) == len(wanted), lines
    for line, want in zip(lines, wanted, strict=True):
        head, star, tail = want.partition("*")
        assert line.startswith(head)
        assert line.endswith(tail) if star else line == want


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


def test_control_codes_are_shown_and_not_obeyed():
    assert harmless("\x1b[2J\x07Ü \U0001f426\n") == "\\x1b[2J\\x07Ü \U0001f426\n"


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
