"""Tell bird species apart: MobileNetV2, fine-tuned on a CPU, sees the photo and then the bird.

@@CONTRACT@@

The testing system calls train_classifier(train_gt, train_img_dir, fast_train), which returns the
trained network, and classify(model_path, test_img_dir), which returns {file name: class id}.
Nothing here writes to disk, opens a socket, starts a process or touches an accelerator;
`train_full.py` saves what `train_classifier` returns. How it works, in the order of this file:

    1. Two stages. The bird is a small part of a photo. The network sees the whole photo first;
       its class activation map says where the bird is. Then it sees the square around that place,
       and mirror images of both, until the averaged prediction is confident.
    2. Training sees random squares around the bird, of every scale between the two stages. Where
       the bird is, the class activation map of the pretrained network says.
    3. The last blocks and a new linear head are trained, the early ones of them more slowly: first
       on four fifths of the photos, to measure the settings on the rest; then, from the pretrained
       weights again, on all photos.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
import random
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor, nn
from torch.nn import functional

# ---- Settings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How to train and to predict. What was tried on folds of the sample: docs/experiments.md."""

    weights: str = "IMAGENET1K_V1"  # torchvision's name, timm's, or a checkpoint file
    input_size: int = 320  # pixels a side of a square view; costs its square in time
    first_size: int = 256  # pixels of the short side of the whole photo in the first stage
    box_threshold: float = 0.6  # of the map's maximum: places above it belong to the bird
    box_margin: float = 0.1  # added on each side of the bird, as a share of the box
    whole_share: float = 0.25  # of the whole photo in the averaged logits; the crop sees more
    unfrozen_blocks: int = 12  # of the 19 blocks of `features`, counted from the end
    epochs: int = 16  # more gain little, and cost in proportion
    batch_size: int = 32  # photos
    head_learning_rate: float = 3e-3
    backbone_learning_rate: float = 1e-3  # of the last block; smaller, or it forgets ImageNet
    layer_decay: float = 0.75  # of the learning rate from each block to the one before it
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    final_rate: float = 0.5  # share of the learning rates left by the cosine decay at the end
    weight_decay: float = 0.02  # AdamW, on weights of convolutions and head only
    label_smoothing: float = 0.1
    tightest_crop: float = 0.8  # the smallest random square, as a share of the bird's box
    crop_stretch: float = 1.27  # the most that a random crop is wider than high, or the reverse
    colour_jitter: float = 0.3  # of brightness, contrast and saturation
    bfloat16: bool = True  # in training, if the processor has it: twice as fast
    average_decay: float = 0.998  # of the moving average of the weights, per step, in the end
    validation_share: float = 0.2
    seed: int = 0


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FAST_TRAIN_PHOTOS = 64  # of `fast_train`: two batches
VALIDATION_RUN, FINAL_RUN = "validation run", "final run"


# ---- Errors and progress -----------------------------------------------------------------------


class SubmissionError(Exception):
    """A mistake that the user can correct; its text is one line with cause, file and remedy."""

    user_facing = True  # no traceback: see course/cli.py


@dataclass(frozen=True)
class EpochRow:
    """One row of the training table; losses in nats, accuracies and rates as fractions."""

    stage: str  # VALIDATION_RUN or FINAL_RUN
    epoch: int  # from 1
    epochs: int  # of this run
    loss: float  # on random views, with smoothed labels, so higher than on plain photos
    accuracy: float  # on the same views
    val_loss: float | None  # of the averaged weights on validation photos: one view each, the
    val_accuracy: float | None  # square where the pretrained network sees the bird
    learning_rate: float  # of the head, at the end of the epoch
    seconds: float


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


# ---- The network -------------------------------------------------------------------------------


class BirdNet(nn.Module):
    """MobileNetV2 features, global average pooling, one linear layer.

    Takes normalised photos (B, 3, H, W) of any size, gives logits (B, classes). Column i of the
    logits stands for `class_ids[i]`. Architecture: Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(
        self, class_ids: Sequence[int], class_names: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        from torchvision.models import mobilenet_v2  # takes longer to import than all the rest

        super().__init__()
        self.features = mobilenet_v2(weights=None).features
        self.head = nn.Linear(1280, len(class_ids))
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)
        self.class_ids = list(class_ids)
        self.class_names = None if class_names is None else list(class_names)
        self.metadata: dict[str, Any] = {}  # what the checkpoint says of the training
        self.validation: Validation | None = None
        self.float()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of normalised photos (B, 3, H, W)."""
        x = self.features(x).mean((2, 3))  # (B, 3, H, W) -> (B, 1280, H/32, W/32) -> (B, 1280)
        return self.head(x)  # (B, 1280) -> (B, classes)


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch norm after it folded in, and perhaps a ReLU6 after that."""

    weight: Tensor  # (out, in / groups, k, k)
    bias: Tensor  # (out,)
    stride: int
    padding: int
    groups: int
    relu6: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, out, H / stride, W / stride)."""
        stride = self.stride
        if stride > 1 and self.groups > 1 and x.requires_grad:
            # oneDNN's gradient of a strided depthwise convolution takes 15 times as long as that
            # of one without stride, most of whose output is thrown away here.
            y = functional.conv2d(x, self.weight, self.bias, 1, self.padding, 1, self.groups)
            y = y[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last)
        else:
            y = functional.conv2d(x, self.weight, self.bias, stride, self.padding, 1, self.groups)
        return functional.hardtanh(y, 0.0, 6.0, inplace=True) if self.relu6 else y


FoldedBlock = tuple[list[Convolution], bool]  # the bool: is the block's input added to its output?


def fold(blocks: Iterable[nn.Module]) -> list[FoldedBlock]:
    """Return the blocks with each batch norm folded into the convolution before it.

    In evaluation mode batch norm is a fixed affine map per channel (Jacob et al., CVPR 2018,
    section 3.2). Differentiable: gradients reach the convolutions and the gains and shifts of
    the batch norms; the running statistics stay as they are.
    """
    folded = []
    for block in blocks:
        convolutions: list[Convolution] = []
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                convolution = module
            elif isinstance(module, nn.BatchNorm2d):
                convolutions.append(_fold(convolution, module))
            elif isinstance(module, nn.ReLU6):
                convolutions[-1] = replace(convolutions[-1], relu6=True)
        folded.append((convolutions, getattr(block, "use_res_connect", False)))
    return folded


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Convolution:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (out,)
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    bias = norm.bias - norm.running_mean * scale
    return Convolution(weight, bias, conv.stride[0], conv.padding[0], conv.groups)


def with_weights(
    folded: Iterable[FoldedBlock], change: Callable[[Tensor], Tensor]
) -> list[FoldedBlock]:
    """Return folded blocks whose weights and biases are `change(tensor)` of the given ones."""
    return [
        ([replace(c, weight=change(c.weight), bias=change(c.bias)) for c in convolutions], residual)
        for convolutions, residual in folded
    ]


def run_folded(folded: Iterable[FoldedBlock], x: Tensor) -> Tensor:
    """Apply folded blocks to x (B, C, H, W), channels last, in the precision of their weights."""
    for convolutions, residual in folded:
        y = x
        for convolution in convolutions:
            y = convolution(y)
        x = x + y if residual else y
    return x


def for_inference(
    blocks: Iterable[nn.Module], dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """Return the blocks as a function of x (B, 3, H, W) that computes in `dtype`."""

    def converted(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.detach().to(dtype, memory_format=layout, copy=True)

    folded = with_weights(fold(blocks), converted)
    return torch.no_grad()(lambda x: run_folded(folded, x.to(dtype)))


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
    """Return whether a file of this name is tried as a photo: its content decides."""
    return not name.startswith(".") and Path(name).suffix.lower() not in OTHER_SUFFIXES


def list_photos(folder: str | Path) -> list[Path]:
    """Return the files of a folder that may be photos, by name, and dangling links; no folders."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SubmissionError(f"no folder {folder}: give the folder that holds the photos")
    paths = (path for path in folder.iterdir() if may_be_photo(path.name))
    return sorted(p for p in paths if p.is_file() or (p.is_symlink() and not p.exists()))


@cache
def formats() -> list[str]:
    """Return `FORMATS`, and AVIF and HEIC where this Pillow decodes them.

    On the first call Pillow is set up, for the process: it reads damaged files as far as they
    go, without warnings on their metadata, and leaves the limit on the size to `MAX_PIXELS`.
    """
    Image.init()
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return [*(name for name in ("AVIF", "HEIF") if name in Image.OPEN), *FORMATS]


def open_photo(path: Path) -> Image.Image:
    """Return a photo of one of the `formats`, its header read; ValueError says why it is none."""
    try:
        return Image.open(path, formats=formats())
    except Image.UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise ValueError("empty" if empty else "no photo inside that Pillow reads here") from None


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith(("I", "F")):  # 16 or more bits a pixel: Pillow would clip, not scale
        grey = np.nan_to_num(np.array(photo, dtype=np.float32))
        top = grey.max(initial=0)
        white = next((scale for scale in FULL_SCALES if top <= scale), top)
        grey *= 255 / white
        photo = Image.fromarray(grey.clip(0, 255, out=grey).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return photo.convert("RGB")


def read_photo(path: Path, side: int) -> Image.Image:
    """Return a photo upright in RGB, at least `side` pixels a side if it has them.

    A large JPEG is decoded at a fraction of its size; of a truncated file, what is there is read.
    What cannot be decoded raises nearly any exception, what exceeds `MAX_PIXELS` ValueError.
    """
    with open_photo(path) as photo:
        full = photo.size
        photo.draft("RGB", (side, side))
        # A progressive JPEG is held in memory whole, whatever the size it is decoded to.
        width, height = full if photo.info.get("progressive") else photo.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{full[0]} x {full[1]} pixels are more than can be decoded")
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            photo = ImageOps.exif_transpose(photo)
        return _to_rgb(photo)


# ---- Views: what part of a photo the network sees, and how large -------------------------------

DETAIL = 4  # a large JPEG is decoded at this many times the input's side or more
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the decoded photo


def preprocessing_of(settings: Settings) -> dict[str, Any]:
    """Return the constants of the views, as the checkpoint keeps them."""
    names = ("input_size", "first_size", "box_threshold", "box_margin", "whole_share")
    fixed = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "interpolation": "bilinear"}
    return {name: getattr(settings, name) for name in names} | fixed


def read_pixels(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """Return the decoded photo (3, H, W), uint8, with detail enough for a crop; see `decode`."""
    photo = read_photo(path, DETAIL * preprocessing["input_size"])
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def crop_and_resize(
    pixels: Tensor, box: Box, size: tuple[int, int], preprocessing: Mapping[str, Any]
) -> Tensor:
    """Return what lies in a box of the photo (3, H, W), at a size in pixels: (3, *size), uint8.

    Every input of the network comes from here: in training, validation and `classify`.
    """
    left, top, right, bottom = box
    part = pixels[:, top:bottom, left:right]
    if part.shape[1:] == size:
        return part
    mode = preprocessing["interpolation"]
    return functional.interpolate(part[None], size, mode=mode, antialias=True)[0]


def normalise(views: Sequence[Tensor], preprocessing: Mapping[str, Any]) -> Tensor:
    """Return views (3, H, W), uint8, as a batch (B, 3, H, W), float32, mean 0 and deviation 1."""
    std, mean = (
        torch.tensor(preprocessing[name], dtype=torch.float32).view(3, 1, 1)
        for name in ("std", "mean")
    )
    x = torch.stack(tuple(views)).contiguous(memory_format=torch.channels_last).float()
    return x.mul_(1 / (255 * std)).sub_(mean / std)


def whole_size(pixels: Tensor, preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """Return the size (h, w) of a whole photo (3, H, W) in the first stage: hardly distorted."""
    height, width = pixels.shape[1:]
    short = preprocessing["first_size"]
    longer = max(height, width) / min(height, width)
    long = min(round(short * longer / 32) * 32, 2 * short)  # the network halves maps five times
    return (short, long) if width > height else (long, short)


# ---- Where the bird is -------------------------------------------------------------------------

Head = tuple[Tensor, Tensor]  # weight (classes, C) and bias (classes,) of a linear layer
TINY = 64  # pixels of the short side, below which cropping shows nothing more


def class_activation_map(maps: Tensor, head: Head) -> Tensor:
    """Return how much each place of feature maps (C, h, w) speaks for the likeliest classes: (h, w).

    The linear head, applied at each place instead of to the average (Zhou et al., Learning Deep
    Features for Discriminative Localization, CVPR 2016); the five best classes by probability.
    """
    shares = functional.softmax(functional.linear(maps.mean((1, 2)), *head), 0)
    best = shares.topk(min(5, len(shares)))
    cam = torch.einsum("c,chw->hw", best.values @ head[0][best.indices], maps)
    return cam - cam.min()


def localise(cam: Tensor, pixels: Tensor, preprocessing: Mapping[str, Any]) -> Box:
    """Return the square of the photo (3, H, W) around the peak of a class activation map (h, w).

    It holds the connected region above the threshold in which the peak lies. The whole photo
    where that is tiny, or the map flat.
    """
    height, width = pixels.shape[1:]
    if min(height, width) < TINY or not cam.max() > 1e-6:
        return 0, 0, width, height
    region = _region_of_peak(cam, preprocessing["box_threshold"])
    rows, columns = (region.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom = (edge * height / cam.shape[0] for edge in (rows[0], rows[-1] + 1))
    left, right = (edge * width / cam.shape[1] for edge in (columns[0], columns[-1] + 1))
    side = max(right - left, bottom - top) * (1 + 2 * preprocessing["box_margin"])
    side = min(round(side), height, width)
    x = clamped_offset((left + right) / 2, side, width)
    y = clamped_offset((top + bottom) / 2, side, height)
    return x, y, x + side, y + side


def _region_of_peak(cam: Tensor, threshold: float) -> Tensor:
    """Return the places (h, w) connected with the peak, diagonals included, above the threshold."""
    above = cam >= threshold * cam.max()
    region, before = cam == cam.max(), None
    while before is None or not torch.equal(region, before):
        before = region
        grown = functional.max_pool2d(region[None].float(), 3, stride=1, padding=1)[0]
        region = (grown > 0) & above
    return region


def clamped_offset(middle: float, side: int, length: int) -> int:
    """Return where a side around `middle` begins so that it lies within a photo of this length."""
    return min(max(round(middle - side / 2), 0), length - side)


# ---- Prediction in two stages ------------------------------------------------------------------

VIEWS = (("whole", False), ("crop", False), ("crop", True), ("whole", True))  # part, mirrored?


@dataclass(frozen=True)
class Prediction:
    """What the network computed of a photo."""

    logits: Tensor  # (classes,), averaged over the views
    view_logits: Tensor  # (views, classes): of as many of `VIEWS` as were computed
    cam: Tensor  # (h, w): class activation map of the whole photo, from 0
    box: Box  # where the bird is


def average_logits(view_logits: Tensor, whole_share: float) -> Tensor:
    """Return the weighted mean (classes,) of the first rows of `VIEWS` (views, classes).

    The whole photo and its mirror image together count `whole_share` of it, the crops the rest.
    """
    parts = [part for part, _ in VIEWS[: len(view_logits)]]
    shares = {"whole": whole_share, "crop": 1 - whole_share}
    weights = torch.tensor([shares[p] / parts.count(p) for p in parts], dtype=view_logits.dtype)
    return weights / weights.sum().clamp(min=1e-6) @ view_logits


class TwoStagePredictor:
    """A network applied to the whole photo, then to the bird, as often as confidence needs.

    The views are computed one after the other until `is_confident` of the averaged logits
    (classes,). A prediction depends on the photo alone, not on others or the number of threads.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        head: Head,
        preprocessing: Mapping[str, Any],
        is_confident: Callable[[Tensor], bool] = lambda logits: False,
    ) -> None:
        self.features, self.head, self.preprocessing = features, head, preprocessing
        self.is_confident = is_confident

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Prediction:
        """Predict the class of a photo (3, H, W), uint8."""
        whole, side = (0, 0, pixels.shape[2], pixels.shape[1]), self.preprocessing["input_size"]
        views = {"whole": (whole, whole_size(pixels, self.preprocessing))}
        rows: list[Tensor] = []
        for part, mirrored in VIEWS:
            view = crop_and_resize(pixels, *views[part], self.preprocessing)
            view = view.flip(2) if mirrored else view
            maps = self.features(normalise([view], self.preprocessing))[0].float()  # (C, h, w)
            rows.append(functional.linear(maps.mean((1, 2)), *self.head))  # (C,) -> (classes,)
            if len(rows) == 1:
                cam = class_activation_map(maps, self.head)
                views["crop"] = localise(cam, pixels, self.preprocessing), (side, side)
            logits = average_logits(torch.stack(rows), self.preprocessing["whole_share"])
            if self.is_confident(logits):
                break
        return Prediction(logits, torch.stack(rows), cam, views["crop"][0])


# ---- Random views for training -----------------------------------------------------------------


def random_view(pixels: Tensor, bird: Box, settings: Settings, generator: random.Random) -> Tensor:
    """Return a random square around the bird of a photo (3, H, W): (3, side, side), uint8.

    Of any scale from the bird's box to the whole photo, on a logarithmic scale, so that those of
    both stages are equally likely; mirrored or not, with other light and colours.
    """
    from torchvision.transforms.v2 import functional as transforms

    box = _random_box(pixels, bird, settings, generator)
    size = (settings.input_size, settings.input_size)
    view = crop_and_resize(pixels, box, size, preprocessing_of(settings))
    view = view.flip(2) if generator.random() < 0.5 else view
    strength = settings.colour_jitter
    for adjust in (
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
    ):
        view = adjust(view, generator.uniform(1 - strength, 1 + strength))
    return view


def _random_box(pixels: Tensor, bird: Box, settings: Settings, generator: random.Random) -> Box:
    (left, top, right, bottom), (height, width) = bird, pixels.shape[1:]
    largest = min(height, width)
    smallest = min(settings.tightest_crop * max(right - left, bottom - top), 0.95 * largest)
    side = math.exp(generator.uniform(math.log(smallest), math.log(largest)))
    stretch = settings.crop_stretch ** generator.uniform(-0.5, 0.5)
    w, h = min(max(1, round(side * stretch)), width), min(max(1, round(side / stretch)), height)
    x = random_offset_covering(left, right, w, width, generator)
    y = random_offset_covering(top, bottom, h, height, generator)
    return x, y, x + w, y + h


def random_offset_covering(
    start: int, end: int, side: int, length: int, generator: random.Random
) -> int:
    """Return a random start of a side that covers start to end, or, if shorter, lies within it."""
    low, high = sorted((end - side, start))
    return generator.randint(*(min(max(edge, 0), length - side) for edge in (low, high)))


# ---- Work on several photos at a time ----------------------------------------------------------


def map_in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield `work(item)` of each item, in order, computed on as many threads as torch has.

    Each thread computes on one core: different photos keep the cores busier than parts of one
    photo, after each layer of which they wait. Few items are pending, so memory is bounded.
    """
    count, pending = torch.get_num_threads(), deque[Future]()
    try:
        with ThreadPoolExecutor(count, "photos", torch.set_num_threads, (1,)) as pool:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        torch.set_num_threads(count)  # for the threads that start later


# ---- Labels and split --------------------------------------------------------------------------


def _checked_labels(train_gt: Mapping[str, int]) -> dict[str, int]:
    if not train_gt:
        raise SubmissionError("no labels to train on: train_gt is empty; check train/gt.csv")
    try:
        return {name: operator.index(train_gt[name]) for name in sorted(train_gt)}
    except TypeError:
        raise SubmissionError("class ids must be integers: check train/gt.csv") from None


def split_photos(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return indices of training and validation photos by their classes (N,), stratified.

    A class of one photo stays in training; with no class of two there is no validation: None.
    """
    from sklearn.model_selection import train_test_split

    several = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(several) == 0:
        return np.arange(len(labels)), None
    size, of = max(round(share * len(several)), len(set(labels[several]))), labels[several]
    _, validation = train_test_split(several, test_size=size, stratify=of, random_state=seed)
    return np.setdiff1d(np.arange(len(labels)), validation), np.sort(validation)


# ---- Weights from files ------------------------------------------------------------------------


def load_file(path: Path) -> dict[str, Any]:
    """Return what torch.save wrote to `path`: tensors and plain values, nothing is executed.

    Raises SubmissionError if there is no such file, or if it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SubmissionError(f"no file {path}: `python train_full.py` makes the model") from None
    except PermissionError:
        raise SubmissionError(f"no permission to read {path}: change its permissions") from None
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        raise SubmissionError(
            f"{path} cannot be read ({type(error).__name__}): truncated, or no checkpoint; copy it "
            "again, or delete it: `python train_full.py` gets the weights or makes the model"
        ) from None
    if not isinstance(content, dict):
        raise SubmissionError(f"{path} holds no checkpoint but a {type(content).__name__}")
    return content


def weights_file(weights: str) -> Path:
    """Return the file of `Settings.weights`, there or not: torch's cache, for torchvision's names."""
    from torchvision.models import MobileNet_V2_Weights as Published

    if weights not in Published.__members__:
        return Path(weights)
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(Published[weights].url).name


def load_pretrained(network: BirdNet, weights: str) -> Head:
    """Load a pretrained backbone into `network`; return the linear head that came with it.

    torchvision, timm and this file name the same tensors differently, but in the same order.
    Raises SubmissionError if there are no such weights, or not of this architecture.
    """
    if weights.startswith("mobilenetv2_100."):
        import timm  # imported late: it takes seconds

        source, state = weights, timm.create_model(weights, pretrained=True).state_dict()
    elif (source := weights_file(weights)).exists():
        content = load_file(source)
        state = content.get("state_dict", content)
    else:
        raise SubmissionError(
            f"no pretrained weights: put {source.name} into {source.parent} (torch's cache is "
            "$TORCH_HOME/hub/checkpoints), or start from a trained model with --init CHECKPOINT"
        )
    own, given = (
        {name: tensor for name, tensor in tensors.items() if not name.endswith("_tracked")}
        for tensors in (network.features.state_dict(), state)
    )
    *backbone, weight, bias = [*given.values(), None, None][: len(own) + 2]
    if [tensor.shape for tensor in own.values()] != [getattr(t, "shape", 0) for t in backbone]:
        raise SubmissionError(
            f"{source} does not hold the weights of a MobileNetV2: replace or delete it"
        )
    network.features.load_state_dict(dict(zip(own, backbone, strict=True)), strict=False)
    return weight, bias


# ---- Training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Readable photos with their classes, and where the pretrained network sees a bird."""

    paths: list[Path]
    labels: Tensor  # (photos,): columns of the logits
    boxes: list[Box]


@dataclass(frozen=True)
class Validation:
    """What the network of the validation run predicts on photos that it was not trained on."""

    photos: list[str]  # names
    labels: Tensor  # (N,): columns of the logits
    predictions: list[Prediction]  # with all views


def training_precision(settings: Settings) -> torch.dtype:
    """Return what the steps of training are computed in.

    Mixed precision as in Micikevicius et al., ICLR 2018, with bfloat16 where the processor and
    ONEDNN_MAX_CPU_ISA have it: weights, average and `classify` stay in float32.
    """
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    wanted = settings.bfloat16 and in_hardware() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if wanted else torch.float32


def predict_photos(
    paths: Iterable[Path], predictor: TwoStagePredictor
) -> Iterator[Prediction | Exception]:
    """Yield the prediction of each photo, or the reason why it cannot be decoded."""

    def predict(path: Path) -> Prediction | Exception:
        try:
            return predictor(read_pixels(path, predictor.preprocessing))
        except Exception as error:  # see `read_photo`; a missing answer fails the whole test
            return error

    return map_in_threads(predict, paths)


def locate_birds(
    network: BirdNet, head: Head, paths: Sequence[Path], settings: Settings
) -> dict[Path, Box]:
    """Return where the pretrained network, with the head that came with it, sees a bird.

    Photos that cannot be read are left out, with a warning.
    """
    features = for_inference(network.features, training_precision(settings))
    whole_only = TwoStagePredictor(features, head, preprocessing_of(settings), lambda logits: True)
    boxes = {}
    for path, prediction in zip(paths, predict_photos(paths, whole_only), strict=True):
        if isinstance(prediction, Exception):
            _warn(f"left out of training: {path} ({prediction})")
        else:
            boxes[path] = prediction.box
    return boxes


def optimiser_of(network: BirdNet, settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, 2019) with a learning rate for each trained block.

    It falls from block to block towards the input: early features are general, and spoilt most
    easily (Howard and Ruder, ULMFiT, ACL 2018, section 3.2). Biases and norms do not decay.
    """
    rates = [(network.head, settings.head_learning_rate)]
    for above, block in enumerate(reversed(network.features[-settings.unfrozen_blocks :])):
        rates.append((block, settings.backbone_learning_rate * settings.layer_decay**above))
    groups = []
    for (part, rate), decays in itertools.product(rates, (True, False)):
        weights = [p for p in part.parameters() if (p.ndim > 1) == decays]
        decay = settings.weight_decay if decays else 0.0
        groups.append({"params": weights, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups)


def rate_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the share of the learning rates at a step, from 0: linear warm-up, half a cosine.

    The weights are averaged, which does what decay to zero otherwise does (Izmailov et al.,
    2018), so the cosine (Loshchilov and Hutter, 2017) ends above it.
    """
    warmup = settings.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    cosine = 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup))
    return settings.final_rate + (1 - settings.final_rate) * cosine


class TrainingRun:
    """One training of a network's last blocks and head, from the pretrained weights."""

    CHUNK = 8  # photos of a batch that one thread works on; fixed, so that sums are repeatable

    def __init__(self, network: BirdNet, sample: Sample, settings: Settings) -> None:
        self.network, self.sample, self.settings = network, sample, settings
        self.preprocessing, self.dtype = preprocessing_of(settings), training_precision(settings)
        first = len(network.features) - settings.unfrozen_blocks  # block that is trained
        network.requires_grad_(False)
        self.blocks = network.features[first:].requires_grad_(True)
        network.head.requires_grad_(True)
        self.frozen = for_inference(network.features[:first], self.dtype)
        self.average = copy.deepcopy(network)

    def fit(
        self,
        stage: str,
        train: np.ndarray,
        on_epoch: Callable[[EpochRow], None],
        held_out: np.ndarray | None = None,
    ) -> None:
        """Train on photos (indices); report each epoch, with a validation on those held out.

        The network ends with the moving average of its weights.
        """
        settings, size = self.settings, min(self.settings.batch_size, len(train))
        batches = len(train) // size  # full ones; who is left over changes from epoch to epoch
        optimiser = optimiser_of(self.network, settings)
        factor = partial(rate_factor, steps=settings.epochs * batches, settings=settings)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        for epoch in range(1, settings.epochs + 1):
            start, loss, hits = time.perf_counter(), 0.0, 0
            order = np.random.default_rng([settings.seed, epoch]).permutation(train)
            for batch in order[: batches * size].reshape(batches, size):
                losses, correct = self._backward(batch, epoch)
                optimiser.step()
                scheduler.step()
                self._update_average(scheduler.last_epoch)
                loss, hits = loss + losses, hits + correct
            measured = (None, None) if held_out is None else self._validated(held_out)
            rate, seconds = optimiser.param_groups[0]["lr"], time.perf_counter() - start
            shown, of = batches * size, settings.epochs
            on_epoch(
                EpochRow(stage, epoch, of, loss / shown, hits / shown, *measured, rate, seconds)
            )
        self.network.load_state_dict(self.average.state_dict())
        self.network.eval()

    def _backward(self, batch: np.ndarray, epoch: int) -> tuple[float, int]:
        """Compute the gradients of a batch: the sum of its losses, and how many were right.

        Batch norm keeps ImageNet's statistics: batches of few photos would give worse ones.
        """
        folded, head = fold(self.blocks), list(self.network.head.parameters())
        tensors = [t for parts, _ in folded for part in parts for t in (part.weight, part.bias)]
        chunks = np.split(batch, range(self.CHUNK, len(batch), self.CHUNK))
        work = partial(self._chunk_gradients, folded, head, epoch)
        losses, hits, *gradients = zip(*map_in_threads(work, chunks), strict=True)
        self.network.zero_grad()
        means = [sum(of_chunks) / len(batch) for of_chunks in gradients]
        torch.autograd.backward([*tensors, *head], means)
        return sum(losses), sum(hits)

    def _chunk_gradients(
        self, folded: list[FoldedBlock], head: list[Tensor], epoch: int, chunk: np.ndarray
    ) -> list[Any]:
        """Return the sum of the losses, the number of hits, the gradients of all tensors."""
        settings, sample, views = self.settings, self.sample, []
        for index in chunk.tolist():
            generator = random.Random(f"seed {settings.seed} epoch {epoch} photo {index}")
            pixels = read_pixels(sample.paths[index], self.preprocessing)
            views.append(random_view(pixels, sample.boxes[index], settings, generator))
        leaves: list[Tensor] = []

        def leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
            leaves.append(tensor.detach().to(dtype).requires_grad_())
            return leaves[-1]

        x = self.frozen(normalise(views, self.preprocessing))  # (B, 3, H, W) -> (B, C, h, w)
        x = run_folded(with_weights(folded, partial(leaf, dtype=self.dtype)), x)
        x = x.float().mean((2, 3))  # (B, 1280, H/32, W/32) -> (B, 1280)
        logits = functional.linear(x, *(leaf(tensor, torch.float32) for tensor in head))
        labels = sample.labels[chunk]
        loss = functional.cross_entropy(
            logits, labels, label_smoothing=settings.label_smoothing, reduction="sum"
        )
        gradients = [gradient.float() for gradient in torch.autograd.grad(loss, leaves)]
        return [loss.item(), int((logits.argmax(1) == labels).sum()), *gradients]

    @torch.no_grad()
    def _update_average(self, steps: int) -> None:
        """Move the average towards the weights (Polyak and Juditsky, 1992), at first faster."""
        decay = min(self.settings.average_decay, 1 - (1 + steps) ** -0.9)
        weights = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for average, weight in weights:
            if weight.requires_grad:
                average.lerp_(weight, 1 - decay)

    def _validated(self, held_out: np.ndarray) -> tuple[float, float]:
        """Return loss and accuracy of the average on photos, by the whole photos alone."""
        features = for_inference(self.average.features, self.dtype)
        head = self.average.head.weight.detach(), self.average.head.bias.detach()
        whole_only = TwoStagePredictor(features, head, self.preprocessing, lambda logits: True)
        paths = [self.sample.paths[index] for index in held_out]
        logits = torch.stack([p.logits for p in predict_photos(paths, whole_only)])
        labels = self.sample.labels[held_out]
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return functional.cross_entropy(logits, labels).item(), accuracy


def validate(
    network: BirdNet, sample: Sample, settings: Settings, on_epoch: Callable[[EpochRow], None]
) -> Validation | None:
    """Train `network` without some photos; return what it predicts on those, as `classify` does."""
    train, held_out = split_photos(sample.labels.numpy(), settings.validation_share, settings.seed)
    if held_out is None:
        _warn("no species has two photos: nothing to validate on, training on all of them")
        return None
    TrainingRun(network, sample, settings).fit(VALIDATION_RUN, train, on_epoch, held_out)
    predictor = Classifier(to_checkpoint(network, settings)).predictor
    paths = [sample.paths[index] for index in held_out]
    predictions = list(predict_photos(paths, predictor))
    return Validation([path.name for path in paths], sample.labels[held_out], predictions)


@contextmanager
def standard_torch(seed: int = 0) -> Iterator[None]:
    """Compute as a fresh torch does, whatever the caller set: mode, precision, device, seed."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would visit accelerators
        yield


def train_classifier(
    train_gt: Mapping[str, int],
    train_img_dir: str | Path,
    fast_train: bool = False,
    *,
    settings: Settings | None = None,
    class_names: Mapping[int, str] | None = None,
    on_epoch: Callable[[EpochRow], None] = lambda row: None,
) -> BirdNet:
    """Fine-tune MobileNetV2 on labelled photos.

    Args:
        train_gt: class id (any integer) of each photo, by file name.
        train_img_dir: the folder with the photos.
        fast_train: one epoch of two batches, from random weights if there are no pretrained ones.
        settings: how to train.
        class_names: names for people, by class id.
        on_epoch: called after each epoch.

    Returns:
        The network in evaluation mode, on the CPU, trained on all photos. Its `validation` holds
        what the same settings predict on photos kept out of a first run.

    Raises:
        SubmissionError: no labels, no readable photo, no pretrained weights.
    """
    gt, settings = _checked_labels(train_gt), settings or Settings()
    class_ids, names = sorted(set(gt.values())), list(gt)
    if fast_train:
        random.Random(settings.seed).shuffle(names)
        names, settings = sorted(names[:FAST_TRAIN_PHOTOS]), replace(settings, epochs=1)
    with standard_torch(settings.seed):
        species = [class_names.get(i, str(i)) for i in class_ids] if class_names else None
        network = BirdNet(class_ids, species, settings.seed)
        head: Head = network.head.weight.detach(), network.head.bias.detach()
        try:
            head = load_pretrained(network, settings.weights)
        except SubmissionError:
            if not fast_train:  # whose network is thrown away
                raise
        paths = [Path(train_img_dir) / name for name in names]
        boxes = locate_birds(network, head, paths, settings)
        if not boxes:
            raise SubmissionError(f"no readable photo in {train_img_dir}: check the folder's path")
        labels = torch.tensor([class_ids.index(gt[path.name]) for path in boxes])  # (photos,)
        sample = Sample(list(boxes), labels, list(boxes.values()))
        validation = validate(copy.deepcopy(network), sample, settings, on_epoch)
        everything = np.arange(len(labels))
        TrainingRun(network, sample, settings).fit(FINAL_RUN, everything, on_epoch)
    network.settings, network.validation = settings, validation
    network.metadata = {"fallback_class": Counter(gt.values()).most_common(1)[0][0]}
    return network


# ---- The checkpoint: tensors and plain values that describe themselves -------------------------

FORMAT, FORMAT_VERSION = "birds-mobilenet-v2", 4


def to_checkpoint(network: BirdNet, settings: Settings) -> dict[str, Any]:
    """Return what `torch.save` is to write as birds_model.pt, of a network trained with `settings`.

    `network.metadata` may replace each value: `train_full.py` calibrates, and adds how it trained.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_ids": network.class_ids,
        "class_names": network.class_names,
        "preprocessing": preprocessing_of(settings),
        "settings": asdict(settings),
        "fallback_class": network.class_ids[0],
        "temperature": 1.0,  # divides the logits, for calibrated probabilities
        "early_exit": 1.0,  # the probability that makes further views superfluous; 1: none does
        "confidence_threshold": 0.0,  # predictions of a lower probability are uncertain
        "state_dict": {k: v.contiguous() for k, v in network.state_dict().items()},
        **network.metadata,
    }


def load_classifier(model_path: str | Path) -> Classifier:
    """Return the network of a checkpoint, ready to classify.

    Raises SubmissionError, and executes nothing, if the file is missing, damaged or foreign.
    """
    checkpoint, remedy = load_file(Path(model_path)), "make one with `python train_full.py`"
    if (checkpoint.get("format"), checkpoint.get("format_version")) != (FORMAT, FORMAT_VERSION):
        kind = f"{FORMAT} checkpoint of version {FORMAT_VERSION}"
        raise SubmissionError(f"{model_path} is no {kind}: {remedy}")
    try:
        return Classifier(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise SubmissionError(f"{model_path} is damaged, its parts do not fit: {remedy}") from None


# ---- Classification ----------------------------------------------------------------------------


class Classifier:
    """The network of a checkpoint, ready for photos."""

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        self.checkpoint, state = checkpoint, checkpoint["state_dict"]
        self.class_ids: list[int] = checkpoint["class_ids"]
        self.fallback_class: int = checkpoint["fallback_class"]
        names = checkpoint["class_names"]
        self.class_names: list[str] = names or [f"class {class_id}" for class_id in self.class_ids]
        self.temperature: float = checkpoint["temperature"]
        self.early_exit: float = checkpoint["early_exit"]
        self.confidence_threshold: float = checkpoint["confidence_threshold"]
        if any(v.dtype == torch.half or not v.isfinite().all() for v in state.values()):
            raise ValueError("weights in half precision, or that are no numbers")
        with standard_torch():
            network = BirdNet(self.class_ids)
            network.load_state_dict(state)
            head = network.head.weight.detach(), network.head.bias.detach()
            self.predictor = TwoStagePredictor(
                for_inference(network.features),
                head,
                checkpoint["preprocessing"],
                self.is_confident,
            )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities of logits (..., classes)."""
        return functional.softmax(logits / self.temperature, -1)

    def is_confident(self, logits: Tensor) -> bool:
        """Return whether further views of a photo with logits (classes,) are superfluous."""
        return bool(self.probabilities(logits).max() > self.early_exit)


def classify(model_path: str | Path, test_img_dir: str | Path) -> dict[str, int]:
    """Return the class id of every photo in a folder, by file name.

    A photo that cannot be decoded gets the most frequent class of the training photos, and a line
    on stderr. Raises SubmissionError: no such folder; the model is missing, damaged or foreign.
    """
    classifier, answers, undecoded = load_classifier(model_path), {}, 0
    photos = list_photos(test_img_dir)
    predictions = predict_photos(photos, classifier.predictor)
    for path, prediction in zip(photos, predictions, strict=True):
        if isinstance(prediction, Exception):
            undecoded += 1
            _warn(f"cannot be decoded, answered as the most frequent class: {path} ({prediction})")
            answers[path.name] = classifier.fallback_class
        else:
            answers[path.name] = classifier.class_ids[int(prediction.logits.argmax())]
    if undecoded:
        _warn(f"{undecoded} of {len(answers)} photos cannot be decoded: the lines above say why")
    return answers
