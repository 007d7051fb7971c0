"""Draw what the two stages of a prediction see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from solution import VIEWS, Box, Classifier, Prediction, read_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEW_NAMES = [part.replace("whole", "whole photo") + ", mirrored" * flip for part, flip in VIEWS]


def draw_stages(pixels: Tensor, cam: Tensor, box: Box) -> tuple[Image.Image, Image.Image]:
    """Return the photo (3, H, W), uint8, with its map (h, w) in red and its box; the crop."""
    shares = (cam / cam.max().clamp(min=1e-6))[None, None]  # (1, 1, h, w), 0 to 1
    shares = functional.interpolate(shares, pixels.shape[1:], mode="bilinear")[0]
    red = torch.tensor([255.0, 0.0, 0.0]).view(3, 1, 1)
    tinted = torch.lerp(pixels.float(), red, 0.5 * shares).byte()  # (3, H, W)
    left, top, right, bottom = box
    parts = tinted, pixels[:, top:bottom, left:right]
    whole, crop = (Image.fromarray(part.permute(1, 2, 0).numpy()) for part in parts)
    frame, width = (left, top, right - 1, bottom - 1), max(3, whole.width // 150)
    ImageDraw.Draw(whole).rectangle(frame, outline="white", width=width)
    return whole, crop


def likeliest(
    probabilities: Tensor, names: Sequence[str], number: int = 3
) -> list[tuple[float, str]]:
    """Return the likeliest by probabilities (classes,): probability and name, at most `number`."""
    return sorted(zip(probabilities.tolist(), names, strict=True), reverse=True)[:number]


def describe_views(prediction: Prediction) -> str:
    """Return how many views a prediction took, and which: "2 views: whole photo; crop"."""
    count = len(prediction.view_logits)
    return f"{count} view{'s' * (count > 1)}: {'; '.join(VIEW_NAMES[:count])}"


def stages_figure(classifier: Classifier, photo: Path, prediction: Prediction) -> Figure:
    """Return a figure of both stages: what the whole photo alone says, and all views together."""
    from matplotlib.figure import Figure  # takes longer to import than a photo to classify

    pixels = read_pixels(photo, classifier.predictor.preprocessing)
    shape = min(max(pixels.shape[2] / pixels.shape[1], 0.5), 2)  # width by height
    figure = Figure((4 * shape + 4.4, 5), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(shape, 1))
    stages = (
        ("First stage: the whole photo", "1 view", prediction.view_logits[0]),
        ("Second stage: the bird", describe_views(prediction), prediction.logits),
    )
    pictures = draw_stages(pixels, prediction.cam, prediction.box)
    for axis, picture, (title, views, logits) in zip(axes, pictures, stages, strict=True):
        axis.imshow(picture)
        axis.set_axis_off()
        axis.set_title(title, loc="left", fontweight="bold")
        best = likeliest(classifier.probabilities(logits), classifier.class_names)
        lines = [f"{p:7.1%}  {name}" for p, name in best]
        text = "\n".join([f"After {views}", *lines])
        axis.text(0, -0.03, text, transform=axis.transAxes, va="top", parse_math=False)
    return figure
