"""Is killed, as by the system when memory runs out."""

import os
import signal


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    os.kill(os.getpid(), signal.SIGKILL)
