"""Charts as text for a page: curves and bars as SVG, photos as PNG; sizes are in inches."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from coursework.engine import Result

# Told apart by people with any kind of colour vision: Paul Tol's muted and bright schemes.
COLOURS = ("#332288", "#cc6677", "#117733", "#88ccee", "#882255", "#999933", "#44aa99", "#aa4499")
COLOURS += ("#ddcc77", "#000000", "#ee7733", "#0077bb", "#cc3311")
WIDTH = 10.0
COMMA = FuncFormatter(lambda value, _: f"{value:g}".replace(".", ","))


def colour_of(results: Mapping[str, Result], label: str) -> str:
    """Return a run's colour, the same in all charts of a report."""
    return COLOURS[list(results).index(label) % len(COLOURS)]


def curves(
    results: Mapping[str, Result],
    labels: Sequence[str],
    words: Mapping[str, str],
    limits: Mapping[str, tuple[float, float]] | None = None,
    smoothing: int = 1,
    by_time: bool = False,
    only: str = "",
    groups: Mapping[str, str] | None = None,
) -> Markup:
    """Draw accuracy and loss side by side: training dashed, `val` (validation or test) solid.

    A run that goes on from another one begins where that ends. `words` are the texts for
    `accuracy`, `loss`, `epoch`, `seconds`, `train`, `val`; `limits` the axes by `epoch`, `acc`,
    `loss`; `only` is "val" for no training curves; `groups` gives runs a common name and colour.
    """
    figure = Figure((WIDTH, 3.7), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, kind in zip(axes, ("acc", "loss"), strict=True):
        for label in labels:
            result = results[label]
            x = abscissae(results, result, by_time)
            group = groups[label] if groups else result.run.title
            colour = (
                COLOURS[sorted(set(groups.values())).index(group)]
                if groups
                else (colour_of(results, label))
            )
            for part, style in (("train", "--"), ("val", "-")):
                if only not in ("", part):
                    continue
                y = smooth([row[f"{part}_{kind}"] for row in result.rows], smoothing)
                marker = "o" if len(y) <= 12 else None
                title = group if only else f"{group}: {words[part]}"
                axis.plot(x, y, style, color=colour, marker=marker, markersize=3, label=title)
        axis.set_ylabel(words["accuracy" if kind == "acc" else "loss"])
        axis.set_xlabel(words["seconds" if by_time else "epoch"])
        axis.margins(x=0.02)
        if not by_time:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_formatter(COMMA)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if limits:
        for axis, name in zip(axes, ("acc", "loss"), strict=True):
            axis.set_xlim(*limits["epoch"])
            axis.set_ylim(*limits[name])
    shown = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        shown.values(), shown, loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return as_svg(figure)


def abscissae(results: Mapping[str, Result], result: Result, by_time: bool) -> np.ndarray:
    """Return the epochs, or seconds, of a run's rows, after those of the run it goes on from."""
    steps = [row["seconds"] if by_time else 1 for row in result.rows]
    start = result.run.start
    before = abscissae(results, results[start], by_time)[-1] if start else 0
    return before + np.cumsum(steps)


def smooth(values: Sequence[float], over: int) -> list[float]:
    """Return the means of the last `over` values."""
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


def bars(
    names: Sequence[str],
    values: Sequence[float],
    xlabel: str,
    colours: Sequence[str] | str = COLOURS[0],
) -> Markup:
    """Draw horizontal bars on [0, 1], the first on top, each with its value."""
    figure = Figure((7, 0.6 + 0.28 * len(names)), layout="constrained")
    axis = figure.subplots()
    drawn = axis.barh(names, values, color=colours)
    axis.bar_label(drawn, [f"{value:.3f}".replace(".", ",") for value in values], padding=3)
    axis.set_xlim(0, 1.12)
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    axis.xaxis.set_major_formatter(COMMA)
    axis.spines[["top", "right"]].set_visible(False)
    return as_svg(figure)


def confusion(matrix: np.ndarray, classes: Sequence[str], truth: str, answer: str) -> Markup:
    """Draw counts (truth, answer), shaded by the share of the true class."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure((7.4, 6.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=8)
    places = range(len(classes))
    axis.set_xticks(places, classes, rotation=40, ha="right")
    axis.set_yticks(places, classes)
    axis.set_xlabel(answer)
    axis.set_ylabel(truth)
    return as_svg(figure)


def photos(pictures: Sequence[Tensor | np.ndarray], titles: Sequence[str], columns: int) -> Markup:
    """Draw photos (C, H, W) as uint8, of any sizes, in a grid with titles."""
    rows = -(-len(pictures) // columns)
    height = 1.05 + 0.2 * max(title.count("\n") + 1 for title in titles)
    figure = Figure((1.25 * columns, height * rows), layout="constrained")
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.set_axis_off()
        if place < len(pictures):
            picture = np.moveaxis(np.asarray(pictures[place]), 0, -1)
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set_title(titles[place], fontsize=8)
    return as_png(figure)


def as_svg(figure: Figure) -> Markup:
    """Return an SVG element that scales with the page."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coursework"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    sized = f'width="100%" style="max-width: {round(96 * figure.get_figwidth())}px"'
    return Markup(re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', sized, text, count=1))


def as_png(figure: Figure) -> Markup:
    """Return an image element with its data."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    width = round(100 * figure.get_figwidth())
    return Markup(f'<img alt="" width="{width}" src="data:image/png;base64,{data}">')


def to_grid(value: Any) -> np.ndarray:
    """Return uint8 pixels (C, H, W) of activations, each brought to 0..255."""
    array = np.asarray(value, dtype=float)
    low, high = array.min(), array.max()
    return ((array - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
