"""Hints for a student: why the testing system refuses something, and the remedy.

Nothing is decided here: the verdict is known already. A hint is a pair (why, remedy).
"""

import re
from pathlib import Path
from typing import Any

from course.environment import VERSIONS, differing_versions, python_versions
from grader.outcome import CHECK, Failure, Outcome, Problem
from grader.rules import ACCELERATOR, FILES, NETWORK
from grader.staging import Submission

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
        'work on the CPU: device "cpu" instead of .cuda(), torch.load(..., map_location="cpu"), '
        'accelerator="cpu" for Lightning',
    ),
}
LIGHTNING: Hint = (
    "Lightning keeps logs and checkpoints in files unless that is disabled",
    "give the Trainer logger=False, enable_checkpointing=False",
)
# By the name that is imported, where it is another.
PACKAGES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "PIL": "pillow"}
PACKAGES |= {"skimage": "scikit-image"}
UNREADABLE = "copy or download it again, or train it (python train_full.py)"
COMPARED = "the check compares the answers with all true labels, by file name"
# By a pattern in the lines of the phase and the error; the first that is found counts. Its groups,
# and the words of `_words`, fill the braces.
ERRORS: tuple[tuple[str, str, str], ...] = (
    # A missing name is compared with a superfluous one.
    (r"; it has .b'", COMPARED, "the keys are bytes: decode them, name.decode()"),
    (r"; it has .*[/\\]", COMPARED, "the keys are paths: use path.name, or os.path.basename(path)"),
    (
        r"lacks '[^']*\.\w+'.*; it has '[^.]*'$",
        COMPARED,
        "the keys lack the file's ending: use path.name, not path.stem",
    ),
    (
        rf"^{CHECK}$",
        COMPARED,
        "let classify return an answer for every file of its folder, under the file's name",
    ),
    (
        r"MemoryError|[Cc]an(no|')t allocate memory|bad_alloc",
        "it took more memory than the {memory:g} GiB that each process may have in this run; the "
        "testing system's own limit is not known",
        "take smaller batches or one photo at a time; --limit memory=GIB changes the limit",
    ),
    (
        r"does not end after its answer",
        "a thread or process that nobody joins keeps Python from ending: the testing system waits "
        "until its own limit",
        "join or end what you start (with ... as pool:, process.join()), or make it a daemon",
    ),
    (
        r"^over its time limit",
        "the testing system ends what takes too long (15 minutes for fast_train)",
        "do less; --limit {phase}=SECONDS changes the limit of a run here",
    ),
    (
        r"ended by SIGKILL",
        "the system killed the process, as a rule because this machine or container is short of "
        "memory; the table says how much the process had used",
        "take smaller batches, close other programs, or give the container more memory",
    ),
    (
        r"ended .* after its answer",
        "the answer was complete, but the process failed at shutdown, and its exit status counts",
        "check atexit handlers, and threads of libraries that still run at the end",
    ),
    (
        r"^SystemExit|exit status 0, without",
        "the process ended by itself before it had answered",
        "take out sys.exit, exit, os._exit, and parse_args: the command line is the script's",
    ),
    (
        r"Can't get attribute '(?P<name>\w+)' on <module '__main__'",
        "the file holds a whole network, pickled where its class {name} was in __main__; here it "
        "is not",
        "save its state_dict: torch.save(network.state_dict(), 'birds_model.pt'), and load it "
        "into a network that classify builds",
    ),
    (
        r"weights_only|Weights only load failed",
        "the file holds a whole pickled network, which torch from 2.6 on refuses by default; "
        "torch 2.4, which the testing system has, loads it",
        "save network.state_dict(), or give torch.load weights_only=False, which suits both",
    ),
    (
        r"on (a )?CUDA|No CUDA GPUs|with CUDA|NVIDIA driver|No supported gpu|CUDAAccelerator",
        *RULES[ACCELERATOR],
    ),
    (r"Hugging Face hub|huggingface|LocalEntryNotFound|internet connection", *WEIGHTS),
    (
        r"No module named '(?P<name>[^'.]+)",
        "{name} is neither Python's, nor installed, nor beside the code",
        "{module}",
    ),
    (
        r"Non-UTF-8 code|\(unicode error\)",
        "Python reads code as UTF-8, and this file is in another encoding",
        "save it as UTF-8 in your editor",
    ),
    (r"^(SyntaxError|IndentationError|TabError)", "it is not valid Python; {python}", "{syntax}"),
    (
        r"cannot import name '(?P<name>train_classifier|classify)'",
        "the testing system imports both functions, train_classifier and classify",
        "define {name} in the file that is imported, with this spelling",
    ),
    (
        r"invalid load key|not a ZIP|central directory|magic number|PytorchStreamReader|Unpickling",
        "birds_model.pt is damaged, or no file that torch.save has written",
        UNREADABLE,
    ),
    (
        r"^no model file",
        "classify gets the model that lies beside the code",
        "train it (python train_full.py), or name another with --model",
    ),
)
# What lies in place of a model, by its first bytes in lower case.
NO_MODELS: tuple[tuple[str, str, str], ...] = (
    (r"$", "empty", UNREADABLE),
    (r"version https://git-lfs", "a pointer of Git LFS, not the file itself", "git lfs pull"),
    (r"\s*<(!doctype|html)", "an HTML page, as a failed download leaves it", UNREADABLE),
    (r"[\s -~]+$", "a text", UNREADABLE),
)


def hint(problem: Problem, outcome: Outcome, submission: Submission) -> Hint:
    """Return why the testing system would refuse a problem, and what to do."""
    if isinstance(problem, Failure):
        known = _about_file(problem, submission) or _about_error(problem, submission)
        return known or _about_any(problem, outcome)
    if problem.wants_weights:
        return WEIGHTS
    lightning = any("lightning" in name.partition(".")[0] for name in problem.through)
    return LIGHTNING if lightning and problem.rule == FILES else RULES[problem.rule]


def _about_file(failure: Failure, submission: Submission) -> Hint | None:
    """Say what lies in place of the model, or that a path is relative to the wrong folder."""
    if failure.phase == "classify" and "torch" in failure.traceback:
        with submission.model.open("rb") as file:
            start = file.read(200).decode("latin-1").lower()
        for pattern, what, remedy in NO_MODELS:
            if re.match(pattern, start):
                return f"{submission.model.name} is {what}", remedy
    missing = re.search(r"FileNotFoundError: .*'(?P<name>[^']+)'$", failure.message)
    name = Path(missing["name"] if missing else "/")
    if not name.is_absolute() and (submission.folder / name).exists():
        return (
            "it lies beside the code, but the folder that the testing system starts in is unknown",
            f"write Path(__file__).parent / {name.as_posix()!r}; classify gets the model's path",
        )
    return None


def _about_error(failure: Failure, submission: Submission) -> Hint | None:
    for pattern, why, remedy in ERRORS:
        if found := re.search(pattern, f"{failure.phase}\n{failure.message}", re.MULTILINE):
            words = _words(failure, submission, **found.groupdict())
            return why.format(**words), remedy.format(**words)
    return None


def _words(failure: Failure, submission: Submission, name: str = "") -> dict[str, Any]:
    package = PACKAGES.get(name, name.replace("_", "-"))
    module = f"install what the course has: pip install {package}"
    if package not in VERSIONS:
        module = "do without it: the testing system has what requirements-course.txt lists"
    magic = re.search(r"^\s*[%!] ?\w", failure.traceback, re.MULTILINE)
    notebook = "take out the notebook's lines that begin with % or !: they are not Python"
    return {
        **{"name": name, "module": module, "python": python_versions()},
        **{"memory": submission.limits["memory"], "phase": failure.phase},
        "syntax": notebook if magic else "correct the line named above",
    }


def _about_any(failure: Failure, outcome: Outcome) -> Hint:
    """Return the general hint; the error may depend on a library's release."""
    remedy = "correct the line named above" if failure.where else "see the traceback and the output"
    differing = differing_versions(outcome.imported)
    text = f"{failure.message}\n{failure.traceback}"
    blamed = [words for words in differing if words.split()[0] in text] or differing
    if blamed and re.match(r"TypeError|AttributeError|ImportError|ValueError", failure.message):
        return (
            "an exception that leaves the submission is a runtime error; this one may come from "
            f"the release: {', '.join(blamed[:3])}",
            f"{remedy}, in a way that both releases take",
        )
    return "an exception that leaves the submission is a runtime error there, too", remedy
