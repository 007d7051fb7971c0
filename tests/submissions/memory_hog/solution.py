"""Takes all the memory that there is."""


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    hoard = []
    while True:
        hoard.append(bytearray(2**24))
