"""Imports a module that is not there."""

from pathlib import Path

import no_such_module_of_birds  # noqa: F401


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
