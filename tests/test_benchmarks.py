"""The yardsticks of benchmarks/ compute what they are compared with."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks import classify_speed


@pytest.fixture
def two(photos, tmp_path):
    """A folder with two of the photos."""
    gt, folder = photos
    (tmp_path / "two").mkdir()
    for name in list(gt)[:2]:
        shutil.copy(folder / name, tmp_path / "two" / name)
    return tmp_path / "two"


def test_the_textbook_is_an_efficientnet_that_sees_each_photo_at_310_pixels(two, monkeypatch):
    shapes = []

    class Network(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            shapes.append(tuple(x.shape))
            return torch.zeros(1, 3)

    monkeypatch.setattr("torchvision.models.efficientnet_v2_s", lambda num_classes: Network())
    classify_speed.textbook()(two)
    assert shapes == [(1, 3, 310, 310)] * 2


def test_the_table_compares_medians(two, monkeypatch, capsys):
    rounds = iter([6.0, 2.0, 9.0, 1.0, 8.0, 4.0, 0.5])  # textbook and solution in turns
    asked = []

    def measured(who, model, folder, threads):
        asked.append((who, folder, threads))
        return next(rounds), 700.0

    monkeypatch.setattr(classify_speed, "child", measured)
    monkeypatch.setattr(classify_speed, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    classify_speed.main([str(two)])
    assert asked == [*[("textbook", two, 2), ("solution", two, 2)] * 3, ("solution", two, 1)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "medians: classify is 4.00 times as fast as the textbook"
    assert lines[2] == "solution, 2 threads: 1.0 photos/s, 700 MB"
