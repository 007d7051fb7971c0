"""Tell bird species apart: MobileNetV2, fine-tuned on a CPU, sees the photo and then the bird.

0.88 on photos of 50 look-alike species, 22 of each trained on; times: docs/performance.md.

The testing system calls train_classifier(train_gt, train_img_dir, fast_train), which returns the
trained network, and classify(model_path, test_img_dir), which returns {file name: class id}.
Nothing here writes to disk, opens a socket, starts a process or touches an accelerator. How:

    1. Two stages. The network sees the whole photo; its class activation map says where the bird
       is. Then it sees that square, and mirror images of both, until it is confident.
    2. Training sees random squares of every scale around the place where the map of the pretrained
       network sees the bird. The last blocks and a new linear head are trained, the earlier ones
       more slowly: on four fifths of the photos, to validate on the rest; then, anew, on all.
"""

from __future__ import annotations

import copy
import math
import operator
import random
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

# ---- Settings, errors, progress ----------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How to train and to predict. What was tried on folds of the sample: docs/experiments.md."""

    weights: str = "IMAGENET1K_V1"  # torchvision's name, timm's, or a checkpoint file
    input_size: int = 320  # pixels a side of a square view; costs its square in time
    first_size: int = 320  # pixels of the short side of the whole photo in the first stage
    box_threshold: float = 0.6  # of the map's maximum: places above it belong to the bird
    box_margin: float = 0.25  # added on each side of the bird, as a share of the box
    whole_share: float = 0.4  # of the whole photo in the averaged logits; the crop sees more
    unfrozen_blocks: int = 12  # of the 19 blocks of `features`, counted from the end
    epochs: int = 16  # more gain little, and cost in proportion
    batch_size: int = 32  # photos
    head_learning_rate: float = 3e-3
    backbone_learning_rate: float = 1e-3  # of the last block; smaller, or it forgets ImageNet
    layer_decay: float = 0.75  # of the learning rate from each block to the one before it
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    final_rate: float = 0.5  # share of the rates left at the end; averaged weights need no zero
    weight_decay: float = 0.02  # AdamW, on weights of convolutions and head only
    label_smoothing: float = 0.1
    tightest_crop: float = 0.8  # the smallest random square, as a share of the bird's box
    crop_stretch: float = 1.27  # the most that a random crop is wider than high, or the reverse
    colour_jitter: float = 0.3  # of brightness, contrast and saturation
    cutmix: float = 0.5  # the chance that photos get a rectangle, and its share, of another photo
    class_balance: float = 0.5  # logit adjustment (Menon et al., 2021), as tests are balanced
    average_decay: float = 0.998  # of the moving average of the weights, per step, in the end
    validation_share: float = 0.2
    seed: int = 0


FAST_TRAIN_PHOTOS = 64  # of `fast_train`: two batches
VALIDATION_RUN, FINAL_RUN = "validation run", "final run"


class SubmissionError(Exception):
    """A mistake that the user can correct; its text is one line with cause, file and remedy."""

    user_facing = True  # one line, no traceback: see course/cli.py


@dataclass(frozen=True)
class EpochRow:
    """One row of the training table; losses in nats, accuracies and rates as fractions."""

    stage: str  # VALIDATION_RUN or FINAL_RUN
    epoch: int  # from 1
    loss: float  # on random views, with smoothed labels, so higher than on plain photos
    accuracy: float  # on the same views
    learning_rate: float  # of the head, at the end of the epoch
    seconds: float
    val_loss: float | None = None  # of the averaged weights on validation photos,
    val_accuracy: float | None = None  # by the whole photo alone


OnEpoch = Callable[[EpochRow], None]


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


# ---- The network -------------------------------------------------------------------------------

# MobileNetV2 (Sandler et al., CVPR 2018, Table 2): channels before and after each inverted residual
CHANNELS = (32, 16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)
HALVING = (2, 4, 7, 14)  # the blocks that halve height and width, as the first convolution does


def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    """Return a layer from (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, 1, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand the channels, filter each of them, project; tensors are named as torchvision's."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [convolution(inputs, hidden, 1, 1, 1)] if expansion > 1 else []
        project = convolution(hidden, outputs, 1, 1, 1)[:2]  # without ReLU6
        self.conv = nn.Sequential(*expand, convolution(hidden, hidden, 3, stride, hidden), *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class BirdNet(nn.Module):
    """MobileNetV2, global average pooling, linear head; importing torchvision's takes 150 MB."""

    def __init__(self, class_ids: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(convolution(3, 32, 3, 2, 1))
        for index, channels in enumerate(pairwise(CHANNELS), 1):
            stride, expansion = 1 + (index in HALVING), 6 if index > 1 else 1
            self.features.append(InvertedResidual(*channels, stride, expansion))
        self.features.append(convolution(320, 1280, 1, 1, 1))
        self.head = nn.Linear(1280, len(class_ids))
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)
        self.class_ids = list(class_ids)  # of the logits' columns
        self.class_names: list[str] | None = None  # for people
        self.metadata: dict[str, Any] = {}  # what the checkpoint says of the training
        self.validation: Validation | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of normalised photos (B, 3, H, W) of any size."""
        x = self.features(x).mean((2, 3))  # (B, 3, H, W) -> (B, 1280, H/32, W/32) -> (B, 1280)
        return self.head(x)  # (B, 1280) -> (B, classes)


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch norm after it folded in, then ReLU6 or nothing."""

    weight: Tensor  # (out, in / groups, k, k)
    bias: Tensor  # (out,)
    geometry: tuple[int, int, int]  # stride, padding, groups
    relu6: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, out, H / stride, W / stride)."""
        stride, padding, groups = self.geometry
        # oneDNN's gradient of a strided depthwise convolution takes 15 times as long as that of one
        # without stride: it is faster to throw away most of the output.
        dense = stride > 1 and groups > 1 and x.requires_grad
        y = functional.conv2d(x, self.weight, self.bias, 1 if dense else stride, padding, 1, groups)
        if dense:
            y = y[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last)
        return functional.hardtanh(y, 0.0, 6.0, inplace=True) if self.relu6 else y


FoldedBlock = tuple[list[Convolution], bool]  # the bool: is the block's input added to its output?


def fold(blocks: Iterable[nn.Module], dtype: torch.dtype) -> list[FoldedBlock]:
    """Return the blocks in `dtype`, each batch norm folded into the convolution before it.

    In evaluation mode batch norm is an affine map per channel (Jacob et al., CVPR 2018, 3.2).
    Differentiable: gradients reach convolutions, gains and shifts, but no running statistics.
    """
    folded = []
    for block in blocks:
        convolutions: list[Convolution] = []
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                conv = module
            elif isinstance(module, nn.BatchNorm2d):
                norm = dict(module.named_parameters()) | dict(module.named_buffers())  # each (out,)
                scale = norm["weight"] * torch.rsqrt(norm["running_var"] + module.eps)
                weight = conv.weight * scale.view(-1, 1, 1, 1)
                weight = weight.to(dtype, memory_format=torch.channels_last)
                bias = (norm["bias"] - norm["running_mean"] * scale).to(dtype)
                geometry = conv.stride[0], int(conv.padding[0]), conv.groups
                convolutions.append(Convolution(weight, bias, geometry))
            elif isinstance(module, nn.ReLU6):
                convolutions[-1] = replace(convolutions[-1], relu6=True)
        folded.append((convolutions, getattr(block, "residual", False)))
    return folded


def run_folded(folded: Iterable[FoldedBlock], x: Tensor) -> Tensor:
    """Apply folded blocks to x (B, C, H, W), channels last, of their precision."""
    for convolutions, residual in folded:
        y = x
        for convolution in convolutions:
            y = convolution(y)
        x = x + y if residual else y
    return x


def working_precision() -> torch.dtype:
    """Return bfloat16 where the processor has it: twice as fast (Micikevicius et al., 2018)."""
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    wanted = in_hardware() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if wanted else torch.float32


# ---- Photos, and which part of them the network sees ------------------------------------------

# Recognised by content, whatever the name; TGA last, as nothing marks its beginning. No others: for
# an EPS file under a photo's name Pillow would start Ghostscript.
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "ICO", "PCX"]
FORMATS += ["PSD", "SGI", "QOI", "DDS", "TGA"]
# What is plainly something else than a photo, as hidden files are. All others may be photos.
OTHER_SUFFIXES = {".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".html", ".db", ".ini"}
OTHER_SUFFIXES |= {".py", ".pt", ".zip"}
FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)  # white, by the brightest value that is there
MAX_PIXELS = 40_000_000  # decoded; 160 MB as RGBA. JPEG files are drafted, so far larger ones pass


def may_be_photo(name: str) -> bool:
    """Return whether a file of this name is tried as a photo; then its content decides."""
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
    """Return the formats that Pillow has; make it, on the first call, read damaged files too."""
    Image.init()
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, None
    return [*(name for name in ("AVIF", "HEIF") if name in Image.OPEN), *FORMATS]


def open_photo(path: Path) -> Image.Image:
    """Return a photo of one of the `formats`, its header read; ValueError says why it is none."""
    if "PIL" not in str(warnings.filters[:1]):  # at first, and when a caller's come before it
        warnings.filterwarnings("ignore", module=r"PIL\.")  # such as those about damaged EXIF data
    try:
        return Image.open(path, formats=formats())
    except Image.UnidentifiedImageError:
        raise ValueError("no photo that Pillow reads" if path.stat().st_size else "empty") from None


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


TINY = 64  # pixels of the short side, below which cropping shows nothing more
DETAIL = 4  # a large JPEG is decoded at this many times the input's side or more
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the decoded photo


def preprocessing_of(settings: Settings) -> dict[str, Any]:
    """Return the constants of the views, as the checkpoint keeps them."""
    names = ("input_size", "first_size", "box_threshold", "box_margin", "whole_share")
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return {name: getattr(settings, name) for name in names} | imagenet


def read_pixels(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """Return the decoded photo (3, H, W), uint8, with detail enough for a crop."""
    photo = read_photo(path, DETAIL * preprocessing["input_size"])
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def crop_and_resize(pixels: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Return a box of the photo (3, H, W), resized: (3, *size), uint8. Every view is made here."""
    left, top, right, bottom = box
    part = pixels[:, top:bottom, left:right]
    return functional.interpolate(part[None], size, mode="bilinear", antialias=True)[0]


def normalise(views: Sequence[Tensor], preprocessing: Mapping[str, Any]) -> Tensor:
    """Return views (3, H, W), uint8, as a batch (B, 3, H, W), float32, mean 0 and deviation 1."""
    x = torch.stack(list(views)).contiguous(memory_format=torch.channels_last).float()
    mean, std = (x.new_tensor(preprocessing[name]).view(3, 1, 1) for name in ("mean", "std"))
    return x.mul_(1 / (255 * std)).sub_(mean / std)


def whole_size(pixels: Tensor, preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """Return the size (h, w) of a whole photo (3, H, W) in the first stage: hardly distorted."""
    (height, width), short = pixels.shape[1:], preprocessing["first_size"]
    ratio = min(2, max(height, width) / min(height, width))
    long = round(short * ratio / 32) * 32  # the network halves maps five times
    return (short, long) if width > height else (long, short)


def class_activation_map(maps: Tensor, head: nn.Linear) -> Tensor:
    """Return where maps (C, h, w) speak for the best five classes: (h, w), Zhou et al. 2016."""
    best = head(maps.mean((1, 2))).softmax(0).topk(min(5, head.out_features))
    cam = torch.einsum("c,chw->hw", best.values @ head.weight[best.indices], maps)
    return cam - cam.min()


def localise(cam: Tensor, pixels: Tensor, preprocessing: Mapping[str, Any]) -> Box:
    """Return the square of a photo (3, H, W) around the peak of its class activation map (h, w)."""
    height, width = pixels.shape[1:]
    if min(height, width) < TINY or not cam.max() > 1e-6:  # the map is flat
        return 0, 0, width, height
    region = _region_of_peak(cam, preprocessing["box_threshold"])
    rows, columns = (region.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom = (edge * height / cam.shape[0] for edge in (rows[0], rows[-1] + 1))
    left, right = (edge * width / cam.shape[1] for edge in (columns[0], columns[-1] + 1))
    side = max(right - left, bottom - top) * (1 + 2 * preprocessing["box_margin"])
    side = min(round(side), height, width)
    x = min(max(round((left + right - side) / 2), 0), width - side)
    y = min(max(round((top + bottom - side) / 2), 0), height - side)
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


# ---- Prediction in two stages ------------------------------------------------------------------

IsConfident = Callable[[Tensor], bool]  # of the logits (classes,) after a view
never, always = (lambda logits: False), (lambda logits: True)
VIEWS = (("whole", False), ("crop", False), ("crop", True), ("whole", True))  # part, mirrored?


def map_in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield `work(item)` of each item, in order, computed on as many threads as torch has.

    Photos side by side, on one core each, keep the cores busier than one photo on all of them.
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


@dataclass(frozen=True)
class Prediction:
    """What the network computed of a photo."""

    logits: Tensor  # (classes,), averaged over the views
    view_logits: Tensor  # (views, classes): of as many of `VIEWS` as were computed
    cam: Tensor  # (h, w): class activation map of the whole photo, from 0
    box: Box  # where the bird is


def average_logits(view_logits: Tensor, whole_share: float) -> Tensor:
    """Return the mean (classes,) of the first `VIEWS` (views, classes); crops count the rest."""
    parts = [part for part, _ in VIEWS[: len(view_logits)]]
    shares = {"whole": whole_share, "crop": 1 - whole_share}
    weights = torch.tensor([shares[p] / parts.count(p) for p in parts], dtype=view_logits.dtype)
    return weights / weights.sum().clamp(min=1e-6) @ view_logits


class TwoStagePredictor:
    """A network applied to `VIEWS` of a photo until it is confident."""

    def __init__(
        self, network: BirdNet, constants: Mapping[str, Any], is_confident: IsConfident = never
    ) -> None:
        self.dtype, self.head = working_precision(), network.head
        self.blocks = fold(network.features, self.dtype)
        self.preprocessing, self.is_confident = constants, is_confident

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction | Exception]:
        """Yield the prediction of each photo, or the reason why it cannot be decoded."""

        def predict(path: Path) -> Prediction | Exception:
            try:
                return self(read_pixels(path, self.preprocessing))
            except Exception as error:  # see `read_photo`; a missing answer fails the whole test
                return error

        return map_in_threads(predict, paths)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Prediction:
        """Predict the class of a photo (3, H, W), uint8."""
        constants, rows = self.preprocessing, list[Tensor]()
        whole, square = (0, 0, pixels.shape[2], pixels.shape[1]), (constants["input_size"],) * 2
        views = {"whole": (whole, whole_size(pixels, constants))}
        for part, mirrored in VIEWS:
            view = crop_and_resize(pixels, *views[part])
            view = view.flip(2) if mirrored else view
            x = normalise([view], constants).to(self.dtype)  # (1, 3, H, W)
            maps = run_folded(self.blocks, x)[0].float()  # (C, h, w)
            rows.append(self.head(maps.mean((1, 2))))  # (C,) -> (classes,)
            if len(rows) == 1:
                cam = class_activation_map(maps, self.head)
                views["crop"] = localise(cam, pixels, constants), square
            logits = average_logits(torch.stack(rows), constants["whole_share"])
            if self.is_confident(logits):
                break
        return Prediction(logits, torch.stack(rows), cam, views["crop"][0])


# ---- Training ----------------------------------------------------------------------------------


def split_photos(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return indices of training and validation photos, stratified by their classes (N,).

    A class of one photo stays in training; with no class of two there is no validation: None.
    """
    from sklearn.model_selection import train_test_split

    several = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(several) == 0:
        return np.arange(len(labels)), None
    size, of = max(round(share * len(several)), len(set(labels[several]))), labels[several]
    _, validation = train_test_split(several, test_size=size, stratify=of, random_state=seed)
    return np.setdiff1d(np.arange(len(labels)), validation), np.sort(validation)


def load_file(path: Path) -> dict[str, Any]:
    """Return what torch.save wrote, if plain values: nothing is executed. Or SubmissionError."""
    remedy = "`python train_full.py` gets weights (or takes others: --init) and makes the model"
    if not path.is_file():  # a pipe would be waited for in vain
        raise SubmissionError(f"no file {path}: {remedy}")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        reason = getattr(error, "strerror", None) or "truncated, or no checkpoint: delete it"
        raise SubmissionError(f"{path} cannot be read, {reason}; {remedy}") from None


def weights_file(weights: str) -> Path:
    """Return the file of `Settings.weights`, there or not: names lie in torch's cache."""
    if Path(weights).suffix in (".pt", ".pth") or Path(weights).exists():
        return Path(weights)
    name = {"IMAGENET1K_V1": "mobilenet_v2-b0353104", "IMAGENET1K_V2": "mobilenet_v2-7ebf99e0"}
    return Path(torch.hub.get_dir(), "checkpoints", f"{name.get(weights, weights)}.pth")


def load_pretrained(network: BirdNet, weights: str) -> nn.Linear:
    """Load a pretrained backbone into `network`; return the linear head that came with it.

    timm has torchvision's tensors in the same order, by other names, so the order decides.
    Raises SubmissionError if there are no such weights, or not of this architecture.
    """
    content = load_file(file := weights_file(weights))
    state = content.get("state_dict", content)
    names = [name for name in network.features.state_dict() if not name.endswith("_tracked")]
    try:
        *backbone, weight, bias = (v for k, v in state.items() if not k.endswith("_tracked"))
        tensors = dict(zip(names, backbone, strict=True))
        network.features.load_state_dict(tensors, strict=False)
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.load_state_dict({"weight": weight, "bias": bias})
    except (ValueError, RuntimeError, AttributeError, IndexError):
        raise SubmissionError(f"{file} holds no MobileNetV2: replace or delete it") from None
    return head.requires_grad_(False)


@dataclass(frozen=True)
class Sample:
    """Readable photos with their classes, and where the pretrained network sees a bird."""

    paths: list[Path]
    labels: Tensor  # (photos,): columns of the logits
    boxes: list[Box]

    def predicted(self, predictor: TwoStagePredictor, indices: np.ndarray) -> list[Prediction]:
        """Return what a network predicts of some of the photos."""
        return cast("list[Prediction]", [*predictor.predict(self.paths[i] for i in indices)])


@dataclass(frozen=True)
class Validation:
    """What the network of the validation run predicts, by all views, on photos new to it."""

    photos: list[str]  # names
    labels: Tensor  # (N,): columns of the logits
    predictions: list[Prediction]


def random_view(pixels: Tensor, bird: Box, settings: Settings, generator: random.Random) -> Tensor:
    """Return a random square around the bird of a photo (3, H, W): (3, side, side), uint8."""
    from torchvision.transforms.v2 import functional as transforms

    box, size = _random_box(pixels, bird, settings, generator), (settings.input_size,) * 2
    view = crop_and_resize(pixels, box, size)
    view = view.flip(2) if generator.random() < 0.5 else view
    for change in ("brightness", "contrast", "saturation"):
        factor = 1 + settings.colour_jitter * generator.uniform(-1, 1)
        view = getattr(transforms, f"adjust_{change}")(view, factor)
    return view


def _random_box(pixels: Tensor, bird: Box, settings: Settings, generator: random.Random) -> Box:
    (left, top, right, bottom), (height, width) = bird, pixels.shape[1:]
    largest = min(height, width)
    smallest = min(settings.tightest_crop * max(right - left, bottom - top), 0.95 * largest)
    side = math.exp(generator.uniform(math.log(smallest), math.log(largest)))
    stretch = settings.crop_stretch ** generator.uniform(-0.5, 0.5)
    w, h = min(max(1, round(side * stretch)), width), min(max(1, round(side / stretch)), height)

    def offset(start: int, end: int, side: int, length: int) -> int:  # covers all, or lies within
        low, high = sorted((end - side, start))
        return generator.randint(*(min(max(edge, 0), length - side) for edge in (low, high)))

    x, y = offset(left, right, w, width), offset(top, bottom, h, height)
    return x, y, x + w, y + h


def cutmix(x: Tensor, targets: Tensor, generator: random.Random) -> tuple[Tensor, Tensor]:
    """Mix photos x (B, 3, side, side), targets (B, classes) by area (Yun et al., ICCV 2019)."""
    side, mixed, other = x.shape[-1], x.clone(), x.flip(0)
    half = round(side * math.sqrt(generator.random()) / 2)
    middles = generator.randrange(side), generator.randrange(side)
    rows, columns = (slice(max(0, middle - half), middle + half) for middle in middles)
    mixed[:, :, rows, columns] = other[:, :, rows, columns]
    share = mixed[0, 0, rows, columns].numel() / side**2
    return mixed, targets.lerp(targets.flip(0), share)


def locate_birds(
    network: BirdNet, head: nn.Linear, paths: Sequence[Path], settings: Settings
) -> dict[Path, Box]:
    """Return where the pretrained network sees a bird; without photos that cannot be read."""
    constants = preprocessing_of(settings)
    whole_only, boxes = TwoStagePredictor(network, constants, always), {}
    whole_only.head = head
    for path, prediction in zip(paths, whole_only.predict(paths), strict=True):
        if isinstance(prediction, Prediction):
            boxes[path] = prediction.box
        else:
            _warn(f"left out of training: {path} ({prediction})")
    return boxes


def optimiser_of(network: BirdNet, settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, 2019); rates fall towards the input (Howard, 2018)."""
    rates: list[tuple[nn.Module, float]] = [(network.head, settings.head_learning_rate)]
    for above, block in enumerate(reversed(network.features[-settings.unfrozen_blocks :])):
        rates.append((block, settings.backbone_learning_rate * settings.layer_decay**above))
    groups = [
        {"params": [weight], "lr": rate, "weight_decay": settings.weight_decay * (weight.ndim > 1)}
        for part, rate in rates
        for weight in part.parameters()
    ]
    return torch.optim.AdamW(groups, fused=True)


def rate_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the share of the learning rates at a step, from 0: linear warm-up, half a cosine."""
    warmup = settings.warmup * steps
    cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))
    share = settings.final_rate + (1 - settings.final_rate) * cosine
    return min(1, (step + 1) / (warmup + 1)) * share


class TrainingRun:
    """One training of a network's last blocks and head; batch norm keeps ImageNet's statistics."""

    CHUNK = 8  # photos of a batch that one thread works on; fixed, so that sums are repeatable

    def __init__(self, network: BirdNet, sample: Sample, settings: Settings) -> None:
        self.network, self.sample, self.settings = network, sample, settings
        self.preprocessing, self.dtype = preprocessing_of(settings), working_precision()
        first = len(network.features) - settings.unfrozen_blocks  # block that is trained
        network.requires_grad_(False)
        self.blocks = network.features[first:].requires_grad_(True)
        network.head.requires_grad_(True)
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.frozen = fold(network.features[:first], self.dtype)
        # An exponential moving average (Polyak and Juditsky, 1992) that moves faster at first.
        rest = 1 - settings.average_decay
        self.average = AveragedModel(
            network, avg_fn=lambda old, new, steps: old.lerp(new, max(rest, (1 + steps) ** -0.9))
        )

    def fit(
        self, stage: str, train: np.ndarray, on_epoch: OnEpoch, held_out: np.ndarray | None = None
    ) -> None:
        """Train on photos (indices): averaged weights, balanced classes; `held_out` is for rows."""
        settings, size = self.settings, min(self.settings.batch_size, len(train))
        batches = len(train) // size  # full ones; who is left over changes from epoch to epoch
        optimiser = optimiser_of(self.network, settings)
        factor = partial(rate_factor, steps=settings.epochs * batches, settings=settings)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        for epoch in range(1, settings.epochs + 1):
            start, totals = time.perf_counter(), np.zeros(2)  # of losses, of right answers
            order = np.random.default_rng([settings.seed, epoch]).permutation(train)
            for batch in order[: batches * size].reshape(batches, size):
                totals += self._set_gradients(batch, epoch)
                optimiser.step()
                scheduler.step()
                self.average.update_parameters(self.network)
            loss, accuracy = (totals / (batches * size)).tolist()
            measured = () if held_out is None else self._validate(held_out)
            rate, seconds = optimiser.param_groups[0]["lr"], time.perf_counter() - start
            on_epoch(EpochRow(stage, epoch, loss, accuracy, rate, seconds, *measured))
        self.network.load_state_dict(self.average.module.state_dict())
        counts = torch.bincount(self.sample.labels[train], minlength=len(self.network.class_ids))
        frequencies = counts.clamp(min=1) / counts.float().mean()  # (classes,)
        self.network.head.bias.data -= settings.class_balance * frequencies.log()

    def _set_gradients(self, batch: np.ndarray, epoch: int) -> tuple[float, int]:
        """Compute the gradients of a batch of photos (indices); sums of losses, right answers."""
        chunks = np.split(batch, range(self.CHUNK, len(batch), self.CHUNK))
        parts = map_in_threads(partial(self._gradients, epoch), chunks)
        losses, hits, gradients = zip(*parts, strict=True)
        for weight, of_chunks in zip(self.weights, zip(*gradients, strict=True), strict=True):
            weight.grad = sum(of_chunks) / len(batch)
        return sum(losses), sum(hits)

    def _gradients(self, epoch: int, chunk: np.ndarray) -> tuple[float, int, tuple[Tensor, ...]]:
        settings, sample, views = self.settings, self.sample, []
        for index in chunk.tolist():
            generator = random.Random(f"seed {settings.seed} epoch {epoch} photo {index}")
            pixels = read_pixels(sample.paths[index], self.preprocessing)
            views.append(random_view(pixels, sample.boxes[index], settings, generator))
        x, labels = normalise(views, self.preprocessing), sample.labels[chunk]
        targets = functional.one_hot(labels, len(self.network.class_ids)).float()  # (B, classes)
        if generator.random() < settings.cutmix:
            x, targets = cutmix(x, targets, generator)
        x = run_folded(self.frozen, x.to(self.dtype))  # (B, 3, H, W) -> (B, C, h, w)
        x = run_folded(fold(self.blocks, self.dtype), x).float()  # -> (B, 1280, H/32, W/32)
        logits, smoothing = self.network.head(x.mean((2, 3))), settings.label_smoothing
        loss = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        hits = int((logits.argmax(1) == labels).sum())
        return loss.item(), hits, torch.autograd.grad(loss, self.weights)

    def _validate(self, held_out: np.ndarray) -> tuple[float, float]:
        """Return loss and accuracy of the average on photos (indices), by the first view alone."""
        network, labels = cast(BirdNet, self.average.module), self.sample.labels[held_out]
        first_view = TwoStagePredictor(network, self.preprocessing, always)
        logits = torch.stack([p.logits for p in self.sample.predicted(first_view, held_out)])
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        return functional.cross_entropy(logits, labels).item(), accuracy


def validation_run(
    network: BirdNet, sample: Sample, settings: Settings, on_epoch: OnEpoch
) -> Validation | None:
    """Train `network` without some photos; return what it predicts on those, by all views."""
    train, held_out = split_photos(sample.labels.numpy(), settings.validation_share, settings.seed)
    if held_out is None:
        _warn("no species has two photos: nothing to validate on, training on all of them")
        return None
    TrainingRun(network, sample, settings).fit(VALIDATION_RUN, train, on_epoch, held_out)
    photos = [sample.paths[index].name for index in held_out]
    predictor = TwoStagePredictor(network, preprocessing_of(settings))
    return Validation(photos, sample.labels[held_out], sample.predicted(predictor, held_out))


@contextmanager
def standard_torch(seed: int = 0) -> Iterator[None]:
    """Compute as a fresh torch does, whatever the caller set: mode, precision, device, seed."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would visit accelerators
        with torch.autocast("cpu", enabled=False), torch.device("cpu"), ExitStack() as at_end:
            at_end.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
            yield


def train_classifier(
    train_gt: Mapping[str, int],
    train_img_dir: str | Path,
    fast_train: bool = False,
    *,
    settings: Settings | None = None,
    on_epoch: OnEpoch = lambda row: None,
) -> BirdNet:
    """Fine-tune MobileNetV2 on the photos of a folder, whose class ids `train_gt` has by file name.

    `fast_train` is one epoch of two batches, from random weights if there are no pretrained ones;
    `on_epoch` is called after each epoch.
    Returns a network trained on all photos, with the `validation` of one trained without some.
    Raises SubmissionError: no labels, no readable photo, no pretrained weights.
    """
    if not train_gt:
        raise SubmissionError("no labels to train on: train_gt is empty; check train/gt.csv")
    try:
        gt = {name: operator.index(train_gt[name]) for name in sorted(train_gt)}
    except TypeError:
        raise SubmissionError("class ids must be integers: check train/gt.csv") from None
    class_ids, names, settings = sorted(set(gt.values())), list(gt), settings or Settings()
    if fast_train:
        random.Random(settings.seed).shuffle(names)
        names, settings = sorted(names[:FAST_TRAIN_PHOTOS]), replace(settings, epochs=1)
    with standard_torch(settings.seed):
        network = BirdNet(class_ids, settings.seed)
        try:
            head = load_pretrained(network, settings.weights)
        except SubmissionError:
            if not fast_train:
                raise
            head = network.head  # random weights do for a network that is thrown away
        paths = [Path(train_img_dir, name) for name in names]
        boxes = locate_birds(network, head, paths, settings)
        if not boxes:
            raise SubmissionError(f"no readable photo in {train_img_dir}: check the folder's path")
        labels = torch.tensor([class_ids.index(gt[path.name]) for path in boxes])  # (photos,)
        sample = Sample(list(boxes), labels, list(boxes.values()))
        network.validation = validation_run(copy.deepcopy(network), sample, settings, on_epoch)
        TrainingRun(network, sample, settings).fit(FINAL_RUN, np.arange(len(labels)), on_epoch)
    network.metadata["fallback_class"] = Counter(gt.values()).most_common(1)[0][0]
    return network.eval()


# ---- The checkpoint, and classification --------------------------------------------------------

FORMAT, FORMAT_VERSION = "birds-mobilenet-v2", 4


def to_checkpoint(network: BirdNet, settings: Settings) -> dict[str, Any]:
    """Return what birds_model.pt holds; `network.metadata` adds to it, and may replace values."""
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
    """Return the network of a checkpoint; SubmissionError if it is missing, damaged or foreign."""
    checkpoint, remedy = load_file(Path(model_path)), "make one with `python train_full.py`"
    if (checkpoint.get("format"), checkpoint.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise SubmissionError(f"{model_path} is no {FORMAT} version {FORMAT_VERSION}: {remedy}")
    try:
        return Classifier(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise SubmissionError(f"{model_path} is damaged, its parts do not fit: {remedy}") from None


class Classifier:
    """The network of a checkpoint, ready for photos."""

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        self.checkpoint, state = checkpoint, checkpoint["state_dict"]
        self.class_ids: list[int] = checkpoint["class_ids"]
        self.class_names = checkpoint["class_names"] or [f"class {i}" for i in self.class_ids]
        self.fallback_class: int = checkpoint["fallback_class"]
        self.temperature, self.early_exit = checkpoint["temperature"], checkpoint["early_exit"]
        self.confidence_threshold: float = checkpoint["confidence_threshold"]
        if any(v.dtype == torch.half or not v.isfinite().all() for v in state.values()):
            raise ValueError("weights in half precision, or that are no numbers")
        with standard_torch():
            network = BirdNet(self.class_ids)
            network.load_state_dict(state)
            constants = checkpoint["preprocessing"]
            self.predictor = TwoStagePredictor(network, constants, self.is_confident)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities of logits (..., classes)."""
        return functional.softmax(logits / self.temperature, -1)

    def is_confident(self, logits: Tensor) -> bool:
        """Return whether further views of a photo with logits (classes,) are superfluous."""
        return bool(self.probabilities(logits).max() > self.early_exit)


def classify(model_path: str | Path, test_img_dir: str | Path) -> dict[str, int]:
    """Return the class id of every photo in a folder, by file name.

    A photo that cannot be decoded gets the most frequent class, and a line on stderr.
    Raises SubmissionError: no such folder; the model is missing, damaged or foreign.
    """
    classifier, answers, undecoded = load_classifier(model_path), {}, 0
    photos = list_photos(test_img_dir)
    for path, prediction in zip(photos, classifier.predictor.predict(photos), strict=True):
        if isinstance(prediction, Exception):
            undecoded += 1
            _warn(f"cannot be decoded, answered as the most frequent class: {path} ({prediction})")
            answers[path.name] = classifier.fallback_class
        else:
            answers[path.name] = classifier.class_ids[int(prediction.logits.argmax())]
    if undecoded:
        _warn(f"{undecoded} of {len(answers)} photos cannot be decoded: the lines above say why")
    return answers
