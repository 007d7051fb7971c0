"""The drawn sample: reproducible, in the course's layout, and no matter of colour alone."""

import csv
import inspect
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birddata import plumage, sketchbook

FIELD_MARKS = ("crown", "eye_ring", "throat", "wing_bars", "bill_tip")


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
    sketchbook.draw_sample(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Two photos a species, a contact sheet of one column."""
    monkeypatch.setattr(sketchbook, "TRAIN_PER_SPECIES", 1)
    monkeypatch.setattr(sketchbook, "HIDDEN_PER_SPECIES", 1)
    monkeypatch.setattr(sketchbook, "SHEET_COLUMNS", 1)


def some_photo(number: int) -> tuple[plumage.Pose, plumage.Scene]:
    rng = np.random.default_rng(number)
    return sketchbook.random_pose(rng), sketchbook.random_scene(rng)


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
        (class_id, species.name) for class_id, species in enumerate(plumage.SPECIES)
    ]


# Reproducibility


def test_the_same_seed_gives_the_same_bytes(small, tmp_path):
    sketchbook.draw_sample(tmp_path / "a", seed=3)
    sketchbook.draw_sample(tmp_path / "b", seed=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_another_sample(small, tmp_path):
    tables, photos = [], []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        sketchbook.draw_sample(folder, seed)
        tables.append(list(read_gt(folder / "00_sketch_gt/gt.csv").values()))
        photos.append(set(contents(folder / "00_sketch_input/test/images").values()))
    assert tables[0] != tables[1]
    assert not photos[0] & photos[1]


def test_another_seed_gives_other_photos():
    photos = [sketchbook.photo_of(4, 0, seed)[0].tobytes() for seed in (0, 1, 2)]
    assert len(set(photos)) == 3


# Species


def test_ten_species_in_four_genera():
    genera = [species.genus for species in plumage.SPECIES]
    assert len(plumage.SPECIES) == len({species.name for species in plumage.SPECIES}) == 10
    assert len(set(genera)) == 4
    assert all(genera.count(genus) >= 2 for genus in genera)


def test_species_have_nothing_of_their_own_but_field_marks():
    own = {field.name for field in fields(plumage.Species)}
    assert own == {"name", "genus", *FIELD_MARKS}


def test_relatives_differ_in_two_field_marks_or_more():
    for one, other in combinations(plumage.SPECIES, 2):
        if one.genus == other.genus:
            differing = [mark for mark in FIELD_MARKS if getattr(one, mark) != getattr(other, mark)]
            assert len(differing) >= 2, f"{one.name} and {other.name}"


GREY, BLUE = (90, 90, 90), (0, 0, 255)
UNMARKED = plumage.Species("Plain", plumage.FINCH, ("plain", GREY), None, None, (0, GREY), None)
MARKS = [
    ("crown", ("cap", BLUE)),
    ("crown", ("brow", BLUE)),
    ("crown", ("mask", BLUE)),
    ("eye_ring", BLUE),
    ("throat", BLUE),
    ("wing_bars", (1, BLUE)),
    ("wing_bars", (2, BLUE)),
    ("bill_tip", BLUE),
]


def pixels_of_mark(mark, value, pose, scene) -> np.ndarray:
    """Where a mark changes the bird: (H, W), and how much of its outline."""
    plain = np.asarray(plumage.draw_bird(UNMARKED, pose, scene), int)
    bird = replace(UNMARKED, **{mark: value})
    marked = np.asarray(plumage.draw_bird(bird, pose, scene), int)
    # Rounded tips of feathers may add a few pixels of outline, no more.
    moved = np.abs(marked - plain)[..., 3] > 127
    assert moved.sum() <= 0.01 * (plain[..., 3] > 127).sum()
    return np.abs(marked - plain)[..., :3].max(axis=-1) > 30


@pytest.mark.parametrize(("mark", "value"), MARKS)
def test_every_field_mark_is_small_and_keeps_to_the_bird(mark, value):
    pose, scene = some_photo(0)
    changed = pixels_of_mark(mark, value, replace(pose, share=0.3), scene)
    assert 20 <= changed.sum() <= 0.015 * changed.size


@pytest.mark.parametrize(("mark", "value"), MARKS)
def test_mark_size_scales_every_field_mark(mark, value, monkeypatch):
    pose, scene = some_photo(0)
    pose = replace(pose, share=0.5)
    areas = []
    for size in (0.5, 1.0):
        monkeypatch.setattr(plumage, "MARK_SIZE", size)
        areas.append(pixels_of_mark(mark, value, pose, scene).sum())
    assert areas[0] < 0.75 * areas[1]


def test_all_marks_drawn_are_marks_tested():
    used = {(mark, getattr(species, mark)[0] if mark in {"crown", "wing_bars"} else BLUE)
            for species in plumage.SPECIES for mark in FIELD_MARKS
            if getattr(species, mark)}  # fmt: skip
    tested = {(mark, value[0] if mark in {"crown", "wing_bars"} else BLUE) for mark, value in MARKS}
    assert used - {("crown", "plain"), ("wing_bars", 0)} == tested


# Scenes


def box_of_bird(pose, scene) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest row and column of the pixels that a bird's plumage changes."""
    colours = {"back": BLUE, "wing": BLUE, "belly": BLUE, "bill_colour": BLUE}
    blue = replace(UNMARKED, genus=replace(plumage.FINCH, **colours))
    birds = [np.asarray(plumage.draw_bird(b, pose, scene), int) for b in (UNMARKED, blue)]
    places = np.argwhere((birds[0] != birds[1]).any(axis=-1))
    return places.min(axis=0), places.max(axis=0)


def test_birds_take_a_tenth_to_a_half_of_the_photo_and_are_anywhere():
    shares, centres = [], []
    for number in range(40):
        pose, scene = some_photo(number)
        low, high = box_of_bird(replace(pose, wing_lift=0.0), scene)
        shares.append((high - low).prod() / np.prod(pose.photo))
        centres.append((low + high) / 2 / np.array(pose.photo[::-1]))
    # The box is that of a bird at its genus' posture; tilted and turned ones differ a little.
    assert 0.05 < min(shares) < 0.13
    assert 0.25 < max(shares) < 0.6
    assert np.ptp(centres, axis=0).min() > 0.45
    assert np.median(np.abs(np.array(centres) - 0.5), axis=0).min() > 0.08


# Backgrounds


def test_pose_and_scene_are_drawn_blind_to_the_species():
    for draw in (sketchbook.random_pose, sketchbook.random_scene, sketchbook.draw_surroundings):
        assert not {"species", "class_id"} & set(inspect.signature(draw).parameters)


def test_relatives_in_one_scene_differ_on_the_bird_only():
    pose, scene = some_photo(1)
    pose = replace(pose, share=0.5)
    scene = replace(scene, blur=0.0)
    one, other = (np.asarray(sketchbook.draw_photo(plumage.SPECIES[i], pose, scene), int)
                  for i in (0, 1))  # fmt: skip
    bird = np.asarray(plumage.draw_bird(plumage.SPECIES[0], pose, scene))[..., 3] > 0
    changed = (one != other).any(axis=-1)
    assert changed.sum() > 100
    assert not (changed & ~bird).any()


def test_every_species_is_met_before_most_backgrounds(monkeypatch):
    met = {species.name: set() for species in plumage.SPECIES}
    monkeypatch.setattr(
        sketchbook, "draw_photo", lambda bird, pose, scene: met[bird.name].add(scene.background)
    )
    for class_id in range(10):
        for number in range(26):
            sketchbook.photo_of(class_id, number, seed=0)
    assert min(len(backgrounds) for backgrounds in met.values()) >= 7


@pytest.mark.parametrize("name", sketchbook.BACKGROUNDS)
def test_a_background_is_no_flat_colour(name):
    background = sketchbook.draw_background(name, (500, 333), np.random.default_rng(0))
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


def test_the_command_line_writes_sample_and_contact_sheet(small, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    out = tmp_path / "out"
    assert sketchbook.main([str(out), "--seed", "5", "--contact-sheet", str(sheet)]) == 0
    printed = capsys.readouterr()
    assert str(out) in printed.out
    assert str(sheet) in printed.out
    assert printed.err == ""
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.height == 10 * sketchbook.SHEET_CELL
    assert {path.name for path in tmp_path.iterdir()} == {"out", "sheet.png"}


def test_a_sample_is_never_overwritten(tmp_path, capsys):
    taken = tmp_path / "species.csv"
    taken.write_text("mine")
    assert sketchbook.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {taken} exists already")
    assert error.count("\n") == 1
    assert contents(tmp_path) == {"species.csv": b"mine"}


def test_a_negative_seed_is_refused(tmp_path, capsys):
    assert sketchbook.main([str(tmp_path / "out"), "--seed", "-1"]) == 1
    assert capsys.readouterr().err == "Error: the seed is -1; give a whole number from 0\n"
    assert not (tmp_path / "out").exists()


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(folder, numbers, seed):
        (folder / "00_sketch_input").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(sketchbook, "draw_photos", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sketchbook.draw_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []
