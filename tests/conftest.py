"""Drawn photos and small networks that the tests share."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import mobilenet_v2

import solution
from course.layout import save_csv
from public_data.prepare import main as prepare
from tests.commands import call

SHIPPED = Path(solution.__file__).with_name("birds_model.pt")
TINY = solution.Settings(
    input_size=64,
    first_size=64,
    epochs=2,
    batch_size=8,
    unfrozen_blocks=3,
    head_learning_rate=0.05,
)
IDS = (-7, 3, 1000)  # with gaps, and below zero


def pytest_configure(config):
    """Tests that run side by side compute on one core each, with all that they start.

    What they start gets signals as from a terminal, also where a shell runs the tests behind it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # ignored under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_pretrained_weights(tmp_path_factory, monkeypatch):
    """An empty cache of weights, so that no test depends on the machine it runs on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))


@pytest.fixture(autouse=True, scope="session")
def _float32():
    """The precision that every processor has: results are compared digit by digit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solution, "working_precision", lambda: torch.float32)
        yield


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


@pytest.fixture
def prepared(tmp_path, capsys):
    """Write the tests of a source to tmp_path / "out"; returns stdout and stderr."""

    def run(*words, to=tmp_path / "out", status=0):
        assert call(prepare, *words, "--out", to) == status
        return capsys.readouterr()

    return run


def course_layout(folder: Path, photos: tuple[dict[str, int], Path]) -> Path:
    """Link photos and labels into a folder of tests, of which the second is not trained on."""
    gt, images = photos
    train, other = (folder / f"{name}_input" / "train" for name in ("00_test_img", "01_other"))
    save_csv(gt, train / "gt.csv")
    (train / "images").symlink_to(images, target_is_directory=True)
    save_csv({"other.jpg": 9}, other / "gt.csv")
    (other / "images").mkdir()
    return folder


@pytest.fixture
def tests_dir(photos, tmp_path) -> Path:
    """The drawn photos in the course's layout."""
    return course_layout(tmp_path / "data", photos)


@pytest.fixture(scope="session")
def init(photos, tmp_path_factory) -> Path:
    """Weights in the place of ImageNet's, as torchvision writes them.

    They are the shipped model's, but each batch norm has the statistics of the drawn photos, on
    which its features would otherwise be nearly the same, or zero.
    """
    gt, folder = photos
    pixels = [torch.from_numpy(np.array(Image.open(folder / name))) for name in gt]
    views = [
        solution.crop_and_resize(p.permute(2, 0, 1), (0, 0, *p.shape[1::-1]), (64, 64))
        for p in pixels
    ]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = mobilenet_v2(num_classes=20).train()
        shipped = torch.load(SHIPPED, weights_only=True)["state_dict"]
        network.load_state_dict({k: v for k, v in shipped.items() if "features" in k}, strict=False)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches, of which there is one
        network.features(solution.normalise(views, solution.preprocessing_of(TINY)))
    state = {k: 0 * v if k.endswith("_tracked") else v for k, v in network.state_dict().items()}
    path = tmp_path_factory.mktemp("init") / "mobilenet_v2.pth"
    torch.save(state, path)
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


@pytest.fixture
def untrained() -> solution.BirdNet:
    """A network of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = solution.BirdNet(IDS).eval()
        network.class_names = ["Wren", "Barn Owl", "Ибис"]
        nn.init.normal_(network.head.weight, std=1e7)  # random features are tiny
    return network


def without(name):
    """Leave a key out of a dictionary."""
    return lambda content: {key: value for key, value in content.items() if key != name}


@contextmanager
def surroundings():
    """Modes of torch that a caller may have set, all at once."""
    threads = torch.get_num_threads()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


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
