"""python -m tests.mutation: puts faults into copies of the checkout, one at a time, runs the tests
that should notice, and prints which faults were killed and which stayed alive.

Exit status: 0 where at most 5 % of the faults survive, else 1; 2 where a fault's text is no longer
found, or the tests fail without a fault.
"""

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from course.cli import positive
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.trial import PASSED, ROOT, run_tests, verdict

MOST_ALIVE, WORKERS = 0.05, 2  # of the faults; faults tried side by side


def chosen(share: int, seed: int, word: str) -> list[Fault]:
    """A seeded one in `share` of the faults with a word in their file or in what is lost."""
    faults = [fault for fault in FAULTS if word in str(fault)]
    count = math.ceil(len(faults) / share)
    return sorted(random.Random(seed).sample(faults, count), key=FAULTS.index)


def judge(fault: Fault) -> str:
    """The verdict on a fault, which is printed."""
    start = time.perf_counter()
    word, by = verdict(fault)
    print(f"{word:7} {time.perf_counter() - start:5.0f} s  {fault}  {by}", flush=True)
    return word


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--share", type=positive, default=1, metavar="N", help="try one in N")
    parser.add_argument("--seed", type=int, default=0, help="of the choice; default: 0")
    parser.add_argument("--only", default="", metavar="WORD", help="in the fault's file or text")
    options = parser.parse_args(arguments)
    faults = chosen(options.share, options.seed, options.only)
    if not faults:
        parser.error(f"no fault with {options.only!r} in its file or text")
    if problems := [problem for fault in FAULTS if (problem := fault.problem(ROOT))]:
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # faults are tried side by side instead
    start = time.perf_counter()
    status, said = run_tests(faults)
    if status != PASSED:
        print(said, "Error: the tests fail without a fault: correct that first", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    print(f"{len(faults)} faults; their tests pass without them, in {seconds:.0f} s", flush=True)
    with ThreadPoolExecutor(WORKERS) as pool:
        words = list(pool.map(judge, faults))
    alive = [fault for fault, word in zip(faults, words, strict=True) if word != "killed"]
    print(f"{len(faults) - len(alive)} of {len(faults)} faults killed")
    for fault in alive:
        print(f"not killed: {fault}")
    return 0 if len(alive) <= MOST_ALIVE * len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
