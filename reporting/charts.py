"""Charts as pictures, drawn by matplotlib into memory; sizes are in inches."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.isotonic import isotonic_regression

from reporting.page import Picture

DOTS_PER_INCH = 144
PAGE_WIDTH = 12  # of a picture that a laptop shows whole
WIDTH = 5.6  # of a picture that a phone shows whole
CELL = WIDTH / 4  # of a photo in a grid of four columns or more
# Told apart by people with any kind of colour vision: Paul Tol's muted scheme, and black; then some
# of his vibrant one and brown, so that the 15 runs of coursework.resnet have one each.
COLOURS = ("#332288", "#cc6677", "#117733", "#88ccee", "#882255")
COLOURS += ("#999933", "#44aa99", "#aa4499", "#ddcc77", "#000000")
COLOURS += ("#ee7733", "#0077bb", "#cc3311", "#777777", "#6b4c1e")
CALIBRATION_BINS = 15
MARKED_EPOCHS = 30  # more points than these hide their line
# From the end of a line to the left edge of its name.
LEADER = {"arrowstyle": "-", "linestyle": ":", "linewidth": 1.4, "relpos": (0, 0.5), "shrinkA": 1}


@dataclass(frozen=True)
class Frame:
    """Axes that several plots share, so that they can be held beside each other."""

    epochs: int
    low: float
    high: float


def curves(
    name: str,
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    what: str,
    smoothing: int = 1,
    caption: str = "",
    *,
    epoch: str = "epoch",
    frame: Frame | None = None,
    colours: Mapping[str, str] | None = None,
    direct: bool = False,
) -> Picture:
    """A value per epoch on shared axes: a colour a run, solid for the last kind, else dashed.

    `runs` holds the values by run and kind ("training", "validation"). With `smoothing` > 1 the
    lines are means over so many epochs up to the one in question, and the values themselves faint.
    With `direct` each run's name stands at the end of its solid line instead of in a legend.
    """
    figure, axes = _figure(WIDTH, 4.2)
    colours = colours or dict(zip(runs, cycle(COLOURS), strict=False))
    for run, kinds in runs.items():
        for kind, values in kinds.items():
            line = "-" if kind == list(kinds)[-1] else "--"
            _curve(axes, values, smoothing, line, colours[run], f"{run}, {kind}")
    axes.set(xlabel=epoch, ylabel=what)
    if frame:
        axes.set(xlim=(0.5, frame.epochs + 0.5), ylim=(frame.low, frame.high))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    if direct:
        _label_ends(axes, runs, colours, smoothing)
    else:
        figure.legend(loc="outside lower center", ncols=2)
    ends = "; ".join(
        f"{run}, {kind}: {values[0]:.4g} → {values[-1]:.4g} ({epoch} {len(values)})"
        for run, kinds in runs.items()
        for kind, values in kinds.items()
        if len(values)
    )
    return _picture(name, figure, f"{what}. {ends}.", caption)


def _curve(
    axes: Axes, values: Sequence[float], smoothing: int, line: str, colour: str, label: str
) -> None:
    epochs = np.arange(1, len(values) + 1)
    few = len(values) <= MARKED_EPOCHS
    if few or smoothing > 1:
        marks = {"marker": "x" if line == "--" else "."} if few else {}
        style = {"linestyle": "none"} if few else {"linewidth": 0.8}
        axes.plot(epochs, values, color=colour, alpha=0.35, **marks, **style)
    axes.plot(epochs, moving_average(values, smoothing), line, color=colour, label=label)


def _label_ends(
    axes: Axes,
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    colours: Mapping[str, str],
    smoothing: int,
) -> None:
    """Each run's name right of the axes, at the height where its last line ends.

    In black, as light colours cannot be read; a dotted line of the run's colour leads to it.
    """
    ends, (low, high) = {}, axes.get_ylim()
    for run, kinds in runs.items():
        smooth = moving_average(list(kinds.values())[-1], smoothing)
        drawn = np.flatnonzero(np.isfinite(smooth))
        if len(drawn):
            ends[run] = (drawn[-1] + 1, np.clip(smooth[drawn[-1]], low, high))
    places = _spread([y for _, y in ends.values()], 0.055 * (high - low), low, high)
    for (run, end), place in zip(ends.items(), places, strict=True):
        axes.annotate(
            run,
            end,
            xytext=(1.08, place),
            textcoords=axes.get_yaxis_transform(),
            fontsize=9,
            va="center",
            arrowprops=LEADER | {"color": colours[run]},
            parse_math=False,
        )


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """The heights moved as little as possible so that neighbours are `gap` apart.

    All stay between `low` and `high` if there is room for them. With the gaps taken out this is
    the isotonic regression of Barlow et al., Statistical Inference under Order Restrictions, 1972.
    """
    placed = np.array(heights, dtype=float)  # (N,)
    order, gaps = np.argsort(-placed, kind="stable"), gap * np.arange(len(placed))
    if len(placed):
        closed, least = placed[order] + gaps, min(low + gaps[-1], high)
        spread = isotonic_regression(closed, y_min=least, y_max=high, increasing=False)
        placed[order] = spread - gaps
    return placed


def moving_average(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of each value and the `width` - 1 before it, of fewer at the beginning."""
    sums = np.convolve(values, np.ones(width))[: len(values)]
    return sums / np.minimum(np.arange(1, len(values) + 1), width)


def confusion(
    name: str,
    matrix: Any,
    names: Sequence[str],
    caption: str = "",
    axes_labels: tuple[str, str] = ("answer", "true class"),
) -> Picture:
    """Counts (C, C) as a map: row of the true class, column of the answer.

    Colours are shares of the row: blue for right answers, red for wrong ones.
    """
    matrix, labels = np.asarray(matrix), _shortened(names)
    size = 8 if len(names) > 20 else 10  # of the font, in points
    margin = 0.6 + 0.0085 * size * max(map(len, labels))
    cell = min(0.18 + 0.08 * len(str(matrix.max())), (PAGE_WIDTH - margin) / len(names))
    figure, axes = _figure(margin + cell * len(names), margin + cell * len(names))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (C, C)
    right = np.eye(len(names), dtype=bool)
    for hidden, colours in ((~right | (matrix == 0), "Blues"), (right | (matrix == 0), "Reds")):
        axes.imshow(np.ma.array(share, mask=hidden), cmap=colours, vmin=-0.3, vmax=1)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 0.6 else "black"
        text = {"ha": "center", "va": "center", "color": colour, "fontsize": size}
        axes.text(column, row, str(matrix[row, column]), **text)
    ticks = {"ticks": range(len(names)), "labels": labels, "fontsize": size, "parse_math": False}
    axes.set_xticks(**ticks, rotation=90)
    axes.set_yticks(**ticks)
    axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1])
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e0e0e0", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    return _picture(
        name, figure, f"{caption} {np.trace(matrix)} / {matrix.sum()}".lstrip(), caption
    )


def bars(name: str, values: Mapping[str, float], what: str, caption: str = "") -> Picture:
    """A horizontal bar a value, from the top in the order given."""
    figure, axes = _figure(WIDTH, 0.9 + 0.22 * len(values))
    drawn = axes.barh(range(len(values)), list(values.values()), color=COLOURS[0])
    axes.bar_label(drawn, [f"{value:.3g}" for value in values.values()], padding=3)
    axes.set_yticks(range(len(values)), _shortened(values), parse_math=False)
    axes.set_xlabel(what)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    listed = ", ".join(f"{label} {value:.3g}" for label, value in values.items())
    return _picture(name, figure, f"{what}: {listed}.", caption)


def calibration_bins(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, accuracy and mean confidence (each (bins,)) of answers by their confidence.

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
    """Mean distance of accuracy and confidence over the bins, weighted by their counts.

    Takes probabilities (N, C) and classes (N,); Guo et al., 2017, equation 3.
    """
    count, accuracy, confidence = calibration_bins(probabilities, labels)
    return float((count * np.abs(accuracy - confidence)).sum() / count.sum())


def reliability(name: str, probabilities: Any, labels: Any, caption: str = "") -> Picture:
    """Accuracy by confidence, for probabilities (N, C) and classes (N,), with a histogram."""
    probabilities, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    count, accuracy, confidence = calibration_bins(probabilities, labels)
    error = expected_calibration_error(probabilities, labels)
    figure = Figure((WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    middles = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    place = {"x": middles, "width": 1 / CALIBRATION_BINS, "edgecolor": "white"}
    upper.bar(height=accuracy, color="#a6cbe3", label="accuracy", **place)
    seen = count > 0
    upper.plot((0, 1), (0, 1), "--", color="#555", label="accuracy = confidence")
    points = {"color": COLOURS[1], "label": "mean confidence", "clip_on": False}
    upper.plot(confidence[seen], accuracy[seen], "o", **points)
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    upper.set_title(f"expected calibration error {error:.4f}")
    figure.legend(loc="outside lower center", ncols=3)
    drawn = lower.bar(height=count, color="#999", **place)
    lower.bar_label(drawn, [str(n or "") for n in count], fontsize=9)
    lower.margins(y=0.25)
    lower.set(xlabel="confidence: probability of the answer", ylabel="photos")
    listed = "; ".join(
        f"{n} answers of mean confidence {c:.2f} with accuracy {a:.2f}"
        for n, c, a in zip(count[seen], confidence[seen], accuracy[seen], strict=True)
    )
    alt = f"Reliability diagram, expected calibration error {error:.4f}: {listed}."
    return _picture(name, figure, alt, caption)


def photo_grid(
    name: str,
    photos: Sequence[Image.Image],
    titles: Sequence[str],
    columns: int,
    caption: str = "",
) -> Picture:
    """Photos in rows of `columns`, each with its title above; four columns fit a phone."""
    cell = max(CELL, WIDTH / columns)
    wrapped = [_wrapped(title, int(13.5 * cell)) for title in titles]
    above = 0.2 + 0.16 * max(title.count("\n") + 1 for title in wrapped)  # for the titles
    rows = -(-len(photos) // columns)
    width, height = cell * columns, (cell + above) * rows
    figure = Figure((width, height))
    axes = figure.add_axes((0, 0, 1, 1))  # its data coordinates are inches, downwards
    axes.set_axis_off()
    for index, (photo, title) in enumerate(zip(photos, wrapped, strict=True)):
        row, column = divmod(index, columns)
        left, top = (column + 0.03) * cell, row * (cell + above) + above
        x, y = (0.94 * cell / max(photo.size) * side for side in photo.size)
        small = _reduced(photo, round(cell * DOTS_PER_INCH))
        axes.imshow(small, extent=(left, left + x, top + y, top))
        axes.text(left, top - 0.06, title, va="bottom", fontsize=9, parse_math=False)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    alt = "; ".join(titles).replace("\n", ", ")
    return _picture(name, figure, alt, caption, photos=True)


def _shortened(labels: Iterable[str]) -> list[str]:
    """Labels that leave room for what they label."""
    return [label if len(label) <= 36 else f"{label[:35]}…" for label in labels]


def _wrapped(title: str, width: int) -> str:
    """The title with its lines broken at `width` characters, their continuations indented."""
    lines = (textwrap.fill(line, width, subsequent_indent="   ") for line in title.split("\n"))
    return "\n".join(lines)


def _reduced(photo: Image.Image, side: int) -> Image.Image:
    photo = photo.convert("RGB")
    photo.thumbnail((side, side))
    return photo


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _picture(name: str, figure: Figure, alt: str, caption: str, photos: bool = False) -> Picture:
    figure.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer, dpi = io.BytesIO(), (DOTS_PER_INCH, DOTS_PER_INCH)
    if photos:
        image.save(buffer, "jpeg", quality=85, dpi=dpi)
    else:  # charts have few colours: with a palette the file is a third of the size
        image.quantize(128, dither=Image.Dither.NONE).save(buffer, "png", optimize=True, dpi=dpi)
    return Picture(name, buffer.getvalue(), alt, caption)
