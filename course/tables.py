"""People's tables, read tolerantly; course/layout.py reads as strictly as the course's script."""

import csv
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from course.files import UserError, name_errors

HEADER = "filename,class_id"
SPECIES_HEADER = "class_id,name"
MAX_TABLE_BYTES = 16 * 2**20  # a gt.csv of 2,500 photos is 50 kB
# The columns of a table of labels, in lower case; the first that is there is taken.
FILE_COLUMNS = (
    *("filename", "file_name", "file", "filepath", "filepaths", "path", "image", "photo"),
    *("image_id", "id"),
)
LABEL_COLUMNS = ("class_id", "label", "labels", "class", "species", "breed", "category", "target")
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
NAME = re.compile(r"[^\0\r\n]+")  # a line end in a name comes from a quote that was left open
SURROGATE = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8
# Lines above the header: blank ones, comments, and Excel's word on what separates the columns.
ABOVE = re.compile(r"\s*(#[^,;|\t]*|sep=[,;|\t:]\s*)?", re.IGNORECASE)


@dataclass
class Table:
    """The labels of a table, by file name, and what is wrong with its rows."""

    labels: dict[str, str] = field(default_factory=dict)  # as they are written
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # code, file, row
    ids: dict[str, int] = field(default_factory=dict)  # class ids, once known


def read_rows(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Return the columns of a csv, in lower case, and its rows: "line 2", text by column.

    Bytes that are no UTF-8 are kept as surrogates. Raises UserError for a file that is no table.
    """
    with name_errors(path):
        if path.stat().st_size > MAX_TABLE_BYTES:
            limit = MAX_TABLE_BYTES // 2**20
            raise UserError(f"{path} is larger than {limit} MiB, so it is no table of labels")
        if path.is_fifo() or path.is_char_device():  # opening it would block
            raise UserError(f"{path} is a device or a pipe; give a file")
        content = path.read_bytes()
    codec = json.detect_encoding(content)
    text = content.decode(codec, "surrogateescape" if codec.startswith("utf-8") else "replace")
    lines = list(io.StringIO(text.replace("\ufeff", ""), newline=""))
    above = list(takewhile(ABOVE.fullmatch, lines))
    asked = re.search("^sep=(.)", "".join(above), re.IGNORECASE | re.MULTILINE)
    lines = lines[len(above) :]
    delimiter = asked[1] if asked else max(",;\t|", key="".join(lines[:1]).count)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        rows = [
            (reader.line_num + len(above), dict(zip(columns, map(str.strip, row), strict=False)))
            for row in reader
            if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise UserError(f"{path} is no table: {error}") from None
    return columns, [(f"line {number}", row) for number, row in rows]


def read_table(path: Path, numbers: bool = False) -> Table | None:
    """Return labels by file, with `numbers` only whole numbers; None without such columns."""
    columns, rows = read_rows(path)
    files, labels = ([c for c in known if c in columns] for known in (FILE_COLUMNS, LABEL_COLUMNS))
    if not files or not labels:
        return None
    table = Table()
    for line, row in rows:
        name, text = row.get(files[0], ""), row.get(labels[0], "")
        if not NAME.fullmatch(name) or not (WHOLE_NUMBER if numbers else NAME).fullmatch(text):
            shown = ",".join(row.values())[:80]
            kind = HEADER if numbers else "a file name and a label"
            table.faults.append(("bad-row", name, f"{line}: {shown!r} is not {kind}"))
        elif name in table.labels:
            code = "repeated-row" if table.labels[name] == text else "two-ids"
            table.faults.append((code, name, f"{line} labels {name} again"))
        else:
            table.labels[name] = text
    return table


def read_gt(path: Path) -> Table:
    """Return a table of labels that are whole numbers. Raises UserError for another one."""
    table = read_table(path, numbers=True)
    if table is None or not (table.labels or table.faults):
        raise UserError(f"{path} must start with the line {HEADER}, and have a row for each photo")
    table.ids = {name: class_id(text) for name, text in table.labels.items()}
    return table


def class_id(text: str) -> int:
    """Return the whole number that a label is; spreadsheets write 3.0."""
    return int(text.partition(".")[0])


def read_labels(path: Path) -> dict[str, int]:
    """Return class ids by file name from a gt.csv. Raises UserError for a fault in it."""
    table = read_gt(path)
    for code, _, what in table.faults:
        if code != "repeated-row":
            raise UserError(f"{path}, {what}; correct it")
    return table.ids


# ---- species.csv ---------------------------------------------------------------------------------


def read_species(path: Path) -> dict[int, str]:
    """Return names by class id, none if there is no such file. Raises UserError for another."""
    if not path.is_file():
        return {}
    names: dict[int, str] = {}
    for line, row in read_rows(path)[1]:
        key, name = row.get("class_id", ""), row.get("name", "")
        whole = "name" in row and WHOLE_NUMBER.fullmatch(key)
        if not whole or names.setdefault(class_id(key), name) != name:
            raise UserError(
                f"{path}, {line} is not {SPECIES_HEADER}, or gives an id another name; correct it"
            )
    return {class_id: decode_name(name) for class_id, name in names.items()}


def species_bytes(species: Mapping[int, str], source: str = "") -> bytes:
    """Return what a species.csv with these names holds, sorted by class id, and their source."""
    file, more = io.StringIO(), [source] if source else []
    rows = [[*row, *more] for row in sorted(species.items())]
    header = [*SPECIES_HEADER.split(","), *(["source"] if source else [])]
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue().encode()


# ---- Names of photos -----------------------------------------------------------------------------


def decode_name(name: str) -> str:
    """Return a name without surrogates; what is no UTF-8 or Russian is Western, or escaped."""
    name = decode_surely(name)
    if not SURROGATE.search(name):
        return name
    content = name.encode(errors="surrogateescape")
    with suppress(UnicodeDecodeError):
        return content.decode("cp1252")
    return content.decode(errors="backslashreplace")


def decode_surely(name: str, codecs: Iterable[str] = ("cp1251", "cp866")) -> str:
    """Return a name that is UTF-8 or Russian without surrogates, another as it is.

    Russian is believed if its letters make whole words, one of them longer than the French à.
    """
    if not SURROGATE.search(name):
        return name
    content = name.encode(errors="surrogateescape")
    with suppress(UnicodeDecodeError):
        return content.decode()
    for text in (content.decode(codec, "replace") for codec in codecs):
        words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
        symbols = re.sub("[а-яёА-ЯЁ]", "", text)
        whole = all(re.fullmatch("[а-яёА-ЯЁ]+", word) for word in words)
        if symbols.isascii() and whole and max(map(len, words)) > 1:
            return text
    return name


def name_key(name: str) -> str:
    """Return what names are compared by: one form of accents, no folders, blanks or case."""
    name = decode_name(name.replace("\\", "/").rpartition("/")[2])
    return unicodedata.normalize("NFC", name).strip().casefold()


def match_names(named: Iterable[str], there: Iterable[str], table: str = "") -> dict[str, str]:
    """Return for each name in a table the file that it names, of the names or paths there.

    That is the file of just this path, or else the only other one with the same `name_key`, perhaps
    with an extension that the table leaves out. Other names are left out. With a `table`, as errors
    call it, UserError is raised if no name fits.
    """
    paths, there = {n: n.replace("\\", "/").removeprefix("./") for n in named}, set(there)
    exact = {name: path for name, path in paths.items() if path in there}
    by_key: dict[str, set[str]] = defaultdict(set)
    for path in there.difference(exact.values()):
        by_key[name_key(path)].add(path)
        by_key[name_key(Path(path).stem)].add(path)
    others = {name: by_key[name_key(name)] for name in paths if name not in exact}
    matched = exact | {name: files.pop() for name, files in others.items() if len(files) == 1}
    if table and not matched:
        labelled, photos = (", ".join(sorted(names)[:2]) or "none" for names in (paths, there))
        raise UserError(
            f"no name in {table} is that of a photo: labelled are {labelled}, the photos are "
            f"{photos}; correct the names in it, or give the photos that it labels"
        )
    return matched
