"""Trains on an accelerator: torch itself refuses, in one of these ways."""

from pathlib import Path

import torch


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return torch.zeros(1).cuda()


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
