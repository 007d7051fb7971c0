"""Training: epochs that follow from (seed, epoch), runs that go on, two processes, refusals."""

import json
import os
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
    has_fast_bfloat16,
    make_optimiser,
    make_schedule,
    predict,
    train,
    train_all,
)
from tests.coursework_helpers import photos, tiny_network, tiny_run

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


def start_command(out):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.coursework_helpers", out],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


@pytest.mark.parametrize(
    ("sent", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -signal.SIGKILL)]
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, whole, sent, status):
    process = start_command(tmp_path)
    while process.stdout.readline().strip() != "waiting":
        assert process.poll() is None
    process.send_signal(getattr(signal, sent))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == ("" if sent == "SIGKILL" else "Interrupted.\n")
    kept = torch.load(tmp_path / "runs/tiny/last.ckpt", weights_only=True)
    assert len(kept["rows"]) == 2
    assert numbers(train(tiny_run(), None, tmp_path, CPU)) == numbers(whole)


def test_two_processes_see_the_same_photos_and_measure_all_of_them(tmp_path):
    alone = train_all("tiny", [plain_run()], tmp_path / "one", CPU)["tiny"]
    process = subprocess.run(
        [sys.executable, "-m", "tests.test_coursework_engine", tmp_path / "two"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("epoch") == 4  # the first process alone prints
    both = json.loads((tmp_path / "two/history.json").read_text())["runs"]["tiny"]
    for name, value in alone.final.items():
        assert both[name] == pytest.approx(value, abs=2e-3)


def plain(data):
    return tiny_network(data, dropout=0.0)


def plain_run():
    """Without dropout and augmentation, whose random numbers are a process's own."""
    return replace(tiny_run(build=plain), augment=())


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


def test_the_last_measures_are_those_of_the_network_without_dropout(whole):
    test = whole.run.data.test
    logits = predict(whole.network, test.inputs)
    loss = nn.functional.cross_entropy(logits, test.labels).item()
    assert whole.final["test_acc"] == pytest.approx(
        (logits.argmax(1) == test.labels).float().mean()
    )
    assert whole.final["test_loss"] == pytest.approx(loss, rel=1e-4)


def test_validation_photos_are_watched_and_not_test_photos(whole):
    logits = predict(whole.network, whole.run.data.validation.inputs)
    loss = nn.functional.cross_entropy(logits, whole.run.data.validation.labels).item()
    assert whole.rows[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no checkpoint"), "cannot be read"),
        (lambda path: torch.save({"state_dict": {}}, path), "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, damage, message):
    train(tiny_run(epochs=1), None, tmp_path, CPU)
    damage(tmp_path / "runs/tiny/last.ckpt")
    with pytest.raises(UserError, match=message):
        train(tiny_run(epochs=1), None, tmp_path, CPU)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"learning_rate": 0.06}, "learning_rate"),
        ({"seed": 1}, "seed"),
        ({"build": plain}, "network"),
    ],
)
def test_a_folder_with_another_run_is_refused(tmp_path, change, names):
    train(tiny_run(epochs=1), None, tmp_path, CPU)
    with pytest.raises(UserError, match=f"other settings .*{names}"):
        train(tiny_run(epochs=1, **change), None, tmp_path, CPU)


def test_other_photos_are_another_run(tmp_path):
    train(tiny_run(epochs=1), None, tmp_path, CPU)
    run = tiny_run(epochs=1)
    other = replace(run.data, train=photos(60, side=12, seed=9))
    with pytest.raises(UserError, match=r"other settings \(data\)"):
        train(replace(run, data=other), None, tmp_path, CPU)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"accelerator": "no such"}, "no such"),
        ({"accelerator": "cpu", "precision": "3"}, "3"),
        ({"accelerator": "cpu", "strategy": "no such"}, "no such"),
    ],
)
def test_what_the_trainer_refuses_is_one_line(tmp_path, flags, word):
    with pytest.raises(UserError, match=f"(?s)Trainer refuses.*{word}"):
        train(tiny_run(), None, tmp_path, flags)


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
    with pytest.raises(UserError, match="cannot be divided among 2 processes"):
        training.train_dataloader()


def test_bfloat16_is_only_used_where_a_recipe_wants_it(tmp_path):
    for wanted in (False, True):
        result = train(tiny_run(epochs=1, bfloat16=wanted), None, tmp_path / str(wanted), CPU)
        assert next(result.network.parameters()).dtype is torch.float32
    if has_fast_bfloat16():
        exact, rough = (
            json.loads((tmp_path / f"{w}/runs/tiny/result.json").read_text())["train_loss"]
            for w in (False, True)
        )
        assert exact == pytest.approx(rough, rel=0.1)


if __name__ == "__main__":
    from course.cli import run as run_command

    flags = CPU | {"devices": 2, "strategy": "ddp"}
    run_command(lambda: train_all("tiny", [plain_run()], Path(sys.argv[1]), flags) and 0)
