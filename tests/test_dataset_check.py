"""birddata/dataset_check.py: planted defects are named, all of them and nothing else."""

import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from birddata import dataset_check
from birddata.findings import KINDS
from public_data.prepare import main

ROOT = Path(__file__).parents[1]
TRAIN, TEST = "00_birds_input/train", "00_birds_input/test"
STATUS = {code: dataset_check.EXIT_STATUS[kind.severity] for code, kind in KINDS.items()}


class Sample:
    """A sound set of drawn photos, into which defects are planted; no two drawings are alike."""

    def __init__(self, root, drawn=0):
        self.root, self.drawn = root, drawn

    def draw_test(self, stem):
        """Write a test: three species with five photos to train on and two to classify each."""
        for part, gt, count in (("train", f"{stem}_input/train", 5), ("test", f"{stem}_gt", 2)):
            self.write(f"{gt}/gt.csv", b"filename,class_id\n")
            for number in range(3 * count):
                name = f"{part}{number}.jpg"
                self.draw(f"{stem}_input/{part}/images/{name}")
                self.add_row(f"{name},{number % 3}", gt)

    def image(self, size=(96, 80), blots=(7, 8)):
        """Draw soft random blots."""
        self.drawn += 1
        random = np.random.default_rng(self.drawn)
        blots = random.integers(0, 256, (*blots, 3), dtype=np.uint8)
        return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)

    def draw(self, path, image=None, **how):
        """Write a photo, a new one if none is given; returns its path below the root."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (image or self.image()).save(target, **how)
        return path

    def write(self, path, content):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)
        return path

    def add_row(self, row, folder=TRAIN):
        with (self.root / folder / "gt.csv").open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")

    def add(self, name, class_id=0, image=None, images=TRAIN, gt=TRAIN, more="", **how):
        """Write a labelled training photo, and more rows; returns its path below the root."""
        self.add_row(f"{name},{class_id}{more}", gt)
        return self.draw(f"{images}/images/{name}", image, **how)

    def ask(self, name, class_id=0, image=None):
        """Write a labelled test photo; returns its path below the root."""
        return self.add(name, class_id, image, TEST, "00_birds_gt")


# --- planted defects: each plants its kind and returns the items that must be found ---------------


def plant_bad_table(sample):
    tests = ("01_table", "02_missing", "06_others")
    for test in tests:
        sample.draw_test(test)
    sample.write("01_table_input/train/gt.csv", b"filename\ntrain0.jpg\n")
    (sample.root / "02_missing_input/train/gt.csv").unlink()
    sample.write("06_others_input/train/gt.csv", b"filename,class_id\nowl.jpg,0\n")
    return [(f"{test}_input/train/gt.csv",) for test in tests]


def plant_bad_row(sample):
    rows = ("row0.jpg", "row1.jpg,two", "row2.jpg,2.5", f"row3.jpg,{'3' * 5000}")
    for number, row in enumerate(rows):
        sample.draw(f"{TRAIN}/images/row{number}.jpg")
        sample.add_row(row)
    return [(f"{TRAIN}/gt.csv", repr(row[:80])) for row in rows]


def plant_label_without_file(sample):
    sample.add_row("gone.jpg,0")
    sample.add_row("asked.jpg,0", "00_birds_gt")
    return [(f"{TRAIN}/images/gone.jpg",), (f"{TEST}/images/asked.jpg",)]


def plant_unreadable(sample):
    files = {"text.jpg": b"no photo", "empty.jpg": b"", "head.png": b"\x89PNG"}
    for name in files:
        sample.add_row(f"{name},1")
    return [(sample.write(f"{TRAIN}/images/{name}", content),) for name, content in files.items()]


def plant_two_species(sample):
    image = sample.image()
    exact = sample.add("auk.jpg", 0, image), sample.add("puffin.jpg", 1, image)
    image = sample.image()
    near = sample.add("swift.jpg", 1, image), sample.add("tern.jpg", 2, image, quality=50)
    return [exact, near]


def plant_leaked_copy(sample):
    image, other = sample.image(), sample.image()
    return [
        (sample.ask("leaked.jpg", 0, image), sample.add("learnt.jpg", 0, image)),
        (sample.ask("same_name.jpg", 1, other), sample.add("same_name.jpg", 1, other)),
    ]


def plant_leaked_near_copy(sample):
    image = sample.image()
    asked = sample.ask("cropped.jpg", 0, image.crop((2, 2, 94, 78)))
    return [(asked, sample.add("whole.jpg", 0, image))]


def plant_truncated(sample):
    paths = sample.add("cut.jpg"), sample.add("cut.png")
    for path in paths:
        data = (sample.root / path).read_bytes()
        sample.write(path, data[: len(data) * 2 // 3])
    return [(path,) for path in paths]


def plant_exact_copy(sample):
    image = sample.image()
    return [tuple(sample.add(f"exact{number}.jpg", 1, image) for number in range(3))]


def plant_near_copy(sample):
    image = sample.image()
    altered = [image, image.resize((48, 40)), ImageEnhance.Brightness(image).enhance(1.1)]
    return [tuple(sample.add(f"near{n}.jpg", 1, image) for n, image in enumerate(altered))]


def plant_not_an_image(sample):
    sample.write(f"{TRAIN}/images/.DS_Store", b"hidden, the system's own")
    notes = sample.write(f"{TRAIN}/images/notes.txt", b"Saw an auk.")
    return [(notes,), (sample.write(f"{TEST}/images/film.mp4", b"\0\0\0\x18ftypmp42"),)]


def plant_odd_metadata(sample):
    path = sample.add("text.png", image=sample.image())
    data = (sample.root / path).read_bytes()
    body = b"Comment\0\0" + zlib.compress(bytes(3 * 2**20))
    sum_of = zlib.crc32(b"zTXt" + body).to_bytes(4, "big")
    chunk = len(body).to_bytes(4, "big") + b"zTXt" + body + sum_of
    sample.write(path, data[:33] + chunk + data[33:])
    return [(path,)]


def plant_other_name(sample):
    sample.add_row("upper.jpg,1")
    return [(sample.draw(f"{TRAIN}/images/UPPER.JPG"),)]


def plant_script_differs(sample):
    sample.draw_test("05_excel")
    path = "05_excel_input/train/gt.csv"
    sample.write(path, (sample.root / path).read_bytes().replace(b",", b";"))
    return [(path,)]


def plant_few_photos(sample):
    for number in range(4):
        sample.add(f"few{number}.jpg", 4)
    sample.ask("few_asked.jpg", 4)
    return [("class 4 (4)",)]


def plant_trained_test(sample):
    sample.draw_test("03_trained")
    train, test = (sample.root / f"03_trained_input/{part}" for part in ("train", "test"))
    shutil.rmtree(test / "images")
    shutil.copytree(train / "images", test / "images")
    shutil.copyfile(train / "gt.csv", sample.root / "03_trained_gt/gt.csv")
    return [("03_trained",)]


def plant_no_true_labels(sample):
    sample.draw_test("04_blind")
    shutil.rmtree(sample.root / "04_blind_gt")
    return [("04_blind_gt/gt.csv",)]


PLANTS = {
    name.removeprefix("plant_").replace("_", "-"): plant
    for name, plant in list(globals().items())
    if name.startswith("plant_")
} | {
    "two-ids": lambda s: s.add("two.jpg", 0, more="\ntwo.jpg,1") and [(f"{TRAIN}/gt.csv",)],
    "file-without-label": lambda s: [
        (s.draw(f"{TRAIN}/{path}"),)
        for path in ("images/unknown.jpg", "images/below/deep.jpg", "beside.jpg")
    ],
    "repeated-row": lambda s: s.add("a.jpg", 2, more="\na.jpg,2") and [(f"{TRAIN}/gt.csv",)],
    "imbalance": lambda s: [s.add(f"many{n}.jpg", 7) for n in range(60)] and [("class 7 (60)",)],
    "untrained-species": lambda s: [s.ask("dodo.jpg", 9) and ("class 9",)],
    "blank": lambda s: [(s.add("blank.jpg", image=Image.new("RGB", (96, 80), "teal")),)],
    "tiny": lambda s: [(s.add("tiny.jpg", image=s.image((20, 60))),)],
    "lone-species": lambda s: [s.add("lone.jpg", 5) and ("class 5 (1)",)],
    "odd-shape": lambda s: [(s.add("panorama.jpg", image=s.image((240, 40))),)],
}


@pytest.fixture
def sample(tmp_path):
    sample = Sample(tmp_path / "birds")
    sample.draw_test("00_birds")
    return sample


def check(folder, tmp_path):
    """Return the exit status and the findings, items by the code of their kind."""
    status = dataset_check.run(folder, tmp_path / "found.json")
    result = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    return status, {kind["code"]: kind["items"] for kind in result["findings"]}


def what(code, item):
    """Return what a finding is about: its files, the row, or the species or test it names."""
    if code == "bad-row":
        return (*item["files"], re.split(": | is not ", item["detail"])[1])
    return tuple(item["files"]) or (item["detail"].split(" and ")[0],)


def assert_exactly(found, planted):
    """The planted kinds and no other, the planted files and no other."""
    told = {code: sorted(what(code, item) for item in items) for code, items in found.items()}
    assert told == {code: sorted(items) for code, items in planted.items()}


# --- the tests -----------------------------------------------------------------------------------


def test_every_kind_but_one_is_planted():
    """look-alikes, a limit of the check itself, has a test of its own."""
    assert PLANTS.keys() == KINDS.keys() - {"look-alikes"}


def test_a_sound_set(sample, tmp_path, capsys):
    assert check(sample.root, tmp_path) == (0, {})
    assert capsys.readouterr().out.splitlines()[1:] == ["Verdict: nothing in the way of training"]


@pytest.mark.parametrize("code", PLANTS)
def test_one_kind(sample, tmp_path, code):
    planted = {code: PLANTS[code](sample)}
    status, found = check(sample.root, tmp_path)
    assert_exactly(found, planted)
    assert status == STATUS[code]


# --- copies --------------------------------------------------------------------------------------

ALTERATIONS = {
    "jpeg 50": lambda image: image,
    "half the size": lambda image: image.resize((48, 40)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "cropped all round": lambda image: image.crop((3, 2, 93, 78)),
    "cropped on two sides": lambda image: image.crop((0, 2, 93, 80)),
    "turned by EXIF": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_are_found(sample, tmp_path, name):
    image = sample.image(blots=(20, 24))  # detail that a shift of a pixel or two displaces
    sample.add("photo.jpg", 1, image)
    turned = Image.Exif()
    turned[0x0112] = 6 if name == "turned by EXIF" else 1
    sample.add("altered.jpg", 1, ALTERATIONS[name](image), quality=50, exif=turned)
    _, found = check(sample.root, tmp_path)
    files = [f"{TRAIN}/images/{name}.jpg" for name in ("altered", "photo")]
    assert [item["files"] for item in found.pop("near-copy")] == [files]
    assert found == {}


def test_look_alikes_are_no_copies(sample, tmp_path):
    """One scene with two birds, a quarter of the picture: hashes agree, the photos do not."""
    scene, *birds = sample.image(), sample.image((48, 40)), sample.image((48, 40))
    thumbs = []
    for number, bird in enumerate(birds):
        scene.paste(bird, (24, 20))
        path = sample.add(f"scene{number}.jpg", 1, scene)
        thumbs.append(dataset_check.examine(sample.root / path, {}).thumb)
    assert dataset_check.similar_hashes(dataset_check.difference_hash(thumbs)) == ([[0, 1]], 1)
    assert check(sample.root, tmp_path) == (0, {})


def test_more_look_alikes_than_are_compared(sample, tmp_path, monkeypatch):
    image = sample.image()
    for quality in (50, 60, 70):
        sample.add(f"{quality}.jpg", 1, image, quality=quality)
    monkeypatch.setattr(dataset_check, "MAX_PAIRS", 1)
    _, found = check(sample.root, tmp_path)
    assert found.keys() == {"near-copy", "look-alikes"}
    assert found["look-alikes"][0]["detail"] == "3 pairs, the 1 closest compared"
    assert len(found["near-copy"][0]["files"]) == 2


def test_similar_hashes_are_paired_the_closest_first():
    bits = np.random.default_rng(0).integers(0, 2, (50, 264)).astype(bool)
    bits[41] = bits[3]
    bits[41, :9] ^= True
    bits[8] = bits[7]
    assert dataset_check.similar_hashes(bits) == ([[7, 8], [3, 41]], 2)
    assert dataset_check.similar_hashes(bits[:1]) == ([], 0)


def test_tests_that_share_photos_are_told_once_the_most_severe_first(sample, tmp_path, capsys):
    shared = ("near-copy", "tiny", "odd-shape", "lone-species", "untrained-species")
    for code in shared:
        PLANTS[code](sample)
    for part in ("input", "gt"):
        shutil.copytree(sample.root / f"00_birds_{part}", sample.root / f"01_again_{part}")
    _, found = check(sample.root, tmp_path)
    assert {code: len(items) for code, items in found.items()} == dict.fromkeys(shared, 1)
    _, *lines, verdict = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [code for code in KINDS if code in shared]
    assert verdict.startswith("Verdict: correct the errors before training")


def test_the_projects_own_files_beside_the_tests_are_no_findings(sample, tmp_path):
    for name in ("README.md", "prepare.py", "results.json", "archive.zip", "report/a.html"):
        sample.write(name, b"x")
    sample.write("00_birds_check/output/output.csv", b"x")
    assert check(sample.root, tmp_path) == (0, {})
    wrapped = tmp_path / "wrapped"
    wrapped.mkdir()
    sample.write("00_birds_input/train/images/notes.md", b"x")
    sample.root.rename(wrapped / "public")
    assert check(wrapped, tmp_path)[1].keys() == {"not-an-image"}


# --- layouts -------------------------------------------------------------------------------------


def test_one_train_folder(sample, tmp_path):
    plant_truncated(sample)
    sample.add_row("gone.jpg,8")
    status, found = check(sample.root / TRAIN, tmp_path)
    assert status == 4
    cut = [("images/cut.jpg",), ("images/cut.png",)]
    assert_exactly(found, {"label-without-file": [("gone.jpg",)], "truncated": cut})


@pytest.mark.parametrize("wrapping", ["", "images/"])
def test_class_folders(sample, tmp_path, wrapping):
    image = sample.image()
    tree = Sample(tmp_path / "tree", drawn=500)
    for species in ("Auk", "Wren"):
        for number in range(6):
            tree.draw(f"{wrapping}{species}/{number:03d}.jpg")
        tree.draw(f"{wrapping}{species}/same.png", image)
    tree.draw(f"{wrapping}Dodo/000.jpg")
    tree.draw(f"{wrapping}Auk/old/000.jpg")
    tree.draw(f"{wrapping}overview.jpg")
    tree.write(f"{wrapping}Wren/notes.txt", b"Saw a wren.")
    tree.write(f"{wrapping}README.txt", b"My birds.")
    status, found = check(tree.root, tmp_path)
    assert status == 4
    planted = {
        "two-species": [(f"{wrapping}Auk/same.png", f"{wrapping}Wren/same.png")],
        "file-without-label": [(f"{wrapping}overview.jpg",)],
        "not-an-image": [(f"{wrapping}README.txt",), (f"{wrapping}Wren/notes.txt",)],
        "lone-species": [("Dodo (1)",)],
    }
    assert_exactly(found, planted)


def test_prepared_tests_are_sound(sample, tmp_path, capsys):
    """What prepare.py writes, with names that a Mac decomposes, has nothing against it."""
    tree = Sample(tmp_path / "tree", drawn=500)
    for species in ("Auk", "Grünfink"):
        for number in range(12):
            tree.draw(f"{species}/{number:03d}.jpg")
    out = tmp_path / "out"
    main([str(tree.root), "--holdout", "0.2", "--out", str(out)])
    assert check(out, tmp_path)[1].keys() == {"trained-test"}


# --- command line --------------------------------------------------------------------------------


def test_json_holds_what_is_summed_up(sample, tmp_path, capsys):
    """And nothing is changed."""
    plant_near_copy(sample)
    before = sorted(sample.root.rglob("*"))
    assert main(["--check", str(sample.root), "--json", str(tmp_path / "found.json")]) == 3
    result = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("Verdict: training will run; see the")
    )
    assert (result["photos"], result["species"], result["verdict"]) == (24, 3, "warning")
    assert [finding["count"] for finding in result["findings"]] == [1]
    assert sorted(sample.root.rglob("*")) == before


def test_readme_lists_every_kind():
    page = (ROOT / "public_data" / "README.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        assert f"| `{kind.code}` | {kind.severity} | {kind.what} |" in page
