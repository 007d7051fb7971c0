"""A page written twice from the same blocks: Markdown with picture files, and one HTML file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course.files import atomic_write

CSS_PIXELS_PER_INCH = 96
# On a phone, columns with a cell of more letters stand below the rest of their row, if that has at
# most so many columns; wider tables scroll in their box.
SENTENCE, PHONE_COLUMNS = 40, 3
PHONE_WIDTH = 560  # CSS pixels; a wider picture keeps its size on a phone and scrolls in its box

STYLE = """
body { margin: 0 auto; padding: 0 1rem 4rem; max-width: 75rem; color: #1c1c1c; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
p, li, figcaption { max-width: 48rem }
h1, h2, h3 { line-height: 1.2 }
pre { font-size: .8125rem; line-height: 1.4; overflow-wrap: normal }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc }
.box { overflow-x: auto }
.box:has(table) { margin: 1rem 0 }
table { border-collapse: collapse; overflow-wrap: normal; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e4e4 }
.number { text-align: right }
td.number { white-space: nowrap }
figure { margin: 1.5rem 0 }
img { height: auto }
@media (max-width: 40rem) {
  table { font-size: .875rem }
  table:has(.sentence), table:has(.sentence) :is(thead, tbody) { display: block }
  tr:has(.sentence) { display: flex; flex-wrap: wrap; border-bottom: 1px solid #e4e4e4 }
  tr:has(.sentence) > * { flex: 1; border: 0; box-sizing: border-box }
  tr > .sentence { flex: 0 0 100%; order: 1 }
  td.sentence::before { content: attr(data-name); color: #555 }
  th.sentence { display: none }
}
.fits { max-width: 100% }
figcaption { color: #555 }
"""

# Nothing but what the file holds: a browser refuses every request that a page might make.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file, shown at the size in inches that it states itself."""

    name: str  # of its file, without the suffix
    image: bytes
    alt: str  # what it shows, for those who cannot see it
    caption: str = ""

    @property
    def kind(self) -> str:
        """`png` or `jpeg`: the file's suffix, and the second half of its media type."""
        return "png" if self.image.startswith(b"\x89PNG") else "jpeg"

    @property
    def width(self) -> int:
        """CSS pixels."""
        with Image.open(io.BytesIO(self.image)) as image:
            dots_per_inch = image.info.get("dpi", (CSS_PIXELS_PER_INCH,))[0]
            return round(image.width / dots_per_inch * CSS_PIXELS_PER_INCH)


class Page:
    """Blocks in reading order. All text is plain: what looks like markup is shown as it is."""

    def __init__(self, title: str, language: str = "en") -> None:
        self.title, self.language = title, language
        self.markdown = [f"# {_escaped(title)}"]
        self.html = [f"<h1>{escape(title)}</h1>"]
        self.pictures: list[Picture] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a section, or with level 3 a part of one."""
        self._add(f"{'#' * level} {_escaped(text)}", f"<h{level}>{escape(text)}</h{level}>")

    def text(self, paragraph: str) -> None:
        """Add a paragraph."""
        self._add(_escaped(paragraph), f"<p>{escape(paragraph)}</p>")

    def items(self, lines: Iterable[str]) -> None:
        """Add a list."""
        lines = list(lines)
        markdown = "\n".join(f"- {_escaped(line)}" for line in lines)
        html = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
        self._add(markdown, f"<ul>\n{html}</ul>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; cells are shown by `str`, numbers to the right."""
        cells = [[str(cell) for cell in row] for row in rows]
        kinds = _kinds([*zip(*cells, strict=True)])
        rule = ["---:" if kind == "number" else "---" for kind in kinds]
        markdown = [list(map(_escaped, header)), rule, *(list(map(_escaped, c)) for c in cells)]
        styles = [_style(kind, name) for kind, name in zip(kinds, header, strict=True)]
        html = "\n".join(_row("td", row, styles) for row in cells)
        self._add(
            "\n".join(f"| {' | '.join(row)} |" for row in markdown),
            f'<div class="box"><table>\n<thead>{_row("th", header, styles)}</thead>\n'
            f"<tbody>\n{html}\n</tbody></table></div>",
        )

    def code(self, source: str) -> None:
        """Add lines of Python, in colours."""
        coloured = highlight(source, PythonLexer(), HtmlFormatter(noclasses=True, nowrap=True))
        self._add(
            f"```python\n{source.rstrip()}\n```", f'<div class="box"><pre>{coloured}</pre></div>'
        )

    def picture(self, picture: Picture) -> None:
        """Add a picture with its caption."""
        self.pictures.append(picture)
        alt, caption = _escaped(picture.alt), _escaped(picture.caption)
        image = f"![{alt}](pictures/{picture.name}.{picture.kind})"
        data = base64.b64encode(picture.image).decode()
        fits = ' class="fits"' if picture.width <= PHONE_WIDTH else ""
        self._add(
            f"{image}\n\n{caption}".rstrip(),
            f'<figure><div class="box"><img{fits} width="{picture.width}" '
            f'alt="{escape(picture.alt)}" src="data:image/{picture.kind};base64,{data}"></div>\n'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>",
        )

    def write(self, folder: Path) -> None:
        """Write report.md, the pictures it shows, and report.html, which holds them itself."""
        for picture in self.pictures:
            with atomic_write(folder / "pictures" / f"{picture.name}.{picture.kind}") as temporary:
                temporary.write_bytes(picture.image)
        with atomic_write(folder / "report.md") as temporary:
            temporary.write_text("\n\n".join(self.markdown) + "\n", encoding="utf-8")
        with atomic_write(folder / "report.html") as temporary:
            temporary.write_text(self._document(), encoding="utf-8")

    def _add(self, markdown: str, html: str) -> None:
        self.markdown.append(markdown)
        self.html.append(html)

    def _document(self) -> str:
        head = (
            '<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>"
        )
        body = "\n".join(self.html)
        return (
            f'<!DOCTYPE html>\n<html lang="{self.language}">\n<head>\n{head}\n</head>\n'
            f"<body>\n{body}\n</body>\n</html>\n"
        )


def _escaped(text: str) -> str:
    """The text with a backslash before what Markdown would take for markup."""
    return re.sub(r"[\\`*<&\[\]|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d[\d.,]*(e[-+]\d+)?( %)?|-", text) is not None


def _kinds(columns: Sequence[Sequence[str]]) -> list[str]:
    """What the cells of each column are, for their style."""
    long = [max(map(len, column)) > SENTENCE for column in columns]
    stacked = long.count(False) <= PHONE_COLUMNS
    return [
        "number" if all(map(_is_number, column)) else "sentence" if stacked and words else ""
        for column, words in zip(columns, long, strict=True)
    ]


def _style(kind: str, header: str) -> str:
    """Attributes of a column's cells; where a sentence stands below its row, it needs a name."""
    name = f' data-name="{escape(header)}: "' if kind == "sentence" else ""
    return f' class="{kind}"{name}' if kind else ""


def _row(tag: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    pairs = zip(styles, cells, strict=True)
    html = "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for style, cell in pairs)
    return f"<tr>{html}</tr>"
