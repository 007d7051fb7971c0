"""Tell the species of the birds on photos.

    python predict.py PHOTO_OR_FOLDER ... [--model FILE] [--csv OUT.csv] [--show OUT.png]

Prints the likeliest species of each photo with their probabilities, the views that the network
needed, and where it is uncertain; with --csv writes a table of all photos instead. --show draws
what the network sees in both stages. The exit status is 1 if a photo could not be decoded.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for python -P

from course import cli


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Tell the species of the birds on photos.")
    add, model = parser.add_argument, Path(__file__).with_name("birds_model.pt")
    add("photos", type=Path, nargs="+", metavar="PHOTO_OR_FOLDER")
    add("--model", type=Path, default=model, metavar="FILE", help="default: birds_model.pt")
    add("--csv", type=Path, metavar="OUT.csv", help="write a table instead: a row for each photo")
    add("--show", type=Path, metavar="OUT.png", help="draw what both stages see of one photo")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run_module("predict", parse)

from rich.console import Console
from rich.progress import track

from course.files import UserError, atomic_write, check_outputs, check_writable
from reporting.drawing import describe_views, likeliest, stages_figure
from solution import Classifier, Prediction, list_photos, load_classifier

CSV_COLUMNS = ("file", "species", "probability", "second", "third")


def find_photos(sources: Sequence[Path]) -> list[Path]:
    """Return the photos named, and those in the folders named. Raises UserError."""
    if missing := [s for s in sources if not s.is_file() and not s.is_dir()]:  # or a pipe
        raise UserError(f"no photo or folder {missing[0]}: check the path")
    photos = [path for s in sources for path in (list_photos(s) if s.is_dir() else [s])]
    if not photos:
        raise UserError(f"no photo in {sources[0]}: name a photo, or a folder that holds some")
    return photos


def predictions_of(
    classifier: Classifier, photos: Sequence[Path], progress: bool
) -> Iterator[tuple[Path, Prediction | None]]:
    """Yield each photo with its prediction; None, and a line on stderr, if it has none."""
    found, console = classifier.predictor.predict(photos), Console(stderr=True)
    hidden = not (progress and sys.stderr.isatty())
    bar = track(found, total=len(photos), console=console, transient=True, disable=hidden)
    for path, prediction in zip(photos, bar, strict=True):
        if isinstance(prediction, Exception):
            why = f"cannot be decoded: {path} ({prediction}): may you read it, is it a photo?"
            print(cli.printable(why), file=sys.stderr)
            yield path, None
        else:
            yield path, prediction


def print_prediction(classifier: Classifier, path: Path, prediction: Prediction) -> None:
    """Print the likeliest five species of a photo, and what they rest on."""
    probabilities = classifier.probabilities(prediction.logits)
    threshold = classifier.confidence_threshold
    best = likeliest(probabilities, classifier.class_names, 5)
    lines = [str(path), *(f"  {probability:7.2%}  {name}" for probability, name in best)]
    lines.append(f"  {describe_views(prediction)}")
    if best[0][0] < threshold:
        lines.append(
            f"  uncertain: 95 % of the validation photos got more than {threshold:.0%}; perhaps "
            "none of the species it knows, or no bird"
        )
    print(*map(cli.printable, lines), sep="\n")


def csv_row(classifier: Classifier, name: str, prediction: Prediction) -> dict[str, str]:
    """Return a photo's cells by column; there may be fewer than three species."""
    probabilities = classifier.probabilities(prediction.logits)
    (probability, species), *others = likeliest(probabilities, classifier.class_names)
    cells = (name, species, f"{probability:.4f}", *(name for _, name in others))
    return dict(zip(CSV_COLUMNS, cells, strict=False))


def write_csv(rows: Iterable[dict[str, str]], out: Path) -> None:
    """Write the table of all photos. Raises UserError."""
    with (
        atomic_write(out) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    outputs = [path for path in (options.csv, options.show) if path]
    for out in outputs:
        check_writable(out, 2**20)
    classifier, photos = load_classifier(options.model), find_photos(options.photos)
    check_outputs(outputs, [options.model, *photos])
    if options.show and len(photos) > 1:
        raise UserError(f"--show draws one photo, but {len(photos)} are named: name one")
    one_folder, rows, undecoded = len(options.photos) == 1, [], 0
    for path, prediction in predictions_of(classifier, photos, progress=bool(options.csv)):
        undecoded += prediction is None
        name = path.name if one_folder else str(path)
        if options.csv:
            rows.append(csv_row(classifier, name, prediction) if prediction else {"file": name})
        elif prediction:
            print_prediction(classifier, path, prediction)
        if options.show and prediction:
            figure = stages_figure(classifier, path, prediction)
            with atomic_write(options.show) as temporary:
                figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
            print(f"Wrote {options.show}")
    if options.csv:
        write_csv(rows, options.csv)
        print(f"Wrote {options.csv}: {len(rows)} photos")
    if undecoded and len(photos) > 1:
        why = f"{undecoded} of {len(photos)} photos cannot be decoded: the lines above say why"
        print(why, file=sys.stderr)
    return int(undecoded > 0)
