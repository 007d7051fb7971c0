"""Training: epochs that follow from (seed, epoch), runs that go on, two processes, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from course.files import UserError
from coursework.engine import (
    Recipe,
    Training,
    make_optimiser,
    make_schedule,
    make_trainer,
    predict,
    train,
    train_all,
)
from tests.coursework_helpers import photos, plain, plain_run, tiny_network, tiny_run

CPU = {"accelerator": "cpu"}
ROOT = Path(__file__).parent.parent


def numbers(result):
    """What must not depend on interrupts: rows without seconds, final numbers, weights."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.rows]
    weights = [w.tolist() for w in result.network.state_dict().values()]
    return rows, result.final, weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tiny run, trained without an interrupt."""
    return train(tiny_run(), None, tmp_path_factory.mktemp("whole"), CPU)


def start(kind, out):
    """The tiny run in a process of its own."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    words = [sys.executable, "-m", "tests.coursework_command", kind, out]
    return subprocess.Popen(words, env=os.environ | threads, **how)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, whole, sent, status):
    process, out = start("wait", tmp_path / "out"), tmp_path / "out"
    while process.stdout.readline().strip() != "waiting":
        assert process.poll() is None
    shutil.copytree(out, tmp_path / "killed")  # as SIGKILL would leave it
    process.send_signal(sent)
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (status, "Interrupted.\n")
    out.rename(tmp_path / "ended")
    for left in ("killed", "ended"):
        (tmp_path / left).rename(out)
        kept = torch.load(out / "runs/tiny/last.ckpt", weights_only=True)
        assert len(kept["rows"]) == 2
        assert numbers(train(tiny_run(), None, out, CPU)) == numbers(whole)
        shutil.rmtree(out)


@pytest.mark.parametrize("schedule", ["one-cycle", "multi-step", "plateau"])
def test_a_schedule_goes_on_after_an_error(tmp_path, monkeypatch, schedule):
    run = tiny_run(schedule=schedule, patience=0)
    whole, start = train(run, None, tmp_path / "whole", CPU), Training.on_train_epoch_start

    def fail(self):
        start(self)
        if self.current_epoch == 2:
            raise RuntimeError

    monkeypatch.setattr(Training, "on_train_epoch_start", fail)
    with pytest.raises(RuntimeError):
        train(run, None, tmp_path / "broken", CPU)
    monkeypatch.undo()
    assert numbers(train(run, None, tmp_path / "broken", CPU)) == numbers(whole)


def test_two_processes_see_the_same_photos_and_measure_all_of_them(tmp_path):
    alone = train_all("tiny", [plain_run()], tmp_path / "one", CPU)["tiny"]
    process = start("two", tmp_path / "two")
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert output.count("epoch") == 4  # the first process alone prints
    both = json.loads((tmp_path / "two/history.json").read_text())["runs"]["tiny"]
    for name, value in alone.final.items():
        assert both[name] == pytest.approx(value, abs=2e-3)


def test_an_epoch_has_its_own_order_and_random_numbers(tmp_path):
    seen = {}

    class Recording(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.setdefault(key, []).append((x.sum().item(), torch.rand(1).item()))
            return super().forward(x)

    def build(data):
        return nn.Sequential(nn.Flatten(), Recording(432, len(data.classes)))

    for key, seed in (("first", 0), ("again", 0), ("other", 1)):
        folder = tmp_path / key
        run = replace(tiny_run(build, epochs=2, seed=seed), augment=())
        train(run, None, folder, CPU)
    assert seen["first"] == seen["again"]
    for first, other in zip(zip(*seen["first"]), zip(*seen["other"])):  # noqa: B905
        half = len(first) // 2
        assert first[:half] != first[half:]
        assert first != other


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch, whole):
    train(tiny_run(), None, tmp_path, CPU)
    monkeypatch.setattr(Training, "training_step", None)
    assert numbers(train(tiny_run(), None, tmp_path, CPU)) == numbers(whole)


def test_a_continued_run_starts_with_the_weights_of_the_other(tmp_path):
    later = replace(tiny_run(epochs=1, learning_rate=1e-9), label="later", start="tiny")
    results = train_all("tiny", [tiny_run(epochs=2), later], tmp_path, CPU)
    for a, b in zip(*(r.network.parameters() for r in results.values()), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_measures_are_those_of_the_network_without_dropout(whole, part):
    photos = getattr(whole.run.data, part)
    logits = predict(whole.network, photos.inputs)
    loss = nn.functional.cross_entropy(logits, photos.labels).item()
    accuracy = (logits.argmax(1) == photos.labels).float().mean().item()
    measured, name = (whole.final, "test") if part == "test" else (whole.rows[-1], "val")
    assert measured[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
    assert measured[f"{name}_acc"] == pytest.approx(accuracy)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(tiny_run(epochs=1), None, tmp_path, CPU)
    path = tmp_path / "runs/tiny/last.ckpt"
    for content in (b"no checkpoint", path.read_bytes()[:500]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"last.ckpt cannot be read"):
            train(tiny_run(epochs=1), None, tmp_path, CPU)


def test_a_folder_with_another_run_or_of_other_photos_is_refused(tmp_path):
    run = tiny_run(epochs=1)
    train(run, None, tmp_path, CPU)
    data = replace(run.data, train=photos(60, side=12, seed=9))
    others = {"learning_rate": tiny_run(epochs=1, learning_rate=0.06)}
    others |= {"network": tiny_run(epochs=1, build=plain), "data": replace(run, data=data)}
    for name, other in others.items():
        with pytest.raises(UserError, match=rf"other settings \(.*{name}"):
            train(other, None, tmp_path, CPU)


@pytest.mark.parametrize("flag", ["accelerator", "precision", "strategy"])
def test_what_the_trainer_refuses_is_one_line(tmp_path, flag):
    with pytest.raises(UserError, match=r"Trainer refuses[^\n]*no such[^\n]*$"):
        train(tiny_run(), None, tmp_path, CPU | {flag: "no such"})


def test_more_processes_than_cores_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(UserError, match="--devices 2: this machine has 1 cores"):
        make_trainer(tiny_run(), tmp_path, CPU | {"devices": 2})


def rates_of(recipe, batches, losses=()):
    network = tiny_network(tiny_run().data)
    optimiser = make_optimiser(network, recipe)
    told = make_schedule(optimiser, recipe, batches)["lr_scheduler"]
    rates = []
    for step in range(recipe.epochs * batches):
        rates.append(optimiser.param_groups[-1]["lr"])
        optimiser.step()
        if "monitor" not in told:
            told["scheduler"].step()
        elif (step + 1) % told["frequency"] == 0:
            told["scheduler"].step(losses[step // batches])
    return rates


def test_rates_follow_the_schedules():
    steps = rates_of(Recipe(4, learning_rate=1.0, schedule="multi-step"), 2)
    assert steps == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    cycle = rates_of(Recipe(4, learning_rate=1.0, schedule="one-cycle"), 5)
    assert max(cycle) == pytest.approx(1.0, rel=0.05)
    assert cycle[-1] < 0.01 < cycle[0] < 0.1
    plateau = Recipe(5, learning_rate=1.0, schedule="plateau", patience=1)
    losses = (1.0, 1.0, 1.0, 0.5, 0.4)
    assert rates_of(plateau, 1, losses) == pytest.approx([1, 1, 1, 0.1, 0.1])
    rested = replace(plateau, patience=0, cooldown=3)
    assert rates_of(rested, 1, (1.0,) * 5) == pytest.approx([1, 1, 0.1, 0.1, 0.1])


def test_the_backbone_gets_its_share_of_the_rate():
    network = nn.Module()
    network.body, network.head = nn.Linear(2, 2), nn.Linear(2, 2)
    recipe = Recipe(1, "adamw", learning_rate=0.1, weight_decay=0.3, backbone_rate=0.5)
    groups = make_optimiser(network, recipe).param_groups
    assert [group["lr"] for group in groups] == [0.05, 0.1]
    assert {group["weight_decay"] for group in groups} == {0.3}
    assert groups[1]["params"][0] is network.head.weight


def test_batches_that_cannot_be_divided_are_refused(monkeypatch):
    training = Training(tiny_run(batch_size=15), tiny_network(tiny_run().data))
    monkeypatch.setattr(Training, "trainer", type("Two", (), {"world_size": 2}))
    with pytest.raises(UserError, match="15 photos a batch cannot be divided among 2 --devices"):
        training.train_dataloader()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU decides")
@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_bfloat16_is_only_used_where_a_recipe_wants_it_and_it_is_fast(tmp_path, monkeypatch, fast):
    monkeypatch.setattr("solution.working_precision", lambda: fast)
    never, mixed = (make_trainer(tiny_run(bfloat16=b), tmp_path, CPU) for b in (False, True))
    assert never.precision == "32-true"
    assert mixed.precision == ("bf16-mixed" if fast == torch.bfloat16 else "32-true")
