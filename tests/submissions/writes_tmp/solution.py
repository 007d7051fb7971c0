"""Writes into /tmp while it is imported."""

from pathlib import Path

Path("/tmp/birds_cache.txt").write_text("photos seen")


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
