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
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course.files import UserError, describe_error, write_json
from course.tables import read_species
from solution import BirdNet, EpochRow, open_photo

HISTORY = "history.json"


@dataclass(frozen=True)
class History:
    """The numbers of a training. All that the report shows follows from them and the photos."""

    model: dict[str, Any]  # the checkpoint without its weights: see solution.to_checkpoint
    epochs: list[dict[str, Any]]  # rows of the training table: solution.EpochRow
    labels: dict[str, int]  # class id by file name
    validation: dict[str, Any] | None  # solution.Validation, numbers rounded to four digits
    architecture: list[dict[str, Any]]  # blocks in order: see architecture_of
    photo_sizes: dict[str, int]  # how many photos have a size, such as "500×375"
    images: str  # the folder of the photos
    seconds: float  # that the training took
    threads: int
    machine: str

    def names(self) -> list[str]:
        """Return the species' names by class index: those of a species.csv beside the tests first.

        Raises UserError for a species.csv that is none.
        """
        ids = self.model["class_ids"]
        known = self.model["class_names"] or [f"class {class_id}" for class_id in ids]
        species = read_species(Path(self.images).parents[2] / "species.csv")
        names = (species.get(i) or name for i, name in zip(ids, known, strict=True))
        return [name.replace("_", " ") for name in names]

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
        architecture=architecture_of(network, checkpoint["preprocessing"]["input_size"]),
        photo_sizes=dict(Counter(_size(images / name) for name in labels).most_common()),
        images=os.path.realpath(images),
        seconds=seconds,
        threads=torch.get_num_threads(),
        machine=_processor(),
    )
    write_json(folder / HISTORY, asdict(history), _rounded)


def _rounded(values: Tensor) -> list[Any]:
    return (values.double().round(decimals=4) if values.is_floating_point() else values).tolist()


def architecture_of(network: BirdNet, side: int) -> list[dict[str, Any]]:
    """Return the network's parts in order, for one view (1, 3, side, side).

    Each has a name, the shape (C, H, W) of its output, its multiplications with addition, its
    parameters, and how many of these were trained.
    """
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head)
    parts = {f"{i}: {_kind(block)}": block for i, block in enumerate(network.features)}
    parts["head: global average pooling, linear layer"] = pooled
    rows, x = [], torch.zeros(1, 3, side, side)
    for name, part in parts.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x = part(x)
        row: dict[str, Any] = {"name": name, "shape": list(x.shape[1:])}
        row |= {"operations": counter.get_total_flops() // 2}
        row |= {"parameters": sum(p.numel() for p in part.parameters())}
        row |= {"trained": sum(p.numel() for p in part.parameters() if p.requires_grad)}
        rows.append(row)
    return rows


def _kind(block: nn.Module) -> str:
    if isinstance(block, nn.Sequential):
        return "convolution"
    return "inverted residual" + ", with shortcut" * getattr(block, "residual", False)


def _size(path: Path) -> str:
    try:
        with open_photo(path) as photo:
            return f"{photo.width}×{photo.height}"
    except Exception:  # see solution.read_photo
        return "unreadable"


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
