"""python -m tests.mutation: puts faults into copies of the checkout, one at a time, runs the tests
that should notice, and prints which faults were killed and which stayed alive.

Exit status: 0 where at most 5 % of the faults survive, else 1; 2 where a fault's text is no longer
found, or the tests fail without a fault.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.fault import Fault
from tests.mutation.faults import FAULTS
from tests.mutation.trial import PASSED, ROOT, checkout, status_of, verdict

MOST_ALIVE = 0.05  # of the faults


def chosen(share: int, seed: int, word: str) -> list[Fault]:
    """A seeded one in `share` of the faults with a word in their file or in what is lost."""
    faults = [fault for fault in FAULTS if word in str(fault)]
    count = min(len(faults), max(1, round(len(faults) / share)))
    return sorted(random.Random(seed).sample(faults, count), key=FAULTS.index)


def stale(faults: Sequence[Fault]) -> list[str]:
    """What is to be said of faults that no longer fit the project."""
    return [problem for fault in faults if (problem := fault.problem(ROOT))]


def seconds_without(faults: Sequence[Fault]) -> float | None:
    """How long all tests of these faults take where there is none; None if they do not pass."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        paths = sorted({path for fault in faults for path in fault.paths})
        status, said = status_of(checkout(Path(folder)), paths)
    if status == PASSED:
        return time.perf_counter() - start
    print(said, "Error: the tests fail without a fault: correct that first", file=sys.stderr)
    return None


def run(faults: Sequence[Fault], workers: int) -> list[str]:
    """The verdict on each fault, printed as it comes."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        roots: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            roots.put(checkout(Path(folder, str(number))))

        def judge(fault: Fault) -> str:
            root = roots.get()
            start = time.perf_counter()
            word, by = verdict(fault, root)
            roots.put(root)
            print(f"{word:7} {time.perf_counter() - start:5.0f} s  {fault}  {by}", flush=True)
            return word

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(judge, faults))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--share", type=int, default=1, metavar="N", help="try one fault in N")
    parser.add_argument("--seed", type=int, default=0, help="of the choice; default: 0")
    parser.add_argument("--only", default="", metavar="WORD", help="in the fault's file or text")
    parser.add_argument("--workers", type=int, default=2, help="faults side by side; default: 2")
    options = parser.parse_args(arguments)
    if options.share < 1 or options.workers < 1:
        parser.error("--share and --workers are 1 or more")
    faults = chosen(options.share, options.seed, options.only)
    if not faults:
        parser.error(f"no fault with {options.only!r} in its file or text")
    if problems := stale(FAULTS):
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # faults are tried side by side instead
    seconds = seconds_without(faults)
    if seconds is None:
        return 2
    print(f"{len(faults)} faults; their tests pass without them, in {seconds:.0f} s", flush=True)
    words = run(faults, options.workers)
    alive = [f"  {fault}" for fault, word in zip(faults, words, strict=True) if word != "killed"]
    these = ", but not these:" if alive else ""
    print(f"{len(faults) - len(alive)} of {len(faults)} faults killed{these}", *alive, sep="\n")
    return 0 if len(alive) <= MOST_ALIVE * len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
