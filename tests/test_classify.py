"""classify: an answer for every photo, whatever is in the folder."""

import functools
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, glass, surroundings
from PIL import Image
from torch.nn import functional

import solution
from solution import SubmissionError, classify


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def plain_logits(network, pixels, box, size):
    """Logits of a part of a photo (3, H, W) and of its mirror image, by torch's own modules."""
    left, top, right, bottom = box
    part = pixels[None, :, top:bottom, left:right]
    view = functional.interpolate(part, size, mode="bilinear", antialias=True) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    view = (view - mean) / std
    with torch.no_grad():
        return network(view)[0], network(view.flip(3))[0]


def test_answers_are_those_of_the_plain_network(photos, network, model_path):
    gt, folder = photos
    paths, answers = [folder / name for name in gt][:5], classify(model_path, folder)
    assert answers.keys() == gt.keys()
    assert {type(answer) for answer in answers.values()} == {int}
    crops, predictor = [], solution.load_classifier(model_path).predictor
    for path, seen in zip(paths, predictor.predict(paths), strict=True):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        height, width = pixels.shape[1:]
        size = (64, 96) if width > height else (96, 64)
        whole = plain_logits(network, pixels, (0, 0, width, height), size)
        crop = plain_logits(network, pixels, seen.box, (64, 64))
        expected = torch.stack([whole[0], *crop, whole[1]])
        torch.testing.assert_close(seen.view_logits, expected, atol=1e-3, rtol=0)
        expected = 0.4 * sum(whole) / 2 + 0.6 * sum(crop) / 2
        torch.testing.assert_close(seen.logits, expected, atol=1e-3, rtol=0)
        assert answers[path.name] == network.class_ids[int(seen.logits.argmax())]
        assert seen.cam.shape == (size[0] // 32, size[1] // 32), "of the whole photo"
        crops.append(crop[0])
    spread = torch.cdist(torch.stack(crops), torch.stack(crops), p=torch.inf)
    assert spread.max() > 0.1, "a fixture that sees"
    assert len(set(answers.values())) > 1


@pytest.fixture
def exits_early(photos, model_path, tmp_path):
    """A model that is confident of half the photos at first sight."""
    paths = [photos[1] / name for name in photos[0]]
    predictions = solution.load_classifier(model_path).predictor.predict(paths)
    first = torch.stack([seen.view_logits[0] for seen in predictions])
    threshold = (first / 2).softmax(1).amax(1).median().item()
    content = torch.load(model_path, weights_only=True)
    torch.save(content | {"temperature": 2.0, "early_exit": threshold}, tmp_path / "early.pt")
    return tmp_path / "early.pt"


def test_a_prediction_depends_on_its_photo_alone(photos, exits_early):
    """Not on the others, on their order, or on the number of threads."""
    gt, folder = photos
    paths, before = [folder / name for name in list(gt)[:6]], torch.get_num_threads()
    predict, found = solution.load_classifier(exits_early).predictor.predict, []
    try:
        for order, threads in ((paths, 1), (paths[::-1], 2), (paths[:1], 2), (paths[3:], 3)):
            torch.set_num_threads(threads)
            found.append(dict(zip(order, predict(order), strict=True)))
            assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as pool:  # a thread that starts later
            assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    for predictions in found:
        for path, seen in predictions.items():
            assert torch.equal(seen.view_logits, found[0][path].view_logits)


def test_further_views_are_left_out_above_the_threshold_of_the_probability(photos, exits_early):
    classifier = solution.load_classifier(exits_early)
    paths, views = [photos[1] / name for name in photos[0]], set()
    for seen in classifier.predictor.predict(paths):
        for count in range(1, len(seen.view_logits) + 1):
            logits = solution.average_logits(seen.view_logits[:count], 0.4)
            probabilities = (logits / 2).softmax(0)
            torch.testing.assert_close(classifier.probabilities(logits), probabilities)
            last = count == len(seen.view_logits)
            assert (probabilities.max() > classifier.early_exit) == last or count == 4
        views.add(len(seen.view_logits))
    assert len(views) > 1, "a fixture that sees"


def test_what_the_caller_set_changes_no_answer(photos, model_path):
    expected = classify(model_path, photos[1])
    with surroundings():
        assert classify(model_path, photos[1]) == expected


def test_a_large_jpeg_is_decoded_with_detail_for_the_crop(folder):
    """A bird of a third of the photo's height is seen with the pixels that a view wants."""
    pixels = np.zeros((768, 1024, 3), dtype=np.uint8)
    pixels[256:512, 384:640, 1] = 220
    Image.fromarray(pixels).save(folder / "large.jpg")
    constants = solution.preprocessing_of(replace(TINY, input_size=96, first_size=192))
    (seen,) = solution.TwoStagePredictor(glass(3), constants).predict([folder / "large.jpg"])
    assert 96 <= seen.box[2] - seen.box[0] <= 300
    assert seen.view_logits[1, 1] > seen.view_logits[0, 1] + 1


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
        ("a.tif", np.uint16, [0, 2048, 4095], [0, 127, 255]),
        ("a.tif", np.int32, [0, 100, 250], [0, 100, 250]),
        ("a.tif", np.float32, [np.nan, 0.5, 1], [0, 127, 255]),
    ],
)
def test_more_than_eight_bits_are_scaled_not_clipped(folder, name, dtype, values, expected):
    Image.fromarray(np.array([values], dtype=dtype)).save(folder / name)
    rgb = np.asarray(solution.read_photo(folder / name, 3))
    assert rgb[0, :, 0].tolist() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "L", "LA"])
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "no photo that Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no photo that Pillow reads"),
    ],
)
def test_what_cannot_be_decoded_is_answered_and_counted(
    content, reason, photos, folder, model_path, tmp_path, capsys
):
    (folder / "broken.jpg").write_bytes(content)
    shutil.copy(photos[1] / "00.jpg", folder / "good.jpg")
    checkpoint = torch.load(model_path, weights_only=True) | {"fallback_class": 1000}
    torch.save(checkpoint, tmp_path / "fallback.pt")
    answers = classify(tmp_path / "fallback.pt", folder)
    assert answers.keys() == {"broken.jpg", "good.jpg"}
    assert answers["broken.jpg"] == 1000
    why, count = capsys.readouterr().err.splitlines()
    assert "broken.jpg" in why
    assert reason in why
    assert count.startswith("1 of 2 photos cannot be decoded")


def test_every_file_that_may_be_a_photo_is_listed_and_others_are_passed_over(folder, model_path):
    listed = ["a.JPG", "b.heic", "c", "d.mp4", "e.jpg.bak", "link.jpg", "nowhere.jpg"]
    others = [".hidden.jpg", "Thumbs.db", "desktop.ini", "gt.csv", "notes.TXT", ".DS_Store"]
    for name in [*listed[:5], *others]:
        (folder / name).write_bytes(b"x")
    (folder / "folder.jpg").mkdir()
    for link, to in (("link", "a.JPG"), ("nowhere", "gone.jpg"), ("to_folder", "folder.jpg")):
        (folder / f"{link}.jpg").symlink_to(to)
    assert [path.name for path in solution.list_photos(folder)] == listed
    assert list(classify(model_path, folder)) == listed


def test_empty_and_missing_folders(folder, model_path):
    assert classify(model_path, folder) == {}
    with pytest.raises(SubmissionError, match="no folder"):
        classify(model_path, folder / "nowhere")


@pytest.mark.parametrize(("side", "decoded"), [(224, 600), (601, 1200), (1201, 2400)])
def test_a_huge_jpeg_is_decoded_small_but_not_too_small(folder, side, decoded):
    Image.new("RGB", (4800, 4800), "green").save(folder / "huge.jpg")
    assert solution.read_photo(folder / "huge.jpg", side).size == (decoded, decoded)


def test_more_pixels_than_memory_allows_get_the_fallback(folder, model_path, capsys):
    Image.new("1", (7000, 7000)).save(folder / "huge.png")
    Image.new("L", (7000, 7000)).save(folder / "huge.jpg", progressive=True)
    Image.new("L", (7000, 7000)).save(folder / "decoded_small.jpg")
    assert list(classify(model_path, folder)) == ["decoded_small.jpg", "huge.jpg", "huge.png"]
    assert capsys.readouterr().err.count("7000 x 7000 pixels") == 2


def test_an_animation_counts_as_its_first_frame(folder, model_path):
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    assert solution.read_photo(folder / "a.gif", 30).getpixel((3, 3)) == (255, 0, 0)
    assert list(classify(model_path, folder)) == ["a.gif"]


@pytest.mark.parametrize("action", ["always", "error"])  # filters that a caller sets anew
def test_damaged_exif_data_neither_lose_the_photo_nor_warn(folder, monkeypatch, action):
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    code = compile('warnings.warn("Corrupt EXIF data")\nraise SyntaxError', "ImageOps.py", "exec")

    def damaged(photo):
        exec(code, {"warnings": warnings, "__name__": "PIL.ImageOps"})

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    read = functools.partial(solution.read_photo, side=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        photos = list(solution.map_in_threads(read, [folder / "a.png"] * 9))
    assert {photo.getpixel((4, 4)) for photo in photos} == {(255, 0, 0)}
    assert caught == []
