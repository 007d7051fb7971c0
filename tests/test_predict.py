"""`python predict.py PHOTO_OR_FOLDER`: what is printed, written and drawn, and how sure it is."""

import csv
import os

import numpy as np
import pytest
import torch
from conftest import IDS, TINY, draw_photo
from PIL import Image

import predict
import solution
from course.files import UserError
from reporting import drawing

NAMES = ["Wren", "Barn Owl", "Ибис"]


@pytest.fixture
def model(untrained, tmp_path):
    """Write a model of random weights, with other metadata where given; return its path."""

    def write(**metadata):
        checkpoint = solution.to_checkpoint(untrained, TINY) | metadata
        torch.save(checkpoint, tmp_path / "model.pt")
        return str(tmp_path / "model.pt")

    return write


def shares(out: str) -> dict[str, float]:
    """Return the percentages of printed species by name."""
    lines = [line.strip().split("%  ") for line in out.splitlines() if "%  " in line]
    return {name: float(percent) for percent, name in lines}


def test_a_photo_gets_species_and_probabilities(photos, model, capsys):
    photo = photos[1] / "01.jpg"
    assert predict.main([str(photo), "--model", model()]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{photo}\n")
    assert shares(out).keys() == set(NAMES)
    assert sum(shares(out).values()) == pytest.approx(100, abs=0.02)
    assert list(shares(out).values()) == sorted(shares(out).values(), reverse=True)
    best = solution.classify(model(), photo.parent)["01.jpg"]
    assert next(iter(shares(out))) == NAMES[IDS.index(best)]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"early_exit": 0.0}, "  1 view: whole photo\n"),
        ({}, "  4 views: whole photo; crop; crop, mirrored; whole photo, mirrored\n"),
        ({"confidence_threshold": 1.0}, "  uncertain: 95 % of the validation photos got more"),
        ({"class_names": None}, "%  class 1000\n"),
    ],
)
def test_what_the_checkpoint_says_is_told(metadata, expected, photos, model, capsys):
    predict.main([str(photos[1] / "00.jpg"), "--model", model(**metadata)])
    out = capsys.readouterr().out
    assert expected in out
    assert ("uncertain" in out) == ("confidence_threshold" in metadata)


def test_a_folder_prints_each_photo_and_csv_is_a_row_each(photos, model, tmp_path, capsys):
    gt, folder = photos
    path, out = model(), tmp_path / "out.csv"
    assert predict.main([str(folder), "--model", path]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.endswith(".jpg")] == [str(folder / n) for n in gt]
    assert predict.main([str(folder), "--model", path, "--csv", str(out)]) == 0
    assert capsys.readouterr() == (f"Wrote {out}: {len(gt)} photos\n", "")
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "species", "probability", "second", "third"]
    ids = dict(zip(NAMES, IDS, strict=True))
    assert {row["file"]: ids[row["species"]] for row in rows} == solution.classify(path, folder)
    assert all(0.333 < float(row["probability"]) <= 1 for row in rows)
    assert all({row["species"], row["second"], row["third"]} == set(NAMES) for row in rows)


def test_any_photo_is_classified_and_a_file_that_is_none_is_told(model, tmp_path, capsys):
    folder, out = tmp_path / "photos", tmp_path / "out.csv"
    folder.mkdir()
    (folder / "a.jpg").write_text("no photo")
    draw_photo(folder / "wide.png", 0, seed=0, size=(900, 3))
    Image.new("L", (1, 1)).save(folder / "dot.png")
    arguments = [str(folder), "--model", model(class_names=["Wren", "Owl", 'a "b", c'])]
    assert predict.main(arguments) == 1
    captured = capsys.readouterr()
    assert len(shares(captured.out)) == 3
    assert "a.jpg" not in captured.out
    why, count = captured.err.splitlines()
    assert "a.jpg" in why
    assert count.startswith("1 of 3 photos cannot be decoded")
    assert predict.main([*arguments, "--csv", str(out)]) == 1
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["file", "a.jpg", "dot.png", "wide.png"]
    assert rows[1][1:] == ["", "", "", ""]
    assert predict.main([str(folder / "a.jpg"), "--model", model()]) == 1


@pytest.mark.skipif(os.name != "posix", reason="links and names of POSIX")
def test_control_codes_in_names_are_shown_not_obeyed(model, tmp_path, capsys):
    link = tmp_path / "photos" / "loop\x1b[31m.jpg"
    link.parent.mkdir()
    link.symlink_to(link)
    draw_photo(link.with_name("a\nb\x1b.jpg"), 0, seed=0)
    assert predict.main([str(link.parent), "--model", model()]) == 1
    told = capsys.readouterr()
    start = rf"cannot be decoded: {link.parent}/loop\x1b[31m.jpg ("
    assert told.err.splitlines()[0].startswith(start)
    assert told.out.splitlines()[0] == rf"{link.parent}/a\nb\x1b.jpg"


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["absent.jpg"], "no photo or folder absent.jpg"),
        (["empty"], "no photo in empty"),
        (["photos", "--model", "absent.pt"], "absent.pt"),
        (["photos", "--show", "out.png"], "draws one photo"),
        (["photos", "--csv", "photos"], "photos is a folder"),
        (["photos", "--csv", "photos/00.png/out.csv"], "00.png cannot be written"),
        (["photos", "--csv", "empty/../photos/00.png"], "00.png is read by this command"),
        (["photos", "--csv", "model.pt"], "model.pt is read by this command"),
        (["photos", "--csv", "a", "--show", "./a"], "a would be written twice"),
        (["photos", "--csv", "-"], "- is stdout"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, cause, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "photos"):
        (tmp_path / name).mkdir()
    for name in ("00.png", "01.png"):
        draw_photo(tmp_path / "photos" / name, 0, seed=0)
    with pytest.raises((UserError, solution.SubmissionError), match=cause) as error:
        predict.main(["--model", model(), *arguments])
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_the_frame_on_the_photo_is_around_the_crop():
    pixels, cam = torch.randint(0, 60, (3, 80, 120), dtype=torch.uint8), torch.zeros(3, 4)
    cam[0, 0] = 0.2  # the peak of the map, in red
    whole, crop = (np.asarray(p) for p in drawing.draw_stages(pixels, cam, (60, 10, 110, 60)))
    rows, columns = np.nonzero((whole == 255).all(2))  # the frame is white
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (60, 10, 109, 59)
    pixels = pixels.permute(1, 2, 0).numpy()  # (H, W, 3)
    assert np.array_equal(crop, pixels[10:60, 60:110])
    assert abs(whole[:8, :8].astype(int) - (pixels[:8, :8] + [255, 0, 0]) / 2).max() <= 1
    assert np.array_equal(whole[61:], pixels[61:])


@pytest.mark.parametrize(
    ("size", "early_exit"), [((96, 72), 0.0), ((96, 72), 1.0), ((900, 3), 1.0)]
)
def test_show_draws_both_stages_and_replaces_the_file(size, early_exit, model, tmp_path, capsys):
    photo, out, held = (tmp_path / name for name in ("a.png", "out.png", "held.png"))
    draw_photo(photo, 0, seed=0, size=size)
    out.write_bytes(b"old")
    held.hardlink_to(out)
    arguments = [str(photo), "--model", model(early_exit=early_exit), "--show", str(out)]
    assert predict.main(arguments) == 0
    assert f"Wrote {out}" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert size[1] == 3 or (colours[:, 0] > colours[:, 1] + 60).any(), "the map is red"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.png", "held.png", "model.pt", "out.png")
    }
    assert held.read_bytes() == b"old", "replaced, not written into"
