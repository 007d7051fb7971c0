"""What the network sees: whole photo and crop, one view after the other, and training's views."""

import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import TINY, glass
from torch import nn

import solution
from solution import class_activation_map, localise

SETTINGS = replace(TINY, input_size=96, first_size=192, box_threshold=0.6, box_margin=0.1)
CONSTANTS = solution.preprocessing_of(SETTINGS)
GREEN = torch.tensor([0, 200, 0])
GENERATOR = torch.Generator().manual_seed(0)


def scene(width: int, height: int, *patches: tuple[int, int, int, torch.Tensor]) -> torch.Tensor:
    """A black photo (3, height, width) with squares of a colour: left, top, side, colour."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, side, colour in patches:
        pixels[:, top : top + side, left : left + side] = colour.view(3, 1, 1)
    return pixels


def predictor(is_confident=solution.never) -> solution.TwoStagePredictor:
    return solution.TwoStagePredictor(glass(), CONSTANTS, is_confident)


def blank(height: int, width: int) -> torch.Tensor:
    return torch.zeros(3, height, width, dtype=torch.uint8)


# ---- The class activation map --------------------------------------------------------------------


@torch.no_grad()
def test_the_map_is_the_head_at_each_place_for_the_five_best_classes():
    maps, head = torch.rand(5, 3, 4, generator=GENERATOR), nn.Linear(5, 7)
    weight, bias = (nn.init.normal_(p.data, generator=GENERATOR) for p in head.parameters())
    cam = class_activation_map(maps, head)
    shares = (weight @ maps.mean((1, 2)) + bias).softmax(0)
    expected = torch.zeros(3, 4)
    for share, k in sorted(zip(shares.tolist(), range(7), strict=True), reverse=True)[:5]:
        expected += share * (weight[k].view(5, 1, 1) * maps).sum(0)
    assert cam.min() == 0
    assert cam.max() > 0.1
    torch.testing.assert_close(cam, expected - expected.min(), atol=1e-5, rtol=1e-5)


# ---- The box -------------------------------------------------------------------------------------


def test_the_box_is_the_blob_around_the_peak_with_its_margin():
    cam = torch.zeros(6, 8)
    cam[2:4, 4:6] = torch.tensor([[1.0, 0.7], [0.7, 0.65]])
    cam[2, 6] = 0.4  # below the threshold
    cam[5, 0] = 0.9  # above it, but elsewhere
    constants = {**CONSTANTS, "box_threshold": 0.6, "box_margin": 0.1}
    assert localise(cam, blank(600, 800), constants) == (380, 180, 620, 420)
    assert localise(cam, blank(600, 800), constants | {"box_margin": 0.3}) == (340, 140, 660, 460)
    low = localise(cam, blank(600, 800), constants | {"box_threshold": 0.35})
    assert low == (370, 120, 730, 480)  # 3 x 2 places: 300 pixels and a fifth of that
    cam[4, 3] = 0.8  # touches the blob at a corner
    assert localise(cam, blank(600, 800), constants)[0] < 340


def test_the_box_is_a_square_within_the_photo_that_holds_the_peak():
    rng, shares = random.Random(0), []
    for _ in range(60):
        h, w, height, width = (
            rng.randint(*ends) for ends in ((2, 11), (2, 11), (64, 500), (64, 500))
        )
        cam = torch.rand(h, w, generator=GENERATOR)
        left, top, right, bottom = localise(cam, blank(height, width), CONSTANTS)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == bottom - top
        shares.append((right - left) / min(height, width))
        y, x = divmod(cam.argmax().item(), w)
        if shares[-1] < 1:
            assert left <= (x + 0.5) * width / w <= right
            assert top <= (y + 0.5) * height / h <= bottom
    assert min(shares) < 0.5
    assert max(shares) == 1.0


@pytest.mark.parametrize(("height", "width"), [(63, 400), (400, 63), (1, 1)])
def test_a_tiny_photo_is_seen_whole(height, width):
    cam = torch.eye(4)
    assert localise(cam, blank(height, width), CONSTANTS) == (0, 0, width, height)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_flat_map_means_the_whole_photo(value):
    assert localise(torch.full((4, 4), value), blank(300, 400), CONSTANTS) == (0, 0, 400, 300)


# ---- Two stages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "top"), [(25, 25), (285, 30), (30, 200), (280, 195), (150, 100)])
def test_the_crop_goes_where_the_bird_is(left, top):
    photo = scene(400, 300, (left, top, 90, GREEN))
    seen, mirrored = predictor()(photo), predictor()(photo.flip(2))
    x0, y0, x1, y1 = seen.box
    assert abs((x0 + x1) / 2 - (left + 45)) <= 35
    assert abs((y0 + y1) / 2 - (top + 45)) <= 35
    assert 55 <= x1 - x0 <= 240
    whole, crop = seen.view_logits[0], seen.view_logits[1]
    assert crop[1] - crop[0] > 1.8 * (whole[1] - whole[0])
    assert mirrored.box == pytest.approx((400 - x1, y0, 400 - x0, y1), abs=1)
    torch.testing.assert_close(mirrored.logits, seen.logits, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("views", [1, 2, 3, 4])
def test_it_stops_as_soon_as_the_averaged_logits_are_confident(views):
    photo, asked = scene(400, 300, (250, 90, 100, GREEN)), []
    every = predictor()(photo)
    seen = predictor(lambda logits: asked.append(logits) or len(asked) == views)(photo)
    assert torch.equal(seen.view_logits, every.view_logits[:views])
    assert seen.box == every.box
    assert len(asked) == views
    for count, logits in enumerate(asked, 1):
        rows, share = every.view_logits[:count], CONSTANTS["whole_share"]
        torch.testing.assert_close(logits, solution.average_logits(rows, share))
    assert torch.equal(seen.logits, asked[-1])


@pytest.mark.parametrize(
    ("share", "weights"),
    [
        (0.0, [0]),
        (0.4, [0.4, 0.6]),
        (0.4, [0.4, 0.3, 0.3]),
        (0.4, [0.2, 0.3, 0.3, 0.2]),
        (0.0, [0, 0.5, 0.5, 0]),
        (1.0, [0.5, 0, 0, 0.5]),
    ],
)
def test_whole_photo_and_crop_have_their_shares_whatever_the_number_of_views(share, weights):
    rows = torch.randn(len(weights), 5, generator=GENERATOR)
    expected = (torch.tensor(weights)[:, None] * rows).sum(0)
    torch.testing.assert_close(solution.average_logits(rows, share), expected)


def test_the_whole_photo_is_hardly_distorted_and_made_of_whole_places():
    generator = random.Random(0)
    for _ in range(100):
        width, height = generator.randint(50, 900), generator.randint(50, 900)
        h, w = solution.whole_size(blank(height, width), CONSTANTS)
        assert h % 32 == w % 32 == 0
        assert min(h, w) == 192
        longer = min(max(width, height) / min(width, height), 2.0)
        assert max(h, w) / min(h, w) == pytest.approx(longer, abs=16 / 192 + 1e-9)
        assert (w > h) == (width > height) or h == w


def test_a_larger_photo_is_averaged_down():
    """Or what lies between the pixels that are kept would be lost, and stripes would show."""
    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(3, 128, 64)  # (3, 128, 128)
    small = solution.crop_and_resize(stripes, (0, 0, 128, 128), (33, 33)).float()
    assert small.shape == (3, 33, 33)
    assert (small - 100).abs().max() < 30


# ---- What training sees --------------------------------------------------------------------------


@pytest.fixture
def boxes(monkeypatch) -> list[solution.Box]:
    """The parts of photos that are cut out from now on."""
    boxes = []

    def cut(pixels, box, size):
        boxes.append(box)
        return blank(*size)

    monkeypatch.setattr(solution, "crop_and_resize", cut)
    return boxes


def test_a_random_view_lies_on_the_photo_and_covers_the_bird(boxes):
    settings, generator = replace(SETTINGS, tightest_crop=0.8), random.Random(0)
    for _ in range(400):
        width, height = generator.randint(64, 500), generator.randint(64, 500)
        side = generator.randint(16, min(width, height))
        x, y = generator.randint(0, width - side), generator.randint(0, height - side)
        bird = x, y, x + side, y + side
        view = solution.random_view(blank(height, width), bird, settings, generator)
        assert view.shape == (3, 96, 96)
        for axis, length in ((0, width), (1, height)):
            start, end = boxes[-1][axis], boxes[-1][axis + 2]
            assert 0 <= start < end <= length
            shared = min(end, bird[axis + 2]) - max(start, bird[axis])
            assert shared == min(end - start, side)


def test_random_views_have_every_scale_between_the_two_stages(boxes):
    settings, generator = replace(SETTINGS, tightest_crop=0.8, crop_stretch=1.0), random.Random(0)
    bird, pixels = (100, 80, 200, 180), blank(400, 500)
    for _ in range(1000):
        solution.random_view(pixels, bird, settings, generator)
    sides = sorted(right - left for left, _, right, _ in boxes)
    assert all(right - left == bottom - top for left, top, right, bottom in boxes)
    assert 80 <= sides[0] <= 84
    assert 390 <= sides[-1] <= 400
    assert sides[500] == pytest.approx(math.sqrt(80 * 400), rel=0.1)  # each scale as likely
    middles = [(left + right) / 2 for left, _, right, _ in boxes]
    assert max(middles) - min(middles) > 120
    boxes.clear()
    for _ in range(1000):
        solution.random_view(pixels, bird, replace(settings, crop_stretch=2.0), generator)
    ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
    assert 0.48 < min(ratios) < 0.65
    assert 1.6 < max(ratios) < 2.1


def test_random_views_are_mirrored_and_lit_at_random(monkeypatch):
    """On a green photo that is ever lighter to the right, of which no part is cut out."""
    monkeypatch.setattr(solution, "crop_and_resize", lambda pixels, box, size: pixels)
    tint, grey = torch.tensor([-10, 10, -20]), torch.tensor([0.299, 0.587, 0.114])
    pixels = (torch.linspace(70, 140, 96) + tint.view(3, 1, 1)).to(torch.uint8).repeat(1, 96, 1)

    def measured(view: torch.Tensor) -> torch.Tensor:
        """What brightness, contrast and saturation multiply, each alone."""
        light = torch.einsum("c,chw->hw", grey, view.float())
        chroma = (view[1].float() - view[2].float()).mean()
        return torch.stack([light.mean(), light.std() / light.mean(), chroma / light.std()])

    views = [
        solution.random_view(pixels, (0, 0, 96, 96), SETTINGS, random.Random(i)) for i in range(400)
    ]
    light = torch.stack([measured(view) for view in views]) / measured(pixels)  # (views, 3)
    jitter = SETTINGS.colour_jitter
    assert jitter > 0
    assert (light.amin(0) - (1 - jitter)).abs().max() < 0.05
    assert (light.amax(0) - (1 + jitter)).abs().max() < 0.05
    assert torch.corrcoef(light.T).fill_diagonal_(0).abs().max() < 0.2
    assert 150 < sum(int(view[1, 0, 0] > view[1, 0, -1]) for view in views) < 250
