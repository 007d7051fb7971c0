"""The coursework `transfer`: its networks, its runs, and its report in both languages."""

from __future__ import annotations

import sys
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torch.nn import functional

from coursework import pretrained, transfer
from coursework.__main__ import main
from coursework.data import CourseworkError
from coursework.engine import Result
from coursework.options import Options
from coursework.pretrained import NETWORKS, Upper, choose, grey_blocks, lower
from coursework.report import Phrases, Report
from coursework.transfer_report import adequacy
from reporting import charts

SMALL = ["--data", "digits", "--subset", "40", "--epochs", "1"]
POINTS = [*"123456789", *(f"Q{i}" for i in range(1, 8))]
IMAGENET_STATE = pretrained.imagenet_state
RUNS = ["all photos", "one rate", "head only", "random weights", "augmented"]


@pytest.fixture(scope="module")
def weights(init):
    """Weights of MobileNetV2 in the place of ImageNet's, and of no other network; photos of
    28 x 28 pixels, not enlarged."""
    state = torch.load(init, weights_only=True)

    def only_mobilenet(backbone):
        if backbone.name != "mobilenet_v2":
            raise CourseworkError(f"no ImageNet weights of {backbone.title}")
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "imagenet_state", only_mobilenet)
        patch.setattr(pretrained, "INPUT_SIDE", 28)
        patch.setattr(charts, "DOTS_PER_INCH", 24)  # or drawing takes most of the time
        yield state


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of the smallest training there is."""
    return Options(tmp_path_factory.mktemp("transfer"), epochs=1, subset=40, data="digits")


@pytest.fixture(scope="module")
def data(options):
    return transfer.load(options)


@pytest.fixture(scope="module")
def results(weights, options, data):
    """All runs, trained once."""
    found = {}
    for run in transfer.runs(data, options, found):
        found[run.label] = options.train(run)
    return found


def drawn(data, options, results, **changed) -> str:
    """The report in Markdown."""
    page = Report(transfer.ASSIGNMENT, data, replace(options, **changed), results).draw()
    return "\n\n".join(page.markdown)


def with_final(result: Result, **final) -> Result:
    return replace(result, final=result.final | final)


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_grey_photo_gives_the_activations_of_its_three_channel_copy(name):
    torch.manual_seed(0)
    blocks = NETWORKS[name].blocks()[:4].eval()
    grey = torch.randn(2, 1, 32, 32)
    expected = blocks(grey.expand(-1, 3, -1, -1))
    pretrained.grey_first_convolution(blocks)
    torch.testing.assert_close(blocks(grey), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_changes_the_upper_blocks_and_not_a_bit_of_the_frozen_ones(name):
    torch.manual_seed(0)
    backbone = NETWORKS[name]
    trunk = lower(backbone, backbone.frozen, pretrained=False)
    network = Upper(backbone, backbone.frozen, False, 7, trunk).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    logits = network(torch.rand(2, 1, 28, 28))
    assert logits.shape == (2, 7)
    functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    learns = [p for p in network.parameters() if p.requires_grad]
    torch.optim.SGD(learns, lr=0.1).step()
    kept = {key for key, value in network.state_dict().items() if torch.equal(value, before[key])}
    assert kept >= {key for key in before if key.startswith("trunk.")}
    assert not kept & {"head.weight", "head.bias"}
    assert any(key.startswith("blocks.") for key in before.keys() - kept)


def test_pretrained_weights_are_those_of_the_file(weights):
    blocks = grey_blocks(NETWORKS["mobilenet_v2"], pretrained=True)
    assert torch.equal(blocks[18][0].weight, weights["features.18.0.weight"])
    summed = weights["features.0.0.weight"].sum(1, keepdim=True)
    assert torch.equal(blocks[0][0].weight, summed)


def test_the_fallback_is_told_in_one_line(weights, capsys):
    assert choose(None, pretrained=True).name == "mobilenet_v2"
    said = capsys.readouterr().err
    assert said.startswith("MobileNetV2 in the place of VGG11 and GoogLeNet: no ImageNet weights")
    assert said.count("\n") == 1
    assert choose(None, pretrained=False).name == "vgg11"
    assert choose("googlenet", pretrained=True).name == "googlenet"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "GoogLeNet or MobileNetV2"), (["--network", "vgg11"], "vgg11-8a719046.pth")],
)
def test_missing_weights_are_one_clear_line(arguments, named, monkeypatch, capsys, tmp_path):
    def offline(*args, **kwargs):
        print("Downloading", file=sys.stderr)  # torch 2.6
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(pretrained, "imagenet_state", IMAGENET_STATE)
    assert main(["transfer", *SMALL, *arguments, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: no ImageNet weights of VGG11")
    assert named in said
    assert said.count("\n") == 1


# ------------------------------------------------------------------------------------------------
# Runs
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "again"), [("quick", ["pretrained"]), ("full", [])])
def test_no_run_is_trained_twice(weights, options, data, preset, again):
    own = replace(options, epochs=None, preset=preset)
    runs = {run.label: run for run in transfer.runs(data, own, {})}
    assert list(runs) == [*RUNS[:1], *again, *RUNS[1:]]
    recipes = {(repr(run.recipe), len(run.data.train), str(run.build)) for run in runs.values()}
    assert len(recipes) == len(runs)


def test_all_compared_runs_see_the_same_photos(results):
    photos = [result.run.data.train.labels for result in results.values()]
    assert all(torch.equal(labels, photos[0]) for labels in photos)
    assert list(results) == RUNS  # on so few photos, "pretrained" would be "all photos" again


def test_the_augmented_network_begins_with_the_weights_of_the_others(results):
    one, other = (results[label].run.fresh().state_dict() for label in ("all photos", "augmented"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("number", ["40", "-1"])
def test_an_object_that_is_not_there_is_one_clear_line(number, tmp_path, capsys):
    assert main(["transfer", *SMALL, "--object", number, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"Error: there is no test photo {number}: --object N is a number from 0 to 39\n"
    )


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_point_is_answered_under_its_number(data, options, results, language):
    text, say = drawn(data, options, results, language=language), Phrases("transfer", language)
    headings = [line[3:].split(". ")[0] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [*POINTS, say("self-check")]
    rows = [line for line in text.splitlines() if line.split(" | ")[0][2:] in POINTS]
    checked = [line for line in rows if say(line.split(" | ")[0][2:]) in line]
    assert len(checked) == len(POINTS)
    assert all(f"| {say('yes')} |" in line for line in checked)
    assert text.split("\n\n")[1].startswith(
        say("network fallback", name="MobileNetV2", allowed="")[:30]
    )
    assert say("Q7 text") in text


def test_from_random_weights_there_is_one_run_and_no_comparison(weights, tmp_path, capsys):
    own = ["--network", "mobilenet_v2", "--weights", "random", "--lang", "ru"]
    assert main(["transfer", *SMALL, *own, "--object", "3", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "СЛУЧАЙНЫМИ" in text.split("\n\n")[1]
    assert text.count("Ответа пока нет") == 3  # Q1 to Q3 compare with pretrained weights
    assert "Тестовое изображение 3" in text
    assert [path.stem for path in (tmp_path / "runs").glob("*.ckpt")] == ["random-weights"]


@pytest.mark.parametrize(
    ("asked", "weights_are", "name", "key"),
    [
        (None, None, "vgg11", "network first"),
        (None, None, "googlenet", "network second"),
        (None, None, "mobilenet_v2", "network fallback"),
        ("googlenet", None, "googlenet", "network asked"),
        ("mobilenet_v2", "imagenet", "mobilenet_v2", "network asked other"),
        (None, "random", "vgg11", "network random"),
    ],
)
def test_the_first_lines_say_which_network_it_is(
    data, options, results, asked, weights_are, name, key
):
    network = nn.Identity()
    network.backbone = NETWORKS[name]
    made_up = {"all photos": replace(results["all photos"], network=network)}
    chosen = replace(options, network=asked, weights=weights_are)
    report = Report(transfer.ASSIGNMENT, data, chosen, made_up)
    transfer.ASSIGNMENT.preface(report)
    expected = report.say(key, name=NETWORKS[name].title, allowed="VGG11, GoogLeNet")
    assert report.page.markdown[1:] == [expected]


def answer(data, options, results, number) -> list[str]:
    report = Report(transfer.ASSIGNMENT, data, options, results)
    next(p for p in transfer.ASSIGNMENT.points if p.number == number).answer(report)
    return report.page.markdown


@pytest.mark.parametrize(
    ("number", "label"), [("Q1", "random weights"), ("Q2", "head only"), ("Q3", "one rate")]
)
@pytest.mark.parametrize(
    ("training", "test", "ending"),
    [(0.2, 0.1, "better"), (0.9, 0.9, "same"), (0.8, 0.91, "same"), (1.0, 1.0, "worse")],
)
def test_what_a_comparison_says_follows_the_numbers(
    data, options, results, number, label, training, test, ending
):
    made_up = results | {
        "all photos": with_final(
            results["all photos"], test_accuracy=0.5 if ending == "worse" else 0.9,
            training_accuracy=0.9,
        ),
        label: with_final(results[label], test_accuracy=test, training_accuracy=training),
    }  # fmt: skip
    say = Phrases("transfer", "en")
    assert answer(data, options, made_up, number)[-1] == say(f"{number} {ending}")


@pytest.mark.parametrize(("training", "key"), [(1.0, "gap some"), (0.52, "gap none")])
def test_overfitting_is_what_the_numbers_show(data, options, results, training, key):
    final = {"training_accuracy": training, "test_accuracy": 0.5}
    made_up = results | {"all photos": with_final(results["all photos"], **final)}
    words = Phrases("transfer", "en").table[key]["en"].rsplit(". ", 1)[-1]
    assert any(words in block for block in answer(data, options, made_up, "Q7"))


def logits_of(monkeypatch, p):
    """Make the report believe that the main run answered so."""
    monkeypatch.setattr("coursework.transfer_report.outputs", lambda network, inputs, most: p)


def test_a_perfect_network_confuses_nothing(data, options, results, monkeypatch):
    logits_of(monkeypatch, functional.one_hot(data.test.labels, 10).float())
    text = "\n".join(answer(data, options, results, "8"))
    assert "Verdict: adequate" in text
    assert "Not one photo is answered wrong" in text
    assert "All classes have the same F1 (1.000)" in text
    assert "Verdict: right and sure" in "\n".join(answer(data, options, results, "9"))


def test_the_most_confused_pair_and_the_weakest_class_are_named(
    data, options, results, monkeypatch
):
    said = data.test.labels.clone()
    said[said == 3] = 7
    logits_of(monkeypatch, functional.one_hot(said, 10).float())
    count = int((data.test.labels == 3).sum())
    text = "\n".join(answer(data, options, results, "8"))
    assert f'the true class "3" is answered "7" for {count} of its {count} photos' in text
    assert 'worst "3" (0.000)' in text
    assert 'whoever asks for "3" gets nothing' in "\n".join(answer(data, options, results, "Q6"))
    wrong = int((data.test.labels == 3).nonzero()[0])
    object_text = "\n".join(answer(data, replace(options, object=wrong), results, "9"))
    assert "Verdict: wrong" in object_text


@pytest.mark.parametrize(
    ("accuracy", "key"),
    [(0.95, "adequate"), (0.5, "partly adequate"), (0.12, "not adequate")],
)
def test_adequacy_is_judged_against_a_bound_and_against_guessing(accuracy, key):
    assert adequacy(accuracy, 100, 10) == key
