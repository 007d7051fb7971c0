"""Points 12 and 13 of the assignment `ladder`: saved parameters, and a new photo they classify."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from coursework.data import CourseworkError
from coursework.engine import probabilities, save
from coursework.ladder_networks import ANY_SIZE, SIDE, TUNED
from coursework.options import Options
from coursework.report import Report, as_image
from reporting.charts import photo_grid
from solution import read_photo

LONGEST = 16  # times the shorter side of a new photo: more of it is memory, and no photo
JUDGED = 1_000  # test photos, at most, that a sentence rests on: the report is drawn many times


def read_back(report: Report, label: str) -> tuple[Path, nn.Module]:
    """The file into which a run's parameters are saved, and a new network with those read there."""
    result = report.results[label]
    path = report.options.out / "parameters" / f"{label.replace(' ', '_')}.pt"
    save(result.network.state_dict(), path)
    network = result.run.fresh()
    network.load_state_dict(torch.load(path, weights_only=True))
    return path, network.eval()


def new_photo(options: Options) -> tuple[Image.Image, str | None]:
    """The photo that was given, or else a drawn one; and its class, where that is known.

    Raises CourseworkError if the photo cannot be read, or is hardly more than a line.
    """
    path = options.photo
    if path is None:
        return draw_ship(), "ship"
    try:
        photo = read_photo(path, 2 * SIDE)
    except Exception as error:  # see read_photo
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CourseworkError(
            f"{path} cannot be read as a photo ({cause}): give --photo another file"
        ) from None
    if max(photo.size) > LONGEST * min(photo.size):
        raise CourseworkError(
            f"{path} is more than {LONGEST} times as long as it is wide "
            f"({photo.width} x {photo.height} pixels): give --photo another file"
        )
    return photo, None


def draw_ship() -> Image.Image:
    """A ship on the sea, 300 x 200 pixels."""
    photo = Image.new("RGB", (300, 200), (150, 190, 225))  # sky
    draw = ImageDraw.Draw(photo)
    draw.rectangle((0, 125, 300, 200), fill=(35, 80, 125))  # sea
    draw.polygon(((30, 105), (275, 105), (245, 150), (60, 150)), fill=(45, 45, 55))  # hull
    draw.rectangle((60, 138, 249, 150), fill=(150, 40, 40))
    draw.rectangle((85, 75, 205, 105), fill=(240, 240, 240))  # cabins
    draw.rectangle((105, 52, 165, 75), fill=(225, 225, 225))
    draw.rectangle((125, 22, 147, 52), fill=(190, 60, 40))  # funnel
    for left in range(95, 200, 18):
        draw.rectangle((left, 84, left + 9, 93), fill=(60, 90, 120))  # windows
    draw.line((230, 45, 230, 105), fill=(90, 90, 90), width=3)  # mast
    return photo


def scaled(photo: Image.Image, channels: int) -> Tensor:
    """(C, H, W) uint8: the shorter side brought to `SIDE` pixels, the proportions kept."""
    size = [round(side * SIDE / min(photo.size)) for side in photo.size]  # width, height
    small = photo.convert("L" if channels == 1 else "RGB").resize(size, Image.Resampling.BILINEAR)
    return pil_to_tensor(small)


def answer_photo(report: Report) -> None:
    """The photo as the networks of point 12 see it, what they answer, and a verdict."""
    photo, truth = new_photo(report.options)
    pixels = scaled(photo, report.data.channels)
    size = f"{pixels.shape[2]} x {pixels.shape[1]}"
    _show_photo(report, photo, pixels, size)
    labels = [label for label in (ANY_SIZE, TUNED) if label in report.results]
    networks_read = [read_back(report, label)[1] for label in labels]
    outputs = [probabilities(network, pixels[None])[0] for network in networks_read]
    rows = zip(report.data.classes, *([f"{p:.3f}" for p in o] for o in outputs), strict=True)
    report.page.table((report.say("class"), *labels), rows)
    for label, network, output in zip(labels, networks_read, outputs, strict=True):
        _photo_verdict(report, label, output, truth)
        _trust(report, network, output.max().item(), known=truth is not None)


def _show_photo(report: Report, photo: Image.Image, pixels: Tensor, size: str) -> None:
    given = report.options.photo
    report.text("photo given" if given else "photo drawn", name=given and given.name)
    if photo.width == photo.height:
        report.text("photo square")
    report.text("photo scaled", full=f"{photo.width} x {photo.height}", size=size)
    titles = [report.say("photo whole"), report.say("photo small", size=size)]
    shown = [photo, as_image(pixels)]
    report.page.picture(photo_grid("new_photo", shown, titles, 2, report.say("photo caption")))


def _photo_verdict(report: Report, label: str, output: Tensor, truth: str | None) -> None:
    """The answer and the one after it, and whether it is right, where that is known."""
    classes = report.data.classes
    first, second = (classes[index] for index in output.argsort(descending=True)[:2])
    p, q = (f"{value:.3f}" for value in output.sort(descending=True).values[:2])
    report.text("photo answer", run=label, first=first, p=p, second=second, q=q)
    if truth:
        verdict = "foreign" if truth not in classes else "right" if first == truth else "wrong"
        report.text(f"photo {verdict}", run=label, truth=report.say("ship"), answer=first)


def _trust(report: Report, network: nn.Module, probability: float, known: bool) -> None:
    """How often such an answer is right on test photos; a verdict where the truth is unknown."""
    labels = report.data.test.labels[:JUDGED]
    p = probabilities(network, report.data.test.inputs[:JUDGED])  # (N, classes)
    sure = p.amax(1) >= probability
    right, count = int((p.argmax(1) == labels)[sure].sum()), int(sure.sum())
    report.text("trust", photos=len(labels), count=count, right=right, p=f"{probability:.3f}")
    if not known:
        report.text("photo believed" if right > 0.8 * count > 16 else "photo doubted")
