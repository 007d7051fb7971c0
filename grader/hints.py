"""Hints for a student: why the testing system refuses something, and the remedy.

Nothing is decided here: the verdict is known already. A hint is a pair (why, remedy).
"""

import re

from grader.outcome import CHECK, Failure, Problem
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
# By a pattern in the lines of the phase and the error; the first that is found counts. Its groups,
# the phase and the memory limit fill the braces.
ERRORS: tuple[tuple[str, str, str], ...] = (
    (
        rf"^{CHECK}$",
        "the check compares the answers with all true labels, by file name",
        "let classify return an answer for every file of its folder, under the file's name as a "
        "text (path.name)",
    ),
    (
        r"^the result cannot be written",
        "the testing system writes it with '%s,%d' % (name, answer[name])",
        "let classify return a dict from file name to class id, an int: int(...)",
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
        r"^SystemExit|the process ended",
        "the process ended by itself: before it had answered, or with an exit status that counts",
        "take out sys.exit, exit, os._exit, and parse_args: the command line is the script's; "
        "check atexit handlers, and threads of libraries that still run at the end",
    ),
    (
        r"Can't get attribute '\w+' on <module '__main__'|weights_only|Weights only load failed",
        "the file holds a whole pickled network, which needs its class where it was, not in a "
        "notebook's __main__; torch from 2.6 on refuses it by default, torch 2.4, which the "
        "testing system has, loads it",
        "save its state_dict: torch.save(network.state_dict(), 'birds_model.pt'), and load it "
        "into a network that classify builds; or give torch.load weights_only=False",
    ),
    (
        r"on (a )?CUDA|No CUDA GPUs|with CUDA|NVIDIA driver|No supported gpu|CUDAAccelerator",
        *RULES[ACCELERATOR],
    ),
    (r"Hugging Face hub|huggingface|LocalEntryNotFound|internet connection", *WEIGHTS),
    (
        r"No module named '(?P<name>[^'.]+)",
        "{name} is neither Python's, nor installed, nor beside the code",
        "install it if the testing system has it (requirements-course.txt), else do without it",
    ),
    (
        r"^no model file|invalid load key|not a ZIP|central directory|magic number"
        r"|PytorchStreamReader|Unpickling",
        "birds_model.pt, which lies beside the code, is missing, damaged, or no file that "
        "torch.save has written",
        "copy or download it again (with Git LFS: git lfs pull), train it (python train_full.py), "
        "or name another with --model",
    ),
)
ANY_ERROR: Hint = (
    "an exception that leaves the submission is a runtime error there, too",
    "correct what the message and the traceback name, for Python 3.12 and the releases of the "
    "testing system (requirements-course.txt)",
)


def hint(problem: Problem, submission: Submission) -> Hint:
    """Return why the testing system would refuse a problem, and what to do."""
    if not isinstance(problem, Failure):
        if problem.wants_weights:
            return WEIGHTS
        lightning = any("lightning" in name.partition(".")[0] for name in problem.through)
        return LIGHTNING if lightning and problem.rule == FILES else RULES[problem.rule]
    missing = re.search(r"FileNotFoundError: .*'([^'/][^']*)'$", problem.message)
    if missing and (submission.folder / missing[1]).exists():
        return (
            "it lies beside the code, but the folder that the testing system starts in is unknown",
            f"write Path(__file__).parent / {missing[1]!r}; classify gets the model's path",
        )
    for pattern, why, remedy in ERRORS:
        if found := re.search(pattern, f"{problem.phase}\n{problem.message}", re.MULTILINE):
            words = {"memory": submission.limits["memory"], "phase": problem.phase}
            words |= found.groupdict()
            return why.format(**words), remedy.format(**words)
    return ANY_ERROR
