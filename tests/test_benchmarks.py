"""The yardsticks of benchmarks/ compute what they are compared with."""

import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

import solution

sys.path.insert(0, str(Path(solution.__file__).parent / "benchmarks"))

import choices
import classify_speed
import references
import train_speed


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


@pytest.mark.parametrize(
    "row",
    [
        choices.Row("head first", head_first=True),
        choices.Row("no block trained", {"unfrozen_blocks": 0}),
    ],
    ids=lambda row: row.what,
)
def test_a_choice_is_trained_on_shared_views(photos, init, row):
    gt, folder = photos
    labels = torch.tensor([sorted(set(gt.values())).index(class_id) for class_id in gt.values()])
    job = choices.Job(row, 1, TINY, choices.SharedViews([]), labels, init)
    job = replace(job, views=choices._all_views(job, [folder / name for name in gt]))
    assert all(view.is_shared() for view in job.views.views)
    assert job.views.count == TINY.epochs
    threads = torch.get_num_threads()
    try:
        same, accuracy, loss, seconds = choices.validated(job)
    finally:
        torch.set_num_threads(threads)
    assert same is row
    assert 0 <= accuracy <= 1
    assert loss > 0
    assert seconds > 0


def test_rows_from_random_weights_start_from_a_file_of_them(photos, tmp_path, monkeypatch):
    gt, folder = photos
    images = tmp_path / "00_x_input" / "train" / "images"
    shutil.copytree(folder, images)
    lines = "".join(f"{name},{class_id}\n" for name, class_id in gt.items())
    (images.parent / "gt.csv").write_text(f"filename,class_id\n{lines}")
    (tmp_path / "00_x_input" / "test" / "images").mkdir(parents=True)
    monkeypatch.setattr(choices, "ROWS", (choices.Row("random weights", pretrained=False),))
    arguments = Namespace(tests_dir=tmp_path, epochs=1, seeds=2, init=None)
    [group] = choices.jobs(arguments, tmp_path)
    assert [job.seed for job in group] == [0, 1]
    assert all(job.init == tmp_path / "random.pt" for job in group)
    assert choices.network_of(group[0]).class_ids == [0, 1, 2]


def test_random_weights_keep_the_signal_through_all_blocks(photos, tmp_path):
    gt, folder = photos
    paths = [folder / name for name in gt]
    file = choices.save_random_weights(paths, tmp_path / "random.pt")
    network = solution.pretrained(range(2), None, TINY, file).eval()
    constants = solution.preprocessing_of(TINY)
    views = [solution.evaluation_view(solution.read_photo(p, 64), constants) for p in paths[:8]]
    with torch.inference_mode():
        features = network.features(solution.normalise(views, constants)).mean((2, 3))
    assert features.std(0).mean() > 0.01  # under 1e-8 with batch norms that saw no photo


def test_rows_change_settings_that_exist():
    for row in choices.ROWS:
        replace(solution.Settings(), **row.changes)


def test_the_plain_loop_computes_what_the_cache_holds(photos, network):
    gt, folder = photos
    paths = [folder / name for name in gt]
    plain, cached = (
        kind(network, paths, TINY, solution.Progress()).view(0, np.arange(5))[np.arange(5)]
        for kind in (train_speed.PlainCache, solution.TrunkCache)
    )
    torch.testing.assert_close(plain, cached.float(), atol=1e-2, rtol=1e-2)


def test_the_target_is_reached_where_the_curve_first_is_there():
    curve = [(10.0, 0.5), (20.0, 0.9), (30.0, 0.8)]
    assert train_speed.reached(curve, 0.8) == 20.0
    assert train_speed.reached(curve, 0.95) is None
