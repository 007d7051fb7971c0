"""public_data/prepare.py: every kind of SOURCE, the holdout, and everything that can go wrong."""

import csv
import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from PIL import Image

import solution
from birddata import samples
from course import layout
from public_data import prepare
from public_data.prepare import main, parse_arguments
from tests.commands import call

COLOURS = ((n * 37 % 256, n * 101 % 256, n * 11 % 256) for n in count())


def draw(path, size=(12, 10)):
    """Write an image of a colour that no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower().lstrip(".")
    image = Image.new("RGB", size, next(COLOURS))
    image.save(path, {"jpg": "JPEG", "png": "PNG"}[suffix])
    return path


@pytest.fixture
def tree(tmp_path):
    """Three species with 8, 8 and 1 photos, all named 000.jpg, 001.jpg, ..."""
    source = tmp_path / "birds"
    for species, photos in (("Wren", 8), ("Auk", 8), ("Dodo", 1)):
        for number in range(photos):
            draw(source / species / f"{number:03d}.jpg")
    return source


@pytest.fixture
def course(tmp_path):
    """The course's archive as a folder: train and test photos are the same."""
    source = tmp_path / "archive" / "public"
    for images in ("train", "test"):
        for name in ("b.jpg", "a.jpg", "ü.png"):
            draw(source / "00_test_img_input" / images / "images" / name)
    rows = "filename,class_id\nb.jpg,-3\na.jpg,70\nü.png,5\n"
    for path in ("00_test_img_input/train/gt.csv", "00_test_img_gt/gt.csv"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text(rows, encoding="utf-8")
    return source.parent


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def refused(prepared, out):
    """Expect one line on stderr with all the causes, and nothing written."""

    def check(*words, causes):
        error = prepared(*words, status=1).err
        errors = [line for line in error.splitlines() if not line.startswith("skipped: ")]
        assert len(errors) == 1
        assert errors[0].startswith("Error: ")
        assert [cause for cause in causes if cause not in errors[0]] == []
        assert not out.exists() or not list(out.iterdir())

    return check


def gt(out, test, part="gt"):
    """Return a gt.csv of a test (part "gt" or "train") as a dict, and check its form."""
    path = out / f"{test}_gt" if part == "gt" else out / f"{test}_input" / "train"
    text = (path / "gt.csv").read_bytes().decode()
    assert text.endswith("\n")
    assert "\r" not in text
    header, *rows = text.splitlines()
    assert header == "filename,class_id"
    names = [row.split(",")[0] for row in rows]
    assert names == sorted(names)
    folder = out / f"{test}_input" / ("test" if part == "gt" else "train") / "images"
    assert {path.name for path in folder.iterdir()} == set(names)
    return {row.split(",")[0]: int(row.split(",")[1]) for row in rows}


def species(out):
    with (out / "species.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# --- class folders ------------------------------------------------------------------------------


def test_class_folders_become_test_00(tree, out, prepared):
    stdout, stderr = prepared(tree)
    assert stderr == ""
    labels = gt(out, "00_test_img")
    assert labels == gt(out, "00_test_img", "train")
    assert len(labels) == 17
    assert (labels["Auk_000.jpg"], labels["Dodo_000.jpg"], labels["Wren_007.jpg"]) == (0, 1, 2)
    assert species(out) == [["class_id", "name"], ["0", "Auk"], ["1", "Dodo"], ["2", "Wren"]]
    assert "files skipped: 0" in stdout
    names = ["00_test_img_gt", "00_test_img_input", "species.csv"]
    assert stdout.splitlines()[-1].startswith(f"Wrote {', '.join(names)} in {out}")
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize(("fails", "files"), [(False, 1), (True, 3)])
def test_photos_are_hard_links_where_the_disk_can(tree, out, monkeypatch, fails, files, prepared):
    def fail(self, target):
        raise OSError("Invalid cross-device link")

    if fails:
        monkeypatch.setattr(Path, "hardlink_to", fail)
    prepared(tree)
    images = [out / f"00_test_img_input/{part}/images" for part in ("train", "test")]
    photos = [tree / "Auk/003.jpg", *(folder / "Auk_003.jpg" for folder in images)]
    assert len({path.stat().st_ino for path in photos}) == files
    assert len({path.read_bytes() for path in photos}) == 1


def test_a_photo_that_vanishes_meanwhile_is_named(tree, refused, monkeypatch):
    problem = prepare.problem

    def remove(path):
        return problem(path) or (path.name == "003.jpg" and path.unlink()) or None

    monkeypatch.setattr(prepare, "problem", remove)
    refused(tree, causes=[f"{tree}/Auk/003.jpg cannot be read: no such file"])


@pytest.mark.parametrize("wrapping", ["images", "a/b"])
def test_folders_in_between(tree, tmp_path, out, wrapping, prepared):
    wrapped = tmp_path / "wrapped"
    (wrapped / wrapping).parent.mkdir(parents=True)
    tree.rename(wrapped / wrapping)
    (wrapped / "notes.txt").write_text("my photos")
    stdout, stderr = prepared(wrapped)
    assert stderr == f"skipped: notes.txt: not below {wrapping}/\n"
    assert len(gt(out, "00_test_img")) == 17
    assert "files skipped: 1" in stdout


def test_train_and_valid_trees_are_ambiguous(tmp_path, refused):
    for path in ("train/Auk", "train/Wren", "valid/Auk", "valid/Wren"):
        draw(tmp_path / "kit" / path / "1.jpg")
    refused(tmp_path / "kit", causes=["train/, valid/", "give one of them"])


def test_names_never_collide(tmp_path, out, prepared):
    for name in ("A/B_1.jpg", "A_B/1.jpg", "A_b/1.png", "A_B/1.png", "C,D/x.jpg", "C/c_9.JPG"):
        draw(tmp_path / "birds" / name)
    note = "note: A_b: taken for the same species as A B\n"
    assert prepared(tmp_path / "birds").err == note
    assert gt(out, "00_test_img") == {
        "A_B_1.jpg": 0,
        "A_B_1_2.jpg": 1,
        "A_B_1.png": 1,
        "A_b_1_2.png": 1,
        "c_9.JPG": 2,
        "C_D_x.jpg": 3,
    }
    assert species(out)[-1] == ["3", "C,D"]


def test_every_skipped_file_is_named(tree, out, monkeypatch, prepared):
    for name, content in (
        ("notes.txt", b"seen in May"),
        ("song.mp3", b"la"),
        (".DS_Store", b"x"),
        ("Thumbs.db", b"x"),
        ("page.jpg", b"<html>404</html>"),
    ):
        (tree / "Auk" / name).write_bytes(content)
    (tree / "Emu").mkdir()
    for name in ("Auk/chicks/1.jpg", ".cache/1.jpg", "logo.png"):
        draw(tree / name)
    draw(tree / "Auk" / "poster.png", size=(400, 400))
    monkeypatch.setattr(solution, "MAX_PIXELS", 100_000)
    stdout, stderr = prepared(tree)
    reasons = dict(line.split(": ", 2)[1:] for line in stderr.splitlines())
    assert reasons.pop("Auk/poster.png").startswith("400 x 400 pixels are more than can be decoded")
    assert reasons == {
        "Auk/notes.txt": "not an image",
        "Auk/song.mp3": "no photo that Pillow reads",
        "Auk/.DS_Store": "hidden",
        "Auk/Thumbs.db": "hidden",
        "Emu": "an empty folder",
        "Auk/page.jpg": "no photo that Pillow reads",
        ".cache": "hidden folder",
        "logo.png": "a photo in no species' folder",
    }
    assert "files skipped: 9 (4 passed-over, 1 not-an-image, 3 unreadable, 1 file-" in stdout
    assert gt(out, "00_test_img")["Auk_1.jpg"] == 0


@pytest.mark.skipif(os.name == "nt", reason="links need privileges on Windows")
def test_links_to_folders_are_followed_but_not_in_circles(tree, tmp_path, out, prepared):
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    for name in ("Auk", "Wren"):
        (chosen / name).symlink_to(tree / name)
    (tree / "Wren" / "back").symlink_to(chosen)
    assert prepared(chosen).err == "skipped: Wren/back: a link to a folder above it\n"
    assert len(gt(out, "00_test_img")) == 16


def test_source_may_be_the_folder_it_writes_to(tree, prepared):
    assert prepared(tree, to=tree).err == ""
    assert len(gt(tree, "00_test_img")) == 17


# --- the course's archive -----------------------------------------------------------------------


@pytest.mark.parametrize("source", ["archive", "archive/public", "public.zip"])
def test_the_courses_archive_stays_as_it_is(course, tmp_path, out, source, prepared):
    shutil.make_archive(tmp_path / "public", "zip", course)
    assert prepared(tmp_path / source).err == ""
    for part in ("train", "gt"):
        assert gt(out, "00_test_img", part) == {"b.jpg": -3, "a.jpg": 70, "ü.png": 5}
    assert sorted(path.name for path in out.iterdir()) == ["00_test_img_gt", "00_test_img_input"]
    for part in ("train", "test"):
        photo = f"00_test_img_input/{part}/images/a.jpg"
        assert (out / photo).read_bytes() == (course / "public" / photo).read_bytes()


def test_course_species_and_second_test_are_kept(course, out, prepared):
    public = course / "public"
    draw(public / "01_more_input" / "train" / "images" / "x.jpg")
    draw(public / "01_more_input" / "test" / "images" / "y.jpg")
    (public / "01_more_gt").mkdir()
    (public / "01_more_input" / "train" / "gt.csv").write_text("filename,class_id\r\nx.jpg,5\r\n")
    (public / "01_more_gt" / "gt.csv").write_text("\ufefffilename,class_id\ny.jpg,70", "utf-8")
    (public / "species.csv").write_text('class_id,name\n5,"Auk, little"\n70,Wren\n-3,Dodo\n')
    stdout, stderr = prepared(course)
    assert stderr == ""
    assert gt(out, "01_more", "train") == {"x.jpg": 5}
    assert gt(out, "01_more") == {"y.jpg": 70}
    assert species(out)[1:] == [["-3", "Dodo"], ["5", "Auk, little"], ["70", "Wren"]]
    assert "01_more      1 species, 1 photos to train on, 1 to classify\n" in stdout


def test_course_mismatches_are_named(course, out, prepared):
    public = course / "public"
    (public / "00_test_img_input" / "train" / "images" / "a.jpg").unlink()
    draw(public / "00_test_img_input" / "test" / "images" / "extra.jpg")
    (public / "results.csv").write_text("x")
    draw(public / "00_test_img_check" / "photo.jpg")
    stdout, stderr = prepared(course)
    assert sorted(stderr.splitlines()) == [
        "skipped: public/00_test_img_check/photo.jpg: not part of a test",
        "skipped: public/00_test_img_input/test/images/extra.jpg: "
        "a photo without a label, which is not trained on",
        "skipped: public/00_test_img_input/train/images/a.jpg: "
        "a label without a file, in public/00_test_img_input/train/gt.csv",
        "skipped: public/results.csv: not part of a test",
    ]
    assert "files skipped: 4" in stdout
    assert set(gt(out, "00_test_img", "train")) == {"b.jpg", "ü.png"}
    assert set(gt(out, "00_test_img")) == {"a.jpg", "b.jpg", "ü.png"}


def test_course_without_truth(course, refused):
    (course / "public" / "00_test_img_gt" / "gt.csv").unlink()
    refused(course, causes=["00_test_img_gt/gt.csv", "whole archive"])


# --- holdout ------------------------------------------------------------------------------------


def test_holdout_photos_are_kept_out_of_training(tree, out, prepared):
    stdout, stderr = prepared(tree, "--holdout", "0.25")
    train, held = gt(out, "00_test_img"), gt(out, "01_holdout")
    assert train == gt(out, "00_test_img", "train") == gt(out, "01_holdout", "train")
    assert not train.keys() & held.keys()
    assert Counter(held.values()) == {0: 2, 2: 2}
    assert Counter(train.values()) == {0: 6, 1: 1, 2: 6}
    assert stderr == ""
    assert "13 photos to train on, 4 to classify\n" in stdout


@pytest.mark.parametrize(
    ("source", "test", "words"),
    [("tree", "01_holdout", "--holdout 0.25"), ("cub", "01_hidden", "")],
)
def test_the_seed_decides_which_photos_are_hidden(request, tmp_path, source, test, words, prepared):
    source, hidden = request.getfixturevalue(source), []
    for number, seed in enumerate((0, 0, 1)):
        prepared(source, *words.split(), "--seed", seed, to=tmp_path / str(number))
        folder = tmp_path / str(number) / f"{test}_input/test/images"
        hidden.append({path.read_bytes() for path in folder.iterdir()})
    assert hidden[0] == hidden[1] != hidden[2]


def test_holdout_of_the_course_archive(course, out, prepared):
    images = course / "public" / "00_test_img_input" / "train"
    for number in range(10):
        draw(images / "images" / f"{number}.jpg")
    rows = "".join(f"{number}.jpg,{number % 2}\n" for number in range(10))
    (images / "gt.csv").write_text("filename,class_id\n" + rows)
    _, stderr = prepared(course, "--holdout", "0.2")
    assert Counter(gt(out, "01_holdout").values()) == {0: 1, 1: 1}
    assert len(gt(out, "00_test_img")) == 8
    assert "test/images/a.jpg: not a training photo, and --holdout splits those" in stderr


def test_holdout_of_single_photos_is_refused(tmp_path, refused):
    for name in ("Auk", "Wren"):
        draw(tmp_path / "birds" / name / "1.jpg")
    refused(tmp_path / "birds", "--holdout", "0.5", causes=["no species has two photos"])


def test_holdout_leaves_out_copies(tree, out, prepared):
    (tree / "Auk" / "again.jpg").write_bytes((tree / "Auk" / "002.jpg").read_bytes())
    told = prepared(tree, "--holdout", "0.25").err
    assert "skipped: Auk/again.jpg: the same bytes as Auk/002.jpg\n" in told
    names = gt(out, "00_test_img").keys() | gt(out, "01_holdout").keys()
    assert "Auk_again.jpg" not in names
    assert "Auk_002.jpg" in names


# --- CUB-200-2011 -------------------------------------------------------------------------------


def draw_cub(source, counts):
    """Draw a stand-in of the archive: so many photos by CUB's number of the species."""
    photo = draw(source / "photo.jpg").read_bytes()
    (source / "photo.jpg").unlink()
    classes = {number: f"{number:03d}.Odd_Bird_{number}" for number in counts}
    images = [
        (number, f"{classes[number]}/Odd_Bird_{i:04d}_{number}{i}.jpg")
        for number, count in counts.items()
        for i in range(count)
    ]
    for key, (_, image) in enumerate(images):
        path = source / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo + b"%d" % key)  # a whole photo, and bytes of its own
    tables = {
        "images.txt": [f"{key} {image}" for key, (_, image) in enumerate(images, 1)],
        "image_class_labels.txt": [f"{key} {n}" for key, (n, _) in enumerate(images, 1)],
        "classes.txt": [f"{number} {name}" for number, name in classes.items()],
        "attributes.txt": ["1 has_bill_shape::curved"],
    }
    for name, rows in tables.items():
        (source / name).write_text("\n".join(rows) + "\n")
    return source


@pytest.fixture
def cub(tmp_path, monkeypatch):
    """An archive of 3 species with 6 photos and two others, and a sample of 3 species, 4 and 2."""
    for name, number in (("SPECIES", 3), ("PHOTOS", 6), ("PUBLIC", 4)):
        monkeypatch.setattr(samples, f"CUB_{name}", number)
    return draw_cub(tmp_path / "CUB" / "CUB_200_2011", {1: 6, 2: 5, 4: 6, 10: 7, 11: 6})


def test_cub_becomes_the_courses_sample(tmp_path, out, prepared):
    """The first 50 species with exactly 60 photos, 50 of each public and 10 hidden, whole."""
    counts = {1: 60, 2: 59, 3: 60, 10: 60, 100: 41} | dict.fromkeys(range(101, 149), 60)
    source = draw_cub(tmp_path / "CUB_200_2011", counts)
    stdout, stderr = prepared(source)
    assert stderr == ""
    public, hidden = gt(out, "00_test_img"), gt(out, "01_hidden")
    assert public == gt(out, "00_test_img", "train") == gt(out, "01_hidden", "train")
    assert Counter(public.values()) == dict.fromkeys(range(50), 50)
    assert Counter(hidden.values()) == dict.fromkeys(range(50), 10)
    assert sorted(public | hidden) == [f"{number:04d}.jpg" for number in range(3000)]
    chosen = [number for number, count in counts.items() if count == 60][:50]
    assert species(out)[1:] == [[str(i), f"Odd Bird {n}"] for i, n in enumerate(chosen)]
    assert "SOURCE was CUB-200-2011" in stdout
    taken = {
        path.read_bytes(): (public | hidden)[path.name]
        for test in ("00_test_img", "01_hidden")
        for path in (out / f"{test}_input/test/images").iterdir()
    }
    for class_id, number in enumerate(chosen):
        for path in (source / "images" / f"{number:03d}.Odd_Bird_{number}").iterdir():
            assert taken.pop(path.read_bytes()) == class_id
    assert not taken


def test_cub_photos_that_are_missing_or_damaged_are_named(cub, out, prepared):
    folder = cub / "images" / "001.Odd_Bird_1"
    (folder / "Odd_Bird_0003_13.jpg").unlink()
    (folder / "Odd_Bird_0004_14.jpg").write_bytes(b"damaged")
    stdout, stderr = prepared(cub)
    where = "images/001.Odd_Bird_1/Odd_Bird_000"
    assert f"skipped: {where}3_13.jpg: a label without a file\n" in stderr
    assert f"{where}4_14.jpg: no photo that Pillow reads\n" in stderr
    assert "skipped: 2 (1 unreadable, 1 label-without-file)" in stdout
    assert len(gt(out, "00_test_img") | gt(out, "01_hidden")) == 16


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt", "classes.txt"])
def test_cub_without_a_table(cub, refused, name):
    (cub / name).unlink()
    refused(cub, causes=[f"{name} is missing"])


def test_a_part_of_cub_is_no_sample(cub, refused):
    rows = (cub / "image_class_labels.txt").read_text().splitlines()
    (cub / "image_class_labels.txt").write_text("\n".join(rows[:20]))
    refused(cub, causes=["2 species of exactly 6 photos", "CUB-200-2011"])


def test_class_folders_of_cub_get_names_for_people(tmp_path, out, prepared):
    for name in ("001.Black_footed_Albatross", "002.Laysan_Albatross"):
        draw(tmp_path / "images" / name / "000.jpg")
    prepared(tmp_path)
    names = ["Black_footed_Albatross_000.jpg", "Laysan_Albatross_000.jpg"]
    assert gt(out, "00_test_img") == {names[0]: 0, names[1]: 1}
    assert species(out)[1:] == [["0", "Black footed Albatross"], ["1", "Laysan Albatross"]]


# --- class ids and names --------------------------------------------------------------------------


def test_the_courses_sample_gets_the_inferred_names(tmp_path, out, prepared):
    source = tmp_path / "course"
    names = [f"{number:04d}.jpg" for number in range(2500)]
    labels = {name: number % 50 for number, name in enumerate(names)}
    images = source / "00_test_img_input/train/images"
    picture = draw(images / names[0])
    for name in names[1:]:
        (images / name).hardlink_to(picture)
    (images.parent.parent / "test").mkdir()
    (images.parent.parent / "test/images").symlink_to(images)
    for folder in (images.parent, source / "00_test_img_gt"):
        folder.mkdir(exist_ok=True)
        (folder / "gt.csv").write_bytes(layout.gt_bytes(labels))
    stdout, _ = prepared(source)
    assert "names of the species: inferred" in stdout
    header, first, *_ = species(out)
    assert header == ["class_id", "name", "source"]
    assert first == ["0", "Black footed Albatross", "inferred"]
    for folder in (source, out):
        assert len(layout.load_training_set(folder, solution.may_be_photo).species) == 50
    assert layout.inferred_species(number % 50 for number in range(2450)) == {}


# --- all or nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["00_test_img_gt", "07_x_input", "species.csv"])
def test_nothing_is_overwritten(tree, out, name, prepared):
    out.mkdir()
    (out / name).mkdir() if "_" in name else (out / name).write_text("mine")
    stdout, stderr = prepared(tree, status=1)
    assert stdout == ""
    assert stderr.startswith(f"Error: {out / name} exists already; move or delete it")
    assert stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == [name]


def test_a_failing_rename_takes_the_others_back(tree, out, monkeypatch, prepared):
    out.mkdir()
    (out / "README.md").write_text("mine")
    rename = Path.rename

    def fail_once(self, target):
        if self.name == "00_test_img_input" and Path(target).parent == out:
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    stdout, stderr = prepared(tree, status=1)
    assert stdout == f"Reading {tree}\n"
    assert stderr == f"Error: {out} cannot be written: the disk is full; free some space\n"
    assert [path.name for path in out.iterdir()] == ["README.md"]


# --- what is no folder and no file --------------------------------------------------------------


MAKE = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a file": lambda path: path.write_bytes(b"x"),
    "a flat folder": lambda path: draw(path / "1.jpg"),
    "an empty folder": lambda path: path.mkdir(),
}
ODD_PATHS = {  # how it is called, its kind, the cause that is named
    ("{}", "nothing"): "no such file or folder; check the path",
    ("{}", "a file"): "is no whole zip or tar; download it again, or unpack it yourself",
    ("{}", "a flat folder"): "holds neither NN_<name>_input folders nor <species>/*.jpg",
    ("{}", "a pipe"): "is a device or a pipe; give a folder or an archive",
    ("{} --out {}/new", "a file"): "a part of its path is a file",
    ("--check {}", "a file"): "an archive must be unpacked first",
    ("--check {}", "an empty folder"): "holds neither NN_<name>_input folders",
    ("{tree} --out {}", "a file"): "a part of its path is a file",
    ("{tree} --out {}", "a link to itself"): "its links lead round in a circle; remove one",
    ("--check {tree} --json {}", "a pipe"): "is a device or a pipe: name a file to write",
    ("--check {tree} --json {tree}/Auk/001.jpg", "an input"): "is read by this command",
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and links of POSIX")
@pytest.mark.parametrize(("words", "kind"), ODD_PATHS)
def test_a_path_that_is_something_else(words, kind, tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd"
    MAKE.get(kind, str)(path)
    before = sorted(tmp_path.rglob("*"))
    status = call(main, *words.format(*[path] * 2, tree=tree).split())
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (1, 1), error
    assert error.startswith("Error: ")
    assert ODD_PATHS[words, kind] in error
    assert str(path if "{}" in words else words.format(tree=tree).split()[-1]) in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix", reason="links and names of POSIX")
def test_a_name_of_two_lines_is_named_in_one(tree, prepared):
    (tree / "Auk/two\nlines\033[2J.jpg").write_bytes(b"no photo")
    error = prepared(tree).err
    assert error.count("\n") == 1
    assert error.startswith(r"skipped: Auk/two\nlines\x1b[2J.jpg: ")


def test_as_many_photos_of_one_name_as_there_may_be():
    rows = [samples.Photo("1.jpg", 0, "", Path())] * 20_000  # takes a day if each asks all others
    names = {photo.name for photo in samples.with_names(rows)}
    assert {"1.jpg", "1_2.jpg", "1_20000.jpg"} <= names
    assert len(names) == 20_000


# --- command line -------------------------------------------------------------------------------


def test_it_writes_beside_itself():
    assert parse_arguments(["x"]).out == Path(__file__).parents[1] / "public_data"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "SOURCE"),
        (["x", "--holdout", "0.6"], "more than 0 and at most 0.5"),
        (["x", "--holdout", "nan"], "more than 0 and at most 0.5"),
        (["x", "--seed", "-1"], "from 0 to 4294967295"),
        (["x", "--colour"], "--colour"),
        (["x", "--check", "y"], "either SOURCE or --check"),
        (["x", "--json", "y"], "with --check"),
    ],
)
def test_wrong_calls_exit_with_2(capsys, arguments, word):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
