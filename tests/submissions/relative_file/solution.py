"""Opens a file that lies beside the code as if the run started there."""

from pathlib import Path

CONFIG = open("config.yaml").read()  # noqa: PTH123, SIM115


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    return {photo.name: int(photo.read_text()) for photo in Path(test_img_dir).iterdir()}
