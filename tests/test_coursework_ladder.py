"""The ladder: its networks, its runs, and a report that says what the numbers say."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import coursework.data
from coursework import ladder, ladder_networks, ladder_photo
from coursework.__main__ import main
from coursework.data import CourseworkError, Photos
from coursework.engine import accepts, count_parameters
from coursework.ladder_networks import (
    ANY_SIZE,
    COMPARED,
    DEEPER,
    DROPPED,
    MINIMAL,
    NORM,
    RELU,
    SIGMOID,
    TUNED,
    WIDER,
    networks,
)
from coursework.options import Options
from coursework.report import Report, work

NUMBERS = [point.number for point in ladder.POINTS]
LABELS = (*COMPARED, TUNED)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, options and results of the whole assignment on 40 digits."""
    options = Options(tmp_path_factory.mktemp("ladder"), epochs=1, subset=40, data="digits")
    kept = {}

    def runs(data, options, results):
        kept.update(data=data, results=results)
        yield from ladder.runs(data, options, results)

    work(replace(ladder.ASSIGNMENT, runs=runs), options)
    return kept["data"], options, kept["results"]


@pytest.fixture
def report(trained, monkeypatch):
    """An empty report in English, whose curves are not drawn."""
    monkeypatch.setattr(Report, "_plot", lambda *args, **kwargs: None)
    data, options, results = trained
    return Report(ladder.ASSIGNMENT, data, options, dict(results))


def answer(report: Report, number: str, **accuracies: tuple[float, float]) -> str:
    """What a point says, once runs are given other accuracies in training and test."""
    names = {name: getattr(ladder, name) for name in accuracies}
    for name, (training, test) in accuracies.items():
        result = report.results[names[name]]
        final = result.final | {"training_accuracy": training, "test_accuracy": test}
        rows = [replace(row, val_accuracy=test) for row in result.rows]
        report.results[names[name]] = replace(result, final=final, rows=rows)
    next(point for point in ladder.POINTS if point.number == number).answer(report)
    return "\n".join(report.page.markdown)


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "parameters"),
    [
        # convolutions: 3 * 9 * 5 + 5 and 5 * 9 * 5 + 5; linear: 5 * 4 * 4 * 10 + 10
        (MINIMAL, 140 + 230 + 810),
        (WIDER, 560 + 3_620 + 3_210),
        (SIGMOID, 560 + 3_620 + 7_240 + 14_440 + 40 * 8 * 8 * 10 + 10),
        (RELU, 560 + 3_620 + 7_240 + 14_440 + 40 * 8 * 8 * 10 + 10),
        (DEEPER, 464_750),
        (NORM, 464_750 + 600),  # a gain more for each filter, a shift for a bias
        (DROPPED, 465_350),
        (ANY_SIZE, 465_350 - 3 * 160 * 10),
    ],
)
def test_parameters_of_each_network_and_of_its_layers(step, parameters):
    network = networks(3, 10)[step]()
    assert count_parameters(network) == parameters
    rows = ladder_networks.layers(network, (3, 32, 32))
    assert sum(int(count.replace(",", "")) for *_, count in rows) == parameters
    for _, _, formula, count in rows:
        assert eval(formula.replace("x", "*") or "0") == int(count.replace(",", ""))


def test_the_assignments_numbers_of_parameters():
    counts = [count_parameters(ladder_networks.minimal(3, 10, filters)) for filters in (5, 20)]
    assert counts == [1180, 7390]


@pytest.mark.parametrize("size", ladder.OTHER_SIZES)
def test_the_last_network_takes_photos_of_any_size_and_the_one_before_does_not(size):
    steps = networks(3, 10)
    assert accepts(steps[ANY_SIZE](), 3, *size)
    assert not accepts(steps[DROPPED](), 3, *size)
    assert accepts(steps[DROPPED](), 3, 32, 32)


def test_receptive_fields():
    # 3 x 3 twice, 2 x 2: 1 + 2 + 2 + 1 = 6 pixels; again at half the resolution: 6 + 4 + 4 + 2
    assert ladder_networks.receptive_field(networks(3, 10)[RELU]()) == 16
    assert ladder_networks.receptive_field(networks(3, 10)[DEEPER]()) == 16 + 20 + 40


def test_the_share_of_variance_within_classes():
    pixels = torch.tensor([0, 0, 200, 200], dtype=torch.uint8).view(4, 1, 1, 1)
    apart = Photos(pixels, torch.tensor([0, 0, 1, 1]))
    mixed = Photos(pixels, torch.tensor([0, 1, 0, 1]))
    assert ladder.variance_within(apart) == pytest.approx(0)
    assert ladder.variance_within(mixed) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------
# Runs
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "photos", "epochs", "rate", "tuned"),
    [
        ("quick", 200, 6, 0.015, 8),
        ("night", 1437, 10, 15e-3, 12),
        ("full", 1437, 150, 1e-3, 150),
    ],
)
def test_presets(preset, photos, epochs, rate, tuned, tmp_path, monkeypatch):
    quick = ladder_networks.PRESETS["quick"]
    monkeypatch.setitem(ladder_networks.PRESETS, "quick", (200, *quick[1:]))
    data, options = coursework.data.digits(32), Options(tmp_path, preset=preset)
    *compared, last = ladder.runs(data, options, {})
    assert [run.label for run in compared] == list(COMPARED)
    assert {(len(run.data.train), run.recipe) for run in compared} == {
        (photos, replace(ladder.ASSIGNED, epochs=epochs, learning_rate=rate))
    }
    assert (last.label, len(last.data.train), last.recipe.epochs) == (TUNED, 1437, tuned)


def test_the_command_line_decides_over_the_preset(tmp_path):
    options = Options(tmp_path, preset="night", epochs=2)
    runs = ladder.runs(coursework.data.digits(32), options, {})
    assert {run.recipe.epochs for run in runs} == {2}


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ladder.ASSIGNMENT.languages)
def test_every_point_is_answered_under_its_number(language, trained, report, tmp_path):
    _, options, _ = trained
    folder = options.out  # where the run itself wrote the report, in English
    if language != "en":
        folder, spoken = tmp_path, replace(options, language=language)
        Report(ladder.ASSIGNMENT, report.data, spoken, report.results).draw().write(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^###? ([\d.]+)\. ", text, re.MULTILINE) == NUMBERS
    assert len({number.split(".")[0] for number in NUMBERS}) == 14
    yes = {"en": "yes", "pl": "tak"}[language]
    checks = re.findall(rf"^\| ([\d.]+) \| .* \| {yes} \| \d+ \| \d+ \|$", text, re.MULTILINE)
    assert checks == NUMBERS
    assert all(label in text for label in LABELS)


def test_every_run_has_its_pictures(trained):
    drawn = {path.stem for path in (trained[1].out / "pictures").iterdir()}
    assert drawn >= {"samples", "new_photo", "accuracies", "all_accuracy", "all_loss"}
    slugs = (re.sub(r"\W", "_", label.lower()) for label in LABELS)
    assert drawn >= {f"{slug}_{value}" for slug in slugs for value in ("accuracy", "loss")}


def test_a_report_of_unfinished_runs_says_what_is_missing(report):
    for label in (DROPPED, ANY_SIZE, TUNED):
        del report.results[label]
    text = "\n".join(report.draw().markdown)
    assert re.findall(r"^\| ([\d.]+) \| .* \| no \|", text, re.MULTILINE) == ["11", "12", "13"]
    assert f"among them: {', '.join((DROPPED, ANY_SIZE, TUNED))}." in answer(report, "14")


@pytest.mark.parametrize(
    ("test", "said"), [(0.1, "Not promising"), (0.45, "Hardly promising"), (0.9, "Promising:")]
)
def test_sigmoids_are_promising_if_they_are_better(test, said, report):
    assert said in answer(report, "8.2", WIDER=(0.5, 0.5), SIGMOID=(test, test))


@pytest.mark.parametrize(
    ("after", "said"), [(0.6, ": smaller"), (0.85, ": not smaller"), (0.95, ": not smaller")]
)
def test_dropout_is_judged_by_the_gap(after, said, report):
    assert said in answer(report, "11", NORM=(0.9, 0.7), DROPPED=(after, 0.7))


def test_how_soon_batch_norm_reaches_the_network_without(report):
    assert "(0.6000, epochs: 1) after epoch 1" in answer(
        report, "10", DEEPER=(0.6, 0.6), NORM=(0.7, 0.7)
    )
    assert "(0.8000, epochs: 1) in no epoch" in answer(report, "10", DEEPER=(0.8, 0.8))


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (lambda truth: 5 * truth, "moved probability to the true classes"),
        (lambda truth: 5 * truth.roll(1, 1), "without noticeably moving"),
        (lambda truth: 0 * truth, "hardly or not at all moved"),
    ],
)
def test_probabilities_are_compared_in_words(logits, said, report, monkeypatch):
    labels = report.data.test.labels
    outputs = logits(coursework.data.one_hot(labels, 10)).softmax(1)
    after, flat = report.results[MINIMAL].network, torch.full((40, 10), 0.1)
    monkeypatch.setattr(
        ladder, "probabilities", lambda net, x: (outputs if net is after else flat)[: len(x)]
    )
    assert said in answer(report, "7")


def spread(*accuracies: float) -> dict[str, tuple[float, float]]:
    """The accuracy in training and test of each run, for `answer`."""
    names = ("MINIMAL", "WIDER", "SIGMOID", "RELU", "DEEPER", "NORM", "DROPPED", "ANY_SIZE")
    return dict(zip((*names, "TUNED"), ((a, a) for a in accuracies), strict=True))


def test_conclusions_follow_the_numbers(report):
    text = answer(report, "14", **spread(0.1, 0.1, 0.1, 0.6, 0.61, 0.99, 0.5, 0.5, 0.99))
    assert f"{NORM} ≈ {TUNED} > {DEEPER} ≈ {RELU} ≈ {DROPPED} ≈ {ANY_SIZE} > {MINIMAL}" in text
    assert f"explains with: {RELU} (+0.5000), {NORM} (+0.3800)." in text
    assert f"more than that with: {DROPPED} (-0.4900)." in text
    assert f"a single change, +0.5000, came with {RELU}" in text
    assert f"10 classes): {MINIMAL}, {WIDER}, {SIGMOID}." in text
    assert "no network is larger" in text
    assert "which is less" in text  # the recipe 0.49, the architectures 0.40


def test_other_numbers_give_other_conclusions(report):
    text = answer(report, "14", **spread(0.3, 0.99, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.91))
    assert f"{WIDER} ≈ {TUNED} ≈ {ANY_SIZE} > " in text
    assert "does not decide" in text.replace("alone ", "")
    assert "Near guessing" not in text
    assert "which is no less" in text


def test_what_is_the_assignments_and_what_is_not(report):
    assert "Instead of the assignment's recipe" in answer(report, "6")
    result = report.results[MINIMAL]
    photos = Photos(torch.empty(50_000, 0), torch.zeros(50_000, dtype=torch.long))
    run = replace(result.run, recipe=ladder.ASSIGNED, data=replace(report.data, train=photos))
    report.results[MINIMAL] = replace(result, run=run)
    assert "the assignment's own recipe, epochs: 150, rate: 0.001" in answer(report, "6")


def test_saved_parameters_are_those_of_the_network_that_takes_any_size(trained, report):
    answer(report, "12")
    saved = torch.load(report.options.out / "parameters" / "12_any_size.pt", weights_only=True)
    expected = trained[2][ANY_SIZE].network.state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], value) for name, value in expected.items())


# ------------------------------------------------------------------------------------------------
# A new photo
# ------------------------------------------------------------------------------------------------


def draw(path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "shape"),
    [((300, 200), (32, 48)), ((20, 50), (80, 32)), ((40, 40), (32, 32)), ((160, 10), (32, 512))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_new_photo_keeps_its_proportions(size, shape, channels):
    pixels = ladder_photo.scaled(Image.new("RGB", size), channels)
    assert pixels.shape == (channels, *shape)
    assert pixels.dtype == torch.uint8


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"no photo", "cannot be read as a photo")]
)
def test_a_photo_that_cannot_be_read_is_one_line_before_training(content, said, tmp_path, capsys):
    path, out = tmp_path / "new.jpg", tmp_path / "out"
    if content:
        path.write_bytes(content)
    arguments = ["--data", "digits", "--photo", str(path), "--out", str(out)]
    assert main(["ladder", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {path} ")
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_line_is_no_photo(tmp_path):
    options = Options(tmp_path, photo=draw(tmp_path / "line.png", 1700, 100))
    with pytest.raises(CourseworkError, match="more than 16 times as long"):
        ladder_photo.new_photo(options)


@pytest.mark.parametrize(("size", "square"), [((50, 40), False), ((40, 40), True)])
def test_a_given_photo_is_named_and_believed_or_not(size, square, report, tmp_path):
    report.options = replace(report.options, photo=draw(tmp_path / "new.png", *size))
    text = answer(report, "13")
    assert "The photo new.png, given with --photo" in text
    assert ("It is square" in text) == square
    assert text.count("for this one to be believed") == 2  # one epoch on 40 digits teaches nothing
    assert "drawn by the program" not in text


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["ship", *"abcdefghi"], "right, it is a ship"),
        (["a", "ship", *"bcdefghi"], "wrong, it is a ship"),
        ([*"abcdefghij"], "a class that these data do not have"),
    ],
)
def test_the_drawn_photo_is_judged_by_its_class(classes, said, report, monkeypatch):
    sure = torch.eye(10)[:1]  # the first class
    monkeypatch.setattr(ladder_photo, "probabilities", lambda net, x: sure.expand(len(x), 10))
    report.data = replace(report.data, classes=classes)
    text = answer(report, "13")
    assert text.count(said) == 2
    assert "drawn by the program" in text
    right = int((report.data.test.labels == 0).sum())
    assert f"it answers 40 with a probability of 1.000 or more, of which {right} rightly" in text


def test_a_sure_answer_is_believed_if_such_answers_are_right(report, monkeypatch, tmp_path):
    labels = report.data.test.labels
    outputs = coursework.data.one_hot(labels, 10)
    monkeypatch.setattr(
        ladder_photo, "probabilities", lambda net, x: outputs if len(x) > 1 else outputs[:1]
    )
    report.options = replace(report.options, photo=draw(tmp_path / "new.png", 50, 40))
    assert answer(report, "13").count("can be believed") == 2
