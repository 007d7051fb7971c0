"""Asks for the name of the machine it runs on, as libraries that log do."""

import socket
from pathlib import Path


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return socket.getfqdn()


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
