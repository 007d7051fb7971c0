"""The courseworks' engine: an epoch follows from (seed, epoch) alone, on one process or several."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import coursework.data
from course.files import UserError
from coursework import engine, ladder
from coursework.data import CourseworkError, DataSet, Photos
from coursework.engine import Hardware, Recipe, Result, Run, Training, evaluate, train
from coursework.resnet_runs import BasicBlock, network
from solution import EpochRow

CPU = Hardware("cpu")
ROOT = Path(coursework.__file__).parent.parent


def digits_of(train: int = 100, test: int = 40) -> DataSet:
    """Some digits to train on, others to test on."""
    return coursework.data.digits(32).subset(train, test)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return digits_of()


def small_run(data: DataSet, **recipe) -> Run:
    """Dropout, batch norm, augmentation: all that draws random numbers or keeps a state."""
    build = partial(ladder.blocks, 1, 10, (4, 8), norm=True, dropout=True, any_size=True)
    settings = {"batch_size": 32, "learning_rate": 0.05, "augment": ("flip", "shift")} | recipe
    return Run("small", "", build, data, Recipe(**({"epochs": 3} | settings)))


def numbers(result: Result) -> list[EpochRow]:
    return [replace(row, seconds=0.0) for row in result.rows]


def assert_same(one: Result, other: Result) -> None:
    """The same bits."""
    assert numbers(one) == numbers(other)
    assert one.final == other.final
    states = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def before_step(monkeypatch, number: int, act) -> None:
    """Let `act` be called before a step, counted from 1 over all epochs."""
    steps, step = iter(range(1, 10_000)), Training.training_step

    def counted(self, batch):
        if next(steps) == number:
            act()
        return step(self, batch)

    monkeypatch.setattr(Training, "training_step", counted)


def interrupt() -> None:
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------
# Going on
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "optimiser"),
    [("constant", "adam"), ("one-cycle", "sgd"), ("plateau", "adamw"), ("multi-step", "sgd")],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    digits, tmp_path, schedule, optimiser, monkeypatch
):
    run = small_run(digits, schedule=schedule, optimiser=optimiser, patience=0, milestones=(1,))
    whole = train(run, tmp_path / "whole", CPU)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        before_step(patch, 5, interrupt)  # of three steps an epoch
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts", CPU)
    assert signal.getsignal(signal.SIGINT) is handler
    kept = torch.load(tmp_path / "parts" / "runs" / "small.ckpt", weights_only=True)
    assert len(kept["rows"]) == 1
    torch.rand(3)  # another process would have other random numbers
    assert_same(train(run, tmp_path / "parts", CPU), whole)


CHILD = """
import os, signal, sys
from pathlib import Path
from course.files import UserError
from coursework.engine import Batches, Hardware, Training, train
from test_coursework_engine import CHILDREN, before_step
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
name, folder, devices, kill, point = sys.argv[1:]
rank = os.environ.get("LOCAL_RANK", "0")
patch = pytest.MonkeyPatch()

def die(*args):
    os.kill(os.getpid(), getattr(signal, kill))

if point == "step":
    before_step(patch, 5, die)
elif point == "write":
    before_step(patch, 5, lambda: patch.setattr(Path, "replace", die))

def listed(self, indices, get=Batches.__getitems__):
    with Path(f"{folder}.{rank}.txt").open("a") as file:
        print(*indices, sep="\\n", file=file)
    return get(self, indices)

patch.setattr(Batches, "__getitems__", listed)
strategy = "ddp" if devices == "2" else "auto"
train(CHILDREN[name](), Path(folder), Hardware("cpu", int(devices), strategy=strategy))
"""


def child(folder: Path, name: str, devices: int = 1, kill: str = "", point: str = ""):
    """Train in another process; the finished process."""
    program = folder.with_name("child.py")
    program.write_text(CHILD)
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.run(
        [sys.executable, "-W", "error", program, name, folder, str(devices), kill, point],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def minimal_run() -> Run:
    """No batch norm, no random numbers but the order: the same on one process and on two."""
    data = digits_of(101, 41)
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05, bfloat16=False)
    return Run("minimal", "", ladder.networks(1, 10)[ladder.MINIMAL], data, recipe)


def residual_run() -> Run:
    """Batch norms, of which each process has its own."""
    data = digits_of(101, 41).held_out(0.2)
    build = partial(network, data, BasicBlock, (1, 1, 1, 1), 4, small_stem=True)
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.05, schedule="plateau", patience=0)
    recipe = replace(recipe, bfloat16=False)
    return Run("residual", "", build, data, recipe)


# In float32: the rounding of bfloat16 depends on the size of a batch.
CHILDREN = {
    "small": lambda: small_run(digits_of()),
    "minimal": minimal_run,
    "residual": residual_run,
}


@pytest.mark.parametrize(
    ("kill", "point"),
    [
        pytest.param("SIGINT", "step", marks=pytest.mark.slow),
        pytest.param("SIGKILL", "step", marks=pytest.mark.slow),
        ("SIGKILL", "write"),
    ],
)
def test_a_killed_process_ends_with_the_same_bits_and_leaves_nothing(digits, tmp_path, kill, point):
    run, folder = small_run(digits), tmp_path / "out"
    done = child(folder, "small", kill=kill, point=point)
    assert -done.returncode == getattr(signal, kill)
    assert done.stdout.count("\n") == 1  # epochs
    before = sorted(path.name for path in (folder / "runs").iterdir())
    assert len(before) == (2 if point == "write" else 1)
    resumed = train(run, folder, CPU)
    assert [path.name for path in (folder / "runs").iterdir()] == ["small.ckpt"]
    assert_same(resumed, train(run, tmp_path / "whole", CPU))


def test_a_full_disk_loses_nothing(digits, tmp_path, monkeypatch):
    run = small_run(digits)

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: patch.setattr(Path, "write_bytes", full))
        with pytest.raises(UserError, match="the disk is full"):
            train(run, tmp_path / "full", CPU)
    assert [path.name for path in (tmp_path / "full" / "runs").iterdir()] == ["small.ckpt"]
    assert_same(train(run, tmp_path / "full", CPU), train(run, tmp_path / "whole", CPU))


def test_a_finished_run_is_not_trained_again(digits, tmp_path, monkeypatch):
    run = small_run(digits, epochs=1)
    first = train(run, tmp_path, CPU)
    before_step(monkeypatch, 1, interrupt)
    again = train(run, tmp_path, CPU)
    assert again.rows == first.rows
    assert_same(again, first)


@pytest.mark.parametrize("schedule", ["constant", "plateau", "multi-step"])
def test_more_epochs_go_on(digits, tmp_path, schedule, monkeypatch):
    settings = {"schedule": schedule, "patience": 0, "milestones": (2,)}
    whole = train(small_run(digits, **settings), tmp_path / "whole", CPU)
    train(small_run(digits, epochs=2, **settings), tmp_path / "parts", CPU)
    before_step(monkeypatch, 4, interrupt)  # the third epoch has three steps
    assert_same(train(small_run(digits, **settings), tmp_path / "parts", CPU), whole)


def test_more_epochs_of_one_cycle_are_another_run(digits, tmp_path):
    train(small_run(digits, epochs=1, schedule="one-cycle"), tmp_path, CPU)
    with pytest.raises(CourseworkError, match="other settings"):
        train(small_run(digits, epochs=2, schedule="one-cycle"), tmp_path, CPU)


def test_fewer_epochs_than_there_are_are_refused(digits, tmp_path):
    train(small_run(digits, epochs=2), tmp_path, CPU)
    with pytest.raises(CourseworkError, match="2 epochs, more than 1"):
        train(small_run(digits, epochs=1), tmp_path, CPU)


def test_an_epoch_has_its_own_order_and_random_numbers_which_follow_the_seed(
    digits, tmp_path, monkeypatch
):
    taken, get = [], engine.Batches.__getitems__

    def listed(self, indices):
        taken.append((tuple(indices), torch.initial_seed()))
        return get(self, indices)

    monkeypatch.setattr(engine.Batches, "__getitems__", listed)
    for number, seed in enumerate((0, 0, 1)):
        run = small_run(digits, epochs=2, batch_size=100, seed=seed)
        train(run, tmp_path / str(number), CPU)
    orders, seeds = zip(*taken, strict=True)  # of the one batch of each epoch
    assert all(sorted(order) == list(range(100)) for order in orders)
    for drawn in (orders, seeds):
        assert drawn[:2] == drawn[2:4]
        assert len(set(drawn)) == 4


def test_another_seed_gives_other_epochs(digits, tmp_path):
    runs = [small_run(digits, epochs=1, seed=seed) for seed in (0, 1)]
    one, other = (train(run, tmp_path / str(run.recipe.seed), CPU) for run in runs)
    assert one.rows[0].loss != other.rows[0].loss


def test_training_leaves_the_random_numbers_of_the_caller_alone(digits, tmp_path):
    before = torch.get_rng_state()
    train(small_run(digits, epochs=1), tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------
# What a run is
# ------------------------------------------------------------------------------------------------


def with_another_pixel(data: DataSet, part: str) -> DataSet:
    photos = getattr(data, part)
    inputs = photos.inputs.clone()
    inputs[0, 0, 0, 0] += 1
    return replace(data, **{part: Photos(inputs, photos.labels)})


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_folder_with_a_run_on_other_pixels_is_refused(digits, tmp_path, part):
    data = digits.held_out(0.2)
    train(small_run(data, epochs=1), tmp_path, CPU)
    with pytest.raises(CourseworkError, match="other data"):
        train(small_run(with_another_pixel(data, part), epochs=1), tmp_path, CPU)


def test_a_folder_with_another_run_is_refused(digits, tmp_path):
    train(small_run(digits, epochs=1), tmp_path, CPU)
    with pytest.raises(CourseworkError, match="other settings"):
        train(small_run(digits, epochs=1, learning_rate=0.1), tmp_path, CPU)


def test_a_damaged_checkpoint_is_refused(digits, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "small.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CourseworkError, match="cannot be read"):
        train(small_run(digits), tmp_path, CPU)


def test_a_run_starts_from_the_weights_of_another(digits, tmp_path):
    first = train(small_run(digits, epochs=1), tmp_path, CPU)
    second = replace(small_run(digits), start=first)
    for one, other in zip(second.fresh().parameters(), first.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert second.fingerprint != small_run(digits).fingerprint
    longer = replace(first, run=small_run(digits, epochs=2))
    assert replace(second, start=longer).fingerprint != second.fingerprint


# ------------------------------------------------------------------------------------------------
# Steps
# ------------------------------------------------------------------------------------------------


def test_the_backbone_learns_at_its_own_rate(digits):
    made = network(digits, BasicBlock, (1, 1, 1, 1), 4, small_stem=True)
    optimiser = engine._optimiser(made, Recipe(epochs=1, learning_rate=0.1, backbone_rate=0.01))
    rates = [group["lr"] for group in optimiser.param_groups]
    assert rates == pytest.approx([0.001, 0.1])
    assert len(optimiser.param_groups[1]["params"]) == 2  # weight and bias of the head


def test_the_rate_that_is_told_is_the_heads(digits, tmp_path):
    def build() -> nn.Module:
        return nn.Sequential(OrderedDict(backbone=Idle(), head=nn.Linear(10, 10)))

    recipe = Recipe(epochs=1, learning_rate=0.1, backbone_rate=0.01)
    (row,) = train(Run("two rates", "", build, digits, recipe), tmp_path, CPU).rows
    assert row.learning_rate == pytest.approx(0.1)


class Idle(nn.Module):
    """Learns nothing, so that its loss stays."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.flatten(1)[:, :10] * 0 * self.weight


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1]),
        # The first loss, a plateau, an epoch that does not count, a plateau.
        ({"schedule": "plateau", "patience": 0, "cooldown": 1}, [1, 1, 0.1, 0.1, 0.01]),
        ({"schedule": "multi-step", "milestones": (1, 3)}, [1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_the_rate_of_an_epoch_is_that_of_its_last_step(digits, tmp_path, settings, rates):
    recipe = Recipe(epochs=5, batch_size=50, learning_rate=1.0, **settings)  # two steps each
    rows = train(Run("idle", "", Idle, digits, recipe), tmp_path, CPU).rows
    assert [row.learning_rate for row in rows] == pytest.approx(rates)


class Sure(nn.Module):
    """Always answers 0, at first with too much confidence."""

    def __init__(self) -> None:
        super().__init__()
        self.confidence = nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        return self.confidence * torch.eye(10)[0].expand(len(x), -1)


def test_a_falling_loss_is_no_plateau_whatever_the_accuracy_does(digits, tmp_path):
    recipe = Recipe(epochs=3, batch_size=100, learning_rate=0.5, schedule="plateau", patience=0)
    rows = train(Run("sure", "", Sure, digits, recipe), tmp_path, CPU).rows
    assert rows[0].val_loss > rows[1].val_loss > rows[2].val_loss
    assert rows[0].val_accuracy == rows[1].val_accuracy == rows[2].val_accuracy
    assert [row.learning_rate for row in rows] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_weights_decay_by_the_rate_and_the_share_that_were_set(digits, tmp_path, optimiser):
    recipe = Recipe(epochs=1, batch_size=25, learning_rate=0.5, momentum=0.0, weight_decay=0.2)
    run = Run("idle", "", Idle, digits, replace(recipe, optimiser=optimiser))
    assert train(run, tmp_path, CPU).network.weight.item() == pytest.approx(0.9**4)


def test_one_cycle_ends_with_the_rate_of_the_last_step(digits, tmp_path):
    recipe = Recipe(epochs=2, batch_size=25, learning_rate=1.0, schedule="one-cycle")
    rows = train(Run("idle", "", Idle, digits, recipe), tmp_path, CPU).rows
    optimiser = torch.optim.SGD(Idle().parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=8, cycle_momentum=False
    )
    rates = []
    for _ in range(8):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [row.learning_rate for row in rows] == pytest.approx([rates[3], rates[7]])


def test_training_lowers_the_loss(digits, tmp_path):
    rows = train(small_run(digits, epochs=4, augment=()), tmp_path, CPU).rows
    assert rows[-1].loss < rows[0].loss


def test_the_last_measures_are_those_of_the_network(digits, tmp_path):
    run = small_run(digits.held_out(0.2), epochs=1)
    result = train(run, tmp_path, CPU)
    for kind in ("training", "test"):
        photos = run.data.train if kind == "training" else run.data.test
        loss, accuracy = evaluate(result.network, photos, run.recipe.bfloat16)
        assert result.final[f"{kind}_loss"] == pytest.approx(loss, rel=1e-5)
        assert result.final[f"{kind}_accuracy"] == pytest.approx(accuracy)


def test_each_photo_counts_once_in_a_mean_over_batches_of_different_sizes():
    score, logits = engine.Score(10), torch.randn(5, 10)
    labels = torch.arange(5)
    for part in (slice(0, 4), slice(4, 5)):
        score.update(logits[part], labels[part])
    assert score.take()[0] == pytest.approx(nn.functional.cross_entropy(logits, labels).item())


def test_measures_are_without_dropout(digits):
    """In whatever mode the network is."""
    made = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 32, 10))
    measured = [evaluate(made.train(), digits.test, bfloat16=False) for _ in range(2)]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train(digits, tmp_path, precision):
    hardware = replace(CPU, precision=precision)
    result = train(small_run(digits, epochs=1), tmp_path, hardware)
    assert all(p.dtype == torch.float32 for p in result.network.parameters())


def test_a_run_says_a_line_an_epoch_and_nothing_else(digits, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(small_run(digits, epochs=2), tmp_path, CPU)
    said = capfd.readouterr()
    assert [line[:19] for line in said.out.splitlines()] == [
        "small, epoch 1 of 2",
        "small, epoch 2 of 2",
    ]
    assert said.err == ""
    logged = (tmp_path / "logs" / "small" / "version_0" / "metrics.csv").read_text()
    assert "val_loss" in logged.splitlines()[0]


# ------------------------------------------------------------------------------------------------
# Several processes
# ------------------------------------------------------------------------------------------------


def seen(folder: Path) -> list[int]:
    """Indices of the training photos that all processes of a child took, sorted."""
    files = folder.parent.glob(f"{folder.name}.*.txt")
    return sorted(int(line) for file in files for line in file.read_text().split())


@pytest.mark.parametrize("name", ["minimal", pytest.param("residual", marks=pytest.mark.slow)])
def test_two_processes_see_the_same_photos_and_measure_all_of_them(tmp_path, name):
    for devices in (1, 2):
        done = child(tmp_path / str(devices), name, devices)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 2  # one process speaks
    assert len(list(tmp_path.glob("2.*.txt"))) == 2
    assert seen(tmp_path / "2") == seen(tmp_path / "1")
    run = CHILDREN[name]()
    one, two = (train(run, tmp_path / devices, CPU) for devices in ("1", "2"))
    if name == "minimal":
        for row, other in zip(one.rows, two.rows, strict=True):
            assert other.loss == pytest.approx(row.loss, rel=1e-4)
            assert other.accuracy == pytest.approx(row.accuracy)
    loss, accuracy = evaluate(two.network, run.data.watched, run.recipe.bfloat16)
    assert two.rows[-1].val_loss == pytest.approx(loss, rel=1e-5)
    assert two.rows[-1].val_accuracy == pytest.approx(accuracy)
    assert two.final["test_loss"] == pytest.approx(
        evaluate(two.network, run.data.test, run.recipe.bfloat16)[0], rel=1e-5
    )


def test_batches_that_cannot_be_divided_are_refused(tmp_path):
    run = replace(minimal_run(), recipe=replace(minimal_run().recipe, batch_size=33))
    training = Training(run, tmp_path)
    training._trainer = type("Two", (), {"world_size": 2, "global_rank": 0})()
    with pytest.raises(CourseworkError, match="33 photos cannot be divided among 2"):
        training.train_dataloader()


def test_the_history_holds_every_number(digits, tmp_path):
    result = train(small_run(digits, epochs=1), tmp_path, CPU)
    engine.write_history([result], tmp_path)
    history = json.loads((tmp_path / "history.json").read_text())["small"]
    assert history["epochs"][0]["loss"] == result.rows[0].loss
    assert history["test_accuracy"] == result.final["test_accuracy"]
