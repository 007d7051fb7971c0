"""Charts as elements of a page: curves and bars as SVG, photos as PNG; sizes are in inches."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from coursework.engine import Result

# Told apart by people with any kind of colour vision: Paul Tol's muted and bright schemes.
MUTED = ("#332288", "#cc6677", "#117733", "#88ccee", "#882255", "#999933", "#44aa99", "#aa4499")
OTHERS = ("#ddcc77", "#000000", "#ee7733", "#0077bb", "#cc3311")
COLOURS = MUTED + OTHERS
COMMA = FuncFormatter(lambda value, _: f"{value:g}".replace(".", ","))
WORDS = {  # accuracy, loss, epoch, seconds, training, validation (in the ladder: test)
    "ru": ("доля верных ответов", "функция потерь", "эпоха", "секунды обучения", "обучение",
           "проверка"),
    "pl": ("accuracy (skuteczność)", "loss (strata)", "epoka", "sekundy treningu",
           "dane treningowe", "dane testowe"),
}  # fmt: skip
ENTRY = '<span><i style="border-top: 2px {} {}"></i> {}</span>'


def curves(
    results: Mapping[str, Result],
    labels: Iterable[str],
    language: str,
    limits: Mapping[str, tuple[float, float]] | None = None,
    by_time: bool = False,
    only: str = "",
    groups: Mapping[str, str] | None = None,
) -> Markup:
    """Draw accuracy and loss, side by side where both fit: training dashed, the other part solid.

    A run that goes on from another one begins where that ends. `limits` are of `common_limits`;
    `only` is "val" for no training curves; `groups` gives runs common names and colours.
    """
    accuracy, loss, epoch, seconds, *parts = WORDS[language]
    named = dict(zip(("train", "val"), parts, strict=True))
    shown = [part for part in named if only in ("", part)]
    figures = {kind: Figure((5, 3.3), layout="constrained") for kind in ("acc", "loss")}
    names = groups or {label: result.run.title for label, result in results.items()}
    order = list(dict.fromkeys(names.values()))
    legend = dict[Markup, None]()  # a set that keeps its order
    for kind, figure in figures.items():
        axis = figure.add_subplot()
        for label in labels:
            result, name = results[label], names[label]
            colour = COLOURS[order.index(name) % len(COLOURS)]
            x = abscissae(results, result, by_time)
            for part in shown:
                y = smooth([row[f"{part}_{kind}"] for row in result.rows])
                dashes, marker = "dashed" if part == "train" else "solid", "o" * (len(y) <= 12)
                axis.plot(x, y, linestyle=dashes, color=colour, markersize=3, marker=marker)
                title = name if only else f"{name}: {named[part]}"
                legend[Markup(ENTRY).format(dashes, colour, title)] = None
        axis.set(xlabel=seconds if by_time else epoch, ylabel=accuracy if kind == "acc" else loss)
        axis.margins(x=0.02)
        if not by_time:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_formatter(COMMA)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if limits:
            axis.set(xlim=limits["epoch"], ylim=limits[kind])
    panels = [*map(as_svg, figures.values()), Markup('<div class="legend">'), *legend]
    return Markup('<div class="panels">{}</div></div>').format(Markup("").join(panels))


def abscissae(results: Mapping[str, Result], result: Result, by_time: bool) -> np.ndarray:
    """Return the epochs, or seconds, of a run's rows, after those of the run it goes on from."""
    steps = [row["seconds"] if by_time else 1 for row in result.rows]
    start = result.run.start
    before = abscissae(results, results[start], by_time)[-1] if start else 0
    return before + np.cumsum(steps)


def smooth(values: Sequence[float], many: int = 50) -> list[float]:
    """Return the means of the last ten values where there are many, else the values."""
    over = 10 if len(values) >= many else 1
    return [float(np.mean(values[max(0, i + 1 - over) : i + 1])) for i in range(len(values))]


def common_limits(results: Mapping[str, Result]) -> dict[str, tuple[float, float]]:
    """Return axes on which all runs fit."""
    rows = [row for result in results.values() for row in result.rows]
    limits = {"epoch": (0.8, max(row["epoch"] for row in rows) + 0.2)}
    for kind in ("acc", "loss"):
        values = [row[f"{part}_{kind}"] for row in rows for part in ("train", "val")]
        space = 0.03 * (max(values) - min(values) + 1e-3)
        limits[kind] = (min(values) - space, max(values) + space)
    return limits


def photos(pictures: Sequence[Tensor | np.ndarray], titles: Sequence[str], columns: int) -> Markup:
    """Draw photos (C, H, W), of any sizes and ranges, in a grid with titles."""
    rows, lines = -(-len(pictures) // columns), max(title.count("\n") + 1 for title in titles)
    figure = Figure((1.25 * columns, (1.05 + 0.2 * lines) * rows), layout="constrained")
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.set_axis_off()
        if place < len(pictures):
            picture = np.moveaxis(np.asarray(pictures[place]), 0, -1).squeeze()
            whole = {"vmin": 0, "vmax": 255} if picture.dtype == np.uint8 else {}
            axis.imshow(picture, cmap="gray", **whole)
            axis.set_title(titles[place], fontsize=8)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    content = base64.b64encode(stream.getvalue()).decode()
    width = round(100 * figure.get_figwidth())
    return Markup(f'<img alt="" width="{width}" src="data:image/png;base64,{content}">')


def as_svg(figure: Figure) -> Markup:
    """Return an SVG element that scales with the page."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coursework"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    sized = f'width="100%" style="max-width: {round(96 * figure.get_figwidth())}px"'
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', sized, text[text.index("<svg") :], count=1)
    return Markup(text)
