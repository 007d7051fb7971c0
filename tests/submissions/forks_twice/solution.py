"""Forks, and lets both processes run on."""

import os
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    os.fork()
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
