"""birds_model.pt: what it says of itself, and what happens to files that are not it."""

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from conftest import SHIPPED, TINY, without

import solution
from solution import SubmissionError, load_classifier
from tests import reference_logits


def test_it_describes_itself(model_path, network, tiny):
    checkpoint = torch.load(model_path, weights_only=True)
    assert checkpoint["format"] == "birds-mobilenet-v2"
    assert checkpoint["class_ids"] == [-7, 3, 1000]
    assert checkpoint["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert checkpoint["preprocessing"]["std"] == [0.229, 0.224, 0.225]
    for name in ("input_size", "first_size", "box_threshold", "box_margin", "whole_share"):
        assert checkpoint["preprocessing"][name] == getattr(TINY, name)
    assert solution.Settings(**checkpoint["settings"]) == tiny
    assert checkpoint["fallback_class"] == 3, "the most frequent of the labels"
    assert checkpoint["state_dict"].keys() == network.state_dict().keys()


def test_metadata_replaces_what_is_not_known_before_calibration(tiny):
    network = solution.BirdNet([4, 5])
    network.class_names = ["Wren", "class 5"]
    checkpoint = solution.to_checkpoint(network, tiny)
    names = ("temperature", "early_exit", "confidence_threshold", "class_names")
    assert [checkpoint[name] for name in names] == [1.0, 1.0, 0.0, ["Wren", "class 5"]]
    measured = {"temperature": 0.5, "early_exit": 0.9, "confidence_threshold": 0.3}
    network.metadata |= measured | {"training": {"photos": 9}}
    checkpoint = solution.to_checkpoint(network, tiny)
    assert checkpoint["training"] == {"photos": 9}
    classifier = solution.Classifier(checkpoint)
    assert {name: getattr(classifier, name) for name in measured} == measured
    assert classifier.class_names == ["Wren", "class 5"]


def test_the_shipped_model_computes_here_what_it_computed_where_it_was_made():
    assert SHIPPED.stat().st_size < 10_000_000
    expected = torch.tensor(json.loads(reference_logits.FILE.read_text()))
    assert (expected[0] - expected[1]).abs().max() > 0.1
    actual = torch.tensor(reference_logits.compute())
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)


def test_the_shipped_model_says_what_it_knows_and_loading_leaves_the_random_state():
    before = torch.get_rng_state()
    checkpoint = load_classifier(SHIPPED).checkpoint
    assert torch.equal(torch.get_rng_state(), before)
    assert len(checkpoint["class_names"]) == len(checkpoint["class_ids"]) == 50
    assert checkpoint["training"]["photos"] > 1000
    assert 0 < checkpoint["early_exit"] <= 1


# ---- Files that are not it -----------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_damaged_files_give_one_line_and_execute_nothing(model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exploding = io.BytesIO()
    torch.save({"format": Bomb()}, exploding)
    cut = model_path.read_bytes()[:1_000_000]
    for content in (b"", b"no model\n", cut, pickle.dumps(Bomb()), exploding.getvalue()):
        Path("bad.pt").write_bytes(content)
        with pytest.raises(SubmissionError, match=r"bad\.pt cannot be read") as error:
            load_classifier("bad.pt")
        assert "\n" not in str(error.value)
        assert not Path("exploded").exists()
    with pytest.raises(SubmissionError, match=r"no file none\.pt: .*train_full.*--init"):
        load_classifier("none.pt")


def spoilt(name, change):
    """A checkpoint of which one tensor was changed."""
    return lambda c: c | {"state_dict": c["state_dict"] | {name: change(c["state_dict"][name])}}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda c: [1, 2], "no checkpoint"),
        (lambda c: {"weight": torch.zeros(2)}, "is no birds-mobilenet-v2 version 4: make one with"),
        (lambda c: c | {"format": "another"}, "is no birds-mobilenet-v2 version 4"),
        (lambda c: c | {"format_version": 3}, "is no birds-mobilenet-v2 version 4"),
        (without("preprocessing"), "damaged"),
        (lambda c: c | {"class_ids": [*c["class_ids"], 5]}, "damaged"),
        (spoilt("head.weight", torch.Tensor.half), "damaged"),
        (spoilt("head.weight", lambda v: v * torch.nan), "damaged"),
    ],
)
def test_what_is_not_it_gives_one_line_that_names_the_file(change, cause, model_path, tmp_path):
    torch.save(change(torch.load(model_path, weights_only=True)), tmp_path / "other.pt")
    with pytest.raises(SubmissionError, match=cause) as error:
        load_classifier(tmp_path / "other.pt")
    assert "other.pt" in str(error.value)
    assert "\n" not in str(error.value)
