"""What the shipped model computes of a generated picture, where it was made.

    python -m tests.reference_logits    # after birds_model.pt was replaced

Writes tests/reference_logits.json, which `test_checkpoint.py` compares with what is computed here.
"""

from pathlib import Path
from unittest import mock

import torch

import solution
from course.files import write_json

MODEL = Path(solution.__file__).with_name("birds_model.pt")
FILE = Path(__file__).with_suffix(".json")


def picture() -> torch.Tensor:
    """Return a green blot on a sky that darkens downwards: (3, 300, 400), uint8."""
    y, x = torch.meshgrid(torch.arange(300), torch.arange(400), indexing="ij")
    pixels = torch.stack([90 + y // 4, 140 + x // 8, 230 - y // 3])
    blot = (x - 260) ** 2 + (y - 120) ** 2 < 60**2
    pixels[:, blot] = torch.stack([x, y, x + y]).remainder(90)[:, blot]
    return pixels.to(torch.uint8)


def compute() -> list[list[float]]:
    """Return the logits of all views (views, classes) of the shipped model, in float32."""
    with mock.patch.object(solution, "working_precision", return_value=torch.float32):
        predictor = solution.load_classifier(MODEL).predictor
    predictor.is_confident = solution.never
    return predictor(picture()).view_logits.tolist()


if __name__ == "__main__":
    write_json(FILE, [[round(logit, 5) for logit in row] for row in compute()])
    print(f"Wrote {FILE}")
