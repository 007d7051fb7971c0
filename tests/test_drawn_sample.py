"""The drawn sample: reproducible, in the course's layout, and no matter of colour alone."""

import csv
import inspect
from copy import copy
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birddata import drawn_sample
from birddata.drawn_sample import SPECIES, Scene, Species

FIELD_MARKS = ("wing_bars", "cap", "mask", "eye_ring", "bill_tip")


def read_gt(path: Path) -> dict[str, int]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["filename"]: int(row["class_id"]) for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The whole sample as a user gets it, drawn once."""
    folder = tmp_path_factory.mktemp("sample") / "drawn"
    drawn_sample.draw_sample(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Two photos a species."""
    monkeypatch.setattr(drawn_sample, "TRAIN", range(1))
    monkeypatch.setattr(drawn_sample, "HIDDEN", range(1, 2))


def some_scene(number: int, **changes) -> Scene:
    scene = copy(Scene([number]))
    vars(scene).update(changes)
    return scene


# Layout


def test_the_layout_is_the_courses(sample):
    assert {path.name for path in sample.iterdir()} == set(
        {
            *(f"{test}_{part}" for test in ("00_sketch", "01_hidden") for part in ("input", "gt")),
            "species.csv",
        }
    )
    train = read_gt(sample / "00_sketch_gt/gt.csv")
    hidden = read_gt(sample / "01_hidden_gt/gt.csv")
    assert read_gt(sample / "00_sketch_input/train/gt.csv") == train
    assert read_gt(sample / "01_hidden_input/train/gt.csv") == train
    for images, gt in (
        ("00_sketch_input/train/images", train),
        ("00_sketch_input/test/images", train),
        ("01_hidden_input/train/images", train),
        ("01_hidden_input/test/images", hidden),
    ):
        assert {path.name for path in (sample / images).iterdir()} == set(gt)


def test_16_training_and_10_hidden_photos_a_species(sample):
    for folder, count in (("00_sketch_gt", 16), ("01_hidden_gt", 10)):
        labels = list(read_gt(sample / folder / "gt.csv").values())
        assert np.bincount(labels).tolist() == [count] * 10
        assert labels != sorted(labels), "file names must not give the species away"


def test_rows_are_sorted_by_file_name(sample):
    lines = (sample / "01_hidden_gt/gt.csv").read_bytes().decode().split("\n")
    assert lines[0] == "filename,class_id"
    assert lines[1:-1] == sorted(lines[1:-1])
    assert lines[-1] == ""


def test_no_hidden_photo_is_a_training_photo(sample):
    folders = ("00_sketch_input/train/images", "01_hidden_input/test/images")
    photos = [path for folder in folders for path in (sample / folder).iterdir()]
    assert len({path.name for path in photos}) == 260
    assert len({path.read_bytes() for path in photos}) == 260


def test_both_tests_train_on_the_same_photos(sample):
    first = contents(sample / "00_sketch_input/train")
    assert contents(sample / "01_hidden_input/train") == first


def test_photos_are_whole_scenes_of_500_pixels(sample):
    shapes = set()
    for path in (sample / "01_hidden_input/test/images").iterdir():
        with Image.open(path) as photo:
            assert (photo.format, photo.mode, max(photo.size)) == ("JPEG", "RGB", 500)
            shapes.add(photo.width > photo.height)
    assert shapes == {True, False}, "landscape and portrait"


def test_species_csv_names_every_class(sample):
    with (sample / "species.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["class_id", "name"]
    assert [(int(row[0]), row[1]) for row in rows[1:]] == [
        (class_id, species.name) for class_id, species in enumerate(SPECIES)
    ]


# Reproducibility


def test_the_same_seed_gives_the_same_bytes(small, tmp_path):
    drawn_sample.draw_sample(tmp_path / "a", seed=3)
    drawn_sample.draw_sample(tmp_path / "b", seed=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_another_sample(small, tmp_path):
    tables, photos = [], []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        drawn_sample.draw_sample(folder, seed)
        tables.append(list(read_gt(folder / "00_sketch_gt/gt.csv").values()))
        photos.append(set(contents(folder / "00_sketch_input/test/images").values()))
    assert tables[0] != tables[1]
    assert not photos[0] & photos[1]


def test_another_number_gives_another_photo():
    photos = [drawn_sample.draw_photo(SPECIES[4], some_scene(n)).tobytes() for n in (0, 1, 2, 0)]
    assert len(set(photos)) == 3


# Species


def test_ten_species_in_four_genera():
    genera = [species.genus for species in SPECIES]
    assert len(SPECIES) == len({species.name for species in SPECIES}) == 10
    assert len(set(genera)) == 4
    assert all(genera.count(genus) >= 2 for genus in genera)


def test_species_have_nothing_of_their_own_but_field_marks():
    own = {field.name for field in fields(Species)}
    assert own == {"name", "genus", *FIELD_MARKS}


def test_relatives_differ_in_two_field_marks_or_more():
    for one, other in combinations(SPECIES, 2):
        if one.genus == other.genus:
            differing = [mark for mark in FIELD_MARKS if getattr(one, mark) != getattr(other, mark)]
            assert len(differing) >= 2, f"{one.name} and {other.name}"


BLUE = (0, 0, 255)
UNMARKED = Species("Plain", replace(drawn_sample.FINCH, bars=BLUE), wing_bars=0)
MARKS = [
    ("wing_bars", 1),
    ("wing_bars", 2),
    ("cap", BLUE),
    ("mask", BLUE),
    ("eye_ring", BLUE),
    ("bill_tip", BLUE),
]


def pixels_of_mark(mark, value, scene) -> np.ndarray:
    """Where a mark changes the bird: (H, W), and how much of its outline."""
    plain = np.asarray(drawn_sample.draw_bird(UNMARKED, scene), int)
    marked = np.asarray(drawn_sample.draw_bird(replace(UNMARKED, **{mark: value}), scene), int)
    # Rounded tips of feathers may add a few pixels of outline, no more.
    moved = np.abs(marked - plain)[..., 3] > 127
    assert moved.sum() <= 0.01 * (plain[..., 3] > 127).sum()
    return np.abs(marked - plain)[..., :3].max(axis=-1) > 30


@pytest.mark.parametrize(("mark", "value"), MARKS)
def test_every_field_mark_is_small_and_keeps_to_the_bird(mark, value):
    changed = pixels_of_mark(mark, value, some_scene(0, share=0.3))
    assert 20 <= changed.sum() <= 0.015 * changed.size


@pytest.mark.parametrize(("mark", "value"), MARKS)
def test_mark_size_scales_every_field_mark(mark, value, monkeypatch):
    areas = []
    for size in (1.0, 2.0):
        monkeypatch.setattr(drawn_sample, "MARK_SIZE", size)
        areas.append(pixels_of_mark(mark, value, some_scene(0, share=0.5)).sum())
    assert areas[0] < 0.75 * areas[1]


def test_all_marks_are_drawn_and_tested():
    used = {mark for mark in FIELD_MARKS for species in SPECIES if getattr(species, mark)}
    assert used == {mark for mark, _ in MARKS} == set(FIELD_MARKS)


# Scenes


def box_of_bird(scene) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest row and column of the pixels that a bird's plumage changes."""
    blue = replace(drawn_sample.FINCH, back=BLUE, wing=BLUE, belly=BLUE)
    birds = [
        np.asarray(drawn_sample.draw_bird(bird, scene), int)
        for bird in (UNMARKED, replace(UNMARKED, genus=blue))
    ]
    places = np.argwhere((birds[0] != birds[1]).any(axis=-1))
    return places.min(axis=0), places.max(axis=0)


def test_birds_take_a_tenth_to_a_half_of_the_photo_and_are_anywhere():
    shares, centres = [], []
    for number in range(40):
        scene = some_scene(number, wing_lift=0.0)
        low, high = box_of_bird(scene)
        shares.append((high - low).prod() / np.prod(scene.size))
        centres.append((low + high) / 2 / np.array(scene.size[::-1]))
    # The box is that of a bird with its legs; tilted and turned ones differ a little.
    assert 0.05 < min(shares) < 0.13
    assert 0.25 < max(shares) < 0.6
    assert np.ptp(centres, axis=0).min() > 0.45
    assert np.median(np.abs(np.array(centres) - 0.5), axis=0).min() > 0.08


# Backgrounds


def test_a_scene_is_drawn_blind_to_the_species():
    for draw in (
        Scene,
        drawn_sample.draw_background,
        drawn_sample.draw_branch,
        drawn_sample.develop,
    ):
        assert not {"species", "class_id"} & set(inspect.signature(draw).parameters)


def test_relatives_in_one_scene_differ_on_the_bird_only():
    scene = some_scene(1, share=0.5, blur=0.0)
    one, other = (np.asarray(drawn_sample.draw_photo(SPECIES[i], scene), int) for i in (0, 1))
    bird = np.asarray(drawn_sample.draw_bird(SPECIES[0], scene))[..., 3] > 0
    changed = (one != other).any(axis=-1)
    assert changed.sum() > 100
    assert not (changed & ~bird).any()


def test_every_species_is_met_before_most_backgrounds(monkeypatch, tmp_path):
    met = {species.name: set() for species in SPECIES}

    def note(species, scene):
        met[species.name].add(scene.background)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(drawn_sample, "draw_photo", note)
    drawn_sample.draw_photos(tmp_path, range(26), seed=0)
    assert (
        min(len(backgrounds) for backgrounds in met.values()) >= len(drawn_sample.BACKGROUNDS) - 1
    )


@pytest.mark.parametrize("name", drawn_sample.BACKGROUNDS)
def test_a_background_is_no_flat_colour(name):
    background = drawn_sample.draw_background(name, (500, 333), np.random.default_rng(0))
    assert background.size == (500, 333)
    assert np.asarray(background).std(axis=(0, 1)).max() > 5


# Difficulty


def mean_colour(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo, float).mean(axis=(0, 1))


def colour_histogram(photo: Image.Image) -> np.ndarray:
    pixels = np.asarray(photo).reshape(-1, 3) // 32 @ (64, 8, 1)  # 8 x 8 x 8 bins
    return np.sqrt(np.bincount(pixels, minlength=512))


@pytest.mark.parametrize("feature", [mean_colour, colour_histogram])
def test_colours_alone_do_not_tell_the_species(sample, feature):
    """The nearest training photo by colour has the right species in fewer than 6 of 10 cases."""
    train, hidden = (read_gt(sample / gt / "gt.csv") for gt in ("00_sketch_gt", "01_hidden_gt"))
    known = features(sample / "01_hidden_input/train/images", train, feature)
    asked = features(sample / "01_hidden_input/test/images", hidden, feature)
    nearest = ((asked[:, None] - known[None]) ** 2).sum(axis=-1).argmin(axis=1)
    right = np.array(list(train.values()))[nearest] == list(hidden.values())
    assert right.mean() < 0.6


def features(images: Path, gt: dict[str, int], feature) -> np.ndarray:
    rows = []
    for name in gt:
        with Image.open(images / name) as photo:
            rows.append(feature(photo.convert("RGB")))
    return np.array(rows)


# Errors and the command line


def test_the_command_line_writes_a_sample(small, tmp_path, capsys):
    out = tmp_path / "out"
    assert drawn_sample.main([str(out), "--seed", "5"]) == 0
    assert capsys.readouterr() == (f"Wrote the photos of 10 species to {out}\n", "")
    assert len(list(out.rglob("*.jpg"))) == 10 + 10 + 10 + 10
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_sample_is_never_overwritten(tmp_path, capsys):
    taken = tmp_path / "species.csv"
    taken.write_text("mine")
    assert drawn_sample.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {taken} exists already")
    assert error.count("\n") == 1
    assert contents(tmp_path) == {"species.csv": b"mine"}


def test_a_negative_seed_is_refused(tmp_path, capsys):
    assert drawn_sample.main([str(tmp_path / "out"), "--seed", "-1"]) == 1
    assert capsys.readouterr().err == "Error: the seed is -1; give a whole number from 0\n"
    assert not (tmp_path / "out").exists()


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(folder, numbers, seed):
        (folder / "00_sketch_input").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(drawn_sample, "draw_photos", interrupt)
    with pytest.raises(KeyboardInterrupt):
        drawn_sample.draw_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []
