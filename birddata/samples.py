"""What the files of SOURCE are: tests, CUB-200-2011, a table beside photos, or class folders."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from birddata import DataError, layout
from birddata.findings import Findings
from birddata.sources import Entry, Files, is_table
from birddata.writing import Photo, Sample, Test
from solution import DETAIL, Settings, read_photo

MAX_WRAPPING = 2  # how many folders may lie between SOURCE and what is looked for
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
NO_SPECIES = SPLITS | {"images", "imgs", "photos", "pictures", "jpegimages"}
CUB_TABLES = ("images.txt", "image_class_labels.txt", "classes.txt")
# The course's sample, as far as it is known: the first species of CUB-200-2011, in its order, that
# have exactly so many photos; some of them are public, and the others probably the hidden test.
CUB_SPECIES, CUB_PHOTOS, CUB_PUBLIC = 50, 60, 50

SIDE = DETAIL * Settings.input_size  # pixels, as training and classify read photos

T = TypeVar("T")


def find_sample(source: Path, files: Files, seed: int, found: Findings) -> Sample:
    """Recognise the layout of SOURCE and read it."""
    root = choose_root(course_roots(files), "tests", source)
    if root is not None:
        return read_course(below(files, root, found), root, found)
    root = choose_root(cub_roots(files), "CUB archives", source)
    if root is not None:
        return read_cub(below(files, root), seed, found)
    if (sample := read_table_beside(source, files, found)) is not None:
        return sample
    return read_class_folders(source, files, found)


def choose_root(roots: set[tuple[str, ...]], what: str, source: Path) -> str | None:
    """Return the shallowest root as a prefix of paths ("" for SOURCE itself), None without any.

    Raises DataError when two roots are equally shallow.
    """
    roots = {root for root in roots if len(root) <= MAX_WRAPPING}
    depth = min(map(len, roots), default=0)
    best = sorted("".join(f"{part}/" for part in root) for root in roots if len(root) == depth)
    if len(best) > 1:
        raise DataError(
            f"{source} holds {what} in more than one place ({', '.join(best)}); give one of them"
        )
    return best[0] if best else None


def below(files: Files, root: str, found: Findings | None = None) -> Files:
    """Return the files below a root, by their path from there; name the others if asked to."""
    for path in sorted(files) if found is not None else []:
        if not path.startswith(root):
            found.add("passed-over", path, f"not below {root}")
    return {path[len(root) :]: file for path, file in files.items() if path.startswith(root)}


# ---- Photos and their labels ---------------------------------------------------------------------


def problem(path: Path) -> str | None:
    """Say why training leaves a photo out and classify cannot read it; None if they can."""
    try:
        read_photo(path, SIDE)
    except Exception as error:  # a damaged photo makes Pillow raise nearly anything
        return reason(error)
    return None


def reason(error: Exception) -> str:
    """Say in a few words why a photo cannot be read."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or " ".join(str(error).split()) or type(error).__name__


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def worded(file: Entry, read: Callable[[Path], T]) -> T:
    """Read a table; an error calls it by its path below SOURCE, where it may be unpacked from."""
    try:
        return read(file.path)
    except DataError as error:
        raise DataError(str(error).replace(str(file.path), file.origin)) from None


def match_labels(
    table: layout.Table, gt: str, photos: Files, images: str, found: Findings
) -> dict[str, str]:
    """Return the label, as it is written, of each photo that a table names, by the photo's path.

    The photos have paths below `images`, where the table may name them by path or by name. What
    does not fit is added to the findings.
    """
    for code, name, what in table.faults:
        bad_row = code == "bad-row"
        found.add(code, gt if bad_row else f"{images}{name}", what if bad_row else f"{gt} {what}")
    matched = match_paths(table.labels, photos)
    faulty = match_paths(dict.fromkeys(name for _, name, _ in table.faults), photos)
    for name in sorted(table.labels.keys() - matched.keys()):
        found.add("label-without-file", f"{images}{name}", f"in {gt}")
    for name, path in matched.items():
        if name not in (path, path.rpartition("/")[2]):
            found.add("other-name", photos[path].origin, f"{name} in {gt}")
    for path in sorted(photos.keys() - {*matched.values(), *faulty.values()}):
        why = "not an image" if is_table(path) else problem(photos[path].path)
        if why:
            found.add("not-an-image", photos[path].origin, why)
        else:
            found.add("file-without-label", photos[path].origin)
    return {path: table.labels[name] for name, path in matched.items()}


def match_paths(named: Mapping[str, str | None], photos: Files) -> dict[str, str]:
    """Return the path of the photo that each name in a table means."""
    paths = {name: name.replace("\\", "/").removeprefix("./") for name in named}
    exact = {name: path for name, path in paths.items() if path in photos}
    others = photos.keys() - exact.values()
    by_name = {path.rpartition("/")[2]: path for path in others}
    if len(by_name) < len(others):  # such as 000.jpg in each folder
        count = Counter(path.rpartition("/")[2] for path in others)
        by_name = {name: path for name, path in by_name.items() if count[name] == 1}
    matched = layout.match_names([name for name in named if name not in exact], by_name)
    return exact | {name: by_name[file] for name, file in matched.items()}


def unique_name(name: str, taken: set[str]) -> str:
    """Return a name that a csv row, UTF-8 and every system can hold, numbered if it is taken.

    Case is ignored in the comparison because the file systems of Windows and macOS ignore it.
    """
    name = unicodedata.normalize("NFC", name)
    first = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*,\ud800-\udfff]', "_", name)
    name, number = first, 2
    while layout.name_key(name) in taken:
        name = f"{Path(first).stem}_{number}{Path(first).suffix}"
        number += 1
    taken.add(layout.name_key(name))
    return name


def without_number(folder: str) -> str:
    """Cut off the number that CUB puts before a species: 001.Black_footed_Albatross."""
    return re.sub(r"^[0-9]{3}\.(?=.)", "", folder)


def name_for_people(folder: str) -> str:
    """Return a species' name, which can be written as UTF-8: Black footed Albatross."""
    name = re.sub(r"[\x00-\x1f\ud800-\udfff]", "_", without_number(folder))
    return unicodedata.normalize("NFC", name.replace("_", " ").strip() or folder)


# ---- The course's archive ------------------------------------------------------------------------


def course_roots(files: Files) -> set[tuple[str, ...]]:
    """Return the folders that hold a folder NN_<name>_input."""
    split = [tuple(path.split("/")[:-1]) for path in files]
    return {
        parts[:depth]
        for parts in split
        for depth, part in enumerate(parts)
        if layout.TEST_INPUT.fullmatch(part)
    }


def read_course(files: Files, root: str, found: Findings) -> Sample:
    """Read the tests of a folder in the course layout, and its species.csv if there is one."""
    inputs = sorted({path.split("/")[0] for path in files})
    stems = [i.removesuffix("_input") for i in inputs if layout.TEST_INPUT.fullmatch(i)]
    tests, known = [], {"species.csv"}
    for stem in stems:
        here = f"{stem}_input"
        train = read_part(files, f"{here}/train/gt.csv", f"{here}/train/images/", root, found)
        test = read_part(files, f"{stem}_gt/gt.csv", f"{here}/test/images/", root, found)
        tests.append(Test(stem, train[0], test[0], train[1], test[1]))
        known |= {f"{here}/train/gt.csv", f"{stem}_gt/gt.csv"}
    folders = tuple(f"{stem}_input/{part}/images" for stem in stems for part in ("train", "test"))
    for path, file in sorted(files.items()):
        if path not in known and path.rpartition("/")[0] not in folders:
            lost = path.startswith(tuple(f"{stem}_input/" for stem in stems)) and not is_table(path)
            code = "file-without-label" if lost else "passed-over"
            found.add(code, file.origin, "not part of a test")
    species = worded(files["species.csv"], layout.read_species) if "species.csv" in files else {}
    return Sample("in the course's layout", tests, species)


def read_part(
    files: Files, gt: str, images: str, root: str, found: Findings
) -> tuple[list[Photo], set[int] | None]:
    """Read the labelled photos of one folder, and all class ids of its table.

    Without a usable table the photos have no labels, and there are no class ids.
    """
    here = {path: file for path, file in files.items() if path.rpartition("/")[0] == images[:-1]}
    photos = {path[len(images) :]: file for path, file in here.items()}
    taken: set[str] = set()
    try:
        if gt not in files:
            raise DataError(f"{root}{gt} is missing")
        table = worded(files[gt], layout.read_gt)
    except DataError as error:
        missing_truth = gt not in files and gt.endswith("_gt/gt.csv")
        found.add("no-true-labels" if missing_truth else "bad-table", root + gt, str(error))
        loose = [(n, file) for n, file in sorted(photos.items()) if not is_table(n)]
        return [Photo(unique_name(n, taken), None, *file) for n, file in loose], None
    labels = match_labels(table, root + gt, photos, root + images, found)
    remark = layout.script_remark(
        files[gt].path, {name: layout.class_id(text) for name, text in table.labels.items()}
    )
    if remark and not table.faults:
        found.add("script-differs", root + gt, remark.replace(str(files[gt].path), "it"))
    read = [
        Photo(unique_name(name, taken), layout.class_id(text), *photos[name])
        for name, text in sorted(labels.items())
    ]
    return read, {layout.class_id(text) for text in table.labels.values()}


# ---- A table beside photos -----------------------------------------------------------------------


def read_table_beside(source: Path, files: Files, found: Findings) -> Sample | None:
    """Read a table of files and labels, numbers or names, and the photos at its side or below."""
    tables = {path: t for path in files if (t := table_at(path, files)) is not None}
    matched = {
        path: match_paths(t.labels, photos_beside(path, files)) for path, t in tables.items()
    }
    best = [path for path in tables if matched[path]]
    if len(best) > 1:
        raise DataError(f"{source} has several tables of labels ({', '.join(best)}); leave one")
    if not best:
        refuse_tables_of_others(source, files, tables)
        return None
    (gt,) = best
    prefix, table = gt[: gt.rfind("/") + 1], tables[gt]
    below(files, prefix, found)  # names what lies elsewhere
    photos = photos_beside(gt, files)
    labels = match_labels(table, gt, photos, prefix, found)
    ids, species = ids_of(set(table.labels.values()))
    taken: set[str] = set()
    read = [
        Photo(unique_name(path.rpartition("/")[2], taken), ids[text], *photos[path])
        for path, text in sorted(labels.items())
    ]
    test = Test("", read, [], set(ids.values()))
    return Sample(f"photos with the table {gt}", [test], species)


def table_at(path: str, files: Files) -> layout.Table | None:
    """Read a file as a table of labels, if it is one."""
    if not is_table(path) or path.count("/") > MAX_WRAPPING or path.endswith("species.csv"):
        return None
    try:
        return layout.read_table(files[path].path)
    except DataError:
        return None


def photos_beside(table: str, files: Files) -> Files:
    """Return the photos beside a table or below its folder, by their path from there."""
    prefix = table[: table.rfind("/") + 1]
    here = {path: file for path, file in files.items() if path.startswith(prefix)}
    return {path[len(prefix) :]: file for path, file in here.items() if not is_table(path)}


def refuse_tables_of_others(source: Path, files: Files, tables: dict[str, layout.Table]) -> None:
    """Raise DataError where only a table could tell the species, and it names other photos."""
    folders = {path.rpartition("/")[0] for path in files if not is_table(path)}
    if tables and len(folders) == 1:
        path, table = next(iter(tables.items()))
        there = sorted(photos_beside(path, files))[:2]
        raise DataError(
            f"{source}: {path} names no photo that is there: it says "
            f"{', '.join(list(table.labels)[:2])}, there are {', '.join(there)}; mend the names"
        )


def ids_of(labels: set[str]) -> tuple[dict[str, int], dict[int, str]]:
    """Return class ids by label, and names by class id where labels are names."""
    if all(layout.WHOLE_NUMBER.fullmatch(label) for label in labels):
        return {label: layout.class_id(label) for label in labels}, {}
    ids = {label: number for number, label in enumerate(sorted(labels))}
    return ids, {number: name_for_people(label) for label, number in ids.items()}


# ---- Class folders -------------------------------------------------------------------------------


def read_class_folders(source: Path, files: Files, found: Findings) -> Sample:
    """Read <species>/.../<photo>; class ids are the positions of the folder names in order."""
    root = class_root(source, [path for path in files if not is_table(path)])
    files = below(files, root, found)
    inside = {path: file for path, file in files.items() if "/" in path and not is_table(path)}
    for path in sorted(files.keys() - inside.keys()):
        why = "not an image" if is_table(path) else problem(files[path].path)
        code = "not-an-image" if why else "file-without-label"
        found.add(code, files[path].origin, why or "not in a species' folder")
    folders = sorted({unicodedata.normalize("NFC", path.split("/")[0]) for path in inside})
    ids = {name: number for number, name in enumerate(folders)}
    taken: set[str] = set()
    photos = []
    for path, file in sorted(inside.items()):
        folder, *_, name = unicodedata.normalize("NFC", path).split("/")
        prefix = f"{without_number(folder)}_"
        name = name if name.casefold().startswith(prefix.casefold()) else prefix + name
        photos.append(Photo(unique_name(name, taken), ids[folder], *file))
    species = {number: name_for_people(name) for number, name in enumerate(folders)}
    test = Test("", photos, [], set(species))
    deep = sum(path.count("/") > 1 for path in inside)
    more = f" (photos in folders further down: {deep:,}; the first folder is the species)"
    return Sample(f"a tree of class folders{more if deep else ''}", [test], species)


def class_root(source: Path, photos: list[str]) -> str:
    """Return the folder whose sub-folders are species, as a prefix of paths: "" for SOURCE.

    That is the first with photos in several sub-folders, or with one that holds photos itself.
    """
    root = ""
    for _ in range(MAX_WRAPPING + 1):
        parts = [path[len(root) :].split("/") for path in photos if path.startswith(root)]
        folders = {part[0] for part in parts if len(part) > 1}
        if len(folders) > 1 and {name.lower() for name in folders} <= SPLITS:
            here = ", ".join(f"{root}{name}/" for name in sorted(folders))
            raise DataError(
                f"{source} holds species in more than one place ({here}); give one of them"
            )
        species = not {name.lower() for name in folders} <= NO_SPECIES
        if species and (len(folders) > 1 or any(len(part) == 2 for part in parts)):
            return root
        root += f"{min(folders, default='')}/"
    raise DataError(
        f"{source} holds neither NN_<name>_input folders nor <species>/*.jpg nor a table of labels "
        "beside the photos nor CUB-200-2011; give the folder right above them"
    )


# ---- CUB-200-2011 (Wah et al. 2011, CNS-TR-2011-001) ---------------------------------------------


def cub_roots(files: Files) -> set[tuple[str, ...]]:
    """Return the folders that hold two or more of the tables of CUB-200-2011."""
    split = [tuple(path.split("/")) for path in files]
    count = Counter(parts[:-1] for parts in split if parts[-1] in CUB_TABLES)
    return {root for root in count if count[root] > 1}


def read_cub(files: Files, seed: int, found: Findings) -> Sample:
    """Make the course's sample anew: 50 photos of each species in test 00, 10 others in test 01.

    Which 10 the course hides is unknown: `seed` decides, and numbers the photos in mixed order.
    """
    photos_of, classes = cub_photos(files)
    chosen = [label for label in classes if len(photos_of[label]) == CUB_PHOTOS][:CUB_SPECIES]
    if len(chosen) < CUB_SPECIES:
        raise DataError(
            f"SOURCE has {len(chosen)} species of exactly {CUB_PHOTOS} photos, the course's sample "
            f"{CUB_SPECIES}; give the whole CUB-200-2011 (or, for any photos, its folder images)"
        )
    mix = random.Random(seed)
    public, hidden = [], []
    for class_id, label in enumerate(chosen):
        images = mix.sample(photos_of[label], CUB_PHOTOS)
        public += [(class_id, image) for image in images[:CUB_PUBLIC]]
        hidden += [(class_id, image) for image in images[CUB_PUBLIC:]]
    train = cub_part(files, mix.sample(public, len(public)), 0, found)
    held = cub_part(files, mix.sample(hidden, len(hidden)), len(public), found)
    species = {class_id: name_for_people(classes[label]) for class_id, label in enumerate(chosen)}
    tests = [Test("00_test_img", train, train), Test("01_hidden", train, held)]
    others = len(classes) - len(chosen)
    return Sample(f"CUB-200-2011 ({others} species are not in the course's sample)", tests, species)


def cub_part(files: Files, part: list[tuple[int, str]], first: int, found: Findings) -> list[Photo]:
    """Number photos, given as class ids and paths below images/: 0000.jpg, 0001.jpg, ..."""
    photos = []
    for number, (class_id, image) in enumerate(part, start=first):
        if file := files.get(f"images/{image}"):
            photos.append(Photo(f"{number:04d}.jpg", class_id, *file))
        else:
            found.add("label-without-file", f"images/{image}", "in images.txt")
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
        raise DataError(f"{name} is missing in SOURCE; give the whole extracted CUB-200-2011")
    text = files[name].path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    rows = (row.split(maxsplit=1) for row in text.split("\n"))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2 and row[0].isdecimal()}
