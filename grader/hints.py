"""Hints for a student: why the testing system refuses something, and the remedy.

Nothing is decided here: the verdict is there already. A hint is a pair (why, remedy).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course.environment import VERSIONS, differing_versions, python_versions
from grader.outcome import Failure, Outcome, Refusal
from grader.rules import ACCELERATOR, FILES, NETWORK

Hint = tuple[str, str]

WEIGHTS: Hint = (
    "the testing system has no pretrained weights and no internet to fetch them from",
    "use weights=None (timm: pretrained=False) where fast_train is set, and in classify, whose "
    "weights all come from birds_model.pt",
)
RULES: dict[str, Hint] = {
    NETWORK: (
        "the testing system has no internet; the call fails there as it did here",
        "take it out, or keep what it fetches in birds_model.pt",
    ),
    FILES: (
        "a submission must not write files: its folder is read-only there",
        "take the write out: what classify needs belongs in birds_model.pt, saved by a script of "
        "your own; what must pass between functions belongs in memory (io.BytesIO)",
    ),
    ACCELERATOR: (
        "a submission must not use a graphics accelerator, and the testing system has none",
        'work on the CPU: device "cpu", and torch.load(..., map_location="cpu")',
    ),
}
LIGHTNING: Hint = (
    "Lightning keeps logs and checkpoints in files unless it is told not to",
    "give the Trainer logger=False, enable_checkpointing=False",
)
# By a pattern in the error's text; the first that is found counts. Groups fill the braces.
ERRORS: tuple[tuple[str, str, str], ...] = (
    (
        r"MemoryError|an't allocate memory|annot allocate memory|bad_alloc",
        "it took more memory than the {memory:g} GiB that each process may have in this run; the "
        "testing system's own limit is not known",
        "take smaller batches or one photo at a time; --limit memory=GIB changes the limit",
    ),
    (
        r"does not end after its answer",
        "a thread that is no daemon, or a process that nobody joins, keeps Python from ending: "
        "the testing system waits until its own limit",
        "join or end what you start (with ... as pool:, process.join()), or make it a daemon",
    ),
    (
        r"^over its time limit",
        "the testing system ends what takes too long (15 minutes for fast_train)",
        "do less; --limit {phase}=SECONDS changes the limit of a run here",
    ),
    (
        r"ended (by|with exit status).* after its answer",
        "the answer was there, but the process failed while it ended: the testing system sees "
        "the exit status",
        "look at handlers of atexit, and at threads of libraries that still run at the end",
    ),
    (
        r"SystemExit|ended with exit status 0, without",
        "the process ended by itself before it had answered",
        "take out sys.exit, exit and os._exit, and argparse's parse_args: the words on the "
        "command line are the script's",
    ),
    (
        r"weights_only|Weights only load failed",
        "the file holds a whole pickled network: torch from 2.6 on refuses it unless told, torch "
        "2.4, which the testing system has, loads it",
        "save network.state_dict() instead of the network, or give torch.load "
        "weights_only=False, which works with both",
    ),
    (
        r"Can't get attribute '(?P<name>\w+)' on <module '__main__'",
        "the file holds a whole network that was pickled in a notebook or script, where its class "
        "{name} was in __main__; there it is not",
        "save its state_dict: torch.save(network.state_dict(), 'birds_model.pt'), and load it "
        "into a network that classify builds",
    ),
    (
        r"deserialize object on a CUDA device|deserialize object on CUDA",
        "the model was saved on a graphics accelerator, and the testing system has none",
        'give torch.load map_location="cpu"',
    ),
    (
        r"No CUDA GPUs|not compiled with CUDA|NVIDIA driver|No supported gpu backend|"
        r"CUDAAccelerator|MPSAccelerator|accelerator can not run",
        "the testing system has no graphics accelerator",
        'work on the CPU: device "cpu" instead of .cuda(), accelerator="cpu" for Lightning',
    ),
    (r"Hugging Face hub|huggingface|LocalEntryNotFound|couldn't connect to 'https", *WEIGHTS),
    (
        r"No module named '(?P<name>[^'.]+)",
        "{name} is neither Python's, nor installed, nor beside the code",
        "{module}",
    ),
    (
        r"Non-UTF-8 code|codec can't decode byte.*\(\w+\.py|\(unicode error\)",
        "Python reads code as UTF-8, and this file is in another encoding",
        "save it as UTF-8 in your editor",
    ),
    (
        r"^(SyntaxError|IndentationError|TabError)",
        "Python cannot read the code; {python}",
        "{syntax}",
    ),
    (
        r"cannot import name '(?P<name>train_classifier|classify)'",
        "the testing system imports both functions, train_classifier and classify",
        "define {name} in the file that is imported, with this spelling",
    ),
    (
        r"PermissionError: .*'(?P<name>[^']+)'",
        "{name} may not be read by this user",
        "change the file's mode or owner",
    ),
    (
        r"invalid load key|not a ZIP archive|finding central directory|invalid magic number|"
        r"PytorchStreamReader failed|UnpicklingError",
        "birds_model.pt is damaged, or no file that torch.save has written",
        "look whether the download or the copy is whole, or train it again",
    ),
)

_NO_FILE = re.compile(r"FileNotFoundError: .*'(?P<name>[^']+)'$")


def hint(
    problem: Failure | Refusal | str, outcome: Outcome, submission: Path, model: Path,
    limits: Mapping[str, float],
) -> Hint:  # fmt: skip
    """Return why the testing system would refuse it, and what to do.

    Args:
        problem: what happened; a text if it is the check that failed.
        outcome: of the run.
        submission: the folder with the code.
        model: the model file.
        limits: those of the run.
    """
    if isinstance(problem, Refusal):
        if problem.wants_weights:
            return WEIGHTS
        lightning = any(
            name.startswith(("lightning", "pytorch_lightning")) for name in problem.through
        )
        return LIGHTNING if lightning and problem.rule == FILES else RULES[problem.rule]
    if isinstance(problem, str):
        return _about_answer(problem)
    return (
        _about_model(problem, model)
        or _about_file(problem.message, submission)
        or _about_error(problem, limits)
        or _about_versions(problem, outcome)
    )


def _about_answer(problem: str) -> Hint:
    """Compare a name that is missing with one that is there."""
    found = re.search(
        r"lacks '(?P<lacks>[^']+)'.*; it has (?P<quote>['\"])(?P<has>.*)(?P=quote)$", problem
    )
    lacks, has = (found["lacks"], found["has"]) if found else ("", "")
    remedy = "let classify return an answer for every file of its folder, under the file's name"
    if has.startswith("b'"):
        remedy = "the keys are bytes: decode them, name.decode()"
    elif "/" in has or "\\" in has:
        remedy = "the keys are paths: use path.name, or os.path.basename(path)"
    elif has and not Path(has).suffix and Path(lacks).suffix:
        remedy = "the keys lack the file's ending: use path.name, not path.stem"
    return "the check compares the answers with all true labels, by file name", remedy


def _about_model(failure: Failure, model: Path) -> Hint | None:
    """Say what lies there instead of a model."""
    if failure.phase not in ("classify", "start"):
        return None
    if failure.message.startswith("no model file"):
        return (
            "classify gets the model that lies beside the code",
            "train it (python train_full.py), or name another with --model",
        )
    try:
        with model.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        return f"{model} cannot be read: {error.strerror}", "change the file's mode or owner"
    kinds = (
        (not start, "empty", "copy or train it again"),
        (
            start.startswith(b"version https://git-lfs"),
            "a pointer of Git LFS, not the file itself",
            "fetch the file: git lfs pull",
        ),
        (
            start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")),
            "an HTML page, as a download that failed leaves it",
            "download the model again",
        ),
        (
            "torch" in failure.traceback and _is_text(start),
            "a text",
            "copy or train it again (python train_full.py)",
        ),
    )
    for found, what, remedy in kinds:
        if found:
            return f"{model.name} is {what}", remedy
    return None


def _is_text(start: bytes) -> bool:
    try:
        return start.decode("utf-8").isprintable() or b"\n" in start
    except UnicodeDecodeError:
        return False


def _about_file(text: str, submission: Path) -> Hint | None:
    """Find a file that is looked for in the wrong place."""
    file = _NO_FILE.search(text)
    if file and not Path(file["name"]).is_absolute() and (submission / file["name"]).exists():
        name = Path(file["name"])
        return (
            "it lies beside the code, but the folder that the testing system starts in is unknown",
            f"write Path(__file__).parent / {name.as_posix()!r}; classify gets the model's path",
        )
    return None


def _about_error(failure: Failure, limits: Mapping[str, float]) -> Hint | None:
    for pattern, why, remedy in ERRORS:
        found = re.search(pattern, failure.message)
        if found:
            words: dict[str, Any] = {
                **found.groupdict(),
                "memory": limits["memory"],
                "phase": failure.phase,
                "python": python_versions(),
                "syntax": _about_syntax(failure),
            }
            words["module"] = _about_module(str(words.get("name", "")))
            return why.format(**words), remedy.format(**words)
    return None


def _about_module(name: str) -> str:
    known = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "PIL": "pillow"}
    package = known.get(name, name.replace("_", "-"))
    if package in VERSIONS or name == "skimage":
        return f"install it here as the course has it: pip install {package or 'scikit-image'}"
    return (
        "do without it: the testing system has what requirements-course.txt lists; a module of "
        "your own belongs beside the code"
    )


def _about_syntax(failure: Failure) -> str:
    lines = failure.traceback.splitlines()
    if any(re.match(r"\s*[%!]\s*\w", line) for line in lines):
        return "take out the notebook's lines that begin with % or !, they are no Python"
    return "correct the line named above"


def _about_versions(failure: Failure, outcome: Outcome) -> Hint:
    """Say what holds for any error: it is one there, too, unless another release decides."""
    differing = differing_versions(outcome.imported)
    text = f"{failure.message}\n{failure.traceback}"
    blamed = [words for words in differing if words.split()[0] in text] or differing
    remedy = "correct the line named above" if failure.where else "see the traceback and the output"
    if blamed and re.match(r"TypeError|AttributeError|ImportError|ValueError", failure.message):
        return (
            "an exception that leaves the submission is a runtime error; this one may come from "
            f"the release: {', '.join(blamed[:3])}",
            f"{remedy}, in a way that both releases take",
        )
    return "an exception that leaves the submission is a runtime error there, too", remedy
