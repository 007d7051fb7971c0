"""The drawn sample: reproducible, in the course's layout, and no matter of colour alone."""

from copy import copy
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from birddata import drawn_sample
from birddata.drawn_sample import SPECIES, Scene, Species
from course.layout import find_tests, read_csv
from course.tables import read_species

FIELD_MARKS = Species._fields[2:]
BLUE = (0, 0, 255)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The whole sample as a user gets it, drawn once."""
    folder = tmp_path_factory.mktemp("sample") / "drawn"
    drawn_sample.draw_sample(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Two photos per species."""
    monkeypatch.setattr(drawn_sample, "TRAIN", range(1))
    monkeypatch.setattr(drawn_sample, "HIDDEN", range(1, 2))


def contents(folder) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def some_scene(number: int, **changes) -> Scene:
    scene = copy(Scene([number]))
    vars(scene).update(changes)
    return scene


def test_the_layout_is_the_courses(sample):
    first, second = find_tests(sample)
    train, hidden = read_csv(first.gt / "gt.csv"), read_csv(second.gt / "gt.csv")
    counts = [np.bincount(list(gt.values())).tolist() for gt in (train, hidden)]
    assert counts == [[16] * 10, [10] * 10]
    assert list(train.values()) != sorted(train.values()), "names must not give the species away"
    assert contents(first.input / "train") == contents(second.input / "train")
    assert read_csv(first.input / "train/gt.csv") == train
    photos = contents(first.input / "test/images") | contents(second.input / "test/images")
    assert photos.keys() == train.keys() | hidden.keys()
    assert len(set(photos.values())) == 260
    assert read_species(sample / "species.csv") == {i: s.name for i, s in enumerate(SPECIES)}
    for path in (second.input / "test/images").iterdir():
        with Image.open(path) as photo:
            assert (photo.format, photo.mode, max(photo.size)) == ("JPEG", "RGB", 500)


def test_the_seed_decides_every_byte(small, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        drawn_sample.draw_sample(tmp_path / name, seed)
    photos = [contents(tmp_path / name) for name in "abc"]
    assert photos[0] == photos[1]
    jpegs = [{data for name, data in files.items() if name.endswith("jpg")} for files in photos]
    assert not jpegs[0] & jpegs[2]


def test_relatives_differ_in_two_field_marks_or_more_and_nothing_else():
    assert len({species.name for species in SPECIES}) == 10
    assert len({species.genus for species in SPECIES}) == 4
    for one, other in combinations(SPECIES, 2):
        if one.genus == other.genus:
            differing = [mark for mark in FIELD_MARKS if getattr(one, mark) != getattr(other, mark)]
            assert len(differing) >= 2, f"{one.name} and {other.name}"


@pytest.mark.parametrize("mark", FIELD_MARKS)
def test_every_field_mark_is_small_and_keeps_to_the_bird(mark):
    plain = Species("Plain", drawn_sample.FINCH._replace(bars=BLUE), wing_bars=0)
    marked = plain._replace(**{mark: 2 if mark == "wing_bars" else BLUE})
    scene = some_scene(0, share=0.3)
    before, after = (np.asarray(drawn_sample.draw_bird(b, scene), int) for b in (plain, marked))
    changed = np.abs(after - before)[..., :3].max(axis=-1) > 30
    assert 20 <= changed.sum() <= 0.015 * changed.size
    moved = np.abs(after - before)[..., 3] > 127  # rounded tips add a few pixels of outline
    assert moved.sum() <= 0.01 * (before[..., 3] > 127).sum()


def test_relatives_in_one_scene_differ_on_the_bird_only():
    scene = some_scene(1, share=0.5, blur=0.0)
    one, other = (np.asarray(drawn_sample.draw_photo(SPECIES[i], scene), int) for i in (0, 1))
    birds = [np.asarray(drawn_sample.draw_bird(SPECIES[i], scene))[..., 3] > 0 for i in (0, 1)]
    changed = (one != other).any(axis=-1)
    assert changed.sum() > 100
    assert not (changed & ~birds[0] & ~birds[1]).any()


def colour_histogram(photo: Image.Image) -> np.ndarray:
    pixels = np.asarray(photo).reshape(-1, 3) // 32 @ (64, 8, 1)  # 8 x 8 x 8 bins
    return np.sqrt(np.bincount(pixels, minlength=512))


@pytest.mark.parametrize("feature", [lambda p: np.asarray(p, float).mean((0, 1)), colour_histogram])
def test_colours_alone_do_not_tell_the_species(sample, feature):
    """The nearest training photo by colour has the right species in fewer than 6 of 10 cases."""
    test = find_tests(sample)[1]
    parts = (test.input / "train", test.input / "train"), (test.input / "test", test.gt)
    vectors, labels = [], []
    for folder, gt in parts:
        rows = read_csv(gt / "gt.csv")
        photos = [Image.open(folder / "images" / name).convert("RGB") for name in rows]
        vectors.append(np.array([feature(photo) for photo in photos]))
        labels.append(np.array(list(rows.values())))
    nearest = ((vectors[1][:, None] - vectors[0][None]) ** 2).sum(axis=-1).argmin(axis=1)
    assert (labels[0][nearest] == labels[1]).mean() < 0.6
