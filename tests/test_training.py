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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, draw_photo, glass, surroundings, without
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

import solution
from solution import FINAL_RUN, VALIDATION_RUN, SubmissionError, TrainingRun, train_classifier


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- The whole of train_classifier ---------------------------------------------------------------


def test_what_is_frozen_stays_bit_equal_and_the_rest_is_trained(network, init):
    before, after = torch.load(init, weights_only=True), network.state_dict()
    cut = len(network.features) - TINY.unfrozen_blocks
    features = [k for k in before if k.startswith("features.")]
    frozen = {k for k in features if int(k.split(".")[1]) < cut}
    frozen |= {k for k in features if "running" in k or "num_batches" in k}
    assert any(k.startswith("features.18.") for k in frozen)
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    assert len(set(features) - frozen) > 20
    assert not any(torch.equal(before[k], after[k]) for k in set(features) - frozen)
    assert not network.training


def test_validation_photos_have_no_part_in_the_validation_run(photos, tiny, network, tmp_path):
    """Another picture under a held-out name changes no prediction of the other held-out photos."""
    gt, folder = photos
    changed, *others = network.validation.photos
    assert [len(seen.view_logits) for seen in network.validation.predictions] == [4] * 5
    assert len(others) == round(24 * TINY.validation_share) - 1
    shutil.copytree(folder, tmp_path / "photos")
    draw_photo(tmp_path / "photos" / changed, 9, seed=99, size=(72, 72))
    again = train_classifier(gt, tmp_path / "photos", settings=tiny)
    assert again.validation.photos == network.validation.photos
    ours, theirs = (
        torch.stack([prediction.logits for prediction in of.validation.predictions])
        for of in (network, again)
    )
    assert torch.equal(ours[1:], theirs[1:])  # and the same seed gives the same bits
    assert not torch.equal(ours[0], theirs[0])
    spread = torch.cdist(ours, ours, p=torch.inf)
    assert spread.fill_diagonal_(9).min() > 1e-4, "a fixture that sees: above, all bits count"
    assert not states_equal(network, again), "the final run trains on all photos"


def test_the_final_run_knows_nothing_of_the_validation_run(photos, tiny, network):
    settings, rows = replace(tiny, validation_share=0.4), []
    again = train_classifier(*photos, settings=settings, on_epoch=rows.append)
    assert len(again.validation.photos) == round(0.4 * 24) != len(network.validation.photos)
    assert states_equal(again, network), "it is what is delivered"
    assert [(row.stage, row.epoch) for row in rows] == [
        (stage, epoch) for stage in (VALIDATION_RUN, FINAL_RUN) for epoch in (1, 2)
    ]
    for measured in ("val_loss", "val_accuracy"):
        unknown = [getattr(row, measured) is None for row in rows]
        assert unknown == [False, False, True, True]


def test_it_learns_what_can_be_learnt(photos, tiny):
    """Three colours, from the backbone of the shipped model."""
    rows = []
    settings = replace(tiny, epochs=8, colour_jitter=0.0, cutmix=0.0, head_learning_rate=1e-2)
    train_classifier(*photos, settings=settings, on_epoch=rows.append)
    first, last = rows[8], rows[-3:]
    assert statistics.mean(row.accuracy for row in last) >= 0.8
    assert statistics.mean(row.loss for row in last) < 0.7 * first.loss


def test_fast_train_is_one_epoch_and_a_head_starts_small_from_its_seed(photos, tiny):
    rows, still = [], {"head_learning_rate": 0.0, "backbone_learning_rate": 0.0}
    still = replace(tiny, class_balance=0.0, epochs=5, **still)
    first, second = (
        train_classifier(*photos, True, settings=replace(still, seed=seed), on_epoch=rows.append)
        for seed in (0, 1)
    )
    assert [row.epoch for row in rows] == [1, 1] * 2
    assert first.validation.photos != second.validation.photos
    assert not torch.equal(first.head.weight, second.head.weight)
    assert first.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not first.head.bias.any()


def test_boxes_come_from_the_head_of_the_pretrained_network(photos, tiny, init, tmp_path):
    content = torch.load(init, weights_only=True)
    content["classifier.1.weight"] = -content["classifier.1.weight"]
    torch.save(content, tmp_path / "other_head.pth")
    one, other = (
        train_classifier(*photos, True, settings=replace(tiny, weights=str(file)))
        for file in (init, tmp_path / "other_head.pth")
    )
    assert not states_equal(one, other), "the same settings would give the same bits"


def test_fast_train_takes_two_batches_of_photos_from_all_of_them(tmp_path, capsys):
    """No photo can be read, so that those it wants are named. Random weights do."""
    gt, wanted = {f"{i:03}.png": i % 5 for i in range(500)}, []
    for name in gt:
        (tmp_path / name).write_bytes(b"no photo")
    for seed in (0, 1):
        with pytest.raises(SubmissionError, match="no readable photo"):
            train_classifier(gt, tmp_path, True, settings=replace(TINY, seed=seed))
        err = capsys.readouterr().err
        wanted.append({name for name in gt if name in err})
    assert len(wanted[0]) == len(wanted[1]) == 64
    assert len(wanted[0] & wanted[1]) < 32
    for names in wanted:
        assert min(names) < "050.png"
        assert max(names) > "450.png"


@pytest.mark.parametrize("photos_of_a_class", [(1,), (1, 1, 1), (2, 1), (2, 2), (2, 7, 1)])
def test_few_photos_never_crash(tmp_path, tiny, photos_of_a_class, capsys):
    gt = {}
    for class_id, number in enumerate(photos_of_a_class):
        for i in range(number):
            name = f"{9 - class_id}_{i}.png"  # the last species comes first
            gt[name] = class_id
            draw_photo(tmp_path / name, class_id, seed=i)
    network = train_classifier(gt, tmp_path, settings=replace(tiny, epochs=1))
    assert network.class_ids == list(range(len(photos_of_a_class)))
    assert photos_of_a_class[network.metadata["fallback_class"]] == max(photos_of_a_class)
    assert (network.validation is None) == (max(photos_of_a_class) == 1)
    assert network.head.bias.any() or len(photos_of_a_class) == 1, "it was trained"
    assert ("nothing to validate on" in capsys.readouterr().err) == (network.validation is None)


def test_unreadable_photos_are_left_out_with_their_names(tmp_path, tiny, capsys):
    gt = {f"{i}.png": i % 2 for i in range(8)}
    for i in range(1, 7):
        draw_photo(tmp_path / f"{i}.png", i % 2, seed=i)
    (tmp_path / "0.png").write_bytes(b"no photo")
    network = train_classifier(gt, tmp_path, settings=replace(tiny, epochs=1))
    validation = network.validation
    assert validation.labels.tolist() == [gt[name] for name in validation.photos]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"left out of training: {tmp_path / name}" for name in ("0.png", "7.png")
    ]


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


# ---- The caller's torch --------------------------------------------------------------------------


def state_of_the_process():
    """Random states, threads, and the modes that tensors are made and computed in."""
    python, numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
    autocast = torch.is_autocast_enabled("cpu"), torch.get_default_device()
    numbers = of_torch.tolist(), torch.get_num_threads()
    return python, str(numpy), *numbers, *modes, *autocast


def test_what_the_caller_set_changes_nothing_and_stays(photos, tiny):
    settings = replace(tiny, batch_size=19, epochs=1)  # a batch is three chunks
    network = train_classifier(*photos, settings=settings)
    torch.rand(9)  # so that the random state is not that of a training
    with surroundings():
        before = state_of_the_process()
        again = train_classifier(*photos, settings=settings)
        assert state_of_the_process() == before
    assert states_equal(network, again)
    ours, theirs = (of.validation.predictions for of in (network, again))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.view_logits, other.view_logits)


# ---- Pretrained weights --------------------------------------------------------------------------


def test_weights_of_torchvision_and_of_a_checkpoint_are_taken_with_their_heads(
    init, network, model_path
):
    published = torch.load(init, weights_only=True)
    for file, of in ((init, published), (model_path, network.state_dict())):
        loaded = solution.BirdNet(range(9))
        head = solution.load_pretrained(loaded, str(file))
        for name, value in loaded.features.state_dict().items():
            assert torch.equal(value, of[f"features.{name}"])
        *_, weight, bias = of.values()
        assert torch.equal(head.weight, weight)
        assert torch.equal(head.bias, bias)


def test_weights_of_timm_compute_what_timm_computes(tmp_path, monkeypatch):
    """By timm's name, from torch's cache."""
    import timm

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = timm.create_model("mobilenetv2_100", pretrained=False).eval()
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_var):
                    nn.init.uniform_(values, 0.5, 1.5)
                nn.init.normal_(module.running_mean)
        x = torch.rand(2, 3, 64, 96)
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "checkpoints/mobilenetv2_100.ra_in1k.pth")
    ours = solution.BirdNet(range(9)).eval()
    ours.head = solution.load_pretrained(ours, "mobilenetv2_100.ra_in1k")
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected)
        assert (expected[0] - expected[1]).abs().max() > 0.01


def test_names_of_weights_lie_in_torchs_cache(monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "cache")
    names = {each.name: Path(each.url).name for each in MobileNet_V2_Weights}
    for name, file in (names | {"mobilenetv2_100.ra_in1k": "mobilenetv2_100.ra_in1k.pth"}).items():
        assert solution.weights_file(name) == Path("cache/checkpoints", file)
    assert solution.weights_file("models/mine.pt") == Path("models/mine.pt")


@pytest.mark.parametrize(
    "change",
    [
        without("features.18.1.running_mean"),
        lambda _: {"layer.weight": torch.zeros(3)},
        lambda content: content | {"features.0.0.weight": torch.zeros(5, 3, 3, 3)},
    ],
)
def test_weights_of_something_else_give_one_line_that_names_the_file(change, init, tmp_path):
    torch.save(change(torch.load(init, weights_only=True)), tmp_path / "other.pth")
    with pytest.raises(SubmissionError, match=r"other\.pth holds no MobileNetV2") as error:
        solution.load_pretrained(solution.BirdNet(range(3)), str(tmp_path / "other.pth"))
    assert "\n" not in str(error.value)


# ---- A training run, on a network that hides nothing ---------------------------------------------

GLASS = replace(TINY, unfrozen_blocks=1, colour_jitter=0.0, cutmix=0.0, class_balance=0.0)
STILL = replace(GLASS, head_learning_rate=0.0, backbone_learning_rate=0.0)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def sample_of(folder, pictures) -> solution.Sample:
    """Photos of these arrays (H, W, 3), with a bird in the middle of each."""
    paths, boxes = [], []
    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        paths.append(folder / f"{number}.png")
        boxes.append((width // 4, height // 4, 3 * width // 4, 3 * height // 4))
        Image.fromarray(picture.astype(np.uint8)).save(paths[-1])
    return solution.Sample(paths, LABELS, boxes)


@pytest.fixture
def colours(tmp_path):
    """Eight photos of one colour each, so that all views of one are alike; the colours (8, 3)."""
    colours = np.random.default_rng(0).integers(0, 256, (8, 3))
    sample = sample_of(tmp_path, [np.full((80, 90, 3), colour) for colour in colours])
    return sample, (torch.from_numpy(colours) / 255 - MEAN) / STD


@pytest.mark.parametrize(("smoothing", "share"), [(0.0, 0.0), (0.3, 0.0), (0.1, 1.0)])
def test_the_loss_is_cross_entropy_with_smoothed_and_mixed_targets(
    smoothing, share, colours, monkeypatch
):
    """Mixed photos have two halves; which is right is counted by their own species."""
    (sample, x), rows, targets = colours, [], functional.one_hot(LABELS).double()

    def halves(x, targets, generator):
        left, right = x.chunk(2, 3)
        return torch.cat([left, right.flip(0)], 3), (targets + targets.flip(0)) / 2

    in_order = SimpleNamespace(permutation=lambda train: train)
    monkeypatch.setattr(solution, "cutmix", halves)
    monkeypatch.setattr(solution.np.random, "default_rng", lambda seed: in_order)
    settings = replace(STILL, epochs=1, cutmix=share, label_smoothing=smoothing)
    settings = replace(settings, batch_size=8 if share else 4)
    TrainingRun(glass(3, 3), sample, settings).fit("run", np.arange(8), rows.append)
    if share:
        x, targets = (x + x.flip(0)) / 2, (targets + targets.flip(0)) / 2
    expected = functional.cross_entropy(x, targets, label_smoothing=smoothing).item()
    assert rows[0].loss == pytest.approx(expected, rel=1e-3)
    assert rows[0].accuracy == (x.argmax(1) == LABELS).double().mean()


def shown_by(folder, settings, train=tuple(range(8))) -> tuple[torch.Tensor, torch.Tensor]:
    """Which photos a training shows, and a number for each view: (epochs, photos of one).

    The photos are as red as their number says, and ever greener to the right.
    """
    scene = np.zeros((80, 240, 3), dtype=np.uint8)
    scene[:, :, 1] = np.arange(240)
    network, seen = glass(3, 3), []
    network.head.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    sample = sample_of(folder, [scene + np.array([10 * n, 0, 0], np.uint8) for n in range(8)])
    TrainingRun(network, sample, settings).fit("run", np.array(train), lambda row: None)
    red, green, _ = (torch.cat(seen) * STD + MEAN).view(settings.epochs, -1, 3).unbind(2)
    return (25.5 * red).round().int(), green


def test_each_epoch_shows_the_training_photos_alone_in_another_order(tmp_path):
    numbers, _ = shown_by(tmp_path, replace(STILL, epochs=6, batch_size=2), (0, 2, 3, 5, 6))
    orders = [tuple(order) for order in numbers.tolist()]
    assert all(len(set(order)) == 4 for order in orders), "two full batches, no photo twice"
    assert {number for order in orders for number in order} == {0, 2, 3, 5, 6}
    assert len(set(orders)) >= 4


def test_views_are_fresh_and_depend_on_seed_epoch_and_photo_alone(tmp_path):
    def views(train=tuple(range(8)), **changes):
        settings = replace(STILL, **({"epochs": 3, "batch_size": 1} | changes))
        numbers, green = shown_by(tmp_path, settings, train)
        order = numbers.argsort(1)
        return green.gather(1, order), numbers.gather(1, order)

    every, _ = views()
    assert len(every.unique()) > 20, "each epoch and photo has a view of its own"
    some, numbers = views(train=(1, 4, 6), batch_size=3)
    torch.testing.assert_close(some, every.gather(1, numbers.long()))
    assert (views(seed=1)[0] - every).abs().min() > 0


def test_cutmix_mixes_targets_by_the_area_that_another_photo_takes():
    """The photos are numbers, so that a place says whose it is."""
    x = torch.arange(1.0, 5).view(4, 1, 1, 1).expand(4, 3, 20, 20)
    targets, generator, shares = torch.eye(4), random.Random(0), []
    for _ in range(300):
        mixed, soft = solution.cutmix(x, targets, generator)
        for number in range(4):
            other = 3 - number
            assert set(mixed[number].unique().tolist()) <= {number + 1.0, other + 1.0}
            share = (mixed[number] == other + 1).double().mean().item()
            expected = torch.tensor([{number: 1 - share, other: share}.get(i, 0) for i in range(4)])
            torch.testing.assert_close(soft[number], expected.float())
        shares.append(share)
    assert (x[:, 0, 0, 0] == torch.arange(1.0, 5)).all(), "the photos are as they were"
    assert min(shares) < 0.02
    assert max(shares) > 0.8


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
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network, norm = glass(3), nn.BatchNorm2d(8)
        for values in (norm.weight.data, norm.running_var):
            nn.init.uniform_(values, 0.5, 2)
        for values in (norm.bias.data, norm.running_mean):
            nn.init.normal_(values)
        network.features.append(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), norm, nn.ReLU6()))
        network.head = nn.Linear(8, 3)
    return network.eval()


def plainly_trained(network, x, settings) -> tuple[nn.Module, nn.Module]:
    """A block and head after steps of AdamW, all photos in each, and the average of their weights.

    By plain modules in evaluation mode: batch norm keeps its statistics.
    """
    model = nn.Sequential(network.features[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head)
    (conv, norm, _), average, head = network.features[1], copy.deepcopy(model), network.head
    decay, slow = settings.weight_decay, settings.backbone_learning_rate
    groups = [
        {"params": [conv.weight], "rate": slow, "weight_decay": decay},
        {"params": [*norm.parameters()], "rate": slow, "weight_decay": 0.0},
        {"params": [head.weight], "rate": settings.head_learning_rate, "weight_decay": decay},
        {"params": [head.bias], "rate": settings.head_learning_rate, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups)
    for step in range(settings.epochs):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * solution.rate_factor(step, settings.epochs, settings)
        model.zero_grad()
        loss = functional.cross_entropy(model(x), LABELS, label_smoothing=settings.label_smoothing)
        loss.backward()
        optimiser.step()
        new = max(1 - settings.average_decay, (1 + step) ** -0.9)
        for old, weight in zip(average.parameters(), model.parameters(), strict=True):
            old.data.lerp_(weight.data, new)
    return model, average


def test_training_is_adamw_and_delivers_the_average_of_its_weights(colours, monkeypatch):
    (sample, x), rows, network = colours, [], trainable()
    monkeypatch.setattr(TrainingRun, "CHUNK", 3)  # a batch is three chunks
    plain, buffers = copy.deepcopy(network), copy.deepcopy(dict(network.named_buffers()))
    everything = np.arange(8)
    TrainingRun(network, sample, STEPS).fit("run", everything, rows.append, everything)
    x = x.float().view(8, 3, 1, 1)
    raw, average = plainly_trained(plain, x, STEPS)
    ours = [*network.features[1].parameters(), *network.head.parameters()]
    for actual, wanted, last in zip(ours, average.parameters(), raw.parameters(), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-3, rtol=1e-3)
        assert (actual - last).abs().max() > 0.003
    after = dict(network.named_buffers())
    assert all(torch.equal(after[name], buffer) for name, buffer in buffers.items())
    factor = solution.rate_factor(6, 12, STEPS)
    assert rows[5].learning_rate == pytest.approx(0.05 * factor), "after six steps"

    logits = average(x)  # the table: of the average, by the first view
    loss = functional.cross_entropy(logits, LABELS).item()
    assert rows[-1].val_loss == pytest.approx(loss, rel=1e-2)
    assert rows[-1].val_accuracy == (logits.argmax(1) == LABELS).double().mean()


@pytest.mark.parametrize("train", [range(8), (0, 1, 3, 4, 6, 7), (0, 1, 2, 3)])
def test_frequent_species_have_no_advantage(train, colours):
    """But where all are as frequent; a species without a photo counts as one of one."""
    (sample, _), train, biases = colours, np.array(train), []
    for share in (0.0, 0.5):
        run = TrainingRun(trainable(), sample, replace(STEPS, class_balance=share))
        run.fit("run", train, lambda row: None)
        biases.append(run.network.head.bias)
    counts = LABELS[train].bincount(minlength=3).clamp(min=1)
    torch.testing.assert_close(biases[0] - biases[1], 0.5 * (counts / (len(train) / 3)).log())


def test_learning_rates_fall_from_block_to_block_and_norms_do_not_decay():
    network = solution.BirdNet([0, 1])
    rates = {"unfrozen_blocks": 3, "backbone_learning_rate": 0.01, "head_learning_rate": 0.05}
    settings = replace(TINY, layer_decay=0.5, **rates)
    rates = {"head": 0.05, "features.18": 0.01, "features.17": 0.005, "features.16": 0.0025}
    expected = {
        name: (rates[part], settings.weight_decay * (parameter.ndim > 1))
        for name, parameter in network.named_parameters()
        for part in rates
        if name.startswith(f"{part}.")
    }
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = solution.optimiser_of(network, settings).param_groups
    assert {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    } == expected
    assert len(expected) == sum(len(group["params"]) for group in groups) == 23


@pytest.mark.parametrize("steps", [1, 2, 9, 40, 1000])
def test_learning_rates_rise_in_the_warmup_then_fall_to_their_share(steps):
    settings = replace(TINY, warmup=0.25, final_rate=0.4)
    factors = [solution.rate_factor(step, steps, settings) for step in range(steps + 1)]
    top = factors.index(max(factors))
    assert top == pytest.approx(0.25 * steps, abs=1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert 0 < factors[0] <= 1
    assert steps < 40 or factors[0] < 0.1
    assert steps < 40 or max(factors) == pytest.approx(1, abs=0.02)
    assert steps == 1 or factors[-1] == pytest.approx(0.4)


# ---- The same numbers, faster --------------------------------------------------------------------


def test_lower_precision_trains_the_same_but_for_rounding(colours, monkeypatch):
    heads = []
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(solution, "working_precision", lambda dtype=dtype: dtype)
        network = trainable()
        TrainingRun(network, colours[0], replace(STEPS, epochs=3)).fit(
            "run", np.arange(8), lambda row: None
        )
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        heads.append(network.head.weight.detach() - trainable().head.weight.detach())
    assert not torch.equal(*heads)
    assert functional.cosine_similarity(*(head.flatten() for head in heads), dim=0) > 0.95


@pytest.mark.parametrize("blocks", [slice(0, 4), slice(13, 17)], ids=["early", "late"])
def test_folded_blocks_equal_the_plain_ones_with_their_gradients(network, blocks):
    """Both have blocks with stride, whose gradients are computed in another way.

    In float64: rounding decides about gradients where ReLU6 has its corners.
    """
    blocks = copy.deepcopy(network.features[blocks]).requires_grad_(True).double()
    channels = next(blocks.parameters()).shape[1]
    x = torch.randn(2, channels, 12, 16, dtype=torch.double, requires_grad=True)
    results, wanted = [], [x, *blocks.parameters()]
    for forward in (blocks, lambda x: solution.run_folded(solution.fold(blocks, x.dtype), x)):
        y = forward(x)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), wanted)])
    plain, folded = results
    assert len(plain) > 20
    assert (plain[0][0] - plain[0][1]).abs().max() > 0.1, "a fixture that sees"
    for one, other in zip(plain, folded, strict=True):
        torch.testing.assert_close(other, one, atol=1e-9 * one.abs().max().item(), rtol=1e-9)


def test_folded_blocks_compute_what_torchvisions_network_does(network):
    x, features = torch.randn(3, 3, 64, 96), mobilenet_v2().features.eval()
    features.load_state_dict(network.features.state_dict())
    with torch.no_grad():
        plain = features(x)
        assert torch.equal(network.features(x), plain)
        folded = solution.run_folded(solution.fold(network.features, torch.float32), x)
    assert (plain[0] - plain[1]).abs().max() > 0.1, "a fixture that sees"
    torch.testing.assert_close(folded, plain, atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(
    solution.working_precision() is torch.float32, reason="this processor has no bfloat16"
)
def test_where_onednn_may_not_use_bfloat16_it_is_float32():
    """It would compute bfloat16 by its reference kernels, many times slower."""
    script = "import solution; print(solution.working_precision())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(solution.__file__).parent, check=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "torch.float32\n"
