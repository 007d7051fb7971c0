"""The report of a training: its numbers in history.json, and the page drawn from them alone.

The photos themselves are read where they lie; where they are gone, the report says so and leaves
out the pictures that show them.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course.files import write_json
from course.marks import accuracy_text, mark_of, wilson_interval
from grader.model import expectation_lines
from reporting import charts
from reporting.page import Page
from solution import (
    FORMATS,
    BirdNet,
    EpochRow,
    Seen,
    Settings,
    SubmissionError,
    describe,
    pictures_of_looks,
    preprocessing_of,
    read_photo,
    read_pixels,
    tolerant_pillow,
)

HISTORY = "history.json"
SMOOTHING = 3  # epochs
GROUPS_SHOWN, SPECIES_SHOWN = 5, 4  # of look-alikes, with photos; in each of them
PHOTO_SIDE = 270  # pixels: of a photo in a grid
SAMPLES_SHOWN = 6  # of right answers, and of wrong ones
LOOKS = {"first": "first look alone", "second": "second look alone", "logits": "both looks"}

REASONS = {
    "input_size": "the second look has its bird large; more pixels cost their square in time",
    "first_size": "enough to see where the bird is, and often what it is",
    "box_threshold": "lower, the box holds more background; higher, less of the bird",
    "box_margin": "the map is coarse: a bird may reach beyond the places it marks",
    "first_share": "the second look sees more of the plumage, the first more of the surroundings",
    "unfrozen_blocks": "the first blocks hold edges and textures that suit birds as they are; only "
    "the last ones, which tell objects apart, are adapted",
    "views": "the frozen blocks run once a view, so an epoch costs only the upper blocks; several "
    "views make the photos differ between epochs",
    "cache_gigabytes": "bounds the memory of these views; more photos get fewer views",
    "epochs": "chosen on folds of the sample: docs/experiments.md",
    "batch_size": "large enough for steady gradients, small enough for many steps an epoch",
    "head_learning_rate": "the head starts from random weights and has far to go",
    "backbone_learning_rate": "smaller than the head's, not to spoil the pretrained weights",
    "warmup": "the first gradients, of a random head, would otherwise disturb the backbone",
    "final_rate": "the weights are averaged, so the rate need not decay to zero",
    "weight_decay": "keeps weights small: the photos are few for so many parameters",
    "dropout": "the head must not rely on single features",
    "label_smoothing": "no answer is pushed towards certainty: less overfitting",
    "tightest_crop": "training sees squares from this share of the bird's box up to the whole "
    "photo, so of the scales of both looks",
    "crop_stretch": "a bird may stand taller or longer, but not much: its proportions tell species",
    "colour_jitter": "light and weather differ between photos",
    "bfloat16": "half the time where the processor multiplies it; fewer digits, as accurate",
    "average_decay": "the mean of many steps' weights generalises better than the last step's",
    "validation_share": "photos kept out of a first run measure the settings; the second run "
    "gives the model and trains on all photos",
    "seed": "repeats the training",
}


# ------------------------------------------------------------------------------------------------
# The numbers
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """What a training leaves for its report, as plain values; history.json is this."""

    settings: dict[str, Any]
    preprocessing: dict[str, Any]  # see solution.preprocessing_of
    facts: dict[str, Any]  # of the network: validation, temperature, ...
    epochs: list[dict[str, Any]]  # rows of the training table: solution.EpochRow
    labels: dict[str, int]  # class id by file name
    class_ids: list[int]
    class_names: list[str] | None
    validation_answers: dict[str, Any] | None  # see _plain_answers
    architecture: list[dict[str, Any]]  # blocks in order: see architecture_of
    photo_sizes: dict[str, int]  # how many photos have a size, such as "500×375"
    images: str  # the folder of the photos
    seconds: float  # that the training took
    threads: int
    machine: str
    versions: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Species names for people, by class index."""
        names = self.class_names or [f"class {class_id}" for class_id in self.class_ids]
        return [name.replace("_", " ") for name in names]

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return self.facts.get("temperature", 1.0)


def history_of(
    network: BirdNet,
    epochs: Sequence[EpochRow],
    labels: dict[str, int],
    images: Path,
    seconds: float,
) -> History:
    """The history of a network that train_classifier returned."""
    answers = network.validation_answers
    return History(
        settings=network.facts["settings"],
        preprocessing=preprocessing_of(Settings(**network.facts["settings"])),
        facts={key: value for key, value in network.facts.items() if key != "settings"},
        epochs=[asdict(row) for row in epochs],
        labels=labels,
        class_ids=network.class_ids,
        class_names=network.class_names,
        validation_answers=answers and _plain_answers(answers),
        architecture=architecture_of(network, network.facts["settings"]["input_size"]),
        photo_sizes=dict(Counter(_size(images / name) for name in labels).most_common()),
        images=str(images.resolve()),
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=_processor(),
        versions={
            "Python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
    )


def _plain_answers(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Of each validation photo: name, label (class index), and all that was seen of it."""
    return {
        "photos": list(answers["photos"]),
        "labels": answers["labels"].tolist(),
        **{look: [_rounded(getattr(seen, look)) for seen in answers["seen"]] for look in LOOKS},
        "heat": [_rounded(seen.heat) for seen in answers["seen"]],
        "box": [list(seen.box) for seen in answers["seen"]],
    }


def _rounded(values: Tensor) -> list[Any]:
    return values.double().round(decimals=4).tolist()


def architecture_of(network: BirdNet, side: int) -> list[dict[str, Any]]:
    """The network's parts in order, for one view (1, 3, side, side).

    Each has a name, the shape (C, H, W) of its output, its multiplications with addition, its
    parameters, and how many of these were trained.
    """
    names = [_kind(block) for block in describe(network.features)]
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head)
    parts = [*network.features, pooled]
    rows, x = [], torch.zeros(1, 3, side, side)
    for name, part in zip([*names, "global average pooling, linear layer"], parts, strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x = part(x)
        parameters = list(part.parameters())
        rows.append(
            {
                "name": name,
                "shape": list(x.shape[1:]),
                "operations": counter.get_total_flops() // 2,
                "parameters": sum(p.numel() for p in parameters),
                "trained": sum(p.numel() for p in parameters if p.requires_grad),
            }
        )
    return rows


def _kind(block: dict[str, Any]) -> str:
    kind = "convolution" if len(block["layers"]) == 1 else "inverted residual"
    stride = max(layer["stride"] for layer in block["layers"])
    halves = f", stride {stride}" if stride > 1 else ""
    return kind + halves + (", with shortcut" if block["residual"] else "")


def _size(path: Path) -> str:
    try:
        with Image.open(path, formats=FORMATS) as photo:
            return f"{photo.width}×{photo.height}"
    except Exception:  # see solution.read_photo
        return "unreadable"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def save_history(history: History, folder: Path) -> None:
    """Write history.json in one step."""
    write_json(folder / HISTORY, asdict(history))


def read_history(folder: Path) -> History:
    """What save_history wrote; SubmissionError if it is not there or not whole."""
    path = folder / HISTORY
    try:
        return History(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        cause = f"no file {path}"
    except (OSError, TypeError, ValueError) as error:
        cause = f"{path} is damaged or of another version ({error})"
    raise SubmissionError(
        f"{cause}: `python train_full.py` writes it, or name its folder with --report"
    )


# ------------------------------------------------------------------------------------------------
# Answers to the validation photos
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What the network of the validation run said to photos that it did not train on."""

    photos: list[str]  # file names
    labels: np.ndarray  # (N,), class indices
    looks: dict[str, np.ndarray]  # by key of LOOKS: probabilities (N, C)
    uncalibrated: np.ndarray  # (N, C), of both looks at temperature 1

    @property
    def probabilities(self) -> np.ndarray:
        """Of both looks, which are what `classify` answers by: (N, C)."""
        return self.looks["logits"]

    @property
    def best(self) -> np.ndarray:
        """The answers: class indices (N,)."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """Which answers are right, (N,)."""
        return self.right_by("logits")

    def right_by(self, look: str) -> np.ndarray:
        """Which answers would be right by one of the LOOKS, (N,)."""
        return self.looks[look].argmax(1) == self.labels

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each answer, (N,)."""
        return self.probabilities.max(1)

    def matrix(self) -> np.ndarray:
        """Counts (C, C): row of the true species, column of the answer."""
        classes = range(self.probabilities.shape[1])
        return confusion_matrix(self.labels, self.best, labels=classes)


def answers_of(history: History) -> Answers | None:
    """The validation answers with their probabilities, if there was a validation."""
    stored = history.validation_answers
    if stored is None:
        return None
    logits = {look: torch.tensor(stored[look], dtype=torch.float64) for look in LOOKS}  # (N, C)
    return Answers(
        photos=stored["photos"],
        labels=np.array(stored["labels"]),
        looks={k: (x / history.temperature).softmax(1).numpy() for k, x in logits.items()},
        uncalibrated=logits["logits"].softmax(1).numpy(),
    )


def seen_of(history: History, index: int) -> Seen:
    """What was seen of a validation photo."""
    stored = history.validation_answers
    tensors = {name: torch.tensor(stored[name][index]) for name in (*LOOKS, "heat")}
    return Seen(**tensors, box=tuple(stored["box"][index]))


def look_alikes(matrix: np.ndarray) -> list[list[int]]:
    """Groups of classes taken for one another by the confusion matrix, most errors first.

    Communities of the graph whose edges are the confusions, by modularity: a few errors across do
    not join two groups (Clauset, Newman and Moore, Physical Review E 70, 2004).
    """
    both = np.triu(matrix + matrix.T, 1)  # (C, C)
    graph = networkx.Graph()
    graph.add_weighted_edges_from((a, b, both[a, b]) for a, b in np.argwhere(both).tolist())
    if not graph:
        return []
    found = networkx.community.greedy_modularity_communities(graph, weight="weight")
    groups = [sorted(group) for group in found if len(group) > 1]
    return sorted(groups, key=lambda group: (-errors_within(matrix, group), group))


def errors_within(matrix: np.ndarray, group: Sequence[int]) -> int:
    """How many photos of a group's classes were taken for another one of the group."""
    return int(_errors(matrix[np.ix_(group, group)]).sum())


def group_name(names: Sequence[str]) -> str:
    """What a group of species is called: by the last word of their names, as in "Gull"."""
    return ", ".join(dict.fromkeys(name.split()[-1] for name in names))


# ------------------------------------------------------------------------------------------------
# The page
# ------------------------------------------------------------------------------------------------


def draw(history: History, folder: Path) -> None:
    """Write report.md, report.html and pictures/ into a folder."""
    page, answers = Page("Birds: the report of a training"), answers_of(history)
    _task(page, history, answers)
    _data(page, history)
    _architecture(page, history)
    _settings(page, history)
    _training(page, history)
    if answers is None:
        page.heading("Validation")
        page.text(
            "There was none, for want of two photos of a species. Left out: what each look is "
            "worth, accuracy per species, confusion matrix, look-alikes, what the network looked "
            "at, reliability diagram."
        )
    else:
        _looks(page, answers)
        _per_species(page, history, answers)
        _confusions(page, history, answers)
        _samples(page, history, answers)
        _calibration(page, history, answers)
    page.heading("Conclusions")
    page.items(conclusions(history, answers))
    _making(page, history)
    page.write(folder)


def _task(page: Page, history: History, answers: Answers | None) -> None:
    page.heading("The task")
    page.text(
        f"Tell {len(history.class_ids)} bird species apart on whole photos, by fine-tuning a "
        "MobileNetV2 that was pretrained on ImageNet, on a plain CPU. The network looks twice: at "
        "the whole photo, and at the square where the first look's class activation map says that "
        "the bird is. The measure is top-1 accuracy: the share of photos whose species gets the "
        "highest probability."
    )
    if answers is not None:
        page.text(_accuracy_line(answers))
        correct, total = int(answers.right.sum()), len(answers.photos)
        expected = expectation_lines(correct, total, total)[-1]
        page.text(f"If the hidden photos are like these, the {expected}.")
        page.text(
            "The network delivered was then trained on all photos, these included; so what follows "
            "on validation photos is about the network of the first run, which had not seen them."
        )


def _data(page: Page, history: History) -> None:
    counts = Counter(history.labels.values())
    fewest, most = min(counts.values()), max(counts.values())
    page.heading("The data")
    page.text(
        f"{len(history.labels)} labelled photos of {len(counts)} species: {fewest} to {most} a "
        f"species, {np.median(list(counts.values())):g} in the median."
    )
    sizes = list(history.photo_sizes.items())
    page.table(["width×height in pixels", "photos"], sizes[:5])
    if len(sizes) > 5:
        others = sum(count for _, count in sizes[5:])
        page.text(f"{others} photos are of {len(sizes) - 5} other sizes.")
    per_species = {
        name: counts[class_id]
        for name, class_id in zip(history.names, history.class_ids, strict=True)
    }
    page.picture(charts.bars("photos_per_species", per_species, "labelled photos"))
    first = {class_id: name for name, class_id in sorted(history.labels.items(), reverse=True)}
    shown = [(first[i], name) for i, name in zip(history.class_ids, history.names, strict=True)]
    _photos(page, history, "sample_photos", shown, 8, "One photo of each species.")


def _photos(
    page: Page,
    history: History,
    name: str,
    shown: Sequence[Sequence[str]],
    columns: int,
    caption: str,
    read: Callable[[Path], Sequence[Image.Image]] | None = None,
) -> None:
    """Add those photos that can be read, given as file names with the titles of their pictures."""
    folder, grid = Path(history.images), []
    read, missing = read or (lambda path: [read_photo(path, PHOTO_SIDE)]), 0
    with tolerant_pillow():
        for file, *titles in shown:
            try:
                grid += zip(read(folder / file), titles, strict=True)
            except Exception:  # see solution.read_photo
                missing += 1
    if grid:
        page.picture(charts.photo_grid(name, *zip(*grid, strict=True), columns, caption))
    if missing:
        of = f"{missing} of {len(shown)}"
        page.text(f"Left out of “{caption}”, for want of a readable photo in {folder}: {of}.")


def _architecture(page: Page, history: History) -> None:
    blocks = history.architecture
    total, trained, operations = (
        sum(block[key] for block in blocks) for key in ("parameters", "trained", "operations")
    )
    side = history.settings["input_size"]
    page.heading("The architecture")
    page.text(
        f"MobileNetV2 (Sandler et al., 2018) with a new linear layer. {trained:,} of {total:,} "
        f"parameters were trained, the others are frozen as ImageNet left them. A view of "
        f"{side}×{side} pixels takes {operations / 1e6:.1f} million multiplications with addition; "
        "an answer takes four views, each look and its mirror image."
    )
    page.table(
        ["part", "what", "output (C×H×W)", "million operations", "parameters", "training"],
        [
            (
                index,
                block["name"],
                "×".join(map(str, block["shape"])),
                f"{block['operations'] / 1e6:.2f}",
                f"{block['parameters']:,}",
                "trained" if block["trained"] else "frozen",
            )
            for index, block in enumerate(blocks)
        ],
    )


def _settings(page: Page, history: History) -> None:
    page.heading("The settings")
    page.table(
        ["setting", "value", "why"],
        [
            (name.replace("_", " "), value, REASONS.get(name, ""))
            for name, value in history.settings.items()
        ],
    )


def _training(page: Page, history: History) -> None:
    page.heading("The training")
    page.text(
        "Loss (cross-entropy, in nats) and accuracy of training are measured on augmented, mixed "
        "photos with smoothed labels, by weights that change during the epoch; those of "
        "validation on untouched photos, by the averaged weights, with one look: at the square "
        "where the pretrained network saw the bird. So validation may well look better than "
        "training: the two curves are compared in their course, not in their height. What both "
        "looks answer after the last epoch is in the sections below."
    )
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in history.epochs:
        runs.setdefault(row["stage"], []).append(row)
    caption = f"Lines: mean over the last {SMOOTHING} epochs. Points: the values themselves."
    for key, what in (("loss", "loss (nats)"), ("accuracy", "accuracy")):
        values = {
            stage: {"training": [row[key] for row in rows]}
            | ({"validation": kept} if (kept := _present(rows, f"val_{key}")) else {})
            for stage, rows in runs.items()
        }
        page.picture(charts.curves(key, values, what, SMOOTHING, caption))
    _learning_rates(page, history)
    header = ["run", "epoch", "loss", "accuracy", "val loss", "val accuracy", "head rate", "s"]
    page.table(header, [_epoch_cells(row) for row in history.epochs])


def _present(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows if row[key] is not None]


def _learning_rates(page: Page, history: History) -> None:
    final = [row["learning_rate"] for row in history.epochs if row["stage"] == "final run"]
    settings = history.settings
    slower = settings["backbone_learning_rate"] / settings["head_learning_rate"]
    rates = {
        "head": {"final run": final},
        "backbone": {"final run": [rate * slower for rate in final]},
    }
    caption = "The rates at the end of each epoch of the final run; the first run's are alike."
    page.picture(charts.curves("learning_rate", rates, "learning rate", caption=caption))


def _epoch_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    values = (row[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy"))
    return (
        row["stage"].removesuffix(" run"),
        row["epoch"],
        *("-" if value is None else f"{value:.4f}" for value in values),
        f"{row['learning_rate']:.2e}",
        f"{row['seconds']:.1f}",
    )


def _per_species(page: Page, history: History, answers: Answers) -> None:
    page.heading("Accuracy per species")
    matrix = answers.matrix()
    shares = {
        f"{history.names[i]} ({matrix[i].sum()})": matrix[i, i] / matrix[i].sum()
        for i in sorted(set(answers.labels.tolist()), key=lambda i: matrix[i, i] / matrix[i].sum())
    }
    caption = "On validation photos, the lowest first; in brackets the number of photos."
    page.picture(charts.bars("species_accuracy", shares, "accuracy", caption))


def _accuracy_line(answers: Answers) -> str:
    correct, total = int(answers.right.sum()), len(answers.photos)
    accuracy, (low, high) = accuracy_text(correct, total), wilson_interval(correct, total)
    return (
        f"Accuracy {accuracy} on photos that the run did not train on: {correct} of {total} right, "
        f"95 % interval {low:.4f} to {high:.4f}, mark {mark_of(accuracy)}."
    )


def _looks(page: Page, answers: Answers) -> None:
    page.heading("What each look is worth")
    total, rows = len(answers.photos), []
    for look, what in LOOKS.items():
        correct = int(answers.right_by(look).sum())
        low, high = wilson_interval(correct, total)
        interval = f"{low:.4f} to {high:.4f}"
        rows.append((what, accuracy_text(correct, total), f"{correct} of {total}", interval))
    page.table(["what answers", "accuracy", "right", "95 % interval"], rows)


def _confusions(page: Page, history: History, answers: Answers) -> None:
    page.heading("What is taken for what")
    caption = "Rows: the true species. Columns: the answer. Blue is right, red is wrong."
    page.picture(charts.confusion("confusion", answers.matrix(), history.names, caption))
    if answers.right.all():
        page.text("No species was taken for another.")
    else:
        _look_alikes(page, history, answers)


def _look_alikes(page: Page, history: History, answers: Answers) -> None:
    matrix, wrong, rows, shown = answers.matrix(), int((~answers.right).sum()), [], []
    for number, group in enumerate(look_alikes(matrix), 1):
        species, errors = [history.names[i] for i in group], errors_within(matrix, group)
        share = f"{100 * errors / wrong:.0f} %"
        rows.append((number, group_name(species), ", ".join(species), errors, share))
        if number <= GROUPS_SHOWN:
            shown += [
                (_example(history, answers, i, group), f"{number} {history.names[i]}")
                for i in group[:SPECIES_SHOWN]
            ]
    page.text(
        f"Groups of look-alikes, found from this matrix: {sum(row[3] for row in rows)} of {wrong} "
        "errors are within one of them, the others between two."
    )
    header = ["group", "named", "species", "errors within", "share of all errors"]
    page.table(header, rows)
    caption = "Look-alikes, by the number of their group; where there is one, a mistaken photo."
    _photos(page, history, "look_alikes", shown, 4, caption)


def _example(history: History, answers: Answers, species: int, group: Sequence[int]) -> str:
    """A photo of a species that was taken for another of its group, else the species' first."""
    taken = (answers.labels == species) & ~answers.right & np.isin(answers.best, group)
    mistaken = np.flatnonzero(taken)
    if len(mistaken):
        return answers.photos[mistaken[0]]
    class_id = history.class_ids[species]
    return min(name for name, label in history.labels.items() if label == class_id)


def _samples(page: Page, history: History, answers: Answers) -> None:
    page.heading("What the network looked at")
    page.text(
        "On the left the photo; the redder a place, the more it speaks for the species that the "
        "first look finds likeliest. The white box is the second look, on the right."
    )

    def both_looks(path: Path) -> Sequence[Image.Image]:
        seen = seen_of(history, answers.photos.index(path.name))
        return pictures_of_looks(read_pixels(path, history.preprocessing), seen)

    for name, kind, chosen, what in (
        ("right_answers", "right", answers.right, "from the surest to the least sure"),
        ("wrong_answers", "wrong", ~answers.right, "the surest first"),
    ):
        by_confidence = sorted(np.flatnonzero(chosen), key=lambda i: -answers.confidence[i])
        if not by_confidence:
            page.text(f"No answer is {kind}.")
            continue
        if kind == "right":
            places = np.linspace(0, len(by_confidence) - 1, SAMPLES_SHOWN).round().astype(int)
            by_confidence = [by_confidence[i] for i in sorted(set(places.tolist()))]
        shown = [
            (answers.photos[i], *_titles(history, answers, i))
            for i in by_confidence[:SAMPLES_SHOWN]
        ]
        caption = (
            f"Answers that are {kind}, {what}: above each look the species it finds likeliest."
        )
        _photos(page, history, name, shown, 2, caption, both_looks)


def _titles(history: History, answers: Answers, index: int) -> tuple[str, str]:
    """Above the first look the species, above the second the answer; each look's best three."""
    above = {
        "first": f"is: {history.names[answers.labels[index]]}",
        "second": f"both: {answers.confidence[index]:.2f} {history.names[answers.best[index]]}",
    }
    return tuple(
        f"{title}\n{_best_three(history, answers, look, index)}" for look, title in above.items()
    )


def _best_three(history: History, answers: Answers, look: str, index: int) -> str:
    probabilities = answers.looks[look][index]  # (C,)
    best = np.argsort(-probabilities, kind="stable")[:3]
    return "\n".join(f"{probabilities[i]:.2f} {history.names[i]}" for i in best)


def _calibration(page: Page, history: History, answers: Answers) -> None:
    page.heading("How sure the answers are")
    page.text(
        f"The logits are divided by a temperature of {history.temperature:.3f} before the softmax "
        "(Guo et al., 2017, section 4.2). It was fitted on the same validation photos, so the "
        "error on new photos may be a little higher than the one below."
    )
    caption = (
        f"Answers in {charts.CALIBRATION_BINS} bins by their confidence: where a bar reaches the "
        "dashed line, the answers are right as often as their probability says."
    )
    page.picture(charts.reliability("reliability", answers.probabilities, answers.labels, caption))


def _making(page: Page, history: History) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in history.versions.items())
    page.heading("How this was made")
    page.items(
        [
            f"Training took {history.seconds:.0f} s on {history.machine}, threads: "
            f"{history.threads}; {versions}.",
            f"Every number here stands in {HISTORY} beside this page, or follows from it.",
            "python train_full.py --report-only draws the page anew, without training.",
        ]
    )


# ------------------------------------------------------------------------------------------------
# Conclusions
# ------------------------------------------------------------------------------------------------


def conclusions(history: History, answers: Answers | None) -> list[str]:
    """What the numbers say, each sentence with the number that it rests on."""
    said = [_on_cost(history), _on_balance(history)]
    if answers is not None:
        said = [
            _accuracy_line(answers),
            _on_looks(answers),
            _on_length(history),
            *_on_errors(history, answers),
            _on_calibration(history, answers),
            *_on_doubt(history, answers),
            *said,
        ]
    return said


def _on_looks(answers: Answers) -> str:
    first, second, both = (answers.right_by(look).mean() for look in LOOKS)
    return (
        f"The second look changes the accuracy from {first:.4f}, that of the first one alone, to "
        f"{both:.4f}; alone it has {second:.4f}."
    )


def _on_length(history: History) -> str:
    losses = _present(history.epochs, "val_loss")
    best, last = int(np.argmin(losses)), losses[-1]
    if len(losses) == 1:
        return f"One epoch, after which the validation loss was {last:.4f}, shows no course."
    if best == len(losses) - 1:
        return (
            f"The validation loss was at its lowest, {last:.4f}, after the last epoch, "
            f"{losses[-2] - last:.4f} below the one before: a longer training may gain something."
        )
    return (
        f"The validation loss was lowest after epoch {best + 1} ({losses[best]:.4f}) and ended at "
        f"{last:.4f}: epochs beyond that one did not lower it."
    )


def _on_errors(history: History, answers: Answers) -> list[str]:
    matrix, wrong = answers.matrix(), int((~answers.right).sum())
    if not wrong:
        return []
    errors = {name: int(n) for name, n in zip(history.names, _errors(matrix), strict=True) if n}
    worst = sorted(errors, key=lambda name: -errors[name])[:5]
    group = look_alikes(matrix)[0]
    species = [history.names[i] for i in group]
    top = np.argsort(-answers.probabilities, axis=1)[:, :3]  # (N, 3)
    among = int((top == answers.labels[:, None]).any(1).sum())
    listed = ", ".join(f"{name} {errors[name]}" for name in worst)
    return [
        f"{sum(errors[name] for name in worst)} of {wrong} errors are on {len(worst)} of "
        f"{len(errors)} species with errors: {listed}.",
        f"The look-alikes with the most errors are {', '.join(species)}: "
        f"{errors_within(matrix, group)} of {wrong} errors are among them.",
        f"The right species is among the three likeliest answers for {among} of "
        f"{len(answers.photos)} photos ({among / len(answers.photos):.4f}).",
    ]


def _errors(matrix: np.ndarray) -> np.ndarray:
    return matrix.sum(1) - matrix.diagonal()  # (C,)


def _on_calibration(history: History, answers: Answers) -> str:
    before, after = (
        charts.expected_calibration_error(probabilities, answers.labels)
        for probabilities in (answers.uncalibrated, answers.probabilities)
    )
    return (
        f"The expected calibration error is {after:.4f} at temperature {history.temperature:.3f} "
        f"and {before:.4f} without one: the mean confidence is {answers.confidence.mean():.4f}, "
        f"the accuracy {answers.right.mean():.4f}."
    )


def _on_doubt(history: History, answers: Answers) -> list[str]:
    threshold = history.facts.get("unsure_below")
    if threshold is None:
        return []
    unsure = answers.confidence < threshold
    return [
        f"{unsure.sum()} of {len(unsure)} answers have a probability below {threshold:.2f}, the "
        f"limit of doubt: {(unsure & answers.right).sum()} of these are right, and "
        f"{(~unsure & ~answers.right).sum()} wrong answers lie above it."
    ]


def _on_cost(history: History) -> str:
    blocks = history.architecture
    frozen = sum(block["operations"] for block in blocks if not block["trained"])
    operations = sum(block["operations"] for block in blocks)
    return (
        f"The frozen blocks do {100 * frozen / operations:.0f} % of the {operations / 1e6:.1f} "
        "million operations a view takes; they run once a view, not once an epoch."
    )


def _on_balance(history: History) -> str:
    counts = Counter(history.labels.values())
    fewest, most = min(counts.values()), max(counts.values())
    species = sum(count == fewest for count in counts.values())
    if fewest == most:
        return f"The species are balanced: each has {most} photos."
    return (
        f"The species with the most photos has {most / fewest:.2f} times as many ({most}) as those "
        f"with the fewest ({fewest} photos, {species} species)."
    )
