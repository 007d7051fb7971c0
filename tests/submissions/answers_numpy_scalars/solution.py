"""Answers with numpy's floats and with arrays of no dimension."""

from pathlib import Path

import numpy as np


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    photos = sorted(Path(test_img_dir).iterdir())
    kinds = (np.float32, np.array, np.uint8)
    return {p.name: kinds[i % 3](int(p.read_text())) for i, p in enumerate(photos)}
