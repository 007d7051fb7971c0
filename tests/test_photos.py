"""What a photo is: the rules of solution.py, which every other program asks."""

import functools
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import solution


def shade(path: Path) -> float:
    """The mean of a photo as it is read, 0 to 255."""
    return float(np.asarray(solution.read_photo(path, 8)).mean())


@pytest.mark.parametrize(
    "form", ["TGA", "JPEG2000", "PCX", "ICO", "DDS", "SGI", "DIB", "QOI", "AVIF"]
)
def test_formats_are_told_by_content(tmp_path, form):
    if form not in solution.formats():
        pytest.skip("not in this Pillow")
    try:
        Image.new("RGB", (32, 32), (200, 100, 0)).save(tmp_path / "photo.jpg", form)
    except (KeyError, OSError):
        pytest.skip("this Pillow does not write it")
    assert solution.read_photo(tmp_path / "photo.jpg", 8).getpixel((9, 9))[0] > 180


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "no photo that Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no photo that"),
    ],
)
def test_what_cannot_be_decoded_says_why(tmp_path, content, reason):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        solution.read_photo(tmp_path / "photo.jpg", 8)


@pytest.mark.parametrize("decoded", [True, False])
def test_heic_is_a_photo_where_this_pillow_decodes_it(monkeypatch, decoded):
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    if decoded:
        monkeypatch.setitem(Image.OPEN, "HEIF", (None, None))
    solution.formats.cache_clear()
    try:
        assert ("HEIF" in solution.formats()) == decoded
    finally:
        solution.formats.cache_clear()


@pytest.mark.parametrize(
    ("white", "kind"),
    [
        (1.0, np.float32),
        (255.0, np.float32),
        (4095, np.uint16),
        (65535, np.uint16),
        (1e6, np.float32),
    ],
)
def test_deep_photos_are_scaled_by_what_they_hold(tmp_path, white, kind):
    grey = np.full((8, 8), white / 2, kind)
    grey[0, 0] = white
    if kind is np.float32:
        grey[0, 1] = np.nan
    Image.fromarray(grey).save(tmp_path / "deep.tif")
    assert 120 < shade(tmp_path / "deep.tif") < 135


def png_with(chunk: bytes, body: bytes, path: Path, crc: int | None = None) -> Path:
    """A PNG with one more chunk after its header."""
    Image.new("RGB", (32, 32), "red").save(path)
    data = path.read_bytes()
    crc = zlib.crc32(chunk + body) if crc is None else crc
    more = len(body).to_bytes(4, "big") + chunk + body + crc.to_bytes(4, "big")
    path.write_bytes(data[:33] + more + data[33:])
    return path


@pytest.mark.parametrize("kind", ["much text", "much profile", "bad sum"])
def test_damage_beside_the_pixels_is_tolerated(tmp_path, kind):
    much = zlib.compress(bytes(3 * 2**20))
    chunk, body, crc = {
        "much text": (b"zTXt", b"Comment\0\0" + much, None),
        "much profile": (b"iCCP", b"profile\0\0" + much, None),
        "bad sum": (b"tEXt", b"Comment\0hello", 1),
    }[kind]
    path = png_with(chunk, body, tmp_path / "a.png", crc)
    assert solution.read_photo(path, 8).getpixel((9, 9)) == (255, 0, 0)


def test_a_huge_baseline_jpeg_is_read_and_a_huge_png_is_not(tmp_path):
    Image.new("L", (12_000, 9_000)).save(tmp_path / "huge.jpg")
    Image.new("1", (12_000, 9_000)).save(tmp_path / "huge.png")
    assert max(solution.read_photo(tmp_path / "huge.jpg", 224).size) < 4000
    with pytest.raises(ValueError, match="12000 x 9000 pixels"):
        solution.read_photo(tmp_path / "huge.png", 224)


def test_pillows_warnings_stay_unseen(tmp_path, monkeypatch):
    """What it warns of, such as damaged EXIF data, the user can neither judge nor mend."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = compile('warnings.warn("Corrupt EXIF data")', "ImageOps.py", "exec")

    def warn(image):
        exec(code, {"warnings": warnings, "__name__": "PIL.ImageOps"})
        return image.resize((5, 5))

    monkeypatch.setattr(solution.ImageOps, "exif_transpose", warn)
    read = functools.partial(solution.read_photo, side=8)
    for action in ("always", "error"):  # a caller may set the filters anew, as pytest does
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            photos = list(solution.map_in_threads(read, [tmp_path / "a.png"] * 9))
        assert {photo.size for photo in photos} == {(5, 5)}
        assert caught == []


def test_every_file_that_may_be_a_photo_is_listed(tmp_path):
    listed = ["a.JPG", "b.heic", "c", "d.mp4", "e.jpg.bak", "link.jpg", "nowhere.jpg"]
    passed_over = [".hidden.jpg", "Thumbs.db", "desktop.ini", "gt.csv", "notes.TXT", ".DS_Store"]
    for name in [*listed[:5], *passed_over]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("a.JPG")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    (tmp_path / "to_folder.jpg").symlink_to("folder.jpg")
    assert [path.name for path in solution.list_photos(tmp_path)] == listed
