"""Writes into its own model file behind Python's back."""

import ctypes
import os
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    libc = ctypes.CDLL(None)
    file = libc.open(os.fsencode(model_path), os.O_WRONLY)
    libc.write(file, b"TOY", 3)
    libc.close(file)
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
