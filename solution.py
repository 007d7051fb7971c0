"""Tell bird species apart: MobileNetV2, fine-tuned on a CPU.

The testing system calls two functions of this file:

    train_classifier(train_gt, train_img_dir, fast_train) -> the trained network
    classify(model_path, test_img_dir)                    -> {file name: class id}

and a person asks what the network sees on a photo, with `python solution.py PHOTO_OR_FOLDER`.

Nothing here writes to disk, opens a socket, starts a process or touches an accelerator;
`train_full.py` is the program that saves what `train_classifier` returns.

How training works, in the order of this file:

    1. A photo passes the frozen trunk (the first blocks of MobileNetV2) once per view, plain or
       augmented, when an epoch first asks for it; the activations are kept in half precision.
    2. The upper blocks and a new linear head train on these activations: first on four fifths of
       the photos, to measure the settings on the rest; then, from the start again, on all photos.
    3. The weights delivered are a moving average over the last hundred steps or so; then the head
       is averaged with the linear discriminants of the features, which have a closed form.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import operator
import random
import sys
import threading
import time
import unicodedata
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor, nn
from torch.nn import functional

# ------------------------------------------------------------------------------------------------
# Settings
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How to train. Every value was chosen on a validation split: docs/experiments.md."""

    input_size: int = 224  # pixels a side; larger sees more detail and costs its square in time
    unfrozen_blocks: int = 4  # of the 19 blocks of `features`, counted from the end
    views: int = 8  # cached views of a photo, one an epoch in turn; the first as in evaluation
    cache_gigabytes: float = 2.0  # bound on the cache; more photos than fit get fewer views
    epochs: int = 14
    batch_size: int = 32  # photos
    head_learning_rate: float = 3e-3
    backbone_learning_rate: float = 5e-4  # smaller: the pretrained weights are not to be spoilt
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    final_rate: float = 0.5  # share of the learning rates left by the cosine decay at the end
    weight_decay: float = 0.02  # AdamW, on weights of convolutions and head only
    dropout: float = 0.2
    label_smoothing: float = 0.1
    mixup: float = 0.3  # alpha of the Beta distribution; 0 switches it off
    cutmix: float = 1.0  # the same, for patches of the trunk's activations
    mirror: float = 0.5  # share of the augmented views that are mirrored
    crop_share: float = 0.6  # least share of a photo's area that a random crop keeps
    crop_stretch: float = 1.18  # the most that a random crop is wider than high, or the reverse
    colour_jitter: float = 0.3  # of brightness, contrast and saturation
    bfloat16: bool = True  # for augmented views and steps, if the processor has it: twice as fast
    average_decay: float = 0.99  # of the moving average of the weights, per step
    discriminants: float = 0.7  # their share of the final head, the rest is gradient descent's
    shrinkage: float = 0.5  # of the discriminants' covariance towards a sphere
    validation_share: float = 0.2
    seed: int = 0


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FAST_TRAIN_PHOTOS = 64  # what `fast_train` looks at: two batches
PHOTO_BATCH = 8  # photos that a thread computes at a time; bounds the memory of inference
EARLY_BATCH = 2  # the same in the first blocks: more of their large maps fall out of the caches
EARLY_BLOCKS = 7


# ------------------------------------------------------------------------------------------------
# What is said to the caller
# ------------------------------------------------------------------------------------------------


class SubmissionError(Exception):
    """A mistake that the user can mend; its text is one line with cause, file and cure."""


@dataclass(frozen=True)
class EpochRow:
    """One row of the training table; losses in nats, accuracies and rates as fractions."""

    stage: str  # "validation run" or "final run"
    epoch: int  # from 1
    loss: float  # on augmented, mixed photos, so higher than on plain ones
    accuracy: float  # on the same, against the label with the larger share
    val_loss: float | None  # on untouched validation photos, by the averaged weights, head included
    val_accuracy: float | None
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


# ------------------------------------------------------------------------------------------------
# The network
# ------------------------------------------------------------------------------------------------


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

    The checkpoint holds it: inference and the forward pass of training follow this description,
    so that `classify` can do without importing torchvision.
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


def folded(layer: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals a convolution and its batch norm.

    In evaluation mode batch norm is a fixed affine map per channel, so it disappears into the
    convolution before it (Jacob et al., CVPR 2018, section 3.2). Differentiable.
    """
    gain, shift, mean, variance = (
        state[f"{layer['norm']}.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain * torch.rsqrt(variance + layer["eps"])  # (C,)
    return state[f"{layer['conv']}.weight"] * scale.view(-1, 1, 1, 1), shift - mean * scale


def forward_folded(
    blocks: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    """What the described blocks compute in evaluation mode, in fewer passes over memory.

    Gradients reach the convolutions and the gains and shifts of the batch norms; the running
    statistics stay as they are.
    """
    for block in blocks:
        y = x
        for layer in block["layers"]:
            geometry = (layer["stride"], layer["padding"], 1, layer["groups"])
            y = functional.conv2d(y, *folded(layer, state), *geometry)
            y = functional.hardtanh(y, 0.0, 6.0, inplace=True) if layer["relu6"] else y
        x = x + y if block["residual"] else y
    return x


# ------------------------------------------------------------------------------------------------
# The same blocks, packed for inference
# ------------------------------------------------------------------------------------------------


@contextmanager
def one_thread() -> Iterator[int]:
    """Let torch compute on one thread; gives the number of threads that it had, and has again."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@cache
def _onednn_packs() -> bool:
    """Whether this build of torch can pack convolutions for oneDNN (x86 builds can)."""
    try:
        torch.ops.mkldnn._reorder_convolution_weight(
            torch.zeros(1, 1, 1, 1), [0, 0], [1, 1], [1, 1], 1, []
        )
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.backends.mkldnn.is_available()


class PackedConv:
    """A folded convolution whose weight lies in the layout that oneDNN reads fastest.

    The activation and the residual sum are part of the same pass over memory. These operators
    are what torch's compiler emits for a CPU; without them plain convolutions do the same.
    """

    def __init__(
        self,
        layer: Mapping[str, Any],
        state: Mapping[str, Tensor],
        input_shape: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        weight, self.bias = (tensor.detach().to(dtype) for tensor in folded(layer, state))
        padding, stride = [layer["padding"]] * 2, [layer["stride"]] * 2
        self.geometry = (padding, stride, [1, 1], layer["groups"])
        self.relu6, self.onednn = layer["relu6"], _onednn_packs()
        rows = (input_shape[2] + 2 * padding[0] - weight.shape[2]) // stride[0] + 1
        columns = (input_shape[3] + 2 * padding[1] - weight.shape[3]) // stride[1] + 1
        self.output_shape = [input_shape[0], weight.shape[0], rows, columns]
        if self.onednn:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = pack(weight, *self.geometry, input_shape)
        else:
            self.weight = weight.contiguous(memory_format=torch.channels_last)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The convolution of x (B, C, H, W), plus `residual`, which is overwritten."""
        if not self.onednn:
            return self._plain(x, residual)
        if residual is None:
            activation = ("hardtanh", [0.0, 6.0]) if self.relu6 else ("none", [])
            convolve = torch.ops.mkldnn._convolution_pointwise
            return convolve(x, self.weight, self.bias, *self.geometry, *activation, "")
        add = torch.ops.mkldnn._convolution_pointwise_.binary
        return add(residual, x, self.weight, self.bias, *self.geometry, "add", None, None, [], None)

    def _plain(self, x: Tensor, residual: Tensor | None) -> Tensor:
        padding, stride, dilation, groups = self.geometry
        y = functional.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if residual is not None:
            return y.add_(residual)
        return y.clamp_(0.0, 6.0) if self.relu6 else y


class PackedBlocks:
    """The first blocks of the described features, or all of them, for inference.

    They take photos of any size, and are fastest on a batch of `PHOTO_BATCH` photos of `side`
    pixels, computed by one thread: oneDNN chooses a weight's layout for all three, and copies the
    weight in each call where they differ.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping[str, Any]],
        state: Mapping[str, Tensor],
        side: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        early, late = blocks[:EARLY_BLOCKS], blocks[EARLY_BLOCKS:]
        shape = [EARLY_BATCH, 3, side, side]
        with one_thread():
            self.early, (_, *shape) = _packed(early, state, shape, dtype)
            self.late, (_, *shape) = _packed(late, state, [PHOTO_BATCH, *shape], dtype)
        self.output_shape = shape  # (C, h, w)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Activations of the last block, for x (B, 3, H, W) in the channels-last layout."""
        early = [_through(self.early, part) for part in x.to(self.dtype).split(EARLY_BATCH)]
        return _through(self.late, torch.cat(early))


PackedBlock = tuple[list[PackedConv], bool]  # its layers, and whether its input is added at the end


def _packed(
    blocks: Sequence[Mapping[str, Any]],
    state: Mapping[str, Tensor],
    shape: Sequence[int],
    dtype: torch.dtype,
) -> tuple[list[PackedBlock], Sequence[int]]:
    """The blocks, packed for an input of this shape (B, C, H, W), and the shape of their output."""
    packed = []
    for block in blocks:
        layers = []
        for layer in block["layers"]:
            layers.append(PackedConv(layer, state, shape, dtype))
            shape = layers[-1].output_shape
        packed.append((layers, block["residual"]))
    return packed, shape


def _through(blocks: Sequence[PackedBlock], x: Tensor) -> Tensor:
    for layers, residual in blocks:
        y = x
        for layer in layers[:-1]:
            y = layer(y)
        x = layers[-1](y, x if residual else None)
    return x


# ------------------------------------------------------------------------------------------------
# Photos
# ------------------------------------------------------------------------------------------------

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
    """`FORMATS`, and AVIF and HEIC where Pillow or the package pillow-heif decode them."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return [*(name for name in ("AVIF", "HEIF") if name in Image.OPEN), *FORMATS]


_lock = threading.Lock()
_undo: list[ExitStack] = []  # one for each user of `tolerant_pillow`; the first one's counts
_reading = threading.local()  # its `path` is the photo that a thread reads


@contextmanager
def tolerant_pillow() -> Iterator[None]:
    """Let Pillow read what is there of a damaged file, leave the size limit to us, name photos.

    These are settings of the whole process: the last thread that leaves restores what the first
    one found.
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
        raise ValueError("HEIC or AVIF, which takes the package pillow-heif") from None
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


def _upright(photo: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(photo)
    except Exception:  # damaged EXIF data raises nearly anything; the picture may be whole
        return photo


def read_photo(path: Path, side: int) -> Image.Image:
    """The photo upright in RGB, at least `side` pixels a side if it has them.

    A large JPEG is decoded at a fraction of its size. A file that cannot be decoded makes Pillow
    raise nearly any exception; of a truncated one, what is there is read. A photo that would take
    more than `MAX_PIXELS` raises ValueError.
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
    return _to_rgb(_upright(photo))


def evaluation_view(photo: Image.Image, preprocessing: Mapping[str, Any]) -> Tensor:
    """The whole photo, stretched to a square: (3, side, side), uint8, channels last."""
    pixels, size = _pixels(photo), (preprocessing["input_size"],) * 2
    if pixels.shape[1:] == size:
        return pixels
    mode = preprocessing["interpolation"]
    return functional.interpolate(pixels[None], size, mode=mode, antialias=True)[0]


def _pixels(photo: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def normalise(views: Sequence[Tensor], preprocessing: Mapping[str, Any]) -> Tensor:
    """Views (3, H, W), uint8 -> a batch (B, 3, H, W), float32, channels last, mean 0, std 1."""
    std = torch.tensor(preprocessing["std"])
    mean = torch.tensor(preprocessing["mean"])
    height, width = views[0].shape[1:]
    pixels = torch.stack([view.permute(1, 2, 0) for view in views])  # (B, H, W, 3)
    pixels = pixels.view(-1, height, width * 3).float()  # long rows, or arithmetic would crawl
    pixels.mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))
    return pixels.view(-1, height, width, 3).permute(0, 3, 1, 2)  # (B, 3, H, W)


def preprocessing_of(settings: Settings) -> dict[str, Any]:
    """The constants of the evaluation transform, as the checkpoint keeps them."""
    return {
        "input_size": settings.input_size,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bilinear",
    }


# ------------------------------------------------------------------------------------------------
# Photos side by side
# ------------------------------------------------------------------------------------------------


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work(item)` of each item, in order, on as many threads as torch has.

    Each thread computes on one core: different photos keep the cores busier than the two halves
    of one photo, where a core waits for the other after each layer and while a photo is decoded.
    Few items are under way at a time, so memory is bounded. The caller's thread draws `items`.
    """
    with (
        one_thread() as threads,
        ThreadPoolExecutor(threads, "photos", torch.set_num_threads, (1,)) as pool,
    ):
        under_way: deque = deque()
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > 2 * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


# ------------------------------------------------------------------------------------------------
# Labels, split, and how sure a measured accuracy is
# ------------------------------------------------------------------------------------------------


def labels_fingerprint(gt: Mapping[str, int]) -> str:
    """SHA-256 of the labels: tells whether a model was trained on just these photos."""
    lines = "".join(f"{name},{class_id}\n" for name, class_id in sorted(gt.items()))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def name_key(name: str) -> str:
    """What names are compared by: accents in one form, no folders, no blanks around, no case."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    return name.strip().casefold()


def match_names(named: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """For each name in a table the file that it names, of those that are there.

    That is the file of just this name, or else the only other one with the same `name_key`, which
    may have an extension that the table leaves out. Names without such a file are left out, and
    no file is given to two names.
    """
    named, there = list(named), set(there)
    by_key: dict[str, set[str]] = defaultdict(set)
    for name in there.difference(named):
        by_key[name_key(name)].add(name)
        by_key[name_key(Path(name).stem)].add(name)
    found = {name: {name} if name in there else by_key[name_key(name)] for name in named}
    return {name: files.pop() for name, files in found.items() if len(files) == 1}


def split_photos(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Indices of training and validation photos, every class in the same proportion in both.

    Takes the classes of the photos (N,). A class with one photo stays in training; with no class
    of two photos there is nothing to validate on: (all photos, None).
    """
    from sklearn.model_selection import train_test_split

    count = Counter(labels.tolist())
    several = np.array([i for i, label in enumerate(labels) if count[label] > 1], dtype=int)
    if len(several) == 0:
        return np.arange(len(labels)), None
    classes = len(set(labels[several].tolist()))
    _, validation = train_test_split(
        several,
        test_size=max(round(share * len(several)), classes),
        stratify=labels[several],
        random_state=seed,
    )
    return np.setdiff1d(np.arange(len(labels)), validation), np.sort(validation)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson, JASA 22 (1927)."""
    z, share = 1.959964, correct / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


# ------------------------------------------------------------------------------------------------
# Pretrained weights
# ------------------------------------------------------------------------------------------------


def imagenet_weights_file() -> Path:
    """Where torch's cache keeps MobileNetV2's ImageNet weights, whether or not they are there."""
    from torchvision.models import MobileNet_V2_Weights

    name = MobileNet_V2_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def first_unfrozen(network: BirdNet, settings: Settings) -> int:
    """The number of the first block of `features` that is trained, from 0."""
    return len(network.features) - settings.unfrozen_blocks


def pretrained(
    class_ids: Sequence[int],
    class_names: Sequence[str] | None,
    settings: Settings,
    init: str | Path | None,
    fast_train: bool = False,
) -> BirdNet:
    """A network to start training from: pretrained backbone, random head, frozen trunk.

    Raises SubmissionError if there are no pretrained weights, unless `fast_train` may do without.
    """
    network = BirdNet(class_ids, class_names, settings.dropout)
    _load_backbone(network, None if init is None else Path(init), fast_train)
    network.features[: first_unfrozen(network, settings)].requires_grad_(False)
    return network


def _load_backbone(network: BirdNet, init: Path | None, fast_train: bool) -> None:
    path = imagenet_weights_file() if init is None else init
    if init is None and not path.is_file() and fast_train:
        _say(f"fast_train: no pretrained weights in {path.parent}, random ones instead")
        return
    if init is None and not path.is_file():
        raise SubmissionError(
            f"no pretrained weights: put {path.name} into {path.parent} (the folder "
            "$TORCH_HOME/hub/checkpoints), or start from a trained model with --init CHECKPOINT"
        )
    content = _load_file(path)
    state = content.get("state_dict", content)
    prefix = "features."
    backbone = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    try:
        network.features.load_state_dict(backbone)
    except RuntimeError:
        raise SubmissionError(
            f"{path} does not hold the weights of torchvision's mobilenet_v2: replace or delete it"
        ) from None
    if fast_train:
        _say(f"fast_train: pretrained weights from {path}")


def _load_file(path: Path) -> dict[str, Any]:
    """What torch.save wrote to `path`: tensors and plain values only, nothing is executed."""
    if not path.is_file():
        raise SubmissionError(f"no file {path}: `python train_full.py` makes birds_model.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes the loader raise
        kind = type(error).__name__
        raise SubmissionError(
            f"{path} cannot be read ({kind}): truncated, or not a checkpoint of tensors and plain "
            "values; copy it again, or make it anew with `python train_full.py`"
        ) from None
    if not isinstance(content, dict):
        raise SubmissionError(f"{path} holds no checkpoint but a {type(content).__name__}")
    return content


# ------------------------------------------------------------------------------------------------
# The frozen trunk, computed once
# ------------------------------------------------------------------------------------------------


def training_precision(settings: Settings) -> torch.dtype:
    """What augmented views and the steps of training are computed in.

    Mixed precision as in Micikevicius et al., ICLR 2018, with bfloat16 where the processor
    multiplies it: weights, their average, validation and `classify` stay in float32.
    """
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    wanted = settings.bfloat16 and in_hardware() and _onednn_packs()
    return torch.bfloat16 if wanted else torch.float32


def augmentation(settings: Settings) -> nn.Module:
    """The random views that training sees: a crop, a mirror image, other light."""
    from torchvision.transforms import v2

    area, sides = (settings.crop_share, 1), (1 / settings.crop_stretch, settings.crop_stretch)
    jitter = settings.colour_jitter
    return v2.Compose(
        [
            v2.RandomResizedCrop(settings.input_size, scale=area, ratio=sides),
            v2.RandomHorizontalFlip(settings.mirror),
            v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter),
        ]
    )


class TrunkCache:
    """Activations of the frozen trunk, in half precision, for several views of all photos.

    View 0 is that of evaluation, in its full precision; the others are augmented, in that of
    training. A photo's view is computed when it is first asked for. `paths` are the photos that
    could be read.
    """

    def __init__(
        self, network: BirdNet, paths: Sequence[Path], settings: Settings, progress: Progress
    ) -> None:
        trunk = network.features[: first_unfrozen(network, settings)]
        described = describe(trunk), trunk.state_dict(), settings.input_size
        self.exact = PackedBlocks(*described)
        self.quick = PackedBlocks(*described, training_precision(settings))
        self.settings, self.progress = settings, progress
        self.constants, self.augment = preprocessing_of(settings), augmentation(settings)
        self.shape = self.exact.output_shape  # (C, h, w)
        self.count = self._views_that_fit(len(paths))
        self.paths, self.views, self.computed = list(paths), [], []
        self.view(0, np.arange(len(paths)))
        readable = np.flatnonzero(self.computed[0])
        self.paths = [paths[index] for index in readable]
        self.views, self.computed = [self.views[0][readable]], [self.computed[0][readable]]

    def view(self, number: int, photos: np.ndarray) -> Tensor:
        """Activations (all photos, h, w, C), float16; those of `photos` (N,) are computed."""
        channels, h, w = self.shape
        while number >= len(self.views):
            empty = torch.zeros(len(self.paths), h, w, channels, dtype=torch.float16)
            self.views.append(empty)
            self.computed.append(np.zeros(len(self.paths), dtype=bool))
        self._encode(number, self.missing(number, photos))
        return self.views[number]

    def missing(self, number: int, photos: np.ndarray) -> np.ndarray:
        """Those of `photos` (N,) whose view of this number is not computed yet."""
        return photos[~self.computed[number][photos]] if number < len(self.views) else photos

    def _encode(self, number: int, photos: np.ndarray) -> None:
        trunk = self.quick if number else self.exact
        activations, computed = self.views[number], self.computed[number]

        def compute(item: tuple[list[int], list[Tensor]]) -> None:
            indices, views = item
            x = trunk(normalise(views, self.constants))  # (B, 3, H, W) -> (B, C, h, w)
            activations[indices] = x.permute(0, 2, 3, 1).half()
            computed[indices] = True

        with tolerant_pillow():
            for _ in side_by_side(compute, self._batches(number, photos)):
                pass

    def _batches(self, number: int, photos: np.ndarray) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Indices and views (3, side, side) of a few readable photos at a time."""
        for part in _parts(photos, PHOTO_BATCH):
            views = {}
            for index in part.tolist():
                path = self.paths[index]
                try:
                    photo = read_photo(path, 2 * self.settings.input_size)
                    views[index] = self._one_view(number, photo)
                except Exception as error:  # see read_photo
                    _say(f"left out of training: {path} ({error})")
            if views:
                yield list(views), list(views.values())
            self.progress.step(len(part))

    def _one_view(self, number: int, photo: Image.Image) -> Tensor:
        if number == 0:
            return evaluation_view(photo, self.constants)
        return self.augment(_pixels(photo))

    def _views_that_fit(self, photos: int) -> int:
        gigabytes = self.settings.cache_gigabytes
        room = int(gigabytes * 1e9 / (2 * math.prod(self.shape) * photos))
        if room < 1:
            raise SubmissionError(
                f"{photos} photos do not fit into cache_gigabytes={gigabytes}: raise that setting, "
                "or train on fewer photos"
            )
        return min(self.settings.views, room)


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------


class UpperNet(nn.Module):
    """What is trained: the upper blocks and the head, on the trunk's activations.

    Batch norm keeps the statistics of ImageNet here too: as good as new ones, and faster.
    """

    def __init__(self, network: BirdNet, settings: Settings) -> None:
        super().__init__()
        self.blocks = network.features[first_unfrozen(network, settings) :]
        self.dropout, self.head = network.dropout, network.head
        self.description = describe(self.blocks)
        self.bfloat16 = training_precision(settings) is torch.bfloat16

    def pooled(self, x: Tensor) -> Tensor:
        """Features (B, 1280) of the trunk's activations (B, C, h, w)."""
        state = dict(self.blocks.named_parameters()) | dict(self.blocks.named_buffers())
        x = forward_folded(self.description, state, x)  # (B, C, h, w) -> (B, 1280, H/32, W/32)
        return x.float().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of the trunk's activations (B, C, h, w), in training."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            x = self.pooled(x)
        return self.head(self.dropout(x))


def _optimiser(upper: UpperNet, settings: Settings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), the backbone slower than the head."""
    parts = (
        (upper.blocks, settings.backbone_learning_rate),
        (upper.head, settings.head_learning_rate),
    )
    groups = []
    for part, rate in parts:
        weights = [p for p in part.parameters() if p.ndim > 1]
        others = [p for p in part.parameters() if p.ndim == 1]  # not decayed: biases, batch norm
        groups.append({"params": weights, "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": others, "lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups)


def _rate_factor(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up, then cosine decay (Loshchilov and Hutter, 2017), not down to zero.

    Averaged weights want steps that stay long: the average does what decay otherwise does
    (Izmailov et al., Averaging Weights Leads to Wider Optima, 2018).
    """
    rising = max(1.0, settings.warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    share = (step - rising) / max(1.0, steps - rising)  # of the decay done
    return settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * share)) / 2


def _mixing(classes: int, settings: Settings) -> Any:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) on the trunk's activations."""
    from timm.data.mixup import Mixup

    return Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        prob=float(settings.mixup > 0 or settings.cutmix > 0),
        label_smoothing=settings.label_smoothing,
        num_classes=classes,
    )


def _unpacked(activations: Tensor) -> Tensor:
    """Cached activations (B, h, w, C), float16 -> (B, C, h, w), float32, channels last."""
    return activations.float().permute(0, 3, 1, 2)


@torch.no_grad()
def _features(upper: UpperNet, activations: Tensor) -> Tensor:
    """Features (N, 1280) of untouched photos, from the trunk's activations (N, h, w, C)."""
    return torch.cat([upper.pooled(_unpacked(part)) for part in activations.split(32)])


@torch.no_grad()
def _logits(upper: UpperNet, activations: Tensor) -> Tensor:
    """Logits (N, classes) of untouched photos, from the trunk's activations (N, h, w, C)."""
    return upper.head(_features(upper, activations))


@torch.no_grad()
def refine_head(head: nn.Linear, features: Tensor, labels: Tensor, settings: Settings) -> None:
    """Average a head with the linear discriminants of features (N, C) with the labels (N,).

    Two estimates of the same boundaries: one from gradient descent on mixed photos, one in closed
    form from untouched photos. Their errors differ, so the mean has fewer; it is one linear layer
    still. The discriminants take one covariance for all classes, shrunk towards a sphere: Friedman,
    Regularized Discriminant Analysis, JASA 84 (1989). Their logits are scaled to the spread of the
    head's. Without a photo of each class and two of one, the head stays as it is.
    """
    count = torch.bincount(labels, minlength=head.out_features)  # (classes,)
    if count.min() < 1 or count.max() < 2:
        return
    weight, bias = _discriminants(features.double(), labels, count, settings.shrinkage)
    discriminants = features.double() @ weight.T + bias  # (N, classes)
    scale = _spread(head(features)) / _spread(discriminants).clamp(min=1e-6)
    head.weight.lerp_((scale * weight).float(), settings.discriminants)
    head.bias.lerp_((scale * bias).float(), settings.discriminants)


def _discriminants(
    features: Tensor, labels: Tensor, count: Tensor, shrinkage: float
) -> tuple[Tensor, Tensor]:
    """Weight (classes, C) and bias (classes,); `count` has the photos of each class."""
    middle = features.mean(0)  # taken out: what all features have in common would cost digits
    x = features - middle  # (N, C)
    means = x.new_zeros(len(count), x.shape[1]).index_add_(0, labels, x) / count[:, None]
    centred = x - means[labels]
    covariance = centred.T @ centred / len(x)  # (C, C)
    sphere = covariance.diagonal().mean().clamp(min=1e-6) * torch.eye(len(covariance)).to(x)
    weight = torch.linalg.solve(torch.lerp(covariance, sphere, shrinkage), means.T).T
    return weight, (count / len(x)).log() - (weight * means).sum(1) / 2 - weight @ middle


def _spread(logits: Tensor) -> Tensor:
    return (logits - logits.mean(1, keepdim=True)).std()


def _parts(photos: np.ndarray, size: int) -> list[np.ndarray]:
    return [photos[first : first + size] for first in range(0, len(photos), size)]


def _epoch_batches(photos: np.ndarray, size: int) -> list[np.ndarray]:
    """The photos in a new order, in full batches; mixing wants an even number in each."""
    shuffled = np.random.permutation(photos)
    size = min(size, len(photos))
    full = _parts(shuffled[: len(shuffled) // size * size], size)
    return [np.append(part, part[0]) if len(part) % 2 else part for part in full]


class _Run:
    """One training of the upper blocks, from the pretrained weights to their moving average."""

    def __init__(
        self,
        network: BirdNet,
        cache: TrunkCache,
        labels: Tensor,
        train: np.ndarray,
        settings: Settings,
    ) -> None:
        from timm.utils import ModelEmaV3

        self.cache, self.labels, self.train, self.settings = cache, labels, train, settings
        self.upper = UpperNet(network, settings)
        self.upper.to(memory_format=torch.channels_last)
        self.average = ModelEmaV3(self.upper, settings.average_decay, use_warmup=True)
        self.optimiser = _optimiser(self.upper, settings)
        steps = settings.epochs * len(_epoch_batches(train, settings.batch_size))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: _rate_factor(step, steps, settings)
        )
        self.mix = _mixing(len(network.class_ids), settings)

    def epoch(self, number: int, progress: Progress) -> tuple[float, float]:
        """Train for one epoch, counted from 0: mean loss and accuracy on what was shown."""
        loss, right, seen = 0.0, 0, 0
        self.upper.train()
        view = self.cache.view(number % self.cache.count, self.train)
        for photos in _epoch_batches(self.train, self.settings.batch_size):
            x, target = self.mix(_unpacked(view[photos]), self.labels[photos])  # .., (B, classes)
            logits = self.upper(x)
            batch_loss = functional.cross_entropy(logits, target)
            self._step(batch_loss)
            loss += batch_loss.item() * len(photos)
            right += int((logits.argmax(1) == target.argmax(1)).sum())
            seen += len(photos)
            progress.step(len(photos))
        return loss / seen, right / seen

    def _step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.scheduler.step()
        self.average.update(self.upper, self.scheduler.last_epoch)

    def delivered(self) -> UpperNet:
        """The averaged weights (Polyak and Juditsky, 1992) with a refined head."""
        upper = copy.deepcopy(self.average.module)
        features = _features(upper, self.cache.view(0, self.train)[self.train])
        refine_head(upper.head, features, self.labels[self.train], self.settings)
        return upper


def _fit(
    stage: str,
    network: BirdNet,
    cache: TrunkCache,
    labels: Tensor,
    train: np.ndarray,
    settings: Settings,
    progress: Progress,
    held_out: tuple[Tensor, Tensor] | None = None,
) -> Tensor | None:
    """Train `network` in place on the photos `train`.

    `held_out` are activations (N, h, w, C) and labels (N,) of validation photos; returns the logits
    (N, classes) for them.
    """
    run = _Run(network, cache, labels, train, settings)
    shown = range(min(settings.epochs, cache.count))
    to_encode = sum(len(cache.missing(number, train)) for number in shown)
    progress.stage(stage, settings.epochs * len(train) + to_encode)
    val_loss = val_accuracy = None
    for number in range(settings.epochs):
        start = time.perf_counter()
        loss, accuracy = run.epoch(number, progress)
        if held_out is not None:
            activations, truth = held_out
            logits = _logits(run.average.module, activations)
            val_loss = functional.cross_entropy(logits, truth).item()
            val_accuracy = (logits.argmax(1) == truth).float().mean().item()
        rate = run.optimiser.param_groups[-1]["lr"]
        seconds = time.perf_counter() - start
        row = EpochRow(stage, number + 1, loss, accuracy, val_loss, val_accuracy, rate, seconds)
        progress.epoch(row)
    run.upper.load_state_dict(run.delivered().state_dict())
    return None if held_out is None else _logits(run.upper, held_out[0])


def _reuse_freed_memory() -> None:
    """Spare training the page faults of blocks that glibc would give back to the kernel each time.

    After a block of almost 32 MiB was freed, glibc keeps all smaller ones: M_MMAP_THRESHOLD in
    mallopt(3). Steps take a seventh less time. Other allocators are not impressed.
    """
    torch.empty(32 * 2**20 - 2**13, dtype=torch.uint8)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same random numbers every time; the caller's generators end as they began."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would visit accelerators
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _checked_labels(train_gt: Mapping[str, int], folder: Path) -> dict[str, int]:
    """Class ids by the names of the files in `folder` that the labels name."""
    if not train_gt:
        raise SubmissionError("no labels to train on: train_gt is empty; check train/gt.csv")
    there = [path.name for path in list_photos(folder)]
    matched = match_names(sorted(train_gt), there)
    if not matched:
        raise SubmissionError(
            f"no name in the labels is that of a photo in {folder}: they say "
            f"{', '.join(sorted(train_gt)[:2])}, there are {', '.join(there[:2]) or 'no photos'}; "
            "check the folder's path, and the names' prefixes and extensions"
        )
    missing = [name for name in train_gt if name not in matched]
    if missing:
        _say(f"{len(missing)} labels without a photo in {folder}, such as {min(missing)}")
    if other := {name: file for name, file in matched.items() if name != file}:
        _say(f"{len(other)} labels name photos differently, such as {min(other.items())}")
    try:
        return {file: operator.index(train_gt[name]) for name, file in matched.items()}
    except TypeError:
        raise SubmissionError(
            "class ids must be integers: check the column class_id of train/gt.csv"
        ) from None


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
        fast_train: one epoch of two batches, only to show that training works. Starts from
            random weights if there are no pretrained ones.
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

    folder = Path(train_img_dir)
    gt = _checked_labels(train_gt, folder)
    settings, progress = settings or Settings(), progress or Progress()
    class_ids = sorted(set(gt.values()))
    species = None if class_names is None else [class_names.get(i, str(i)) for i in class_ids]
    _reuse_freed_memory()
    with _seeded(settings.seed):
        network = pretrained(class_ids, species, settings, init, fast_train)
        names = list(gt)
        if fast_train:
            names = sorted(random.sample(names, min(FAST_TRAIN_PHOTOS, len(names))))
            settings = replace(settings, epochs=1, views=1)
        progress.stage("first look", len(names))
        cache = TrunkCache(network, [folder / name for name in names], settings, progress)
        if not cache.paths:
            raise SubmissionError(f"not one readable photo in {folder}: check the folder's path")
        names = [path.name for path in cache.paths]
        labels = torch.tensor([class_ids.index(gt[name]) for name in names])  # (photos,)
        answers = _validate(network, cache, labels, settings, progress)
        _fit("final run", network, cache, labels, np.arange(len(names)), settings, progress)
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


def _validate(
    network: BirdNet, cache: TrunkCache, labels: Tensor, settings: Settings, progress: Progress
) -> dict[str, Any] | None:
    """Train a copy of `network` without some photos; what it answers on those.

    The answers hold the names of the `photos`, their `labels` (N,) as columns of the logits, and
    the `logits` (N, classes).
    """
    train, photos = split_photos(labels.numpy(), settings.validation_share, settings.seed)
    if photos is None:
        _say("no species has two photos: nothing to validate on, training on all of them")
        return None
    lonely = sum(n == 1 for n in Counter(labels.tolist()).values())
    if lonely:
        _say(f"{lonely} species with a single photo: it stays in training, not in validation")
    held_out = cache.view(0, photos)[photos], labels[photos]
    logits = _fit(
        "validation run",
        copy.deepcopy(network),
        cache,
        labels,
        train,
        settings,
        progress,
        held_out,
    )
    names = [cache.paths[index].name for index in photos]
    return {"photos": names, "labels": labels[photos], "logits": logits}


def _validation_facts(answers: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the checkpoint keeps of the validation: accuracy, and how to read the probabilities."""
    if answers is None:
        return {"validation": None, "temperature": 1.0, "unsure_below": 0.0}
    labels, logits = answers["labels"], answers["logits"]
    right, total = int((logits.argmax(1) == labels).sum()), len(labels)
    temperature = fit_temperature(logits, labels)
    top = functional.softmax(logits / temperature, 1).amax(1)  # (N,)
    return {
        "validation": {
            "correct": right,
            "total": total,
            "accuracy": right / total,
            "interval": list(wilson_interval(right, total)),
        },
        "temperature": temperature,
        "unsure_below": top.quantile(0.05).item(),
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of the logits (N, classes) with the least cross-entropy on `labels` (N,).

    It makes probabilities agree with frequencies and changes no answer: Guo et al., On Calibration
    of Modern Neural Networks, ICML 2017, section 4.2.
    """
    candidates = torch.logspace(-1, 1, 401).tolist()  # 0.1 to 10 in steps of 1 %
    return min(candidates, key=lambda t: functional.cross_entropy(logits / t, labels).item())


# ------------------------------------------------------------------------------------------------
# The checkpoint: tensors and plain values that describe themselves
# ------------------------------------------------------------------------------------------------

FORMAT, FORMAT_VERSION = "birds-mobilenet-v2", 2


def to_checkpoint(network: BirdNet) -> dict[str, Any]:
    """What `torch.save` is to write as birds_model.pt, of a network from `train_classifier`."""
    checkpoint = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": "mobilenet_v2",
        "features": describe(network.features),
        "class_ids": network.class_ids,
        "class_names": network.class_names,
        "preprocessing": preprocessing_of(Settings(**network.facts["settings"])),
        **network.facts,
        "state_dict": {k: v.contiguous() for k, v in network.state_dict().items()},
    }
    return checkpoint | {"known_answer": {"logits": _known_answer(Classifier(checkpoint))}}


def load_classifier(model_path: str | Path) -> Classifier:
    """The network of a checkpoint, ready to classify.

    Raises SubmissionError, and executes nothing, if the file is missing, damaged or foreign.
    """
    checkpoint = _load_file(Path(model_path))
    if checkpoint.get("format") != FORMAT or checkpoint.get("format_version") != FORMAT_VERSION:
        raise SubmissionError(
            f"{model_path} is no {FORMAT} checkpoint of version {FORMAT_VERSION}: "
            "make one with `python train_full.py`"
        )
    try:
        return Classifier(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise SubmissionError(
            f"{model_path} is damaged, its parts do not fit: make it anew with "
            "`python train_full.py`"
        ) from None


def _known_answer(classifier: Classifier) -> list[float]:
    """Logits for a generated picture: the same integers on every machine."""
    y, x, channel = np.ogrid[: classifier.side, : classifier.side, :3]
    picture = (x * y // 7 + 3 * x + 5 * y + 89 * channel) % 256  # (side, side, 3)
    view = torch.from_numpy(picture.astype(np.uint8)).permute(2, 0, 1)
    return classifier.logits([view])[0].tolist()


def known_answer_error(model_path: str | Path) -> float:
    """Greatest difference of a logit from what it was where the model was made; 1e-3 is right."""
    classifier = load_classifier(model_path)
    stored = np.array(classifier.checkpoint["known_answer"]["logits"])
    return float(np.abs(np.array(_known_answer(classifier)) - stored).max())


# ------------------------------------------------------------------------------------------------
# Classification
# ------------------------------------------------------------------------------------------------


class Classifier:
    """The network of a checkpoint, packed for inference, with its evaluation transform."""

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        self.checkpoint, state = checkpoint, checkpoint["state_dict"]
        self.class_ids: list[int] = checkpoint["class_ids"]
        self.fallback_class: int = checkpoint["fallback_class"]
        names = checkpoint["class_names"]
        self.class_names: list[str] = names or [str(class_id) for class_id in self.class_ids]
        self.temperature: float = checkpoint["temperature"]
        self.unsure_below: float = checkpoint["unsure_below"]
        self.preprocessing = checkpoint["preprocessing"]
        self.side: int = self.preprocessing["input_size"]
        prefix = "features."
        features = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        self.features = PackedBlocks(checkpoint["features"], features, self.side)
        self.head = state["head.weight"].detach(), state["head.bias"].detach()
        if len(self.class_ids) != len(self.head[1]):
            raise ValueError(f"{len(self.class_ids)} class ids, {len(self.head[1])} outputs")

    @torch.inference_mode()
    def logits(self, views: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes) of evaluation views (3, side, side), uint8."""
        x = normalise(views, self.preprocessing)  # (B, 3, side, side)
        x = self.features(x).mean((2, 3))  # (B, 1280)
        return functional.linear(x, *self.head)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities of logits (..., classes): see `fit_temperature`."""
        return functional.softmax(logits / self.temperature, -1)

    def answers(self, photos: Sequence[Path]) -> Iterator[tuple[Path, Tensor | Exception]]:
        """Each photo with its logits (classes,), or with the reason why it cannot be decoded."""
        batches = [photos[i : i + PHOTO_BATCH] for i in range(0, len(photos), PHOTO_BATCH)]
        with tolerant_pillow():
            for answers in side_by_side(self._batch_answers, batches):
                yield from answers.items()

    def _batch_answers(self, photos: Sequence[Path]) -> dict[Path, Tensor | Exception]:
        views: dict[Path, Tensor] = {}
        answers: dict[Path, Tensor | Exception] = {}
        for path in photos:
            try:
                views[path] = evaluation_view(read_photo(path, self.side), self.preprocessing)
            except Exception as error:  # see read_photo; a missing answer fails the whole test
                answers[path] = error
        if views:
            answers.update(zip(views, self.logits(list(views.values())), strict=True))
        return {path: answers[path] for path in photos}


def classify(model_path: str | Path, test_img_dir: str | Path) -> dict[str, int]:
    """The class id of every photo in a folder, by file name.

    A photo that cannot be decoded gets the most frequent class of the training photos, and a
    line on stderr. Memory does not grow with the number of photos.

    Raises:
        SubmissionError: no such folder; the model is missing, damaged or foreign.
    """
    classifier = load_classifier(model_path)
    answers: dict[str, int] = {}
    for path, logits in classifier.answers(list_photos(test_img_dir)):
        if isinstance(logits, Exception):
            _say(f"cannot be decoded, answered with the most frequent class: {path} ({logits})")
            answers[path.name] = classifier.fallback_class
        else:
            answers[path.name] = classifier.class_ids[int(logits.argmax())]
    return answers


# ------------------------------------------------------------------------------------------------
# From the command line: what the network says of a photo
# ------------------------------------------------------------------------------------------------


def _lines(classifier: Classifier, path: Path, logits: Tensor, top: int) -> Iterator[str]:
    """What is printed for a photo: its name, the likeliest species, how sure that is."""
    names = classifier.class_names
    probabilities = classifier.probabilities(logits)  # (classes,)
    best = probabilities.topk(min(top, len(names)))
    yield str(path)
    for share, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        yield f"  {share:7.2%}  {names[index]}"
    if best.values[0] < classifier.unsure_below:
        yield (
            f"  unsure: 95 % of the validation photos got more than {classifier.unsure_below:.0%}; "
            "perhaps none of the species it knows, or no bird"
        )


def _shown(model: Path, source: Path, top: int) -> int:
    """Print what the network says of a photo or of each photo in a folder; the exit status."""
    classifier = load_classifier(model)
    if not source.exists():
        raise SubmissionError(f"no photo or folder {source}: check the path")
    photos = list_photos(source) if source.is_dir() else [source]
    if not photos:
        raise SubmissionError(f"no photo in {source}: give one photo, or a folder that holds some")
    status = 0
    for path, logits in classifier.answers(photos):
        if isinstance(logits, Exception):
            _say(f"cannot be decoded: {path} ({logits}): is it a photo? copy it again")
            status = 1
        else:
            print(*_lines(classifier, path, logits, top), sep="\n")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """`python solution.py PHOTO_OR_FOLDER`; the exit status."""
    parser = argparse.ArgumentParser(description="Tell the species of the birds on photos.")
    parser.add_argument("photos", type=Path, metavar="PHOTO_OR_FOLDER")
    model = Path(__file__).with_name("birds_model.pt")
    parser.add_argument("--model", type=Path, default=model, help="default: birds_model.pt")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="species shown; default: 5")
    options = parser.parse_args(arguments)
    if options.top < 1:
        parser.error(f"--top {options.top}: show at least one species")
    try:
        return _shown(options.model, options.photos, options.top)
    except SubmissionError as error:
        _say(f"Error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
