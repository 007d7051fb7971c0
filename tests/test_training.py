"""train_classifier: what is trained, what stays frozen, and what it leaves alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SHIPPED, TINY, draw_photo
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import solution
from solution import Settings, SubmissionError, train_classifier


def states_equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_frozen_parameters_and_buffers_stay_bit_equal(network, init):
    before = torch.load(init, weights_only=True)
    after = network.state_dict()
    cut = len(network.features) - TINY.unfrozen_blocks
    frozen = [k for k in before if k.startswith("features.") and int(k.split(".")[1]) < cut]
    assert any("running_mean" in k for k in frozen)
    assert all(torch.equal(before[k], after[k]) for k in frozen)


def test_every_upper_convolution_is_trained(network, init):
    before = torch.load(init, weights_only=True)
    after = network.state_dict()
    cut = len(network.features) - TINY.unfrozen_blocks
    upper = [k for k in before if k.startswith("features.") and int(k.split(".")[1]) >= cut]
    weights = [k for k in upper if k.endswith("weight")]
    assert weights
    assert not any(torch.equal(before[k], after[k]) for k in weights)


def test_a_photo_of_any_size_passes(network):
    for size in ((33, 65), (224, 224), (300, 96)):
        assert network(torch.rand(2, 3, *size)).shape == (2, 3)


def test_same_seed_gives_the_same_bits(photos, init, network):
    gt, folder = photos
    shuffled = dict(sorted(gt.items(), reverse=True))
    again = train_classifier(shuffled, folder, settings=TINY, init=init)
    assert states_equal(network.state_dict(), again.state_dict())


def test_another_seed_gives_other_weights(photos, init, network):
    gt, folder = photos
    other = train_classifier(gt, folder, settings=replace(TINY, seed=5), init=init)
    assert not states_equal(network.state_dict(), other.state_dict())


def test_random_state_threads_and_gradient_mode_are_left_as_they_were(photos, init):
    gt, folder = photos
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads = torch.get_num_threads()
    with torch.no_grad():
        train_classifier(gt, folder, True, settings=TINY, init=init)
        assert not torch.is_grad_enabled()
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("bfloat16", [True, False])
def test_it_learns_what_can_be_learnt(photos, bfloat16):
    """Three colours, from the backbone of the shipped model."""
    gt, folder = photos
    settings = replace(TINY, epochs=12, colour_jitter=0, bfloat16=bfloat16)
    network = train_classifier(gt, folder, settings=settings, init=SHIPPED)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    facts = network.facts["validation"]
    assert facts["total"] == 5
    assert facts["correct"] == 5
    assert facts["interval"][0] < facts["accuracy"] <= facts["interval"][1]


def test_fast_train_reads_only_the_photos_it_uses(tmp_path, capsys):
    gt = {f"{i}.png": i % 5 for i in range(500)}
    for i in range(500):
        draw_photo(tmp_path / f"{i}.png", i % 5, seed=i, size=(8, 8))
    opened = []
    real = solution.read_photo
    try:
        solution.read_photo = lambda path, side: (opened.append(path.name), real(path, side))[1]
        network = train_classifier(gt, tmp_path, True, settings=TINY)
    finally:
        solution.read_photo = real
    assert len(set(opened)) == solution.FAST_TRAIN_PHOTOS
    assert network.class_ids == [0, 1, 2, 3, 4]
    assert "random ones instead" in capsys.readouterr().err


def test_fast_train_says_that_it_found_weights(photos, init, capsys):
    gt, folder = photos
    train_classifier(gt, folder, True, settings=TINY, init=init)
    assert str(init) in capsys.readouterr().err


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


def test_a_trained_model_is_a_start_too(photos, model_path, network):
    gt, folder = photos
    settings = replace(TINY, epochs=1, backbone_learning_rate=0.0)
    again = train_classifier(gt, folder, settings=settings, init=model_path)
    key = "features.17.conv.0.0.weight"
    assert torch.equal(again.state_dict()[key], network.state_dict()[key])


@pytest.mark.parametrize("photos_of_a_class", [(1,), (1, 1, 1), (2, 1), (2, 2), (9, 1, 2)])
def test_few_photos_never_crash(tmp_path, init, photos_of_a_class, capsys):
    gt = {}
    for class_id, number in enumerate(photos_of_a_class):
        for i in range(number):
            gt[f"{class_id}_{i}.png"] = class_id
            draw_photo(tmp_path / f"{class_id}_{i}.png", class_id, seed=i)
    network = train_classifier(gt, tmp_path, settings=replace(TINY, epochs=1), init=init)
    assert network.class_ids == list(range(len(photos_of_a_class)))
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
    with pytest.raises(SubmissionError):
        train_classifier(gt, tmp_path)


@pytest.mark.parametrize(("views_with_room", "count"), [(3.5, 3), (0.5, None), (20, 8)])
def test_more_photos_than_fit_get_fewer_views(photos, network, views_with_room, count):
    gt, folder = photos
    paths = [folder / name for name in gt]
    one_view = 2 * 160 * 2 * 2 * len(paths) / 1e9  # half precision, (2, 2, 160) a photo
    settings = replace(TINY, views=8, cache_gigabytes=views_with_room * one_view)
    if count is None:
        with pytest.raises(SubmissionError, match="cache_gigabytes"):
            solution.TrunkCache(network, paths, settings, solution.Progress())
    else:
        cache = solution.TrunkCache(network, paths, settings, solution.Progress())
        assert cache.count == count


def test_a_view_is_computed_once(photos, network):
    gt, folder = photos
    paths = [folder / name for name in gt]
    cache = solution.TrunkCache(network, paths, TINY, solution.Progress())
    every = np.arange(len(paths))
    assert len(cache.views) == 1
    assert not torch.equal(cache.view(0, every), cache.view(1, every))
    before = cache.view(1, every).clone()
    assert cache.view(1, every) is cache.view(1, every)
    assert torch.equal(cache.view(1, every), before)
    assert len(cache.views) == 2


def test_only_the_photos_asked_for_are_computed(photos, network):
    """Validation photos are shown without augmentation, so a fifth of the work would be lost."""
    gt, folder = photos
    paths = [folder / name for name in gt]
    cache = solution.TrunkCache(network, paths, TINY, solution.Progress())
    few, every = np.array([2, 5, 3]), np.arange(len(paths))
    assert cache.missing(1, few).tolist() == [2, 5, 3]
    shown = cache.view(1, few).abs().sum((1, 2, 3))
    assert np.flatnonzero(shown).tolist() == [2, 3, 5]
    assert cache.missing(1, every).tolist() == [i for i in every if i not in (2, 3, 5)]
    first = cache.view(1, few)[few].clone()
    assert cache.view(1, every).abs().sum((1, 2, 3)).min() > 0
    assert torch.equal(cache.view(1, every)[few], first)


def test_cached_activations_are_those_of_the_frozen_blocks(photos, network):
    gt, folder = photos
    paths = [folder / name for name in gt]
    cache = solution.TrunkCache(network, paths, TINY, solution.Progress())
    constants = solution.preprocessing_of(TINY)
    view = solution.evaluation_view(solution.read_photo(paths[7], 128), constants)
    with torch.no_grad():
        plain = network.features[:16](solution.normalise([view], constants))  # (1, 160, 2, 2)
    cached = solution._unpacked(cache.view(0, np.array([7]))[[7]])
    torch.testing.assert_close(cached, plain, atol=1e-2, rtol=1e-2)


needs_bfloat16 = pytest.mark.skipif(
    solution.training_precision(TINY) is torch.float32,
    reason="this processor has no bfloat16",
)


@needs_bfloat16
def test_augmented_views_are_the_same_but_for_rounding(photos, network):
    gt, folder = photos
    paths = [folder / name for name in gt]
    every, views = np.arange(len(paths)), []
    for settings in (TINY, replace(TINY, bfloat16=False)):
        cache = solution.TrunkCache(network, paths, settings, solution.Progress())
        with solution._seeded(0):
            views.append((cache.view(0, every), cache.view(1, every).float()))
    (plain, rounded), (plain_again, exact) = views
    assert torch.equal(plain, plain_again)  # validation sees what `classify` sees
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.03 * exact.abs().mean()


@needs_bfloat16
def test_gradients_are_the_same_but_for_rounding():
    with solution._seeded(0):
        network = solution.pretrained([0, 1, 2], None, TINY, SHIPPED)
        x, gradients = torch.rand(4, 160, 4, 4), []
    for bfloat16 in (True, False):
        upper = solution.UpperNet(network, replace(TINY, bfloat16=bfloat16))
        upper.eval()  # no dropout
        upper.zero_grad()
        upper(x).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in upper.parameters()]))
    rounded, exact = gradients
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.nn.functional.cosine_similarity(rounded, exact, dim=0) > 0.99


def test_split_keeps_the_proportions():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 5 + [3])
    train, validation = solution.split_photos(labels, 0.2, seed=0)
    assert sorted([*train, *validation]) == list(range(66))
    assert np.bincount(labels[validation], minlength=4).tolist() == [10, 2, 1, 0]


def test_wilson_interval_against_known_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    low, high = solution.wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert solution.wilson_interval(10, 10)[1] == pytest.approx(1.0)


def test_the_refined_head_holds_that_of_linear_discriminant_analysis():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 30 + [1] * 12 + [2] * 20)
    features = torch.randn(62, 9, generator=generator) + labels[:, None]
    head = torch.nn.Linear(9, 3)
    before = head(features).detach()
    solution.refine_head(head, features, labels, Settings(discriminants=0.25, shrinkage=0.4))
    added = (head(features).detach() - 0.75 * before) / 0.25  # (62, 3)
    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.4)
    analysis.fit(features.double().numpy(), labels.numpy())
    expected = torch.from_numpy(analysis.decision_function(features.double().numpy())).float()
    assert solution._spread(added) == pytest.approx(solution._spread(before).item(), rel=1e-4)
    scaled = expected * (solution._spread(before) / solution._spread(expected))
    difference = added - scaled  # a value of its own for each photo, which changes no answer
    torch.testing.assert_close(difference, difference[:, :1].expand(-1, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 2]])
def test_a_head_that_cannot_be_refined_stays(labels):
    head = torch.nn.Linear(4, 3)
    before = head.weight.clone()
    solution.refine_head(head, torch.rand(3, 4), torch.tensor(labels), Settings())
    assert torch.equal(head.weight, before)


def test_features_that_are_all_the_same_give_a_finite_head():
    head = torch.nn.Linear(4, 2)
    solution.refine_head(head, torch.zeros(4, 4), torch.tensor([0, 0, 1, 1]), Settings())
    assert head.weight.isfinite().all()
    assert head.bias.isfinite().all()


def test_learning_rate_rises_then_falls():
    settings = Settings(warmup=0.1, final_rate=0.5)
    factors = [solution._rate_factor(step, 100, settings) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(0.5, abs=0.001)


def test_folded_forward_equals_the_plain_one_with_its_gradients(network):
    blocks, x = network.features[14:], torch.rand(2, 96, 4, 4)
    gradients = []
    description, state = solution.describe(blocks), dict(blocks.named_parameters())
    state |= dict(blocks.named_buffers())
    for forward in (blocks, lambda x: solution.forward_folded(description, state, x)):
        network.zero_grad()
        y = forward(x)
        y.square().sum().backward()
        gradients.append(
            [y.detach()] + [p.grad.clone() for p in blocks.parameters() if p.requires_grad]
        )
    assert len(gradients[0]) > 20
    for plain, folded in zip(*gradients, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-4, rtol=1e-3)


def packed_features(network):
    features = network.features
    return solution.PackedBlocks(solution.describe(features), features.state_dict(), side=64)


def test_packed_blocks_equal_the_plain_network(network):
    x = torch.rand(3, 3, 64, 96)  # neither the number nor the size that they are packed for
    with torch.no_grad():
        plain = network.features(x)
    packed = packed_features(network)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)


def test_the_output_shape_is_known_beforehand(network):
    packed = packed_features(network)
    assert list(packed(torch.rand(1, 3, 64, 64)).shape[1:]) == list(packed.output_shape)


def test_weights_are_packed_for_the_one_thread_that_computes(network, monkeypatch):
    """Packed for two threads, they were copied in every call, which took as long as the network."""
    threads = []
    pack = solution.PackedConv
    monkeypatch.setattr(
        solution,
        "PackedConv",
        lambda *arguments: threads.append(torch.get_num_threads()) or pack(*arguments),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        packed_features(network)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_without_onednn_the_answer_is_the_same(network, monkeypatch):
    x = torch.rand(2, 3, 64, 64)
    packed = packed_features(network)(x)
    monkeypatch.setattr(solution, "_onednn_packs", lambda: False)
    plain = packed_features(network)(x)
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)
