"""A submission whose model file says how it was made; it knows `share` of the photos."""

from pathlib import Path

import torch


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return {"share": float(Path(__file__).with_name("retrained.txt").read_text())}


def to_checkpoint(network):
    return {"format": "toy", **network}


def classify(model_path, test_img_dir):
    share = torch.load(model_path, map_location="cpu", weights_only=True)["share"]
    photos = sorted(Path(test_img_dir).iterdir())
    known = round(share * len(photos))
    return {p.name: int(p.read_text()) if i < known else -1 for i, p in enumerate(photos)}
