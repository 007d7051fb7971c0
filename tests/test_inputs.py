"""Input kind by command: what people really have, and what each command makes of it.

Every photo kind is READ, DAMAGED or UNREADABLE. Every kind of table is read as the same two labels
by all but the testing system's script.
"""

import io
import json
import os
import re
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import solution
from birddata import dataset_check, samples
from birddata.findings import Findings
from course import layout, tables
from course.files import UserError
from course.layout import CheckerError, read_csv, script_remark
from grader.session import check_answer
from public_data import prepare
from public_data.prepare import main
from tests.commands import call
from tests.conftest import SHIPPED, TINY

RNG = np.random.default_rng(0)


def picture(mode="RGB", size=(96, 72)) -> Image.Image:
    """Soft blots that no other picture has, so that nothing is taken for a copy."""
    blots = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC).convert(mode)


def saved(form, mode="RGB", **how) -> bytes:
    file = io.BytesIO()
    picture(mode).save(file, form, **how)
    return file.getvalue()


def png_with(kind, body, crc=None) -> bytes:
    """A PNG with one more chunk."""
    data, crc = saved("PNG"), zlib.crc32(kind + body) if crc is None else crc
    return (
        data[:33] + struct.pack(">L4s", len(body), kind) + body + struct.pack(">L", crc) + data[33:]
    )


def cut(data, share=0.6) -> bytes:
    return data[: int(len(data) * share)]


def many(form) -> bytes:
    return saved(form, save_all=True, append_images=[picture(), picture()])


CYRILLIC = b"\xe4\xf0\xee\xe7\xe4.jpg".decode("utf-8", "surrogateescape")  # cp1251
JPEGS = (
    *("baseline.jpg", "saved.jfif", "UPPER.JPG", "no_extension", "jpg_called.heic", CYRILLIC),
    *("Zaunko\u0308nig.jpg", "emoji \U0001f426.jpg", "100%d & 'more' #1.jpg", "semi;colon.jpg"),
    *("-option.jpg", "[red]breast.jpg", "\u00fc" * 120 + ".jpg"),
)
READ = {
    **{name: saved("JPEG") for name in JPEGS},
    **{
        f"saved.{form}": saved(form.upper())
        for form in ("png", "gif", "bmp", "webp", "ppm", "tga", "ico", "pcx", "sgi", "dds")
    },
    "saved.jp2": saved("JPEG2000"),
    "cmyk.jpg": saved("JPEG", "CMYK"),
    "grey.jpg": saved("JPEG", "L"),
    "png_called.jpg": saved("PNG"),
    "alpha.png": saved("PNG", "RGBA"),
    "palette.png": saved("PNG", "P", transparency=0),
    "deep.png": saved("PNG", "I;16"),
    "animated.png": many("PNG"),
    "animated.gif": many("GIF"),
    "lzw.tif": saved("TIFF", compression="tiff_lzw"),
    "damaged_exif.jpg": saved("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "garbage_after.jpg": saved("JPEG") + b"garbage" * 99,
}
DAMAGED = {  # read, and the check names it
    "cut.jpg": cut(saved("JPEG")),
    "cut.png": cut(saved("PNG")),
    "much_text.png": png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * 2**20))),
    "bad_sum.png": png_with(b"tEXt", b"Comment\0hello", crc=1),
}
# Left out of training and by prepare, the fallback in classify, an error to the check.
UNREADABLE = {
    "empty.jpg": b"",
    "page.jpg": b"<html>404</html>",
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "head.jpg": saved("JPEG")[:100],
    "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "phone.heic": b"\0\0\0\x18ftypheic" + bytes(99),
    "phone.avif": b"\0\0\0\x18ftypavif" + bytes(99),
    "icon.xbm": b"#define im_width 8\n#define im_height 8\n",
    "film.mp4": b"\0\0\0\x18ftypmp42" + bytes(99),
    "nowhere.jpg": None,  # a link to nothing
}
PHOTOS = READ | DAMAGED | UNREADABLE
LABELS = {name: number % 3 for number, name in enumerate(PHOTOS)}


def write_test(root, photos, gt) -> Path:
    """Write a test whose photos are all to train on and to classify; returns the folder."""
    images = root / "00_x_input/train/images"
    images.mkdir(parents=True)
    for name, content in photos.items():
        if content is None:
            (images / name).symlink_to("gone.jpg")
        else:
            (images / name).write_bytes(content)
    (root / "00_x_input/test").mkdir()
    (root / "00_x_input/test/images").symlink_to(images, target_is_directory=True)
    (root / "00_x_gt").mkdir()
    for folder in (images.parent, root / "00_x_gt"):
        (folder / "gt.csv").write_bytes(gt)
    return root


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A test with a photo of each kind, and other files beside them."""
    try:
        root = write_test(tmp_path_factory.mktemp("kinds"), PHOTOS, layout.gt_bytes(LABELS))
    except (OSError, UnicodeError) as error:
        pytest.skip(f"this system takes not every name: {error}")
    images = root / "00_x_input/train/images"
    for name in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (images / name).write_bytes(b"something else")
    if hasattr(os, "mkfifo"):
        os.mkfifo(images / "pipe.jpg")  # whoever opens it waits for ever
    (images / "folder.jpg").mkdir()
    return root


def left_out(text) -> set[str]:
    """Which photos are said to be left out, however a console shows their names."""
    words = ("cannot be decoded", "left out of training", "skipped: ")
    lines = [line for line in text.splitlines() if line.startswith(words)]
    paths = [re.split(r" \(|: ", line)[1] for line in lines]
    shown = {name.encode(errors="backslashreplace").decode(): name for name in PHOTOS}
    return {
        name for told, name in shown.items() if any(path.endswith(f"/{told}") for path in paths)
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that has learnt nothing."""
    path = tmp_path_factory.mktemp("model") / "birds_model.pt"
    torch.save(solution.to_checkpoint(solution.BirdNet(range(3)), TINY), path)
    return path


def test_classify_answers_every_kind_and_names_what_it_cannot_read(kinds, model, capsys, tmp_path):
    answers = solution.classify(model, kinds / "00_x_input/train/images")
    told = capsys.readouterr().err
    assert answers.keys() == PHOTOS.keys()
    assert left_out(told.encode(errors="backslashreplace").decode()) == UNREADABLE.keys()
    last = f"{len(UNREADABLE)} of {len(PHOTOS)} photos cannot be decoded: the lines above say"
    assert told.splitlines()[-1].startswith(last)
    (tmp_path / "output.csv").write_bytes(layout.gt_bytes(answers))
    truth = read_csv(kinds / "00_x_gt/gt.csv")
    assert check_answer(read_csv(tmp_path / "output.csv"), truth)[1] == len(PHOTOS)


def test_training_leaves_out_what_cannot_be_read_and_saves(kinds, capsys):
    settings = replace(TINY, epochs=1, weights=str(SHIPPED))
    folder = kinds / "00_x_input/train/images"
    network = solution.train_classifier(LABELS, folder, settings=settings)
    told = capsys.readouterr().err.encode(errors="backslashreplace").decode()
    assert left_out(told) == UNREADABLE.keys()
    assert network.class_ids == [0, 1, 2]


def test_prepare_takes_what_training_takes(kinds, tmp_path, prepared):
    out, told = prepared(kinds)
    assert left_out(told) == UNREADABLE.keys()
    taken = tables.read_labels(tmp_path / "out" / "00_x_gt/gt.csv")
    assert len(taken) == len(PHOTOS) - len(UNREADABLE)
    assert f"{2 * len(UNREADABLE)} unreadable" in out  # in train and in test


def test_the_check_finds_what_training_leaves_out_and_nothing_else(kinds, tmp_path):
    assert dataset_check.run(kinds, tmp_path / "found.json") == dataset_check.EXIT_STATUS["error"]
    findings = json.loads((tmp_path / "found.json").read_text())["findings"]
    found = {
        kind["code"]: {Path(file).name for item in kind["items"] for file in item["files"]}
        for kind in findings
    }
    assert found["unreadable"] == UNREADABLE.keys()
    assert found["truncated"] | found["odd-metadata"] == DAMAGED.keys()
    assert not found.keys() & {"file-without-label", "label-without-file", "near-copy"}


# --- tables ---------------------------------------------------------------------------------------

SAME, OTHER, STOPS = "same", "other", "stops"  # what the testing system's script reads
PLAIN = "filename,class_id\na.jpg,0\nb.jpg,3\n"
TABLES = {
    "plain": (PLAIN, SAME),
    "carriage returns": (PLAIN.replace("\n", "\r\n"), SAME),
    "Excel's mark": ("\ufeff" + PLAIN, SAME),
    **{f"UTF-{kind}": (PLAIN.encode(f"utf-{kind}"), STOPS) for kind in ("16", "16-le", "32")},
    "a word on what separates": ("sep=;\n" + PLAIN.replace(",", ";"), STOPS),
    "a comment and a blank line": ("# my labels\n\n" + PLAIN, STOPS),
    "a blank": (PLAIN.replace(",3", ", 3"), SAME),
    "3.0": (PLAIN.replace(",3", ",3.0"), STOPS),
    "semicolons": (PLAIN.replace(",", ";"), STOPS),
    "quotes": (PLAIN.replace("b.jpg", '"b.jpg"'), OTHER),
    "one more column": ("filename,class_id,name\na.jpg,0,Auk\nb.jpg,3,Owl\n", STOPS),
    "columns turned": ("class_id,filename\n0,a.jpg\n3,b.jpg\n", STOPS),
    "folder": (PLAIN.replace("b.jpg", "images/b.jpg"), OTHER),
    "Windows": (PLAIN.replace("b.jpg", "C:\\birds\\b.jpg"), OTHER),
    "capitals": (PLAIN.replace("b.jpg", "B.JPG"), OTHER),
    "no extension": (PLAIN.replace("b.jpg", "b"), OTHER),
    "blanks around": (PLAIN.replace("b.jpg", " b.jpg "), OTHER),
    "old Mac": (PLAIN.replace("\n", "\r"), SAME),
    "blanks above": (PLAIN.replace(",class_id", " , class_id"), STOPS),
    "all in quotes": ('"filename","class_id"\n"a.jpg","0"\n"b.jpg","3"\n', STOPS),
    "twice the same": (PLAIN + "b.jpg,3\n", SAME),
}


@pytest.fixture(params=TABLES.values(), ids=TABLES)
def table(request, tmp_path):
    """A test whose two tables are of a kind; its folder and what the script makes of it."""
    text, script = request.param
    gt = text if isinstance(text, bytes) else text.encode()
    return write_test(tmp_path / "t", {f"{n}.jpg": saved("JPEG") for n in "ab"}, gt), script


def test_every_command_reads_the_same_labels(table, tmp_path, prepared):
    root, script = table
    gt = root / "00_x_input/train/gt.csv"
    images = [path.name for path in solution.list_photos(gt.with_name("images"))]
    read = tables.read_labels(gt)
    matched = {file: read[name] for name, file in tables.match_names(read, images).items()}
    assert matched == {"a.jpg": 0, "b.jpg": 3}
    prepared(root)
    assert tables.read_labels(tmp_path / "out/00_x_input/train/gt.csv") == matched
    dataset_check.run(root, tmp_path / "found.json")
    codes = {k["code"] for k in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert not codes & {"bad-table", "bad-row", "label-without-file", "file-without-label"}
    tidied = any(mark in gt.read_text(errors="ignore") for mark in ('"', " b.jpg"))
    assert ("script-differs" in codes) == (script == STOPS or tidied)
    assert ("other-name" in codes) == (script == OTHER and not tidied)


def test_the_grader_reads_as_strictly_as_the_script(table):
    root, script = table
    gt = root / "00_x_gt/gt.csv"
    if script == STOPS:
        with pytest.raises(CheckerError, match=r"gt\.csv"):
            read_csv(gt)
        assert script_remark(gt, {}).startswith("the testing system's script would stop")
    else:
        assert (read_csv(gt) == {"a.jpg": 0, "b.jpg": 3}) == (script == SAME)


BROKEN_TABLES = {
    "a header only": "filename,class_id\n",
    "empty": "",
    "two ids for a photo": PLAIN + "a.jpg,1\n",
    "an open quote": PLAIN.replace("b.jpg", '"b.jpg'),
    "binary": bytes(range(256)) * 99,
}


@pytest.mark.parametrize(
    "table", [(text, STOPS) for text in BROKEN_TABLES.values()], ids=BROKEN_TABLES, indirect=True
)
def test_every_command_refuses_a_broken_table_in_one_line(table, prepared):
    root, _ = table
    with pytest.raises(UserError) as stop:
        layout.load_training_set(root, solution.may_be_photo)
    assert "gt.csv" in str(stop.value)
    error = prepared(root, status=1).err.splitlines()[-1]
    for line in (str(stop.value), error):
        assert "\n" not in line
        assert len(line) < 400
    assert error.startswith("Error: 00_x_")
    assert call(main, "--check", root) == 4
    with pytest.raises(CheckerError):
        check_answer({}, read_csv(root / "00_x_gt/gt.csv"))


@pytest.mark.parametrize("row", ["a.jpg", "a.jpg,one", "a.jpg,2.5", ",3", "a.jpg,"])
def test_what_is_no_row_is_refused_by_all(row, tmp_path):
    gt = tmp_path / "gt.csv"
    gt.write_text(f"{PLAIN}{row}\n")
    with pytest.raises(UserError, match=f"line 4: '{row}' is not filename,class_id; correct it"):
        tables.read_labels(gt)
    with pytest.raises(CheckerError, match="line 4"):
        read_csv(gt)


def test_a_species_table_may_have_more_columns_and_other_forms(tmp_path):
    path = tmp_path / "species.csv"
    for text in ("class_id,name\n3,Auk\n", "\ufeffname;class_id;n\nAuk;3;9\n"):
        path.write_text(text, encoding="utf-8")
        assert tables.read_species(path) == {3: "Auk"}


@pytest.mark.parametrize("rows", ["3,Auk\n3,Owl\n", "x,Auk\n", "3\n"])
def test_a_species_table_that_contradicts_itself_is_refused(rows, tmp_path):
    (tmp_path / "species.csv").write_text(f"class_id,name\n{rows}")
    with pytest.raises(UserError, match=r"species\.csv.*; correct it"):
        tables.read_species(tmp_path / "species.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_no_table_and_no_model(tmp_path):
    """Whoever opens it waits for ever."""
    os.mkfifo(tmp_path / "gt.csv")
    with pytest.raises(UserError, match="is a device or a pipe; give a file"):
        tables.read_labels(tmp_path / "gt.csv")
    with pytest.raises(CheckerError, match="no file"):
        read_csv(tmp_path / "gt.csv")
    with pytest.raises(solution.SubmissionError, match="no file"):
        solution.load_file(tmp_path / "gt.csv")


# --- names ----------------------------------------------------------------------------------------


DROZD = "\u0434\u0440\u043e\u0437\u0434.jpg"  # a thrush, as UTF-8; CYRILLIC is a Russian Windows'


def test_names_match_where_only_one_photo_can_be_meant():
    there = ["a.jpg", "B.JPG", "u\u0308.png", "d.jpg", "d.png", "e e.tif", "\udcff.jpg"]
    named = {
        "a.jpg": "a.jpg",
        "b.jpg": "B.JPG",
        "images/\u00fc.png": "u\u0308.png",
        "d": None,  # which of the two?
        "D.png": "d.png",
        " E E": "e e.tif",
        "\udcff.jpg": "\udcff.jpg",
        "A.jpg": None,  # that is another row's
        "f.jpg": None,
    }
    found = {name: file for name, file in named.items() if file}
    assert tables.match_names(named, there) == found
    for row, file in ((DROZD, CYRILLIC), (CYRILLIC, DROZD), ("Gr\udcfcn.jpg", "Gr\u00fcn.jpg")):
        assert tables.match_names([row], [file]) == {row: file}


def test_labels_take_the_names_of_the_files(tmp_path):
    labels = {"images/00.JPG": 3, "01.jpg": 1, "gone.jpg": 2}
    photos = dict.fromkeys(("00.jpg", "01.jpg", "more.jpg"), b"")
    read = layout.load_training_set(
        write_test(tmp_path, photos, layout.gt_bytes(labels)), solution.may_be_photo
    )
    assert read.gt == {"00.jpg": 3, "01.jpg": 1, "gone.jpg": 2}
    assert (read.missing, read.unlabelled) == (["gone.jpg"], ["more.jpg"])


@pytest.mark.parametrize("how", ["training", "prepare", "table beside photos"])
def test_labels_that_name_no_photo_are_refused_in_one_line(how, tmp_path, prepared):
    gt = layout.gt_bytes(dict.fromkeys(("owl.jpg", "auk.jpg", "emu.jpg"), 1))
    source = write_test(tmp_path / "source", {f"{n}.jpg": saved("JPEG") for n in "abc"}, gt)
    if how == "training":
        with pytest.raises(UserError) as stop:
            layout.load_training_set(source, solution.may_be_photo)
        told = f"Error: {stop.value}\n"
    else:
        source = source if how == "prepare" else source / "00_x_input/train"
        told = prepared(source, status=1).err
    assert "is that of a photo: labelled are auk.jpg, emu.jpg, the photos are " in told
    assert f"a.jpg, {'images/' if 'beside' in how else ''}b.jpg; correct the names in it" in told
    assert told.startswith("Error: ")
    assert told.count("\n") == 1


# Names, the encoding of the table that holds them, and what they become.
ENCODED = [
    ("\u0414\u0440\u043e\u0437\u0434", "cp1251", None),
    ("\u0427\u0438\u0436", "cp866", None),
    ("M\u00f6nchsgrasm\u00fccke", "cp1252", None),
    ("Geai bleu \u00e0 t\u00eate", "cp1252", None),
    ("Dzi\u0119cio\u0142", "cp1250", "Dzi\u00eacio\u00b3"),
    ("Grive \u0081", "latin-1", "Grive \\x81"),
]


@pytest.mark.parametrize(("name", "codec", "read"), ENCODED)
def test_names_of_species_in_another_encoding(tmp_path, name, codec, read, prepared):
    """What is neither UTF-8 nor Russian is Western, and so said."""
    path, photos = tmp_path / "species.csv", tmp_path / "photos"
    path.write_bytes(f"class_id,name\n3,{name}\n".encode(codec))
    assert tables.read_species(path) == {3: read or name}
    photos.mkdir()
    picture().save(photos / "a.jpg")
    (photos / "labels.csv").write_bytes(f"filename,label\na.jpg,{name}\n".encode(codec))
    told = prepared(photos).err
    assert (tmp_path / "out/species.csv").read_text("utf-8") == f"class_id,name\n0,{read or name}\n"
    guessed = codec in ("cp1250", "cp1252", "latin-1")
    assert told.startswith(f"note: {read or name}: no UTF-8, so it is read as Western") == guessed


def test_names_on_a_system_that_knows_ascii_alone():
    for name in ("Gr\u00fcnfink", "\u0414\u0440\u043e\u0437\u0434"):
        listed = name.encode().decode("ascii", "surrogateescape")
        assert samples.name_for_people(listed) == tables.decode_name(listed) == name


def test_spellings_of_a_species_are_joined():
    found = Findings()
    labels = ["House_Sparrow", "HOUSE sparrow", "Auk", "Gr\u00fcnfink", "Gru\u0308nfink"]
    ids, species = samples.number_species(labels, found)
    assert [ids[label] for label in labels] == [2, 2, 0, 1, 1]
    assert set(species) == {0, 1, 2}
    assert len(found["joined-name"]) == 2


# --- HEIC -----------------------------------------------------------------------------------------


def folders_with(path, content) -> Path:
    """A folder of one species with a JPEG and a photo of this content."""
    (path / "birds/Auk").mkdir(parents=True)
    (path / "birds/Owl").mkdir()
    picture().save(path / "birds/Auk/1.jpg")
    picture().save(path / "birds/Owl/1.jpg")
    (path / "birds/Auk/phone.heic").write_bytes(content)
    return path / "birds"


def test_heic_becomes_jpeg_where_pillow_heif_is(tmp_path, prepared):
    pillow_heif = pytest.importorskip("pillow_heif")
    photo, exif = Image.new("RGB", (96, 72), "red"), Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(photo).save(tmp_path / "photo.heic", exif=exif.tobytes())
    source = folders_with(tmp_path, (tmp_path / "photo.heic").read_bytes())
    told = prepared(source)
    assert told.err == ""
    assert "files skipped: 0" in told.out
    labels = tables.read_labels(tmp_path / "out/00_test_img_gt/gt.csv")
    assert labels == {"Auk_1.jpg": 0, "Auk_phone.jpg": 0, "Owl_1.jpg": 1}
    read = solution.read_photo(tmp_path / "out/00_test_img_input/test/images/Auk_phone.jpg", 64)
    assert read.size == (72, 96)  # upright
    assert read.getpixel((9, 9))[0] > 200


def test_without_pillow_heif_it_is_named(tmp_path, monkeypatch, prepared):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    source = folders_with(tmp_path, b"\0\0\0\x18ftypheic" + bytes(99))
    told = prepared(source)
    assert "skipped: Auk/phone.heic: HEIC, which prepare.py makes JPEG" in told.err
    assert "`pip install pillow-heif`" in told.err
    assert "files skipped: 1 (1 unreadable)" in told.out


def test_what_cannot_be_written_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dataset_check, "check_folder", None)
    monkeypatch.setattr(prepare, "read_source", None)
    (tmp_path / "file").write_text("")
    for words in (["--check", ".", "--json"], [".", "--out"]):
        assert call(main, *words, tmp_path / "file/below") == 1
        told = capsys.readouterr().err
        assert told.startswith("Error: ")
        assert str(tmp_path / "file") in told
        assert told.count("\n") == 1


# --- a table beside photos ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows", "species"),
    [
        ("id,breed", ("a,Owl", "b,Auk"), {"0": "Auk", "1": "Owl"}),
        ("filename,label", ("train/a.jpg,Owl", "train/b.jpg,Auk"), {"0": "Auk", "1": "Owl"}),
        ("filename,class_id", ("a.jpg,1", "b.jpg,0"), None),
    ],
)
def test_a_table_beside_photos_gives_the_labels(tmp_path, header, rows, species, prepared):
    source = tmp_path / "source"
    (source / "train").mkdir(parents=True)
    for name in "abc":
        picture().save(source / "train" / f"{name}.jpg")
    (source / "labels.csv").write_text("\n".join([header, *rows, ""]))
    told = prepared(source)
    assert "photos with the table labels.csv" in told.out
    assert "skipped: train/c.jpg: a photo without a label" in told.err
    assert tables.read_labels(tmp_path / "out/00_test_img_gt/gt.csv") == {"a.jpg": 1, "b.jpg": 0}
    assert (tmp_path / "out/species.csv").exists() == (species is not None)


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ('id,breed\n"a,Owl\nb,Auk\n', "labelled are none, the photos are train/a.jpg"),
        ("id,breed\n" + "a,Owl\n" * 3_000_000, "labels.csv is larger than 16 MiB, so it is no tab"),
        ("id breed\na Owl\n", "nor a table beside photos, with columns such as filename and label"),
        ("id,breed\na.jpg,Owl\nb,\n", "line 3: 'b,' is not a file name and a label"),
    ],
    ids=["an open quote", "too large", "blanks", "no label"],
)
def test_one_folder_of_photos_is_no_species(tmp_path, table, cause, prepared):
    (tmp_path / "source/train").mkdir(parents=True)
    picture().save(tmp_path / "source/train/a.jpg")
    (tmp_path / "source/labels.csv").write_text(table)
    told = prepared(tmp_path / "source", status=1).err
    assert cause in told
    assert told.count("\n") == 1
