"""Train on the course's public sample and write birds_model.pt.

    python train_full.py [TESTS_DIR] [--out FILE] [--seed N] [--init CHECKPOINT] [--epochs N]
                         [--report DIR] [--report-only]

Takes the training photos of the first test in TESTS_DIR (default: public_data), measures the
settings on a validation split, trains again on all photos, and replaces the model file in one
step: after an interrupt or on a full disk the old file is as it was. Then it writes a report:
history.json, and drawn from that report.md, report.html and their pictures.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from torchvision.models import MobileNet_V2_Weights

import solution
from birddata.photos import digest_of
from course.files import UserError, atomic_write, check_writable
from course.layout import load_training_set
from course.marks import accuracy_text, mark_of, wilson_interval
from reporting import birds
from solution import EpochRow, Settings, SubmissionError

HERE = Path(__file__).resolve().parent
HEADER = (
    "val: one look, where the pretrained network saw the bird; both looks are measured at the end\n"
    "run               epoch    loss  accuracy  val loss  val accuracy  head rate  seconds"
)


class TrainingTable(solution.Progress):
    """A row an epoch on stdout; on a terminal a bar with the time left below it."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description:<15}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Bars(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bars.add_task("", total=None)
        self.rows: list[EpochRow] = []

    def stage(self, name: str, photos: int) -> None:
        """Start the bar anew; without one, say what begins."""
        self.bars.reset(self.task, total=photos, description=name)
        if self.bars.disable:
            self.console.print(f"{name}: {photos} photos")

    def step(self, photos: int) -> None:
        """Move the bar."""
        self.bars.advance(self.task, photos)

    def epoch(self, row: EpochRow) -> None:
        """Print the row, and keep it for the report."""
        if not self.rows:
            self.console.print(HEADER)
        self.rows.append(row)
        self.console.print(
            f"{row.stage:<17} {row.epoch:>5} {row.loss:>7.4f} {row.accuracy:>9.4f} "
            f"{_or_dash(row.val_loss):>9} {_or_dash(row.val_accuracy):>13} "
            f"{row.learning_rate:>10.2e} {row.seconds:>8.1f}"
        )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def fetch_imagenet_weights() -> None:
    """Download the pretrained weights into torch's cache, if they are not there whole.

    What is there and can be read is taken: it may have been put there by hand. Raises
    SubmissionError for a damaged file in the cache, if no other can be had.
    """
    file, cure = solution.imagenet_weights_file(), ""
    start_of_hash = file.stem.rpartition("-")[2]  # of the SHA-256, by torch.hub's convention
    if file.is_file():
        try:
            solution.load_file(file)
        except SubmissionError:
            cure = f"delete {file}, or put it there by hand"
            print(f"{file} is damaged: it is fetched again", file=sys.stderr)
        else:
            if not digest_of(file).startswith(start_of_hash):
                print(f"note: {file} is not the file that torchvision publishes", file=sys.stderr)
            return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        url = MobileNet_V2_Weights.IMAGENET1K_V1.url
        torch.hub.download_url_to_file(url, str(file), hash_prefix=start_of_hash)
    except (URLError, OSError, HTTPException, RuntimeError) as error:  # RuntimeError: wrong hash
        if cure:
            raise SubmissionError(f"no whole weights can be fetched ({error!r}): {cure}") from None
        print(f"The pretrained weights cannot be downloaded: {error!r}", file=sys.stderr)


def save(content: dict, out: Path) -> None:
    """Write a checkpoint to `out` in one step: until then the file there is as it was."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def train(arguments: argparse.Namespace) -> None:
    """The whole program: read, train, save, report."""
    start = time.perf_counter()
    check_writable(arguments.out)
    data = load_training_set(arguments.tests_dir, solution.may_be_photo)
    gt = data.gt
    if arguments.init is None:
        fetch_imagenet_weights()
    settings = Settings(seed=arguments.seed)
    settings = replace(settings, epochs=arguments.epochs or settings.epochs)
    print(f"{len(gt)} photos of {len(set(gt.values()))} species in {data.images.parent}")
    print(settings)
    table = TrainingTable()
    with table.bars:
        network = solution.train_classifier(
            gt,
            data.images,
            fast_train=False,
            settings=settings,
            init=arguments.init,
            class_names=data.species or None,
            progress=table,
        )
    print(_verdict(network.facts["validation"]))
    if gone := len(gt) - network.facts["training"]["photos"]:
        print(f"Left out: {gone} of {len(gt)} labels, whose photos cannot be read; see above")
    if data.unlabelled:
        count, example = len(data.unlabelled), data.unlabelled[0]
        print(f"Left out: {count} files without a label, such as {example!a}")
    save(solution.to_checkpoint(network), arguments.out)
    size, seconds = arguments.out.stat().st_size / 1e6, time.perf_counter() - start
    print(f"Wrote {arguments.out} ({size:.1f} MB) after {seconds:.0f} s.")
    try:
        labels = {name: class_id for name, class_id in gt.items() if name not in data.missing}
        history = birds.history_of(network, table.rows, labels, data.images, seconds)
        birds.save_history(history, arguments.report)
    except (OSError, UserError) as error:
        raise SubmissionError(f"the model is written, its report is not: {error}") from None
    draw_report(history, arguments.report)


def draw_report(history: birds.History, folder: Path) -> None:
    """Draw the report from its numbers; what goes wrong here does not concern the model."""
    try:
        birds.draw(history, folder)
    except (OSError, UserError) as error:
        raise SubmissionError(
            f"the report in {folder} is not whole: {error}; mend that, then "
            "`python train_full.py --report-only` draws it from history.json"
        ) from None
    print(f"Wrote {folder / 'report.html'}")


def _verdict(validation: dict | None) -> str:
    if validation is None:
        return "Validation accuracy: unknown, no species has two photos"
    correct, total = validation["correct"], validation["total"]
    accuracy, (low, high) = accuracy_text(correct, total), wilson_interval(correct, total)
    return (
        f"Validation accuracy of both looks {accuracy} (95 % interval {low:.4f} to {high:.4f}, "
        f"{total} photos), mark {mark_of(accuracy)}"
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def seed(text: str) -> int:
    """A whole number from 0 to 2**63 - 1, for argparse."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to 2**63 - 1")
    return int(text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train on the course's public sample and write birds_model.pt."
    )
    default = HERE / "public_data"
    parser.add_argument(
        "tests_dir",
        nargs="?",
        type=Path,
        default=default,
        metavar="TESTS_DIR",
        help="folder with NN_<name>_input; the first one is trained on (default: public_data)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "birds_model.pt",
        metavar="FILE",
        help="the model file to write (default: birds_model.pt beside this program)",
    )
    parser.add_argument("--seed", type=seed, default=Settings.seed, help="default: %(default)s")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="CHECKPOINT",
        help="take the backbone from this model file instead of the ImageNet weights",
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help=f"default: {Settings.epochs}")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="folder for the report (default: report beside the model file)",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="draw the report anew from its history.json, without training",
    )
    parsed = parser.parse_args(arguments)
    parsed.report = parsed.report or parsed.out.parent / "report"
    return parsed


def run(arguments: argparse.Namespace) -> None:
    """Train, or only draw the report."""
    if arguments.report_only:
        draw_report(birds.read_history(arguments.report), arguments.report)
    else:
        train(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    try:
        run(parse(arguments))
    except (SubmissionError, UserError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: a model file not reported above is as it was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
