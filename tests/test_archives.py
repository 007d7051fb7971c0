"""birddata/sources.py: an archive is taken whole or refused, nothing vanishes unnamed."""

import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from birddata import sources
from course.files import temporary_folder
from public_data.prepare import main
from tests.commands import call

NAMES = [f"{species}/{number}.jpg" for species in ("Auk", "Owl") for number in range(3)]


def jpeg(number) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


PHOTOS = {name: jpeg(number) for number, name in enumerate(NAMES)}


def pack(path, *members, **more):
    """Write an archive, zip or tar by its name, of the photos and of further (name, content)."""
    members = [*(PHOTOS.items() if more.pop("photos", True) else ()), *members]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", **more) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path
    mode = {".tar": "w", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode, **more) as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = 0 if content is None else len(content)
            archive.addfile(info, None if content is None else io.BytesIO(content))
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, None


def taken(tmp_path) -> dict[str, bytes]:
    folder = tmp_path / "out/00_test_img_input/train/images"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(names=NAMES) -> dict[str, bytes]:
    return {name.replace("/", "_"): PHOTOS[name] for name in names}


KINDS = ("a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz")


@pytest.mark.parametrize("name", KINDS)
def test_every_archive_gives_its_photos(tmp_path, name, prepared):
    pack(tmp_path / name)
    assert "files skipped: 0" in prepared(tmp_path / name).out
    assert taken(tmp_path) == expected()


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_that_is_damaged_anywhere_is_refused_or_whole(tmp_path, name, capsys):
    """One byte is turned, at 41 places; a byte that no photo depends on may be any."""
    data = pack(tmp_path / name).read_bytes()
    refused = 0
    for place in np.linspace(0, len(data) - 1, 41).astype(int).tolist():
        (tmp_path / name).write_bytes(replaced(data, place, bytes([data[place] ^ 0xFF])))
        with temporary_folder("out", tmp_path) as out:
            status = call(main, tmp_path / name, "--out", out)
            images = out / "00_test_img_input/train/images"
            photos = [path.read_bytes() for path in images.iterdir()] if status == 0 else []
        refused += status
        error = capsys.readouterr().err
        if status:
            assert error.splitlines()[-1].startswith("Error: ")
            assert "Traceback" not in error
        elif name != "a.tar":  # which has no checksum of the photos' bytes
            assert sorted(photos) == sorted(PHOTOS.values())
        else:
            assert len(photos) + error.count("skipped: ") == len(NAMES)
    assert refused >= (35 if "." in name[2:-3] or name == "a.tgz" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_archive_is_said_to_be_so(tmp_path, kind, prepared):
    pack(tmp_path / kind, photos=False)
    assert f"{kind} is empty; download it again" in prepared(tmp_path / kind, status=1).err


@pytest.mark.parametrize("length", [4, 512])
def test_zeros_after_an_xz_stream_are_padding(tmp_path, length, prepared):
    with pack(tmp_path / "a.tar.xz").open("ab") as file:
        file.write(bytes(length))
    prepared(tmp_path / "a.tar.xz")
    assert taken(tmp_path) == expected()


def test_an_incremental_backup_of_gnu_tar(tmp_path, prepared):
    """It has times where ustar has a prefix, lists of folders, and perhaps a volume's name."""
    pack(
        tmp_path / "a.tar", special("Auk", b"D"), special("Birds", b"V"), format=tarfile.GNU_FORMAT
    )
    data = bytearray((tmp_path / "a.tar").read_bytes())
    with tarfile.open(tmp_path / "a.tar") as archive:
        starts = [member.offset for member in archive]
    for start in starts:
        data[start + 345 : start + 368] = b"14544400200\00014544400200"
        total = sum(data[start : start + 512]) - sum(data[start + 148 : start + 156]) + 8 * 32
        data[start + 148 : start + 156] = b"%06o\0 " % total
    (tmp_path / "a.tar").write_bytes(data)
    assert prepared(tmp_path / "a.tar").err == ""
    assert taken(tmp_path) == expected()


def replaced(data, place, new) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def that_leads_back() -> bytes:
    """The header of a member of a negative size, behind which the same header would be read."""
    member = tarfile.TarInfo("Auk/9.jpg")
    member.size = -tarfile.BLOCKSIZE
    return member.tobuf(tarfile.GNU_FORMAT)


BROKEN = "cannot be unpacked ("
NO_ARCHIVE = "is no whole zip or tar; download it again, or unpack it yourself and give the folder"
# An archive's name, what is made of its bytes (at: where the members of a tar start), the cause.
REFUSED = {
    "a tar without its end": (
        *("a.tar", lambda data, at: data[: at[-1]], BROKEN + "it ends early): download it again"),
    ),
    "a damaged header": (
        *("a.tar", lambda data, at: replaced(data, at[3] + 5, b"\xff")),
        BROKEN + "a damaged header)",
    ),
    "a tar in a circle": (
        *("a.tar", lambda data, at: data[: at[1]] + that_leads_back() + data[at[1] :]),
        BROKEN,
    ),
    "a part of a tar": (
        *("a.tar", lambda data, at: special("Auk/9.jpg", b"M")[0].tobuf() + data),
        BROKEN + "a part of a larger tar",
    ),
    "a password": (
        *("a.zip", lambda data, at: replaced(data, data.find(b"PK\1\2") + 8, b"\1")),
        BROKEN + "it has a password)",
    ),
    **{
        f"{name} cut at {share}": (name, lambda data, at, share=share: cut(data, share), "")
        for name in KINDS
        for share in (0.3, 0.9)
    },
    **{
        repr(start): ("a.zip", lambda data, at, start=start: start, NO_ARCHIVE)
        for start in (b"PK\x03\x04", b"")
    },
}


def cut(data, share) -> bytes:
    data = data.rstrip(b"\0")
    return data[: int(share * len(data))]


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_whole_archive_is_refused_in_one_line(tmp_path, what, prepared):
    name, change, cause = REFUSED[what]
    data, starts = pack(tmp_path / name).read_bytes(), []
    if name == "a.tar":
        with tarfile.open(tmp_path / name) as archive:
            starts = [member.offset for member in archive]
    (tmp_path / name).write_bytes(change(data, starts))
    error = prepared(tmp_path / name, status=1).err
    assert error.count("\n") == 1
    assert error.startswith(f"Error: {tmp_path / name} {cause}")
    assert not (tmp_path / "out").exists()


AUK = PHOTOS["Auk/0.jpg"]
AUKS = {f"Dodo_{number}.jpg": PHOTOS[f"Auk/{number}.jpg"] for number in range(3)}


@pytest.mark.parametrize(
    ("link", "more", "told"),
    [
        (("Owl/9.jpg", tarfile.LNKTYPE, "Auk/0.jpg"), {"Owl_9.jpg": AUK}, ""),
        (("Owl/9.jpg", tarfile.SYMTYPE, "../Auk/0.jpg"), {"Owl_9.jpg": AUK}, ""),
        (("Dodo", tarfile.SYMTYPE, "Auk"), AUKS, ""),
        (
            ("Auk/all", tarfile.SYMTYPE, ".."),
            {},
            "Auk/all: a link to ., which is above it or left out",
        ),
        ((".venv/python", tarfile.SYMTYPE, "/usr/bin/python3"), {}, ".venv: hidden folder"),
    ],
)
def test_a_link_to_a_member_is_that_member(tmp_path, link, more, told, prepared):
    pack(tmp_path / "a.tgz", special(*link))
    assert prepared(tmp_path / "a.tgz").err == (f"skipped: {told}\n" if told else "")
    assert taken(tmp_path) == expected() | more


def test_links_lead_through_others(tmp_path, prepared):
    links = (("Emu", "Dodo"), ("Dodo", "Auk"), ("Owl/9.jpg", "../Emu/0.jpg"), ("Auk/in", "../Owl"))
    pack(tmp_path / "a.tar", *(special(name, tarfile.SYMTYPE, target) for name, target in links))
    assert prepared(tmp_path / "a.tar").err == ""
    got = taken(tmp_path)
    assert len(got) == 6 + 3 + 3 + 1 + 4  # Emu and Dodo are Auk, Auk/in has all of Owl
    assert got["Owl_9.jpg"] == got["Emu_0.jpg"] == got["Dodo_0.jpg"] == AUK


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "Auk/none.jpg", "Owl/9.jpg"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_to_anything_else_is_refused(tmp_path, target, kind, prepared):
    pack(tmp_path / "a.tar", special("Owl/9.jpg", kind, target))
    told = prepared(tmp_path / "a.tar", status=1).err
    assert "a.tar is refused: its member 'Owl/9.jpg' is a link to '" in told


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_names_are_normalised_before_they_are_judged(tmp_path, kind, prepared):
    odd = [("./Auk/7.jpg", jpeg(7)), (".//Auk/./8.jpg", jpeg(8))]
    pack(tmp_path / kind, *odd)
    assert "files skipped: 0" in prepared(tmp_path / kind).out
    assert taken(tmp_path) == expected() | {"Auk_7.jpg": jpeg(7), "Auk_8.jpg": jpeg(8)}


OUT_OF_IT = ("../Auk/9.jpg", "Auk/../../9.jpg", "/Auk/9.jpg", "C:/Auk/9.jpg", "c:9.jpg")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("a.zip", "a.tgz") for name in OUT_OF_IT),
        ("a.zip", "..\\Auk\\9.jpg"),
    ],
)
def test_a_name_that_leads_out_is_refused(tmp_path, kind, name, prepared):
    pack(tmp_path / kind, (name, jpeg(9)))
    told = prepared(tmp_path / kind, status=1).err
    assert f"{kind} is refused: its member {name!r}".replace("\\\\", "/") in told
    assert [path.name for path in tmp_path.rglob("*")] == [kind]


@pytest.mark.parametrize(
    ("name", "codec", "note"),
    [("Дрозд", "utf-8", ""), ("Дрозд", "cp866", ""), ("Grünfink", "cp850", "note: Grünfink/9.JPG")],
    ids=["a Mac", "a Russian Windows", "a German Windows"],
)
def test_names_of_a_zip_without_the_flag_for_utf8(tmp_path, name, codec, note, prepared):
    raw = name.encode(codec)
    written = "x" * len(raw)
    members = [(f"{written}/9.JPG", jpeg(9)), ("__MACOSX/Auk/._1.jpg", b""), ("__MACOSX/2", b"")]
    data = pack(tmp_path / "a.zip", *members).read_bytes()
    assert data.count(written.encode()) == 2
    (tmp_path / "a.zip").write_bytes(data.replace(written.encode(), raw))
    skipped, _, more = prepared(tmp_path / "a.zip").err.partition("\n")
    assert skipped == "skipped: __MACOSX: hidden folder"
    assert more.startswith(note) if note else not more
    assert taken(tmp_path) == expected() | {f"{name}_9.JPG": jpeg(9)}
    assert f",{name}\n" in (tmp_path / "out/species.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("right", [True, False])
def test_the_unicode_path_of_a_zip_is_believed_if_its_checksum_fits(tmp_path, right, prepared):
    member, path = zipfile.ZipInfo("______/9.jpg"), "Дрозд/9.jpg".encode()
    checksum = zlib.crc32(member.filename.encode()) ^ (not right)
    other = struct.pack("<HHH", 0x5455, 2, 0)
    member.extra = other + struct.pack("<HHBL", 0x7075, 5 + len(path), 1, checksum) + path
    pack(tmp_path / "a.zip", (member, jpeg(9)))
    prepared(tmp_path / "a.zip")
    assert ("Дрозд_9.jpg" in taken(tmp_path)) == right


def test_a_zip_with_backslashes(tmp_path, prepared):
    members = [(f"birds\\{name}", jpeg(1)) for name in ("Auk\\1.jpg", "Owl\\2.jpg")]
    pack(tmp_path / "a.zip", ("birds\\Auk\\", b""), *members, photos=False)
    assert prepared(tmp_path / "a.zip").err == ""
    assert taken(tmp_path) == {"Auk_1.jpg": jpeg(1), "Owl_2.jpg": jpeg(1)}


@pytest.mark.parametrize(
    ("kind", "room"),
    [("a.zip", sum(map(len, PHOTOS.values())) - 1), ("a.tgz", sum(map(len, PHOTOS.values())) + 9)],
)
def test_an_archive_that_unpacks_to_too_much(tmp_path, kind, room, monkeypatch, prepared):
    """A skipped member counts, too: a packed tar is not read past it without unpacking it."""
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", room)
    pack(tmp_path / kind, ("inner.zip", bytes(10)))
    assert f"{kind} would unpack to more than" in prepared(tmp_path / kind, status=1).err
    assert not (tmp_path / "out").exists()


def test_what_is_no_photo_is_named_and_counted(tmp_path, prepared):
    members = (
        special("Auk/pipe.jpg", tarfile.FIFOTYPE),
        special("Auk/disk.jpg", b"Z"),
        ("Auk/inner.zip", b"PK"),
        (".hidden/1.jpg", jpeg(9)),
        special("Auk/to_hidden.jpg", tarfile.LNKTYPE, ".hidden/1.jpg"),
    )
    pack(tmp_path / "a.tar", *members)
    out, error = prepared(tmp_path / "a.tar")
    assert sorted(error.splitlines()) == [
        "skipped: .hidden: hidden folder",
        "skipped: Auk/disk.jpg: no file, folder or link",
        "skipped: Auk/inner.zip: not an image",
        "skipped: Auk/pipe.jpg: no file, folder or link",
        "skipped: Auk/to_hidden.jpg: a link to .hidden/1.jpg, which is above it or left out",
    ]
    assert "files skipped: 5" in out
    assert taken(tmp_path) == expected()


@pytest.mark.parametrize(
    ("kind", "content", "told", "more"),
    [
        (stat.S_IFIFO, b"", "skipped: Auk/9.jpg: no file, folder or link\n", {}),
        (stat.S_IFLNK, b"../Auk/0.jpg", "", {"Auk_9.jpg": AUK}),
    ],
)
def test_links_and_devices_in_a_zip(tmp_path, kind, content, told, more, prepared):
    member = zipfile.ZipInfo("Auk/9.jpg")
    member.external_attr = (kind | 0o644) << 16
    pack(tmp_path / "a.zip", (member, content))
    assert prepared(tmp_path / "a.zip").err == told
    assert taken(tmp_path) == expected() | more


def test_no_more_of_a_links_target_is_unpacked_than_a_path_may_have(tmp_path, prepared):
    member = zipfile.ZipInfo("Auk/9.jpg")
    member.external_attr, member.compress_type = (stat.S_IFLNK | 0o644) << 16, zipfile.ZIP_DEFLATED
    pack(tmp_path / "a.zip", (member, b"x" * 2**26))
    tracemalloc.start()
    assert "Auk/9.jpg" in prepared(tmp_path / "a.zip", status=1).err
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25
