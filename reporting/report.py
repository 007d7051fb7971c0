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
# other one, and the probabilities of the other one add up to so many photos. Either alone would
# join species because of two outliers.
LEAST_CONFUSIONS, LEAST_MASS = 2, 1.0
PREDICTIONS_SHOWN = 6  # right ones, and wrong ones
PHOTO_SIDE, STAGE_SIDE = 270, 480  # pixels: of a photo in a strip, of what a stage sees
CURVES = {
    "loss": "loss (nats)",
    "accuracy": "accuracy",
    "learning_rate": "learning rate of the head",
}
Pictures = list[str]  # as `src` of image elements; empty for a photo that cannot be read


def draw(history: History, folder: Path) -> None:
    """Write report.html into a folder, and say so. Raises UserError."""
    html, file = render(history), folder / "report.html"
    with atomic_write(file) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"Wrote {file}")


def render(history: History) -> str:
    """Return the page. Raises UserError if the species' names cannot be read."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dec": _decimal, "sha256": _sha256}
    names, outcome = history.names(), Outcome(history) if history.validation else None
    context = {"history": history, "names": names, "outcome": outcome, "likeliest": likeliest}
    context |= _training(history, names)
    if outcome is not None:
        context |= _accuracy(history, outcome) | _species(history, outcome, names)
        context |= _errors(history, outcome, names)
    return environment.get_template("report.html.j2").render(context)


def _decimal(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


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
    """Return the data, the settings, and the course of the training."""
    first = {class_id: name for name, class_id in sorted(history.labels.items(), reverse=True)}
    samples = [_pictures(Path(history.images, first[class_id])) for class_id in history.class_ids]
    return {
        "counts": sorted(Counter(history.labels.values()).values()),
        "samples": list(zip(samples, names, strict=True)),
        "settings": settings_comments(),
        "curves": [
            charts.svg(charts.curves(history.epochs, key, label), label)
            for key, label in CURVES.items()
        ],
        "val_losses": [row["val_loss"] for row in history.epochs if row["val_loss"] is not None],
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


def _views(outcome: Outcome) -> list[tuple[str, float, int, float | None]]:
    """Return of each view its name and the accuracy if it were the last.

    Then how many photos are done after it, and the accuracy on these.
    """
    rows = []
    for view, probabilities in enumerate(outcome.after_views, 1):
        accuracy = (probabilities.argmax(1).numpy() == outcome.labels).mean()
        done = outcome.right[outcome.views.numpy() == view]
        rows.append((VIEW_NAMES[view - 1], accuracy, len(done), done.mean() if len(done) else None))
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
        shares = (_decimal(share[i], 2) for share in (precision, recall))
        rows.append((name, counts[class_id], int(support[i]), *shares, most))
    shown = {f"{names[i]} ({support[i]})": recall[i] for i in np.argsort(recall) if support[i]}
    description = "Recall of each species, as in the table"
    return {"species": rows, "recall": charts.svg(charts.bars(shown, "recall"), description)}


def _errors(history: History, outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Return what is taken for what, with photos, and what both stages see of some photos."""
    wrong = outcome.matrix.sum(1) - outcome.matrix.diagonal()  # (C,)
    figure = charts.confusion(outcome.matrix, names)
    ranked = np.argsort(-outcome.confidence, kind="stable")  # (N,)
    rights, wrongs = ranked[outcome.right[ranked]], ranked[~outcome.right[ranked]]
    spread = np.linspace(0, len(rights) - 1, min(PREDICTIONS_SHOWN, len(rights))).round()
    return {
        "confusion": charts.svg(figure, "Confusion matrix; the table above has its numbers"),
        "wrong": {names[i]: int(wrong[i]) for i in np.argsort(-wrong, kind="stable") if wrong[i]},
        "groups": [
            (group, [(_example(history, outcome, i, group), names[i]) for i in group.classes])
            for group in look_alikes(outcome.matrix, outcome.mass)
        ],
        "right_ones": [(_stages(history, i), i) for i in rights[spread.astype(int)]],
        "wrong_ones": [(_stages(history, i), i) for i in wrongs[:PREDICTIONS_SHOWN]],
    }


# ---- Photos --------------------------------------------------------------------------------------


def _pictures(
    path: Path,
    read: Callable[[Path], Iterable[Image.Image]] = lambda path: [read_photo(path, PHOTO_SIDE)],
    side: int = PHOTO_SIDE,
) -> Pictures:
    """Return what is read or drawn of a photo, at most `side` pixels a side."""
    try:
        return [_data_url(picture, side) for picture in read(path)]
    except Exception:  # see solution.read_photo
        return []


def _data_url(picture: Image.Image, side: int) -> str:
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _example(history: History, outcome: Outcome, species: int, group: Group) -> Pictures:
    """Return a photo of a species that was taken for another of its group, else its first."""
    taken = (outcome.labels == species) & ~outcome.right & np.isin(outcome.predicted, group.classes)
    own = [name for name, label in history.labels.items() if label == history.class_ids[species]]
    photo = outcome.photos[int(taken.argmax())] if taken.any() else min(own)
    return _pictures(Path(history.images, photo))


def _stages(history: History, index: int) -> Pictures:
    """Return what both stages see of a validation photo."""
    photos, cams, boxes = ((history.validation or {})[key] for key in ("photos", "cams", "boxes"))

    def both(path: Path) -> Iterable[Image.Image]:
        pixels = read_pixels(path, history.settings)
        return draw_stages(pixels, torch.tensor(cams[index]), boxes[index])

    return _pictures(Path(history.images, photos[index]), both, STAGE_SIDE)
