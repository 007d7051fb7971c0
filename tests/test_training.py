"""train_classifier: what it is shown, what a step does, what stays frozen, what it leaves alone."""

import copy
import os
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IDS, SHIPPED, TINY, draw_photo, glass
from PIL import Image
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

import solution
from solution import SubmissionError, TrunkCache, train_classifier


def states_equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Rows(solution.Progress):
    """Keeps the table of the training."""

    def __init__(self) -> None:
        self.rows: list[solution.EpochRow] = []

    def epoch(self, row: solution.EpochRow) -> None:
        self.rows.append(row)

    def of(self, stage: str) -> list[solution.EpochRow]:
        return [row for row in self.rows if row.stage == stage]


# ---- The whole of train_classifier ----


def test_what_is_frozen_stays_bit_equal_and_the_rest_is_trained(network, init):
    before, after = torch.load(init, weights_only=True), network.state_dict()
    cut = len(network.features) - TINY.unfrozen_blocks
    features = [k for k in before if k.startswith("features.")]
    frozen = [k for k in features if int(k.split(".")[1]) < cut]
    assert any("running_mean" in k for k in frozen)
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    statistics = [k for k in features if "running" in k or "num_batches" in k]
    assert all(torch.equal(before[k], after[k]) for k in statistics)
    trained = [k for k in set(features) - set(frozen) if k.endswith("weight")]
    assert trained
    assert not any(torch.equal(before[k], after[k]) for k in trained)
    assert not network.training
    assert network.dropout.p == TINY.dropout


def test_the_network_takes_a_photo_of_any_size(network):
    for size in ((33, 65), (224, 224), (300, 96)):
        assert network(torch.rand(2, 3, *size)).shape == (2, 3)


def test_validation_photos_have_no_part_in_the_validation_run(photos, init, network, tmp_path):
    """Another picture under a held-out name changes no answer on the other held-out photos."""
    gt, folder = photos
    answers = network.validation_answers
    changed, *others = answers["photos"]
    shutil.copytree(folder, tmp_path / "photos")
    draw_photo(tmp_path / "photos" / changed, 9, seed=99, size=(72, 72))
    again = train_classifier(gt, tmp_path / "photos", settings=TINY, init=init)
    assert again.validation_answers["photos"] == answers["photos"]
    assert len(others) == round(24 * TINY.validation_share) - 1
    ours, theirs = answers["logits"], again.validation_answers["logits"]
    assert torch.equal(ours[1:], theirs[1:])  # and the same seed gives the same bits
    assert not torch.equal(ours[0], theirs[0])
    assert not states_equal(network.state_dict(), again.state_dict()), "all are trained on"


def test_validation_answers_are_those_of_both_looks(network, photos):
    answers, facts = network.validation_answers, network.facts["validation"]
    gt, _ = photos
    assert [IDS[label] for label in answers["labels"]] == [gt[name] for name in answers["photos"]]
    assert torch.equal(answers["logits"], torch.stack([seen.logits for seen in answers["seen"]]))
    right = (answers["logits"].argmax(1) == answers["labels"]).sum().item()
    assert (facts["correct"], facts["total"]) == (right, len(answers["photos"]))
    assert facts["accuracy"] == right / facts["total"]
    spread = torch.cdist(answers["logits"], answers["logits"], p=torch.inf)
    assert spread.fill_diagonal_(9).min() > 1e-4, "a fixture that sees: above, all bits count"


def test_both_runs_start_from_the_same_weights_and_every_seed_differs(photos, init, network):
    """One step an epoch, so that the loss of the first is that of weights without training."""
    gt, folder = photos
    rows = Rows()
    settings = replace(TINY, epochs=5, batch_size=64, seed=5, dropout=0.0)
    settings = replace(settings, head_learning_rate=6e-3)
    other = train_classifier(gt, folder, settings=settings, init=init, progress=rows)
    validation, final = rows.of("validation run"), rows.of("final run")
    assert [row.epoch for row in rows.rows] == [1, 2, 3, 4, 5] * 2
    assert final[0].loss == pytest.approx(validation[0].loss, rel=0.1)
    assert validation[-1].loss < 0.97 * validation[0].loss
    assert all(row.val_loss is not None for row in validation)
    assert all(row.val_loss is None for row in final)
    assert other.facts["training"]["seed"] == 5
    assert other.validation_answers["photos"] != network.validation_answers["photos"]


def test_boxes_come_from_the_head_of_the_pretrained_network(photos, init, tmp_path):
    gt, folder = photos
    content = torch.load(init, weights_only=True)
    content["classifier.1.weight"] = -content["classifier.1.weight"]
    torch.save(content, tmp_path / "other_head.pth")
    files = (init, init, tmp_path / "other_head.pth")
    one, same, other = (
        train_classifier(gt, folder, True, settings=TINY, init=file).state_dict() for file in files
    )
    assert states_equal(one, same)
    assert not states_equal(one, other)


def test_random_state_threads_and_gradient_mode_are_left_as_they_were(photos, init, capsys):
    gt, folder = photos
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads = torch.get_num_threads()
    rows = Rows()
    with torch.no_grad():
        settings = replace(TINY, epochs=5)
        train_classifier(gt, folder, True, settings=settings, init=init, progress=rows)
        assert not torch.is_grad_enabled()
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == threads
    assert [row.epoch for row in rows.rows] == [1, 1], "fast_train is one epoch"
    assert str(init) in capsys.readouterr().err, "it says that it found weights"


def test_it_learns_what_can_be_learnt(photos):
    """Three colours, from the backbone of the shipped model."""
    (gt, folder), rows = photos, Rows()
    settings = replace(TINY, epochs=40, colour_jitter=0, head_learning_rate=1e-2)
    network = train_classifier(gt, folder, settings=settings, init=SHIPPED, progress=rows)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    last = rows.of("final run")[-5:]
    assert statistics.mean(row.accuracy for row in last) >= 0.8
    assert statistics.mean(row.loss for row in last) < 0.7 * rows.of("final run")[0].loss


def test_fast_train_looks_at_two_batches_of_photos_from_all_of_them(tmp_path, capsys):
    """No photo can be read, so that those it wants are named."""
    gt, wanted = {f"{i:03}.png": i % 5 for i in range(500)}, []
    for name in gt:
        (tmp_path / name).write_bytes(b"no photo")
    for seed in (0, 1):
        with pytest.raises(SubmissionError, match="not one readable photo"):
            train_classifier(gt, tmp_path, True, settings=replace(TINY, seed=seed))
        said = capsys.readouterr().err
        assert "random weights" in said
        wanted.append({name for name in gt if name in said})
    assert len(wanted[0]) == len(wanted[1]) == 64
    assert len(wanted[0] & wanted[1]) < 32
    for names in wanted:
        assert min(names) < "050.png"
        assert max(names) > "450.png"


def test_without_weights_the_error_names_file_folder_and_alternative(photos):
    gt, folder = photos
    with pytest.raises(SubmissionError) as error:
        train_classifier(gt, folder, settings=TINY)
    for part in ("mobilenet_v2-b0353104.pth", "hub/checkpoints", "--init"):
        assert part in str(error.value)


def test_weights_of_something_else_are_refused(photos, tmp_path):
    gt, folder = photos
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(SubmissionError, match="mobilenet_v2"):
        train_classifier(gt, folder, settings=TINY, init=path)


@pytest.mark.parametrize("photos_of_a_class", [(1,), (1, 1, 1), (2, 1), (2, 2), (2, 7, 1)])
def test_few_photos_never_crash(tmp_path, init, photos_of_a_class, capsys):
    gt = {}
    for class_id, number in enumerate(photos_of_a_class):
        for i in range(number):
            gt[f"{class_id}_{i}.png"] = class_id
            draw_photo(tmp_path / f"{class_id}_{i}.png", class_id, seed=i)
    network = train_classifier(gt, tmp_path, settings=replace(TINY, epochs=1), init=init)
    assert network.class_ids == list(range(len(photos_of_a_class)))
    assert network.facts["fallback_class"] == photos_of_a_class.index(max(photos_of_a_class))
    assert (network.facts["validation"] is None) == (max(photos_of_a_class) == 1)
    assert ("single photo" in capsys.readouterr().err) == (
        1 in photos_of_a_class and max(photos_of_a_class) > 1
    )


def test_unreadable_photos_are_left_out_with_their_names(tmp_path, init, capsys):
    gt = {f"{i}.png": i % 2 for i in range(8)}
    for i in range(6):
        draw_photo(tmp_path / f"{i}.png", i % 2, seed=i)
    (tmp_path / "6.png").write_bytes(b"no photo")
    network = train_classifier(gt, tmp_path, settings=replace(TINY, epochs=1), init=init)
    assert network.facts["training"]["photos"] == 6
    said = capsys.readouterr().err
    assert "6.png" in said
    assert "7.png" in said


def test_no_readable_photo_is_an_error(tmp_path, init):
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(SubmissionError, match="not one readable photo"):
        train_classifier({"a.jpg": 0}, tmp_path, settings=TINY, init=init)


@pytest.mark.parametrize("gt", [{}, {"a.jpg": "1"}, {"a.jpg": 1.5}])
def test_labels_that_are_none_are_refused(gt, tmp_path):
    draw_photo(tmp_path / "a.jpg", 0, seed=0)
    with pytest.raises(SubmissionError, match=r"no labels|class ids"):
        train_classifier(gt, tmp_path)


def test_split_keeps_the_proportions_and_follows_the_seed():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 5 + [3])
    splits = []
    for seed in (0, 0, 1):
        train, validation = solution.split_photos(labels, 0.2, seed)
        assert sorted([*train, *validation]) == list(range(66))
        assert np.bincount(labels[validation], minlength=4).tolist() == [10, 2, 1, 0]
        splits.append(validation.tolist())
    assert splits[0] == splits[1] != splits[2]


# ---- Where the birds are, and the cache of views ----

GLASS = replace(TINY, unfrozen_blocks=1, bfloat16=False, dropout=0.0)


@pytest.fixture
def noisy_photos(tmp_path) -> dict:
    """Six photos whose patches differ, with a box that is as large as the input on each."""
    birds = {}
    for i in range(6):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (6, 8, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        birds[tmp_path / f"{i}.png"] = (8 * i, 3 * i, 8 * i + 64, 3 * i + 64)
    return birds


def cache_of(birds, settings=GLASS, network=None) -> TrunkCache:
    return TrunkCache(network or glass(3, 3), birds, settings, solution.Progress())


def test_view_0_is_the_box_through_the_frozen_blocks(noisy_photos):
    view = cache_of(noisy_photos).view(0).float()  # (6, 2, 2, 3)
    assert view.shape == (6, 2, 2, 3)
    for seen, (path, (x0, y0, x1, y1)) in zip(view, noisy_photos.items(), strict=True):
        part = np.asarray(Image.open(path))[y0:y1, x0:x1] / 255
        patches = part.reshape(2, 32, 2, 32, 3).mean((1, 3))
        expected = (patches - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert np.abs(seen.numpy() - expected).max() < 0.01
    differences = (view[:, None] - view[None]).abs().amax((2, 3, 4)).fill_diagonal_(9)
    assert differences.min() > 0.1, "a fixture that sees"


def test_other_views_are_random_and_do_not_depend_on_when_they_are_computed(noisy_photos):
    one, two = cache_of(noisy_photos), cache_of(noisy_photos)
    views = [one.view(number).clone() for number in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (views[a] - views[b]).abs().amax((1, 2, 3)).min() > 0.05, "of each photo"
    with solution._seeded(7):
        assert torch.equal(two.view(2), views[2])
    assert torch.equal(two.view(1), views[1])
    other = cache_of(noisy_photos, replace(GLASS, seed=1))
    assert torch.equal(other.view(0), views[0])
    assert not torch.equal(other.view(1), views[1])


def test_a_view_is_computed_once(noisy_photos):
    cache = cache_of(noisy_photos)
    before = [cache.view(number).clone() for number in range(2)]
    for path in noisy_photos:
        path.unlink()
    assert all(torch.equal(cache.view(number), view) for number, view in enumerate(before))


@pytest.mark.parametrize(("room", "count"), [(3.5, 2), (0.5, 1), (20, 8)])
def test_more_photos_than_fit_get_fewer_views(noisy_photos, room, count):
    one_view = 2 * 6 * 3 * 2 * 2 / 1e9  # half precision, (3, 2, 2) a photo; one view is plain
    settings = replace(GLASS, views=8, cache_gigabytes=room * one_view)
    assert cache_of(noisy_photos, settings).count == count


@pytest.fixture
def large_jpeg(tmp_path):
    """A green and a blue bird, each a sixth of the long side, on a photo of 1536 x 1152 pixels."""
    pixels = np.zeros((1152, 1536, 3), dtype=np.uint8)
    pixels[128:384, 192:448, 1] = 220
    pixels[704:960, 1024:1280, 2] = 220
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=95)
    return tmp_path / "large.jpg"


@pytest.mark.parametrize(("colour", "middle"), [(1, (320, 256)), (2, (1152, 832))])
def test_training_looks_at_the_bird_that_the_head_sees_with_the_detail_of_the_file(
    colour, middle, large_jpeg
):
    settings = replace(GLASS, input_size=64, first_size=288)
    weight = torch.zeros(2, 3)
    weight[0, colour] = 9.0
    network, head = glass(3, 3), (weight, torch.tensor([40.0, 0.0]))
    boxes = solution.find_birds(network, head, [large_jpeg], settings, solution.Progress())
    left, top, right, bottom = boxes[large_jpeg]
    assert right - left >= 64, "the bird was decoded at the input's size or more"
    width, height = solution.read_photo(large_jpeg, 4 * 64).size
    assert (left + right) / 2 / width == pytest.approx(middle[0] / 1536, abs=0.05)
    assert (top + bottom) / 2 / height == pytest.approx(middle[1] / 1152, abs=0.05)
    view = cache_of(boxes, settings, network).view(0)[0].float().mean((0, 1))  # (3,)
    shares = view * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])
    assert shares[colour] > 0.35
    assert shares[3 - colour] < 0.05


def test_without_a_former_head_the_bird_may_be_anywhere(noisy_photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no photo")
    paths = [*noisy_photos, tmp_path / "broken.png"]
    boxes = solution.find_birds(glass(3, 3), None, paths, GLASS, solution.Progress())
    assert boxes == dict.fromkeys(noisy_photos, (0, 0, 128, 96))
    assert "broken.png" in capsys.readouterr().err


# ---- What a run is shown, and what its steps do, on a network that hides nothing ----


class Shown(TrunkCache):
    """A cache that gives activations of our choice (views, N, h, w, C); the first view is plain."""

    def __init__(self, activations: torch.Tensor, settings, progress=None) -> None:
        self.activations, self.asked = activations.half(), []
        self.settings, self.progress = settings, progress or Rows()
        self.count = len(activations) - 1

    def view(self, number: int) -> torch.Tensor:
        self.asked.append(number)
        return self.activations[number]

    def to_compute(self) -> int:
        return 0


def watched(network) -> list[torch.Tensor]:
    """What comes to the head, filled while the network trains."""
    seen = []
    network.head.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))
    return seen


LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
ONE_EACH = torch.eye(8).view(1, 8, 1, 1, 8).expand(3, 8, 4, 4, 8)  # a channel for each photo
STILL = replace(GLASS, head_learning_rate=0.0, backbone_learning_rate=0.0, batch_size=8)


def blend_network() -> solution.BirdNet:
    """What comes to its head are the shares that each of eight photos has in what is shown."""
    torch.manual_seed(0)
    network = glass(8, 8)
    nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_that_of_the_smoothed_labels_of_the_photos_shown(smoothing):
    settings = replace(STILL, epochs=4, batch_size=4, label_smoothing=smoothing)
    network, cache = blend_network(), Shown(ONE_EACH, settings)
    seen = watched(network)
    solution._fit("run", network, cache, LABELS, np.arange(8))
    truth = functional.one_hot(LABELS).float() * (1 - smoothing) + smoothing / 3  # (8, classes)
    for shares, row in zip(torch.cat(seen).view(4, 8, 8), cache.progress.rows, strict=True):
        logits = functional.linear(shares, *network.head.parameters())
        loss = functional.cross_entropy(logits, shares @ truth).item()
        assert row.loss == pytest.approx(loss, abs=1e-3)
        right = logits.argmax(1) == (shares @ truth).argmax(1)
        assert row.accuracy == pytest.approx(right.float().mean())
    assert len(seen) == 8


def test_each_epoch_shows_the_next_view_of_each_training_photo_in_another_order():
    settings = replace(STILL, epochs=6, batch_size=2)
    views = ONE_EACH * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1, 1)
    network, cache, train = blend_network(), Shown(views, settings), np.array([0, 2, 3, 5, 6, 7])
    seen = watched(network)
    solution._fit("run", network, cache, LABELS, train)
    epochs = torch.cat(seen).view(6, 6, 8)  # (epochs, photos of one, channels)
    assert epochs.amax((1, 2)).tolist() == pytest.approx([2, 3, 2, 3, 2, 3])
    orders = [tuple(order) for order in epochs.argmax(2).tolist()]
    assert all(sorted(order) == train.tolist() for order in orders)
    assert len(set(orders)) >= 4
    pairs = {frozenset(order[:2]) for order in orders}
    assert len(pairs) > 1, "batches are made anew"


def test_dropout_is_at_work_in_training_alone():
    network = blend_network()
    network.dropout = nn.Dropout(0.5)
    cache = Shown(torch.ones(2, 8, 4, 4, 8), replace(STILL, epochs=10))
    seen = watched(network)
    with solution._seeded(0):
        solution._fit("run", network, cache, LABELS, np.arange(8))
    assert torch.cat(seen).unique().tolist() == [0.0, 2.0]
    assert (torch.cat(seen) == 0).float().mean() == pytest.approx(0.5, abs=0.1)


STEPS = replace(
    GLASS,
    epochs=12,
    batch_size=8,
    warmup=0.25,
    final_rate=0.4,
    weight_decay=2.0,
    label_smoothing=0.2,
    average_decay=0.6,
    head_learning_rate=0.05,
    backbone_learning_rate=0.02,
)


def trainable() -> solution.BirdNet:
    """A frozen block, and one whose convolution, batch norm and activation are not trivial."""
    torch.manual_seed(3)
    network = glass(8, 8)
    conv, norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
    for values in (norm.weight.data, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    for values in (norm.bias.data, norm.running_mean, network.head.weight.data):
        nn.init.normal_(values)
    network.features[1] = nn.Sequential(conv, norm, nn.ReLU6(inplace=True))
    network.features[0].requires_grad_(False)
    return network.eval()


def plainly_trained(network, x, rates) -> tuple[nn.Module, nn.Module]:
    """Weights and their average after steps of AdamW at the head's `rates`, all photos in each."""
    block, head, scale = network.features[1], network.head, 0.02 / 0.05
    model = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    (conv, norm, _), average = block, ModelEmaV3(model, 0.6, use_warmup=True, warmup_power=0.9)
    groups = [
        {"params": [conv.weight], "scale": scale, "weight_decay": 2.0},
        {"params": list(norm.parameters()), "scale": scale, "weight_decay": 0.0},
        {"params": [head.weight], "scale": 1.0, "weight_decay": 2.0},
        {"params": [head.bias], "scale": 1.0, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0)
    for step, rate in enumerate(rates, 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        model.zero_grad()
        functional.cross_entropy(model(x), LABELS, label_smoothing=0.2).backward()
        optimiser.step()
        average.update(model, step)
    return model, average.module


def test_training_is_adamw_and_delivers_the_average_of_its_weights():
    """Against plain modules in evaluation mode: batch norm keeps its statistics."""
    activations = torch.randn(2, 8, 4, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    network, cache = trainable(), Shown(activations, STEPS)
    plain, buffers = copy.deepcopy(network), copy.deepcopy(dict(network.named_buffers()))
    solution._fit("run", network, cache, LABELS, np.arange(8), np.arange(8))
    rows = cache.progress.rows
    rates = [STEPS.head_learning_rate / 25, *(row.learning_rate for row in rows[:-1])]
    x = activations[1].float().permute(0, 3, 1, 2)
    raw, average = plainly_trained(plain, x, rates)
    ours = [network.features[1][0].weight, *network.features[1][1].parameters()]
    ours += list(network.head.parameters())
    for actual, wanted in zip(ours, average.parameters(), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-3, rtol=1e-3)
    assert all((a - b).abs().max() > 0.003 for a, b in zip(ours, raw.parameters(), strict=True))
    assert states_equal(dict(network.named_buffers()), buffers)

    x = activations[0].float().permute(0, 3, 1, 2)  # the table: the average on plain views
    with torch.no_grad():
        logits = network.eval().head(network.features[1](x).mean((2, 3)))
    loss = functional.cross_entropy(logits, LABELS).item()
    assert rows[-1].val_loss == pytest.approx(loss, rel=1e-4)
    assert rows[-1].val_accuracy == pytest.approx((logits.argmax(1) == LABELS).float().mean())


def test_the_learning_rate_rises_then_falls_to_its_share():
    cache = Shown(torch.zeros(2, 8, 4, 4, 8), replace(STEPS, epochs=40))
    solution._fit("run", trainable(), cache, LABELS, np.arange(8))
    rates = [row.learning_rate for row in cache.progress.rows]
    top = rates.index(max(rates))
    assert top == pytest.approx(0.25 * 40, abs=2)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] < 0.3 * 0.05
    assert max(rates) == pytest.approx(0.05, rel=0.01)
    assert rates[-1] == pytest.approx(0.4 * 0.05, rel=0.02)


@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_few_steps_have_rates_too(epochs):
    """With nine steps a tenth of the schedule is a single point: torch divided by zero."""
    cache = Shown(torch.zeros(2, 8, 4, 4, 8), replace(STEPS, epochs=epochs, warmup=0.1))
    solution._fit("run", trainable(), cache, LABELS, np.arange(8))
    rates = [row.learning_rate for row in cache.progress.rows]
    assert all(0 < rate <= 0.05 for rate in rates)
    assert epochs == 1 or rates[-1] == pytest.approx(0.4 * 0.05)


def test_the_callers_torch_settings_change_nothing(photos, network, init):
    gt, folder = photos
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = train_classifier(gt, folder, settings=TINY, init=init)
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert states_equal(network.state_dict(), again.state_dict())


# ---- The same numbers, faster ----

needs_bfloat16 = pytest.mark.skipif(
    solution.training_precision(TINY) is torch.float32,
    reason="this processor has no bfloat16",
)


@needs_bfloat16
def test_where_onednn_may_not_use_bfloat16_it_is_float32():
    """It would compute bfloat16 by its reference kernels, many times slower."""
    script = "import solution; print(solution.training_precision(solution.Settings()))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(solution.__file__).parent, check=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "torch.float32\n"


@needs_bfloat16
def test_views_are_the_same_but_for_rounding(noisy_photos):
    rounded = cache_of(noisy_photos, replace(GLASS, bfloat16=True)).view(1).float()
    exact = cache_of(noisy_photos).view(1).float()
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.03 * exact.abs().mean()


@needs_bfloat16
def test_steps_are_the_same_but_for_rounding():
    activations = torch.randn(2, 8, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    heads = []
    for bfloat16 in (True, False):
        network = trainable()
        cache = Shown(activations, replace(STEPS, epochs=3, bfloat16=bfloat16))
        solution._fit("run", network, cache, LABELS, np.arange(8))
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        heads.append(network.head.weight.detach() - trainable().head.weight.detach())
    rounded, exact = heads
    assert not torch.equal(rounded, exact)
    assert functional.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > 0.95


def test_folded_blocks_equal_the_plain_ones_with_their_gradients(network):
    blocks = copy.deepcopy(network.features[14:17])
    x, gradients = torch.randn(2, 96, 4, 4), []
    state = dict(blocks.named_parameters()) | dict(blocks.named_buffers())
    description = solution.describe(blocks)
    for forward in (blocks, lambda x: solution.through(solution.fold(description, state), x)):
        blocks.requires_grad_(True).zero_grad()
        y = forward(x)
        y.square().sum().backward()
        gradients.append([y.detach()] + [p.grad.clone() for p in blocks.parameters()])
    assert len(gradients[0]) > 20
    assert (gradients[0][0][0] - gradients[0][0][1]).abs().max() > 0.1, "a fixture that sees"
    for plain, folded in zip(*gradients, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-3, rtol=1e-3)


def test_frozen_blocks_equal_the_plain_network(network):
    x, features = torch.randn(3, 3, 64, 96), network.features
    with torch.no_grad():
        plain = features(x)
    frozen = solution.frozen(solution.describe(features), features.state_dict(), torch.float32)(x)
    assert (plain[0] - plain[1]).abs().max() > 0.1, "a fixture that sees"
    torch.testing.assert_close(frozen, plain, atol=1e-3, rtol=1e-3)
