"""Draw the built-in sample: 10 invented bird species, whole scenes, in the course's layout.

It stands in for the course's photos on a fresh clone. As there, a bird is somewhere in a scene of
500 pixels, and relatives look alike: species of one genus differ in small field marks only. Pose,
light, surroundings and occlusion are drawn blind to the species, so colours averaged over a photo
hardly help. The same seed gives the same bytes with the same Pillow and NumPy.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from birddata.writing import Photo, Sample, Test, new_tests, write_tests

TRAIN, HIDDEN = range(16), range(16, 26)  # the numbers of each species' photos
SIZES = ((500, 375), (500, 333), (500, 400), (375, 500), (333, 500))  # pixels, width and height
OVERSAMPLING = 2  # birds are drawn this much larger, then averaged down: smooth edges

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255
Points = Any  # (n, 2) or (2,): x forward, y up, about 1 = half a body length

BLACK, WHITE, HORN, BUFF = (34, 32, 36), (240, 238, 232), (92, 84, 80), (226, 206, 168)
RED, RUFOUS, OCHRE = (186, 62, 50), (178, 100, 54), (214, 160, 58)
WOOD = ((94, 74, 56), (72, 62, 56), (142, 120, 92), (104, 104, 100))
# Leaves, and blossoms and berries in the colours of field marks.
LEAVES = ((70, 110, 46), (116, 140, 58), (48, 84, 52), (142, 74, 44), RED, WHITE, OCHRE, BLACK)
# name: dark colour, light colour, patches across and down, grain (0 to 1)
BACKGROUNDS = {
    "sky": ((120, 160, 206), (226, 236, 244), (2, 4), 0.02),
    "dusk": ((92, 74, 104), (236, 172, 126), (2, 5), 0.02),
    "foliage": ((34, 62, 30), (140, 172, 84), (11, 11), 0.10),
    "reeds": ((96, 98, 52), (206, 196, 128), (30, 3), 0.10),
    "water": ((44, 82, 106), (150, 184, 192), (4, 26), 0.06),
    "stone": ((82, 82, 84), (170, 166, 158), (9, 9), 0.30),
}


class Genus(NamedTuple):
    """What species of one genus share: body shape, in half body lengths, and plumage."""

    depth: float  # of the trunk
    posture: float  # degrees the trunk stands above the horizontal
    head: float  # radius
    bill: tuple[float, float]  # length, depth, in radii of the head
    tail: float  # length
    back: Colour
    wing: Colour
    belly: Colour
    bars: Colour  # on the wing


class Species(NamedTuple):
    """A species: a genus and the field marks by which it differs from its relatives."""

    name: str
    genus: Genus
    wing_bars: int = 1  # up to 2
    cap: Colour | None = None
    mask: Colour | None = None
    eye_ring: Colour | None = None
    bill_tip: Colour | None = None


FINCH = Genus(1.12, 22, 0.47, (0.85, 0.80), 0.95,
              (128, 100, 74), (92, 72, 56), (206, 188, 156), BUFF)  # fmt: skip
THRUSH = Genus(1.02, 38, 0.42, (1.10, 0.40), 1.05,
               (98, 108, 122), (72, 80, 94), (212, 208, 198), RUFOUS)  # fmt: skip
TIT = Genus(1.25, 12, 0.58, (0.45, 0.34), 1.15,
            (122, 132, 80), (88, 98, 68), (220, 206, 140), WHITE)  # fmt: skip
WAGTAIL = Genus(0.86, 6, 0.40, (1.00, 0.32), 1.45,
                (86, 82, 86), (62, 60, 64), (224, 218, 208), WHITE)  # fmt: skip
SPECIES = (
    Species("Red-capped Inkfinch", FINCH, cap=RED),
    Species("Ringed Inkfinch", FINCH, eye_ring=WHITE, bill_tip=OCHRE),
    Species("Bar-winged Inkfinch", FINCH, wing_bars=2, bill_tip=OCHRE),
    Species("White-capped Quillthrush", THRUSH, wing_bars=0, cap=WHITE),
    Species("Ringed Quillthrush", THRUSH, eye_ring=WHITE),
    Species("Masked Quillthrush", THRUSH, mask=BLACK, bill_tip=OCHRE),
    Species("Black-capped Pencil-tit", TIT, cap=BLACK),
    Species("Two-barred Pencil-tit", TIT, wing_bars=2, cap=RUFOUS),
    Species("Spectacled Chalktail", WAGTAIL, eye_ring=WHITE),
    Species("Ochre-billed Chalktail", WAGTAIL, wing_bars=2, bill_tip=OCHRE),
)


class Scene:
    """Everything in a photo but the species, drawn by chance without knowing it."""

    def __init__(self, seed: Sequence[int]) -> None:
        rng = np.random.default_rng(seed)
        self.size = pick(SIZES, rng)
        self.share = np.exp(rng.uniform(*np.log((0.1, 0.5))))  # of the photo, of the bird's box
        self.place = rng.random(2)  # of the bird's box, 0 to 1: from edge to edge of the photo
        self.faces_left, self.looks_back = rng.random(2) < (0.5, 0.25)
        self.squash = rng.uniform(0.8, 1)  # 1 is a pure side view, less is turned from it
        self.tilt = rng.uniform(-18, 20)  # degrees, as all angles
        self.head_angle = rng.uniform(-28, 28)
        self.wing_lift = max(0.0, rng.uniform(-60, 75))
        self.tail_angle = rng.uniform(-18, 22)
        self.perch, self.perch_slope = pick(WOOD, rng), rng.uniform(-16, 16)
        self.background = pick(tuple(BACKGROUNDS), rng)
        self.branches, self.twigs = rng.integers((10, 3))  # behind the bird, before it
        self.gain = rng.uniform(0.8, 1.18) * rng.uniform(0.88, 1.12, 3)  # brightness of R, G, B
        self.blur = rng.uniform(0, 1.3)  # radius in pixels
        self.noise = rng.uniform(2, 7)  # standard deviation in grey levels
        self.jpeg_quality = int(rng.integers(70, 93))
        self.texture_seed = rng.integers(2**31)


def pick(values: Sequence, rng: np.random.Generator) -> Any:
    """Return one of the values."""
    return values[int(rng.integers(len(values)))]


def mix(first: Colour, second: Colour, share: float) -> Any:
    """Return the colour `share` (0 to 1) of the way from the first to the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


# ---- The bird, from back to front ----------------------------------------------------------------

CIRCLE = np.array([(math.cos(angle), math.sin(angle)) for angle in np.arange(28) * math.pi / 14])


def turn(points: Points, degrees: float, at: Points = (0, 0)) -> np.ndarray:
    """Turn points anticlockwise, then move them by `at`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray(points, float) @ [[cos, sin], [-sin, cos]] + at


def oval(centre: Points, width: float, height: float, degrees: float = 0) -> np.ndarray:
    """Return an ellipse of the given half axes."""
    return turn(CIRCLE * (width, height), degrees, centre)


def feather(root: Points, degrees: float, length: float, width: float) -> np.ndarray:
    """Return a feather, or a leaf, that grows from `root` in the given direction."""
    return oval(turn((length / 2, 0), degrees, root), length / 2, width / 2, degrees)


def draw_bird(species: Species, scene: Scene) -> Image.Image:
    """Return the bird on its perch, a transparent layer (H, W) RGBA."""
    genus, tilt = species.genus, species.genus.posture + scene.tilt
    size = np.array(scene.size) * OVERSAMPLING
    layer = Image.new("RGBA", tuple(size.tolist()))
    low, high = np.array([-1.0 - genus.tail, -0.5 * genus.depth - 0.5]), np.array([1.45, 1.3])
    box = high - low  # around a bird, in half body lengths
    unit = min(math.sqrt(scene.share * size.prod() / box.prod()), *(size / box))  # pixels
    axes = unit * np.array([-scene.squash if scene.faces_left else scene.squash, -1])
    middle = box * unit / 2 + scene.place * (size - box * unit)
    origin = middle - axes * (low + high) / 2

    def fill(points: Points, colour: Colour, edge: Colour | None = None) -> None:
        """Fill a closed shape, with a thin line around it if it has an edge."""
        pixels = np.asarray(points) * axes + origin
        ImageDraw.Draw(layer).polygon(list(map(tuple, pixels.tolist())), colour, edge)

    fill(oval((0, -0.5 * genus.depth - 0.1), 14, 0.16, scene.perch_slope), scene.perch)
    for step in (-1, 1, 0):
        angle = 180 + 0.8 * tilt + scene.tail_angle + 7 * step
        tail = feather(turn((-0.75, 0.02), tilt), angle, genus.tail + 0.2, 0.28)
        fill(tail, mix(genus.wing, BLACK, 0.15 * (step + 1)), BLACK)
    for share in (0, 0.3, 0.65, 1):  # pale below, dark above with a soft border
        trunk = oval((-0.08 * share, 0.2 * share), 1 - 0.12 * share, 0.5 - 0.2 * share)
        fill(turn(trunk * (1, genus.depth), tilt), mix(genus.belly, genus.back, share))
    neck, mirror = turn((0.66, 0.52 * genus.depth), tilt), -1 if scene.looks_back else 1
    for points, colour in head_shapes(species):
        fill(turn(points * genus.head * (mirror, 1), scene.head_angle, neck), colour)
    draw_wing(fill, species, tilt, scene.wing_lift)
    return layer.reduce(OVERSAMPLING)


def head_shapes(species: Species) -> list[tuple[Points, Colour]]:
    """Return bill, head and eye with the marks on them; places are in radii of the head."""
    length, depth = species.genus.bill
    bill = np.array([(0.8, 0.6 * depth), (1 + length, -0.1), (0.8, -0.6 * depth)])
    shapes = [
        (bill, HORN),
        (bill[1] + 0.8 * (bill - bill[1]), species.bill_tip),
        (CIRCLE, species.genus.back),
        (oval((0.25, -0.5), 0.66, 0.45), species.genus.belly),
        (CIRCLE[CIRCLE[:, 1] > 0.4], species.cap),
        (oval((0.3, 0.12), 0.68, 0.24), species.mask),
        (oval((0.42, 0.16), 0.34, 0.34), species.eye_ring),
        (oval((0.42, 0.16), 0.16, 0.16), BLACK),
    ]
    return [(points, colour) for points, colour in shapes if colour]


def draw_wing(fill: Callable, species: Species, tilt: float, lift: float) -> None:
    """Draw primaries, secondaries and coverts; the pale tips of a row are a wing bar."""
    wing, back = species.genus.wing, species.genus.back
    shoulder, along = turn((0.36, 0.24 * species.genus.depth), tilt), 186 + tilt - 0.9 * lift
    rows = ((0.35, 1.3, BLACK, 0.2), (0.15, 0.9, back, 0.2), (0.0, 0.55, back, 0.6))
    for row, (start, length, other, share) in enumerate(rows):
        paint, tips = mix(wing, other, share), []
        for i in range(6):
            root = turn((start, 0.1 - 0.06 * i), along, shoulder)
            angle, size = along + 4 + (1.2 + 0.15 * lift) * (i - 1), length * (1 - 0.07 * i)
            fill(feather(root, angle, size, 0.2), paint, mix(paint, BLACK, 0.5))
            tips.append(turn((size, 0), angle, root))
        for tip in tips if row >= len(rows) - species.wing_bars else ():
            fill(tip + 0.14 * CIRCLE, species.genus.bars)


# ---- Around the bird -----------------------------------------------------------------------------


def draw_branch(photo: Image.Image, near: float, rng: np.random.Generator) -> None:
    """Draw a branch with leaves across a photo; the nearer (0 to 1), the larger."""
    draw = ImageDraw.Draw(photo)
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * photo.size
    ends[:, rng.integers(2)] = (-20, max(photo.size) + 20)  # from edge to edge
    knots = np.linspace(ends[0], ends[1], 9) + rng.normal(0, 10, (9, 2))
    draw.line(list(map(tuple, knots)), pick(WOOD, rng), 1 + round(13 * near**2), "curve")
    for knot in knots[rng.random(len(knots)) < 0.6]:
        length = near * rng.uniform(14, 46)
        leaf = feather(knot, rng.uniform(0, 360), length, length / 2)
        draw.polygon(list(map(tuple, leaf)), pick(LEAVES, rng))


def draw_photo(species: Species, scene: Scene) -> Image.Image:
    """Return a photo, (H, W) RGB; the species decides about nothing but the bird."""
    rng = np.random.default_rng(scene.texture_seed)
    dark, light, patches, grain = BACKGROUNDS[scene.background]
    size, cells = np.array(scene.size[::-1]), np.array(patches[::-1])  # down and across
    share = np.full(size, 0.5, np.float32)  # of the light colour
    for weight, shape in ((0.6, cells + 2), (0.27, 3 * cells + 2), (grain, size // 2)):
        smooth = Image.fromarray(rng.uniform(-1, 1, shape).astype(np.float32))
        share += weight * np.asarray(smooth.resize(scene.size, Image.Resampling.BICUBIC))
    grey = Image.fromarray((255 * np.clip(share, 0, 1)).astype(np.uint8))
    photo = ImageOps.colorize(grey, dark, light)
    for near in sorted(rng.uniform(0.1, 1, scene.branches)):
        draw_branch(photo, near, rng)
    photo = photo.filter(ImageFilter.GaussianBlur(1.3))
    bird = draw_bird(species, scene)
    photo.paste(bird, mask=bird.getchannel("A"))
    for near in rng.uniform(0.4, 1, scene.twigs):
        draw_branch(photo, near, rng)
    # The lens, the light and the sensor's noise.
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(scene.blur))) * scene.gain
    pixels += scene.noise * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# ---- The sample ----------------------------------------------------------------------------------


def draw_photos(folder: Path, numbers: range, seed: int) -> list[Photo]:
    """Draw these photos of every species in mixed order."""
    photos = [(class_id, number) for class_id in range(len(SPECIES)) for number in numbers]
    mixed = np.random.default_rng([seed, numbers.start]).permutation(photos).tolist()
    drawn = []
    for place, (class_id, number) in enumerate(mixed, start=numbers.start * len(SPECIES)):
        path, scene = folder / f"{place:03d}.jpg", Scene([seed, class_id, number])
        draw_photo(SPECIES[class_id], scene).save(path, quality=scene.jpeg_quality)
        drawn.append(Photo(path.name, class_id, path.name, path))
    return drawn


def draw_sample(folder: Path, seed: int = 0) -> None:
    """Draw the sample's two tests into a folder: both train on the same photos, 01 has hidden ones.

    Raises UserError, and leaves nothing, if the folder holds tests, or cannot be written.
    """
    with new_tests(folder) as scratch:
        train, hidden = (draw_photos(scratch, numbers, seed) for numbers in (TRAIN, HIDDEN))
        tests = [Test("00_sketch", train, train), Test("01_hidden", train, hidden)]
        names = {class_id: species.name for class_id, species in enumerate(SPECIES)}
        write_tests(Sample("drawn", tests, names), scratch, folder)
