"""Lacks the training function."""

from pathlib import Path


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
