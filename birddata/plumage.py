"""The birds of the built-in sample: genera, species, and how they are drawn on a photo."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

# Field marks; at 1 an eye ring is a third as wide as the eye. Smaller ones make relatives harder to
# tell apart, first for who looks at the whole photo only; larger ones are easy at a glance.
# To tune: train on the sample, then compare both looks with the first alone on test 01. With 16
# photos a species both looks had 0.86 of 100 photos right at 1.4, and 0.93 at 2.0.
MARK_SIZE = 2.0
OVERSAMPLING = 2  # shapes are drawn this much larger, then averaged down: smooth edges

Colour = tuple[int, int, int]
Points = np.ndarray  # (n, 2): x forward, y up, about 1 = half a body length

# ---- Genera and species --------------------------------------------------------------------------


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
    Species("Ochre-billed Chalktail", WAGTAIL, ("plain", BLACK), None, None, (2, WHITE), OCHRE),
)

# ---- Pose and scene: every chance of a photo, drawn without knowing the species ------------------

SIZES = ((500, 375), (500, 333), (500, 400), (500, 375), (375, 500), (333, 500))  # pixels, w and h
BIRD_SHARE = (0.1, 0.5)  # of the photo's area, of the box around a bird
PERCHES = ((94, 74, 56), (72, 62, 56), (142, 120, 92), (104, 104, 100))
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


def chance(draw: Callable[[np.random.Generator], Any]) -> Any:
    """Return a field that is drawn for each photo."""
    return field(metadata={"draw": draw})


def one_of(values: Sequence) -> Any:
    """Return a field that is one of the values."""
    return chance(lambda rng: values[rng.integers(len(values))])


def between(low: float, high: float) -> Any:
    """Return a field that is evenly distributed; whole numbers for whole limits, `high` not."""
    whole = isinstance(low, int) and isinstance(high, int)
    return chance(lambda rng: int(rng.integers(low, high)) if whole else rng.uniform(low, high))


T = TypeVar("T")


def drawn(kind: type[T], rng: np.random.Generator) -> T:
    """Return a Pose or a Scene, its fields drawn in order."""
    return kind(**{chances.name: chances.metadata["draw"](rng) for chances in fields(kind)})


@dataclass(frozen=True)
class Pose:
    """How the bird sits, and where in the photo; angles in degrees."""

    photo: tuple[int, int] = one_of(SIZES)  # pixels, width and height
    faces_left: bool = chance(lambda rng: bool(rng.random() < 0.5))
    squash: float = between(0.80, 1.0)  # 1 is a pure side view, less is turned from it
    tilt: float = between(-18.0, 20.0)
    head_angle: float = between(-28.0, 28.0)
    looks_back: bool = chance(lambda rng: bool(rng.random() < 0.25))
    wing_lift: float = chance(  # 0 is folded; in two birds of three the wing lies on the body
        lambda rng: float(rng.choice([0.0, rng.uniform(0, 12), rng.uniform(12, 75)]))
    )
    tail_angle: float = between(-18.0, 22.0)
    tail_spread: float = between(0.0, 1.0)
    share: float = chance(  # of the photo's area, of the box around the bird
        lambda rng: BIRD_SHARE[0] * (BIRD_SHARE[1] / BIRD_SHARE[0]) ** rng.random()
    )
    # of that box, 0 to 1: from one edge of the photo to the other
    place: tuple[float, float] = chance(lambda rng: (rng.random(), rng.random()))


@dataclass(frozen=True)
class Scene:
    """Everything else in a photo."""

    gain: tuple[float, float, float] = chance(  # brightness and colour cast, a factor a channel
        lambda rng: tuple(rng.uniform(0.8, 1.18) * rng.uniform(0.88, 1.12, 3))
    )
    background: str = one_of(list(BACKGROUNDS))
    ground: str = one_of(list(BACKGROUNDS))  # the background below the horizon
    horizon: float = between(0.3, 1.6)  # part of the photo's height that is above it
    branches: int = between(0, 9)  # out of focus, behind the bird
    berries: int = between(0, 12)  # among them, in the colours of field marks
    perch: tuple[int, int, int] = one_of(PERCHES)
    perch_width: float = between(0.16, 0.50)  # half body lengths
    perch_slope: float = between(-16.0, 16.0)  # degrees
    twigs: int = one_of((0, 0, 1, 2))  # in front of the bird
    leaves: int = between(0, 4)  # on each of them
    dapple: float = between(0.0, 0.4)  # depth of the shadows that fall on the scene, 0 to 1
    light_angle: float = between(-50.0, 50.0)  # degrees from overhead
    contrast: float = between(0.8, 1.2)
    plumage: float = between(0.85, 1.12)  # paler or darker bird, a factor
    wear: float = between(0.0, 0.15)  # how far the field marks have faded, 0 to 1
    blur: float = between(0.0, 1.3)  # radius in pixels
    noise: float = between(2.0, 7.0)  # standard deviation in grey levels
    jpeg_quality: int = between(70, 93)
    texture_seed: int = between(0, 2**31)


# ---- Shapes --------------------------------------------------------------------------------------


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


# ---- The bird, from back to front ----------------------------------------------------------------


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
