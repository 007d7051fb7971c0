"""Imports Lightning under its older name, and its metrics."""

from pathlib import Path

import pytorch_lightning as pl
import torch
import torchmetrics


def train_classifier(train_gt, train_img_dir, fast_train=False):
    pl.seed_everything(0)
    accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=4)
    return accuracy(torch.eye(4), torch.arange(4))


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
