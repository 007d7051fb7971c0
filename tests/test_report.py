"""The report: its numbers survive in history.json, and its page needs nothing but itself."""

import base64
import hashlib
import html
import io
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from conftest import IDS, TINY
from PIL import Image

import solution
from course.files import UserError, write_json
from course.marks import wilson_interval
from reporting import charts
from reporting.report import (
    HISTORY,
    History,
    Outcome,
    draw,
    read_history,
    render,
    write_history,
)

NAMES = ["Ape", "Bee", "Cat", "Dog", "Eel"]
TEMPERATURE = 1.25
ALL, CROP = 4, 2  # views
# Of nine photos: its species, the probability of each after all views, how many views that takes.
PREDICTED = {
    "Ape_0": (0, (0.90, 0.04, 0.03, 0.02, 0.01), 1),  # right
    "Ape_1": (0, (0.30, 0.40, 0.10, 0.15, 0.05), ALL),  # wrong, and uncertain
    "Bee_2": (1, (0.70, 0.10, 0.08, 0.07, 0.05), ALL),  # wrong
    "Bee_3": (1, (0.10, 0.60, 0.12, 0.10, 0.08), ALL),  # right
    "Cat_0": (2, (0.05, 0.06, 0.45, 0.30, 0.14), ALL),  # right, and uncertain
    "Dog_1": (3, (0.42, 0.23, 0.20, 0.10, 0.05), ALL),  # wrong and uncertain: the fourth likeliest
    "Dog_2": (3, (0.59, 0.21, 0.10, 0.06, 0.04), ALL),  # wrong: the fourth, too
    "Bee_4": (1, (0.10, 0.65, 0.11, 0.08, 0.06), ALL),  # right
    "Eel_0": (4, (0.02, 0.02, 0.02, 0.02, 0.92), CROP),  # right by the crop, not by the whole photo
}
LABELLED = {"Ape": range(5), "Bee": range(2, 5), "Cat": range(2), "Dog": range(3), "Eel": range(9)}
ROWS = [
    solution.EpochRow("validation run", 1, 3.9121, 0.0311, 3e-3, 2.5, 3.0, 0.1234),
    solution.EpochRow("validation run", 2, 2.8122, 0.4312, 2e-3, 2.5, 2.0, 0.5678),
    solution.EpochRow("validation run", 3, 2.7123, 0.5313, 1e-3, 2.5, 1.25, 0.6543),
    solution.EpochRow("final run", 1, 3.9124, 0.0314, 3e-3, 2.5),
    solution.EpochRow("final run", 2, 2.6125, 0.4315, 2e-3, 2.5),
]


def view_logits(probabilities, views):
    """Return logits (views, C) of all views; the whole photo alone is sure of the first class."""
    logits = np.tile(TEMPERATURE * np.log(probabilities), (ALL, 1))
    if views == CROP:  # the mean of a share of 0.25 and one of 0.75 is that of the probabilities
        logits[0, 0] += 5
        logits[1, 0] -= 5 / 3
    return logits.tolist()


def made_up(folder):
    """The history of a training whose numbers are easily counted; each photo has its own grey."""
    images = folder / "00_t_input" / "train" / "images"
    images.mkdir(parents=True)
    names = [f"{name}_{k}.png" for name, numbers in LABELLED.items() for k in numbers]
    for index, name in enumerate(names):
        Image.new("RGB", (40, 40), (10 + 10 * index,) * 3).save(images / name)
    cam = [[1.0, 0.0], [0.0, 0.0]]
    network = solution.BirdNet([-5, -2, 1, 4, 7])
    network.class_names = list(NAMES)
    network.metadata |= {"temperature": TEMPERATURE, "early_exit": 0.85}
    network.metadata |= {"confidence_threshold": 0.5}
    network.metadata |= {"training": {"python": "3.x", "torch": "2.x", "torchvision": "0.x"}}
    model = solution.to_checkpoint(network, solution.Settings(whole_share=0.25))
    return History(
        model={name: value for name, value in model.items() if name != "state_dict"},
        epochs=[asdict(row) for row in ROWS],
        labels={name: 3 * NAMES.index(name[:3]) - 5 for name in names},
        validation={
            "photos": [f"{name}.png" for name in PREDICTED],
            "labels": [label for label, _, _ in PREDICTED.values()],
            "predictions": [
                {"view_logits": view_logits(p, views), "cam": cam, "box": [10, 10, 30, 20 + number]}
                for number, (_, p, views) in enumerate(PREDICTED.values())
            ],
        },
        parameters=1244,
        trained=1234,
        images=str(images),
        seconds=12.3,
        threads=2,
        machine="a machine",
    )


@pytest.fixture
def history(tmp_path):
    return made_up(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    history = made_up(tmp_path_factory.mktemp("tests"))
    return Page(render(history), history)


class Page(HTMLParser):
    """A page's start tags with their attributes, and its text without blanks at line ends."""

    def __init__(self, source, history=None):
        super().__init__()
        self.source, self.history, self.tags = source, history, []
        self.feed(source)
        plain = re.sub(r"<(style|script)>.*?</\1>", "", source, flags=re.DOTALL)
        plain = re.sub(r"</t[dh]><t[dh]>", " | ", plain)
        self.text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())
        self.text = re.sub(r" ([.,:)])", r"\1", self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def photos(self):
        """Return the pixels (H, W, 3) of the photos in the page, in order."""
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        for source in sources:
            content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
            with Image.open(io.BytesIO(content)) as image:
                yield np.asarray(image).astype(int)


def test_the_page_asks_for_nothing_and_runs_nothing_but_its_own_script(page):
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    assert all("href" not in a for tag, a in page.tags if tag not in ("use", "image"))
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "xlink:href")]
    assert all(link.startswith(("data:image/", "#")) for link in links)
    [script] = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] for tag, a in page.tags if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "prefers-color-scheme: dark" in page.source
    assert 'aria-label="loss (nats)"' in page.source
    assert "currentColor" in page.source
    assert "#000000" not in page.source, "charts take the colour of the page"


def test_its_sentences_follow_from_its_numbers(page):
    text, outcome = page.text, Outcome(page.history)
    error = charts.expected_calibration_error(outcome.confidence, outcome.right)
    low, high = wilson_interval(5, 9)
    for sentence in (
        "tell 5 bird species apart",
        f"Accuracy 0.5556 on photos that the validation run was not trained on: 5 of 9 right, 95 % "
        f"interval {low:.4f} to {high:.4f}, mark 2.",
        "one view, gives an accuracy of 0.4444; all 4 views 0.5556; as many as each photo needs, "
        "3.44 in the mean, 0.5556.",
        "lowest after epoch 3 of 3, 1.2500, the last one: a longer training may gain something.",
        "4 errors on 3 species.",
        "among the three likeliest for 7 of 9 photos (0.7778)",
        "3 of 9 predictions are uncertain, with a probability below 0.50; 1 of these are right. "
        "Of the others 2 are wrong.",
        f"error is {error:.4f} at temperature 1.250.",
        "22 labelled photos of 5 species: 2 to 9 of each, 3 in the median.",
        "exceeds 0.850, at the latest",
        "whole photo | 0.4444 | 1 | 1.0000",
        "crop | 0.5556 | 1 | 1.0000",
        "whole photo, mirrored | 0.5556 | 7 | 0.4286",
        "Ape | 5 | 2 | 0.25 | 0.50 | Bee (1)",
        "Cat | 2 | 1 | 1.00 | 1.00 | –",
        "Dog | 3 | 2 | – | 0.00 | Ape (2)",
        "4 errors among Ape, Bee, Dog",
        "4 of 4 errors are within one of them",
        "validation run | 2 | 2.8122 | 0.4312 | 2.0000 | 0.5678 | 2.00e-03 | 2.5",
        "final run | 2 | 2.6125 | 0.4315 | – | – | 2.00e-03 | 2.5",
        "batch_size | 32 | photos",
        "seed | 0",
        "1,234 of 1,244 parameters were trained",
        "Training took 12 s on a machine, 2 threads; Python 3.x, torch 2.x, torchvision 0.x.",
    ):
        assert sentence in text, sentence


def test_photos_stand_in_order(page):
    """The first of each species, and of look-alikes; right and wrong ones."""
    greys = {name: 10 + 10 * index for index, name in enumerate(page.history.labels)}
    first = ["Ape_0", "Bee_2", "Cat_0", "Dog_0", "Eel_0"]
    alike = ["Ape_0", "Bee_2", "Dog_0"]
    right = ["Eel_0", "Ape_0", "Bee_4", "Bee_3", "Cat_0"]  # from the surest to the least sure
    wrong = ["Bee_2", "Dog_2", "Dog_1", "Ape_1"]  # the surest first
    shown = [(name, (40, 40)) for name in first + alike]
    for name in right + wrong:
        shown += [(name, (40, 40)), (name, (10 + list(PREDICTED).index(name), 20))]  # the crop
    for pixels, (name, size) in zip(page.photos(), shown, strict=True):
        assert abs(pixels[-3, -3] - greys[f"{name}.png"]).max() <= 3, name
        assert pixels.shape[:2] == size
    assert "Eel after the whole photo 0.53 Ape" in page.text
    assert "after 2 views 0.92 Eel 0.02" in page.text
    assert "after 1 view, without the crop 0.90 Ape" in page.text


def test_names_are_no_markup(history):
    history.model["class_names"][:2] = ["Jay | <b>blue</b>", "$x_1$ & *Wren*"]
    page = Page(render(history))
    assert {tag for tag, _ in page.tags} & {"b", "em"} == set()
    for name in ("Jay | <b>blue</b>", "$x 1$ & *Wren*"):
        assert name in page.text
    unnamed = replace(history, model=history.model | {"class_names": None})
    assert unnamed.names()[:2] == ["class -5", "class -2"]


def test_history_is_kept_and_a_page_that_cannot_be_written_is_told(history, tmp_path):
    write_json(tmp_path / HISTORY, asdict(history))
    assert read_history(tmp_path) == history
    draw(history, tmp_path)
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 200
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder"):
        draw(history, tmp_path / "taken")


@pytest.mark.parametrize("content", [None, '{"settings": {', "{}", "[1]"])
def test_a_missing_or_damaged_history_is_one_line(content, tmp_path):
    if content is not None:
        (tmp_path / HISTORY).write_text(content)
    cause = "(TypeError|JSONDecodeError)" if content else "FileNotFoundError"
    with pytest.raises(UserError, match=f"{HISTORY} .*{cause}.* `python train_full.py`") as error:
        read_history(tmp_path)
    assert "\n" not in str(error.value)


def test_without_the_photos_they_are_left_out_with_a_word(history, tmp_path):
    page = Page(render(replace(history, images=str(tmp_path / "a" / "b" / "gone"))))
    assert not list(page.photos())
    assert page.text.count("Left out, as they cannot be read in") == 4
    assert "gone: 5 photos" in page.text


def test_without_validation_its_parts_are_left_out_by_name(history):
    labels = {name: label for name, label in history.labels.items() if label != 4}
    bare = replace(history, validation=None, epochs=history.epochs[3:], labels=labels)
    page = Page(render(bare))
    assert "There was no validation" in page.text
    assert "Accuracy 0" not in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 3, "the curves"
    assert len(list(page.photos())) == 4
    assert "0 to 9 of each" in page.text, "a species whose labelled photos are all missing"


@pytest.mark.parametrize("right", [True, False])
def test_predictions_that_are_all_right_or_all_wrong(right, history):
    best = Outcome(history).predicted
    history.validation["labels"] = (best if right else (best + 1) % 5).tolist()
    text = Page(render(history)).text
    assert ("No species was taken for another." in text) == right
    assert ("No prediction is wrong." in text) == right
    assert ("No prediction is right." in text) != right


def test_look_alikes_are_confused_at_least_twice(history):
    outcome = Outcome(history)
    outcome.wrong = wrong = np.zeros((8, 8), dtype=int)
    wrong[0, 1] = wrong[4, 3] = 3
    wrong[1, 2], wrong[2, 1] = 1, 1  # in both directions
    wrong[2, 3] = 1  # the only error between the groups
    assert outcome.look_alikes() == [(5, [0, 1, 2]), (3, [3, 4])]
    wrong[:] = 0
    assert outcome.look_alikes() == []


# ---- Charts --------------------------------------------------------------------------------------


def test_expected_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.97, 0.62, 0.64]), np.array([True, False, True, True])
    # (14/15, 1]: confidence 0.96, accuracy 0.5; (9/15, 10/15]: confidence 0.63, accuracy 1.
    error = charts.expected_calibration_error(confidence, right)
    assert error == pytest.approx((2 * 0.46 + 2 * 0.37) / 4)
    edge = charts.expected_calibration_error(np.array([0.6, 0.55]), np.array([True, False]))
    assert edge == pytest.approx(0.15 / 2), "an upper edge belongs to its bin"
    axes = charts.reliability(confidence, right).axes[0]
    assert axes.lines[-1].get_xydata().ravel().tolist() == pytest.approx([0.63, 1, 0.96, 0.5])
    assert np.flatnonzero(axes.patches[0].get_data().values).tolist() == [9, 14]


def test_curves_are_the_values_with_a_style_a_kind_and_a_colour_a_run():
    rows = [{"stage": "one", "loss": 1.0, "val_loss": 2.0}, {"stage": "two", "loss": 3.0}]
    rows += [{"stage": "one", "loss": value, "val_loss": value} for value in (np.nan, 0.2)]
    lines = charts.curves(rows, "loss", "loss").axes[0].lines
    labels = ["one, training", "one, validation", "two, training"]
    assert [line.get_label() for line in lines] == labels
    assert [line.get_linestyle() for line in lines] == ["--", "-", "--"]
    assert lines[0].get_xdata().tolist() == [1, 2, 3]
    assert np.array_equal(lines[0].get_ydata(), [1.0, np.nan, 0.2], equal_nan=True)
    assert lines[1].get_ydata()[0] == 2
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()


def test_a_confusion_stands_in_the_row_of_the_truth_with_its_share_of_it():
    axes = charts.confusion(np.array([[6, 3], [0, 1]]), ["a", "b"]).axes[0]
    numbers = {(*text.get_position(),): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "6", (1, 0): "3", (1, 1): "1"}
    assert axes.yaxis_inverted(), "the first row on top"
    shares = axes.images[0].get_array()  # those of wrong ones are negative, and red
    assert shares.compressed().tolist() == pytest.approx([6 / 9, -3 / 9, 1])


# ---- From a network ------------------------------------------------------------------------------


def test_history_holds_plain_numbers(untrained, photos, tmp_path):
    network, (gt, images) = untrained, photos
    predictor = solution.Classifier(solution.to_checkpoint(network, TINY)).predictor
    predictions = list(predictor.predict([images / "00.jpg", images / "02.jpg"]))
    network.validation = solution.Validation(
        ["00.jpg", "02.jpg"], torch.tensor([0, 2]), predictions
    )
    network.requires_grad_(False).head.requires_grad_(True)
    checkpoint = solution.to_checkpoint(network, TINY)
    write_history(tmp_path, network, checkpoint, ROWS, gt | {"gone.png": IDS[0]}, images, 3.0)
    history = read_history(tmp_path)
    assert history.parameters == sum(p.numel() for p in network.parameters())
    assert history.trained == 1280 * 3 + 3, "the head's"
    assert history.validation["photos"] == ["00.jpg", "02.jpg"]
    assert history.validation["labels"] == [0, 2]
    for kept, seen in zip(history.validation["predictions"], predictions, strict=True):
        for name in ("view_logits", "cam", "box"):
            actual, expected = torch.tensor(kept[name]), torch.as_tensor(getattr(seen, name))
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
