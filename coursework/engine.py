"""Train a plain `nn.Module` with Lightning, an epoch at a time, resumable.

Every epoch depends on (seed, epoch) alone, whatever came before it in this process: that decides
the order of the photos, the augmentation and the dropout. So the checkpoint after an epoch,
`runs/<label>.ckpt`, needs no random state, and an interrupted run ends with the same bits.
`logs/<label>/` holds what Lightning's loggers write, a version for each start.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from course.files import atomic_write, check_writable, remove_leftovers, write_json
from coursework.data import CourseworkError, DataSet, Photos, augmentation
from solution import EpochRow, Settings, training_precision

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
    bfloat16: bool = True  # where the processor multiplies such matrices itself
    seed: int = 0


@dataclass(frozen=True)
class Hardware:
    """What to train on, in the words of Lightning's Trainer."""

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None  # None: bfloat16 where a recipe asks and it is faster, or float32


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
        """SHA-256 of all that decides an epoch, but for the machine.

        Without the number of epochs, unless it decides the learning rate of each.
        """
        fixed = self.recipe.schedule == "one-cycle"
        recipe = self.recipe if fixed else replace(self.recipe, epochs=0)
        start = self.start and (self.start.run.fingerprint, self.start.run.recipe.epochs)
        photos = [part.digest for part in (self.data.train, self.data.watched, self.data.test)]
        parts = [self.label, recipe, self.fresh(), start, self.data.name, photos]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run: Run
    network: nn.Module  # in evaluation mode, on the CPU
    rows: Sequence[EpochRow]  # their val_* are of the watched photos
    final: dict[str, float]  # {training,test}_{loss,accuracy} of the trained network

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


def in_bfloat16(wanted: bool) -> bool:
    """Whether convolutions are to be in bfloat16: if wanted and if that is faster here."""
    return training_precision(Settings(bfloat16=wanted)) is torch.bfloat16


def to_input(inputs: Tensor) -> Tensor:
    """What a network is fed: pixels (B, C, H, W) on [0, 1], or activations, as float32.

    Lightning makes another type the default one where --precision says so.
    """
    x = inputs.to(torch.get_default_dtype())
    x = x / 255 if inputs.dtype == torch.uint8 else x
    return x.contiguous(memory_format=torch.channels_last)


def _outputs(network: nn.Module, inputs: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(to_input(x)).float() for x in inputs.split(EVALUATION_BATCH)])


@torch.inference_mode()
def forward_all(network: nn.Module, inputs: Tensor, bfloat16: bool = True) -> Tensor:
    """Outputs (N, ...) in float32 for inputs (N, C, H, W), in evaluation mode, in batches."""
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16(bfloat16)):
        return _outputs(network, inputs)


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


class Batches(Dataset):
    """Photos by the indices of a whole batch, augmented one by one."""

    def __init__(self, photos: Photos, augment: nn.Module | None) -> None:
        self.photos, self.augment = photos, augment

    def __len__(self) -> int:
        """How many photos."""
        return len(self.photos)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Inputs (B, C, H, W) and labels (B,)."""
        chosen = torch.tensor(indices)
        inputs = self.photos.inputs[chosen]
        if self.augment:
            inputs = torch.stack([self.augment(photo) for photo in inputs])
        return inputs, self.photos.labels[chosen]


class Score(nn.Module):
    """Mean cross-entropy and accuracy over the photos of all processes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")
        self.accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)

    def update(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch (B, classes); its mean cross-entropy."""
        loss = functional.cross_entropy(logits, labels)
        # Once a photo: where it does not look for NaN, torchmetrics 1.9 forgets a weight.
        self.loss.update(loss.detach().expand(len(labels)))
        self.accuracy.update(logits.detach(), labels)
        return loss

    def take(self) -> tuple[float, float]:
        """Loss and accuracy of what was counted, and begin anew."""
        values = self.loss.compute().item(), self.accuracy.compute().item()
        self.loss.reset()
        self.accuracy.reset()
        return values


class Training(L.LightningModule):
    """A run: batches, steps and rows."""

    def __init__(self, run: Run, checkpoint: Path) -> None:
        super().__init__()
        self.run, self.checkpoint, self.recipe = run, checkpoint, run.recipe
        self.network, self.score = run.fresh(), Score(len(run.data.classes))
        self.rows: list[EpochRow] = []
        self.measured = "val"  # what the validation loop measures

    def train_dataloader(self) -> DataLoader:
        """This process's share of batches; what would not fill a batch is left out of an epoch."""
        photos, trainer = self.run.data.train, self.trainer
        world, size = trainer.world_size, min(self.recipe.batch_size, len(self.run.data.train))
        if size % world:
            raise CourseworkError(
                f"batches of {size} photos cannot be divided among {world} processes: choose "
                "another --batch-size or number of --devices"
            )
        data = Batches(photos, augmentation(self.recipe.augment, photos.inputs.shape[-1]))
        # Apart, or epochs of neighbouring seeds would be the same; within torch's seeds.
        seed = 1_000_003 * self.recipe.seed % 2**63
        sampler = DistributedSampler(data, world, trainer.global_rank, seed=seed, drop_last=True)
        return DataLoader(
            data,
            size // world,
            sampler=sampler,
            drop_last=True,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # or each iterator draws from the one of the epoch
        )

    def share(self, photos: Photos) -> DataLoader:
        """This process's part of photos to be measured, in one piece: each photo exactly once."""
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        return DataLoader([(photos.inputs[mine], photos.labels[mine])], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The watched photos."""
        return self.share(self.run.data.watched)

    def configure_optimizers(self) -> dict[str, Any]:
        """The rate follows the recipe's schedule."""
        optimiser = _optimiser(self.network, self.recipe)
        batches = int(self.trainer.estimated_stepping_batches) // self.recipe.epochs
        return {"optimizer": optimiser, **_schedule(optimiser, self.recipe, batches)}

    def on_train_epoch_start(self) -> None:
        """Random numbers of this epoch and process, whatever was drawn before."""
        self.began = time.perf_counter()
        parts = (self.recipe.seed, self.current_epoch, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of a batch."""
        inputs, labels = batch
        self.rate = self.trainer.optimizers[0].param_groups[-1]["lr"]
        return self.score.update(self.network(to_input(inputs)).float(), labels)

    def on_validation_start(self) -> None:
        """What was counted so far is of the training."""
        if self.trainer.state.fn == "fit":
            self.trained = self.score.take()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Count all photos of this process."""
        self.score.update(_outputs(self.network, batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Loss and accuracy, for the schedule, the loggers and the bar."""
        self.seen = self.score.take()
        self._log(self.measured + "_", self.seen)

    def on_train_epoch_end(self) -> None:
        """Add a row, and keep all that the next epoch depends on."""
        seconds = time.perf_counter() - self.began
        values = (*self.trained, *self.seen, self.rate, seconds)
        self.rows.append(EpochRow(self.run.label, self.current_epoch + 1, *values))
        self._log("", self.trained)
        self.trainer.save_checkpoint(self.checkpoint)
        if self.trainer.is_global_zero and not self.trainer.progress_bar_callback:
            print(_line(self.rows[-1], self.recipe.epochs), flush=True)

    def _log(self, kind: str, values: tuple[float, float]) -> None:
        named = {f"{kind}loss": values[0], f"{kind}accuracy": values[1]}
        self.log_dict(named, prog_bar=True, sync_dist=True)  # they are the same in all processes

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not keep."""
        checkpoint["fingerprint"] = self.run.fingerprint
        checkpoint["rows"] = [asdict(row) for row in self.rows]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with its rows."""
        self.rows = _rows(checkpoint)


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def _line(row: EpochRow, epochs: int) -> str:
    return (
        f"{row.stage}, epoch {row.epoch} of {epochs}: loss {row.loss:.4f}, accuracy "
        f"{row.accuracy:.4f}; watched: {row.val_loss:.4f}, {row.val_accuracy:.4f}; rate "
        f"{row.learning_rate:.2e}, {row.seconds:.1f} s"
    )


def _rows(checkpoint: Mapping[str, Any]) -> list[EpochRow]:
    return [EpochRow(**row) for row in checkpoint["rows"]]


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
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return SGD(groups, momentum=recipe.momentum, weight_decay=decay)
    return {"adam": Adam, "adamw": AdamW}[recipe.optimiser](groups, weight_decay=decay)


def _schedule(optimiser: Optimizer, recipe: Recipe, batches: int) -> dict[str, Any]:
    """What Lightning is told of the schedule.

    All by the step, as Lightning writes checkpoints before it moves what goes by the epoch.
    """
    if recipe.schedule == "constant":
        return {}
    if recipe.schedule == "one-cycle":
        rates, steps = [group["lr"] for group in optimiser.param_groups], recipe.epochs * batches
        scheduler = OneCycleLR(optimiser, rates, total_steps=steps, cycle_momentum=False)
        return {"lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
    if recipe.schedule == "multi-step":
        scheduler = MultiStepLR(optimiser, [epoch * batches for epoch in recipe.milestones])
        return {"lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
    scheduler = ReduceLROnPlateau(optimiser, patience=recipe.patience, cooldown=recipe.cooldown)
    told = {"scheduler": scheduler, "monitor": "val_loss", "interval": "step", "frequency": batches}
    return {"lr_scheduler": told}


# ------------------------------------------------------------------------------------------------
# A whole run
# ------------------------------------------------------------------------------------------------


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and that execute nothing when they are read."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path, storage_options: Any = None
    ) -> None:
        """Raises OSError if the file cannot be written; the one there is as it was."""
        save(checkpoint, Path(path))

    def load_checkpoint(self, path: Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tensors and plain values."""
        return torch.load(path, map_location="cpu", weights_only=True)


def train(run: Run, folder: Path, hardware: Hardware) -> Result:
    """Train to the end, from the last whole epoch that `folder` holds of this run.

    Raises CourseworkError if that folder holds another run of this label, or cannot be written, or
    if there is no such hardware.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", run.label.lower())
    path = folder / "runs" / f"{slug}.ckpt"
    if rank_zero_only.rank == 0:
        check_writable(path)
        remove_leftovers(path)
    state = _load(path, run)
    training = Training(run, path)
    if "final" in state and len(state["rows"]) == run.recipe.epochs:
        training.load_state_dict(state["state_dict"])
        return Result(run, training.network.eval(), _rows(state), state["final"])
    with _quiet(), torch.random.fork_rng(devices=[]):
        trainer = _trainer(run.recipe, hardware, folder / "logs", slug)
        with _interruptible(trainer):
            trainer.fit(training, ckpt_path=path if state else None)
            final = _measure(trainer, training)
    if trainer.is_global_zero:
        save(_load(path, run) | {"final": final}, path)
    return Result(run, training.network.cpu().float().eval(), training.rows, final)


def _trainer(recipe: Recipe, hardware: Hardware, logs: Path, name: str) -> L.Trainer:
    """Raises CourseworkError if there is no such hardware."""
    loggers = [CSVLogger(logs, name)]
    if find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(logs, name, version=loggers[0].version))
    bar = sys.stdout.isatty()
    precision = "bf16-mixed" if in_bfloat16(recipe.bfloat16) else "32-true"
    try:
        return L.Trainer(
            **asdict(hardware) | {"precision": hardware.precision or precision},
            max_epochs=recipe.epochs,
            logger=loggers,
            log_every_n_steps=0,  # but every epoch
            callbacks=[RichProgressBar(refresh_rate=20)] if bar else [],
            plugins=[WholeFiles()],
            enable_checkpointing=False,  # Training writes them itself, once an epoch
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise CourseworkError(
            f"cannot train as told: {' '.join(str(error).split())} (see --accelerator, --devices, "
            "--strategy, --precision)"
        ) from None


def _measure(trainer: L.Trainer, training: Training) -> dict[str, float]:
    """Loss and accuracy on untouched photos: of training (some thousands of them) and of test."""
    data, final = training.run.data, {}
    some = data.train.take(np.arange(min(len(data.train), TRAINING_PHOTOS_EVALUATED)))
    for training.measured, photos in (("training", some), ("test", data.test)):
        final |= trainer.validate(training, training.share(photos), verbose=False)[0]
    return final


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's announcements, and warnings of what is meant."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning 2.6 on torch 2.14
        yield


@contextmanager
def _interruptible(trainer: L.Trainer) -> Iterator[None]:
    """KeyboardInterrupt as elsewhere, which Lightning makes an exit and then ignores for good."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint in one step: until then the file there is as it was."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _load(path: Path, run: Run) -> dict[str, Any]:
    """The state after the last whole epoch; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        state = WholeFiles().load_checkpoint(path)
        fingerprint, done = state["fingerprint"], len(state["rows"])
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        raise CourseworkError(
            f"{path} cannot be read ({type(error).__name__}): delete it, and the run starts anew"
        ) from None
    if fingerprint != run.fingerprint or done > run.recipe.epochs:
        kind = "on other data or with other settings"
        if fingerprint == run.fingerprint:
            kind = f"of {done} epochs, more than {run.recipe.epochs}"
        raise CourseworkError(
            f"{path} holds a run {kind}: choose another --out, or delete that file, and the run "
            "starts anew"
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
