"""The command line: `python -m coursework --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

try:
    from lightning.pytorch.utilities import rank_zero_only

    from coursework import case, ladder, resnet, transfer
except ModuleNotFoundError as missing:
    sys.exit(
        f"Error: {missing.name.partition('.')[0]} is not installed, which the courseworks need: "
        "pip install -r requirements-coursework.txt"
    )
from course.files import UserError
from coursework.data import CourseworkError
from coursework.engine import Hardware
from coursework.options import Options
from coursework.pretrained import NETWORKS
from coursework.report import work
from train_full import positive, seed

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
    add("--network", choices=sorted(NETWORKS),
        help="of transfer; default: the first of vgg11, googlenet and mobilenet_v2 whose ImageNet "
        "weights can be had")  # fmt: skip
    add("--weights", choices=("imagenet", "random"),
        help="of transfer; random: one run from scratch, for a network without weights; "
        "default: imagenet")  # fmt: skip
    _add_training(parser.add_argument_group("training, of every run"))
    _add_hardware(parser.add_argument_group("hardware, in the words of Lightning's Trainer"))
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


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--seed", type=seed, metavar="N", help="default: 0")
    group.add_argument("--lr", type=_rate, metavar="X", dest="learning_rate",
        help="the greatest learning rate, instead of each run's own")  # fmt: skip
    group.add_argument("--batch-size", type=positive, metavar="N", help="of all processes together")


def _add_hardware(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--accelerator", choices=("auto", "cpu", "gpu"), help="default: a GPU where there is one")
    add("--devices", type=positive, metavar="N", help="processes on each machine, one a GPU if "
        "there are GPUs; default: all GPUs, or one process")  # fmt: skip
    add("--num-nodes", type=positive, metavar="M", help="machines; default: 1")
    add("--strategy", metavar="NAME", help="such as ddp; default: what fits the devices")
    add("--precision", metavar="NAME", help="such as bf16-mixed or 32-true; default: the first "
        "where a run asks for it and the processor multiplies such matrices")  # fmt: skip


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return rate


def options_of(given: argparse.Namespace) -> Options:
    """What the reports are told."""
    values = {name: value for name, value in vars(given).items() if value is not None}
    hardware = {name: values.pop(name) for name in Hardware.__annotations__ if name in values}
    values.setdefault("out", Path("report", "coursework", given.name))
    return Options(**values, hardware=Hardware(**hardware))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    given = parse(arguments)
    if given.name == "list":
        print("\n\n".join(f"{name}\n{m.ASSIGNMENT.summary}" for name, m in ASSIGNMENTS.items()))
        return 0
    options = options_of(given)
    with ExitStack() as undo:
        if rank_zero_only.rank:  # the first of several processes speaks and writes for all
            nothing = undo.enter_context(Path(os.devnull).open("w"))
            undo.enter_context(redirect_stdout(nothing))
            undo.enter_context(redirect_stderr(nothing))
        return _report(options)


def _report(options: Options) -> int:
    try:
        work(ASSIGNMENTS[options.name].ASSIGNMENT, options)
    except (CourseworkError, UserError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a full disk
        print(
            f"Error: {error}: what {options.out} holds is as it was; mend that, and the same "
            "command goes on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on after the last whole epoch.", file=sys.stderr)
        return 130
    out = options.out
    print(f"Wrote {out / 'report.html'}, {out / 'report.md'} and {out / 'history.json'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
