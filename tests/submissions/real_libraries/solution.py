"""Imports what a submission may use, trains and reads with it: nothing of that breaks a rule."""

from pathlib import Path

import numpy as np
import sklearn.linear_model
import timm
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset


def train_classifier(train_gt, train_img_dir, fast_train=False):
    torch.set_num_threads(1)
    photos = TensorDataset(torch.zeros(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    assert timm.list_models("mobilenetv2_100")
    network = torchvision.models.mobilenet_v2(weights=None, num_classes=4)
    optimiser = torch.optim.AdamW(network.parameters())
    for views, labels in DataLoader(photos, batch_size=2, num_workers=1):
        torch.nn.functional.cross_entropy(network(views), labels).backward()
    optimiser.step()
    sklearn.linear_model.LogisticRegression().fit(np.eye(4), np.arange(4))
    return network


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
