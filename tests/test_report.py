"""The report: its numbers survive in history.json, and its page needs nothing but itself."""

import base64
import io
import json
import re
from collections import Counter
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import draw_photo
from matplotlib.text import Text
from PIL import Image

import solution
import train_full
from course.marks import wilson_interval
from reporting import birds, charts
from reporting.page import Page

ROWS = [
    solution.EpochRow("validation run", 1, 3.9121, 0.0311, 3.4567, 0.1234, 3e-3, 2.5),
    solution.EpochRow("validation run", 2, 2.8122, 0.4312, 2.3456, 0.5678, 2e-3, 2.5),
    solution.EpochRow("validation run", 3, 2.7123, 0.5313, 2.4321, 0.6543, 1e-3, 2.5),
    solution.EpochRow("final run", 1, 3.9124, 0.0314, None, None, 3e-3, 2.5),
    solution.EpochRow("final run", 2, 2.6125, 0.4315, None, None, 2e-3, 2.5),
]


def make_history(images, classes, names=None):
    """Two validation photos of each class; the second one of class 0 is taken for class 1.

    The first look alone is wrong about the first six of them, the second about the first four.
    """
    class_ids = [3 * i - 5 for i in range(classes)]
    labels = {f"{i:02d}_{k}.jpg": class_ids[i] for i in range(classes) for k in range(3)}
    answer = np.arange(classes).repeat(2)
    answer[1] = 1
    logits = np.random.default_rng(0).normal(size=(2 * classes, classes))
    logits[np.arange(2 * classes), answer] += 9
    first, second = logits.copy(), logits.copy()
    first[:6] = np.roll(first[:6], 1, 1)  # the next class, so wrong
    second[:4] = np.roll(second[:4], 1, 1)
    right, total = 2 * classes - 1, 2 * classes
    return birds.History(
        settings=asdict(solution.Settings()),
        preprocessing=solution.preprocessing_of(solution.Settings()),
        facts={
            "validation": {"correct": right, "total": total, "accuracy": right / total},
            "temperature": 1.25,
            "unsure_below": 0.3,
        },
        epochs=[asdict(row) for row in ROWS],
        labels=labels,
        class_ids=class_ids,
        class_names=names or [f"Long_named_Bird_{i}" for i in range(classes)],
        validation_answers={
            "photos": [f"{i:02d}_{k}.jpg" for i in range(classes) for k in range(2)],
            "labels": np.arange(classes).repeat(2).tolist(),
            "logits": logits.round(4).tolist(),
            "first": first.round(4).tolist(),
            "second": second.round(4).tolist(),
            "heat": [[[1.0, 0.0], [0.0, 0.0]]] * total,
            "box": [[30, 20, 60, 50]] * total,
        },
        architecture=[
            {"name": "a", "shape": [8, 7, 7], "operations": 3e6, "parameters": 10, "trained": 0},
            {"name": "b", "shape": [3], "operations": 1e6, "parameters": 1234, "trained": 1234},
        ],
        photo_sizes={"500×375": len(labels)},
        images=str(images),
        seconds=12.3,
        threads=2,
        machine="a machine",
        versions={"torch": "2.x"},
    )


COARSE = 72  # dots per inch, where it is not about the pixels: drawn in half the time


class Tags(HTMLParser):
    """The start tags of a page, with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """History and report of 50 species, with photos of noise, which compress worst."""
    images = tmp_path_factory.mktemp("noise")
    history = make_history(images, 50)
    for i, name in enumerate(history.labels):
        draw_photo(images / name, i, seed=i, size=(240, 180))
    folder = tmp_path_factory.mktemp("report")
    birds.draw(history, folder)
    return history, folder


@pytest.fixture
def few(tmp_path, monkeypatch):
    """The history of three species whose names look like markup, with photos."""
    monkeypatch.setattr(charts, "DOTS_PER_INCH", COARSE)
    history = make_history(
        tmp_path, 3, ["Jay | <b>blue</b>", "$x_1$ & *Wren*", "[Tit](http://a.b)"]
    )
    for i, name in enumerate(history.labels):
        draw_photo(tmp_path / name, i // 3, seed=i)
    return history


def test_the_page_holds_all_it_shows(drawn):
    _, folder = drawn
    html = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags(html).tags
    assert len(html) < 6e6
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object"}
    assert "url(" not in html
    assert all("href" not in attributes for _, attributes in tags)
    sources = [attributes["src"] for _, attributes in tags if "src" in attributes]
    pictures = {path.read_bytes() for path in (folder / "pictures").iterdir()}
    assert {base64.b64decode(source.partition("base64,")[2]) for source in sources} == pictures
    assert all(source.startswith(("data:image/png;", "data:image/jpeg;")) for source in sources)
    assert len(sources) == 11
    assert all(len(attributes["alt"]) > 20 for tag, attributes in tags if tag == "img")
    assert len(list((folder / "pictures").glob("*.jpeg"))) == 4  # the others show no photo


def test_the_markdown_shows_the_same_pictures(drawn):
    _, folder = drawn
    text = (folder / "report.md").read_text(encoding="utf-8")
    for path in (folder / "pictures").iterdir():
        assert f"](pictures/{path.name})" in text
    assert text.count("](pictures/") == 11


def test_its_numbers_are_those_of_the_history(drawn):
    history, folder = drawn
    text = (folder / "report.md").read_text(encoding="utf-8")
    for row in ROWS:
        run = row.stage.removesuffix(" run")
        assert f"| {run} | {row.epoch} | {row.loss:.4f} | {row.accuracy:.4f} |" in text
    assert "150 labelled photos of 50 species: 3 to 3 a species" in text
    assert "Accuracy 0.9900 on photos" in text
    low, high = wilson_interval(99, 100)
    assert f"99 of 100 right, 95 % interval {low:.4f} to {high:.4f}, mark 10" in text
    assert "the mark to expect on 100 hidden photos: 10, probability 1.00." in text
    assert "| first look alone | 0.9400 | 94 of 100 |" in text
    assert "| second look alone | 0.9600 | 96 of 100 |" in text
    assert "| both looks | 0.9900 | 99 of 100 |" in text
    assert "from 0.9400, that of the first one alone, to 0.9900; alone it has 0.9600" in text
    assert "lowest after epoch 2 (2.3456) and ended at 2.4321" in text
    assert "1 of 1 errors are within one of them" in text
    assert "| 1 | 0, 1 | Long named Bird 0, Long named Bird 1 | 1 | 100 % |" in text
    assert "1 of 1 errors are on 1 of 1 species with errors: Long named Bird 0 1." in text
    assert "1,234 of 1,244 parameters were trained" in text
    assert "75 % of the 4.0 million operations" in text
    answers = birds.answers_of(history)
    error = charts.expected_calibration_error(answers.probabilities, answers.labels)
    assert f"calibration error is {error:.4f} at temperature 1.250" in text


def test_training_on_mixed_photos_is_explained(drawn):
    text = (drawn[1] / "report.md").read_text(encoding="utf-8")
    assert "augmented, mixed photos" in text
    assert text.index("augmented, mixed photos") < text.index("pictures/accuracy.png")


NAMES = ("Ape", "Bee", "Cat", "Dog", "Eel")
# Of eight photos: the species, the probability of each, and the answer that this makes.
ANSWERED = (
    (0, (0.90, 0.04, 0.03, 0.02, 0.01)),  # right
    (0, (0.30, 0.40, 0.10, 0.15, 0.05)),  # wrong, and in doubt
    (1, (0.70, 0.10, 0.08, 0.07, 0.05)),  # wrong
    (1, (0.10, 0.60, 0.12, 0.10, 0.08)),  # right
    (2, (0.05, 0.06, 0.45, 0.30, 0.14)),  # right, and in doubt
    (3, (0.42, 0.23, 0.20, 0.10, 0.05)),  # wrong, and in doubt: the fourth in likelihood
    (3, (0.59, 0.21, 0.10, 0.06, 0.04)),  # wrong: the fourth, too
    (1, (0.10, 0.65, 0.11, 0.08, 0.06)),  # right
)
LABELLED = (5, 2, 2, 3, 9)  # training photos of each species


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """History, photos and report whose numbers are easily counted; each photo has its own grey."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "DOTS_PER_INCH", COARSE)
        yield draw_counted(tmp_path_factory)


def draw_counted(tmp_path_factory):
    images, folder = tmp_path_factory.mktemp("greys"), tmp_path_factory.mktemp("counted")
    names = [f"{name}_{k}.png" for name, n in zip(NAMES, LABELLED, strict=True) for k in range(n)]
    names[5:7] = ["Bee_2.png", "Bee_3.png"]
    asked = ["Ape_0", "Ape_1", "Bee_2", "Bee_3", "Cat_0", "Dog_1", "Dog_2", "Bee_4"]
    for index, name in enumerate([*names, "Bee_4.png"]):
        Image.new("RGB", (40, 40), (10 + 10 * index,) * 3).save(images / name)
    logits = [[1.25 * np.log(p) for p in row] for _, row in ANSWERED]
    answers = {
        "photos": [f"{name}.png" for name in asked],
        "labels": [label for label, _ in ANSWERED],
        **dict.fromkeys(("logits", "first", "second"), logits),
        "heat": [[[1.0, 0.0], [0.0, 0.0]]] * 8,
        "box": [[10, 10, 30, 30]] * 8,
    }
    rows = [replace(ROWS[i], val_loss=loss) for i, loss in enumerate((3.0, 2.0, 1.25))]
    history = replace(
        make_history(images, 5, list(NAMES)),
        labels={name: 3 * NAMES.index(name[:3]) - 5 for name in names},
        validation_answers=answers,
        facts={"validation": None, "temperature": 1.25, "unsure_below": 0.5},
        epochs=[asdict(row) for row in (*rows, *ROWS[3:])],
    )
    birds.draw(history, folder)
    return history, images, folder


def test_its_sentences_follow_from_its_numbers(counted):
    history, _, folder = counted
    text = (folder / "report.md").read_text(encoding="utf-8")
    answers = birds.answers_of(history)
    truth = [label for label, _ in ANSWERED]
    plain = np.exp([[1.25 * np.log(p) for p in row] for _, row in ANSWERED])
    before = charts.expected_calibration_error(plain / plain.sum(1, keepdims=True), np.array(truth))
    after = charts.expected_calibration_error(answers.probabilities, np.array(truth))
    assert abs(before - after) > 1e-3, "a fixture that sees"
    for said in (
        "21 labelled photos of 5 species: 2 to 9 a species, 3 in the median.",
        "has 4.50 times as many (9) as those with the fewest (2 photos, 2 species).",
        "4 of 4 errors are on 3 of 3 species with errors: Dog 2, Ape 1, Bee 1.",
        "among the three likeliest answers for 6 of 8 photos (0.7500)",
        "3 of 8 answers have a probability below 0.50, the limit of doubt: 1 of these are right, "
        "and 2 wrong answers lie above it.",
        "at its lowest, 1.2500, after the last epoch, 0.7500 below the one before",
        f"error is {after:.4f} at temperature 1.250 and {before:.4f} without one",
        "accuracy: Dog (2) 0, Ape (2) 0.5, Bee (3) 0.667, Cat (1) 1.",  # the lowest first
        "head, final run: 0.003 → 0.002 (epoch 2); "
        "backbone, final run: 0.001 → 0.0006667 (epoch 2)",
        "| 0 | a | 8×7×7 | 3.00 | 10 | frozen |",
        "| 1 | b | 3 | 1.00 | 1,234 | trained |",
    ):
        assert said in text
    for kind, order in (("wrong", (0.70, 0.59, 0.42, 0.40)), ("right", (0.90, 0.65, 0.60, 0.45))):
        [line] = [line for line in text.splitlines() if f"pictures/{kind}_answers" in line]
        assert [float(part[:4]) for part in line.split("both: ")[1:]] == list(order)


def test_photos_stand_under_their_names(counted):
    """The first of each species; of look-alikes, the first that was taken for one of its group."""
    _, images, folder = counted
    shown = {"look_alikes": (4, ["Ape_1", "Bee_2", "Dog_1"])}
    shown["sample_photos"] = (8, ["Ape_0", "Bee_2", "Cat_0", "Dog_0", "Eel_0"])
    for name, (columns, photos) in shown.items():
        with Image.open(folder / "pictures" / f"{name}.jpeg") as picture:
            pixels = np.asarray(picture).astype(int)
        for column, photo in enumerate(photos):
            x = int((column + 0.5) * pixels.shape[1] / columns)
            with Image.open(images / f"{photo}.png") as image:
                grey = image.getpixel((0, 0))[0]
            assert abs(pixels[int(0.8 * len(pixels)), x] - grey).max() <= 3, photo


def test_report_only_draws_again_and_names_are_no_markup(few, tmp_path, capsys):
    folder = tmp_path / "report"
    birds.save_history(few, folder)
    assert birds.read_history(folder) == few
    assert train_full.main(["--report-only", "--report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Wrote {folder / 'report.html'}\n"
    tags = {tag for tag, _ in Tags((folder / "report.html").read_text(encoding="utf-8")).tags}
    assert not tags & {"b", "a", "em"}
    text = (folder / "report.md").read_text(encoding="utf-8")
    species = r"Jay \| \<b>blue\</b>, $x 1$ \& \*Wren\*"
    assert rf"| 1 | \<b>blue\</b>, \*Wren\* | {species} | 1 | 100 % |" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no file"), ('{"settings": {', "damaged"), ("{}", "damaged"), ("[1]", "damaged")],
)
def test_a_missing_or_damaged_history_is_one_line(content, said, tmp_path, capsys):
    if content is not None:
        (tmp_path / "history.json").write_text(content)
    assert train_full.main(["--report-only", "--report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert said in error
    assert str(tmp_path / "history.json") in error
    assert "python train_full.py" in error


def test_a_report_that_cannot_be_written_is_one_line(few, tmp_path, capsys):
    folder = tmp_path / "report"
    birds.save_history(replace(few, validation_answers=None), folder)
    (folder / "pictures").write_text("a file in the way")
    assert train_full.main(["--report-only", "--report", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert "--report-only" in error


def test_without_the_photos_their_pictures_are_left_out_by_name(few, tmp_path):
    birds.draw(replace(few, images=str(tmp_path / "gone")), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert text.count("Left out of “") == 4
    assert "“One photo of each species.”, for want of a readable photo" in text
    assert not list((tmp_path / "report" / "pictures").glob("*.jpeg"))
    assert "pictures/confusion.png" in text


def test_without_validation_its_parts_are_left_out_by_name(few, tmp_path):
    unmeasured = replace(
        few,
        validation_answers=None,
        facts={"validation": None, "temperature": 1.0, "unsure_below": 0.0},
        epochs=few.epochs[3:],
    )
    birds.draw(unmeasured, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Left out: what each look is worth, accuracy per species, confusion matrix" in text
    assert "Accuracy 0" not in text
    names = {path.stem for path in (tmp_path / "report" / "pictures").iterdir()}
    assert names == {"photos_per_species", "sample_photos", "loss", "accuracy", "learning_rate"}


def test_answers_that_are_all_right_need_no_groups(few, tmp_path):
    few.validation_answers["labels"][1] = 1
    birds.draw(few, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "No species was taken for another." in text
    assert "No answer is wrong." in text


def test_every_setting_has_its_reason():
    assert set(birds.REASONS) == {field.name for field in fields(solution.Settings)}


def test_expected_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.03, 0.97], [0.62, 0.38], [0.36, 0.64]])
    labels = np.array([0, 0, 0, 1])
    # (14/15, 1]: confidence 0.96, accuracy 0.5; (9/15, 10/15]: confidence 0.63, accuracy 1.
    error = charts.expected_calibration_error(probabilities, labels)
    assert error == pytest.approx((2 * 0.46 + 2 * 0.37) / 4)
    count, _, _ = charts.calibration_bins(np.array([[0.6, 0.4], [1.0, 0.0]]), np.array([0, 0]))
    assert np.flatnonzero(count).tolist() == [8, 14]  # an upper edge belongs to its bin


def drawn_pixels(picture):
    """The pixels (H, W, 3) of a chart."""
    with Image.open(io.BytesIO(picture.image)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def coloured(pixels, colour, tolerance=12):
    """Where a chart has a colour, given as "#rrggbb": (H, W)."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return abs(pixels - wanted).max(2) <= tolerance


def test_a_confusion_stands_in_the_row_of_the_truth_with_its_share_of_it():
    pixels = drawn_pixels(charts.confusion("c", [[6, 3], [0, 1]], ["a", "b"]))
    red, green, blue = np.moveaxis(pixels, 2, 0)
    right, wrong = np.argwhere(blue - red > 40), np.argwhere(red - blue > 40)
    middle = (right.min(0) + right.max(0)) / 2
    y, x = wrong.mean(0) - middle
    assert y < 0 < x, "above on the right"
    upper, lower = (np.median(green[tuple(part.T)]) for part in (
        right[(right < middle).all(1)], right[(right > middle).all(1)]
    ))  # fmt: skip
    assert lower < upper - 20, "1 of 1 is darker than 6 of 9"


def test_bars_stand_in_their_order():
    pixels = drawn_pixels(charts.bars("b", {"long": 1.0, "short": 0.2}, "share"))
    rows = np.argwhere(coloured(pixels, charts.COLOURS[0]).sum(1) > 0.5 * pixels.shape[1])
    assert len(rows) > 0
    assert rows.max() < len(pixels) / 2


def test_training_is_dashed_and_validation_solid():
    values = np.linspace(1, 2, 30).tolist()
    inked, none = {}, {"training": [np.nan] * 30, "validation": [np.nan] * 30}
    for kind in none:
        plot = charts.curves("c", {"a": none | {kind: values}}, "loss")
        inked[kind] = coloured(drawn_pixels(plot), charts.COLOURS[0]).sum()
    assert 0 < inked["training"] < 0.85 * inked["validation"]


def test_the_bars_of_a_reliability_diagram_are_accuracies():
    probabilities = np.array([[0.96, 0.04], [0.96, 0.04], [0.62, 0.38]])
    inked = []
    for labels in ([0, 1, 0], [0, 0, 0], [1, 1, 1]):
        picture = charts.reliability("r", probabilities, np.array(labels))
        inked.append(coloured(drawn_pixels(picture), "#a6cbe3").sum())
        if not inked[1:]:
            assert "1 answers of mean confidence 0.62 with accuracy 1.00" in picture.alt
            assert "2 answers of mean confidence 0.96 with accuracy 0.50" in picture.alt
    assert inked[2] < inked[0] < inked[1]


def test_look_alikes_are_not_joined_by_a_stray_error():
    matrix = np.diag([5, 5, 5, 5, 5, 5])
    matrix[0, 1] = matrix[4, 3] = 3
    matrix[1, 2] = 2
    matrix[2, 3] = 1  # the only error between the groups
    groups = birds.look_alikes(matrix)
    assert groups == [[0, 1, 2], [3, 4]]
    assert [birds.errors_within(matrix, group) for group in groups] == [5, 3]
    assert birds.look_alikes(np.eye(3, dtype=int)) == []


@pytest.mark.parametrize(
    ("species", "name"),
    [
        (["California Gull", "Herring Gull"], "Gull"),
        (["Rusty Blackbird", "Bronzed Cowbird", "Brewer Blackbird"], "Blackbird, Cowbird"),
    ],
)
def test_a_group_is_named_by_the_last_words(species, name):
    assert birds.group_name(species) == name


def test_the_wrong_answer_is_shown_with_its_map_and_its_second_look(few, tmp_path):
    photo = np.zeros((60, 72, 3), np.uint8)
    photo[20:50, 30:60, 1] = 200  # the box of the second look, and no more
    Image.fromarray(photo).save(tmp_path / "00_1.png")
    (tmp_path / "00_1.png").replace(tmp_path / "00_1.jpg")  # read by content, and lossless
    birds.draw(few, tmp_path / "report")
    with Image.open(tmp_path / "report" / "pictures" / "wrong_answers.jpeg") as picture:
        pixels = np.asarray(picture).astype(int)
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    green = (right[..., 1] > 150) & (right[..., 0] < 60)
    rows, columns = (green.any(axis).nonzero()[0] for axis in (1, 0))
    assert green[rows[0] : rows[-1], columns[0] : columns[-1]].mean() > 0.98  # all of it
    assert 0.9 < len(rows) / len(columns) < 1.1  # undistorted
    red = np.argwhere((left[..., 0] > 60) & (left[..., 1] < 40))
    green_left = np.argwhere((left[..., 1] > 100) & (left[..., 0] < 60))
    assert (red.mean(0) < green_left.mean(0)).all()  # the map's upper left corner
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    answers = birds.answers_of(few)
    first, both = answers.looks["first"][1].max(), answers.confidence[1]
    assert rf"![is: Jay \| \<b>blue\</b>, {first:.2f} \[Tit\](http://a.b), " in text
    assert rf"; both: {both:.2f} $x 1$ \& \*Wren\*, " in text


@pytest.mark.parametrize(("width", "smooth"), [(1, [1, 2, 6]), (2, [1, 1.5, 4]), (9, [1, 1.5, 3])])
def test_moving_average(width, smooth):
    assert charts.moving_average([1, 2, 6], width).tolist() == pytest.approx(smooth)


def test_curves_take_losses_that_diverge():
    picture = charts.curves("c", {"a": {"training": [1.0, float("inf"), float("nan")]}}, "loss")
    assert picture.alt == "loss. a, training: 1 → nan (epoch 3)."
    assert picture.kind == "png"


@pytest.fixture
def figures(monkeypatch):
    """The figures of the pictures that a test draws."""
    seen, draw = [], charts._picture

    def kept(name, figure, *rest, **more):
        seen.append(figure)
        return draw(name, figure, *rest, **more)

    monkeypatch.setattr(charts, "_picture", kept)
    return seen


@pytest.mark.parametrize("epochs", [(1,), (10,), (150,), (1, 10, 150)])
def test_names_at_the_ends_of_nine_lines_are_whole_and_apart(figures, epochs):
    runs = {
        f"{i} a long name of a run": {
            "test": np.linspace(2, 0.3 + i / 1000, epochs[i % len(epochs)])
        }
        for i in range(9)
    }
    frame = charts.Frame(max(epochs), 0.0, 2.0)
    charts.curves("c", runs, "loss", direct=True, frame=frame)
    canvas, axes = figures[0].canvas, figures[0].axes[0]
    drawn = canvas.get_renderer()  # the extent of an annotation would include its line
    boxes = [Text.get_window_extent(text, drawn) for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(runs)
    assert all(box.x0 > axes.bbox.x1 and box.x1 <= figures[0].bbox.x1 for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= figures[0].bbox.y1 for box in boxes)
    boxes.sort(key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))


def test_epochs_are_whole_numbers_even_if_there_is_one(figures):
    charts.curves("c", {"a": {"test": [1.0]}}, "loss", frame=charts.Frame(1, 0.0, 2.0))
    assert all(tick == int(tick) for tick in figures[0].axes[0].get_xticks())


def test_a_line_that_diverges_is_named_at_its_last_number(figures):
    runs = {"a": {"test": [1.0, 3.0, float("nan")]}, "b": {"test": [float("nan")]}}
    charts.curves("c", runs, "loss", direct=True, frame=charts.Frame(3, 0.0, 2.0))
    assert [(text.get_text(), text.xy) for text in figures[0].axes[0].texts] == [("a", (2, 2.0))]


@pytest.mark.parametrize(
    ("heights", "places"),
    [
        ([], []),
        ([0.9, 0.1, 0.5], [0.9, 0.1, 0.5]),
        ([0.5, 0.5, 0.5], [0.6, 0.5, 0.4]),
        ([0.5, 0.0, 0.5], [0.55, 0.0, 0.45]),  # a crowd does not move those far from it
        ([0.95, 1.0], [0.9, 1.0]),
        ([0.0, 0.05], [0.0, 0.1]),
        ([0.5] * 11, np.linspace(1, 0, 11)),
        ([0.2] * 12, np.linspace(1, -0.1, 12)),  # no room for one of them
    ],
)
def test_names_are_moved_no_more_than_they_must(heights, places):
    assert charts._spread(heights, 0.1, 0.0, 1.0) == pytest.approx(np.array(places))


def test_code_is_shown_as_it_is():
    page = Page("t")
    page.code("def f(a):\n    return a < 1  # <b>\n")
    assert page.markdown[1] == "```python\ndef f(a):\n    return a < 1  # <b>\n```"
    shown = re.sub(r"<[^>]+>", "", page.html[1])
    assert shown.strip() == "def f(a):\n    return a &lt; 1  # &lt;b&gt;"
    assert "style=" in page.html[1]


@pytest.mark.parametrize("classes", [1, 30])
def test_long_names_leave_room_for_the_chart(classes):
    names = [f"{i} {'very ' * 20} long" for i in range(classes)]
    charts.bars("b", dict.fromkeys(names, 1.0), "accuracy")  # a collapsed chart would warn
    assert charts.confusion("c", np.eye(classes, dtype=int), names).width <= 1152


def test_a_table_is_aligned_by_its_cells():
    page = Page("t")
    page.table(["name", "n", "why"], [("a|b", 1, "short"), ("c", "2,5", "a sentence " * 5)])
    assert page.markdown[1].splitlines()[1:3] == ["| --- | ---: | --- |", r"| a\|b | 1 | short |"]
    assert '<th>name</th><th class="number">n</th><th class="sentence" ' in page.html[1]
    assert '<td class="sentence" data-name="why: ">a sentence' in page.html[1]
    page.table("abcde", [("x", "x", "x", "x", "a sentence " * 5)])
    assert 'sentence"' not in page.html[2], "too wide for a phone anyway"


def test_a_caption_is_no_markup_and_an_old_page_is_kept_by_who_holds_it(tmp_path):
    for caption in ("old", "<b>new</b>"):
        page = Page("t")
        page.picture(charts.bars("b", {"a": 1.0}, "share", caption))
        page.write(tmp_path)
        if caption == "old":
            for name in ("report.md", "report.html"):
                (tmp_path / f"held {name}").hardlink_to(tmp_path / name)
    for name in ("report.md", "report.html"):
        assert "old" in (tmp_path / f"held {name}").read_text(encoding="utf-8")
    assert "<b>" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;new" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_history_holds_plain_numbers(network, photos):
    gt, folder = photos
    row = solution.EpochRow("final run", 1, 1.0, 0.5, None, None, 1e-3, 2.0)
    history = birds.history_of(network, [row], gt, folder, 3.0)
    assert birds.History(**json.loads(json.dumps(asdict(history)))) == history
    sizes = Counter()
    for name in gt:
        with Image.open(folder / name) as photo:
            sizes[f"{photo.width}×{photo.height}"] += 1
    assert history.photo_sizes == sizes
    assert sum(part["parameters"] for part in history.architecture) == sum(
        p.numel() for p in network.parameters()
    )
    trained = [part["trained"] == part["parameters"] for part in history.architecture]
    assert trained == [False] * 16 + [True] * 4
    half = history.settings["input_size"] // 2
    # 3 channels, 3x3 filters, 32 outputs at each place
    assert history.architecture[0]["operations"] == 3 * 9 * 32 * half * half
    assert history.architecture[0]["shape"] == [32, half, half]
    answers = history.validation_answers
    assert [history.class_ids[i] for i in answers["labels"]] == [gt[n] for n in answers["photos"]]
    assert len(answers["photos"]) == network.facts["validation"]["total"]
    for index, seen in enumerate(network.validation_answers["seen"]):
        kept = birds.seen_of(history, index)
        assert kept.box == seen.box
        for name in ("logits", "first", "second", "heat"):
            torch.testing.assert_close(getattr(kept, name), getattr(seen, name), atol=1e-4, rtol=0)
