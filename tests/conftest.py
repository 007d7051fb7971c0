"""Drawn photos and small networks that the tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import mobilenet_v2

import solution

SHIPPED = Path(solution.__file__).with_name("birds_model.pt")
TINY = solution.Settings(input_size=64, epochs=2, views=2, batch_size=8, unfrozen_blocks=3)


@pytest.fixture(autouse=True)
def _no_pretrained_weights(tmp_path_factory, monkeypatch):
    """An empty cache of weights, so that no test depends on the machine it runs on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))


def draw_photo(path: Path, class_id: int, seed: int, size: tuple[int, int] = (72, 60)) -> None:
    """A noisy blot, its colour given by the class."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    colour = np.array([(60 * class_id) % 166, (90 * class_id + 40) % 166, (30 * class_id) % 166])
    Image.fromarray((noise + colour).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> tuple[dict[str, int], Path]:
    """Labels and folder of 24 photos of three classes whose ids have gaps."""
    folder = tmp_path_factory.mktemp("photos")
    gt = {}
    for i in range(24):
        class_id = (-7, 3, 1000)[i % 3]
        gt[f"{i:02d}.jpg"] = class_id
        draw_photo(folder / f"{i:02d}.jpg", i % 3, seed=i)
    return gt, folder


@pytest.fixture(scope="session")
def init(tmp_path_factory) -> Path:
    """A file of random weights in the place of the ImageNet weights.

    Their batch norms have seen noise, or activations would vanish on the way.
    """
    torch.manual_seed(1)
    network = mobilenet_v2(weights=None)
    for _ in range(30):
        with torch.no_grad():
            network.features(torch.randn(4, 3, 64, 64) + torch.randn(4, 3, 1, 1))
    path = tmp_path_factory.mktemp("init") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def network(photos, init) -> solution.BirdNet:
    """A network trained for two epochs on the drawn photos."""
    gt, folder = photos
    return solution.train_classifier(gt, folder, settings=TINY, init=init)


@pytest.fixture(scope="session")
def model_path(network, tmp_path_factory) -> Path:
    """Its checkpoint."""
    path = tmp_path_factory.mktemp("model") / "birds_model.pt"
    torch.save(solution.to_checkpoint(network), path)
    return path
