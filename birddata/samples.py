"""What the files of SOURCE are: tests, CUB-200-2011, a table beside photos, or class folders."""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import TypeVar

from birddata.findings import GUESSED, Findings
from birddata.sources import Files, is_table, problem
from birddata.writing import Photo, Sample, Test
from course import layout, tables
from course.files import UserError

MAX_WRAPPING = 2  # how many folders may lie between SOURCE and the photos
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
NO_SPECIES = SPLITS | {"images", "imgs", "photos", "pictures", "jpegimages"}
IN_TEST = re.compile(r"((?:[^/]+/)*?)[0-9]{2}_[^/]+_input/")  # see layout.TEST_INPUT
CUB_NUMBER = re.compile(r"^[0-9]{3}\.(?=.)")  # before a species: 001.Black_footed_Albatross
CUB_TABLES = ("images.txt", "image_class_labels.txt", "classes.txt")
# The course's sample, as far as it is known: the first species of CUB-200-2011, in its order, that
# have exactly so many photos; some of them are public, and the others probably the hidden test.
CUB_SPECIES, CUB_PHOTOS, CUB_PUBLIC = 50, 60, 50

T = TypeVar("T")
normal = partial(unicodedata.normalize, "NFC")  # a Mac's accents are letters of their own


def find_sample(source: Path, files: Files, seed: int, found: Findings) -> Sample:
    """Recognise the layout of SOURCE and read it."""
    tests = {match[1] for path in files if (match := IN_TEST.match(path))}
    if (root := choose_root(tests, "tests", source)) is not None:
        return read_course(below(files, root, found), root, found)
    split = [path.rpartition("/") for path in files]
    cub = Counter(folder + slash for folder, slash, name in split if name in CUB_TABLES)
    several = {folder for folder, number in cub.items() if number > 1}
    if (root := choose_root(several, "CUB archives", source)) is not None:
        return read_cub(below(files, root), root, seed, found)
    if (sample := read_table_beside(source, files, found)) is not None:
        return sample
    return read_class_folders(source, files, found)


def choose_root(roots: set[str], what: str, source: Path) -> str | None:
    """Return the shallowest root, a prefix of paths. Raises UserError if there are several."""
    roots = {root for root in roots if root.count("/") <= MAX_WRAPPING}
    depth = min((root.count("/") for root in roots), default=0)
    best = sorted(root for root in roots if root.count("/") == depth)
    if len(best) > 1:
        raise UserError(
            f"{source} holds {what} in more than one place ({', '.join(best)}); give one of them"
        )
    return best[0] if best else None


def below(files: Files, root: str, found: Findings | None = None) -> Files:
    """Return the files below a root, by their path from there; name the others if asked to."""
    if found is not None:
        for path in sorted(path for path in files if not path.startswith(root)):
            found.add("passed-over", path, f"not below {root}")
    return {path[len(root) :]: file for path, file in files.items() if path.startswith(root)}


# ---- Photos and their labels ---------------------------------------------------------------------


def read_as(origin: str, path: Path, read: Callable[[Path], T]) -> T:
    """Read a table; an error calls it by its path below SOURCE, where it may be unpacked from."""
    try:
        return read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), origin)) from None


def label_photos(
    table: tables.Table, gt: str, photos: Files, folder: str, found: Findings
) -> list[Photo]:
    """Return the photos that a table names, by path below `folder` or by name, sorted by path.

    What does not fit is added to the findings. Raises UserError if nothing fits.
    """
    named = filterfalse(is_table, photos)
    matched = tables.match_names(table.labels, named, "it" if table.labels else "")
    for code, _, what in table.faults:
        found.add(code, gt, what)
    for name in sorted(table.labels.keys() - matched.keys()):
        found.add("label-without-file", f"{folder}{name}", f"a label without a file, in {gt}")
    for name, path in matched.items():
        if name not in (path, path.rpartition("/")[2]):
            found.add("other-name", f"{folder}{path}", f"called {name} in {gt}")
    faulty = tables.match_names([name for _, name, _ in table.faults], photos)
    name_unlabelled(photos, {*matched.values(), *faulty.values()}, folder, found)
    return [
        Photo(path.rpartition("/")[2], table.ids[name], f"{folder}{path}", photos[path])
        for path, name in sorted((path, name) for name, path in matched.items())
    ]


def name_unlabelled(
    files: Files, labelled: Iterable[str], folder: str, found: Findings, why: str = ""
) -> None:
    """Name the photos without a label, and what is none."""
    for path in sorted(files.keys() - labelled):
        trouble = "not an image" if is_table(path) else problem(files[path])
        code = "not-an-image" if trouble else "file-without-label"
        found.add(code, f"{folder}{path}", trouble or why)


def with_names(photos: Iterable[Photo]) -> list[Photo]:
    """Return photos under names that a csv and all systems can hold, numbered where alike."""
    taken: Counter[str] = Counter()  # the highest number of each name
    named = []
    for photo in photos:
        text = normal(tables.decode_name(photo.name))
        name = Path(re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*,\ud800-\udfff]', "_", text))
        room = 200 - len(name.suffix.encode())  # most file systems take 255 bytes
        stem = name.stem.encode()[:room].decode(errors="ignore")
        free = wanted = f"{stem}{name.suffix}"
        while tables.name_key(free) in taken:
            taken[tables.name_key(wanted)] += 1
            free = f"{stem}_{taken[tables.name_key(wanted)]}{name.suffix}"
        taken[tables.name_key(free)] = 1
        named.append(replace(photo, name=free))
    return named


def number_species(labels: Iterable[str], found: Findings) -> tuple[dict[str, int], dict[int, str]]:
    """Return class ids by label, from 0 in the order of the sorted labels, and names by class id.

    Names that differ in case, blanks or the form of accents alone are one species.
    """
    ids: dict[str, int] = {}
    species: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for label in sorted(labels):
        name = name_for_people(label)
        ids[label] = number = numbers.setdefault(name.casefold(), len(numbers))
        if tables.SURROGATE.search(tables.decode_surely(label)):
            found.add("guessed-name", name, GUESSED)
        if number in species:
            found.add("joined-name", label, f"taken for the same species as {species[number]}")
        species[number] = name
    return ids, species


def name_for_people(folder: str) -> str:
    """Return a species' name, which can be written as UTF-8: Black footed Albatross."""
    name = re.sub(r"[\x00-\x1f\ud800-\udfff]", "_", CUB_NUMBER.sub("", tables.decode_name(folder)))
    return normal(name.replace("_", " ").strip() or name)


# ---- The course's archive ------------------------------------------------------------------------


def read_course(files: Files, root: str, found: Findings) -> Sample:
    """Read the tests of a folder in the course layout, and its species.csv if there is one."""
    inputs = sorted({path.split("/")[0] for path in files})
    tests, known = [], {"species.csv"}
    for stem in (i.removesuffix("_input") for i in inputs if layout.TEST_INPUT.fullmatch(i)):
        parts = []
        for part, gt in (("train", f"{stem}_input/train/gt.csv"), ("test", f"{stem}_gt/gt.csv")):
            images = f"{stem}_input/{part}/images/"
            photos = {p: file for p, file in below(files, images).items() if "/" not in p}
            parts.append(read_part(files.get(gt), root + gt, photos, root + images, found))
            known |= {gt, *(f"{images}{path}" for path in photos)}
        tests.append(Test(stem, *parts))
    for path in sorted(files.keys() - known):
        lost = path.startswith(tuple(f"{test.stem}_input/" for test in tests))
        code = "file-without-label" if lost and not is_table(path) else "passed-over"
        found.add(code, root + path, "not part of a test")
    species, source = {}, ""
    if "species.csv" in files:
        species = read_as(f"{root}species.csv", files["species.csv"], tables.read_species)
    elif species := layout.inferred_species(photo.class_id for photo in tests[0].train):
        source = "inferred"
    return Sample("in the course's layout", tests, species, source)


def read_part(
    path: Path | None, gt: str, photos: Files, images: str, found: Findings
) -> list[Photo]:
    """Return the labelled photos of one folder; without a usable table they have no labels."""
    try:
        if path is None:
            raise UserError(f"{gt} is missing")
        table = read_as(gt, path, tables.read_gt)
        read = label_photos(table, gt, photos, images, found)
    except UserError as error:
        missing_truth = path is None and gt.endswith("_gt/gt.csv")
        found.add("no-true-labels" if missing_truth else "bad-table", gt, str(error))
        names = sorted(filterfalse(is_table, photos))
        return [Photo(n, None, f"{images}{n}", photos[n]) for n in names]
    remark = layout.script_remark(path, table.ids)
    if remark and not table.faults:
        found.add("script-differs", gt, remark.replace(str(path), "it"))
    return read


# ---- A table beside photos -----------------------------------------------------------------------


def find_table(source: Path, files: Files, photos: Files) -> tuple[str, tables.Table] | None:
    """Return the one table that labels photos at its side or below, None without one.

    Raises UserError if there are several, or if none does and all photos lie in a single folder.
    """
    best, others = [], []
    for path in sorted(filter(is_table, files)):
        if path.count("/") > MAX_WRAPPING or path.endswith("species.csv"):
            continue
        try:
            if table := read_as(path, files[path], tables.read_table):
                beside = below(photos, path[: path.rfind("/") + 1])
                tables.match_names(table.labels, beside, f"{path} of {source}")
                best.append((path, table))
        except UserError as error:
            others.append(error)
    if len(best) > 1:
        names = ", ".join(path for path, _ in best)
        raise UserError(f"{source} has several tables of labels ({names}); leave one")
    if others and not best and len({path.rpartition("/")[0] for path in photos}) == 1:
        raise others[0]
    return best[0] if best else None


def read_table_beside(source: Path, files: Files, found: Findings) -> Sample | None:
    """Read a table of files and labels, numbers or names, and the photos at its side or below."""
    photos = {path: file for path, file in files.items() if not is_table(path)}
    if (best := find_table(source, files, photos)) is None:
        return None
    gt, table = best
    folder = gt[: gt.rfind("/") + 1]
    below(files, folder, found)  # names what lies elsewhere
    labels = set(table.labels.values())
    ids, species = number_species(labels, found)
    if all(tables.WHOLE_NUMBER.fullmatch(label) for label in labels):
        ids, species = {label: tables.class_id(label) for label in labels}, {}
    table.ids = {name: ids[label] for name, label in table.labels.items()}
    read = label_photos(table, gt, below(photos, folder), folder, found)
    return Sample(f"photos with the table {gt}", [Test("", read, [])], species)


# ---- Class folders -------------------------------------------------------------------------------


def read_class_folders(source: Path, files: Files, found: Findings) -> Sample:
    """Read <species>/.../<photo>; class ids are the positions of the folder names in order."""
    root = class_root(source, files)
    files = below(files, root, found)
    inside = sorted(path for path in files if "/" in path and not is_table(path))
    name_unlabelled(files, inside, root, found, "a photo in no species' folder")
    ids, species = number_species({normal(path.split("/")[0]) for path in inside}, found)
    photos = []
    for path in inside:
        folder, *_, name = normal(path).split("/")
        prefix = f"{CUB_NUMBER.sub('', folder)}_"
        name = name if name.casefold().startswith(prefix.casefold()) else prefix + name
        photos.append(Photo(name, ids[folder], root + path, files[path]))
    return Sample("a tree of class folders", [Test("", photos, [])], species)


def class_root(source: Path, files: Files) -> str:
    """Return the folder, a prefix of paths, whose sub-folders are species.

    That is the first with photos in several sub-folders, or with one that holds photos itself.
    """
    root, photos = "", list(filterfalse(is_table, files))
    for _ in range(MAX_WRAPPING + 1):
        parts = [path[len(root) :].split("/") for path in photos if path.startswith(root)]
        folders = {part[0] for part in parts if len(part) > 1}
        if len(folders) > 1 and {name.lower() for name in folders} <= SPLITS:
            choose_root({f"{root}{name}/" for name in folders}, "species", source)  # an error
        species = not {name.lower() for name in folders} <= NO_SPECIES
        if species and (len(folders) > 1 or any(len(part) == 2 for part in parts)):
            return root
        root += f"{min(folders, default='')}/"
    raise UserError(
        f"{source} holds neither NN_<name>_input folders nor <species>/*.jpg nor CUB-200-2011 nor "
        "a table beside photos, with columns such as filename and label; give the folder right "
        "above them"
    )


# ---- CUB-200-2011 (Wah et al. 2011, CNS-TR-2011-001) ---------------------------------------------


def read_cub(files: Files, root: str, seed: int, found: Findings) -> Sample:
    """Make the course's sample anew: which photos it hides is unknown, so `seed` decides."""
    images, labels, classes = (cub_table(files, name) for name in CUB_TABLES)
    images_of = {  # paths below images/, by CUB's class
        label: [images[key] for key, of in labels.items() if of == label and key in images]
        for label in sorted(classes, key=int)
    }
    fitting = [label for label, paths in images_of.items() if len(paths) == CUB_PHOTOS]
    if len(fitting) < CUB_SPECIES:
        raise UserError(
            f"SOURCE has {len(fitting)} species of exactly {CUB_PHOTOS} photos, the course's "
            f"sample {CUB_SPECIES}; give the whole CUB-200-2011 (for any photos, its folder images)"
        )
    mix, species = random.Random(seed), {}
    public, hidden = [], []
    for class_id, label in enumerate(fitting[:CUB_SPECIES]):
        species[class_id] = name_for_people(classes[label])
        mixed = [(class_id, image) for image in mix.sample(images_of[label], CUB_PHOTOS)]
        public += mixed[:CUB_PUBLIC]
        hidden += mixed[CUB_PUBLIC:]
    numbered = mix.sample(public, len(public)) + mix.sample(hidden, len(hidden))
    train: list[Photo] = []
    held: list[Photo] = []
    for number, (class_id, image) in enumerate(numbered):  # 0000.jpg, 0001.jpg, ...
        if path := files.get(f"images/{image}"):
            photo = Photo(f"{number:04d}.jpg", class_id, f"{root}images/{image}", path)
            (train if number < len(public) else held).append(photo)
        else:
            found.add("label-without-file", f"images/{image}")
    tests = [Test("00_test_img", train, train), Test("01_hidden", train, held)]
    return Sample("CUB-200-2011", tests, species)


def cub_table(files: Files, name: str) -> dict[str, str]:
    """Read a table of CUB-200-2011: a number, a blank, and the rest of the line."""
    if name not in files:
        raise UserError(f"{name} is missing in SOURCE; give the whole extracted CUB-200-2011")
    text = files[name].read_text(encoding="utf-8-sig", errors="surrogateescape")
    rows = (row.split(maxsplit=1) for row in text.split("\n"))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2 and row[0].isdecimal()}
