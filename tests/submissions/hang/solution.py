"""Never ends."""

import time


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    while True:
        time.sleep(1)
