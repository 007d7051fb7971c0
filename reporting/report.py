"""What a training leaves, history.json, and the report of it: one page that needs nothing else.

The photos are read where they lie; where they are gone, the page says so and leaves them out.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from course import marks
from course.files import UserError, atomic_write, write_json
from reporting import charts
from reporting.calibration import after, logits_after_views, views_needed
from reporting.drawing import VIEW_NAMES, draw_stages, likeliest
from solution import BirdNet, EpochRow, Settings, read_photo, read_pixels

HISTORY = "history.json"
LEAST_CONFUSIONS = 2  # of two look-alikes, in both directions: one alone would join nearly all
PREDICTIONS_SHOWN = 6  # right ones, and wrong ones
PHOTO_SIDE, STAGE_SIDE = 270, 480  # pixels: of a photo in a strip, of what a stage sees
Pictures = list[str]  # as `src` of image elements; empty for a photo that cannot be read


# ---- What a training leaves ----------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """The numbers of a training. All that the report shows follows from them and the photos."""

    model: dict[str, Any]  # the checkpoint without its weights: see solution.to_checkpoint
    epochs: list[dict[str, Any]]  # rows of the training table: solution.EpochRow
    labels: dict[str, int]  # class id by file name
    validation: dict[str, Any] | None  # solution.Validation, numbers rounded to four digits
    parameters: int
    trained: int  # of the parameters
    images: str  # the folder of the photos
    seconds: float  # that the training took
    threads: int
    machine: str

    def names(self) -> list[str]:
        """Return the species' names by class index."""
        known = self.model["class_names"] or [f"class {i}" for i in self.model["class_ids"]]
        return [name.replace("_", " ") for name in known]


def write_history(
    folder: Path,
    network: BirdNet,
    checkpoint: Mapping[str, Any],
    epochs: Sequence[EpochRow],
    labels: Mapping[str, int],
    images: Path,
    seconds: float,
) -> None:
    """Write the history of a network that `train_classifier` returned. Raises UserError."""
    seen, cpuinfo = network.validation, Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.is_file() else "")
    history = History(
        model={name: value for name, value in checkpoint.items() if name != "state_dict"},
        epochs=[asdict(row) for row in epochs],
        labels=dict(labels),
        validation=asdict(seen) | {"labels": seen.labels.tolist()} if seen else None,
        parameters=sum(p.numel() for p in network.parameters()),
        trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        images=os.path.realpath(images),
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=cpu[1] if cpu else platform.processor() or platform.machine(),
    )
    write_json(folder / HISTORY, asdict(history), lambda x: x.double().round(decimals=4).tolist())


def read_history(folder: Path) -> History:
    """Return what history.json in a folder holds. Raises UserError if it is missing or damaged."""
    path = folder / HISTORY
    try:
        return History(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        cause = f"{path} is missing, damaged or of another version ({error!r})"
    raise UserError(f"{cause}: `python train_full.py` writes it into the folder of --report")


# ---- The page ------------------------------------------------------------------------------------


def draw(history: History, folder: Path) -> None:
    """Write report.html, and its confusion matrix as a picture. Raises UserError."""
    page = folder / "report.html"
    with atomic_write(page) as temporary:
        temporary.write_text(render(history), encoding="utf-8")
    if history.validation:
        figure = charts.confusion(Outcome(history).matrix, history.names())
        with atomic_write(folder / "confusion.png") as temporary:
            figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
    print(f"Wrote {page}")


def render(history: History) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "dec": _decimal,
        "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }
    environment.globals |= {"charts": charts, "marks": marks, "likeliest": likeliest}
    names, labels = history.names(), sorted(history.labels.items())
    photos = [[n for n, i in labels if i == class_id] for class_id in history.model["class_ids"]]
    firsts = [_photo(history, of_species[0]) if of_species else [] for of_species in photos]
    samples = list(zip(firsts, names, strict=True))
    outcome = Outcome(history) if history.validation else None
    groups = outcome.look_alikes() if outcome else []
    comments = re.findall(r"^    (\w+): .*  # (.*)$", inspect.getsource(Settings), re.MULTILINE)
    return environment.get_template("report.html.j2").render(
        history=history,
        names=names,
        counts=[len(of_species) for of_species in photos],
        samples=samples,
        comments=dict(comments),
        outcome=outcome,
        groups=[(errors, [samples[i] for i in species]) for errors, species in groups],
    )


def _decimal(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


# ---- What the network of the validation run predicts ---------------------------------------------


class Outcome:
    """Predictions of N photos that the network was not trained on, as `classify` makes them."""

    def __init__(self, history: History) -> None:
        stored, model, self.history = history.validation or {}, history.model, history
        rows = [prediction["view_logits"] for prediction in stored["predictions"]]  # (N, V, C)
        view_logits = torch.tensor(rows, dtype=torch.float64)
        logits = logits_after_views(view_logits, model["settings"]["whole_share"])  # (V, N, C)
        self.after_views = (logits / model["temperature"]).softmax(-1)  # (V, N, C)
        views = views_needed(self.after_views, model["early_exit"])
        self.views = views.numpy()  # (N,)
        probabilities = after(self.after_views, views).numpy()  # (N, C)
        ranking = np.argsort(-probabilities, axis=1, kind="stable")  # (N, C)
        self.labels, self.predicted = np.array(stored["labels"]), ranking[:, 0]  # (N,), indices
        self.in_top3 = (ranking[:, :3] == self.labels[:, None]).sum()
        self.confidence = probabilities.max(1)  # (N,)
        self.uncertain = self.confidence < model["confidence_threshold"]  # (N,)
        self.right = self.predicted == self.labels  # (N,)
        classes = range(probabilities.shape[1])
        self.matrix = confusion_matrix(self.labels, self.predicted, labels=classes)
        self.wrong = self.matrix - np.diag(self.matrix.diagonal())  # (C, C), as `matrix`
        self.precision, self.recall, _, self.support = precision_recall_fscore_support(
            self.labels, self.predicted, labels=classes, zero_division=np.nan
        )

    def by_view(self) -> list[tuple[str, float, int, float | None]]:
        """Return of each view: name, accuracy if it were last, photos ending there, and theirs."""
        rows = []
        for view, probabilities in enumerate(self.after_views, 1):
            accuracy = (probabilities.argmax(1).numpy() == self.labels).mean()
            done = self.right[self.views == view]
            last = done.mean() if len(done) else None
            rows.append((VIEW_NAMES[view - 1], accuracy, len(done), last))
        return rows

    def look_alikes(self) -> list[tuple[int, list[int]]]:
        """Return groups of species taken for one another: their errors, most first; their indices.

        Whoever is confused with one of a group belongs to it.
        """
        number, group_of = connected_components(self.wrong + self.wrong.T >= LEAST_CONFUSIONS)
        groups = [np.flatnonzero(group_of == group) for group in range(number)]
        found = [(int(self.wrong[np.ix_(group, group)].sum()), group.tolist()) for group in groups]
        return sorted((row for row in found if row[0]), reverse=True)

    def shown(self, right: bool) -> list[tuple[Pictures, int]]:
        """Return what both stages see of some photos, the surest first, and the photos' indices.

        They are the surest wrong ones, or right ones from the surest to the least sure.
        """
        ranked = np.argsort(-self.confidence, kind="stable")  # (N,)
        ranked = ranked[self.right[ranked] == right]
        if right:
            count = min(PREDICTIONS_SHOWN, len(ranked))
            ranked = ranked[np.linspace(0, len(ranked) - 1, count, dtype=int)]
        return [(_stages(self.history, i), i) for i in ranked[:PREDICTIONS_SHOWN]]


# ---- Photos --------------------------------------------------------------------------------------


def _photo(history: History, name: str) -> Pictures:
    with suppress(Exception):  # see solution.read_photo
        return [_data_url(read_photo(Path(history.images, name), PHOTO_SIDE), PHOTO_SIDE)]
    return []


def _stages(history: History, index: int) -> Pictures:
    """Return what both stages see of a validation photo."""
    photo, seen = ((history.validation or {})[key][index] for key in ("photos", "predictions"))
    with suppress(Exception):
        pixels = read_pixels(Path(history.images, photo), history.model["preprocessing"])
        drawn = draw_stages(pixels, torch.tensor(seen["cam"]), seen["box"])
        return [_data_url(picture, STAGE_SIDE) for picture in drawn]
    return []


def _data_url(picture: Image.Image, side: int) -> str:
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
