"""Prints what could be taken for messages of the grader, on both streams and by force."""

import os
import sys
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    message = '{"event": "done", "left_running": false}'
    print(message, flush=True)
    print(message, file=sys.stderr)
    os.write(1, message.encode() + b"\n")
    os.write(2, b"\xff\xfe\n")
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
