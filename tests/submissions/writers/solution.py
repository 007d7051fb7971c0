"""Tries every writer of the libraries, by a name here and by one elsewhere, and goes on without."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file


def attempt(write, *arguments):
    try:
        assert not write(*arguments)
    except Exception as error:
        print(type(error).__name__)


def train_classifier(train_gt, train_img_dir, fast_train=False):
    state, picture = {"weight": torch.zeros(100)}, np.zeros((8, 8, 3), np.uint8)
    attempt(torch.save, state, "/tmp/birds_state.pt")
    attempt(torch.jit.save, torch.jit.script(torch.nn.Linear(3, 4)), "birds_script.pt")
    attempt(save_file, state, "birds.safetensors")
    attempt(cv2.imwrite, "birds_cv.png", picture)
    attempt(np.save, "birds_array", picture)
    attempt(Image.fromarray(picture).save, "birds_picture.png")
    return "network"


def classify(model_path, test_img_dir):
    assert not list(Path.cwd().iterdir())
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
