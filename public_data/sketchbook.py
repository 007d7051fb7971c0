"""Draw the built-in sample: 10 invented bird species, whole scenes, in the course's layout.

python public_data/sketchbook.py OUT [--seed N] [--contact-sheet FILE.png]

The sample stands in for the course's photos on a fresh clone, without a download. As there, a bird
is somewhere in a scene of 500 pixels, and relatives look alike: species of one genus share body
and plumage and differ in small field marks only, such as an eye ring, wing bars or the tip of the
bill. Pose, light, surroundings and occlusion are drawn blind to the species, so colours averaged
over a photo say next to nothing. The same seed gives the same bytes with the same Pillow and NumPy.

How hard it is: `MARK_SIZE` scales all field marks, `BIRD_SHARE` the birds.
"""

import argparse
import csv
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

SIZES = ((500, 375), (500, 333), (500, 400), (500, 375), (375, 500), (333, 500))  # pixels, w and h
BIRD_SHARE = (0.1, 0.5)  # of the photo's area, of the box around a bird
# Field marks, 1: an eye ring a third of the eye. Smaller ones make relatives harder to tell apart,
# first for who looks at the whole photo only; larger ones are easy at a glance.
MARK_SIZE = 1.0
OVERSAMPLING = 2  # shapes are drawn this much larger, then averaged down: smooth edges
TRAIN_PER_SPECIES, HIDDEN_PER_SPECIES = 16, 10
SHEET_COLUMNS, SHEET_CELL = 7, 240  # photos of each species on the contact sheet; pixels
TARGETS = ("00_sketch_input", "00_sketch_gt", "01_hidden_input", "01_hidden_gt", "species.csv")

Colour = tuple[int, int, int]
Points = np.ndarray  # (n, 2): x forward, y up, about 1 = half a body length

# ------------------------------------------------------------------------------------------------
# Genera and species
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Genus:
    """What species of one genus share: body shape (in half body lengths) and plumage."""

    name: str
    depth: float  # of the body
    posture: float  # degrees the body stands above the horizontal
    head: float  # radius
    bill: tuple[float, float]  # length, depth
    tail: tuple[float, float]  # length, width
    legs: float  # length
    back: Colour
    wing: Colour
    belly: Colour
    breast: tuple[str, Colour]  # plain, spots or streaks
    bill_colour: Colour

    def extent(self) -> Points:
        """Return the lower rear and the upper front corner of the box around the bird: (2, 2)."""
        cos, sin = math.cos(math.radians(self.posture)), math.sin(math.radians(self.posture))
        low = (-1.15 - self.tail[0] * cos, -0.56 * self.depth - self.legs)
        return np.array([low, (1.45, 0.66 * sin + 0.62 * self.depth * cos + self.head)])


@dataclass(frozen=True)
class Species:
    """A species: a genus and the field marks by which it is told from its relatives."""

    name: str
    genus: Genus
    crown: tuple[str, Colour]  # plain, cap, brow or mask
    eye_ring: Colour | None
    throat: Colour | None
    wing_bars: tuple[int, Colour]  # how many
    bill_tip: Colour | None


BLACK, WHITE, HORN, BUFF = (34, 32, 36), (240, 238, 232), (92, 84, 80), (226, 206, 168)
RED, RUFOUS, OCHRE, UMBER = (186, 62, 50), (178, 100, 54), (214, 160, 58), (84, 62, 48)

FINCH = Genus("inkfinch", 1.12, 22, 0.47, (0.40, 0.40), (0.95, 0.34), 0.42,
              (128, 100, 74), (92, 72, 56), (206, 188, 156), ("streaks", UMBER), HORN)  # fmt: skip
THRUSH = Genus("quillthrush", 1.02, 38, 0.42, (0.46, 0.17), (1.05, 0.36), 0.72,
               (98, 108, 122), (72, 80, 94), (212, 208, 198), ("spots", BLACK), HORN)  # fmt: skip
TIT = Genus("pencil-tit", 1.25, 12, 0.58, (0.24, 0.19), (1.15, 0.22), 0.46,
            (122, 132, 80), (88, 98, 68), (220, 206, 140), ("plain", BLACK), HORN)  # fmt: skip
WAGTAIL = Genus("chalktail", 0.86, 6, 0.40, (0.40, 0.13), (1.45, 0.26), 0.66,
                (86, 82, 86), (62, 60, 64), (224, 218, 208), ("plain", BLACK), BLACK)  # fmt: skip

SPECIES = (
    Species("Red-fronted Inkfinch", FINCH, ("cap", RED), None, None, (1, BUFF), None),
    Species("Ringed Inkfinch", FINCH, ("plain", RED), WHITE, None, (1, BUFF), OCHRE),
    Species("Bar-winged Inkfinch", FINCH, ("plain", RED), None, None, (2, BUFF), OCHRE),
    Species("Pale-browed Quillthrush", THRUSH, ("brow", WHITE), None, None, (0, RUFOUS), None),
    Species("Ringed Quillthrush", THRUSH, ("plain", WHITE), WHITE, None, (1, RUFOUS), None),
    Species("Masked Quillthrush", THRUSH, ("mask", BLACK), None, None, (1, RUFOUS), OCHRE),
    Species("Black-throated Pencil-tit", TIT, ("cap", BLACK), None, BLACK, (1, WHITE), None),
    Species("Two-barred Pencil-tit", TIT, ("cap", BLACK), None, None, (2, WHITE), None),
    Species("Spectacled Chalktail", WAGTAIL, ("plain", BLACK), WHITE, None, (1, WHITE), None),
    Species("Ochre-billed Chalktail", WAGTAIL, ("plain", BLACK), None, None, (1, WHITE), OCHRE),
)

# ------------------------------------------------------------------------------------------------
# Pose and scene: every chance of a photo, drawn without knowing the species
# ------------------------------------------------------------------------------------------------

# name: dark colour, light colour, patches across and down, grain (0 to 1), darkening downwards
BACKGROUNDS = {
    "sky": ((120, 160, 206), (226, 236, 244), (2, 4), 0.02, -0.2),
    "dusk": ((92, 74, 104), (236, 172, 126), (2, 5), 0.02, 0.5),
    "foliage": ((34, 62, 30), (140, 172, 84), (11, 11), 0.10, 0.1),
    "autumn": ((88, 52, 24), (214, 156, 70), (10, 10), 0.10, 0.1),
    "reeds": ((96, 98, 52), (206, 196, 128), (30, 3), 0.10, 0.2),
    "water": ((44, 82, 106), (150, 184, 192), (4, 26), 0.06, 0.3),
    "bark": ((66, 50, 40), (150, 124, 102), (22, 4), 0.22, 0.0),
    "sand": ((176, 150, 110), (226, 206, 166), (5, 9), 0.25, 0.1),
    "snow": ((176, 186, 204), (246, 248, 250), (4, 4), 0.06, 0.1),
    "stone": ((82, 82, 84), (170, 166, 158), (9, 9), 0.30, 0.0),
}
PERCHES = ((94, 74, 56), (72, 62, 56), (142, 120, 92), (104, 104, 100))
LEAVES = ((70, 110, 46), (116, 140, 58), (48, 84, 52), (176, 126, 48), (142, 74, 44))


@dataclass(frozen=True)
class Pose:
    """How the bird sits, and where in the photo; angles in degrees."""

    photo: tuple[int, int]  # pixels, width and height
    faces_left: bool
    squash: float  # 1 is a pure side view, less is turned towards or from the viewer
    tilt: float
    head_angle: float
    looks_back: bool
    wing_lift: float  # 0 is folded
    tail_angle: float
    tail_spread: float
    share: float  # of the photo's area, of the box around the bird
    place: tuple[float, float]  # of that box, 0 to 1: from one edge of the photo to the other


@dataclass(frozen=True)
class Scene:
    """Everything else in a photo."""

    background: str
    ground: str  # the background below the horizon
    horizon: float  # part of the photo's height that is above it
    branches: int  # out of focus, behind the bird
    berries: int  # among them, in the colours of field marks
    perch: Colour
    perch_width: float  # half body lengths
    perch_slope: float  # degrees
    twigs: int  # in front of the bird
    leaves: int  # on each of them
    dapple: float  # depth of the shadows that fall on the scene, 0 to 1
    light_angle: float  # degrees from overhead
    gain: tuple[float, float, float]  # brightness and colour cast, a factor a channel
    contrast: float
    plumage: float  # paler or darker bird, a factor
    wear: float  # how far the field marks have faded, 0 to 1
    blur: float  # radius in pixels
    noise: float  # standard deviation in grey levels
    jpeg_quality: int
    texture_seed: int


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose; in two birds of three the wing lies on the body."""
    low, high = BIRD_SHARE
    return Pose(
        photo=SIZES[rng.integers(len(SIZES))],
        faces_left=bool(rng.random() < 0.5),
        squash=rng.uniform(0.80, 1.0),
        tilt=rng.uniform(-18, 20),
        head_angle=rng.uniform(-28, 28),
        looks_back=bool(rng.random() < 0.25),
        wing_lift=float(rng.choice([0.0, rng.uniform(0, 12), rng.uniform(12, 75)])),
        tail_angle=rng.uniform(-18, 22),
        tail_spread=rng.uniform(0.0, 1.0),
        share=low * (high / low) ** rng.random(),
        place=(rng.random(), rng.random()),
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw surroundings, perch, light, lens and occlusion."""
    brightness = rng.uniform(0.8, 1.18)
    red, green, blue = brightness * rng.uniform(0.88, 1.12, 3)
    return Scene(
        background=str(rng.choice(list(BACKGROUNDS))),
        ground=str(rng.choice(list(BACKGROUNDS))),
        horizon=rng.uniform(0.3, 1.6),
        branches=int(rng.integers(0, 9)),
        berries=int(rng.integers(0, 12)),
        perch=PERCHES[rng.integers(len(PERCHES))],
        perch_width=rng.uniform(0.16, 0.50),
        perch_slope=rng.uniform(-16, 16),
        twigs=int(rng.choice([0, 1, 1, 2])),
        leaves=int(rng.integers(1, 6)),
        dapple=rng.uniform(0.0, 0.4),
        light_angle=rng.uniform(-50, 50),
        gain=(red, green, blue),
        contrast=rng.uniform(0.8, 1.2),
        plumage=rng.uniform(0.85, 1.12),
        wear=rng.uniform(0.0, 0.15),
        blur=rng.uniform(0.0, 1.3),
        noise=rng.uniform(2, 7),
        jpeg_quality=int(rng.integers(70, 93)),
        texture_seed=int(rng.integers(2**31)),
    )


# ------------------------------------------------------------------------------------------------
# Shapes
# ------------------------------------------------------------------------------------------------


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` (0 to 1) of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def turn(points: Sequence | Points, degrees: float, at: Sequence | Points = (0, 0)) -> Points:
    """Turn points (n, 2), or one point (2,), anticlockwise, then move them by `at`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray(points, float) @ [[cos, sin], [-sin, cos]] + at


def smooth(corners: Sequence | Points, steps: int = 8) -> Points:
    """Return the closed Catmull-Rom curve through corners: (n, 2) -> (n * steps, 2)."""
    p1 = np.asarray(corners, float)[:, None]  # (n, 1, 2)
    p0, p2, p3 = (np.roll(p1, shift, axis=0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]  # (1, steps, 1)
    cubic = (3 * (p1 - p2) + p3 - p0) * t**3 + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
    return ((cubic + (p2 - p0) * t) / 2 + p1).reshape(-1, 2)


CIRCLE = np.array([(math.cos(angle), math.sin(angle)) for angle in np.arange(28) * math.pi / 14])
FEATHER = smooth(
    [(0, -0.17), (0.5, -0.5), (0.9, -0.38), (1, 0), (0.9, 0.38), (0.5, 0.5), (0, 0.17)], steps=5
)


def oval(centre: Sequence | Points, width: float, height: float, degrees: float = 0) -> Points:
    """Return an ellipse of the given half axes."""
    return turn(CIRCLE * (width, height), degrees, centre)


def feather(root: Sequence | Points, degrees: float, length: float, width: float) -> Points:
    """Return a feather that grows from `root` in the given direction, rounded at its tip."""
    return turn(FEATHER * (length, width), degrees, root)


class Canvas:
    """A transparent, oversampled layer that takes shapes in the bird's coordinates."""

    def __init__(self, genus: Genus, pose: Pose) -> None:
        photo, extent = np.array(pose.photo) * OVERSAMPLING, genus.extent()
        box = np.ptp(extent, axis=0)  # half body lengths
        self.unit = min(math.sqrt(pose.share * photo.prod() / box.prod()), *(photo / box))  # pixels
        self.layer = Image.new("RGBA", tuple(photo.tolist()))
        self.axes = self.unit * np.array([-pose.squash if pose.faces_left else pose.squash, -1])
        middle = box * self.unit / 2 + np.array(pose.place) * (photo - box * self.unit)
        self.origin = middle - self.axes * extent.mean(axis=0)
        self._draw = ImageDraw.Draw(self.layer)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Return points (n, 2) as pixels of the layer."""
        return [(x, y) for x, y in (np.asarray(points) * self.axes + self.origin).tolist()]

    def fill(self, points: Points, colour: Colour, edge: Colour | None = None) -> None:
        """Fill a closed shape, with a thin line around it if it has an edge."""
        self._draw.polygon(self.pixels(points), colour, edge)

    def line(self, points: Sequence | Points, colour: Colour, width: float) -> None:
        """Draw a line of the given width in half body lengths."""
        pixels = max(1, round(width * self.unit))
        self._draw.line(self.pixels(np.asarray(points)), colour, pixels, joint="curve")

    def mask(self, *shapes: Points) -> Image.Image:
        """Return the union of closed shapes as a mask."""
        mask = Image.new("L", self.layer.size)
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            draw.polygon(self.pixels(shape), fill=255)
        return mask

    def fill_inside(self, within: Image.Image, colour: Colour, *shapes: Points) -> None:
        """Fill closed shapes, clipped to the mask `within`."""
        mask = self.mask(*shapes)
        if box := mask.getbbox():
            mask = ImageChops.multiply(mask.crop(box), within.crop(box))
            self.layer.paste(colour, box, mask)

    def photo_layer(self) -> Image.Image:
        """Return the layer averaged down to the photo's size."""
        return self.layer.reduce(OVERSAMPLING)


# ------------------------------------------------------------------------------------------------
# The bird, from back to front
# ------------------------------------------------------------------------------------------------


def draw_perch(canvas: Canvas, scene: Scene, ground: float, rng: np.random.Generator) -> None:
    """Draw a knotty branch across the photo whose upper side, at `ground`, is under the feet."""
    along, knots = np.linspace(-5, 13, 21), rng.uniform(0.75, 1.15, 21)
    for paint, top, bottom in (
        (mix(scene.perch, BLACK, 0.45), 0.0, 1.0),
        (scene.perch, 0.05, 0.75),
        (mix(scene.perch, WHITE, 0.25), 0.12, 0.30),
    ):
        upper = np.stack([along, np.full(21, -scene.perch_width * top)], axis=1)
        lower = np.stack([along, -scene.perch_width * bottom * knots], axis=1)[::-1]
        canvas.fill(turn(np.concatenate([upper, lower]), scene.perch_slope, (0, ground)), paint)


def draw_tail(canvas: Canvas, genus: Genus, pose: Pose, tilt: float) -> None:
    """Draw five feathers."""
    length, width = genus.tail
    root = turn((-0.82, 0.04), tilt)
    for step in (-2, 2, -1, 1, 0):
        angle = 180 + tilt * 0.8 + pose.tail_angle + step * (1.5 + 6 * pose.tail_spread)
        start = turn((0, step * width * 0.13), angle, root)
        size = length + 0.19 + 0.03 * abs(step)
        paint = mix(genus.wing, BLACK, 0.08 * (step + 2))
        canvas.fill(feather(start, angle, size, width * 0.6), paint, BLACK)


def draw_legs(canvas: Canvas, genus: Genus, tilt: float, ground: float) -> None:
    """Draw two legs from the belly to the perch at height `ground`, with toes."""
    for hip, foot, colour in ((-0.02, -0.16, (92, 72, 62)), (0.2, 0.12, (128, 100, 84))):
        top = turn((hip, -0.42 * genus.depth), tilt)
        knee = (foot - 0.07, (top[1] + ground) / 2)
        canvas.line([top, knee, (foot, ground)], colour, 0.07)
        for toe in (-0.12, 0.1, 0.19):
            canvas.line([(foot, ground + 0.02), (foot + toe, ground - 0.05)], colour, 0.05)


def draw_trunk(canvas: Canvas, genus: Genus, tilt: float, rng: np.random.Generator) -> None:
    """Draw the trunk: pale below, dark above with a soft border, barbs, the breast's pattern."""
    d = genus.depth
    corners = [(-1.05, 0.10), (-0.55, 0.36 * d), (0.0, 0.52 * d), (0.45, 0.60 * d),
               (0.78, 0.50 * d), (0.93, 0.12 * d), (0.80, -0.28 * d), (0.35, -0.58 * d),
               (-0.2, -0.56 * d), (-0.7, -0.30 * d), (-1.05, -0.10)]  # fmt: skip
    outline = turn(smooth(corners), tilt)
    inside = canvas.mask(outline)
    canvas.fill(outline, genus.belly)
    back = smooth([(-1.3, -0.25), (-0.5, -0.24 * d), (0.2, -0.10 * d), (0.65, 0.18 * d),
                   (1.0, 0.8 * d), (0.2, 1.0 * d), (-1.3, 0.6)])  # fmt: skip
    for step, share in enumerate((0.3, 0.65, 1.0)):
        raised = turn((0, 0.07 * step), tilt)
        canvas.fill_inside(inside, mix(genus.belly, genus.back, share), turn(back, tilt, raised))
    barbs = turn(rng.uniform((-1, -0.6 * d), (0.9, 0.1), (40, 2)), tilt)
    shapes = [feather(root, 190 + tilt, 0.16, 0.03) for root in barbs]
    canvas.fill_inside(inside, mix(genus.belly, genus.back, 0.3), *shapes)
    pattern, colour = genus.breast
    shapes = [turn(shape, tilt) for shape in breast_pattern(pattern, d, rng)]
    canvas.fill_inside(inside, colour, *shapes)


def breast_pattern(pattern: str, depth: float, rng: np.random.Generator) -> list[Points]:
    """Return the shapes of a pattern on a trunk of the given depth."""
    if pattern == "plain":
        return []
    width, height, slope = (0.055, 0.045, 0) if pattern == "spots" else (0.11, 0.025, 65)
    rows = [(x, y) for x in np.arange(-0.35, 1.0, 0.17) for y in np.arange(-0.6, 0.3, 0.14)]
    roots = np.array(rows) * (1, depth) + rng.normal(0, 0.025, (len(rows), 2))
    return [oval(root, width, height, slope) for root in roots]


EYE = 0.09  # radius in half body lengths
HEAD = smooth([(-1.0, 0.0), (-0.72, 0.72), (0.0, 0.98), (0.68, 0.70), (1.02, 0.0), (0.72, -0.66),
               (0.0, -1.0), (-0.72, -0.72)])  # fmt: skip
CROWNS = {  # in radii of the head, bill to the right
    "cap": smooth([(1.1, 0.45), (0.4, 0.55), (-0.4, 0.5), (-0.8, 0.6), (-0.6, 1.3), (0.6, 1.3)]),
    "brow": smooth([(1.1, 0.36), (0.5, 0.44), (-0.2, 0.42), (-0.9, 0.15), (-0.95, 0.32),
                    (-0.2, 0.62), (0.6, 0.62)]),
    "mask": smooth([(1.2, 0.12), (0.5, 0.34), (-0.2, 0.30), (-0.9, 0.1), (-0.85, -0.2),
                    (-0.2, -0.12), (0.5, -0.1), (1.2, -0.08)]),
}  # fmt: skip


def marked(shape: Points) -> Points:
    """Return the shape of a field mark, scaled about its middle."""
    middle = shape.mean(axis=0)
    return middle + MARK_SIZE * (shape - middle)


def draw_head(canvas: Canvas, species: Species, neck: Points, pose: Pose) -> None:
    """Draw bill, head and eye with the marks on them."""
    genus, r = species.genus, species.genus.head
    mark, colour = species.crown

    def place(points: Sequence | Points) -> Points:
        mirror = (-1, 1) if pose.looks_back else (1, 1)
        return turn(np.asarray(points) * mirror, pose.head_angle, neck)

    draw_bill(canvas, species, place)
    inside = canvas.mask(place(HEAD * r))
    canvas.fill(place(HEAD * r), genus.back)
    canvas.fill_inside(inside, genus.belly, place(oval((0.35 * r, -0.72 * r), 0.8 * r, 0.55 * r)))
    if mark != "plain":
        canvas.fill_inside(inside, colour, place(marked(CROWNS[mark]) * r))
    if species.throat:
        throat = oval((0.62 * r, -0.58 * r), 0.34 * r, 0.26 * r, 40)
        canvas.fill_inside(inside, species.throat, place(marked(throat)))
    eye = place((0.42 * r, 0.16 * r))
    if species.eye_ring:
        canvas.fill(oval(eye, *[EYE * (1 + MARK_SIZE / 3)] * 2), species.eye_ring)
    canvas.fill(oval(eye, EYE, EYE), (20, 16, 16))
    canvas.fill(oval(np.add(eye, (0.025, 0.03)), 0.025, 0.025), WHITE)


def draw_bill(canvas: Canvas, species: Species, place: Callable[[list], Points]) -> None:
    """Draw the two halves of the bill, and its tip over them."""
    r, (length, depth), colour = species.genus.head, species.genus.bill, species.genus.bill_colour
    base, tip = (0.7 * r, -0.05), (r + length, -0.05)
    upper, lower = (r + length * 0.45, depth * 0.36), (r + length * 0.4, -depth * 0.5)
    canvas.fill(place([(0.7 * r, depth * 0.55), upper, tip, base]), colour)
    canvas.fill(place([tip, lower, (0.7 * r, -depth * 0.6), base]), mix(colour, BLACK, 0.3))
    if species.bill_tip:
        outline = np.array([upper, tip, lower])
        canvas.fill(place(tip + min(1, MARK_SIZE) * (outline - tip)), species.bill_tip)


def draw_wing(canvas: Canvas, species: Species, tilt: float, lift: float, shade: float) -> None:
    """Draw primaries, secondaries and coverts; the tips of a row of coverts are a wing bar."""
    (bars, colour), wing, back = species.wing_bars, species.genus.wing, species.genus.back
    shoulder = turn((0.36, 0.24 * species.genus.depth), tilt)
    along = 186 + tilt - lift * 0.9
    for start, length, paint, barred in (
        (0.45, 1.35, mix(wing, BLACK, 0.2), False),
        (0.25, 1.02, wing, False),
        (0.05, 0.74, mix(wing, back, 0.4), bars >= 1),
        (-0.02, 0.46, mix(wing, back, 0.7), bars >= 2),
    ):
        tips = []
        for i in range(6):
            root = turn((start, 0.10 - 0.057 * i), along, shoulder)
            angle, size = along + 4 + (1.2 + 0.15 * lift) * (i - 1), length * (1 - 0.07 * i)
            edge = mix(paint, BLACK, 0.5 + shade)
            canvas.fill(feather(root, angle, size, 0.19), mix(paint, BLACK, shade), edge)
            tips.append(turn((size, 0), angle, root))
        for tip in tips if barred else ():
            radius = 0.07 * MARK_SIZE
            canvas.fill(oval(tip, radius, radius), mix(colour, BLACK, shade))
    canvas.fill(oval(shoulder, 0.27, 0.20, along), back)


def worn(species: Species, wear: float) -> Species:
    """Return the species with field marks faded towards the colours around them."""
    genus = species.genus

    def fade(mark: Colour | None, ground: Colour) -> Colour | None:
        return mark and mix(mark, ground, wear)

    return replace(
        species,
        crown=(species.crown[0], fade(species.crown[1], genus.back)),
        eye_ring=fade(species.eye_ring, genus.back),
        throat=fade(species.throat, genus.belly),
        wing_bars=(species.wing_bars[0], fade(species.wing_bars[1], genus.wing)),
        bill_tip=fade(species.bill_tip, genus.bill_colour),
    )


def draw_bird(species: Species, pose: Pose, scene: Scene) -> Image.Image:
    """Return the bird on its perch, a transparent layer (H, W) RGBA, shaded as round."""
    rng = np.random.default_rng(scene.texture_seed)
    species = worn(species, scene.wear)
    genus, tilt = species.genus, species.genus.posture + pose.tilt
    canvas, ground = Canvas(genus, pose), -0.56 * genus.depth - genus.legs
    draw_perch(canvas, scene, ground, rng)
    if pose.wing_lift > 12:
        draw_wing(canvas, species, tilt + 12, pose.wing_lift + 10, shade=0.25)
    draw_tail(canvas, genus, pose, tilt)
    draw_legs(canvas, genus, tilt, ground)
    draw_trunk(canvas, genus, tilt, rng)
    draw_head(canvas, species, turn((0.66, 0.62 * genus.depth), tilt), pose)
    draw_wing(canvas, species, tilt, pose.wing_lift, shade=0.0)
    return shaded(canvas.photo_layer(), scene)


def shaded(bird: Image.Image, scene: Scene) -> Image.Image:
    """Light a flat bird as if it were round: its blurred outline serves as its relief."""
    small = bird.getchannel("A").reduce(4).filter(ImageFilter.GaussianBlur(1.6))
    relief = small.resize(bird.size, Image.Resampling.BICUBIC)
    down, right = np.gradient(np.asarray(relief, np.float32) / 255)
    angle = math.radians(scene.light_angle)
    light = 1 + 6.0 * (down * math.cos(angle) + right * math.sin(angle))  # (H, W)
    pixels = np.asarray(bird, np.float32).copy()  # (H, W, 4)
    pixels[..., :3] *= (scene.plumage * np.clip(light, 0.62, 1.28))[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# ------------------------------------------------------------------------------------------------
# Around the bird
# ------------------------------------------------------------------------------------------------


def value_noise(
    rng: np.random.Generator, size: tuple[int, int], across: int, down: int
) -> np.ndarray:
    """Return smooth random patches (H, W), -1 to 1, so many across and down."""
    cells = Image.fromarray(rng.uniform(-1, 1, (down, across)).astype(np.float32))
    return np.asarray(cells.resize(size, Image.Resampling.BICUBIC))


def draw_background(name: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a background out of focus, (H, W) RGB."""
    dark, light, (across, down), grain, darkening = BACKGROUNDS[name]
    share = 0.5 + 0.6 * value_noise(rng, size, across + 2, down + 2)
    share += 0.27 * value_noise(rng, size, 3 * across + 2, 3 * down + 2)
    share += grain * value_noise(rng, size, size[0] // 2, size[1] // 2)
    share -= darkening * np.linspace(-0.5, 0.5, size[1], dtype=np.float32)[:, None]
    low, high = (np.array(colour, np.float32) for colour in (dark, light))
    pixels = low + np.clip(share, 0, 1)[..., None] * (high - low)
    return Image.fromarray(pixels.astype(np.uint8))


def draw_surroundings(size: tuple[int, int], scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Return what is behind the bird, (H, W) RGB: two backgrounds, branches, leaves, berries."""
    width, height = size
    photo = draw_background(scene.background, size, rng)
    if scene.horizon < 1:
        ground = draw_background(scene.ground, size, rng)
        shore = scene.horizon * height + 0.04 * height * value_noise(rng, (width, 1), 7, 1)[0]
        below = np.arange(height)[:, None] > shore  # (H, W)
        photo.paste(ground, mask=Image.fromarray(below.astype(np.uint8) * 255))
    for _ in range(scene.branches):
        photo = with_branch(photo, scene, rng)
    return photo.filter(ImageFilter.GaussianBlur(0.6))


def with_branch(photo: Image.Image, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a branch with leaves across a photo; the farther away, the thinner and paler."""
    draw, near = ImageDraw.Draw(photo), rng.uniform(0.1, 1)
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * photo.size
    ends[:, rng.integers(2)] = (-20, max(photo.size) + 20)  # from edge to edge
    knots = ends[0] + np.linspace(0, 1, 9)[:, None] * (ends[1] - ends[0])
    knots += rng.normal(0, 10, knots.shape)
    colour = mix(PERCHES[rng.integers(len(PERCHES))], (128, 128, 120), 0.5 * (1 - near))
    draw.line(list(map(tuple, knots)), colour, 1 + round(13 * near**2), "curve")
    for knot in knots[rng.random(len(knots)) < 0.6]:
        colour, length = LEAVES[rng.integers(len(LEAVES))], rng.uniform(14, 46) * near
        shape = feather(knot, rng.uniform(0, 360), length, length / 2)
        draw.polygon(list(map(tuple, shape)), mix(colour, BLACK, 0.3))
    for spot in knots[rng.random(len(knots)) < scene.berries / 40]:
        colour, radius = (RED, WHITE, OCHRE, BLACK)[rng.integers(4)], rng.uniform(2, 7) * near
        draw.polygon(list(map(tuple, oval(spot, radius, radius))), colour)
    return photo.filter(ImageFilter.GaussianBlur(2 * (1 - near))) if near < 0.5 else photo


def draw_twigs(genus: Genus, pose: Pose, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Return the twigs and their leaves in front of the bird, (H, W) RGBA."""
    canvas = Canvas(genus, pose)
    for _ in range(scene.twigs):
        start, slope = rng.uniform((-1.9, -1.3), (1.3, 1.1)), rng.uniform(-90, 90)
        twig = turn([(-5, 0), (0, 0.1), (5, -0.1)], slope, start)
        canvas.line(twig, mix(scene.perch, BLACK, 0.2), rng.uniform(0.05, 0.12))
        for along in rng.uniform(-2, 2, scene.leaves):
            root, angle = turn((along, 0.05), slope, start), slope + rng.uniform(-70, 70)
            length, colour = rng.uniform(0.4, 0.85), LEAVES[rng.integers(len(LEAVES))]
            canvas.fill(feather(root, angle, length, length / 2), colour, mix(colour, BLACK, 0.3))
            rib = turn([(0, 0), (length * 0.95, 0)], angle, root)
            canvas.line(rib, mix(colour, WHITE, 0.3), 0.025)
    return canvas.photo_layer()


def develop(photo: Image.Image, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Apply the lens, the light and the sensor's noise."""
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(scene.blur)), np.float32)
    shadow = np.clip(0.4 + 1.4 * value_noise(rng, photo.size, 6, 6), 0, 1)[..., None]  # (H, W, 1)
    pixels = pixels * (1 - scene.dapple * shadow)
    pixels = ((pixels - 118) * scene.contrast + 118) * np.array(scene.gain, np.float32)
    pixels += scene.noise * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_photo(species: Species, pose: Pose, scene: Scene) -> Image.Image:
    """Return a photo, (H, W) RGB; the species decides about nothing but the bird."""
    rng = np.random.default_rng(scene.texture_seed)
    photo = draw_surroundings(pose.photo, scene, rng)
    bird = draw_bird(species, pose, scene)
    for layer in (bird, draw_twigs(species.genus, pose, scene, rng)):
        photo.paste(layer, mask=layer.getchannel("A"))
    return develop(photo, scene, rng)


# ------------------------------------------------------------------------------------------------
# The sample
# ------------------------------------------------------------------------------------------------


class SampleError(Exception):
    """An error the user can mend, told in one line."""


def photo_of(class_id: int, number: int, seed: int) -> tuple[Image.Image, int]:
    """Return photo `number` (from 0) of a species, (H, W) RGB, and its JPEG quality."""
    rng = np.random.default_rng([seed, class_id, number])
    pose, scene = random_pose(rng), random_scene(rng)
    return draw_photo(SPECIES[class_id], pose, scene), scene.jpeg_quality


def draw_photos(images: Path, numbers: range, seed: int) -> dict[str, int]:
    """Draw these photos of every species in mixed order; return class ids by file name."""
    images.mkdir(parents=True)
    photos = [(class_id, number) for class_id in range(len(SPECIES)) for number in numbers]
    order = np.random.default_rng([seed, len(SPECIES), numbers.start]).permutation(len(photos))
    labels = {}
    for place, index in enumerate(order, start=numbers.start * len(SPECIES)):
        photo, quality = photo_of(*photos[index], seed)
        photo.save(images / f"{place:03d}.jpg", quality=quality)
        labels[f"{place:03d}.jpg"] = photos[index][0]
    return labels


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a csv file, and make the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def link_photos(source: Path, target: Path) -> None:
    """Put the same photos into a second folder: hard links, or copies where there are none."""
    target.mkdir(parents=True)
    for photo in source.iterdir():
        try:
            os.link(photo, target / photo.name)
        except OSError:
            shutil.copyfile(photo, target / photo.name)


def write_sample(folder: Path, seed: int) -> None:
    """Draw all photos and write the two tests and species.csv into an empty folder."""
    public, hidden = folder / "00_sketch_input", folder / "01_hidden_input"
    train = draw_photos(public / "train/images", range(TRAIN_PER_SPECIES), seed)
    numbers = range(TRAIN_PER_SPECIES, TRAIN_PER_SPECIES + HIDDEN_PER_SPECIES)
    test = draw_photos(hidden / "test/images", numbers, seed)
    link_photos(public / "train/images", public / "test/images")
    link_photos(public / "train/images", hidden / "train/images")
    for labelled in (public / "train", hidden / "train", folder / "00_sketch_gt"):
        write_csv(labelled / "gt.csv", ("filename", "class_id"), train.items())
    write_csv(folder / "01_hidden_gt/gt.csv", ("filename", "class_id"), test.items())
    names = enumerate(species.name for species in SPECIES)
    write_csv(folder / "species.csv", ("class_id", "name"), names)


def draw_sample(folder: Path, seed: int = 0) -> None:
    """Draw the sample's two tests into `folder`, which is made if it is not there.

    Test 00 has the same photos for training and testing; test 01 trains on them and has hidden
    photos. Raises SampleError if the folder holds a sample already or the seed is
    negative, OSError if a file cannot be written; in both cases no part of a sample is left.
    """
    if seed < 0:
        raise SampleError(f"the seed is {seed}; give a whole number from 0")
    folder.mkdir(parents=True, exist_ok=True)
    for name in TARGETS:
        if (folder / name).exists():
            raise SampleError(f"{folder / name} is already there; delete it or name a new folder")
    with tempfile.TemporaryDirectory(prefix=".sketchbook-", dir=folder) as unfinished:
        write_sample(Path(unfinished), seed)
        for name in TARGETS:
            (Path(unfinished) / name).replace(folder / name)


def save_contact_sheet(path: Path, seed: int = 0) -> None:
    """Write a PNG with a labelled row of photos for every species, for a person to look at."""
    margin, cell = 280, SHEET_CELL
    sheet = Image.new("RGB", (margin + SHEET_COLUMNS * cell, len(SPECIES) * cell), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for class_id, species in enumerate(SPECIES):
        top = class_id * cell
        draw.text((12, top + cell // 2), f"{class_id} {species.name}", BLACK, font, "lm")
        for number in range(SHEET_COLUMNS):
            photo = photo_of(class_id, number, seed)[0]
            photo.thumbnail((cell, cell))
            sheet.paste(photo, (margin + number * cell, top))
    unfinished = path.with_name(path.name + ".part")
    sheet.save(unfinished, "PNG")
    unfinished.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Draw the built-in sample of 10 bird species.")
    parser.add_argument("out", type=Path, help="folder for the two tests and species.csv")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other photos")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="also an overview")
    options = parser.parse_args(arguments)
    try:
        draw_sample(options.out, options.seed)
        print(f"Wrote the photos of {len(SPECIES)} species to {options.out}")
        if options.contact_sheet:
            save_contact_sheet(options.contact_sheet, options.seed)
            print(f"Wrote {options.contact_sheet}")
    except (SampleError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
