"""Looking twice: where the first look sends the second, what both say, what training sees."""

import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import TINY, glass
from torch.nn import functional

import solution
from solution import bird_box, class_map, random_view

SETTINGS = replace(TINY, input_size=96, first_size=192, box_threshold=0.6, box_margin=0.1)
LOOKS = solution.preprocessing_of(SETTINGS)
GREEN, BLUE = torch.tensor([0, 200, 0]), torch.tensor([0, 0, 200])


def scene(width: int, height: int, *patches: tuple[int, int, int, torch.Tensor]) -> torch.Tensor:
    """A black photo (3, height, width) with squares of a colour: left, top, side, colour."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, side, colour in patches:
        pixels[:, top : top + side, left : left + side] = colour.view(3, 1, 1)
    return pixels


def two_looks(preprocessing=LOOKS) -> solution.TwoLooks:
    network = glass()
    head = network.head.weight.detach(), network.head.bias.detach()
    return solution.TwoLooks(network.features, head, preprocessing)


def blank(height: int, width: int) -> torch.Tensor:
    return torch.zeros(3, height, width, dtype=torch.uint8)


# ---- The map ----


def test_the_map_is_the_head_at_each_place_for_the_five_best_classes():
    torch.manual_seed(0)
    maps, weight, bias = torch.rand(5, 3, 4), torch.randn(7, 5), torch.randn(7)
    heat = class_map(maps, (weight, bias))
    shares = (weight @ maps.mean((1, 2)) + bias).softmax(0)
    expected = torch.zeros(3, 4)
    for share, k in sorted(zip(shares.tolist(), range(7), strict=True), reverse=True)[:5]:
        expected += share * (weight[k].view(5, 1, 1) * maps).sum(0)
    assert heat.min() == 0
    assert heat.max() > 0.1
    torch.testing.assert_close(heat, expected - expected.min(), atol=1e-5, rtol=1e-5)


# ---- The box ----


def test_the_box_is_the_blob_around_the_peak_with_its_margin():
    heat = torch.zeros(6, 8)
    heat[2:4, 4:6] = torch.tensor([[1.0, 0.7], [0.7, 0.65]])
    heat[2, 6] = 0.4  # below the threshold
    heat[5, 0] = 0.9  # above it, but elsewhere
    constants = {**LOOKS, "box_threshold": 0.6, "box_margin": 0.1}
    assert bird_box(heat, blank(600, 800), constants) == (380, 180, 620, 420)
    assert bird_box(heat, blank(600, 800), constants | {"box_margin": 0.3}) == (340, 140, 660, 460)
    low = bird_box(heat, blank(600, 800), constants | {"box_threshold": 0.35})
    assert low == (370, 120, 730, 480)  # 3 x 2 places: 300 pixels and a fifth of that
    heat[4, 3] = 0.8  # touches the blob at a corner
    assert bird_box(heat, blank(600, 800), constants)[0] < 340


def test_the_box_is_a_square_within_the_photo_that_grows_with_margin_and_lower_threshold():
    generator = torch.Generator().manual_seed(0)
    sides = []
    for _ in range(60):
        h, w, height, width = (
            torch.randint(low, high, (), generator=generator).item()
            for low, high in ((2, 12), (2, 12), (64, 500), (64, 500))
        )
        heat, before = torch.rand(h, w, generator=generator), 0
        for threshold, margin in ((0.9, 0.0), (0.9, 0.2), (0.5, 0.2), (0.2, 0.4)):
            constants = {**LOOKS, "box_threshold": threshold, "box_margin": margin}
            left, top, right, bottom = bird_box(heat, blank(height, width), constants)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert right - left == bottom - top >= before
            before = right - left
            sides.append(before / min(height, width))
        y, x = divmod(heat.argmax().item(), w)
        if before < min(height, width):  # it holds the peak
            assert left <= (x + 0.5) * width / w <= right
            assert top <= (y + 0.5) * height / h <= bottom
    assert min(sides) < 0.5
    assert max(sides) == 1.0


@pytest.mark.parametrize(("height", "width"), [(63, 400), (400, 63), (1, 1)])
def test_a_tiny_photo_is_looked_at_whole(height, width):
    heat = torch.zeros(4, 4)
    heat[1, 1] = 1
    assert bird_box(heat, blank(height, width), LOOKS) == (0, 0, width, height)


@pytest.mark.parametrize("value", [0.0, 3.0, math.nan])
def test_a_flat_map_means_the_whole_photo(value):
    heat = torch.full((4, 4), value)
    assert bird_box(heat - heat.min(), blank(300, 400), LOOKS) == (0, 0, 400, 300)


# ---- Both looks ----


@pytest.mark.parametrize(("left", "top"), [(25, 25), (285, 30), (30, 200), (280, 195), (150, 100)])
def test_the_second_look_goes_where_the_bird_is(left, top):
    """Where the mirror image's map is not turned back, it goes to the wrong side as well."""
    looks = two_looks()
    seen = looks(scene(400, 300, (left, top, 90, GREEN)))
    x0, y0, x1, y1 = seen.box
    assert abs((x0 + x1) / 2 - (left + 45)) <= 35
    assert abs((y0 + y1) / 2 - (top + 45)) <= 35
    assert 55 <= x1 - x0 <= 240
    assert seen.second[1] - seen.second[0] > 1.8 * (seen.first[1] - seen.first[0])
    mirrored = looks(scene(400, 300, (left, top, 90, GREEN)).flip(2))
    assert mirrored.box == pytest.approx((400 - x1, y0, 400 - x0, y1), abs=1)
    torch.testing.assert_close(mirrored.logits, seen.logits, atol=0.05, rtol=0.05)


def test_both_looks_see_the_normalised_colours_of_their_part():
    seen = two_looks()(scene(400, 300, (250, 90, 100, GREEN)))
    x0, y0, x1, y1 = seen.box
    for (width, height), logits in (((400, 300), seen.first), ((x1 - x0, y1 - y0), seen.second)):
        share = 100 * 100 / (width * height)
        means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        colours = (0, share * 200 / 255, 0)
        expected = [(c - m) / s for c, m, s in zip(colours, means, stds, strict=True)]
        assert logits.tolist() == pytest.approx(expected, abs=0.06)


def test_both_looks_count_alike():
    seen = two_looks()(scene(400, 300, (250, 90, 100, GREEN)))
    assert (seen.first - seen.second).abs().max() > 0.5
    torch.testing.assert_close(seen.logits, (seen.first + 3 * seen.second) / 4)


@pytest.mark.parametrize(
    ("size", "places"),
    [((500, 375), (6, 8)), ((375, 500), (8, 6)), ((400, 400), (6, 6)), ((900, 100), (6, 12))],
)
def test_the_first_look_has_the_shape_of_the_photo(size, places):
    assert two_looks()(scene(*size, (10, 10, 80, GREEN))).heat.shape == places


def test_the_first_look_is_hardly_distorted_and_made_of_whole_places():
    generator = random.Random(0)
    for _ in range(100):
        width, height = generator.randint(50, 900), generator.randint(50, 900)
        h, w = solution.whole_size(blank(height, width), LOOKS)
        assert h % 32 == w % 32 == 0
        assert min(h, w) == 192
        longer = min(max(width, height) / min(width, height), 2.0)
        assert max(h, w) / min(h, w) == pytest.approx(longer, abs=16 / 192 + 1e-9)
        assert (w > h) == (width > height) or h == w


def test_a_photo_of_any_size_is_looked_at():
    looks = two_looks()
    for size in ((1, 1), (3000, 1), (2, 900), (64, 64), (65, 640)):
        seen = looks(scene(*size, (0, 0, 40, GREEN)))
        assert seen.logits.isfinite().all()
        assert 0 <= seen.box[0] < seen.box[2] <= size[0]
        assert 0 <= seen.box[1] < seen.box[3] <= size[1]


# ---- What training sees ----


def random_birds(number: int):
    """Photos' sizes and birds' boxes on them."""
    generator = random.Random(0)
    for _ in range(number):
        width, height = generator.randint(64, 500), generator.randint(64, 500)
        side = generator.randint(16, min(width, height))
        x, y = generator.randint(0, width - side), generator.randint(0, height - side)
        yield generator, blank(height, width), (x, y, x + side, y + side)


def test_a_random_view_lies_on_the_photo_and_covers_the_bird():
    settings = replace(SETTINGS, tightest_crop=0.8, crop_stretch=1.27)
    for generator, pixels, bird in random_birds(400):
        box, *_ = random_view(bird, pixels, settings, generator)
        for axis, length in ((0, pixels.shape[2]), (1, pixels.shape[1])):
            start, end = box[axis], box[axis + 2]
            assert 0 <= start < end <= length
            shared = min(end, bird[axis + 2]) - max(start, bird[axis])
            assert shared == min(end - start, bird[axis + 2] - bird[axis])


def test_random_views_have_every_scale_between_the_two_looks():
    settings, generator = replace(SETTINGS, tightest_crop=0.8, crop_stretch=1.0), random.Random(0)
    bird, pixels = (100, 80, 200, 180), blank(400, 500)
    boxes = [random_view(bird, pixels, settings, generator)[0] for _ in range(1000)]
    sides = sorted(right - left for left, _, right, _ in boxes)
    assert all(right - left == bottom - top for left, top, right, bottom in boxes)
    assert 80 <= sides[0] <= 84
    assert 390 <= sides[-1] <= 400
    assert sides[500] == pytest.approx(math.sqrt(80 * 400), rel=0.1)  # each scale as likely
    middles = [(left + right) / 2 for left, _, right, _ in boxes]
    assert max(middles) - min(middles) > 120
    wider = replace(settings, crop_stretch=2.0)
    boxes = [random_view(bird, pixels, wider, generator)[0] for _ in range(1000)]
    ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
    assert 0.48 < min(ratios) < 0.65
    assert 1.6 < max(ratios) < 2.1


def test_random_views_are_mirrored_and_lit_at_random():
    views = [random_view((0, 0, 64, 64), blank(99, 99), SETTINGS, random.Random(i))
             for i in range(400)]  # fmt: skip
    assert 150 < sum(mirrored for _, mirrored, _ in views) < 250
    light = torch.tensor([light for *_, light in views])  # (views, 3)
    jitter = SETTINGS.colour_jitter
    assert jitter > 0
    assert (light.amin(0) - (1 - jitter)).abs().max() < 0.02
    assert (light.amax(0) - (1 + jitter)).abs().max() < 0.02
    assert torch.corrcoef(light.T).fill_diagonal_(0).abs().max() < 0.2


def test_a_larger_photo_is_averaged_down():
    """Or what lies between the pixels that are kept would be lost, and stripes would show."""
    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(3, 128, 64)  # (3, 128, 128)
    small = solution.look(stripes, (0, 0, 128, 128), (33, 33), LOOKS).float()
    assert small.shape == (3, 33, 33)
    assert (small - 100).abs().max() < 30


def test_a_view_is_cut_resized_mirrored_and_lit():
    """Against the formulas, to a grey level or two."""
    torch.manual_seed(0)
    pixels = torch.randint(60, 190, (3, 50, 70), dtype=torch.uint8)
    box = (5, 10, 45, 50)
    part = pixels[None, :, 10:50, 5:45].float()
    expected = functional.interpolate(part, (96, 96), mode="bilinear", antialias=True)[0]

    def seen(mirrored, *light):
        return solution.augmented(pixels, (box, mirrored, light), LOOKS).float()

    def assert_close(actual, wanted):
        assert actual.shape == (3, 96, 96)
        assert (actual - wanted.clamp(0, 255)).abs().max() <= 2.5

    def grey(x):
        return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2])[None]

    plain = seen(False, 1.0, 1.0, 1.0)
    assert_close(plain, expected)
    assert torch.equal(seen(True, 1.0, 1.0, 1.0), plain.flip(2))
    assert_close(seen(False, 1.2, 1.0, 1.0), 1.2 * expected)
    assert_close(seen(False, 1.0, 0.5, 1.0), torch.lerp(grey(expected).mean(), expected, 0.5))
    assert_close(seen(False, 1.0, 1.0, 0.5), torch.lerp(grey(expected), expected, 0.5))
