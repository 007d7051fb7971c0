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
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import networkx
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from course import marks
from course.files import UserError, atomic_write, describe_error, write_json
from reporting import charts
from reporting.calibration import after, logits_after_views, views_needed
from reporting.drawing import VIEW_NAMES, draw_stages, likeliest
from solution import BirdNet, EpochRow, Settings, read_photo, read_pixels

HISTORY = "history.json"
# Of the photos of two species together, what makes these look-alikes: so many are taken for the
# other one, and the probabilities of the other one add up to so many photos. Either alone would
# join species because of two outliers.
LEAST_CONFUSIONS, LEAST_MASS = 2, 1.0
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

    def counts(self) -> list[int]:
        """Return the number of photos by class index."""
        counts = Counter(self.labels.values())
        return [counts[class_id] for class_id in self.model["class_ids"]]

    def first_photos(self) -> list[str]:
        """Return the first photo's name by class index; "" for a species that has none."""
        first = {class_id: name for name, class_id in sorted(self.labels.items(), reverse=True)}
        return [first.get(class_id, "") for class_id in self.model["class_ids"]]


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
    history = History(
        model={name: value for name, value in checkpoint.items() if name != "state_dict"},
        epochs=[asdict(row) for row in epochs],
        labels=dict(labels),
        validation=asdict(network.validation) if network.validation else None,
        parameters=sum(p.numel() for p in network.parameters()),
        trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        images=os.path.realpath(images),
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=_processor(),
    )
    write_json(folder / HISTORY, asdict(history), _rounded)


def _rounded(values: Tensor) -> list[Any]:
    return (values.double().round(decimals=4) if values.is_floating_point() else values).tolist()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def read_history(folder: Path) -> History:
    """Return what history.json in a folder holds. Raises UserError if it is missing or damaged."""
    path = folder / HISTORY
    try:
        return History(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        cause = describe_error(error, path, writing=False)
    except (TypeError, ValueError):
        cause = f"{path} is damaged or of another version"
    raise UserError(f"{cause}; `python train_full.py` writes it into the folder of --report")


# ---- The page ------------------------------------------------------------------------------------


def draw(history: History, folder: Path) -> None:
    """Write report.html into a folder, and say so. Raises UserError."""
    html, file = render(history), folder / "report.html"
    with atomic_write(file) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"Wrote {file}")


def render(history: History) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dec": _decimal, "sha256": _sha256}
    environment.globals |= {"charts": charts, "marks": marks, "likeliest": likeliest}
    names = history.names()
    firsts = [_photo(history, photo) for photo in history.first_photos()]
    return environment.get_template("report.html.j2").render(
        history=history,
        names=names,
        samples=list(zip(firsts, names, strict=True)),
        settings=settings_comments(),
        outcome=Outcome(history, names) if history.validation else None,
    )


def _decimal(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def settings_comments() -> dict[str, str]:
    """Return the comment beside each of the `Settings` in the source."""
    lines = inspect.getsource(Settings).splitlines()
    found = (re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line) for line in lines)
    return {match[1]: match[2] or "" for match in found if match}


# ---- What the network of the validation run predicts ---------------------------------------------


def look_alikes(matrix: np.ndarray, mass: np.ndarray) -> list[tuple[int, list[int]]]:
    """Return groups of species taken for one another: how many photos are, and the species.

    The most errors come first. Takes counts (C, C) and sums of probabilities (C, C), with a row for
    each true class. Groups are the communities, by modularity, of the graph of look-alikes
    (Clauset, Newman and Moore, Physical Review E 70, 2004).
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
        groups.append((int(part.sum() - part.trace()), classes))
    return sorted(groups, key=lambda group: (-group[0], group[1]))


class Outcome:
    """Predictions of N photos that the network was not trained on, as `classify` makes them."""

    def __init__(self, history: History, names: Sequence[str]) -> None:
        stored, model = history.validation or {}, history.model
        rows = [prediction["view_logits"] for prediction in stored["predictions"]]  # (N, V, C)
        view_logits = torch.tensor(rows, dtype=torch.float64)
        logits = logits_after_views(view_logits, model["settings"]["whole_share"])  # (V, N, C)
        self.after_views = (logits / model["temperature"]).softmax(-1)  # (V, N, C)
        views = views_needed(self.after_views, model["early_exit"])
        self.history, self.names, self.views = history, names, views.numpy()  # (N,)
        self.photos: list[str] = stored["photos"]
        self.labels = np.array(stored["labels"])  # (N,), class indices
        self.probabilities = after(self.after_views, views).numpy()  # (N, C)
        ranking = np.argsort(-self.probabilities, axis=1, kind="stable")  # (N, C)
        self.predicted = ranking[:, 0]  # (N,), class indices
        self.in_top3 = (ranking[:, :3] == self.labels[:, None]).sum()
        self.confidence = self.probabilities.max(1)  # (N,)
        self.uncertain = self.confidence < model["confidence_threshold"]  # (N,)
        self.right = self.predicted == self.labels  # (N,)
        self.matrix = confusion_matrix(self.labels, self.predicted, labels=range(len(names)))
        self.wrong = self.matrix - np.diag(self.matrix.diagonal())  # (C, C), as `matrix`
        self.mass = np.zeros(self.matrix.shape)  # (C, C): of the true class's photos
        np.add.at(self.mass, self.labels, self.probabilities)
        self.precision, self.recall, _, self.support = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(names)), zero_division=np.nan
        )

    def by_view(self) -> list[tuple[str, float, int, float | None]]:
        """Return of each view its name and the accuracy if it were the last.

        Then how many photos are done after it, and the accuracy on these.
        """
        rows = []
        for view, probabilities in enumerate(self.after_views, 1):
            accuracy = (probabilities.argmax(1).numpy() == self.labels).mean()
            done = self.right[self.views == view]
            last = done.mean() if len(done) else None
            rows.append((VIEW_NAMES[view - 1], accuracy, len(done), last))
        return rows

    def confusions(self) -> list[str]:
        """Return what each species is most often taken for."""
        most = zip(self.wrong.argmax(1), self.wrong.max(1), strict=True)
        return [f"{self.names[other]} ({count})" if count else "–" for other, count in most]

    def errors(self) -> dict[str, int]:
        """Return how many photos of a species were taken for others, where any, most first."""
        wrong = self.wrong.sum(1)
        return {self.names[i]: wrong[i] for i in np.argsort(-wrong, kind="stable") if wrong[i]}

    def groups(self) -> list[tuple[int, list[tuple[Pictures, str]]]]:
        """Return groups of look-alikes: their errors, and a photo of each species with its name.

        The photo was taken for another species of the group, where there is one.
        """
        groups, first = [], self.history.first_photos()
        for errors, classes in look_alikes(self.matrix, self.mass):
            photos = []
            for species in classes:
                taken = (self.labels == species) & np.isin(self.predicted, classes) & ~self.right
                photo = self.photos[taken.argmax()] if taken.any() else first[species]
                photos.append((_photo(self.history, photo), self.names[species]))
            groups.append((errors, photos))
        return groups

    def shown(self, right: bool) -> list[tuple[Pictures, int]]:
        """Return what both stages see of some photos, the surest first, and the photos' indices.

        They are the surest wrong ones, or right ones from the surest to the least sure.
        """
        ranked = np.argsort(-self.confidence, kind="stable")  # (N,)
        ranked = ranked[self.right[ranked] == right]
        if right:
            spread = np.linspace(0, len(ranked) - 1, min(PREDICTIONS_SHOWN, len(ranked))).round()
            ranked = ranked[spread.astype(int)]
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
