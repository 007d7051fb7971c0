"""The course's environment, compared with the packages that a submission imports."""

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata

PYTHON = (3, 12)  # 3.12.3 there
# The 2024 edition. requirements-course.txt pins those that the grader's own tests need.
VERSIONS = dict(
    pin.split("==")
    for pin in (
        *("torch==2.4.1", "torchvision==0.19.1", "timm==1.0.9", "numpy==2.1.1", "pillow==10.4.0"),
        *("scikit-learn==1.5.1", "scikit-image==0.24.0", "scipy==1.14.1", "pandas==2.2.2"),
        *("lightning==2.4.0", "pytorch-lightning==2.4.0", "torchmetrics==1.4.1", "kornia==0.7.3"),
        *("albumentations==1.4.16", "opencv-python-headless==4.10", "imgaug==0.4.0"),
        *("matplotlib==3.9.2", "tqdm==4.66.5", "joblib==1.4.2"),
    )
)


def normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503), one for all of OpenCV's."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    return "opencv-python-headless" if name.startswith("opencv-") else name


def unknown_packages(imported: Iterable[str]) -> list[str]:
    """Return what the course's environment lacks of these imports, as "jax (jax 0.4.1)"."""
    there = {*_closure(VERSIONS), "setuptools", "pip", "wheel"}
    return [
        f"{module} ({name} {_version(name)})"
        for module in imported
        if (name := distribution_of(module)) and normalised(name) not in there
    ]


def differing_versions(imported: Iterable[str]) -> list[str]:
    """Return whose release differs from the course's, as "numpy 2.4.6 here, 2.1.1 there"."""
    found = []
    for module in imported:
        name = normalised(distribution_of(module) or "")
        here, there = _version(name), VERSIONS.get(name)
        if here and there and here.split(".")[:2] != there.split(".")[:2]:
            found.append(f"{module} {here} here, {there} there")
    return found


def python_versions() -> str:
    """Return which Python runs here and which there."""
    here, there = (".".join(map(str, version[:2])) for version in (sys.version_info, PYTHON))
    return f"Python {here} runs here, {there} there"


@cache
def distribution_of(module: str) -> str | None:
    """Return the distribution that a top-level module comes from; None if it is none's."""
    # Python 3.10 finds none of a distribution that does not list its modules, such as torch.
    name, *_ = metadata.packages_distributions().get(module) or [module]
    return name if _version(name) else None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return ""


def _closure(names: Iterable[str]) -> list[str]:
    """Return these distributions and all that they require, as far as they are installed."""
    found = [normalised(name) for name in names]
    for name in found:  # which grows meanwhile
        with suppress(metadata.PackageNotFoundError):
            for text in metadata.requires(name) or []:
                required = normalised(re.split(r"[\s;<>=!~\[(]", text, maxsplit=1)[0])
                if "extra ==" not in text and required not in found:
                    found.append(required)
    return found
