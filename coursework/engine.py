"""Train networks with Lightning; every epoch depends on (seed, epoch) alone.

`runs/<label>/last.ckpt` is Lightning's checkpoint after the last whole epoch: an interrupted run
that goes on from it ends with the numbers of an uninterrupted one. `result.json` beside it holds
the measures of a finished run, `history.json` all numbers.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms import v2

import solution
from course.files import UserError, atomic_write, check_writable, remove_leftovers, write_json
from coursework.data import DataSet, Options, Photos

EVALUATION_BATCH = 50  # photos; larger ones fall out of the processor's cache
TRAINING_PHOTOS_EVALUATED = 5_000  # at most, for the accuracy on training data after a run


@dataclass(frozen=True)
class Recipe:
    """How to train on the cross-entropy."""

    epochs: int
    optimiser: str = "sgd"  # or "adam" (Kingma and Ba, 2015), "adamw" (Loshchilov and Hutter, 2019)
    batch_size: int = 64  # of all processes together
    learning_rate: float = 1e-3  # the greatest of the schedule
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"  # or "one-cycle" (Smith and Topin, 2018), "plateau", "multi-step"
    patience: int = 10  # epochs without a lower validation loss before "plateau" divides by 10
    cooldown: int = 0  # epochs after that in which it does not count
    backbone_rate: float = 1.0  # times the learning rate, for all but `network.head`
    bfloat16: bool = True  # where the processor multiplies such matrices itself
    seed: int = 0

    def asked(self, options: Options, full_epochs: int | None = None) -> Recipe:
        """Return the recipe with the epochs and the seed that the command line asks for."""
        own = full_epochs if options.full and full_epochs else self.epochs
        return replace(self, epochs=options.epochs or own, seed=self.seed + options.seed)


@dataclass(frozen=True)
class Run:
    """One network, the data it is trained on, and how."""

    label: str  # names its files
    title: str  # in the report's language
    build: Callable[[DataSet], nn.Module]
    data: DataSet
    recipe: Recipe
    augment: Sequence[v2.Transform] = ()
    start: str = ""  # goes on from the final weights of the run of that label

    def network(self, start: Result | None = None) -> nn.Module:
        """Return the network before the first step: the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = self.build(self.data)
        if start:
            network.load_state_dict(start.network.state_dict())
        return network.to(memory_format=torch.channels_last).train()  # Lightning keeps the mode

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers, as Lightning's hyperparameters: plain values."""
        parts = [self.data.train, self.data.watched, self.data.test]
        described = [f"{len(part)} {part.inputs[:1000].float().mean():.6f}" for part in parts]
        return asdict(self.recipe) | {
            "data": f"{self.data.name} {described}",
            "network": repr(self.network()),
            "augment": repr(list(self.augment)),
            "start": self.start,
        }


@dataclass
class Result:
    """A finished run."""

    run: Run
    network: nn.Module  # in evaluation mode, on the CPU
    rows: list[dict[str, float]]  # an epoch: epoch, {train,val}_{loss,acc}, rate, seconds
    final: dict[str, float]  # {train,test}_{loss,acc} of the trained network on untouched photos

    @property
    def seconds(self) -> float:
        """An epoch, on average."""
        return sum(row["seconds"] for row in self.rows) / len(self.rows)

    @property
    def parameters(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    @property
    def gap(self) -> float:
        """Training accuracy minus test accuracy."""
        return self.final["train_acc"] - self.final["test_acc"]


def to_input(photos: Tensor) -> Tensor:
    """Pixels (B, C, H, W) as uint8 -> float32 on [0, 1]."""
    return (photos.float() / 255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(network: nn.Module, photos: Tensor) -> Tensor:
    """Return the outputs (N, classes) for pixels (N, C, H, W) as uint8, in evaluation mode."""
    network.eval()
    return torch.cat([network(to_input(x)).float() for x in photos.split(EVALUATION_BATCH)])


class Training(L.LightningModule):
    """A run: batches, steps, and a row an epoch."""

    def __init__(self, run: Run, network: nn.Module) -> None:
        super().__init__()
        self.save_hyperparameters(run.settings())
        self.run, self.recipe, self.network = run, run.recipe, network
        self.rows: list[dict[str, float]] = []
        self.parts = ["val"]  # what the validation loop measures, a name a loader

    def train_dataloader(self) -> DataLoader:
        """Return this process's share of the batches; what would not fill one is left out."""
        photos, world = self.run.data.train, self.trainer.world_size
        size = min(self.recipe.batch_size, len(photos))
        if size % world:
            raise UserError(f"{size} photos a batch cannot be divided among {world} --devices")
        augment = v2.Compose(list(self.run.augment)) if self.run.augment else None
        data = Photos(photos.inputs, photos.labels, augment)
        # Lightning tells the sampler the epoch; a factor keeps neighbouring seeds apart.
        seed = 1009 * self.recipe.seed
        sampler: Any = DistributedSampler(data, world, self.global_rank, seed=seed, drop_last=True)
        own = torch.Generator()  # or each iterator draws from the random numbers of the epoch
        return DataLoader(data, size // world, sampler=sampler, drop_last=True, generator=own)

    def loader(self, photos: Photos) -> DataLoader:
        """Return this process's part of photos to be measured, each exactly once."""
        mine = photos.take(slice(self.global_rank, None, self.trainer.world_size))
        return DataLoader(mine, EVALUATION_BATCH, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader:
        """Return the validation photos."""
        return self.loader(self.run.data.watched)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        optimiser = make_optimiser(self.network, self.recipe)
        batches = int(self.trainer.estimated_stepping_batches) // self.recipe.epochs
        return {"optimizer": optimiser, **make_schedule(optimiser, self.recipe, batches)}

    def on_train_epoch_start(self) -> None:
        """Seed this epoch and process, whatever was drawn before."""
        self.began = time.perf_counter()
        parts = (self.recipe.seed, self.current_epoch, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        self.rate = self.trainer.optimizers[0].param_groups[-1]["lr"]
        return self.measure("train", batch)

    def validation_step(self, batch: list[Tensor], _: int, dataloader_idx: int = 0) -> None:
        """Measure a batch."""
        self.measure(self.parts[dataloader_idx], batch)

    def measure(self, part: str, batch: list[Tensor]) -> Tensor:
        """Return the loss of a batch, and log loss and accuracy for the mean over all photos."""
        inputs, labels = batch
        logits = self.network(to_input(inputs)).float()
        loss = functional.cross_entropy(logits, labels)
        right = (logits.argmax(1) == labels).float().mean()
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
        how |= {"batch_size": len(labels), "add_dataloader_idx": False}
        self.log_dict({f"{part}_loss": loss, f"{part}_acc": right}, **how)
        return loss

    def on_train_epoch_end(self) -> None:
        """Add a row; the checkpoint that follows keeps it."""
        names = ("train_loss", "train_acc", "val_loss", "val_acc")
        row = {name: self.trainer.callback_metrics[name].item() for name in names}
        row |= {"rate": self.rate, "seconds": time.perf_counter() - self.began}
        self.rows.append({"epoch": self.current_epoch + 1, **row})
        if self.trainer.is_global_zero:
            numbers = "  ".join(f"{name} {row[name]:.4f}" for name in names)
            place = f"epoch {self.current_epoch + 1}/{self.recipe.epochs}"
            print(f"{self.run.label:16} {place}  {numbers}  {row['seconds']:.1f} s", flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the rows."""
        checkpoint["rows"] = self.rows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the rows."""
        self.rows = list(checkpoint["rows"])


def make_optimiser(network: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the optimiser; the last group's rate is the one reported, that of `network.head`."""
    trained = [p for p in network.parameters() if p.requires_grad]
    head = {id(p) for p in getattr(network, "head", nn.Identity()).parameters()}
    rates = (recipe.learning_rate * recipe.backbone_rate, recipe.learning_rate)
    groups = [
        {"params": [p for p in trained if (id(p) in head) == is_head], "lr": rates[is_head]}
        for is_head in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    adaptive = {"adam": Adam, "adamw": AdamW}[recipe.optimiser]
    return adaptive(groups, weight_decay=recipe.weight_decay)


def make_schedule(optimiser: Optimizer, recipe: Recipe, batches: int) -> dict[str, Any]:
    """Return Lightning's description of the schedule, for epochs of so many batches.

    All by the step: Lightning writes checkpoints before it moves what goes by the epoch.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    steps, how = recipe.epochs * batches, dict[str, Any](interval="step")
    match recipe.schedule:
        case "constant":
            return {}
        case "one-cycle":
            scheduler: Any = OneCycleLR(optimiser, rates, total_steps=steps, cycle_momentum=False)
        case "multi-step":  # at a half and three quarters, as He et al. (2016, section 4.2)
            cuts = sorted({max(1, steps // 2), max(1, 3 * steps // 4)})
            scheduler = MultiStepLR(optimiser, cuts)
        case _:
            wait, rest = recipe.patience, recipe.cooldown
            scheduler = ReduceLROnPlateau(optimiser, patience=wait, cooldown=rest)
            how |= {"monitor": "val_loss", "frequency": batches}
    return {"lr_scheduler": {"scheduler": scheduler, **how}}


def train_all(
    assignment: str, runs: Sequence[Run], folder: Path, flags: Mapping[str, Any], first: bool = True
) -> dict[str, Result]:
    """Train the runs in order, from what `folder` holds of them; the `first` process writes.

    `flags` go to Lightning's Trainer. Raises UserError for other results, or no such hardware.
    """
    results, history = dict[str, Result](), dict[str, Any]()
    for run in runs:
        results[run.label] = r = train(run, results.get(run.start), folder, flags)
        numbers = {"settings": run.settings(), "parameters": r.parameters, "epochs": r.rows}
        history[run.label] = {**numbers, **r.final}
        if first:
            write_json(folder / "history.json", {"assignment": assignment, "runs": history})
    return results


def claim(folder: Path, assignment: str) -> None:
    """Check before the work that the folder can be written and holds no other assignment."""
    for path in (folder / "history.json", folder / "report.html"):
        check_writable(path)
        remove_leftovers(path)
    owner = read_json(folder / "history.json").get("assignment", assignment)
    if owner != assignment:
        raise UserError(f"{folder} holds the results of {owner}: choose another --out")


def train(run: Run, start: Result | None, folder: Path, flags: Mapping[str, Any]) -> Result:
    """Train to the end from the last whole epoch; return at once what is finished."""
    here = folder / "runs" / run.label
    last, measured = here / "last.ckpt", here / "result.json"
    training = Training(run, run.network(start))
    done, final = read_checkpoint(last, run), read_json(measured)
    if done and final and len(done["rows"]) == run.recipe.epochs:
        training.load_state_dict(done["state_dict"])
        return Result(run, training.network.eval(), done["rows"], final)
    trainer = make_trainer(run, folder, flags)
    with torch.random.fork_rng(devices=[]), _quiet(trainer):
        trainer.fit(training, ckpt_path=last if done else None)
        training.parts = ["train", "test"]
        parts = (run.data.train.take(slice(TRAINING_PHOTOS_EVALUATED)), run.data.test)
        loaders = [training.loader(photos) for photos in parts]
        validated = trainer.validate(training, loaders, verbose=False)
    final = {name: value for part in validated for name, value in part.items()}
    if trainer.is_global_zero:
        write_json(measured, final)
    return Result(run, training.network.cpu().float().eval(), training.rows, final)


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints whole or not at all; Lightning copies them from the temporary folder."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Raise UserError if the file cannot be written; the one there is as it was."""
        remove_leftovers(Path(path))
        with atomic_write(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def make_trainer(run: Run, folder: Path, flags: Mapping[str, Any]) -> L.Trainer:
    """Return Lightning's Trainer. Raises UserError if there is no such hardware."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    cpu = solution.working_precision() == torch.bfloat16
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu
    precision = "bf16-mixed" if run.recipe.bfloat16 and fast else "32-true"
    loggers: list[Logger] = [CSVLogger(folder / "logs", run.label)]
    if find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(folder / "logs", run.label))
    # As save_last=True, which would write a second file.
    how: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    checkpoint = ModelCheckpoint(folder / "runs" / run.label, "last", **how)
    ours = signal.getsignal(signal.SIGTERM)  # Lightning's would wait for the other processes
    hooks = ("on_train_start", "on_validation_start")
    restore = LambdaCallback(**dict.fromkeys(hooks, lambda *_: signal.signal(signal.SIGTERM, ours)))
    try:
        trainer = L.Trainer(
            **{"precision": precision, **flags},
            max_epochs=run.recipe.epochs,
            logger=loggers,
            log_every_n_steps=0,  # but every epoch
            callbacks=[checkpoint, restore],
            plugins=[WholeFiles()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the sampler is ours
        )
    except (MisconfigurationException, ValueError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"Lightning's Trainer refuses: {cause} (see --help)") from None
    cores = os.cpu_count() or 1  # with many more processes, the machine stands still
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UserError(f"--devices {trainer.num_devices}: this machine has {cores} cores")
    return trainer


def read_checkpoint(path: Path, run: Run) -> dict[str, Any]:
    """Return the state after the last whole epoch, or {}; UserError if it is of another run."""
    if not path.is_file():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before, _ = state["hyper_parameters"], state["rows"]
    except OSError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        raise UserError(f"{path} cannot be read ({type(error).__name__}): delete it") from None
    now = run.settings()
    if changed := ", ".join(name for name in now if before.get(name) != now[name]):
        remedy = "choose another --out, or delete it"
        raise UserError(f"{path} holds a run with other settings ({changed}): {remedy}")
    return state


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty if there is no such file. Raises UserError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise UserError(f"{path} is damaged: delete it, and the same command goes on") from None


@contextmanager
def _quiet(trainer: L.Trainer) -> Iterator[None]:
    """Drop expected warnings; raise KeyboardInterrupt where Lightning makes an exit of it."""
    handler = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        for meant in ("have many workers", "LeafSpec", "exists and is not", "eval mode", "dirpath"):
            warnings.filterwarnings("ignore", f".*{meant}")
        try:
            yield
        except SystemExit:
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
