"""Words for a student: why the testing system refuses something, and what to do about it.

Nothing is decided here: the verdict is there already.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from grader.process import Failure, Refusal
from grader.rules import ACCELERATOR, FILES, NETWORK

_NO_MEMORY = re.compile(r"MemoryError|can't allocate memory|Cannot allocate memory|bad_alloc")
_NO_FILE = re.compile(r"FileNotFoundError: .*'(?P<name>[^']+)'$")
_NO_MODULE = re.compile(r"No module named '(?P<name>[^'.]+)")

_WEIGHTS = (
    "the testing system has no pretrained weights and no internet to fetch them from",
    "use weights=None (timm: pretrained=False) where fast_train is set, and in classify, whose "
    "weights all come from birds_model.pt",
)
_RULES = {
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


def advice(
    problem: Failure | Refusal | str, submission: Path, limits: Mapping[str, float]
) -> tuple[str, str]:
    """Why the testing system would refuse it, and what to do.

    Args:
        problem: what happened; a text if it is the check that failed.
        submission: the folder with the code.
        limits: those of the run.
    """
    if isinstance(problem, Refusal):
        return _WEIGHTS if problem.wants_weights else _RULES[problem.rule]
    if isinstance(problem, str):
        return (
            "the check compares the answers with all true labels",
            "let classify return an answer for every file of its folder, under the file's name",
        )
    return _about_error(problem, submission, limits)


def _about_error(
    failure: Failure, submission: Path, limits: Mapping[str, float]
) -> tuple[str, str]:
    text = failure.message
    if _NO_MEMORY.search(text):
        return (
            f"it took more memory than the {limits['memory']:g} GiB that this run allows; the "
            "testing system's own limit is not known",
            "take smaller batches or one photo at a time; --limit memory=GIB changes the limit",
        )
    if "Hugging Face hub" in text:  # timm's words, where the hub's package is none it can use
        return _WEIGHTS
    if text.startswith("over its time limit"):
        return (
            "the testing system ends what takes too long (15 minutes for fast_train)",
            f"do less; --limit {failure.phase}=SECONDS changes the limit of a run here",
        )
    if "Weights only load failed" in text or "weights_only" in text:
        return (
            "torch from 2.6 on refuses to unpickle whole objects; torch 2.4, which the testing "
            "system had in 2024, loads them",
            "save network.state_dict() instead of the network, or give torch.load "
            "weights_only=False, which works with both",
        )
    return _about_names(text, submission) or (
        "an exception that leaves the submission is a runtime error there, too",
        "mend the line named above" if failure.where else "see the traceback and the output",
    )


def _about_names(text: str, submission: Path) -> tuple[str, str] | None:
    """A file or a module that is looked for in the wrong place."""
    file = _NO_FILE.search(text)
    if file and not Path(file["name"]).is_absolute() and (submission / file["name"]).exists():
        name = Path(file["name"])
        return (
            "it lies beside the code, but the folder that the testing system starts in is unknown",
            f"write Path(__file__).parent / {name.as_posix()!r}; classify gets the model's path",
        )
    module = _NO_MODULE.search(text)
    if module:
        return (
            "it is neither installed nor beside the code",
            f"put {module['name']}.py beside the code, or do without it: the testing system has "
            "what requirements-course.txt lists",
        )
    return None
