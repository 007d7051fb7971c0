"""What can be wrong with photos and labels: the kinds of findings, and what was found."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from course.tables import HEADER

FEW_PHOTOS = 5  # a species with fewer is named
IMBALANCE = 10  # times as many photos in the largest species as in the smallest
MIN_SIDE = 32  # pixels
MAX_ASPECT = 4  # longer side by shorter side


class Kind(NamedTuple):
    """A kind of finding; `code` is stable, so that programs may rely on it."""

    code: str
    severity: str  # error: training fails or its result is wrong; warning: it suffers; note
    what: str
    remedy: str


_KINDS = {
    "error": (
        ("bad-table", "a table of labels that cannot be used",
         f"write it as UTF-8 text: {HEADER} in the first line, then the names that photos have"),
        ("bad-row", "a row that gives no file a label", "correct the row"),
        ("two-ids", "a file with two class ids in one table", "keep the row that is right"),
        ("label-without-file", "a label without a file", "add the file or delete the row"),
        ("unreadable", "a file that cannot be decoded",
         "fetch it again; training leaves it out, classify answers with the commonest species"),
        ("two-species", "the same photo under two labels", "keep it where it belongs"),
        ("leaked-copy", "the same bytes in training and in test", "take the photo out of training"),
        ("untrained-species", "a species of the test without training photos",
         "add training photos, or check the class ids"),
    ),
    "warning": (
        ("leaked-near-copy", "the same photo, altered, in training and in test",
         "take the photo out of training"),
        ("truncated", "a photo of which only a part can be decoded",
         "training uses the decodable part: fetch it again, or delete it"),
        ("file-without-label", "a photo without a label, which is not trained on", "add its label"),
        ("repeated-row", "a file with the same class id twice in one table", "delete one row"),
        ("exact-copy", "the same bytes more than once in training", "keep one"),
        ("near-copy", "the same photo, altered, more than once in training", "keep one"),
        ("blank", "a picture of a single colour", "delete it"),
        ("tiny", f"a photo with a side under {MIN_SIDE} pixels", "find a larger one, or delete it"),
        ("not-an-image", "another file among the photos", "move it elsewhere"),
        ("lone-species", "a species with a single training photo or none", "add photos"),
        ("imbalance", f"over {IMBALANCE} times as many photos in one species as in another",
         "add photos to the small ones, or weight the loss"),
    ),
    "note": (
        ("odd-metadata", "a photo with damage beside its pixels, which is passed over",
         "none needed"),
        ("other-name", "a photo that its table calls a little differently",
         "none needed; the testing system's script compares names exactly"),
        ("script-differs", "a table that the testing system's script would read otherwise",
         f"write it as UTF-8 text, {HEADER} in the first line and no quotes or blanks"),
        ("few-photos", f"a species with fewer than {FEW_PHOTOS} training photos", "add photos"),
        ("odd-shape", f"a photo over {MAX_ASPECT} times as long as wide", "crop it"),
        ("look-alikes", "more pairs have similar hashes than are compared closely",
         "none needed; altered copies may have been missed"),
        ("trained-test", "a test that asks only for photos of its training set",
         "none needed; its accuracy says nothing about new photos"),
        ("no-true-labels", "a test without true labels", "add _gt/gt.csv from the whole archive"),
    ),
}  # fmt: skip
KINDS = {code: Kind(code, severity, *rest) for severity, of in _KINDS.items() for code, *rest in of}
# Why a file or a row is left out; passed-over, what is not part of the layout, is no kind.
LEFT_OUT = ("passed-over", "not-an-image", "unreadable", "label-without-file", "file-without-label")
FATAL = ("bad-table", "bad-row", "two-ids", "no-true-labels")  # tests cannot be written with these
GUESSED = "no UTF-8, so it is read as Western; if that is wrong, save it as UTF-8"


class Item(NamedTuple):
    """One finding: the files it is about, as paths below DIR, and what is the matter with them."""

    files: tuple[str, ...]
    detail: str = ""


class Findings(defaultdict[str, dict[Item, None]]):
    """What was found, by the code of its kind, in the order in which it was found."""

    def __init__(self) -> None:
        super().__init__(dict)

    def add(self, code: str, files: str | Iterable[str], detail: str = "") -> None:
        """Add a finding about one file or several, once."""
        self[code][Item((files,) if isinstance(files, str) else tuple(files), detail)] = None
