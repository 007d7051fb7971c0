"""The yardsticks of benchmarks/ compute what they are compared with."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import solution

sys.path.insert(0, str(Path(solution.__file__).parent / "benchmarks"))

import classify_speed
import references


@pytest.mark.parametrize("engine", [references.onnx_runtime, references.open_vino])
def test_other_engines_compute_the_same_logits(photos, model_path, engine):
    gt, folder = photos
    classifier = solution.load_classifier(model_path)
    network = engine(references.to_onnx(classifier.checkpoint))
    paths = [folder / name for name in gt][:5]
    theirs = network(references.inputs(classifier, paths))
    ours = torch.stack([logits for _, logits in classifier.answers(paths)]).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_all_contestants_answer_for_each_photo(photos, model_path):
    gt, folder = photos
    answers = {n: call() for n, call in classify_speed.contestants(model_path, folder).items()}
    assert [answer.keys() for answer in answers.values()] == [gt.keys()] * 4
    assert answers["solution"] == answers["ONNX Runtime"] == answers["OpenVINO"]


def test_operations_are_those_of_the_paper():
    # Sandler et al., 2018, table 4: 300 million multiplications with addition, 1,000 classes.
    assert classify_speed.operations(1000, 224) == pytest.approx(2 * 300e6, rel=0.01)
