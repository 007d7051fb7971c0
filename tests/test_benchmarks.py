"""The yardsticks of benchmarks/ compute what they are compared with."""

import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from PIL import Image

import solution

sys.path.insert(0, str(Path(solution.__file__).parent / "benchmarks"))

import classify_speed
import textbook
import train_speed


@pytest.fixture
def two(photos, tmp_path):
    """A folder with two of the photos."""
    gt, folder = photos
    (tmp_path / "two").mkdir()
    for name in list(gt)[:2]:
        shutil.copy(folder / name, tmp_path / "two" / name)
    return tmp_path / "two"


def test_the_textbook_answers_for_each_photo_at_310_pixels(two):
    shapes = []

    class Network(torch.nn.Module):
        def forward(self, x):
            shapes.append(tuple(x.shape))
            return torch.tensor([[0.0, 2.0, 1.0]])

    assert textbook.classify(Network(), two) == dict.fromkeys(
        sorted(p.name for p in two.iterdir()), 1
    )
    assert shapes == [(1, 3, 310, 310)] * 2


def test_the_textbook_is_efficientnet_v2_s():
    network = textbook.network(50)
    assert not network.training
    # Tan and Le, EfficientNetV2, 2021, table 7: 22 million, with 1,000 classes
    parameters = sum(p.numel() for p in network.parameters()) + 950 * (1280 + 1)
    assert parameters == pytest.approx(22e6, rel=0.03)


def test_a_run_measures_classify_on_its_threads(two, model_path, monkeypatch, capsys):
    seen, classify = [], solution.classify

    def counted(*arguments):
        seen.append((torch.get_num_threads(), *arguments))
        return classify(*arguments)

    monkeypatch.setattr(solution, "classify", counted)
    threads = torch.get_num_threads()
    try:
        classify_speed.child("solution", model_path, two, 3)
    finally:
        torch.set_num_threads(threads)
    assert seen == [(3, model_path, two)]
    seconds, megabytes = map(float, capsys.readouterr().out.split())
    assert 0 < seconds < 60
    assert 50 < megabytes < 20_000


def test_a_row_says_how_many_photos_a_second(capsys):
    classify_speed.row("here", 8, (2.0, 700.0))
    assert capsys.readouterr().out.split() == ["here", "4.0", "photos/s", "700", "MB"]


def test_the_table_compares_medians_and_grows(two, monkeypatch, capsys):
    rounds = iter([6.0, 2.0, 9.0, 1.0, 8.0, 4.0])  # textbook and solution in turns
    asked = []

    def measured(who, model, folder, threads):
        sizes = set()
        for path in folder.iterdir():
            with Image.open(path) as photo:
                sizes.add(max(photo.size))
        asked.append((who, threads, len(list(folder.iterdir())), max(sizes)))
        return next(rounds, 0.5), 700.0

    monkeypatch.setattr(classify_speed, "in_a_process", measured)
    monkeypatch.setattr(classify_speed, "SIDE", 300)
    classify_speed.main([str(two), "--threads", "2"])
    side = asked[0][3]
    assert asked == [
        *[("textbook", 2, 2, side), ("solution", 2, 2, side)] * 3,
        ("solution", 1, 2, side),
        ("solution", 2, 8, side),
        ("solution", 2, 2, 300),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert "medians: classify is 4.00 times as fast as the textbook" in lines
    assert lines[2].split() == ["solution", "1.0", "photos/s", "700", "MB"]


def test_the_plain_loop_computes_what_the_cache_holds_and_keeps_nothing(photos, init):
    gt, folder = photos
    paths = [folder / name for name in gt][:5]
    settings = replace(TINY, bfloat16=False)
    network, _ = solution.pretrained([0, 1], None, settings, init)
    birds = solution.find_birds(network, None, paths, settings, solution.Progress())
    views, kept = {}, {}
    for kind in (solution.TrunkCache, train_speed.PlainLoop):
        cache = kind(network, birds, settings, solution.Progress())
        views[kind] = [cache.view(number) for number in (0, 1, 1)]
        kept[kind] = len(cache.views), views[kind][1] is views[kind][2]
    cached, plain = views.values()
    torch.testing.assert_close(plain[0], cached[0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(plain[1], cached[1], atol=2e-2, rtol=2e-2)
    assert not torch.equal(cached[0], cached[1])
    assert kept == {solution.TrunkCache: (2, True), train_speed.PlainLoop: (2, False)}


def test_training_both_ways_differs_in_the_cache_alone(photos, init, monkeypatch, capsys):
    gt, folder = photos
    kinds, trained = [], solution.train_classifier

    def train(*arguments, settings, **others):
        kinds.append((solution.TrunkCache, settings.bfloat16, settings.seed, settings.epochs))
        return trained(*arguments, settings=TINY, **others)

    usual = solution.TrunkCache
    monkeypatch.setattr(solution, "train_classifier", train)
    options = Namespace(seed=7, epochs=1, init=init)
    for kind in (usual, train_speed.PlainLoop):
        seconds, accuracy = train_speed.train(kind, gt, folder, options)
        assert seconds > 0
        assert 0 <= float(accuracy) <= 1
    assert kinds == [(usual, True, 7, 1), (train_speed.PlainLoop, False, 7, 1)]
    assert solution.TrunkCache is usual
    assert capsys.readouterr().out.count("final run ") == 2 * TINY.epochs


def test_the_plain_loop_is_compared_by_how_many_times_as_long_it_takes(
    tmp_path, monkeypatch, capsys
):
    train = tmp_path / "00_a_input" / "train"
    train.mkdir(parents=True)
    (train / "gt.csv").write_text("filename,class_id\na.jpg,1\n")
    seconds = {solution.TrunkCache: 20.0, train_speed.PlainLoop: 50.0}
    monkeypatch.setattr(train_speed, "train", lambda kind, *_: (seconds[kind], "0.9000"))
    monkeypatch.setattr(sys, "argv", ["train_speed.py", str(tmp_path)])
    train_speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "the plain loop takes 2.5 times as long"
    assert [line.split() for line in lines[-3:-1]] == [
        ["cached", "20", "s,", "validation", "accuracy", "0.9000"],
        ["plain", "loop", "50", "s,", "validation", "accuracy", "0.9000"],
    ]
