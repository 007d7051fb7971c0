"""Train on the course's public sample and write birds_model.pt.

    python train_full.py [TESTS_DIR] [--out FILE] [--set NAME=VALUE] [--report DIR] [--report-only]

Takes the training photos of the first test in TESTS_DIR (default: public_data), measures the
settings on a validation split, trains again on all photos, and replaces the model file in one
step: after an interrupt or on a full disk the old file is as it was. Then it writes a report:
history.json, and drawn from that report.html.
"""

from __future__ import annotations

import argparse
import io
import platform
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for python -P

from course import cli  # noqa: E402
from course.files import UserError, atomic_write, check_outputs, check_writable  # noqa: E402

if TYPE_CHECKING:
    from solution import BirdNet, EpochRow, Settings

NEEDED = 2**24  # bytes on the disk: of the model 9 MB, of its report at most a few
HEADER = (
    "Validation in this table is by the whole photo alone; at the end, by all views.\n"
    "run             epoch    loss  accuracy  val loss  val accuracy  rate    seconds"
)


class TrainingTable:
    """A row an epoch on stdout; on a terminal a bar with the time left below it."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.console = Console(highlight=False, soft_wrap=True)
        live = self.console.is_terminal
        self.bar = Progress(console=self.console, transient=True, disable=not live)
        self.task = self.bar.add_task("epochs", total=epochs)
        self.rows: list[EpochRow] = []

    def add(self, row: EpochRow) -> None:
        """Print the row, and keep it for the report."""
        if not self.rows:
            self.console.print(HEADER)
        self.rows.append(row)
        self.bar.advance(self.task)
        measured = (row.val_loss, row.val_accuracy)
        val_loss, val_accuracy = ("-" if value is None else f"{value:.4f}" for value in measured)
        self.console.print(
            f"{row.stage:<15} {row.epoch:>5} {row.loss:>7.4f} {row.accuracy:>9.4f} {val_loss:>9} "
            f"{val_accuracy:>13} {row.learning_rate:>6.0e} {row.seconds:>9.1f}"
        )


# ---- Pretrained weights --------------------------------------------------------------------------


def fetch_weights(weights: str) -> None:
    """Download the pretrained weights of a name into torch's cache, if they are not there whole.

    What is there and can be read is taken: it may have been put there by hand. Raises UserError
    if none can be had.
    """
    import solution

    file = solution.weights_file(weights)
    if file == Path(weights):  # a path, which nobody publishes
        solution.load_file(file)
        return
    with suppress(solution.SubmissionError):
        solution.load_file(file)
        return
    if file.is_file():
        print(f"{file} is damaged: it is fetched again", file=sys.stderr)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(weights, file)
    except Exception as error:  # the libraries raise nearly anything
        raise UserError(
            f"no pretrained weights can be fetched ({error!r}): put {file.name} into {file.parent} "
            "by hand, or start from a trained model with --init CHECKPOINT"
        ) from None


def _download(weights: str, file: Path) -> None:
    import timm
    import torch
    from torchvision.models import MobileNet_V2_Weights as Published

    if weights in Published.__members__:
        start_of_hash = file.stem.rpartition("-")[2]  # of the SHA-256, by torch.hub's convention
        url = Published[weights].url
        torch.hub.download_url_to_file(url, str(file), hash_prefix=start_of_hash)
    else:
        save(timm.create_model(weights, pretrained=True).state_dict(), file)


# ---- Training ------------------------------------------------------------------------------------


def save(content: Any, out: Path) -> None:
    """Write what torch.load reads to `out` in one step: until then the file there is as it was."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def train(options: argparse.Namespace) -> None:
    """Read the sample, train, calibrate; write the model and its history."""
    report = [options.report / name for name in ("history.json", "report.html")]
    check_writable(options.out, NEEDED)  # fails early, before the long imports
    for path in report:
        check_writable(path, NEEDED // 4)
    import solution
    from course.layout import find_tests, load_training_set
    from reporting.history import write_history

    start, changed = time.perf_counter(), changes(options.set)
    settings = solution.Settings(**changed)
    inputs = [options.tests_dir / "species.csv"]
    inputs += (path for test in find_tests(options.tests_dir) for path in test.files)
    check_outputs([options.out, *report], inputs)
    training = load_training_set(options.tests_dir, solution.may_be_photo)
    fetch_weights(settings.weights)
    print(f"{len(training.gt)} photos of {len(set(training.gt.values()))} species", end=" ")
    print(f"in {training.images}\n{described(changed)}\nlocating the birds ...", flush=True)
    table = TrainingTable(2 * settings.epochs)
    with table.bar:
        network = solution.train_classifier(
            training.gt, training.images, settings=settings, on_epoch=table.add
        )
    if names := training.species:
        network.class_names = [names.get(i, f"class {i}") for i in network.class_ids]
    there = [path for path in training.paths if path.name not in training.missing]
    describe(network, settings, training.gt, there)
    print(verdict(network.metadata.get("validation")))
    for files, what in (
        (training.missing, "labels without a photo"),
        (training.unlabelled, "photos without a label"),
    ):
        if files:
            print(f"Left out: {len(files)} {what}, such as {files[0]!a}")
    checkpoint = solution.to_checkpoint(network, settings)
    save(checkpoint, options.out)
    size, seconds = options.out.stat().st_size / 1e6, time.perf_counter() - start
    print(f"Wrote {options.out} ({size:.1f} MB) after {seconds:.0f} s.")
    labels = {path.name: training.gt[path.name] for path in there}
    write_history(options.report, network, checkpoint, table.rows, labels, training.images, seconds)


def described(changed: dict[str, Any]) -> str:
    """Return the settings that were changed, in lines of 80 columns."""
    text = ", ".join(f"{name}={value}" for name, value in changed.items()) or "those of solution.py"
    text = f"Settings: {text} (the report lists all)"
    return textwrap.fill(
        text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def describe(
    network: BirdNet, settings: Settings, gt: dict[str, int], photos: Sequence[Path]
) -> None:
    """Add to the network's metadata how it was trained, and its calibration."""
    import torch
    import torchvision

    from course.layout import labels_fingerprint, photo_digests
    from reporting.calibration import calibrate

    training = {"photos": len(photos), "photo_digests": photo_digests(photos)}
    training |= {"labels_sha256": labels_fingerprint(gt), "seed": settings.seed}
    training |= {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    network.metadata["training"] = training | {"python": platform.python_version()}
    if network.validation:
        network.metadata |= calibrate(network.validation, settings.whole_share)


def verdict(validation: dict[str, Any] | None) -> str:
    """Return what the validation run lets expect, in a sentence."""
    from course.marks import accuracy_text, mark_of, wilson_interval

    if validation is None:
        return "Validation accuracy: unknown, no species has two photos"
    correct, total = validation["correct"], validation["total"]
    accuracy, (low, high) = accuracy_text(correct, total), wilson_interval(correct, total)
    return (
        f"Validation accuracy {accuracy}, mark {mark_of(accuracy)} (95 % interval {low:.4f} to "
        f"{high:.4f}, {total} photos, {validation['mean_views']:.1f} views per photo)"
    )


# ---- The command ---------------------------------------------------------------------------------


# The least and the greatest value of each setting that is a number.
BOUNDS = {
    **dict.fromkeys(("input_size", "first_size"), (32, 2048)),  # the network halves maps five times
    **dict.fromkeys(("box_threshold", "whole_share", "layer_decay", "warmup"), (0, 1)),
    **dict.fromkeys(("final_rate", "weight_decay", "label_smoothing", "cutmix"), (0, 1)),
    **dict.fromkeys(("colour_jitter", "class_balance", "average_decay"), (0, 1)),
    **dict.fromkeys(("head_learning_rate", "backbone_learning_rate"), (0, 1)),
    "box_margin": (0, 4),
    "unfrozen_blocks": (0, 19),  # all blocks
    "epochs": (1, 1000),
    "batch_size": (1, 1024),
    "tightest_crop": (0.1, 2),
    "crop_stretch": (1, 4),
    "validation_share": (0, 0.5),  # of two photos of a species, one is trained on
    "seed": (0, 2**32 - 1),  # scikit-learn's
}


def changes(texts: Sequence[str]) -> dict[str, Any]:
    """Return settings from NAME=VALUE, each with the type of its default. Raises UserError."""
    from solution import Settings

    defaults, found = asdict(Settings()), {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = type(defaults[name])(value)
        except (KeyError, ValueError) as error:
            reason = f"the settings are {', '.join(defaults)}" if name not in defaults else error
            raise UserError(f"--set {text}: no NAME=VALUE; {reason}") from None
        if name != "weights" and not BOUNDS[name][0] <= found[name] <= BOUNDS[name][1]:
            limits = "from {} to {}".format(*BOUNDS[name])
            raise UserError(f"--set {text}: {name} is a number {limits}")
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, default, model = parser.add_argument, HERE / "public_data", HERE / "birds_model.pt"
    text = "folder with NN_<name>_input; the first one is trained on (default: public_data)"
    add("tests_dir", nargs="?", type=Path, default=default, metavar="TESTS_DIR", help=text)
    add("--out", type=Path, default=model, metavar="FILE", help="default: birds_model.pt, here")
    text = "change a setting of solution.py, such as epochs=8 or seed=1; may be repeated"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "start from other weights: a model file, IMAGENET1K_V2, mobilenetv2_100.ra_in1k"
    weights = "weights={}".format
    add("--init", dest="set", action="append", type=weights, metavar="WEIGHTS", help=text)
    add("--report", type=Path, metavar="DIR", help="default: report beside the model file")
    text = "draw the report anew from its history.json, without training"
    add("--report-only", action="store_true", help=text)
    options = parser.parse_args(arguments)
    options.report = options.report or options.out.parent / "report"
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train, and draw the report."""
    options = parse(arguments)
    if not options.report_only:
        train(options)
    from reporting import history, report

    report.draw(history.read_history(options.report), options.report)


if __name__ == "__main__":
    cli.run(main, "Interrupted: a model file not reported above is as it was.")
