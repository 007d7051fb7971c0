"""The packages of the course's environment, compared with those that a submission imports."""

import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata

# The 2024 edition, on Python 3.12; requirements-course.txt has the releases.
PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "scikit-image", "scipy"),
    *("pandas", "lightning", "pytorch-lightning", "torchmetrics", "kornia", "albumentations"),
    *("opencv-python-headless", "opencv-python", "imgaug", "matplotlib", "tqdm", "joblib"),
)


def unknown_packages(imported: Sequence[str]) -> list[str]:
    """Return what the course's environment lacks of these imports, as "jax (jax 0.4.1)"."""
    if not imported:
        return []
    there, providers, found = _course_packages(), metadata.packages_distributions(), []
    for module in imported:
        # Python 3.10 finds none of a distribution that does not list its modules, such as torch.
        name, *_ = providers.get(module) or [module]
        with suppress(metadata.PackageNotFoundError, ValueError):  # it is none's, such as a file
            if metadata.version(name) and _normalised(name) not in there:
                found.append(f"{module} ({name} {metadata.version(name)})")
    return found


def _normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _course_packages() -> list[str]:
    """Return the course's packages and all that they require, as far as they are installed."""
    found = [*PACKAGES, "setuptools", "pip", "wheel"]
    for name in found:  # which grows meanwhile
        with suppress(metadata.PackageNotFoundError):
            for text in metadata.requires(name) or []:
                required = _normalised(re.split(r"[\s;<>=!~\[(]", text, maxsplit=1)[0])
                if "extra ==" not in text and required not in found:
                    found.append(required)
    return found
