"""Prints without end."""


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    while True:
        print("epoch 1, loss 0.1234, accuracy 0.5678 " * 100)
