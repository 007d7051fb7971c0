"""The command line: `python -m coursework --help`."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from course import files
from course.cli import natural, positive, run
from course.files import UserError, atomic_write

ASSIGNMENTS = ("case", "transfer", "resnet", "ladder")
ONLY_OF = {"network": "transfer", "object": "transfer", "photo": "ladder"}
FLAGS = ("accelerator", "devices", "num_nodes", "strategy", "precision")  # of Lightning's Trainer
INTERRUPTED = "Interrupted: the same command goes on after the last whole epoch."


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; options that were not given are absent."""
    parser = argparse.ArgumentParser(
        prog="python -m coursework",
        description="Train, measure and write the report of a coursework. The same command goes on "
        "where it was interrupted.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("name", choices=["list", *ASSIGNMENTS], help="`list` describes each of them")
    add("--data", type=Path, metavar="DIR", help="data set or class folders; default: a download")
    add("--out", type=Path, metavar="DIR", help="default: report/coursework/NAME")
    add("--epochs", type=positive, metavar="N", help="of every run, instead of its own number")
    hundreds = partial(natural, least=100)
    add("--subset", type=hundreds, metavar="N", help="train and test on at most N photos each")
    add("--seed", type=natural, metavar="N", help="default: 0")
    add("--full", "--night", action="store_true", help="the assignment's own numbers: a night")
    add("--network", choices=("vgg11", "googlenet", "mobilenet_v2"), help="of transfer")
    add("--object", type=natural, metavar="N", help="of transfer: the test photo; default: 0")
    add("--photo", type=Path, metavar="FILE", help="of ladder: the new photo; default: a cat")
    add = parser.add_argument_group("of Lightning's Trainer").add_argument
    add("--accelerator", metavar="NAME", help="such as cpu or gpu")
    add("--devices", type=positive, metavar="N", help="on each machine")
    add("--num-nodes", type=positive, metavar="M", help="machines")
    add("--strategy", metavar="NAME", help="such as ddp")
    add("--precision", metavar="NAME", help="such as bf16-mixed or 32-true")
    parsed = parser.parse_args(arguments)
    for option, owner in ONLY_OF.items():
        if option in parsed and parsed.name != owner:
            parser.error(f"--{option} is for {owner} only")
    return parsed


def assignment(name: str) -> ModuleType:
    """Import the package of an assignment, and with it torch and Lightning. Raises UserError."""
    try:
        importlib.import_module("coursework.pages")
        return importlib.import_module(f"coursework.{name}")
    except ModuleNotFoundError as missing:
        remedy = "pip install -r requirements-coursework.txt"
        raise UserError(f"{missing.name} is not installed: {remedy}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given: dict[str, Any] = vars(parse(arguments))
    name = given.pop("name")
    if name == "list":
        print("\n".join(f"{each}: {assignment(each).__doc__}" for each in ASSIGNMENTS))
        return 0
    given.setdefault("out", Path("report", "coursework", name))
    files.check_writable(given["out"] / "history.json")  # fails early
    flags = {flag: given.pop(flag) for flag in FLAGS if flag in given}
    module = assignment(name)
    from lightning.pytorch import utilities

    from coursework import data, engine, pages

    first = not getattr(utilities.rank_zero_only, "rank", 0)  # it prints and writes for all
    if not first:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (till the end)
    options = data.Options(**given)
    if first:
        engine.claim(options.out, name)
    photos = module.load(options)
    runs = module.runs(photos, options)
    results = engine.train_all(name, runs, options.out, flags, first)
    if first:
        path, page = options.out / "report.html", pages.draw(module, photos, results, options)
        with atomic_write(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
        print(f"Wrote {path} and {options.out / 'history.json'}.")
    return 0


if __name__ == "__main__":
    run(main, INTERRUPTED)
