"""Draw the built-in sample: 10 invented bird species, whole scenes, in the course's layout.

    python -m birddata.sketchbook OUT [--seed N] [--contact-sheet FILE.png]

The sample stands in for the course's photos on a fresh clone, without a download. As there, a bird
is somewhere in a scene of 500 pixels, and relatives look alike: species of one genus share body
and plumage and differ in small field marks only, such as an eye ring, wing bars or the tip of the
bill. Pose, light, surroundings and occlusion are drawn blind to the species, so colours averaged
over a photo say next to nothing. The same seed gives the same bytes with the same Pillow and NumPy.

How hard it is: `MARK_SIZE` in plumage.py scales all field marks, `BIRD_SHARE` the birds.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from birddata import DataError, plumage
from birddata.plumage import BACKGROUNDS, BLACK, WHITE, Canvas, Pose, Scene, feather, mix, turn
from birddata.writing import Photo, Sample, Test, new_tests, write_tests

TRAIN_PER_SPECIES, HIDDEN_PER_SPECIES = 16, 10
SHEET_COLUMNS, SHEET_CELL = 7, 240  # photos of each species on the contact sheet; pixels
LEAVES = ((70, 110, 46), (116, 140, 58), (48, 84, 52), (176, 126, 48), (142, 74, 44))
BERRIES = (plumage.RED, WHITE, plumage.OCHRE, BLACK)
random_pose, random_scene = (partial(plumage.drawn, kind) for kind in (Pose, Scene))

# ---- Around the bird -----------------------------------------------------------------------------


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
    nearness = sorted(rng.uniform(0.1, 1, scene.branches))
    for near in nearness:
        if near < 0.6:
            draw_branch(photo, near, scene, rng)
    photo = photo.filter(ImageFilter.GaussianBlur(1.3))
    for near in nearness:
        if near >= 0.6:
            draw_branch(photo, near, scene, rng)
    return photo


def draw_branch(photo: Image.Image, near: float, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a branch with leaves across a photo; the nearer (0 to 1), the thicker and darker."""
    draw = ImageDraw.Draw(photo)
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * photo.size
    ends[:, rng.integers(2)] = (-20, max(photo.size) + 20)  # from edge to edge
    knots = ends[0] + np.linspace(0, 1, 9)[:, None] * (ends[1] - ends[0])
    knots += rng.normal(0, 10, knots.shape)
    bark = plumage.PERCHES[rng.integers(len(plumage.PERCHES))]
    colour = mix(bark, (128, 128, 120), 0.5 * (1 - near))
    draw.line(list(map(tuple, knots)), colour, 1 + round(13 * near**2), "curve")
    for knot in knots[rng.random(len(knots)) < 0.6]:
        colour, length = LEAVES[rng.integers(len(LEAVES))], rng.uniform(14, 46) * near
        shape = feather(knot, rng.uniform(0, 360), length, length / 2)
        draw.polygon(list(map(tuple, shape)), mix(colour, BLACK, 0.3))
    for spot in knots[rng.random(len(knots)) < scene.berries / 40]:
        colour, radius = BERRIES[rng.integers(4)], rng.uniform(2, 7) * near
        draw.polygon(list(map(tuple, plumage.oval(spot, radius, radius))), colour)


def draw_twigs(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Return the twigs and their leaves in front of the bird, (H, W) RGBA."""
    for _ in range(scene.twigs):
        start, slope = rng.uniform((-1.9, -1.3), (1.3, 1.1)), rng.uniform(-90, 90)
        twig = turn([(-14, 0), (0, 0.1), (14, -0.1)], slope, start)
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


def draw_photo(species: plumage.Species, pose: Pose, scene: Scene) -> Image.Image:
    """Return a photo, (H, W) RGB; the species decides about nothing but the bird."""
    rng = np.random.default_rng(scene.texture_seed)
    photo = draw_surroundings(pose.photo, scene, rng)
    bird = plumage.draw_bird(species, pose, scene)
    for layer in (bird, draw_twigs(Canvas(species.genus, pose), scene, rng)):
        photo.paste(layer, mask=layer.getchannel("A"))
    return develop(photo, scene, rng)


# ---- The sample ----------------------------------------------------------------------------------


def photo_of(class_id: int, number: int, seed: int) -> tuple[Image.Image, int]:
    """Return photo `number` (from 0) of a species, (H, W) RGB, and its JPEG quality."""
    rng = np.random.default_rng([seed, class_id, number])
    pose, scene = random_pose(rng), random_scene(rng)
    return draw_photo(plumage.SPECIES[class_id], pose, scene), scene.jpeg_quality


def draw_photos(folder: Path, numbers: range, seed: int) -> list[Photo]:
    """Draw these photos of every species in mixed order."""
    count = len(plumage.SPECIES)
    photos = [(class_id, number) for class_id in range(count) for number in numbers]
    order = np.random.default_rng([seed, count, numbers.start]).permutation(len(photos))
    drawn = []
    for place, index in enumerate(order, start=numbers.start * count):
        path = folder / f"{place:03d}.jpg"
        photo, quality = photo_of(*photos[index], seed)
        photo.save(path, quality=quality)
        drawn.append(Photo(path.name, photos[index][0], path.name, path))
    return drawn


def draw_sample(folder: Path, seed: int = 0) -> None:
    """Draw the sample's two tests into `folder`, which is made if it is not there.

    Test 00 has the same photos for training and testing; test 01 trains on them and has hidden
    photos. Raises DataError if the folder holds tests already or the seed is negative, OSError
    if a file cannot be written; in both cases no part of a sample is left.
    """
    if seed < 0:
        raise DataError(f"the seed is {seed}; give a whole number from 0")
    with new_tests(folder) as scratch:
        last = TRAIN_PER_SPECIES + HIDDEN_PER_SPECIES
        train = draw_photos(scratch, range(TRAIN_PER_SPECIES), seed)
        hidden = draw_photos(scratch, range(TRAIN_PER_SPECIES, last), seed)
        tests = [Test("00_sketch", train, train), Test("01_hidden", train, hidden)]
        species = {class_id: species.name for class_id, species in enumerate(plumage.SPECIES)}
        write_tests(Sample("drawn", tests, species), scratch, folder)


def save_contact_sheet(path: Path, seed: int = 0) -> None:
    """Write a PNG with a labelled row of photos for every species, for a person to look at."""
    margin, cell = 280, SHEET_CELL
    sheet = Image.new("RGB", (margin + SHEET_COLUMNS * cell, len(plumage.SPECIES) * cell), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for class_id, species in enumerate(plumage.SPECIES):
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
        print(f"Wrote the photos of {len(plumage.SPECIES)} species to {options.out}")
        if options.contact_sheet:
            save_contact_sheet(options.contact_sheet, options.seed)
            print(f"Wrote {options.contact_sheet}")
    except (DataError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
