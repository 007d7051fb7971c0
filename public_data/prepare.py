"""Write the course layout of tests from the photos that you have.

    python public_data/prepare.py SOURCE [--holdout 0.15] [--out DIR] [--seed N]
    python public_data/prepare.py --check DIR [--json FILE]

SOURCE is the course's archive, class folders (SOURCE/<species>/*.jpg), or the official archive of
CUB-200-2011, from which the course's sample is made again; each a folder, a zip or a tar. Photos
are hard-linked where that is possible and copied otherwise. The result appears whole or not at
all: it is built in a temporary folder and then renamed into place. --check says what is wrong with
a training set (doctor.py).

Needs Pillow, and scikit-learn for --holdout.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import os
import random
import re
import secrets
import shutil
import signal
import stat
import sys
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from PIL import Image

# ----------------------------------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------------------------------

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
TABLE_SUFFIXES = {".csv", ".txt"}
# Only decoders of photos: Pillow would otherwise start Ghostscript for a disguised EPS file.
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # JPEG includes MPO

MAX_UNPACKED_BYTES = 8 * 2**30  # the whole of CUB-200-2011 is 1.2 GB, the course's sample far less
MAX_TABLE_BYTES = 16 * 2**20  # a gt.csv of 2,500 photos is 50 kB
MAX_WRAPPING = 2  # how many folders may lie between SOURCE and what is looked for

# The course's sample, as far as it is known: the first species of CUB-200-2011, in its order, that
# have exactly so many photos; some of them are public, and the others probably the hidden test.
CUB_TABLES = ("images.txt", "image_class_labels.txt", "classes.txt")
CUB_SPECIES, CUB_PHOTOS, CUB_PUBLIC = 50, 60, 50

TEST_INPUT = r"[0-9]{2}_.+_input"
STAGING_PREFIX = ".prepare-"


class PrepareError(Exception):
    """A mistake in what the user gave, told in one line: cause, file and cure."""


class Entry(NamedTuple):
    """A file of SOURCE: its path below SOURCE, with slashes, and where its bytes lie now."""

    origin: str
    path: Path


# The files that may matter, by their path below the folder that is being read.
Files = dict[str, Entry]


@dataclass(frozen=True)
class Photo:
    """One labelled photo: its name in the result, its class id and the file to take it from."""

    name: str
    class_id: int
    origin: str
    path: Path


@dataclass(frozen=True)
class Test:
    """One test of the course layout; `stem` is what comes before `_input` and `_gt`."""

    stem: str
    train: list[Photo]
    test: list[Photo]


@dataclass(frozen=True)
class Sample:
    """What was found in SOURCE: a word for its kind, its tests, and species names by class id."""

    kind: str
    tests: list[Test]
    species: dict[int, str]


class Log:
    """Names every skipped file on stderr, each once, and counts them."""

    def __init__(self) -> None:
        """Start with nothing skipped."""
        self.skipped: dict[str, str] = {}

    def skip(self, origin: str, reason: str) -> None:
        """Report that the file `origin` (a path below SOURCE) is left out, and why."""
        if origin not in self.skipped:
            self.skipped[origin] = reason
            self.note(f"skipped: {origin}: {reason}")

    def note(self, text: str) -> None:
        """Print a line on stderr."""
        print(text, file=sys.stderr)


# ----------------------------------------------------------------------------------------------
# Reading SOURCE: a folder or an archive becomes one table of files
# ----------------------------------------------------------------------------------------------


def read_source(source: Path, unpack_to: Path, log: Log) -> Files:
    """List the photos and tables of a folder, or of an archive unpacked into `unpack_to`."""
    if source.is_dir():
        return walk_folder(source, log)
    if not source.exists():
        raise PrepareError(f"{source} does not exist; give a folder or an archive")
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return unpack(zip_members(archive, source), source, unpack_to, log)
        with tarfile.open(source) as archive:
            return unpack(tar_members(archive, source), source, unpack_to, log)
    except tarfile.ReadError:
        raise PrepareError(
            f"{source} is neither a folder nor a whole zip or tar; unpack it and give the folder"
        ) from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        gzip.BadGzipFile,
        NotImplementedError,
        EOFError,
    ) as error:
        raise PrepareError(f"{source} cannot be unpacked ({error}); download it again") from None


def walk_folder(source: Path, log: Log) -> Files:
    """List the files below a folder in sorted order; links to folders are followed."""
    files: Files = {}
    for place, folders, names in os.walk(source, followlinks=True, onerror=raise_error):
        here = Path(place)
        if is_loop(here, source):
            folders.clear()
            log.skip(below_source(here, source), "a link to a folder above it")
            continue
        paths = [below_source(here / name, source) for name in sorted(names)]
        files.update((path, Entry(path, source / path)) for path in paths if is_wanted(path, log))
        hidden = {name for name in folders if is_hidden(name)}
        for name in sorted(hidden):
            if not name.startswith(STAGING_PREFIX):
                log.skip(below_source(here / name, source), "hidden folder")
        folders[:] = sorted(set(folders) - hidden)
    return files


def is_loop(here: Path, source: Path) -> bool:
    """Tell whether a folder is a link to one of the folders that led to it."""
    above = [folder for folder in here.parents if folder.is_relative_to(source)]
    return here.is_symlink() and here.resolve() in {folder.resolve() for folder in above}


def below_source(path: Path, source: Path) -> str:
    """Return a path as seen from SOURCE, with slashes on every system."""
    return path.relative_to(source).as_posix()


def raise_error(error: OSError) -> NoReturn:
    """Make os.walk fail on a folder that it may not read, instead of passing over it."""
    raise error


class Member(NamedTuple):
    """A file in an archive: its path there, its size in bytes and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(members: Iterable[Member], source: Path, folder: Path, log: Log) -> Files:
    """Unpack what is wanted into numbered files, so that no member's name ever becomes a path."""
    folder.mkdir()
    files: Files = {}
    room = MAX_UNPACKED_BYTES
    for name, size, opened in members:
        if not is_wanted(name, log):
            continue
        if name in files:
            log.skip(f"{name} (again)", "twice in the archive, the first is taken")
            continue
        if (room := room - size) < 0:
            raise PrepareError(
                f"{source} would unpack to more than {MAX_UNPACKED_BYTES / 2**30:g} GiB; if you "
                "trust it, unpack it yourself and give the folder"
            )
        target = folder / f"{len(files):06d}"
        # Neither module reads more than a member's declared size, which was counted above.
        with opened() as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
        files[name] = Entry(name, target)
    return dict(sorted(files.items()))


def zip_members(archive: zipfile.ZipFile, source: Path) -> list[Member]:
    """Return the files in a zip; raises PrepareError for what no honest zip of photos holds."""
    members = archive.infolist()
    for member in members:
        # On Windows zipfile itself turns backslashes into slashes, hence a look at both names.
        link = stat.S_ISLNK(member.external_attr >> 16)
        refuse_bad_name(source, member_name(member), link)
        refuse_bad_name(source, member.orig_filename, link)
        if member.flag_bits & 0x1:
            raise PrepareError(f"{source} has a password; unpack it yourself and give the folder")
    return [
        Member(member_name(member), member.file_size, partial(archive.open, member))
        for member in members
        if not member.is_dir()
    ]


def tar_members(archive: tarfile.TarFile, source: Path) -> Iterator[Member]:
    """Yield the files in a tar; raises PrepareError for what no honest tar of photos holds."""
    for member in archive:
        name = member.name.removeprefix("./")
        refuse_bad_name(source, name, member.issym() or member.islnk())
        if member.isfile():
            yield Member(name, member.size, partial(archive.extractfile, member))


def member_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a zip's member as its maker wrote it.

    macOS writes UTF-8 without the flag that says so; zipfile then reads it as code page 437.
    """
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def refuse_bad_name(source: Path, name: str, is_link: bool) -> None:
    """Raise PrepareError for a link, or a name that leads out of the archive's folder."""
    outside = ".." in name.split("/") or re.match(r"/|[A-Za-z]:", name)
    if outside or "\\" in name or "\0" in name or is_link:
        raise PrepareError(
            f"{source} is refused: its member {name!r} is a link or leads out of the folder "
            "(.., absolute path, drive letter, backslash); get the archive from its own source"
        )


def is_wanted(path: str, log: Log) -> bool:
    """Tell whether a file may be a photo or a table of labels; otherwise name it as skipped."""
    parts = path.split("/")
    for depth, part in enumerate(parts, start=1):
        if is_hidden(part):
            reason = "hidden" if depth == len(parts) else "hidden folder"
            log.skip("/".join(parts[:depth]), reason)
            return False
    if Path(path).suffix.lower() in IMAGE_SUFFIXES | TABLE_SUFFIXES:
        return True
    log.skip(path, "not an image")
    return False


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is one that the system made for itself."""
    return name.startswith(".") or name.lower() in {"__macosx", "thumbs.db", "desktop.ini"}


def is_image(path: str) -> bool:
    """Tell by the extension, in any case, whether a file calls itself an image."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


# ----------------------------------------------------------------------------------------------
# Recognising the layout
# ----------------------------------------------------------------------------------------------


def find_sample(source: Path, files: Files, seed: int, log: Log) -> Sample:
    """Recognise the layout of SOURCE and read it."""
    root = choose_root(course_roots(files), "tests", source)
    if root is not None:
        return read_course(below(files, root, log), log)
    root = choose_root(cub_roots(files), "CUB archives", source)
    if root is not None:
        return read_cub(below(files, root), seed, log)
    root = choose_root(class_roots(files), "class folders", source)
    if root is not None:
        return read_class_folders(below(files, root, log), log)
    raise PrepareError(
        f"{source} holds neither NN_<name>_input folders nor <species>/*.jpg nor CUB-200-2011; "
        "give the folder right above them"
    )


def choose_root(roots: set[tuple[str, ...]], what: str, source: Path) -> str | None:
    """Return the shallowest root as a prefix of paths ("" for SOURCE itself), None without any.

    Raises PrepareError when two roots are equally shallow.
    """
    roots = {root for root in roots if len(root) <= MAX_WRAPPING}
    depth = min(map(len, roots), default=0)
    best = sorted("".join(f"{part}/" for part in root) for root in roots if len(root) == depth)
    if len(best) > 1:
        raise PrepareError(
            f"{source} holds {what} in more than one place ({', '.join(best)}); give one of them"
        )
    return best[0] if best else None


def course_roots(files: Files) -> set[tuple[str, ...]]:
    """Return the folders that hold a folder NN_<name>_input."""
    split = [tuple(path.split("/")[:-1]) for path in files]
    return {
        parts[:depth]
        for parts in split
        for depth, part in enumerate(parts)
        if re.fullmatch(TEST_INPUT, part)
    }


def cub_roots(files: Files) -> set[tuple[str, ...]]:
    """Return the folders that hold two or more of the tables of CUB-200-2011."""
    split = [tuple(path.split("/")) for path in files]
    count = Counter(parts[:-1] for parts in split if parts[-1] in CUB_TABLES)
    return {root for root in count if count[root] > 1}


def class_roots(files: Files) -> set[tuple[str, ...]]:
    """Return the folders whose sub-folders hold images: with two species or more, if any has."""
    species = {tuple(path.split("/")[:-1]) for path in files if is_image(path) and "/" in path}
    count = Counter(folder[:-1] for folder in species)
    return {root for root in count if count[root] > 1} or set(count)


def below(files: Files, root: str, log: Log | None = None) -> Files:
    """Return the files below a root, by their path from there; name the others if asked to."""
    for path in sorted(files) if log else []:
        if not path.startswith(root):
            log.skip(path, f"not below {root}")
    return {path[len(root) :]: file for path, file in files.items() if path.startswith(root)}


# ----------------------------------------------------------------------------------------------
# The course's archive
# ----------------------------------------------------------------------------------------------


def read_course(files: Files, log: Log) -> Sample:
    """Read the tests of a folder in the course layout, and its species.csv if there is one."""
    inputs = {path.split("/")[0] for path in files}
    stems = sorted(name.removesuffix("_input") for name in inputs if re.fullmatch(TEST_INPUT, name))
    tests = [
        Test(
            stem,
            read_part(files, f"{stem}_input/train/gt.csv", f"{stem}_input/train/images", log),
            read_part(files, f"{stem}_gt/gt.csv", f"{stem}_input/test/images", log),
        )
        for stem in stems
    ]
    species = read_species(files["species.csv"]) if "species.csv" in files else {}
    tables = {f"{stem}{end}" for stem in stems for end in ("_gt/gt.csv", "_input/train/gt.csv")}
    folders = {f"{stem}_input/{part}/images" for stem in stems for part in ("train", "test")}
    for path, file in sorted(files.items()):
        if path not in tables | {"species.csv"} and path.rpartition("/")[0] not in folders:
            log.skip(file.origin, "not part of a test")
    return Sample("in the course's layout", tests, species)


def read_part(files: Files, gt: str, images: str, log: Log) -> list[Photo]:
    """Match the labels of one gt.csv with the photos of one folder."""
    if gt not in files:
        raise PrepareError(f"{gt} is missing in SOURCE; a test needs it, give the whole archive")
    labels = read_labels(files[gt])
    by_name = {
        path.rpartition("/")[2]: file
        for path, file in sorted(files.items())
        if path.rpartition("/")[0] == images
    }
    for name in sorted(labels.keys() - set(map(nfc, by_name))):
        log.skip(f"{files[gt].origin}: {name}", f"a label without a file in {images}")
    taken: dict[str, str] = {}
    photos = []
    for name, file in by_name.items():
        reason = why_unfit(name, labels, taken, file.path)
        if reason:
            log.skip(file.origin, reason)
        else:
            photos.append(Photo(nfc(name), labels[nfc(name)], *file))
        taken.setdefault(nfc(name).casefold(), name)
    if not photos:
        raise PrepareError(f"{images} holds no labelled photo in SOURCE; give the whole archive")
    return photos


def why_unfit(name: str, labels: dict[str, int], taken: dict[str, str], path: Path) -> str | None:
    """Say why a photo of the course's archive cannot be taken, None if it can."""
    if not is_image(name):
        return "not an image"
    if nfc(name) not in labels:
        return "a file without a label"
    if nfc(name) != plain_name(name):
        return "its name cannot stand in an unquoted csv row or on every system"
    if nfc(name).casefold() in taken:
        return f"its name differs from {taken[nfc(name).casefold()]} only in case or accents"
    return try_image(path, check)


def read_labels(file: Entry) -> dict[str, int]:
    """Read a gt.csv (header `filename,class_id`, no quoting) into a dict from file name to id."""
    origin = file.origin
    header, *rows = read_table(file)
    if header != "filename,class_id":
        raise PrepareError(f"{origin} must start with the line filename,class_id")
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        name, comma, class_id = row.rpartition(",")
        if not row:
            continue
        if not (comma and name and re.fullmatch(r"[+-]?[0-9]+", class_id.strip())):
            raise PrepareError(f"{origin} line {number}: {row!r} is not filename,class_id")
        if nfc(name) in labels:
            raise PrepareError(f"{origin} line {number}: {name} has a label already; remove one")
        labels[nfc(name)] = int(class_id)
    return labels


def read_species(file: Entry) -> dict[int, str]:
    """Read a species.csv (header `class_id,name`) into a dict from class id to name."""
    header, *rows = list(csv.reader(read_table(file))) or [[]]
    try:
        if header != ["class_id", "name"]:
            raise ValueError
        return {int(class_id): name for class_id, name in filter(None, rows)}
    except ValueError:
        raise PrepareError(
            f"{file.origin} must have the header class_id,name and a row per species; mend it"
        ) from None


def read_table(file: Entry) -> list[str]:
    """Return the lines of a small UTF-8 text file."""
    if file.path.stat().st_size > MAX_TABLE_BYTES:
        limit = MAX_TABLE_BYTES // 2**20
        raise PrepareError(f"{file.origin} is larger than {limit} MiB, so it is no table of labels")
    try:
        # Not splitlines(): that also breaks at characters which may stand in a name.
        return file.path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise PrepareError(f"{file.origin} is not UTF-8 text; save it as UTF-8") from None


# ----------------------------------------------------------------------------------------------
# Class folders
# ----------------------------------------------------------------------------------------------


def read_class_folders(files: Files, log: Log) -> Sample:
    """Read <species>/<photo>; class ids are the positions of the folder names in sorted order."""
    folders = {nfc(p.split("/")[0]) for p in files if p.count("/") == 1 and is_image(p)}
    class_ids = {name: number for number, name in enumerate(sorted(folders))}
    taken: set[str] = set()
    photos = []
    for path, file in sorted(files.items()):
        if not is_image(path):
            log.skip(file.origin, "not an image")
        elif path.count("/") != 1:
            log.skip(file.origin, "not directly in a species' folder")
        elif reason := try_image(file.path, check):
            log.skip(file.origin, reason)
        else:
            species, name = map(nfc, path.split("/"))
            name = unique_name(without_number(species), name, taken)
            photos.append(Photo(name, class_ids[species], *file))
    if not photos:
        raise PrepareError("SOURCE holds no readable photo; the lines above name the reasons")
    names = {number: text_name(name) for name, number in class_ids.items()}
    return Sample("a tree of class folders", [Test("00_test_img", photos, photos)], names)


def unique_name(species: str, name: str, taken: set[str]) -> str:
    """Name a photo `<Species>_<name>`, with a number in the rare case that this is taken.

    All photos of a test share one folder, while class folders each start again at 000.jpg. Case is
    ignored in the comparison because the file systems of Windows and macOS ignore it.
    """
    if not name.casefold().startswith(f"{species}_".casefold()):
        name = f"{species}_{name}"
    first = plain_name(name)
    name, number = first, 2
    while name.casefold() in taken:
        name = f"{Path(first).stem}_{number}{Path(first).suffix}"
        number += 1
    taken.add(name.casefold())
    return name


def nfc(name: str) -> str:
    """Compose accents: macOS stores them decomposed, and a gt.csv mostly does not."""
    return unicodedata.normalize("NFC", name)


def plain_name(name: str) -> str:
    """Replace what an unquoted csv row, UTF-8 or Windows cannot hold by underscores."""
    return re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*,\ud800-\udfff]', "_", nfc(name))


def without_number(folder: str) -> str:
    """Cut off the number that CUB puts before a species: 001.Black_footed_Albatross."""
    return re.sub(r"^[0-9]{3}\.(?=.)", "", folder)


def text_name(folder: str) -> str:
    """Return a species' name for people, which can be written as UTF-8: Black footed Albatross."""
    name = re.sub(r"[\x00-\x1f\ud800-\udfff]", "_", without_number(folder))
    return name.replace("_", " ").strip() or folder


# ----------------------------------------------------------------------------------------------
# CUB-200-2011 (Wah et al. 2011, CNS-TR-2011-001)
# ----------------------------------------------------------------------------------------------


def read_cub(files: Files, seed: int, log: Log) -> Sample:
    """Make the course's sample anew: 50 photos of each species in test 00, 10 others in test 01.

    Which 10 the course hides is unknown: `seed` decides, and numbers the photos in mixed order.
    """
    photos_of, classes = cub_photos(files)
    chosen = [label for label in classes if len(photos_of[label]) == CUB_PHOTOS][:CUB_SPECIES]
    if len(chosen) < CUB_SPECIES:
        raise PrepareError(
            f"SOURCE has {len(chosen)} species of exactly {CUB_PHOTOS} photos, the course's sample "
            f"{CUB_SPECIES}; give the whole CUB-200-2011 (or, for any photos, its folder images)"
        )
    mix = random.Random(seed)
    public, hidden = [], []
    for class_id, label in enumerate(chosen):
        images = mix.sample(photos_of[label], CUB_PHOTOS)
        public += [(class_id, image) for image in images[:CUB_PUBLIC]]
        hidden += [(class_id, image) for image in images[CUB_PUBLIC:]]
    train = cub_part(files, mix.sample(public, len(public)), 0, log)
    held = cub_part(files, mix.sample(hidden, len(hidden)), len(public), log)
    names = {class_id: text_name(classes[label]) for class_id, label in enumerate(chosen)}
    tests = [Test("00_test_img", train, train), Test("01_hidden", train, held)]
    log.note(f"left out: {len(classes) - len(chosen)} species that are not in the course's sample")
    return Sample("a CUB-200-2011 archive", tests, names)


def cub_part(files: Files, part: list[tuple[int, str]], first: int, log: Log) -> list[Photo]:
    """Number photos, given as class ids and paths below images/: 0000.jpg, 0001.jpg, ..."""
    photos = []
    for number, (class_id, image) in enumerate(part, start=first):
        file = files.get(f"images/{image}")
        reason = try_image(file.path, check) if file else "in images.txt, but there is no such file"
        if reason:
            log.skip(f"images/{image}", reason)
        else:
            photos.append(Photo(f"{number:04d}.jpg", class_id, *file))
    if not photos:
        raise PrepareError("SOURCE holds no readable photo of the course's species")
    return photos


def cub_photos(files: Files) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the photos' paths below images/ and the species' folder names, by CUB's class."""
    images, labels, classes = (cub_table(files, name) for name in CUB_TABLES)
    photos_of: dict[str, list[str]] = {label: [] for label in classes}
    for key, label in labels.items():
        if key in images and label in classes:
            photos_of[label].append(images[key])
    return photos_of, dict(sorted(classes.items(), key=lambda item: int(item[0])))


def cub_table(files: Files, name: str) -> dict[str, str]:
    """Read a table of CUB-200-2011: a number, a blank, and the rest of the line."""
    if name not in files:
        raise PrepareError(f"{name} is missing in SOURCE; give the whole extracted CUB-200-2011")
    rows = (row.split(maxsplit=1) for row in read_table(files[name]))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2 and row[0].isdecimal()}


# ----------------------------------------------------------------------------------------------
# Photos
# ----------------------------------------------------------------------------------------------


def try_image(path: Path, use: Callable[[Image.Image], None]) -> str | None:
    """Open a photo and use it; say in a few words why that failed, None if it went well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                use(image)
        except Image.UnidentifiedImageError:
            return "not an image inside, whatever its name says" if path.stat().st_size else "empty"
        except Exception as error:  # a damaged photo makes Pillow raise nearly anything
            return f"unreadable image ({' '.join(str(error).split()) or type(error).__name__})"
    return None


def check(image: Image.Image) -> None:
    """Decode all of an image, a large JPEG at reduced size: verify() misses a JPEG cut short."""
    image.draft("RGB", (256, 256))
    image.load()


# ----------------------------------------------------------------------------------------------
# --holdout
# ----------------------------------------------------------------------------------------------


def hold_out(source: Path, sample: Sample, fraction: float, seed: int, log: Log) -> Sample:
    """Split the training photos: test 00 keeps the larger part, test 01 asks for the rest.

    Both tests have the same training photos, so a network trained from either has seen none of
    the photos that test 01 asks for.
    """
    if len(sample.tests) > 1:
        raise PrepareError(
            f"{source} has {len(sample.tests)} tests; --holdout splits an archive of one test"
        )
    (only,) = sample.tests
    names = {photo.name for photo in only.train}
    for photo in only.test:
        if photo.name not in names:
            log.skip(photo.origin, "not a training photo, and --holdout splits those")
    train, held = stratified_split(without_copies(only.train, log), fraction, seed)
    seen = Counter(photo.class_id for photo in train)
    lone = seen.keys() - {photo.class_id for photo in held}
    for class_id in sorted(lone):
        name = sample.species.get(class_id, f"class {class_id}")
        log.note(f"not in the holdout: {name} (photos: {seen[class_id]})")
    tests = [Test("00_test_img", train, train), Test("01_holdout", train, held)]
    return Sample(sample.kind, tests, sample.species)


def without_copies(photos: list[Photo], log: Log) -> list[Photo]:
    """Leave out byte-identical copies, or one might be trained on and the other held out."""
    first: dict[str, Photo] = {}
    for photo in photos:
        digest = hashlib.sha256(photo.path.read_bytes()).hexdigest()
        if digest in first:
            log.skip(photo.origin, f"the same bytes as {first[digest].origin}")
        first.setdefault(digest, photo)
    return list(first.values())


def stratified_split(
    photos: list[Photo], fraction: float, seed: int
) -> tuple[list[Photo], list[Photo]]:
    """Split into (train, held out); a species with a single photo stays in training.

    At least as many photos as there are species with two or more are held out, which scikit-learn
    requires. Raises PrepareError when no species has two photos.
    """
    # Imported here because it takes a second that the other ways of calling do without.
    from sklearn.model_selection import train_test_split

    photos = sorted(photos, key=lambda photo: photo.name)
    count = Counter(photo.class_id for photo in photos)
    single = [photo for photo in photos if count[photo.class_id] == 1]
    several = [photo for photo in photos if count[photo.class_id] > 1]
    if not several:
        raise PrepareError("no species has two photos, so none can be held out; drop --holdout")
    labels = [photo.class_id for photo in several]
    size = max(int(fraction * len(several)), len(set(labels)))
    train, held = train_test_split(several, test_size=size, stratify=labels, random_state=seed)
    return single + train, held


# ----------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------


def prepare(source: Path, out: Path, holdout: float | None = None, seed: int = 0) -> None:
    """Do the whole job: read SOURCE, write its tests below `out`, say on stdout what was written.

    Raises PrepareError, or OSError from the file system; `out` is then as it was.
    """
    refuse_to_overwrite(out)
    print(f"Reading {source}", flush=True)
    log = Log()
    with staging_folder(out) as staging:
        files = read_source(source, staging / "unpacked", log)
        sample = find_sample(source, files, seed, log)
        if holdout is not None:
            sample = hold_out(source, sample, holdout, seed, log)
        links, copies = write_sample(sample, staging / "built")
        written = move_into_place(staging / "built", out)
    report(sample, log)
    print(f"Wrote {', '.join(written)} in {out} ({links:,} hard links, {copies:,} copies)")


def refuse_to_overwrite(out: Path) -> None:
    """Raise PrepareError if the folder holds tests, or names of species, already."""
    if out.exists() and not out.is_dir():
        raise PrepareError(f"{out} is a file; give a folder with --out")
    there = sorted(out.iterdir()) if out.exists() else []
    for path in there:
        if re.match(r"[0-9]{2}_", path.name) or path.name == "species.csv":
            raise PrepareError(
                f"{path} exists already; move or delete it, or give another folder with --out"
            )


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Make a temporary folder in `out` (so that a rename suffices) and remove it afterwards."""
    missing = [path for path in (out, *out.parents) if not path.exists()]
    staging = out / f"{STAGING_PREFIX}{secrets.token_hex(4)}"
    try:
        staging.mkdir(parents=True)
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise
    shutil.rmtree(staging, ignore_errors=True)


def write_sample(sample: Sample, folder: Path) -> tuple[int, int]:
    """Write all tests and species.csv into a new folder; returns (hard links, copies) made."""
    folder.mkdir()
    placed: dict[Path, Path] = {}
    linked: Counter[bool] = Counter()
    for test in sample.tests:
        train = folder / f"{test.stem}_input" / "train"
        asked = folder / f"{test.stem}_input" / "test"
        linked += write_images(test.train, train / "images", placed)
        linked += write_images(test.test, asked / "images", placed)
        write_labels(test.train, train / "gt.csv")
        (folder / f"{test.stem}_gt").mkdir()
        write_labels(test.test, folder / f"{test.stem}_gt" / "gt.csv")
    if sample.species:
        write_species(sample.species, folder / "species.csv")
    return linked[True], linked[False]


def write_images(photos: list[Photo], folder: Path, placed: dict[Path, Path]) -> Counter[bool]:
    """Put photos into a new folder; returns how many became hard links (True), copies (False)."""
    folder.mkdir(parents=True)
    return Counter(link_or_copy(photo.path, folder / photo.name, placed) for photo in photos)


def link_or_copy(source: Path, target: Path, placed: dict[Path, Path]) -> bool:
    """Hard-link a file, or copy it where that fails; tell whether it is a link.

    `placed` maps a source to its first target: when SOURCE is on another disk, the photos of the
    second folder can still be links to those of the first.
    """
    origin = placed.get(source, source).resolve()
    placed.setdefault(source, target)
    try:
        target.hardlink_to(origin)
    except (OSError, NotImplementedError):
        shutil.copyfile(origin, target)
        return False
    return True


def write_labels(photos: list[Photo], path: Path) -> None:
    """Write a gt.csv, sorted by file name."""
    photos = sorted(photos, key=lambda photo: photo.name)
    rows = [f"{photo.name},{photo.class_id}" for photo in photos]
    path.write_text("\n".join(["filename,class_id", *rows, ""]), encoding="utf-8", newline="\n")


def write_species(species: dict[int, str], path: Path) -> None:
    """Write a species.csv, sorted by class id."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("class_id", "name"), *sorted(species.items())])


def move_into_place(built: Path, out: Path) -> list[str]:
    """Rename all that was built into `out`, or nothing of it; returns the names."""
    names = sorted(path.name for path in built.iterdir())
    try:
        for name in names:
            (built / name).rename(out / name)
    except BaseException:
        for name in names:
            if not (built / name).exists():
                (out / name).rename(built / name)
        raise
    return names


def report(sample: Sample, log: Log) -> None:
    """Print a line a test, and how many files were skipped."""
    for test in sample.tests:
        trained = {photo.name for photo in test.train}
        shared = sum(photo.name in trained for photo in test.test)
        kinds = {0: "none of them trained on", len(test.test): "the same photos"}
        classes = len({photo.class_id for photo in test.train})
        print(
            f"{test.stem:<12} {classes} species, {len(test.train):,} photos to train on, "
            f"{len(test.test):,} to classify ({kinds.get(shared, f'{shared:,} trained on')})"
        )
    print(f"SOURCE was {sample.kind}; files skipped: {len(log.skipped):,}")


# ----------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"Error: {message}; see {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is wrong."""
    parser = Parser(
        prog="prepare.py",
        description="Write the course layout of tests (NN_<name>_input, NN_<name>_gt) and "
        "species.csv from the photos that you have. Nothing is ever overwritten.",
    )
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="the course's archive, class folders SOURCE/<species>/*.jpg (class ids are positions "
        "in sorted order), or CUB-200-2011 (the course's sample is made again: tests 00 and 01); "
        "each a folder, a zip or a tar",
    )
    parser.add_argument(
        "--holdout",
        type=holdout_fraction,
        metavar="F",
        help="keep this part of the photos (up to 0.5, e.g. 0.15) out of training, stratified: "
        "test 00 then holds only the others, to train on and to classify, and test 01_holdout "
        "asks for the photos kept out. Without it test 00 holds all photos",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path(__file__).resolve().parent,
        help="where to write (default: the folder of this script)",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="of a split (default: 0)"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="DIR",
        help="write no tests, but say what is wrong with those in DIR (or with a folder of gt.csv "
        "and images, or class folders); the exit status is 4 with errors, 3 with warnings",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="with --check: write all findings there; - is stdout"
    )
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.check is None):
        parser.error("give either SOURCE or --check DIR")
    if options.json and options.check is None:
        parser.error("--json goes with --check")
    return options


def holdout_fraction(text: str) -> float:
    """Parse --holdout: more than 0 and at most 0.5, so that every species keeps training photos."""
    value = float(text)
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most 0.5, not {text}")
    return value


def seed_number(text: str) -> int:
    """Parse --seed: what scikit-learn accepts."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 4294967295, not {text}")
    return value


def check_folder(folder: Path, json_to: str | None) -> int:
    """Say what is wrong with a training set; returns the exit status."""
    from public_data import doctor  # needs more than writing tests does

    return doctor.run(folder, json_to)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_arguments(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a Windows console cannot show every name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if options.check:
            return check_folder(options.check, options.json)
        prepare(options.source, options.out, options.holdout, options.seed)
    except PrepareError as error:
        message, status = str(error), 1
    except OSError as error:
        where = error.filename or options.source or options.check
        message, status = f"{error.strerror or error} ({where})", 1
    except KeyboardInterrupt:
        message, status = "interrupted; no test is half-written", 130
    else:
        return 0
    print(f"Error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for public_data.doctor
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up, too
    raise SystemExit(main())
