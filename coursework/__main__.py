"""The command line: `python -m coursework --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from coursework import case, ladder, resnet, transfer
from coursework.data import CourseworkError
from coursework.pages import Options
from coursework.report import work
from grader.protocol import GraderError
from train_full import TrainingTable, positive

PRESETS = ("quick", "night", "full")
ONLY_OF = {"network": "transfer", "weights": "transfer", "object": "transfer", "photo": "ladder"}
ASSIGNMENTS = {"ladder": ladder, "transfer": transfer, "resnet": resnet, "case": case}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m coursework",
        description="Train, measure and write the report of a coursework. A run that was "
        "interrupted goes on where it stopped when the same command is given again.",
    )
    add = parser.add_argument
    add("name", choices=[*ASSIGNMENTS, "list"], help="`list` says what each is")
    add("--epochs", type=positive, metavar="N", help="of every run, instead of its own number")
    add("--subset", type=positive, metavar="N", help="train and test on at most N photos each")
    add("--data", metavar="DIR", help="folder with the data set or with a folder of photos for "
        "each class, or `digits`; default: torch's cache, filled by download")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="default: report/coursework/NAME")
    add("--device", type=_device, default="cpu", help="default: %(default)s")
    add("--preset", choices=PRESETS, default="quick",
        help="how much is trained; night: ladder in up to three hours; full: the assignment's own "
        "numbers, hours to days; default: %(default)s")  # fmt: skip
    add("--full", dest="preset", action="store_const", const="full", help="--preset full")
    add("--lang", dest="language", metavar="en|ru|pl", default="en",
        help="language of the report: ru for case, transfer and resnet, pl for ladder, or en, "
        "which is the default")  # fmt: skip
    add("--photo", type=Path, metavar="FILE", help="of ladder: a new photo to be classified")
    add("--object", type=int, metavar="N", help="of transfer: the test photo to be looked at")
    add("--smoothing", type=positive, default=1, metavar="N",
        help="draw curves as moving averages over N epochs")  # fmt: skip
    add("--network", choices=sorted(transfer.NETWORKS),
        help="of transfer; default: the first of vgg11, googlenet and mobilenet_v2 whose ImageNet "
        "weights can be had")  # fmt: skip
    add("--weights", choices=("imagenet", "random"),
        help="of transfer; random: one run from scratch, for a network without weights; "
        "default: imagenet")  # fmt: skip
    parsed = parser.parse_args(arguments)
    for option, owner in ONLY_OF.items():
        if getattr(parsed, option) is not None and parsed.name != owner:
            parser.error(f"--{option} is for {owner} only")
    if parsed.preset == "night" and parsed.name != "ladder":
        parser.error("--preset night is for ladder only")
    allowed = languages(parsed.name)
    if allowed and parsed.language not in allowed:
        parser.error(
            f"--lang of {parsed.name} is one of {', '.join(allowed)}, not {parsed.language!r}"
        )
    return parsed


def languages(name: str) -> Sequence[str]:
    """In which the report of an assignment can be written."""
    return () if name == "list" else ASSIGNMENTS[name].ASSIGNMENT.languages


def _device(text: str) -> str:
    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError):  # unknown, or this build of torch lacks it
        raise argparse.ArgumentTypeError(f"torch has no device {text!r} here") from None
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    given = vars(parse(arguments))
    name = given.pop("name")
    if name == "list":
        print("\n\n".join(f"{name}\n{m.ASSIGNMENT.summary}" for name, m in ASSIGNMENTS.items()))
        return 0
    given["out"] = out = given["out"] or Path("report", "coursework", name)
    table = TrainingTable()
    try:
        with table.bars:
            work(ASSIGNMENTS[name].ASSIGNMENT, Options(**given, progress=table))
    except (CourseworkError, GraderError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on after the last whole epoch.", file=sys.stderr)
        return 130
    print(f"Wrote {out / 'report.html'}, {out / 'report.md'} and {out / 'history.json'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
