"""Train a plain `nn.Module`: an epoch at a time, resumable, its history kept as numbers.

A run writes two files into the folder of its assignment after every epoch: `runs/<label>.json`, the
history, and `runs/<label>.pt`, all that the next epoch depends on (weights, optimiser, schedule,
random state). So an interrupted run goes on where it stopped, and ends with the same bits.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR, ReduceLROnPlateau

from coursework.data import CourseworkError, DataSet, Photos, augmentation
from grader.protocol import write_json, written
from solution import EpochRow, Progress

EVALUATION_BATCH = 50  # photos; larger ones fall out of the processor's cache
TRAINING_PHOTOS_EVALUATED = 10_000  # at most, for the accuracy on training data after a run


@dataclass(frozen=True)
class Recipe:
    """How to train on the cross-entropy."""

    epochs: int
    optimiser: str = "sgd"  # or "adam" (Kingma and Ba, 2015), "adamw" (Loshchilov and Hutter, 2019)
    batch_size: int = 64
    learning_rate: float = 1e-3  # the greatest of the schedule
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"  # or "one-cycle" (Smith and Topin, 2018), "plateau", "multi-step"
    patience: int = 10  # epochs without a lower watched loss before "plateau" divides by 10
    cooldown: int = 0  # epochs after that in which it does not count
    milestones: tuple[int, ...] = ()  # epochs after which "multi-step" divides by 10
    backbone_rate: float = 1.0  # times the learning rate, for all but the layer `head`
    augment: tuple[str, ...] = ()  # names in data.augmentation
    bfloat16: bool = True  # where the processor multiplies such matrices itself (AMX)
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """One network, the data it is trained on, and how."""

    label: str
    change: str  # what is different from the run before
    build: Callable[[], nn.Module]
    data: DataSet
    recipe: Recipe
    start: Result | None = None  # begins with the final weights of that run

    def fresh(self) -> nn.Module:
        """The network before the first step: the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = self.build()
        if self.start:
            network.load_state_dict(self.start.network.state_dict())
        return network.to(memory_format=torch.channels_last)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the outcome, but for the machine."""
        start = self.start.run.fingerprint if self.start else None
        parts = [self.label, self.recipe, self.fresh(), start, self.data.name]
        content = hashlib.sha256(repr(parts).encode())
        for photos in (self.data.train, self.data.watched, self.data.test):
            content.update(repr(photos.inputs.shape).encode() + photos.labels.numpy().tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run: Run
    network: nn.Module  # in evaluation mode, on the CPU
    rows: Sequence[EpochRow]  # their val_* are of the watched photos
    final: dict[str, float]  # accuracies and losses of the trained network, see `_measure`

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(row.seconds for row in self.rows)

    @property
    def parameters(self) -> int:
        """How many numbers the network holds that training may change."""
        return count_parameters(self.network)


def count_parameters(network: nn.Module) -> int:
    """Trainable weights and biases, without the statistics of batch norms."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------------------
# The forward pass
# ------------------------------------------------------------------------------------------------


class Normalise(nn.Module):
    """Photos on [0, 1] to mean 0 and standard deviation 1 in each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return (x - self.mean) / self.std


def arithmetic(device: torch.device, bfloat16: bool) -> AbstractContextManager:
    """Convolutions in bfloat16 if wanted and if that is faster here; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and has_amx(device))


def has_amx(device: torch.device) -> bool:
    """Whether this is an x86 processor with units for bfloat16 matrices."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and supported()


def to_input(inputs: Tensor, device: torch.device) -> Tensor:
    """What a network is fed: pixels (B, C, H, W) on [0, 1], or activations, as float32."""
    x = inputs.to(device).float()
    x = x / 255 if inputs.dtype == torch.uint8 else x
    return x.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def forward_all(network: nn.Module, inputs: Tensor, bfloat16: bool = True) -> Tensor:
    """Outputs (N, ...) in float32 for inputs (N, C, H, W), in evaluation mode, in batches."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    network.eval()
    with arithmetic(device, bfloat16):
        parts = [network(to_input(part, device)).float() for part in inputs.split(EVALUATION_BATCH)]
    return torch.cat(parts).cpu()


def probabilities(network: nn.Module, inputs: Tensor) -> Tensor:
    """Softmax outputs (N, classes) for inputs (N, C, H, W)."""
    return forward_all(network, inputs, bfloat16=False).softmax(1)


def evaluate(network: nn.Module, photos: Photos, bfloat16: bool) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy."""
    logits = forward_all(network, photos.inputs, bfloat16)
    right = (logits.argmax(1) == photos.labels).float().mean().item()
    return functional.cross_entropy(logits, photos.labels).item(), right


def accepts(network: nn.Module, channels: int, height: int, width: int) -> bool:
    """Whether the network takes a photo of that size."""
    try:
        forward_all(network, torch.zeros(1, channels, height, width))
    except RuntimeError:  # a linear layer that was made for another number of inputs
        return False
    return True


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------


class Trainer:
    """A run between two epochs: all that has to be kept so that it can go on."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device, self.rows = run, device, []
        self.recipe, train = run.recipe, run.data.train
        self.network = run.fresh().to(device)
        size = min(self.recipe.batch_size, len(train))
        self.batches = len(train) // size  # an epoch leaves out what would not fill a batch
        self.batch_size = size
        self.optimiser = _optimiser(self.network, self.recipe)
        self.scheduler = _scheduler(self.optimiser, self.recipe, self.batches)
        self.augment = augmentation(self.recipe.augment, train.inputs.shape[-1])

    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "fingerprint": self.run.fingerprint,
            "rows": [asdict(row) for row in self.rows],
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])

    def epoch(self, progress: Progress) -> None:
        """Train once on every photo, evaluate on the watched ones, and add a row."""
        start, recipe = time.perf_counter(), self.recipe
        loss = right = seen = 0.0
        self.network.train()
        for x, labels in self._epoch_batches():
            with arithmetic(self.device, recipe.bfloat16):
                logits = self.network(x).float()
            batch_loss = functional.cross_entropy(logits, labels)
            self._step(batch_loss)
            loss += batch_loss.item() * len(labels)
            right += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
            progress.step(len(labels))
        watched = evaluate(self.network, self.run.data.watched, recipe.bfloat16)
        rate = self.optimiser.param_groups[-1]["lr"]
        if recipe.schedule == "plateau":
            self.scheduler.step(watched[0])
        seconds = time.perf_counter() - start
        number = len(self.rows) + 1
        row = EpochRow(self.run.label, number, loss / seen, right / seen, *watched, rate, seconds)
        self.rows.append(row)
        progress.epoch(row)

    def _epoch_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        photos = self.run.data.train
        order = torch.randperm(len(photos))[: self.batches * self.batch_size]
        for chosen in order.split(self.batch_size):
            inputs = photos.inputs[chosen]  # (B, C, H, W)
            if self.augment:
                inputs = torch.stack([self.augment(photo) for photo in inputs])
            yield to_input(inputs, self.device), photos.labels[chosen].to(self.device)

    def _step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        if self.recipe.schedule != "plateau":
            self.scheduler.step()


def _optimiser(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The head last, so that its learning rate is the one that is reported."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    head = [p for name, p in trained if name.startswith("head.")]
    backbone = [p for name, p in trained if not name.startswith("head.")]
    groups = [
        {"params": backbone, "lr": recipe.learning_rate * recipe.backbone_rate},
        {"params": head, "lr": recipe.learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "adamw":
        return AdamW(groups, weight_decay=recipe.weight_decay)
    return SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _scheduler(
    optimiser: Optimizer, recipe: Recipe, batches: int
) -> ConstantLR | OneCycleLR | ReduceLROnPlateau:
    if recipe.schedule == "one-cycle":
        rates = [group["lr"] for group in optimiser.param_groups]
        steps = recipe.epochs * batches
        return OneCycleLR(optimiser, rates, total_steps=steps, cycle_momentum=False)
    if recipe.schedule == "plateau":
        patience, cooldown = recipe.patience, recipe.cooldown
        return ReduceLROnPlateau(optimiser, patience=patience, cooldown=cooldown)
    return ConstantLR(optimiser, factor=1.0)


def train(run: Run, folder: Path, device: torch.device, progress: Progress) -> Result:
    """Train to the end, from the last whole epoch that `folder` holds of this run.

    Raises CourseworkError if that folder holds another run of this label.
    """
    base = folder / "runs" / re.sub(r"[^a-z0-9]+", "-", run.label.lower())
    checkpoint, history = base.with_suffix(".pt"), base.with_suffix(".json")
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(run, device)
        torch.manual_seed(run.recipe.seed)
        state = _load(checkpoint, run) or {}
        if state:
            trainer.load(state)
        done, epochs = len(trainer.rows), run.recipe.epochs
        if done < epochs:
            name = f"{run.label} from epoch {done + 1}" if done else run.label
            progress.stage(name, (epochs - done) * trainer.batches * trainer.batch_size)
        while len(trainer.rows) < epochs:
            trainer.epoch(progress)
            save(trainer.state(), checkpoint)
            write_json(history, [asdict(row) for row in trainer.rows])
        if "final" not in state:
            state = trainer.state() | {"final": _measure(trainer.network, run)}
            save(state, checkpoint)
    return Result(run, trainer.network.cpu().eval(), trainer.rows, state["final"])


def _measure(network: nn.Module, run: Run) -> dict[str, float]:
    """Loss and accuracy on untouched photos: of training (some thousands of them) and of test."""
    data, shown = run.data, {}
    some = np.arange(min(len(data.train), TRAINING_PHOTOS_EVALUATED))
    for kind, photos in (("training", data.train.take(some)), ("test", data.test)):
        shown[f"{kind}_loss"], shown[f"{kind}_accuracy"] = evaluate(
            network, photos, run.recipe.bfloat16
        )
    return shown


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint in one step: until then the file there is as it was."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _load(path: Path, run: Run) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        fingerprint = state["fingerprint"]
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        raise CourseworkError(
            f"{path} cannot be read ({type(error).__name__}): delete it, and the run starts anew"
        ) from None
    if fingerprint != run.fingerprint:
        raise CourseworkError(
            f"{path} holds a run on other data or with other settings: choose another --out, "
            f"or delete {path.parent}"
        )
    return state


def write_history(results: Sequence[Result], folder: Path) -> None:
    """All numbers of all runs as `history.json`, which the plots are drawn from."""
    content = {
        result.run.label: {
            "change": result.run.change,
            "recipe": asdict(result.run.recipe),
            "parameters": result.parameters,
            "epochs": [asdict(row) for row in result.rows],
            **result.final,
        }
        for result in results
    }
    write_json(folder / "history.json", content)
