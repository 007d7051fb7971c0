"""Fails in classification, in a helper."""

from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def read(photo):
    return [][len(photo)]


def classify(model_path, test_img_dir):
    return {photo.name: read(photo.name) for photo in Path(test_img_dir).iterdir()}
