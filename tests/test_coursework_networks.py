"""Networks: frozen means frozen, one channel as three, any size, pretrained files."""

import hashlib
from contextlib import nullcontext

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from course.files import UserError
from coursework import ladder, resnet, transfer
from coursework.engine import Recipe, Run, train
from coursework.transfer import BACKBONES, Transfer, grey_convolution
from tests.coursework_helpers import data_set

GREY = data_set(channels=1, side=28, train=24, test=16)


@pytest.fixture
def pretrained(monkeypatch):
    state = models.mobilenet_v2().state_dict()
    monkeypatch.setattr(transfer, "imagenet_state", lambda name: state)
    return state


@pytest.mark.parametrize("frozen", ["lower", "all", "none"])
def test_what_is_frozen_stays_bit_equal_and_the_rest_learns(tmp_path, pretrained, frozen):
    def build(data):
        return Transfer(data, "mobilenet_v2", frozen=frozen)

    recipe = Recipe(1, "adamw", 8, 0.01, backbone_rate=0.3, bfloat16=False)
    run = Run("run", "", build, GREY, recipe)
    before = run.network().body.state_dict()
    result = train(run, None, tmp_path, {"accelerator": "cpu"})
    after = result.network.body.state_dict()
    changed = {n.rpartition(".")[0] for n in before if not torch.equal(before[n], after[n])}
    blocks = {int(n.split(".")[1]) for n in changed if n.startswith("features")}
    assert "classifier.1" in changed
    assert blocks == {"lower": set(range(7, 19)), "all": set(), "none": set(range(19))}[frozen]


def test_the_table_of_blocks_says_what_is_frozen(pretrained):
    rows = transfer.block_table(Transfer(GREY, "mobilenet_v2"))
    frozen = [not trained for *_, trained in rows]
    assert (rows[0][0], frozen) == ("features.0", [True] * 7 + [False] * 12)


def test_one_channel_gives_what_three_equal_channels_give():
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    x = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(grey_convolution(conv)(x), conv(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("name", BACKBONES)
def test_each_network_takes_grey_photos_and_keeps_all_but_two_layers(name):
    backbone = BACKBONES[name]
    with torch.device("meta"):
        network = Transfer(GREY, name, pretrained=False)
        whole = backbone.build()
        size = network.body.eval()(torch.rand(1, 1, backbone.side, backbone.side)).shape
    assert size == (1, 5)
    ours, theirs = (
        {n: tuple(p.shape) for n, p in net.named_parameters()} for net in (network.body, whole)
    )
    other = {n.rpartition(".")[0] for n in ours if ours[n] != theirs[n]}
    assert other == {backbone.first, backbone.last}
    assert set(ours) == set(theirs)
    trained = [n for n, p in network.body.named_parameters() if p.requires_grad]
    assert f"{backbone.last}.weight" in trained
    assert not any(n.startswith(backbone.first) for n in trained)


def test_vgg11_ends_in_more_than_one_place():
    with torch.device("meta"):
        features = models.vgg11(init_weights=False).features
        assert features(torch.rand(1, 3, 64, 64)).shape[-2:] == (2, 2)
    assert BACKBONES["vgg11"].side == 64


def weights_file(monkeypatch, tmp_path, content):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    transfer.imagenet_state.cache_clear()
    path = BACKBONES["mobilenet_v2"].file
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no ImageNet weights of MobileNetV2 .* put mobilenet_v2-b0353104.pth into"),
        (b"<html>no weights</html>", "is no file of weights: delete it"),
        ({"fc.weight": torch.zeros(2)}, "does not hold the weights of MobileNetV2"),
    ],
)
def test_weights_that_are_missing_or_wrong_are_one_line(monkeypatch, tmp_path, content, message):
    weights_file(monkeypatch, tmp_path, content)
    with pytest.raises(UserError, match=message):
        Transfer(GREY, transfer.choose("mobilenet_v2"))
    transfer.imagenet_state.cache_clear()


def test_a_file_is_genuine_if_its_digest_begins_as_its_name_says(monkeypatch, tmp_path):
    path = weights_file(monkeypatch, tmp_path, b"content")
    assert not transfer.is_genuine(BACKBONES["mobilenet_v2"])
    digest = hashlib.sha256(b"content").hexdigest()
    true = path.rename(path.with_name(f"mobilenet_v2-{digest[:8]}.pth"))
    assert transfer.is_genuine(type("Own", (), {"file": true}))


@pytest.mark.parametrize("label", ladder.BUILDS)
def test_the_networks_of_the_ladder(label):
    network = ladder.BUILDS[label][1](data_set()).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    with nullcontext() if label == "gap" else pytest.raises(RuntimeError):  # any size, or one
        assert network(torch.rand(1, 3, 32, 48)).shape == (1, 5)


def test_the_ladder_has_the_assignments_layers():
    ten = type("Ten", (), {"channels": 3, "classes": range(10)})
    sizes = {label: ladder.BUILDS[label][1](ten) for label in ladder.BUILDS}
    counts = {k: sum(p.numel() for p in net.parameters()) for k, net in sizes.items()}
    assert (counts["minimal"], counts["wider"]) == (1_180, 7_390)
    kinds = [type(layer).__name__ for layer in sizes["dropout"]]
    block = ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["MaxPool2d", "Dropout"]
    assert kinds == block * 4 + ["Flatten", "Linear"]
    shares = [layer.p for layer in sizes["gap"] if isinstance(layer, nn.Dropout)]
    assert shares == [0.1, 0.2, 0.3, 0.4]
    assert [type(x).__name__ for x in sizes["gap"]].count("MaxPool2d") == 3


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (400, 90)])
def test_a_new_photo_keeps_its_proportions(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "photo.png")
    height, width = ladder.scaled(ladder.new_photo(tmp_path / "photo.png"), 3).shape[1:]
    assert min(height, width) == 32
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_new_photo_is_a_cat_that_is_not_square_and_never_a_line(tmp_path):
    assert ladder.new_photo(None).size == (451, 300)
    Image.new("RGB", (900, 9)).save(tmp_path / "line.png")
    with pytest.raises(UserError, match="more than 8 times"):
        ladder.new_photo(tmp_path / "line.png")


def test_a_small_stem_keeps_the_size_of_the_photo():
    data, x = data_set(), torch.rand(1, 3, 32, 32)
    sides = []
    for small in (False, True):
        body = resnet.network(data, 8, small_stem=small).backbone.eval()
        stem = body.maxpool(body.act1(body.bn1(body.conv1(x))))
        sides.append(stem.shape[-1])
    assert sides == [8, 32]
    network = resnet.network(data, 8, dropout=0.7, plain_statistics=True)
    assert (network.dropout.p, network.normalise.mean) == (0.7, [0.5, 0.5, 0.5])
