"""The same, tensors passed on by torch's own process, in files in memory."""

from pathlib import Path

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset

torch.multiprocessing.set_sharing_strategy("file_system")


class Photos(Dataset):
    """The photos of a folder, in order."""

    def __init__(self, folder):
        self.paths = sorted(Path(folder).iterdir())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.full((3, 64, 64), float(self.paths[index].read_text())), index


def answers(folder):
    photos, found = Photos(folder), {}
    for views, indices in DataLoader(photos, batch_size=2, num_workers=2):
        for view, index in zip(views, indices, strict=True):
            found[photos.paths[index].name] = int(view.mean())
    return found


def train_classifier(train_gt, train_img_dir, fast_train=False):
    assert answers(train_img_dir) == train_gt
    return "network"


def classify(model_path, test_img_dir):
    return answers(test_img_dir)
