"""birds_model.pt: what it says of itself, and what happens to files that are not it."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from conftest import SHIPPED, TINY

import solution
from solution import SubmissionError, known_answer_error, load_classifier


def test_it_describes_itself(model_path, photos, network):
    checkpoint = torch.load(model_path, weights_only=True)
    assert checkpoint["format"] == "birds-mobilenet-v2"
    assert checkpoint["class_ids"] == [-7, 3, 1000]
    assert checkpoint["training"]["labels_sha256"] == solution.labels_fingerprint(photos[0])
    assert checkpoint["training"]["photos"] == 24
    assert checkpoint["training"]["torch"] == str(torch.__version__)
    assert checkpoint["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert checkpoint["preprocessing"]["std"] == [0.229, 0.224, 0.225]
    for name in ("input_size", "first_size", "box_threshold", "box_margin"):
        assert checkpoint["preprocessing"][name] == getattr(TINY, name)
    assert checkpoint["settings"]["unfrozen_blocks"] == 3
    assert checkpoint["fallback_class"] == 3, "the most frequent of the labels"
    assert checkpoint["validation"]["total"] == 5
    assert checkpoint["temperature"] == network.facts["temperature"] != 1.0
    assert checkpoint["unsure_below"] == network.facts["unsure_below"] > 0.0


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_it_computes_here_what_it_computed_where_it_was_made(shift, model_path, tmp_path):
    """All biases are shifted: the probabilities, and so the box, stay as they are.

    What was stored of one class is shifted the other way: the worst counts, not the mean.
    """
    assert known_answer_error(model_path) <= 1e-5
    checkpoint = torch.load(model_path, weights_only=True)
    answer = checkpoint["known_answer"]["logits"]
    assert max(answer) - min(answer) > 0.1
    checkpoint["state_dict"]["head.bias"] += shift
    answer[1] -= shift
    torch.save(checkpoint, tmp_path / "changed.pt")
    assert known_answer_error(tmp_path / "changed.pt") == pytest.approx(1.0, abs=1e-4)


def test_loading_leaves_the_random_state(model_path):
    before = torch.get_rng_state()
    load_classifier(model_path)
    assert torch.equal(torch.get_rng_state(), before)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def bad_files(model_path: Path) -> dict[str, bytes]:
    good = model_path.read_bytes()
    return {
        "empty": b"",
        "text": b"not a model\n",
        "truncated": good[: len(good) // 2],
        "bomb": pickle.dumps(Bomb()),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "bomb"])
def test_damaged_files_give_one_line_and_execute_nothing(kind, model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pt").write_bytes(bad_files(model_path)[kind])
    with pytest.raises(SubmissionError, match=r"bad\.pt cannot be read") as error:
        load_classifier(tmp_path / "bad.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()


def test_a_bomb_inside_torchs_own_format_does_not_go_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(SubmissionError, match="cannot be read"):
        load_classifier(tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SubmissionError, match=r"no file .*none\.pt"):
        load_classifier(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [[1, 2], {"weight": torch.zeros(2)}])
def test_foreign_checkpoints_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(SubmissionError, match=r"foreign\.pt"):
        load_classifier(tmp_path / "foreign.pt")


@pytest.mark.parametrize("fact", [{"format": "another"}, {"format_version": 1}])
def test_another_format_or_version_is_refused(fact, model_path, tmp_path):
    checkpoint = torch.load(model_path, weights_only=True)
    torch.save(checkpoint | fact, tmp_path / "other.pt")
    with pytest.raises(SubmissionError, match=r"other\.pt is no birds-mobilenet-v2 .* of version"):
        load_classifier(tmp_path / "other.pt")


def test_a_weight_of_another_shape_is_refused(model_path, tmp_path):
    checkpoint = torch.load(model_path, weights_only=True)
    checkpoint["state_dict"]["features.0.0.weight"] = torch.zeros(5, 3, 3, 3)
    torch.save(checkpoint, tmp_path / "shape.pt")
    with pytest.raises(SubmissionError, match="damaged"):
        load_classifier(tmp_path / "shape.pt")


@pytest.mark.parametrize("key", ["class_ids", "state_dict", "features", "fallback_class"])
def test_a_checkpoint_without_a_part_is_refused(key, model_path, tmp_path):
    checkpoint = torch.load(model_path, weights_only=True)
    del checkpoint[key]
    torch.save(checkpoint, tmp_path / "part.pt")
    with pytest.raises(SubmissionError, match="damaged"):
        load_classifier(tmp_path / "part.pt")


def test_a_head_of_another_size_is_refused(model_path, tmp_path):
    checkpoint = torch.load(model_path, weights_only=True)
    checkpoint["class_ids"].append(5)
    torch.save(checkpoint, tmp_path / "head.pt")
    with pytest.raises(SubmissionError, match="damaged"):
        load_classifier(tmp_path / "head.pt")


def test_the_shipped_model_is_right_and_small():
    assert SHIPPED.stat().st_size < 10_000_000
    assert known_answer_error(SHIPPED) <= 1e-3
    checkpoint = torch.load(SHIPPED, weights_only=True)
    assert len(checkpoint["class_names"]) == len(checkpoint["class_ids"]) == 50
    assert checkpoint["training"]["photos"] > 1000


@pytest.mark.parametrize("spoil", [lambda v: v.half(), lambda v: v * float("nan")])
def test_weights_in_half_precision_or_that_are_no_numbers_are_refused(model_path, tmp_path, spoil):
    content = torch.load(model_path, weights_only=True)
    content["state_dict"]["head.weight"] = spoil(content["state_dict"]["head.weight"])
    torch.save(content, tmp_path / "spoilt.pt")
    with pytest.raises(SubmissionError, match="damaged"):
        solution.load_classifier(tmp_path / "spoilt.pt")
