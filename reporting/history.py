"""What a training leaves for its report, as plain values: history.json."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course.files import UserError, describe_error, write_json
from solution import BirdNet, EpochRow

HISTORY = "history.json"


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
