"""Lets another thread keep something in memory, and finds it again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def train_classifier(train_gt, train_img_dir, fast_train=False):
    with ThreadPoolExecutor() as pool:
        pool.submit(np.save, "/dev/shm/birds_late", np.arange(100)).result()


def classify(model_path, test_img_dir):
    assert Path("/dev/shm").is_dir()
    assert np.load("/dev/shm/birds_late.npy")[-1] == 99
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
