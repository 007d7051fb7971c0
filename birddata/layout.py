"""The course's layout: its folders, gt.csv and species.csv. One place that reads and writes them.

A folder of tests holds `NN_<name>_input/train/gt.csv`, `.../train/images`, `.../test/images` and
`NN_<name>_gt/gt.csv`. People's tables are read tolerantly: with Excel's marks, semicolons, quotes,
blanks and further columns, in UTF-8 or UTF-16. The testing system's script is not so tolerant:
grader/protocol.py reads as it does, and says what it would make of a table.
"""

import csv
import io
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birddata import DataError

HEADER = "filename,class_id"
SPECIES_HEADER = "class_id,name"
TEST_INPUT = re.compile(r"[0-9]{2}_.+_input")
MAX_TABLE_BYTES = 16 * 2**20  # a gt.csv of 2,500 photos is 50 kB
# The columns of a table of labels, in lower case; the first that is there is taken.
FILE_COLUMNS = (
    *("filename", "file_name", "file", "filepath", "filepaths", "path", "image", "photo"),
    *("image_id", "id"),
)
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
LABEL_COLUMNS = ("class_id", "label", "labels", "class", "species", "breed", "category", "target")


def find_inputs(folder: Path) -> list[Path]:
    """The folders NN_<name>_input in a folder, in order; none if there is no such folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in paths if TEST_INPUT.fullmatch(p.name) and p.is_dir())


# ---- Any table -----------------------------------------------------------------------------------


@dataclass
class Table:
    """The labels of a table as they are written, by file name, and what is wrong with its rows."""

    labels: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # code, file, line or row


def read_rows(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a csv, in lower case, and its rows: the number of the line, text by column.

    Bytes that are no UTF-8 are kept as surrogates, as they are in names of files. Raises DataError
    for a file that is no table, OSError for one that cannot be read.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        limit = MAX_TABLE_BYTES // 2**20
        raise DataError(f"{path} is larger than {limit} MiB, so it is no table of labels")
    content = path.read_bytes()
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode(*("utf-16", "replace") if utf16 else ("utf-8-sig", "surrogateescape"))
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        rows = [
            (f"line {reader.line_num}", dict(zip(columns, map(str.strip, row), strict=False)))
            for row in reader
            if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no table: {error}") from None
    return columns, rows


def read_table(path: Path, numbers: bool = False) -> Table | None:
    """The labels of a table of files and labels; None if its first line names no such columns.

    With `numbers` a label that is no whole number is a fault.
    """
    columns, rows = read_rows(path)
    file, label = (
        next((name for name in known if name in columns), None)
        for known in (FILE_COLUMNS, LABEL_COLUMNS)
    )
    if file is None or label is None:
        return None
    table = Table()
    for line, row in rows:
        name, text = row.get(file, ""), row.get(label, "")
        if not name or not text or (numbers and not WHOLE_NUMBER.fullmatch(text)):
            table.faults.append(("bad-row", name, f"{line}: {','.join(row.values())!r}"))
        elif name in table.labels:
            code = "repeated-row" if table.labels[name] == text else "two-ids"
            table.faults.append((code, name, line))
        else:
            table.labels[name] = text
    return table


# ---- gt.csv --------------------------------------------------------------------------------------


def read_gt(path: Path) -> Table:
    """A table of labels that are whole numbers.

    Raises DataError if its first line is another, OSError if it cannot be read.
    """
    table = read_table(path, numbers=True)
    if table is None:
        raise DataError(f"{path} must start with the line {HEADER}")
    return table


def class_id(text: str) -> int:
    """The whole number that a label of `read_gt` is; spreadsheets write 3.0."""
    return int(text.partition(".")[0])


def read_labels(path: Path) -> dict[str, int]:
    """Class ids by file name, from a gt.csv without a fault. Raises DataError if there is one."""
    try:
        table = read_gt(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    for code, name, what in table.faults:
        if code != "repeated-row":
            fault = f"gives {name} another class id" if code == "two-ids" else f"is not {HEADER}"
            raise DataError(f"{path}, {what} {fault}; mend it")
    return {name: class_id(text) for name, text in table.labels.items()}


def gt_bytes(labels: Mapping[str, int]) -> bytes:
    """What a gt.csv or output.csv with these class ids holds, its rows sorted by file name."""
    rows = "".join(f"{name},{class_id}\n" for name, class_id in sorted(labels.items()))
    return f"{HEADER}\n{rows}".encode(errors="surrogateescape")


# ---- species.csv ---------------------------------------------------------------------------------


def read_species(path: Path) -> dict[int, str]:
    """Names by class id, or none if there is no such file. Raises DataError for another table."""
    if not path.is_file():
        return {}
    try:
        columns, rows = read_rows(path)
        if not {"class_id", "name"} <= set(columns):
            raise ValueError
        names = {int(row["class_id"]): russian(row["name"]) for _, row in rows}
        return {key: name.encode(errors="replace").decode() for key, name in names.items()}
    except (ValueError, KeyError):
        raise DataError(
            f"{path} must have the header {SPECIES_HEADER} and a row per species; mend it"
        ) from None


def species_bytes(species: Mapping[int, str]) -> bytes:
    """What a species.csv with these names holds, sorted by class id."""
    file = io.StringIO()
    rows = [SPECIES_HEADER.split(","), *sorted(species.items())]
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode(errors="surrogateescape")


# ---- Names of photos -----------------------------------------------------------------------------


def russian(name: str, codec: str = "cp1251") -> str:
    """A name with bytes that are no UTF-8, as a Russian Windows meant it; others as they are."""
    if not re.search("[\udc80-\udcff]", name):
        return name
    text = name.encode(errors="surrogateescape").decode(codec, "replace")
    return text if re.fullmatch("[\x00-\x7fа-яёА-ЯЁ]*", text) else name


def name_key(name: str) -> str:
    """What names are compared by: text and accents in one form, no folders, blanks or case."""
    name = unicodedata.normalize("NFC", russian(name)).replace("\\", "/").rpartition("/")[2]
    return name.strip().casefold()


def match_names(named: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """For each name in a table the file that it names, of those that are there.

    That is the file of just this name, or else the only other one with the same `name_key`, which
    may have an extension that the table leaves out. Names without such a file are left out, and
    no file is given to two names.
    """
    named, there = list(named), set(there)
    by_key: dict[str, set[str]] = defaultdict(set)
    for name in there.difference(named):
        by_key[name_key(name)].add(name)
        by_key[name_key(Path(name).stem)].add(name)
    found = {name: {name} if name in there else by_key[name_key(name)] for name in named}
    return {name: files.pop() for name, files in found.items() if len(files) == 1}


def check_match(matched: Mapping, named: Iterable[str], there: Iterable[str], table: str) -> None:
    """Raise DataError, with examples and the likely cause, if no name in a table fits a photo."""
    if matched or not (named := sorted(named)):
        return
    there = sorted(there)
    stems, others = ({name_key(Path(name).stem) for name in names} for names in (named, there))
    first = name_key(Path(named[0]).stem)
    if stems & others:
        cause = "other extensions, or names that differ in case only"
    elif any(other.endswith(first) or first.endswith(other) for other in others):
        cause = "a prefix before the names"
    else:
        cause = "labels of other photos, or another folder"
    raise DataError(
        f"no name in {table} is that of a photo: labelled are {', '.join(named[:2])}, the photos "
        f"are {', '.join(there[:2]) or 'missing'}; the likely cause: {cause}"
    )


def labels_of_files(
    labels: Mapping[str, int], folder: Path, there: Iterable[str]
) -> dict[str, int]:
    """The labels by the names of the files in `folder`; what no file has the name of stays.

    Says on stderr which names differ. Raises DataError if none is that of a file.
    """
    there = sorted(there)
    matched = match_names(sorted(labels), there)
    check_match(matched, labels, there, f"the labels of {folder}")
    if other := {name: file for name, file in matched.items() if name != file}:
        example = " for ".join(min(other.items()))
        print(f"{len(other)} labels name photos differently, such as {example}", file=sys.stderr)
    return {matched.get(name, name): class_id for name, class_id in labels.items()}
