"""`classify` as a textbook would write it: the yardstick of benchmarks/classify_speed.py."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import mobilenet_v2


class Photos(Dataset):
    """The photos of a folder, ready for the network, with their names."""

    def __init__(self, folder: Path, preprocessing: dict) -> None:
        self.paths = sorted(folder.iterdir())
        side = preprocessing["input_size"]
        self.transform = transforms.Compose(
            [
                transforms.Resize((side, side)),
                transforms.ToTensor(),
                transforms.Normalize(preprocessing["mean"], preprocessing["std"]),
            ]
        )

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """Name and normalised photo (3, H, W)."""
        path = self.paths[index]
        return path.name, self.transform(Image.open(path).convert("RGB"))


def classify(model_path: Path, test_img_dir: Path) -> dict[str, int]:
    """Class id by file name."""
    checkpoint = torch.load(model_path, weights_only=True)
    model = mobilenet_v2(num_classes=len(checkpoint["class_ids"]))
    state = checkpoint["state_dict"]
    renamed = {key.replace("head.", "classifier.1."): value for key, value in state.items()}
    model.load_state_dict(renamed)
    model.eval()
    return predict(model, checkpoint, test_img_dir)


def predict(model: nn.Module, checkpoint: dict, test_img_dir: Path) -> dict[str, int]:
    """One photo at a time, as the assignment advises to save memory."""
    answers = {}
    with torch.no_grad():
        for (name,), x in DataLoader(Photos(test_img_dir, checkpoint["preprocessing"])):
            answers[name] = checkpoint["class_ids"][model(x).argmax(1).item()]
    return answers
