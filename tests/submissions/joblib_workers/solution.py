"""Works in joblib's processes: large arrays go to them by way of files in memory."""

from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

FEATURES = np.zeros((400, 800))


def read(photo, features):
    return photo.name, int(photo.read_text()) + int(features.sum())


def train_classifier(train_gt, train_img_dir, fast_train=False):
    noise = np.random.default_rng(0).normal(size=(40, 3))
    return cross_val_score(LogisticRegression(), noise, np.arange(40) % 2, n_jobs=2)


def classify(model_path, test_img_dir):
    photos = sorted(Path(test_img_dir).iterdir())
    jobs = (joblib.delayed(read)(photo, FEATURES) for photo in photos)
    return dict(joblib.Parallel(n_jobs=2)(jobs))
