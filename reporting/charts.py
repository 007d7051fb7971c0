"""Charts of a training, by matplotlib; sizes are in inches.

As SVG their text and axes take the page's colour, so they suit a dark page as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 5.6
# Of runs; legible on white and on black (Paul Tol's bright scheme), like the grey of `FAINT`.
COLOURS = ("#4477aa", "#ee6677", "#228833")
FAINT = (0.5, 0.5, 0.5, 0.3)
STYLES = {"training": "--", "validation": "-"}
INK = "#0a0a0a"  # of text on colours of its own, which stays so on a dark page
CALIBRATION_BINS = 15
MARKED_EPOCHS = 30  # more points than these hide their line
LONGEST_NAME = 36  # letters


def curves(runs: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> Figure:
    """Draw a value by epoch: a colour for each run, a line style for each kind of photos.

    `runs` holds the values by run, and in it by kind: a key of `STYLES`.
    """
    figure, axes = _figure(WIDTH, 3.8)
    for (run, kinds), colour in zip(runs.items(), COLOURS, strict=False):
        for kind, values in kinds.items():
            marker = "." if len(values) <= MARKED_EPOCHS else ""
            (line,) = axes.plot(range(1, len(values) + 1), values, STYLES[kind], color=colour)
            line.set(marker=marker, label=f"{run}, {kind}")
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=FAINT)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def bars(values: Mapping[str, float], label: str) -> Figure:
    """Draw a horizontal bar for each value, from the top in the order given."""
    figure, axes = _figure(WIDTH, 0.9 + 0.22 * len(values))
    drawn = axes.barh(range(len(values)), list(values.values()), color=COLOURS[0])
    axes.bar_label(drawn, [f"{value:.3g}" for value in values.values()], padding=3)
    axes.set_yticks(range(len(values)), shortened(values), parse_math=False)
    axes.set(xlabel=label, ylim=(len(values) - 0.4, -0.6))
    axes.margins(x=0.1)
    return figure


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw counts (C, C): row of the true class, column of the predicted one.

    Colours are shares of the row: blue for right predictions, red for wrong ones.
    """
    classes, labels = len(names), shortened(names)
    size = 8 if classes > 20 else 10  # of the font, in points
    side = 0.7 + 0.0085 * size * max(map(len, labels)) + 0.2 * classes
    figure, axes = _figure(side, side)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (C, C)
    wrong = ~np.eye(classes, dtype=bool)
    for hidden, colours in ((wrong | (matrix == 0), "Blues"), (~wrong | (matrix == 0), "Reds")):
        axes.imshow(np.ma.array(share, mask=hidden), cmap=colours, vmin=-0.3, vmax=1)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 0.5 else INK
        text = axes.text(column, row, str(matrix[row, column]), ha="center", va="center")
        text.set(color=colour, fontsize=size)
    axes.set_xticks(range(classes), labels, fontsize=size, parse_math=False, rotation=90)
    axes.set_yticks(range(classes), labels, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted species", ylabel="true species")
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    return figure


def calibration_bins(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, accuracy and mean confidence (each (bins,)) of predictions by confidence.

    Takes probabilities (N, C) and classes (N,). The bins are the M equal intervals
    ((m-1)/M, m/M] of Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
    An empty bin has accuracy and confidence 0.
    """
    confidence = probabilities.max(1)  # (N,)
    right = probabilities.argmax(1) == labels  # (N,)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    accuracy, mean_confidence = (
        np.bincount(bins, values, CALIBRATION_BINS) / np.maximum(count, 1)
        for values in (right, confidence)
    )
    return count, accuracy, mean_confidence


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean distance of accuracy and confidence over the bins, weighted by counts.

    Takes probabilities (N, C) and classes (N,); Guo et al., 2017, equation 3.
    """
    count, accuracy, confidence = calibration_bins(probabilities, labels)
    return float((count * np.abs(accuracy - confidence)).sum() / count.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Figure:
    """Draw accuracy by confidence, for probabilities (N, C) and classes (N,), over a histogram."""
    count, accuracy, confidence = calibration_bins(probabilities, labels)
    figure = Figure((WIDTH, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    middles = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    upper.bar(middles, accuracy, 0.9 / CALIBRATION_BINS, color=COLOURS[0], label="accuracy")
    upper.plot((0, 1), (0, 1), "--", color="grey", label="accuracy = confidence")
    there = count > 0
    points = {"color": COLOURS[1], "label": "mean confidence", "clip_on": False}
    upper.plot(confidence[there], accuracy[there], "o", **points)
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    drawn = lower.bar(middles, count, 0.9 / CALIBRATION_BINS, color="grey")
    lower.bar_label(drawn, [str(n or "") for n in count], fontsize=9)
    lower.margins(y=0.25)
    lower.set(xlabel="confidence: probability of the predicted species", ylabel="photos")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def shortened(names: Mapping[str, float] | Sequence[str]) -> list[str]:
    """Return names that leave room for what they name."""
    return [f"{n[: LONGEST_NAME - 1]}…" if len(n) > LONGEST_NAME else n for n in names]


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
