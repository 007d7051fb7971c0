"""Drawn photos and small networks that the tests share."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import solution

SHIPPED = Path(solution.__file__).with_name("birds_model.pt")
TINY = solution.Settings(
    input_size=64,
    first_size=64,
    epochs=2,
    batch_size=8,
    unfrozen_blocks=3,
    head_learning_rate=0.01,
    backbone_learning_rate=1e-4,  # few steps on noise: larger ones end all activations
)
IDS = (-7, 3, 1000)  # with gaps, and below zero


def pytest_configure(config):
    """Tests that run side by side compute on one core each, with all that they start."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_pretrained_weights(tmp_path_factory, monkeypatch):
    """An empty cache of weights, so that no test depends on the machine it runs on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))


def draw_photo(path: Path, class_id: int, seed: int, size: tuple[int, int] = (96, 72)) -> None:
    """A noisy scene with a blot somewhere, its colour given by the class."""
    rng, (width, height) = np.random.default_rng(seed), size
    scene = rng.integers(60, 180, (height, width, 3))
    colour = np.array([(60 * class_id) % 166, (90 * class_id + 40) % 166, (30 * class_id) % 166])
    side = max(1, min(size) // 2)
    y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    scene[y : y + side, x : x + side] = rng.integers(0, 90, (side, side, 3)) + colour
    Image.fromarray(scene.astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> tuple[dict[str, int], Path]:
    """Labels and folder of 24 photos of three classes: 7, 10 and 7 of them, most landscape."""
    folder = tmp_path_factory.mktemp("photos")
    gt = {}
    for i in range(24):
        kind = i % 3 if i < 21 else 1
        gt[f"{i:02d}.jpg"] = IDS[kind]
        size = (72, 96) if i % 5 == 4 else (96, 72)
        draw_photo(folder / f"{i:02d}.jpg", kind, seed=i, size=size)
    return gt, folder


@pytest.fixture(scope="session")
def init(tmp_path_factory) -> Path:
    """The shipped model's weights as torchvision would write them, in place of ImageNet's.

    Random weights would answer nearly the same for every photo.
    """
    state = torch.load(SHIPPED, weights_only=True)["state_dict"]
    path = tmp_path_factory.mktemp("init") / "mobilenet_v2.pth"
    torch.save({k.replace("head.", "classifier.1."): v for k, v in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def tiny(init) -> solution.Settings:
    """Settings of trainings that take a second."""
    return replace(TINY, weights=str(init))


@pytest.fixture(scope="session")
def network(photos, tiny) -> solution.BirdNet:
    """A network trained for two epochs on the drawn photos."""
    return solution.train_classifier(*photos, settings=tiny)


@pytest.fixture(scope="session")
def model_path(network, tiny, tmp_path_factory) -> Path:
    """Its checkpoint."""
    path = tmp_path_factory.mktemp("model") / "birds_model.pt"
    torch.save(solution.to_checkpoint(network, tiny), path)
    return path


def glass(*channels: int, classes: int = 3) -> solution.BirdNet:
    """A network that hides nothing: its features are the mean colours of patches of 32 x 32 pixels.

    The first block computes them; the others pass them on, and pad with zeros to as many
    `channels` as they have. The head is the identity: the logits are the mean colour.
    """
    network = solution.BirdNet(range(classes))
    blocks, before = [], 3
    for index, after in enumerate(channels or (3,)):
        size = 32 if index == 0 else 1
        conv = nn.Conv2d(before, after, size, size, bias=False)
        norm = nn.BatchNorm2d(after, eps=0.0)
        nn.init.zeros_(conv.weight)
        for channel in range(min(before, after)):
            conv.weight.data[channel, channel] = 1 / size**2
        blocks.append(nn.Sequential(conv, norm))
        before = after
    network.features = nn.Sequential(*blocks)
    network.head = nn.Linear(before, classes)
    nn.init.eye_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    return network.eval()
