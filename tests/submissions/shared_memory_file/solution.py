"""Keeps something in memory that looks like a file, under a name that it would find again."""

from pathlib import Path

import numpy as np


def train_classifier(train_gt, train_img_dir, fast_train=False):
    np.save("/dev/shm/birds", np.arange(100))


def classify(model_path, test_img_dir):
    assert np.load("/dev/shm/birds.npy")[-1] == 99
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
