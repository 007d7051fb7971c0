"""Draws a curve that nobody sees."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def train_classifier(train_gt, train_img_dir, fast_train=False):
    figure, axes = plt.subplots()
    axes.plot([3.0, 2.0, 1.0], label="loss")
    axes.legend()
    figure.canvas.draw()
    plt.close(figure)
    return "network"


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
