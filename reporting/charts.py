"""Charts of a training, by matplotlib; sizes are in inches.

As SVG their text and axes take the page's colour, so they suit a dark page as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.calibration import calibration_curve

WIDTH = 5.6
# Of runs; legible on white and on black (Paul Tol's bright scheme), like the grey of `FAINT`.
COLOURS = ("#4477aa", "#ee6677", "#228833")
FAINT = (0.5, 0.5, 0.5, 0.3)
INK = "#0a0a0a"  # of text on colours of its own, which stays so on a dark page
CALIBRATION_BINS = 15


def curves(epochs: Sequence[Mapping[str, Any]], key: str, label: str) -> Figure:
    """Draw a value by epoch, from rows of the training table: a colour for each run.

    Dashed on training photos, as `key` in the rows; solid on validation photos, as `val_<key>`.
    """
    figure, axes = _figure(WIDTH, 3.8)
    runs = dict.fromkeys(row["stage"] for row in epochs)
    for run, colour in zip(runs, COLOURS, strict=False):
        rows = [row for row in epochs if row["stage"] == run]
        for column, style, kind in ((key, ".--", "training"), (f"val_{key}", ".-", "validation")):
            values = [row[column] for row in rows if row.get(column) is not None]
            if values:
                x = range(1, len(values) + 1)
                axes.plot(x, values, style, color=colour, label=f"{run}, {kind}")
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=FAINT)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw counts (C, C): row of the true class, column of the predicted one.

    Colours are shares of the row: blue for right predictions, red for wrong ones.
    """
    classes = len(names)
    size = 8 if classes > 20 else 10  # of the font, in points
    side = 0.7 + 0.0085 * size * max(map(len, names)) + 0.2 * classes
    figure, axes = _figure(side, side)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (C, C)
    signed = np.ma.masked_equal(np.where(np.eye(classes), share, -share), 0)
    axes.imshow(signed, cmap="RdBu", vmin=-1, vmax=1)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 0.6 else INK
        text = axes.text(column, row, str(matrix[row, column]), ha="center", va="center")
        text.set(color=colour, fontsize=size)
    axes.set(xlabel="predicted species", ylabel="true species")
    for set_ticks, turned in ((axes.set_xticks, 90), (axes.set_yticks, 0)):
        set_ticks(range(classes), names, fontsize=size, parse_math=False, rotation=turned)
        set_ticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    return figure


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean distance of accuracy and confidence over equal bins, weighted by counts.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3; see `reliability`.
    """
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int)
    return float(np.abs(np.bincount(bins, right - confidence)).sum() / len(bins))


def reliability(confidence: np.ndarray, right: np.ndarray) -> Figure:
    """Draw accuracy by confidence: of each prediction its probability, and whether it is right."""
    figure, axes = _figure(WIDTH, 4.4)
    accuracy, middles = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
    counts, edges = np.histogram(confidence, CALIBRATION_BINS, (0, 1))
    axes.stairs(counts / len(right), edges, fill=True, color=FAINT, label="share of the photos")
    axes.plot((0, 1), (0, 1), "--", color="grey", label="accuracy = confidence")
    axes.plot(middles, accuracy, "o-", color=COLOURS[0], label="accuracy", clip_on=False)
    axes.set(xlabel="confidence: probability of the predicted species", ylim=(0, 1), xlim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def svg(figure: Figure, description: str) -> Markup:
    """Return a figure as an SVG element, described for those who cannot see it."""
    stream = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.set_facecolor("none")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "birds"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") + 4 :].replace("#000000", "currentColor")
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    width = round(96 * figure.get_figwidth())  # CSS pixels
    start = Markup('<svg role="img" aria-label="{}" width="{}"').format(description, width)
    return start + Markup(text)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
