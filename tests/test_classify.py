"""classify: an answer for every photo, whatever is in the folder."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import TINY, draw_photo, glass
from PIL import Image
from torch.nn import functional

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


def plain_look(network, pixels, box, size):
    """Logits of a part (3, H, W) and its mirror image, by torch's own modules."""
    left, top, right, bottom = box
    part = pixels[None, :, top:bottom, left:right]
    view = functional.interpolate(part, size, mode="bilinear", antialias=True) / 255
    view = (view - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        return (network(view)[0] + network(view.flip(3))[0]) / 2


def test_answers_are_those_of_the_plain_network(photos, network, model_path):
    gt, folder = photos
    names, answers = list(gt)[:5], classify(model_path, folder)
    classifier = solution.load_classifier(model_path)
    logits = []
    for path, seen in classifier.answers([folder / name for name in names]):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        height, width = pixels.shape[1:]
        whole, size = (0, 0, width, height), (64, 96) if width > height else (96, 64)
        first = plain_look(network, pixels, whole, size)
        second = plain_look(network, pixels, seen.box, (64, 64))
        torch.testing.assert_close(seen.first, first, atol=1e-3, rtol=0)
        torch.testing.assert_close(seen.second, second, atol=1e-3, rtol=0)
        expected = (seen.first + 3 * seen.second) / 4
        torch.testing.assert_close(seen.logits, expected)
        assert answers[path.name] == network.class_ids[int(expected.argmax())]
        logits.append(seen.second)
    spread = torch.cdist(torch.stack(logits), torch.stack(logits), p=torch.inf)
    assert spread.fill_diagonal_(9).min() > 0.005, "a fixture that sees"
    assert len(set(answers.values())) > 1


def test_an_answer_depends_on_its_photo_alone(photos, model_path):
    """Not on the others, on their order, or on the number of threads."""
    gt, folder = photos
    paths, before = [folder / name for name in list(gt)[:6]], torch.get_num_threads()
    classifier, found = solution.load_classifier(model_path), []
    try:
        for order, threads in ((paths, 1), (paths[::-1], 2), (paths[:1], 2), (paths[3:], 1)):
            torch.set_num_threads(threads)
            found.append({path: seen.logits for path, seen in classifier.answers(order)})
    finally:
        torch.set_num_threads(before)
    for answers in found:
        assert all(torch.equal(logits, found[0][path]) for path, logits in answers.items())
    assert [len(answers) for answers in found] == [6, 6, 1, 3]


def test_a_large_jpeg_is_decoded_with_detail_for_the_second_look(folder):
    """A bird of a third of the photo's height is looked at with the pixels that a look wants."""
    pixels = np.zeros((768, 1024, 3), dtype=np.uint8)
    pixels[256:512, 384:640, 1] = 220
    Image.fromarray(pixels).save(folder / "large.jpg")
    seeing = glass(3)
    settings = replace(TINY, input_size=96, first_size=192)
    seeing.facts = {"settings": asdict(settings)}
    classifier = solution.Classifier(solution.to_checkpoint(seeing))
    ((_, seen),) = classifier.answers([folder / "large.jpg"])
    assert 96 <= seen.box[2] - seen.box[0] <= 300
    assert seen.second[1] > seen.first[1] + 1


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


def test_every_kind_of_photo_is_decoded(folder, model_path, capsys):
    for name, draw in MODES.items():
        draw().save(folder / name)
    assert list(classify(model_path, folder)) == sorted(MODES)
    assert capsys.readouterr().err == ""


def test_palette_with_transparency_lies_on_white(folder):
    photo = Image.new("P", (4, 4), 0)
    photo.putpalette([10, 20, 30, 200, 100, 50])
    photo.putpixel((0, 0), 1)
    photo.save(folder / "palette.png", transparency=0)
    rgb = solution.read_photo(folder / "palette.png", 4)
    assert rgb.getpixel((1, 1)) == (255, 255, 255)
    assert rgb.getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize(
    ("name", "dtype", "values", "expected"),
    [
        ("a.png", np.uint16, [0, 32768, 65535], [0, 127, 255]),
        ("a.tif", np.int32, [0, 32768, 65535], [0, 127, 255]),
        ("a.tif", np.float32, [0, 32768, 65535], [0, 127, 255]),
        ("a.tif", np.int32, [0, 100, 250], [0, 100, 250]),
        ("a.tif", np.float32, [-5, 100, 250], [0, 100, 250]),
    ],
)
def test_more_than_eight_bits_are_scaled_not_clipped(folder, name, dtype, values, expected):
    Image.fromarray(np.array([values], dtype=dtype)).save(folder / name)
    rgb = np.asarray(solution.read_photo(folder / name, 3))
    assert rgb[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "L"])
def test_exif_orientation_is_applied_whatever_the_mode(mode, folder):
    grey = np.zeros((20, 40), dtype=np.uint8)
    grey[:, :20] = 255  # white on the left
    photo = Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey)
    photo = photo if mode == "I;16" else photo.convert(mode)
    if mode == "RGBA":
        photo.putpixel((39, 19), (0, 0, 0, 0))
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
def test_what_cannot_be_decoded_is_answered_told_and_counted(
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
    assert said.count("\n") == 2
    assert said.splitlines()[1].startswith("1 of 2 photos cannot be decoded")
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


@pytest.mark.parametrize(("side", "decoded"), [(224, 600), (601, 1200), (1201, 2400)])
def test_a_huge_jpeg_is_decoded_small_but_not_too_small(folder, side, decoded):
    Image.new("RGB", (4800, 4800), "green").save(folder / "huge.jpg")
    assert solution.read_photo(folder / "huge.jpg", side).size == (decoded, decoded)


def test_a_look_of_more_pixels_decodes_more_of_them(folder):
    """At least four times as many as a look has, of which a bird may fill a quarter."""
    Image.new("RGB", (2400, 2400), "green").save(folder / "large.jpg")
    for side, decoded in ((64, 300), (120, 600), (320, 2400)):
        preprocessing = solution.preprocessing_of(replace(TINY, input_size=side))
        assert solution.read_pixels(folder / "large.jpg", preprocessing).shape[1] == decoded


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
