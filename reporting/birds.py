"""The report of a training: its numbers in history.json, and the page drawn from them alone.

The photos themselves are read where they lie; where they are gone, the report says so and leaves
out the pictures that show them.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from grader.marks import accuracy_text, mark_of
from grader.protocol import write_json
from reporting import charts
from reporting.page import Page
from solution import (
    FORMATS,
    BirdNet,
    EpochRow,
    SubmissionError,
    describe,
    read_photo,
    tolerant_pillow,
)

HISTORY = "history.json"
SMOOTHING = 3  # epochs
PAIRS_SHOWN = 8
PHOTO_SIDE = 270  # pixels: of a photo in the largest grid
SAMPLES_SHOWN = 9  # of right answers, and of wrong ones

REASONS = {
    "input_size": "what MobileNetV2 was pretrained with; more pixels cost their square in time",
    "unfrozen_blocks": "the first blocks hold edges and textures that suit birds as they are; only "
    "the last ones, which tell objects apart, are adapted",
    "views": "the frozen blocks run once a view, so an epoch costs only the upper blocks; several "
    "views make the photos differ between epochs",
    "cache_gigabytes": "bounds the memory of these views; more photos get fewer views",
    "epochs": "chosen on validation photos: docs/experiments.md",
    "batch_size": "large enough for steady gradients, small enough for many steps an epoch",
    "head_learning_rate": "the head starts from random weights and has far to go",
    "backbone_learning_rate": "smaller than the head's, not to spoil the pretrained weights",
    "warmup": "the first gradients, of a random head, would otherwise disturb the backbone",
    "final_rate": "the weights are averaged, so the rate need not decay to zero",
    "weight_decay": "keeps weights small: the photos are few for so many parameters",
    "dropout": "the head must not rely on single features",
    "label_smoothing": "no answer is pushed towards certainty: less overfitting",
    "mixup": "blends of two photos, with labels blended alike: less overfitting",
    "cutmix": "patches of one photo in another, with labels in proportion: the same",
    "mirror": "a bird that looks the other way is the same bird",
    "crop_share": "random crops: the bird may be anywhere and of any size",
    "crop_stretch": "a bird may stand taller or longer, but not much: its proportions tell species",
    "colour_jitter": "light and weather differ between photos",
    "bfloat16": "half the time where the processor multiplies it; fewer digits, as accurate",
    "average_decay": "the mean of many steps' weights generalises better than the last step's",
    "discriminants": "a head in closed form, averaged with that of gradient descent: their errors "
    "differ",
    "shrinkage": "more features than photos of a species: their covariance alone would overfit",
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
    facts: dict[str, Any]  # of the network: validation, temperature, ...
    epochs: list[dict[str, Any]]  # rows of the training table: solution.EpochRow
    labels: dict[str, int]  # class id by file name
    class_ids: list[int]
    class_names: list[str] | None
    validation_answers: dict[str, Any] | None  # photos, labels (class index), logits
    architecture: list[dict[str, Any]]  # blocks in order: see architecture_of
    photo_sizes: dict[str, int]  # how many photos have a size, such as "227×227"
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
        facts={key: value for key, value in network.facts.items() if key != "settings"},
        epochs=[asdict(row) for row in epochs],
        labels=labels,
        class_ids=network.class_ids,
        class_names=network.class_names,
        validation_answers=answers
        and {
            "photos": list(answers["photos"]),
            "labels": answers["labels"].tolist(),
            "logits": answers["logits"].double().round(decimals=4).tolist(),
        },
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


def architecture_of(network: BirdNet, side: int) -> list[dict[str, Any]]:
    """The network's parts in order, for one photo (1, 3, side, side).

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
    probabilities: np.ndarray  # (N, C)
    uncalibrated: np.ndarray  # (N, C), at temperature 1

    @property
    def best(self) -> np.ndarray:
        """The answers: class indices (N,)."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """Which answers are right, (N,)."""
        return self.best == self.labels

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
    logits = torch.tensor(stored["logits"], dtype=torch.float64)  # (N, C)
    return Answers(
        photos=stored["photos"],
        labels=np.array(stored["labels"]),
        probabilities=(logits / history.temperature).softmax(1).numpy(),
        uncalibrated=logits.softmax(1).numpy(),
    )


def confused_pairs(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of classes taken for one another, the most frequent first."""
    both = np.triu(matrix + matrix.T, 1)  # (C, C)
    pairs = np.argwhere(both)
    return [(int(a), int(b)) for a, b in sorted(pairs, key=lambda p: -both[tuple(p)])]


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
            "There was none, for want of two photos of a species. Left out: confusion matrix, "
            "most confused pairs, accuracy per species, sample answers, reliability diagram."
        )
    else:
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
        f"Tell {len(history.class_ids)} bird species apart on photos, by fine-tuning a MobileNetV2 "
        "that was pretrained on ImageNet, on a plain CPU. The measure is top-1 accuracy: the share "
        "of photos whose species gets the highest probability."
    )
    if answers is not None:
        page.text(_accuracy_line(history, answers))
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
    shown: Sequence[tuple[str, str]],
    columns: int,
    caption: str,
) -> None:
    """Add those photos that can be read, given as file names and titles."""
    folder = Path(history.images)
    with tolerant_pillow():
        read = [(photo, title) for file, title in shown if (photo := _read(folder / file))]
    if read:
        page.picture(charts.photo_grid(name, *zip(*read, strict=True), columns, caption))
    if len(read) < len(shown):
        missing = f"{len(shown) - len(read)} of {len(shown)}"
        page.text(f"Left out of “{caption}”, for want of a readable photo in {folder}: {missing}.")


def _read(path: Path) -> Image.Image | None:
    try:
        return read_photo(path, PHOTO_SIDE)
    except Exception:  # see solution.read_photo
        return None


def _architecture(page: Page, history: History) -> None:
    blocks = history.architecture
    total, trained, operations = (
        sum(block[key] for block in blocks) for key in ("parameters", "trained", "operations")
    )
    page.heading("The architecture")
    page.text(
        f"MobileNetV2 (Sandler et al., 2018) with a new linear layer. {trained:,} of {total:,} "
        f"parameters were trained, the others are frozen as ImageNet left them. A photo takes "
        f"{operations / 1e6:.1f} million multiplications with addition."
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
        "validation on untouched photos, by the averaged weights. So validation may well look "
        "better than training: the two curves are compared in their course, not in their height. "
        "After the last epoch the head is averaged with the discriminants of the features; what "
        "the network answers from then on is in the sections below."
    )
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in history.epochs:
        runs.setdefault(row["stage"], []).append(row)
    caption = f"Lines: moving average over {SMOOTHING} epochs. Points: the values themselves."
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


def _accuracy_line(history: History, answers: Answers) -> str:
    correct, total = int(answers.right.sum()), len(answers.photos)
    accuracy = accuracy_text(correct, total)
    low, high = history.facts["validation"]["interval"]
    return (
        f"Accuracy {accuracy} on photos that the run did not train on: {correct} of {total} right, "
        f"95 % interval {low:.4f} to {high:.4f}, mark {mark_of(accuracy)}."
    )


def _confusions(page: Page, history: History, answers: Answers) -> None:
    names, matrix = history.names, answers.matrix()
    page.heading("What is taken for what")
    caption = "Rows: the true species. Columns: the answer. Blue is right, red is wrong."
    page.picture(charts.confusion("confusion", matrix, names, caption))
    pairs = confused_pairs(matrix)[:PAIRS_SHOWN]
    if not pairs:
        page.text("No species was taken for another.")
        return
    page.table(
        ["pair", "species A", "species B", "A taken for B", "B taken for A"],
        [
            (number, names[a], names[b], matrix[a, b], matrix[b, a])
            for number, (a, b) in enumerate(pairs, 1)
        ],
    )
    shown = []
    for number, (a, b) in enumerate(pairs, 1):
        shown.append((_example(history, answers, a, b), f"{number} A: {names[a]}"))
        shown.append((_example(history, answers, b, a), f"{number} B: {names[b]}"))
    caption = "The most confused pairs side by side; where there is one, a photo that was mistaken."
    _photos(page, history, "confused_pairs", shown, 4, caption)


def _example(history: History, answers: Answers, species: int, other: int) -> str:
    """A photo of a species that was taken for the other one, else the first of that species."""
    mistaken = np.flatnonzero((answers.labels == species) & (answers.best == other))
    if len(mistaken):
        return answers.photos[mistaken[0]]
    class_id = history.class_ids[species]
    return min(name for name, label in history.labels.items() if label == class_id)


def _samples(page: Page, history: History, answers: Answers) -> None:
    page.heading("Sample answers")
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
            (answers.photos[i], _top_three(history, answers, i))
            for i in by_confidence[:SAMPLES_SHOWN]
        ]
        caption = f"Answers that are {kind}, {what}: the species, and the three likeliest answers."
        _photos(page, history, name, shown, 3, caption)


def _top_three(history: History, answers: Answers, index: int) -> str:
    probabilities = answers.probabilities[index]  # (C,)
    best = np.argsort(-probabilities, kind="stable")[:3]
    lines = [f"{probabilities[i]:.2f} {history.names[i]}" for i in best]
    return "\n".join([f"is: {history.names[answers.labels[index]]}", *lines])


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
            _accuracy_line(history, answers),
            _on_head(history, answers),
            _on_length(history),
            *_on_errors(history, answers),
            _on_calibration(history, answers),
            *_on_doubt(history, answers),
            *said,
        ]
    return said


def _on_head(history: History, answers: Answers) -> str:
    before = _present(history.epochs, "val_accuracy")[-1]
    after = answers.right.mean().item()
    return (
        f"Averaging the head with the discriminants took the validation accuracy from {before:.4f} "
        f"after the last epoch to {after:.4f}."
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
    a, b = confused_pairs(matrix)[0]
    top = np.argsort(-answers.probabilities, axis=1)[:, :3]  # (N, 3)
    among = int((top == answers.labels[:, None]).any(1).sum())
    listed = ", ".join(f"{name} {errors[name]}" for name in worst)
    return [
        f"{sum(errors[name] for name in worst)} of {wrong} errors are on {len(worst)} of "
        f"{len(errors)} species with errors: {listed}.",
        f"The most confused pair is {history.names[a]} and {history.names[b]}: "
        f"{matrix[a, b] + matrix[b, a]} of {wrong} errors.",
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
        "million operations a photo takes; they run once a view, not once an epoch."
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
