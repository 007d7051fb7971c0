"""What can be wrong with photos and labels: the kinds of findings, and what was found."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from birddata.layout import HEADER

FEW_PHOTOS = 5  # a species with fewer is named
IMBALANCE = 10  # times as many photos in the largest species as in the smallest
MIN_SIDE = 32  # pixels
MAX_ASPECT = 4  # longer side by shorter side
OUTLIER = 4  # times as large or as small as the median, in sqrt(width * height)


class Kind(NamedTuple):
    """A kind of finding; `code` is stable, so that programs may rely on it."""

    code: str
    severity: str  # error: training fails or its result is wrong; warning: it suffers; note
    what: str
    cure: str


KINDS = (
    Kind("bad-table", "error", "a table of labels that cannot be used",
         f"write it as UTF-8 text whose first line is {HEADER}"),
    Kind("bad-row", "error", "a row that is not a file name, a comma and an integer",
         "mend the row"),
    Kind("two-ids", "error", "a file with two class ids in one table",
         "keep the row that is right"),
    Kind("label-without-file", "error", "a label without a file",
         "add the file or delete the row"),
    Kind("unreadable", "error", "a file that cannot be decoded",
         "training leaves it out, classify answers with the commonest species: fetch it again"),
    Kind("two-species", "error", "the same photo under two labels", "keep it where it belongs"),
    Kind("leaked-copy", "error", "the same bytes in training and in test",
         "take the photo out of training"),
    Kind("untrained-species", "error", "a species of the test without training photos",
         "add training photos, or check the class ids"),
    Kind("leaked-near-copy", "warning", "the same photo, altered, in training and in test",
         "take the photo out of training"),
    Kind("truncated", "warning", "a photo of which only a part can be decoded",
         "training takes the part that is there: fetch it again, or delete it"),
    Kind("file-without-label", "warning", "a photo without a label, which is not trained on",
         "add its label, or delete it"),
    Kind("repeated-row", "warning", "a file with the same class id twice in one table",
         "delete one of the rows"),
    Kind("exact-copy", "warning", "the same bytes more than once in training", "keep one"),
    Kind("near-copy", "warning", "the same photo, altered, more than once in training",
         "keep one"),
    Kind("blank", "warning", "a picture of a single colour", "delete it"),
    Kind("tiny", "warning", f"a photo with a side under {MIN_SIDE} pixels",
         "find a larger version, or delete it"),
    Kind("not-an-image", "warning", "another file among the photos", "move it elsewhere"),
    Kind("lone-species", "warning", "a species with a single training photo or none",
         "add photos, or leave the species out"),
    Kind("imbalance", "warning", f"over {IMBALANCE} times as many photos in one species as in "
         "another", "add photos to the small ones, or weight the loss"),
    Kind("odd-metadata", "note", "a photo with damage beside its pixels, which is passed over",
         "none needed"),
    Kind("colour-mode", "note", "a photo that is neither RGB nor grey, and is converted",
         "none needed"),
    Kind("wrong-extension", "note", "a photo whose extension is not that of its format",
         "none needed here; rename it for other programs"),
    Kind("other-name", "note", "a photo that its table calls a little differently",
         "none needed; the testing system's script compares names exactly"),
    Kind("script-differs", "note", "a table that the testing system's script would read otherwise",
         f"write it as UTF-8 text, {HEADER} in the first line and no quotes or blanks"),
    Kind("few-photos", "note", f"a species with fewer than {FEW_PHOTOS} training photos",
         "add photos"),
    Kind("odd-shape", "note", f"a photo over {MAX_ASPECT} times as long as wide", "crop it"),
    Kind("odd-size", "note", f"a photo over {OUTLIER} times as large or small as the median",
         "look at it: it may not belong here"),
    Kind("grey", "note", "a photo without colour", "none needed"),
    Kind("look-alikes", "note", "more pairs look alike than are compared closely",
         "none needed; altered copies may have been missed"),
    Kind("trained-test", "note", "a test that asks only for photos of its training set",
         "none needed; its accuracy says nothing about new photos"),
    Kind("no-true-labels", "note", "a test without true labels",
         "add its _gt/gt.csv to grade it here"),
)  # fmt: skip


class Item(NamedTuple):
    """One finding: the files it is about, as paths below DIR, and what is the matter with them."""

    files: tuple[str, ...]
    detail: str = ""


# Why a file or a row is left out, wherever photos are read.
LEFT_OUT = ("passed-over", "not-an-image", "unreadable", "label-without-file", "file-without-label")
FATAL = ("bad-table", "bad-row", "two-ids")  # tests are not written from such a table


class Findings(defaultdict[str, dict[Item, None]]):
    """What was found, by the code of its kind, in the order in which it was found.

    Two are no kinds: `passed-over`, files that the system made and what is not part of the layout;
    and `converted`, photos that prepare made JPEG.
    """

    def __init__(self) -> None:
        super().__init__(dict)

    def add(self, code: str, files: str | Iterable[str], detail: str = "") -> None:
        """Add a finding about one file or several, once."""
        self[code][Item((files,) if isinstance(files, str) else tuple(files), detail)] = None

    def kinds(self) -> list[Kind]:
        """Return the kinds of which there is a finding, most severe first."""
        return [kind for kind in KINDS if self.get(kind.code)]

    def worst(self) -> str:
        """Return the highest severity among the findings, note if there is none."""
        return next((kind.severity for kind in self.kinds()), "note")

    def told(self, code: str, item: Item, with_cure: bool = False) -> str:
        """Say what a finding is about, and what is the matter."""
        kind = next((kind for kind in KINDS if kind.code == code), None)
        plain = code in ("passed-over", "not-an-image", "unreadable", "bad-table")
        detail = f" ({item.detail})" if item.detail else ""
        what = item.detail if plain else f"{kind.what}{detail}"
        return f"{' = '.join(item.files)}: {what}{f'; {kind.cure}' if with_cure else ''}"
