"""classify: an answer for every photo, whatever is in the folder."""

import shutil

import numpy as np
import pytest
import torch
from conftest import draw_photo
from PIL import Image

import solution
from solution import SubmissionError, classify


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def test_answers_are_original_ids_as_plain_ints(photos, model_path):
    gt, folder = photos
    answers = classify(model_path, folder)
    assert answers.keys() == gt.keys()
    assert {type(answer) for answer in answers.values()} == {int}
    assert set(answers.values()) <= {-7, 3, 1000}


def test_answers_equal_those_of_the_plain_network(photos, network, model_path):
    _, folder = photos
    classifier = solution.load_classifier(model_path)
    for name, answer in classify(model_path, folder).items():
        view = solution.evaluation_view(
            solution.read_photo(folder / name, 64), classifier.preprocessing
        )
        with torch.no_grad():
            logits = network(solution.normalise([view], classifier.preprocessing))
        torch.testing.assert_close(classifier.logits([view]), logits, atol=1e-3, rtol=0)
        assert network.class_ids[int(logits.argmax())] == answer


MODES = {
    "grey.png": lambda: Image.fromarray(noise(40, 50)),
    "bits16.png": lambda: Image.fromarray(noise(40, 50, dtype=np.uint16)),
    "bits32.tif": lambda: Image.fromarray(noise(40, 50, dtype=np.int32)),
    "float.tif": lambda: Image.fromarray(noise(40, 50).astype(np.float32)),
    "rgba.png": lambda: Image.fromarray(noise(40, 50, 4)),
    "grey_alpha.png": lambda: Image.fromarray(noise(40, 50, 2)),
    "one_bit.png": lambda: Image.fromarray(noise(40, 50)).convert("1"),
    "cmyk.jpg": lambda: Image.fromarray(noise(40, 50, 3)).convert("CMYK"),
    "one_pixel.png": lambda: Image.new("RGB", (1, 1), "red"),
    "wide.png": lambda: Image.fromarray(noise(1, 3000, 3)),
    "tall.jpg": lambda: Image.fromarray(noise(3000, 2, 3)),
    "UPPER.JPG": lambda: Image.fromarray(noise(40, 50, 3)),
    "Зимородок küçük.png": lambda: Image.fromarray(noise(40, 50, 3)),
    "photo.webp": lambda: Image.fromarray(noise(40, 50, 3)),
    "photo.bmp": lambda: Image.fromarray(noise(40, 50, 3)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_photo_is_decoded(name, folder, model_path, capsys):
    MODES[name]().save(folder / name)
    assert list(classify(model_path, folder)) == [name]
    assert capsys.readouterr().err == ""


def test_palette_with_transparency_lies_on_white(folder):
    photo = Image.new("P", (4, 4), 0)
    photo.putpalette([10, 20, 30, 200, 100, 50])
    photo.putpixel((0, 0), 1)
    photo.save(folder / "palette.png", transparency=0)
    rgb = solution.read_photo(folder / "palette.png", 4)
    assert rgb.getpixel((1, 1)) == (255, 255, 255)
    assert rgb.getpixel((0, 0)) == (200, 100, 50)


def test_sixteen_bits_are_scaled_not_clipped(folder):
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(folder / "a.png")
    rgb = np.asarray(solution.read_photo(folder / "a.png", 3))
    assert rgb[0, :, 0].tolist() == [0, 127, 255]


def test_exif_orientation_is_applied(folder):
    photo = Image.new("RGB", (40, 20), "black")
    photo.paste("white", (0, 0, 20, 20))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side is the top
    photo.save(folder / "turned.png", exif=exif)
    upright = solution.read_photo(folder / "turned.png", 20)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255)
    assert upright.getpixel((10, 35)) == (0, 0, 0)


def test_damaged_exif_data_do_not_lose_the_photo(folder, monkeypatch):
    Image.new("RGB", (9, 9), "red").save(folder / "a.png")

    def damaged(photo):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    assert solution.read_photo(folder / "a.png", 9).getpixel((4, 4)) == (255, 0, 0)


def test_an_animation_counts_as_its_first_frame(folder, model_path):
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    assert solution.read_photo(folder / "a.gif", 30).getpixel((3, 3)) == (255, 0, 0)
    assert list(classify(model_path, folder)) == ["a.gif"]


def test_what_is_there_of_a_truncated_jpeg_is_used(folder, model_path, capsys):
    draw_photo(folder / "whole.jpg", 1, seed=0, size=(200, 200))
    content = (folder / "whole.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    assert list(classify(model_path, folder)) == ["half.jpg", "whole.jpg"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"no photo at all", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_what_cannot_be_decoded_is_answered_with_one_line(
    content, photos, folder, model_path, tmp_path, capsys
):
    (folder / "broken.jpg").write_bytes(content)
    shutil.copy(photos[1] / "00.jpg", folder / "good.jpg")
    checkpoint = torch.load(model_path, weights_only=True) | {"fallback_class": 1000}
    torch.save(checkpoint, tmp_path / "fallback.pt")
    answers = classify(tmp_path / "fallback.pt", folder)
    assert answers.keys() == {"broken.jpg", "good.jpg"}
    assert answers["broken.jpg"] == 1000
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "broken.jpg" in said


def test_no_program_is_started_for_postscript_in_disguise(folder, model_path, monkeypatch, capsys):
    Image.new("RGB", (8, 8)).save(folder / "a.eps")
    (folder / "a.eps").rename(folder / "a.jpg")
    monkeypatch.setattr("subprocess.Popen", None)
    assert list(classify(model_path, folder)) == ["a.jpg"]
    assert "a.jpg" in capsys.readouterr().err


def test_other_files_are_passed_over(folder, model_path):
    for name in ("Thumbs.db", ".DS_Store", "gt.csv", ".hidden.jpg", "notes.txt"):
        (folder / name).write_bytes(b"filename,class_id\n")
    (folder / "sub.jpg").mkdir()
    draw_photo(folder / "photo.png", 0, seed=0)
    (folder / "photo.png").rename(folder / "no_extension")
    draw_photo(folder / "a.jpg", 0, seed=0)
    assert list(classify(model_path, folder)) == ["a.jpg", "no_extension"]


def test_empty_and_missing_folders(folder, model_path):
    assert classify(model_path, folder) == {}
    with pytest.raises(SubmissionError, match="no folder"):
        classify(model_path, folder / "nowhere")


def test_a_huge_jpeg_is_decoded_small(folder):
    Image.new("RGB", (9000, 9000), "green").save(folder / "huge.jpg")
    photo = solution.read_photo(folder / "huge.jpg", 224)
    assert photo.size == (1125, 1125)


def test_more_pixels_than_memory_allows_get_the_fallback(folder, model_path, capsys):
    Image.new("1", (7000, 7000)).save(folder / "huge.png")
    Image.new("L", (7000, 7000)).save(folder / "huge.jpg", progressive=True)
    assert list(classify(model_path, folder)) == ["huge.jpg", "huge.png"]
    assert capsys.readouterr().err.count("7000 x 7000 pixels") == 2


def test_pillow_is_left_as_it_was(folder, model_path):
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    (folder / "broken.jpg").write_bytes(b"no photo")
    classify(model_path, folder)
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
