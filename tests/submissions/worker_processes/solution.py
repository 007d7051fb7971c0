"""Classifies in worker processes."""

import multiprocessing
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def read(photo):
    return photo.name, int(photo.read_text())


def classify(model_path, test_img_dir):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return dict(pool.map(read, Path(test_img_dir).iterdir()))
