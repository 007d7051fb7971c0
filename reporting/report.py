"""The report of a training: one page that needs nothing but itself, drawn from its history.

The photos are read where they lie; where they are gone, the page says so and leaves them out.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import networkx
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from course.files import atomic_write
from course.marks import accuracy_text, mark_of, mark_probabilities, wilson_interval
from reporting import charts
from reporting.calibration import after, logits_after_views, views_needed
from reporting.drawing import VIEW_NAMES, draw_stages, likeliest
from reporting.history import History
from solution import Settings, read_photo, read_pixels

# Of the photos of two species together, what makes these look-alikes: so many are taken for the
# other one, and the probabilities of the other one add up to so many photos. Each by itself joins
# species over two freaks.
LEAST_CONFUSIONS, LEAST_MASS = 2, 1.0
GROUPS_SHOWN = 5  # of look-alikes, with photos
PREDICTIONS_SHOWN = 6  # right ones, and wrong ones
PHOTO_SIDE, STAGE_SIDE = 270, 480  # pixels: of a photo in a strip, of what a stage sees
CURVES = {
    "loss": "loss (nats)",
    "accuracy": "accuracy",
    "learning_rate": "learning rate of the head",
}


def draw(history: History, folder: Path) -> None:
    """Write report.html into a folder. Raises UserError."""
    html = render(history)
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(history: History) -> str:
    """Return the page. Raises UserError if the species' names cannot be read."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dec": _decimal, "sha256": _sha256}
    names = history.names()
    outcome = None if history.validation is None else Outcome(history)
    context = _training(history, names)
    if outcome is not None:
        context |= _accuracy(history, outcome) | _species(history, outcome, names)
        context |= _errors(history, outcome, names)
    template = environment.get_template("report.html.j2")
    return template.render(history=history, names=names, outcome=outcome, **context)


def _decimal(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# ---- What the network of the validation run predicts ---------------------------------------------


class Outcome:
    """Predictions of N photos that the network was not trained on, as `classify` makes them."""

    def __init__(self, history: History) -> None:
        stored, calibration = history.validation or {}, history.calibration
        view_logits = torch.tensor(stored["view_logits"], dtype=torch.float64)
        logits = logits_after_views(view_logits, history.settings["whole_share"])  # (V, N, C)
        self.after_views = (logits / calibration["temperature"]).softmax(-1)  # (V, N, C)
        self.views = views_needed(self.after_views, calibration["early_exit"])  # (N,)
        self.photos: list[str] = stored["photos"]
        self.labels = np.array(stored["labels"])  # (N,), class indices
        self.probabilities = after(self.after_views, self.views).numpy()  # (N, C)
        self.uncalibrated = after(logits.softmax(-1), self.views).numpy()  # (N, C)
        self.predicted = self.probabilities.argmax(1)  # (N,), class indices
        self.confidence = self.probabilities.max(1)  # (N,)
        self.right = self.predicted == self.labels  # (N,)
        classes = range(self.probabilities.shape[1])
        self.matrix = confusion_matrix(self.labels, self.predicted, labels=classes)  # (C, C)
        self.mass = np.zeros(self.matrix.shape)  # (C, C): of the true class's photos
        np.add.at(self.mass, self.labels, self.probabilities)


@dataclass(frozen=True)
class Group:
    """Species that are taken for one another."""

    classes: list[int]
    errors: int  # photos of one of them that are taken for another

    def title(self, names: Sequence[str]) -> str:
        """Return the last words of their names, as in "Gull"."""
        return ", ".join(dict.fromkeys(names[i].split()[-1] for i in self.classes))


def look_alikes(matrix: np.ndarray, mass: np.ndarray) -> list[Group]:
    """Return the groups of species taken for one another, most errors first.

    Takes counts (C, C) and sums of probabilities (C, C), with a row for each true class. Groups
    are the communities, by modularity, of the graph of look-alikes (Clauset, Newman and Moore,
    Physical Review E 70, 2004).
    """
    confusions, weights = matrix + matrix.T, mass + mass.T  # (C, C)
    alike = np.triu((confusions >= LEAST_CONFUSIONS) & (weights >= LEAST_MASS), 1)
    if not alike.any():
        return []
    graph = networkx.Graph()
    graph.add_weighted_edges_from((a, b, weights[a, b]) for a, b in np.argwhere(alike).tolist())
    groups = []
    for community in networkx.community.greedy_modularity_communities(graph, weight="weight"):
        classes = sorted(community)
        part = matrix[np.ix_(classes, classes)]
        groups.append(Group(classes, int(part.sum() - part.trace())))
    return sorted(groups, key=lambda group: (-group.errors, group.classes))


# ---- What the page shows -------------------------------------------------------------------------


def _training(history: History, names: Sequence[str]) -> dict[str, Any]:
    """Return the data, the settings, the architecture and the course of the training."""
    counts, runs = Counter(history.labels.values()), dict[str, list[dict[str, Any]]]()
    for row in history.epochs:
        runs.setdefault(row["stage"], []).append(row)
    first = {class_id: name for name, class_id in sorted(history.labels.items(), reverse=True)}
    shown = [(first[i], name) for i, name in zip(history.class_ids, names, strict=True)]
    operations = {True: 0, False: 0}  # of trained and of frozen blocks
    for block in history.architecture:
        operations[block["trained"] > 0] += block["operations"]
    return {
        "counts": sorted(counts.values()),
        "samples": _photos(history, shown),
        "operations": operations,
        "settings": settings_comments(),
        "curves": [
            charts.svg(charts.curves(_values(runs, key), label), label)
            for key, label in CURVES.items()
        ],
        "val_losses": [row["val_loss"] for row in history.epochs if row["val_loss"] is not None],
    }


def _values(runs: dict[str, list[dict[str, Any]]], key: str) -> dict[str, dict[str, list[float]]]:
    """Return the values of each epoch by run and kind of photos."""
    kinds = {"training": key, "validation": f"val_{key}"}
    return {
        run: {
            kind: [row[column] for row in rows]
            for kind, column in kinds.items()
            if rows[0].get(column) is not None
        }
        for run, rows in runs.items()
    }


def settings_comments() -> dict[str, str]:
    """Return the comment beside each of the `Settings` in the source."""
    lines = inspect.getsource(Settings).splitlines()
    found = (re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line) for line in lines)
    return {match[1]: match[2] or "" for match in found if match}


def _accuracy(history: History, outcome: Outcome) -> dict[str, Any]:
    """Return how good the predictions are, after which view, and how sure."""
    correct, total = int(outcome.right.sum()), len(outcome.photos)
    chances = mark_probabilities(correct, total, total)
    top3 = np.argsort(-outcome.probabilities, axis=1, kind="stable")[:, :3]  # (N, 3)
    uncertain = outcome.confidence < history.calibration["confidence_threshold"]
    errors = (
        charts.expected_calibration_error(probabilities, outcome.labels)
        for probabilities in (outcome.uncalibrated, outcome.probabilities)
    )
    figure = charts.reliability(outcome.probabilities, outcome.labels)
    return {
        "correct": correct,
        "total": total,
        "accuracy": accuracy_text(correct, total),
        "interval": wilson_interval(correct, total),
        "mark": mark_of(accuracy_text(correct, total)),
        "marks": sorted(((p, mark) for mark, p in chances.items() if p >= 0.05), reverse=True),
        "in_top3": int((top3 == outcome.labels[:, None]).any(1).sum()),
        "views": _views(outcome),
        "calibration_errors": tuple(errors),
        "reliability": charts.svg(figure, "Reliability diagram: accuracy by confidence"),
        "uncertain": {
            "all": int(uncertain.sum()),
            "right": int((uncertain & outcome.right).sum()),
            "certain_but_wrong": int((~uncertain & ~outcome.right).sum()),
        },
    }


def _views(outcome: Outcome) -> list[dict[str, Any]]:
    """Return for each view the accuracy if it were the last one, and which photos it is last of."""
    rows = []
    for view, (name, probabilities) in enumerate(
        zip(VIEW_NAMES, outcome.after_views, strict=False), 1
    ):
        stopped = (outcome.views == view).numpy()
        right = (probabilities.argmax(1).numpy() == outcome.labels).mean()
        last = outcome.right[stopped]
        mean = f"{last.mean():.4f}" if len(last) else "–"
        rows.append({"name": name, "accuracy": right, "photos": len(last), "last": mean})
    return rows


def _species(history: History, outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Return a row for each species, and the bars of their recall, the lowest first."""
    matrix, counts = outcome.matrix, Counter(history.labels.values())
    precision, recall, _, support = precision_recall_fscore_support(
        outcome.labels, outcome.predicted, labels=range(len(names)), zero_division=np.nan
    )
    rows = []
    for i, (class_id, name) in enumerate(zip(history.class_ids, names, strict=True)):
        wrong = matrix[i] * (np.arange(len(names)) != i)
        most = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else "–"
        shares = ["–" if np.isnan(x) else f"{x:.2f}" for x in (precision[i], recall[i])]
        rows.append((name, counts[class_id], int(support[i]), *shares, most))
    shown = {f"{names[i]} ({support[i]})": recall[i] for i in np.argsort(recall) if support[i]}
    description = "Recall of each species, as in the table"
    return {"species": rows, "recall": charts.svg(charts.bars(shown, "recall"), description)}


def _errors(history: History, outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Return what is taken for what, with photos, and what both stages see of some photos."""
    groups = look_alikes(outcome.matrix, outcome.mass)
    wrong = outcome.matrix.sum(1) - outcome.matrix.diagonal()  # (C,)
    figure = charts.confusion(outcome.matrix, names)
    ranked = np.argsort(-outcome.confidence, kind="stable")  # (N,)
    rights, wrongs = ranked[outcome.right[ranked]], ranked[~outcome.right[ranked]]
    spread = np.linspace(0, len(rights) - 1, min(PREDICTIONS_SHOWN, len(rights))).round()
    return {
        "confusion": charts.svg(figure, "Confusion matrix; the table above has its numbers"),
        "wrong": {names[i]: int(wrong[i]) for i in np.argsort(-wrong, kind="stable") if wrong[i]},
        "groups": groups,
        "group_photos": [
            _photos(
                history,
                [(_example(history, outcome, i, group), names[i]) for i in group.classes],
            )
            for group in groups[:GROUPS_SHOWN]
        ],
        "stages": {
            "right": _stages(history, outcome, names, rights[spread.astype(int)]),
            "wrong": _stages(history, outcome, names, wrongs[:PREDICTIONS_SHOWN]),
        },
    }


def _example(history: History, outcome: Outcome, species: int, group: Group) -> str:
    """Return a photo of a species that was taken for another of its group, else its first."""
    taken = (outcome.labels == species) & ~outcome.right & np.isin(outcome.predicted, group.classes)
    if taken.any():
        return outcome.photos[int(taken.argmax())]
    class_id = history.class_ids[species]
    return min(name for name, label in history.labels.items() if label == class_id)


# ---- Photos --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """Photos as `src` of an image element, with what stands below; how many could not be read."""

    shown: list[tuple[list[str], Any]]  # pictures of a photo, its caption
    missing: int


def _photos(
    history: History,
    captions: Iterable[tuple[str, Any]],
    read: Callable[[Path], Iterable[Image.Image]] = lambda path: [read_photo(path, PHOTO_SIDE)],
    side: int = PHOTO_SIDE,
) -> Photos:
    """Return those photos that can be read, given as file names with captions."""
    shown, missing = [], 0
    for file, caption in captions:
        try:
            pictures = [_data_url(photo, side) for photo in read(Path(history.images) / file)]
            shown.append((pictures, caption))
        except Exception:  # see solution.read_photo
            missing += 1
    return Photos(shown, missing)


def _data_url(photo: Image.Image, side: int) -> str:
    photo.thumbnail((side, side))
    buffer = io.BytesIO()
    photo.save(buffer, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _stages(
    history: History, outcome: Outcome, names: Sequence[str], indices: np.ndarray
) -> Photos:
    """Return what both stages see of validation photos, with the likeliest species after each."""
    stored = history.validation or {}

    def both(path: Path) -> Iterable[Image.Image]:
        index = outcome.photos.index(path.name)
        pixels = read_pixels(path, history.settings)  # which are those of the views, too
        return draw_stages(pixels, torch.tensor(stored["cams"][index]), stored["boxes"][index])

    captions = [
        (
            outcome.photos[i],
            {
                "is": names[outcome.labels[i]],
                "views": int(outcome.views[i]),
                "first": likeliest(outcome.after_views[0, i], names),
                "last": likeliest(torch.tensor(outcome.probabilities[i]), names),
            },
        )
        for i in indices
    ]
    return _photos(history, captions, both, STAGE_SIDE)
