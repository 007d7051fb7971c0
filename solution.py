"""Tell bird species apart: MobileNetV2, fine-tuned on a CPU, that looks twice.

The testing system calls two functions of this file:

    train_classifier(train_gt, train_img_dir, fast_train) -> the trained network
    classify(model_path, test_img_dir)                    -> {file name: class id}

and a person asks what the network sees on a photo, with `python solution.py PHOTO_OR_FOLDER ...`.
But for that command's `--show FILE` nothing here writes to disk; nothing opens a socket, starts a
process or touches an accelerator. `train_full.py` saves what `train_classifier` returns.

How it works, in the order of this file:

    1. Looking twice. The bird is a small part of a photo. The first look, at the whole photo, says
       where it is: global average pooling and a linear head, applied at each place of the last
       feature map, give a class activation map. The second look, of the same network, is at the
       square around its peak, and tells the species.
    2. Training sees squares around the bird of every size between the two looks. Where the bird
       is, the pretrained network's own map says. A square passes the frozen trunk (the first
       blocks of MobileNetV2) once; the activations are kept in half precision.
    3. The upper blocks and a new linear head train on these activations: first on four fifths of
       the photos, to measure the settings on the rest; then, from the start again, on all photos.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import math
import operator
import random
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFile, ImageFont, ImageOps
from torch import Tensor, nn
from torch.nn import functional

# ---- Settings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How to train and to look; what was tried on folds of the sample: docs/experiments.md."""

    input_size: int = 320  # pixels a side of a square look; costs its square in time
    first_size: int = 256  # pixels of the short side of the whole photo in the first look
    box_threshold: float = 0.6  # of the map's maximum: places above it belong to the bird
    box_margin: float = 0.1  # added on each side of the bird, as a share of the box
    first_share: float = 0.25  # of the first look in the mean of both; the second sees more
    unfrozen_blocks: int = 3  # of the 19 blocks of `features`, counted from the end
    views: int = 12  # cached views of a photo, one an epoch in turn
    cache_gigabytes: float = 2.0  # bound on the cache; more photos than fit get fewer views
    epochs: int = 12
    batch_size: int = 32  # photos
    head_learning_rate: float = 3e-3
    backbone_learning_rate: float = 1e-3  # smaller: the pretrained weights are not to be spoilt
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    final_rate: float = 0.5  # share of the learning rates left by the cosine decay at the end
    weight_decay: float = 0.02  # AdamW, on weights of convolutions and head only
    dropout: float = 0.2
    label_smoothing: float = 0.1
    tightest_crop: float = 0.8  # the smallest random square, as a share of the bird's box
    crop_stretch: float = 1.27  # the most that a random crop is wider than high, or the reverse
    colour_jitter: float = 0.3  # of brightness, contrast and saturation
    bfloat16: bool = True  # for views and steps, if the processor has it: twice as fast
    average_decay: float = 0.998  # of the moving average of the weights, per step, in the end
    validation_share: float = 0.2
    seed: int = 0


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FAST_TRAIN_PHOTOS = 64  # what `fast_train` looks at: two batches


# ---- What is said to the caller ----------------------------------------------------------------


class SubmissionError(Exception):
    """A mistake that the user can mend; its text is one line with cause, file and cure."""


@dataclass(frozen=True)
class EpochRow:
    """One row of the training table; losses in nats, accuracies and rates as fractions."""

    stage: str  # "validation run" or "final run"
    epoch: int  # from 1
    loss: float  # on random views, with smoothed labels, so higher than on plain photos
    accuracy: float  # on the same views
    val_loss: float | None  # of the averaged weights on validation photos, by one look: where
    val_accuracy: float | None  # the pretrained network saw the bird. Two looks do better
    learning_rate: float  # of the head, at the end of the epoch
    seconds: float


class Progress:
    """Told how training gets on. This one listens silently; override what you want to show."""

    def stage(self, name: str, photos: int) -> None:
        """A stage begins in which photos are looked at `photos` times."""

    def step(self, photos: int) -> None:
        """So many photos more."""

    def epoch(self, row: EpochRow) -> None:
        """An epoch ended."""


def _say(message: str) -> None:
    print(message, file=sys.stderr)


_say_once = cache(_say)


# ---- The network -------------------------------------------------------------------------------


class BirdNet(nn.Module):
    """MobileNetV2 features, global average pooling, dropout, one linear layer.

    Takes normalised photos (B, 3, H, W) of any size, gives logits (B, classes). Column i of the
    logits stands for `class_ids[i]`. Architecture: Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(
        self, class_ids: Sequence[int], class_names: Sequence[str] | None = None, dropout: float = 0
    ) -> None:
        from torchvision.models import mobilenet_v2  # takes longer to import than all the rest

        super().__init__()
        self.features = mobilenet_v2(weights=None).features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(1280, len(class_ids))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.class_ids = list(class_ids)
        self.class_names = None if class_names is None else list(class_names)
        self.facts: dict[str, Any] = {}  # what the checkpoint says of the training
        self.validation_answers: dict[str, Any] | None = None  # see `_validate`

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of normalised photos (B, 3, H, W)."""
        x = self.features(x).mean((2, 3))  # (B, 3, H, W) -> (B, 1280, H/32, W/32) -> (B, 1280)
        return self.head(self.dropout(x))  # (B, 1280) -> (B, classes)


def describe(features: nn.Module) -> list[dict[str, Any]]:
    """The blocks of `features` as plain values, their tensors by name.

    The checkpoint holds it, so that `classify` can do without importing torchvision.
    """
    blocks = []
    for index, block in features.named_children():
        layers: list[dict[str, Any]] = []
        for name, module in block.named_modules(prefix=index):
            if isinstance(module, nn.Conv2d):
                geometry = {"padding": module.padding[0], "stride": module.stride[0]}
                layers.append({"conv": name, **geometry, "groups": module.groups, "relu6": False})
            elif isinstance(module, nn.BatchNorm2d):
                layers[-1] |= {"norm": name, "eps": module.eps}
            elif isinstance(module, nn.ReLU6):
                layers[-1]["relu6"] = True
        blocks.append({"layers": layers, "residual": getattr(block, "use_res_connect", False)})
    return blocks


# A folded block: the weight, bias, geometry and ReLU6 of each convolution; is its input added?
Folded = list[tuple[list[tuple[Tensor, Tensor, tuple[int, ...], bool]], bool]]


def fold(blocks: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor]) -> Folded:
    """The described blocks, each batch norm disappeared into the convolution before it.

    In evaluation mode batch norm is a fixed affine map per channel (Jacob et al., CVPR 2018,
    section 3.2). Differentiable: gradients reach the convolutions and the gains and shifts of
    the batch norms; the running statistics stay as they are.
    """
    return [([_folded(layer, state) for layer in b["layers"]], b["residual"]) for b in blocks]


def _folded(
    layer: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, tuple[int, ...], bool]:
    names = ("weight", "bias", "running_mean", "running_var")
    gain, shift, mean, variance = (state[f"{layer['norm']}.{name}"] for name in names)
    scale = gain * torch.rsqrt(variance + layer["eps"])  # (C,)
    weight = state[f"{layer['conv']}.weight"] * scale.view(-1, 1, 1, 1)
    geometry = (layer["stride"], layer["padding"], 1, layer["groups"])
    return weight, shift - mean * scale, geometry, layer["relu6"]


def through(folded: Folded, x: Tensor) -> Tensor:
    """What folded blocks compute of x (B, C, H, W)."""
    for layers, residual in folded:
        y = x
        for weight, bias, geometry, relu6 in layers:
            y = functional.conv2d(y, weight, bias, *geometry)
            y = functional.hardtanh(y, 0.0, 6.0, inplace=True) if relu6 else y
        x = x + y if residual else y
    return x


def frozen(
    blocks: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor], dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """The described blocks for inference in a precision of choice: x (B, 3, H, W), channels last.

    Folded once; what they give is float32, (B, C, h, w).
    """
    layout, state = torch.channels_last, {name: tensor.detach() for name, tensor in state.items()}
    folded = [
        ([(w.to(dtype, memory_format=layout), b.to(dtype), *rest) for w, b, *rest in layers], r)
        for layers, r in fold(blocks, state)
    ]
    return torch.inference_mode()(lambda x: through(folded, x.to(dtype)).float())


# ---- Photos ------------------------------------------------------------------------------------

# Recognised by content, whatever the name; TGA last, as nothing marks its beginning. No others: for
# an EPS file under a photo's name Pillow would start Ghostscript.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "ICO", "PCX", "PSD"),
    *("SGI", "QOI", "DDS", "TGA"),
)
# What is plainly something else than a photo, as hidden files are. All others may be photos.
OTHER_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".html", ".db", ".ini", ".py", ".pt", ".zip"}
)
FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)  # white, by the brightest value that is there
MAX_PIXELS = 40_000_000  # decoded; 160 MB as RGBA. JPEG files are drafted, so far larger ones pass


def may_be_photo(name: str) -> bool:
    """Whether a file of this name is to be looked at: its content decides, not its extension."""
    return not name.startswith(".") and Path(name).suffix.lower() not in OTHER_SUFFIXES


def list_photos(folder: str | Path) -> list[Path]:
    """The files of a folder that may be photos, by name, and links to none; no sub-folders."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SubmissionError(f"no folder {folder}: give the folder that holds the photos")
    paths = (path for path in folder.iterdir() if may_be_photo(path.name))
    return sorted(p for p in paths if p.is_file() or (p.is_symlink() and not p.exists()))


@cache
def formats() -> list[str]:
    """`FORMATS`, and AVIF and HEIC where this Pillow decodes them."""
    Image.init()
    return [*(name for name in ("AVIF", "HEIF") if name in Image.OPEN), *FORMATS]


_lock = threading.Lock()
_undo: list[ExitStack] = []  # one for each user of `tolerant_pillow`; the first one's counts
_parallel: list[int] = []  # torch's threads as the first caller of `side_by_side` found them
_reading = threading.local()  # its `path` is the photo that a thread reads


@contextmanager
def tolerant_pillow() -> Iterator[None]:
    """Let Pillow read damaged files, leave the size limit to us, name photos in its warnings.

    Settings of the whole process: the last thread that leaves restores what the first one found.
    """
    with _lock:
        _undo.append(ExitStack() if _undo else _tolerate())
    try:
        yield
    finally:
        with _lock:
            last = _undo.pop()
            if not _undo:
                last.close()


def _tolerate() -> ExitStack:
    undo = ExitStack()
    undo.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, None
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("always")
    photo = partial(getattr, _reading, "path", "a photo")
    warnings.showwarning = lambda message, *_: _say_once(f"{photo()}: {message}")
    return undo


def open_photo(path: Path) -> Image.Image:
    """A photo of one of the `formats`, its header read; ValueError says why it is none."""
    try:
        return Image.open(path, formats=formats())
    except Image.UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(12)
    if start[8:] in (b"heic", b"heix", b"mif1", b"avif"):
        raise ValueError("HEIC or AVIF, which Pillow lacks here: save it as JPEG") from None
    raise ValueError("no photo inside, whatever its name says" if start else "empty") from None


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith(("I", "F")):  # 16 or more bits a pixel: Pillow would clip, not scale
        grey = np.nan_to_num(np.array(photo, dtype=np.float32))
        top = grey.max(initial=0)
        white = next((top_of for top_of in FULL_SCALES if top <= top_of), top)
        grey *= 255 / white
        photo = Image.fromarray(grey.clip(0, 255, out=grey).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(white, photo)
    return photo.convert("RGB")


def read_photo(path: Path, side: int) -> Image.Image:
    """The photo upright in RGB, at least `side` pixels a side if it has them.

    A large JPEG is decoded at a fraction of its size; of a truncated file, what is there is read.
    What cannot be decoded raises nearly any exception, what exceeds `MAX_PIXELS` ValueError.
    """
    _reading.path = path
    with tolerant_pillow(), open_photo(path) as photo:
        return decode(photo, side)


def decode(photo: Image.Image, side: int) -> Image.Image:
    """What `read_photo` makes of an open photo."""
    full = photo.size
    photo.draft("RGB", (side, side))
    # A progressive JPEG is held in memory whole, whatever the size it is decoded to.
    width, height = full if photo.info.get("progressive") else photo.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{full[0]} x {full[1]} pixels are more than can be decoded")
    with suppress(Exception):  # damaged EXIF data raises nearly anything; the picture may be whole
        photo = ImageOps.exif_transpose(photo)
    return _to_rgb(photo)


# ---- Looks: what part of a photo the network sees, and how large -------------------------------

DETAIL = 4  # a large JPEG is decoded at this many times the input's side or more
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the decoded photo


def preprocessing_of(settings: Settings) -> dict[str, Any]:
    """The constants of the looks, as the checkpoint keeps them."""
    names = ("input_size", "first_size", "box_threshold", "box_margin", "first_share")
    fixed = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "interpolation": "bilinear"}
    return {name: getattr(settings, name) for name in names} | fixed


def read_pixels(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """The decoded photo (3, H, W), with detail enough for a second look; raises as `read_photo`."""
    photo = read_photo(path, DETAIL * preprocessing["input_size"])
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def look(
    pixels: Tensor, box: Box, size: tuple[int, int], preprocessing: Mapping[str, Any]
) -> Tensor:
    """What lies in a box of the photo (3, H, W), at a size in pixels: (3, *size), uint8.

    Every input of the network comes from here: in training, validation and `classify`.
    """
    left, top, right, bottom = box
    part = pixels[:, top:bottom, left:right]
    if part.shape[1:] == size:
        return part
    mode = preprocessing["interpolation"]
    return functional.interpolate(part[None], size, mode=mode, antialias=True)[0]


def whole_size(pixels: Tensor, preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """The size (h, w) of a whole photo (3, H, W) in the first look: hardly distorted."""
    height, width = pixels.shape[1:]
    short = preprocessing["first_size"]
    longer = max(height, width) / min(height, width)
    long = min(round(short * longer / 32) * 32, 2 * short)  # the network halves maps five times
    return (short, long) if width > height else (long, short)


def normalise(views: Sequence[Tensor], preprocessing: Mapping[str, Any]) -> Tensor:
    """Views (3, H, W), uint8 -> a batch (B, 3, H, W), float32, channels last, mean 0, std 1."""
    std, mean = torch.tensor(preprocessing["std"]), torch.tensor(preprocessing["mean"])
    height, width = views[0].shape[1:]
    pixels = torch.stack([view.permute(1, 2, 0) for view in views])  # (B, H, W, 3)
    pixels = pixels.view(-1, height, width * 3).float()  # long rows, or arithmetic would crawl
    pixels.mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))
    return pixels.view(-1, height, width, 3).permute(0, 3, 1, 2)  # (B, 3, H, W)


# ---- Looking twice -----------------------------------------------------------------------------

Head = tuple[Tensor, Tensor]  # weight (classes, C) and bias (classes,) of a linear layer
TINY = 64  # pixels of the short side, below which there is nothing to look at more closely


@dataclass(frozen=True)
class Seen:
    """What the network made of a photo: logits (classes,) of each look, and where it looked."""

    logits: Tensor  # their weighted mean, in the order of the weighted log-probabilities' sum
    first: Tensor
    second: Tensor
    heat: Tensor  # (h, w): the first look's class activation map, from 0
    box: Box  # of the second look


class TwoLooks:
    """A network that looks at photos one by one, each time at a view and its mirror image.

    What is seen of a photo depends on the photo alone, not on others or the number of threads.
    """

    def __init__(
        self, features: Callable[[Tensor], Tensor], head: Head, preprocessing: Mapping[str, Any]
    ) -> None:
        self.features, self.head, self.preprocessing = features, head, preprocessing
        self.square = (preprocessing["input_size"],) * 2

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Seen:
        """Look at a photo (3, H, W), uint8, twice."""
        first, heat, box = self.find(pixels)
        second = self._logits(self._maps(pixels, box, self.square))
        share = self.preprocessing["first_share"]
        return Seen(torch.lerp(second, first, share), first, second, heat, box)

    @torch.inference_mode()
    def find(self, pixels: Tensor) -> tuple[Tensor, Tensor, Box]:
        """The first look: logits (classes,), map (h, w), and where to look more closely."""
        size = whole_size(pixels, self.preprocessing)
        maps = self._maps(pixels, (0, 0, pixels.shape[2], pixels.shape[1]), size)
        heat = class_map(maps, self.head)
        return self._logits(maps), heat, bird_box(heat, pixels, self.preprocessing)

    def _maps(self, pixels: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
        """Feature maps (C, h, w) of a look, the mirror image's turned back and averaged in."""
        view = look(pixels, box, size, self.preprocessing)
        x = normalise([view, view.flip(2)], self.preprocessing)  # (2, 3, H, W)
        maps = self.features(x)  # (2, C, h, w)
        return (maps[0] + maps[1].flip(2)) / 2

    def _logits(self, maps: Tensor) -> Tensor:
        return functional.linear(maps.mean((1, 2)), *self.head)  # (C, h, w) -> (C,) -> (classes,)


def class_map(maps: Tensor, head: Head) -> Tensor:
    """How much each place of feature maps (C, h, w) speaks for the likeliest classes: (h, w).

    The linear head, applied at each place instead of to the average (Zhou et al., Learning Deep
    Features for Discriminative Localization, CVPR 2016); the five best classes by probability.
    """
    shares = functional.softmax(functional.linear(maps.mean((1, 2)), *head), 0)
    best = shares.topk(min(5, len(shares)))
    heat = torch.einsum("c,chw->hw", best.values @ head[0][best.indices], maps)
    return heat - heat.min()


def bird_box(heat: Tensor, pixels: Tensor, preprocessing: Mapping[str, Any]) -> Box:
    """The square of the photo (3, H, W) around the blob of the map (h, w) that holds its peak.

    The whole photo where it is tiny, or the map flat.
    """
    height, width = pixels.shape[1:]
    if min(height, width) < TINY or not heat.max() > 1e-6:
        return 0, 0, width, height
    blob = _blob(heat, preprocessing["box_threshold"])
    rows, columns = (blob.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom = (edge * height / heat.shape[0] for edge in (rows[0], rows[-1] + 1))
    left, right = (edge * width / heat.shape[1] for edge in (columns[0], columns[-1] + 1))
    side = max(right - left, bottom - top) * (1 + 2 * preprocessing["box_margin"])
    side = min(round(side), height, width)
    x, y = _start((left + right) / 2, side, width), _start((top + bottom) / 2, side, height)
    return x, y, x + side, y + side


def _blob(heat: Tensor, threshold: float) -> Tensor:
    """The places (h, w) connected with the peak, diagonals included, above the threshold."""
    above = heat >= threshold * heat.max()
    blob, before = heat == heat.max(), None
    while before is None or not torch.equal(blob, before):
        before = blob
        grown = functional.max_pool2d(blob[None].float(), 3, stride=1, padding=1)[0]
        blob = (grown > 0) & above
    return blob


def _start(middle: float, side: int, length: int) -> int:
    """Where a side around `middle` begins so that it lies within a photo of this length."""
    return min(max(round(middle - side / 2), 0), length - side)


# ---- What training sees of a photo -------------------------------------------------------------

View = tuple[Box, bool, tuple[float, float, float]]  # mirrored? brightness, contrast, saturation
PLAIN = (False, (1.0, 1.0, 1.0))


def random_view(bird: Box, pixels: Tensor, settings: Settings, generator: random.Random) -> View:
    """A square around the bird on a photo (3, H, W): of any scale from its box to the whole photo.

    It holds as much of the box as fits. Scales like the second look's are as likely as the first's.
    """
    (left, top, right, bottom), (height, width) = bird, pixels.shape[1:]
    largest = min(height, width)
    smallest = min(settings.tightest_crop * max(right - left, bottom - top), 0.95 * largest)
    side = math.exp(generator.uniform(math.log(smallest), math.log(largest)))
    stretch = settings.crop_stretch ** generator.uniform(-0.5, 0.5)
    w, h = min(max(1, round(side * stretch)), width), min(max(1, round(side / stretch)), height)
    x = _covering(left, right, w, width, generator)
    y = _covering(top, bottom, h, height, generator)
    jitter = settings.colour_jitter
    light = tuple(generator.uniform(1 - jitter, 1 + jitter) for _ in range(3))
    return (x, y, x + w, y + h), generator.random() < 0.5, light


def _covering(start: int, end: int, side: int, length: int, generator: random.Random) -> int:
    """A random start of a side that covers start to end, or, if shorter, lies within it."""
    low, high = sorted((end - side, start))
    return generator.randint(*(min(max(edge, 0), length - side) for edge in (low, high)))


def augmented(pixels: Tensor, view: View, preprocessing: Mapping[str, Any]) -> Tensor:
    """The view of a photo (3, H, W): a square (3, side, side), uint8."""
    from torchvision.transforms.v2 import functional as change

    box, mirrored, light = view
    square = look(pixels, box, (preprocessing["input_size"],) * 2, preprocessing)
    square = square.flip(2) if mirrored else square
    changes = (change.adjust_brightness, change.adjust_contrast, change.adjust_saturation)
    for adjust, factor in zip(changes, light, strict=True):
        square = adjust(square, factor) if factor != 1 else square
    return square


# ---- Photos side by side -----------------------------------------------------------------------


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work(item)` of each item, in order, on as many threads as torch has.

    Each thread computes on one core: different photos keep the cores busier than two halves of one
    photo, after each layer of which they wait. Few items are under way, so memory is bounded.
    """
    with _lock:
        _parallel.append(_parallel[0] if _parallel else torch.get_num_threads())
    threads, under_way = _parallel[0], deque()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, "photos", torch.set_num_threads, (1,)) as pool:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    finally:
        torch.set_num_threads(_parallel.pop())


# ---- Labels and split --------------------------------------------------------------------------


def labels_fingerprint(gt: Mapping[str, int]) -> str:
    """SHA-256 of the labels: tells whether a model was trained on just these photos."""
    lines = "".join(f"{name},{class_id}\n" for name, class_id in sorted(gt.items()))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def split_photos(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Indices of training and validation photos by their classes (N,), in the same proportions.

    A class of one photo stays in training; with no class of two there is no validation: None.
    """
    from sklearn.model_selection import train_test_split

    several = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(several) == 0:
        return np.arange(len(labels)), None
    size, of = max(round(share * len(several)), len(set(labels[several]))), labels[several]
    _, validation = train_test_split(several, test_size=size, stratify=of, random_state=seed)
    return np.setdiff1d(np.arange(len(labels)), validation), np.sort(validation)


# ---- Pretrained weights ------------------------------------------------------------------------


def imagenet_weights_file() -> Path:
    """Where torch's cache keeps MobileNetV2's ImageNet weights, whether or not they are there."""
    from torchvision.models import MobileNet_V2_Weights as Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(Weights.IMAGENET1K_V1.url).name


def pretrained(
    class_ids: Sequence[int],
    class_names: Sequence[str] | None,
    settings: Settings,
    init: str | Path | None,
    fast_train: bool = False,
) -> tuple[BirdNet, Head | None]:
    """A network to start training from, with a random head, and the head that it had before.

    Raises SubmissionError without pretrained weights; with `fast_train` random ones do: no head.
    """
    network, head = BirdNet(class_ids, class_names, settings.dropout), None
    network.features[: -settings.unfrozen_blocks].requires_grad_(False)
    path = imagenet_weights_file() if init is None else Path(init)
    if path.is_file():
        head = _load_backbone(network, path)
    elif not fast_train:
        raise SubmissionError(
            f"no pretrained weights: put {path.name} into {path.parent} (torch's cache is "
            "$TORCH_HOME/hub/checkpoints), or start from a trained model with --init CHECKPOINT"
        )
    if fast_train:
        _say(f"fast_train: {'weights from' if head else 'random weights, none in'} {path}")
    return network, head


def _load_backbone(network: BirdNet, path: Path) -> Head:
    """Take over the backbone that a file holds; gives the head that it holds."""
    content = load_file(path)
    state = content.get("state_dict", content)
    layer = "head" if "head.weight" in state else "classifier.1"  # ours; torchvision's
    try:
        network.features.load_state_dict(_backbone_of(state))
        return state[f"{layer}.weight"], state[f"{layer}.bias"]
    except (RuntimeError, KeyError):
        raise SubmissionError(
            f"{path} does not hold the weights of torchvision's mobilenet_v2: replace or delete it"
        ) from None


def _backbone_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "features."
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def load_file(path: Path) -> dict[str, Any]:
    """What torch.save wrote to `path`: tensors and plain values only, nothing is executed.

    Raises SubmissionError if there is no such file, or if it cannot be read.
    """
    if not path.is_file():
        raise SubmissionError(f"no file {path}: `python train_full.py` makes birds_model.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        raise SubmissionError(
            f"{path} cannot be read ({type(error).__name__}): truncated, or no checkpoint; copy it "
            "again, or delete it: `python train_full.py` gets the weights or makes the model"
        ) from None
    if not isinstance(content, dict):
        raise SubmissionError(f"{path} holds no checkpoint but a {type(content).__name__}")
    return content


# ---- The frozen trunk, computed once -----------------------------------------------------------


def training_precision(settings: Settings) -> torch.dtype:
    """What views and the steps of training are computed in.

    Mixed precision as in Micikevicius et al., ICLR 2018, with bfloat16 where the processor and
    ONEDNN_MAX_CPU_ISA have it: weights, average, validation and `classify` stay in float32.
    """
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    wanted = settings.bfloat16 and in_hardware() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if wanted else torch.float32


def find_birds(
    network: BirdNet,
    head: Head | None,
    paths: Sequence[Path],
    settings: Settings,
    progress: Progress,
) -> dict[Path, Box]:
    """Where the pretrained network, with the head that it came with, sees a bird on each photo.

    What cannot be read is left out, and said. Without a head the bird may be anywhere.
    """
    preprocessing, precision = preprocessing_of(settings), training_precision(settings)
    features = frozen(describe(network.features), network.features.state_dict(), precision)
    looks = None if head is None else TwoLooks(features, head, preprocessing)

    def find(path: Path) -> Box | Exception:
        try:
            pixels = read_pixels(path, preprocessing)
        except Exception as error:  # see read_photo
            return error
        return looks.find(pixels)[2] if looks else (0, 0, pixels.shape[2], pixels.shape[1])

    boxes = {}
    for path, found in zip(paths, side_by_side(find, paths), strict=True):
        if isinstance(found, Exception):
            _say(f"left out of training: {path} ({found})")
        else:
            boxes[path] = found
        progress.step(1)
    return boxes


class TrunkCache:
    """Activations of the frozen trunk, in half precision, for several views of all photos.

    View 0 is plain, at the bird's box; the others are random, computed when first asked for.
    """

    def __init__(
        self, network: BirdNet, birds: Mapping[Path, Box], settings: Settings, progress: Progress
    ) -> None:
        trunk = network.features[: -settings.unfrozen_blocks]
        self.trunk = frozen(describe(trunk), trunk.state_dict(), training_precision(settings))
        self.settings, self.progress = settings, progress
        self.preprocessing = preprocessing_of(settings)
        self.paths, self.birds = list(birds), list(birds.values())
        self.views: dict[int, Tensor] = {0: self._computed(0)}
        self.count = self._random_views_that_fit()

    def view(self, number: int) -> Tensor:
        """Activations (photos, h, w, C), float16."""
        if number not in self.views:
            self.views[number] = self._computed(number)
        return self.views[number]

    def to_compute(self) -> int:
        """How many views the epochs will ask for that are not computed yet."""
        return min(self.settings.epochs, self.count) - len(self.views) + 1

    def _computed(self, number: int) -> Tensor:
        def encode(photo: int) -> Tensor:
            x = normalise([self._view(number, photo)], self.preprocessing)  # (1, 3, side, side)
            return self.trunk(x).permute(0, 2, 3, 1).half()  # (1, h, w, C)

        activations = []
        for part in side_by_side(encode, range(len(self.paths))):
            activations.append(part)
            self.progress.step(1)
        return torch.cat(activations)

    def _view(self, number: int, photo: int) -> Tensor:
        """View (3, side, side) of a photo, the same whenever it is computed."""
        pixels, bird = read_pixels(self.paths[photo], self.preprocessing), self.birds[photo]
        generator = random.Random(f"seed {self.settings.seed}, view {number}, photo {photo}")
        drawn = random_view(bird, pixels, self.settings, generator)
        return augmented(pixels, drawn if number else (bird, *PLAIN), self.preprocessing)

    def _random_views_that_fit(self) -> int:
        size = self.views[0].element_size() * self.views[0].numel()  # bytes
        room = int(self.settings.cache_gigabytes * 1e9 / size) - 1
        return max(1, min(self.settings.views, room))


# ---- Training ----------------------------------------------------------------------------------


class UpperNet(nn.Module):
    """What is trained: the upper blocks and the head, on the trunk's activations.

    Batch norm keeps the statistics of ImageNet here too: as good as new ones, and faster.
    """

    def __init__(self, network: BirdNet, settings: Settings) -> None:
        super().__init__()
        self.blocks = network.features[-settings.unfrozen_blocks :]
        self.dropout, self.head = network.dropout, network.head
        self.description = describe(self.blocks)
        self.bfloat16 = training_precision(settings) is torch.bfloat16

    def pooled(self, x: Tensor) -> Tensor:
        """Features (B, 1280) of the trunk's activations (B, C, h, w)."""
        state = dict(self.blocks.named_parameters()) | dict(self.blocks.named_buffers())
        x = through(fold(self.description, state), x)  # (B, C, h, w) -> (B, 1280, H/32, W/32)
        return x.float().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of the trunk's activations (B, C, h, w), in training."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            x = self.pooled(x)
        return self.head(self.dropout(x))


def _optimiser(upper: UpperNet, settings: Settings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), the backbone slower; biases and norms do not decay."""
    rates = {upper.blocks: settings.backbone_learning_rate, upper.head: settings.head_learning_rate}
    groups = []
    for (part, rate), decays in itertools.product(rates.items(), (True, False)):
        weights = [p for p in part.parameters() if (p.ndim > 1) == decays]
        decay = settings.weight_decay if decays else 0.0
        groups.append({"params": weights, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups)


def _unpacked(activations: Tensor) -> Tensor:
    """Cached activations (B, h, w, C), float16 -> (B, C, h, w), float32, channels last."""
    return activations.float().permute(0, 3, 1, 2)


@torch.no_grad()
def _logits(upper: UpperNet, activations: Tensor) -> Tensor:
    """Logits (N, classes) of untouched photos, from the trunk's activations (N, h, w, C)."""
    parts = activations.split(32)
    return torch.cat([upper.head(upper.pooled(_unpacked(part))) for part in parts])


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


class _Run:
    """One training of the upper blocks, from the pretrained weights to their moving average."""

    def __init__(self, network: BirdNet, settings: Settings, steps: int) -> None:
        from timm.utils import ModelEmaV3

        self.upper = UpperNet(network, settings).to(memory_format=torch.channels_last)
        # Polyak and Juditsky, 1992: the average does what decay of the rates to zero otherwise
        # does (Izmailov et al., 2018), so the cosine (Loshchilov and Hutter, 2017) ends above it.
        decay = settings.average_decay
        self.average = ModelEmaV3(self.upper, decay, use_warmup=True, warmup_power=0.9)
        self.optimiser = _optimiser(self.upper, settings)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            [group["lr"] for group in self.optimiser.param_groups],
            total_steps=steps + 1,
            pct_start=max(settings.warmup, 2 / (steps + 1)),  # one step at least, or 0 / 0
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=1 / (25 * settings.final_rate),  # of the first rate, not the highest
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)

    def step(self, activations: Tensor, labels: Tensor) -> tuple[float, float]:
        """One step on activations (B, h, w, C) with labels (B,): loss and accuracy before it."""
        logits = self.upper.train()(_unpacked(activations))  # (B, classes)
        loss = self.loss(logits, labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.scheduler.step()
        self.average.update(self.upper, self.scheduler.last_epoch)
        return loss.item(), _share_right(logits, labels)


def _fit(
    stage: str,
    network: BirdNet,
    cache: TrunkCache,
    labels: Tensor,
    train: np.ndarray,
    held_out: np.ndarray | None = None,
) -> None:
    """Train `network` in place on the photos `train`; those `held_out` are for the table alone."""
    settings, progress = cache.settings, cache.progress
    size = min(settings.batch_size, len(train))
    batches = len(train) // size  # full ones; who is left over changes from epoch to epoch
    run = _Run(network, settings, settings.epochs * batches)
    progress.stage(stage, settings.epochs * batches * size + cache.to_compute() * len(labels))
    for number in range(settings.epochs):
        start, measured = time.perf_counter(), []
        view = cache.view(1 + number % cache.count)  # (photos, h, w, C)
        order = np.random.default_rng([settings.seed, number]).permutation(train)
        for photos in order[: batches * size].reshape(batches, size):
            measured.append(run.step(view[photos], labels[photos]))
            progress.step(size)
        loss, accuracy = np.mean(measured, axis=0).tolist()
        val_loss = val_accuracy = None
        if held_out is not None:
            logits, truth = _logits(run.average.module, cache.view(0)[held_out]), labels[held_out]
            val_loss = functional.cross_entropy(logits, truth).item()
            val_accuracy = _share_right(logits, truth)
        rate, seconds = run.optimiser.param_groups[-1]["lr"], time.perf_counter() - start
        row = EpochRow(stage, number + 1, loss, accuracy, val_loss, val_accuracy, rate, seconds)
        progress.epoch(row)
    run.upper.load_state_dict(run.average.module.state_dict())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch as training wants it, with the same random numbers every time; then as it was."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would visit accelerators
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _checked_labels(train_gt: Mapping[str, int]) -> dict[str, int]:
    if not train_gt:
        raise SubmissionError("no labels to train on: train_gt is empty; check train/gt.csv")
    try:
        return {name: operator.index(train_gt[name]) for name in sorted(train_gt)}
    except TypeError:
        raise SubmissionError("class ids must be integers: check train/gt.csv") from None


def train_classifier(
    train_gt: Mapping[str, int],
    train_img_dir: str | Path,
    fast_train: bool = False,
    *,
    settings: Settings | None = None,
    init: str | Path | None = None,
    class_names: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> BirdNet:
    """Fine-tune MobileNetV2 on labelled photos.

    Args:
        train_gt: class id (any integer) of each photo, by file name.
        train_img_dir: the folder with the photos.
        fast_train: one epoch of two batches, from random weights if there are no pretrained ones.
        settings: how to train.
        init: checkpoint to take the backbone from, instead of torch's cache of ImageNet weights.
        class_names: names for people, by class id.
        progress: told how training gets on.

    Returns:
        The network in evaluation mode, on the CPU, trained on all photos; `facts["validation"]`
        says what the same settings reached on photos kept out of a first run.

    Raises:
        SubmissionError: no labels, no readable photo, no pretrained weights.
    """
    import torchvision

    gt, folder = _checked_labels(train_gt), Path(train_img_dir)
    settings, progress = settings or Settings(), progress or Progress()
    class_ids = sorted(set(gt.values()))
    species = None if class_names is None else [class_names.get(i, str(i)) for i in class_ids]
    # After a block of almost 32 MiB was freed, glibc keeps all smaller ones instead of giving them
    # back to the kernel each time: mallopt(3). Fewer page faults, steps take a seventh less time.
    torch.empty(32 * 2**20 - 2**13, dtype=torch.uint8)
    with _seeded(settings.seed):
        network, head = pretrained(class_ids, species, settings, init, fast_train)
        names = list(gt)
        if fast_train:
            random.Random(settings.seed).shuffle(names)
            names = sorted(names[:FAST_TRAIN_PHOTOS])
            settings = replace(settings, epochs=1, views=1)
        progress.stage("first look", len(names))
        birds = find_birds(network, head, [folder / name for name in names], settings, progress)
        if not birds:
            raise SubmissionError(f"not one readable photo in {folder}: check the folder's path")
        cache = TrunkCache(network, birds, settings, progress)
        names = [path.name for path in cache.paths]
        labels = torch.tensor([class_ids.index(gt[name]) for name in names])  # (photos,)
        answers = _validate(network, cache, labels)
        _fit("final run", network, cache, labels, np.arange(len(names)))
    network.validation_answers = answers
    network.facts = {
        "fallback_class": Counter(gt.values()).most_common(1)[0][0],
        "settings": asdict(settings),
        "training": {
            "photos": len(names),
            "labels_sha256": labels_fingerprint(train_gt),
            "seed": settings.seed,
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        **_validation_facts(answers),
    }
    return network.eval()


def _validate(network: BirdNet, cache: TrunkCache, labels: Tensor) -> dict[str, Any] | None:
    """Train a copy of `network` without some photos; what it answers on those, as `classify` would.

    The `photos`' names, `labels` (N,) as columns of the `logits` (N, classes), what was `seen`.
    """
    settings, progress = cache.settings, cache.progress
    train, photos = split_photos(labels.numpy(), settings.validation_share, settings.seed)
    if photos is None:
        _say("no species has two photos: nothing to validate on, training on all of them")
        return None
    lonely = sum(n == 1 for n in Counter(labels.tolist()).values())
    if lonely:
        _say(f"{lonely} species with a single photo: it stays in training, not in validation")
    network = copy.deepcopy(network)
    _fit("validation run", network, cache, labels, train, photos)
    paths = [cache.paths[index] for index in photos]
    progress.stage("second look", len(paths))
    seen = []
    for _, answer in Classifier(_described(network, settings)).answers(paths):
        seen.append(answer)
        progress.step(1)
    return {
        "photos": [path.name for path in paths],
        "labels": labels[photos],
        "logits": torch.stack([answer.logits for answer in seen]),
        "seen": seen,
    }


def _validation_facts(answers: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the checkpoint keeps of the validation: accuracy, and how to read the probabilities."""
    if answers is None:
        return {"validation": None, "temperature": 1.0, "unsure_below": 0.0}
    labels, logits = answers["labels"], answers["logits"]
    right, total = int((logits.argmax(1) == labels).sum()), len(labels)
    temperature = fit_temperature(logits, labels)
    best = functional.softmax(logits / temperature, 1).amax(1)  # (N,)
    validation = {"correct": right, "total": total, "accuracy": right / total}
    doubt = best.quantile(0.05).item()
    return {"validation": validation, "temperature": temperature, "unsure_below": doubt}


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of the logits (N, classes) with the least cross-entropy on `labels` (N,).

    It changes no answer: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, 4.2.
    """
    candidates = torch.logspace(-1, 1, 401).tolist()  # 0.1 to 10 in steps of 1 %
    return min(candidates, key=lambda t: functional.cross_entropy(logits / t, labels).item())


# ---- The checkpoint: tensors and plain values that describe themselves -------------------------

FORMAT, FORMAT_VERSION = "birds-mobilenet-v2", 3


def _described(network: BirdNet, settings: Settings) -> dict[str, Any]:
    """What a `Classifier` needs of a network, without what its training found out."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "features": describe(network.features),
        "class_ids": network.class_ids,
        "class_names": network.class_names,
        "preprocessing": preprocessing_of(settings),
        "fallback_class": network.class_ids[0],
        "temperature": 1.0,
        "unsure_below": 0.0,
        "state_dict": {k: v.contiguous() for k, v in network.state_dict().items()},
    }


def to_checkpoint(network: BirdNet) -> dict[str, Any]:
    """What `torch.save` is to write as birds_model.pt, of a network from `train_classifier`."""
    checkpoint = _described(network, Settings(**network.facts["settings"])) | network.facts
    return checkpoint | {"known_answer": {"logits": _known_answer(Classifier(checkpoint))}}


def load_classifier(model_path: str | Path) -> Classifier:
    """The network of a checkpoint, ready to classify.

    Raises SubmissionError, and executes nothing, if the file is missing, damaged or foreign.
    """
    checkpoint = load_file(Path(model_path))
    cure = "make one with `python train_full.py`"
    if (checkpoint.get("format"), checkpoint.get("format_version")) != (FORMAT, FORMAT_VERSION):
        kind = f"{FORMAT} checkpoint of version {FORMAT_VERSION}"
        raise SubmissionError(f"{model_path} is no {kind}: {cure}")
    try:
        return Classifier(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise SubmissionError(f"{model_path} is damaged, its parts do not fit: {cure}") from None


def _known_answer(classifier: Classifier) -> list[float]:
    """Logits for a generated picture: the same integers on every machine."""
    y, x, channel = np.ogrid[:375, :500, :3]
    picture = (x * y // 7 + 3 * x + 5 * y + 89 * channel) % 256  # (H, W, 3)
    pixels = torch.from_numpy(picture.astype(np.uint8)).permute(2, 0, 1)
    return classifier.looks(pixels).logits.tolist()


def known_answer_error(model_path: str | Path) -> float:
    """Greatest difference of a logit from what it was where the model was made; 1e-3 is right."""
    classifier = load_classifier(model_path)
    stored = np.array(classifier.checkpoint["known_answer"]["logits"])
    return float(np.abs(np.array(_known_answer(classifier)) - stored).max())


# ---- Classification ----------------------------------------------------------------------------


class Classifier:
    """The network of a checkpoint, ready to look at photos."""

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        self.checkpoint, state = checkpoint, checkpoint["state_dict"]
        self.class_ids: list[int] = checkpoint["class_ids"]
        self.fallback_class: int = checkpoint["fallback_class"]
        names = checkpoint["class_names"]
        self.class_names: list[str] = names or [str(class_id) for class_id in self.class_ids]
        self.temperature: float = checkpoint["temperature"]
        self.unsure_below: float = checkpoint["unsure_below"]
        self.preprocessing = checkpoint["preprocessing"]
        head = state["head.weight"].detach(), state["head.bias"].detach()
        features = frozen(checkpoint["features"], _backbone_of(state), torch.float32)
        self.looks = TwoLooks(features, head, self.preprocessing)
        numbers = all(v.isfinite().all() and v.dtype != torch.half for v in state.values())
        if len(self.class_ids) != len(head[1]) or not numbers:
            raise ValueError("not as many outputs as class ids, or weights that are no numbers")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities of logits (..., classes): see `fit_temperature`."""
        return functional.softmax(logits / self.temperature, -1)

    def answers(self, photos: Sequence[Path]) -> Iterator[tuple[Path, Seen | Exception]]:
        """Each photo with what was seen of it, or with the reason why it cannot be decoded."""

        def answer(path: Path) -> Seen | Exception:
            try:
                return self.looks(read_pixels(path, self.preprocessing))
            except Exception as error:  # see read_photo; a missing answer fails the whole test
                return error

        yield from zip(photos, side_by_side(answer, photos), strict=True)


def classify(model_path: str | Path, test_img_dir: str | Path) -> dict[str, int]:
    """The class id of every photo in a folder, by file name.

    A photo that cannot be decoded gets the most frequent class of the training photos, and a line
    on stderr. Raises SubmissionError: no such folder; the model is missing, damaged or foreign.
    """
    classifier, answers, undecoded = load_classifier(model_path), {}, 0
    for path, seen in classifier.answers(list_photos(test_img_dir)):
        if isinstance(seen, Exception):
            undecoded += 1
            _say(f"cannot be decoded, answered with the most frequent class: {path} ({seen})")
            answers[path.name] = classifier.fallback_class
        else:
            answers[path.name] = classifier.class_ids[int(seen.logits.argmax())]
    if undecoded:
        _say(f"{undecoded} of {len(answers)} photos cannot be decoded: the lines above say why")
    return answers


# ---- From the command line: what the network says of a photo, and what it looked at ------------


def _likeliest(classifier: Classifier, logits: Tensor, number: int) -> list[str]:
    """The likeliest species by logits (classes,), each with its probability."""
    best = classifier.probabilities(logits).topk(min(number, len(classifier.class_names)))
    names = [classifier.class_names[index] for index in best.indices.tolist()]
    return [f"{p:7.2%}  {name}" for p, name in zip(best.values.tolist(), names, strict=True)]


def _print_answer(classifier: Classifier, path: Path, logits: Tensor, number: int) -> None:
    print(path, *_likeliest(classifier, logits, number), sep="\n  ")
    if classifier.probabilities(logits).max() < classifier.unsure_below:
        print(
            f"  unsure: 95 % of the validation photos got more than {classifier.unsure_below:.0%}; "
            "perhaps none of the species it knows, or no bird"
        )


def pictures_of_looks(pixels: Tensor, seen: Seen) -> tuple[Image.Image, Image.Image]:
    """The photo (3, H, W) with the map in red and the box; what the second look saw."""
    heat = seen.heat / seen.heat.max().clamp(min=1e-6)  # (h, w), 0 to 1
    heat = functional.interpolate(heat[None, None], pixels.shape[1:], mode="bilinear")[0]
    red = torch.tensor([255.0, 0.0, 0.0]).view(3, 1, 1)
    tinted = torch.lerp(pixels.float(), red, 0.5 * heat).byte()  # (3, H, W)
    left, top, right, bottom = seen.box
    parts = tinted, pixels[:, top:bottom, left:right]
    first, second = (Image.fromarray(part.permute(1, 2, 0).numpy()) for part in parts)
    frame, width = (left, top, right - 1, bottom - 1), max(3, first.width // 150)
    ImageDraw.Draw(first).rectangle(frame, outline="white", width=width)
    return first, second


def _save_picture(classifier: Classifier, photo: Path, seen: Seen, out: Path) -> None:
    """Write what the looks saw, each over its three likeliest species; replaces `out` at once."""
    canvas, x = Image.new("RGB", (1000, 480), "white"), 0
    pictures = pictures_of_looks(read_pixels(photo, classifier.preprocessing), seen)
    looks = ("first look", seen.first), ("second look", seen.second)
    for picture, (title, logits) in zip(pictures, looks, strict=True):
        caption = "\n".join([title, *_likeliest(classifier, logits, 3)])
        canvas.paste(ImageOps.contain(picture, (580, 370)), (x, 0))
        ImageDraw.Draw(canvas).text((x + 8, 380), caption, "black", ImageFont.load_default(16))
        x = 600
    temporary = out.with_name(out.name + "~")
    try:
        canvas.save(temporary, "PNG")
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SubmissionError(f"{out} cannot be written: {error}; name another --show") from None


def _shown(options: argparse.Namespace) -> int:
    """Print what the network says of each photo; the exit status."""
    classifier, sources, undecoded = load_classifier(options.model), options.photos, 0
    if missing := [source for source in sources if not source.exists()]:
        raise SubmissionError(f"no photo or folder {missing[0]}: check the path")
    photos = [p for s in sources for p in (list_photos(s) if s.is_dir() else [s])]
    if not photos or (options.show and len(photos) > 1):
        what = "--show draws one photo" if photos else "no photo to look at"
        raise SubmissionError(f"{what}, but {sources[0]} holds {len(photos)}: name a photo")
    for path, seen in classifier.answers(photos):
        if isinstance(seen, Exception):
            _say(f"cannot be decoded: {path} ({seen}): is it a photo? copy it again")
            undecoded += 1
            continue
        _print_answer(classifier, path, seen.logits, options.top)
        if options.show:
            _save_picture(classifier, path, seen, options.show)
            print(f"Wrote {options.show}")
    if undecoded and len(photos) > 1:
        _say(f"{undecoded} of {len(photos)} photos cannot be decoded: the lines above say why")
    return int(undecoded > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python solution.py PHOTO_OR_FOLDER ...`; the exit status."""
    parser = argparse.ArgumentParser(description="Tell the species of the birds on photos.")
    add, model = parser.add_argument, Path(__file__).with_name("birds_model.pt")
    add("photos", type=Path, nargs="+", metavar="PHOTO_OR_FOLDER")
    add("--model", type=Path, default=model, help="default: birds_model.pt")
    add("--top", type=int, default=5, metavar="N", help="species shown; default: 5")
    add("--show", type=Path, metavar="OUT.png", help="draw what both looks saw of one photo")
    options = parser.parse_args(arguments)
    if options.top < 1:
        parser.error(f"--top {options.top}: show at least one species")
    try:
        return _shown(options)
    except SubmissionError as error:
        _say(f"Error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
