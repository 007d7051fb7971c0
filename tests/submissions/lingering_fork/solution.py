"""Leaves a process behind, in a session of its own."""

import os
import time
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
