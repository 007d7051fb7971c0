"""Train on the course's public sample and write birds_model.pt.

    python train_full.py [TESTS_DIR] [--out FILE] [--set NAME=VALUE] [--report DIR] [--report-only]

Takes the training photos of the first test in TESTS_DIR (default: public_data), measures the
settings on a validation split, trains again on all photos, and replaces the model file in one
step: after an interrupt or on a full disk the old file is as it was. Then it writes a report:
history.json, and drawn from that report.html and confusion.png.
"""

import argparse
import io
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for python -P

from course import cli


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
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


if __name__ == "__main__":
    interrupted = "Interrupted: a model file not reported above is as it was."
    cli.run_module("train_full", parse, interrupted)

import torch
import torchvision
from rich.progress import Progress
from torchvision.models import MobileNet_V2_Weights

import solution
from course import layout
from course.files import UserError, atomic_write, check_outputs, check_writable
from course.marks import expectation_lines
from reporting import report
from reporting.calibration import calibrate
from solution import BirdNet, EpochRow, Settings

NEEDED = 2**24  # bytes on the disk, of each file: the model has 9 MB
HEADER = (
    "Validation in this table is by the whole photo alone; at the end, by all views.\n"
    "run             epoch    loss  accuracy  val loss  val accuracy  rate    seconds"
)


# ---- Pretrained weights --------------------------------------------------------------------------


def fetch_weights(weights: str) -> None:
    """Download the pretrained weights of a name into torch's cache, if none there can be read.

    Raises UserError if none can be had.
    """
    file = solution.weights_file(weights)
    try:
        solution.load_file(file)
        return
    except solution.SubmissionError:
        if file == Path(weights):  # a path, which nobody publishes
            raise
    print(f"fetching {file}", file=sys.stderr)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if weights in MobileNet_V2_Weights.__members__:
            url, start_of_hash = MobileNet_V2_Weights[weights].url, file.stem[-8:]  # of the SHA-256
            torch.hub.download_url_to_file(url, str(file), hash_prefix=start_of_hash)
        else:
            import timm  # takes long

            save(timm.create_model(weights, pretrained=True).state_dict(), file)
    except Exception as error:  # the libraries raise nearly anything
        raise UserError(
            f"no pretrained weights can be fetched ({error!r}): put {file.name} into {file.parent} "
            "by hand, or start from a trained model with --init CHECKPOINT"
        ) from None


# ---- Training ------------------------------------------------------------------------------------


def save(content: Any, out: Path) -> None:
    """Write what torch.load reads to `out` in one step: until then the file there is as it was."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_sample(options: argparse.Namespace) -> layout.TrainingSet:
    """Return the photos to train on. Raises UserError, also for files that cannot be written."""
    names = ("history.json", "report.html", "confusion.png")
    outputs = [options.out, *(options.report / name for name in names)]
    for path in outputs:
        check_writable(path, NEEDED)
    inputs = [options.tests_dir / "species.csv"]
    inputs += (path for test in layout.find_tests(options.tests_dir) for path in test.files)
    check_outputs(outputs, inputs)
    training = layout.load_training_set(options.tests_dir, solution.may_be_photo)
    species = len(set(training.gt.values()))
    print(f"{len(training.gt)} photos of {species} species in {training.images}")
    if training.missing:
        print(f"Labels without a photo: {len(training.missing)}, such as {training.missing[0]!a}")
    if left := training.unlabelled:
        print(f"Photos without a label, left out: {len(left)}, such as {left[0]!a}")
    return training


def train(options: argparse.Namespace) -> None:
    """Read the sample, train, calibrate; write the model and its history."""
    start, settings = time.perf_counter(), Settings(**changes(options.set))
    training = read_sample(options)
    fetch_weights(settings.weights)
    print(f"Settings: {', '.join(options.set) or 'those of solution.py'} (the report lists all)")
    print("locating the birds ...", flush=True)
    network, rows = train_visibly(training, settings)
    labels = {name: i for name, i in training.gt.items() if name not in training.missing}
    describe(network, settings, training, [training.images / name for name in labels])
    if measured := network.metadata.get("validation"):
        correct, total = measured["correct"], measured["total"]
        print(*expectation_lines(correct, total, photos=total), sep="\n")
    else:
        print("Validation accuracy: unknown, no species has two photos")
    checkpoint = solution.to_checkpoint(network, settings)
    save(checkpoint, options.out)
    size, seconds = options.out.stat().st_size / 1e6, time.perf_counter() - start
    print(f"Wrote {options.out} ({size:.1f} MB) after {seconds:.0f} s.")
    images = training.images
    report.write_history(options.report, network, checkpoint, rows, labels, images, seconds)


def train_visibly(
    training: layout.TrainingSet, settings: Settings
) -> tuple[BirdNet, list[EpochRow]]:
    """Return a trained network and the rows of the table.

    They are printed, a row an epoch; on a terminal there is a bar with the time left below.
    """
    rows: list[EpochRow] = []

    def add(row: EpochRow) -> None:
        measured = (row.val_loss, row.val_accuracy)
        val_loss, val_accuracy = ("-" if value is None else f"{value:.4f}" for value in measured)
        line = f"{row.stage:<15} {row.epoch:>5} {row.loss:>7.4f} {row.accuracy:>9.4f} "
        line += f"{val_loss:>9} {val_accuracy:>13} {row.learning_rate:>6.0e} {row.seconds:>9.1f}"
        print(*([] if rows else [HEADER]), line, sep="\n", flush=True)
        rows.append(row)
        bar.advance(task)

    with Progress(transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("epochs", total=2 * settings.epochs)
        gt, images = training.gt, training.images
        return solution.train_classifier(gt, images, settings=settings, on_epoch=add), rows


def describe(
    network: BirdNet, settings: Settings, training: layout.TrainingSet, photos: Sequence[Path]
) -> None:
    """Add to the network the species' names, how it was trained, and its calibration."""
    if names := training.species:
        network.class_names = [names.get(i, f"class {i}") for i in network.class_ids]
    network.metadata["training"] = {
        "photos": len(photos),
        "photo_digests": layout.photo_digests(photos),
        "labels_sha256": layout.labels_fingerprint(training.gt),
        "seed": settings.seed,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "python": platform.python_version(),
    }
    if network.validation:
        network.metadata |= calibrate(network.validation, settings.whole_share)


# ---- The command ---------------------------------------------------------------------------------


# The least and the greatest value of settings that are numbers; of all others they are 0 and 1.
BOUNDS = {
    "input_size": (32, 2048),  # the network halves maps five times
    "first_size": (32, 2048),
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
    defaults, found = asdict(Settings()), {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = type(defaults[name])(value)
        except (KeyError, ValueError) as error:
            reason = f"the settings are {', '.join(defaults)}" if name not in defaults else error
            raise UserError(f"--set {text}: no NAME=VALUE; {reason}") from None
        least, most = BOUNDS.get(name, (0, 1))
        if name != "weights" and not least <= found[name] <= most:
            raise UserError(f"--set {text}: {name} is a number from {least} to {most}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and draw the report."""
    options = parse(arguments)
    if not options.report_only:
        train(options)
    report.draw(report.read_history(options.report), options.report)
