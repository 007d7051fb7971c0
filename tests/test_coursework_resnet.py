"""The coursework `resnet`: its networks, its plan of runs, and words that follow the numbers."""

import io
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import coursework.data
from coursework import report as frame
from coursework import resnet, resnet_runs
from coursework.data import DataSet, Photos
from coursework.engine import Result, Run, count_parameters
from coursework.options import Options
from coursework.report import Report
from coursework.resnet_runs import PLAN, RESNET18, RESNET50, best, network, recipe_of
from reporting.page import Picture
from solution import EpochRow

LABELS = [step.label for step in PLAN]
POINTS = {point.number: point for point in resnet.ASSIGNMENT.points}


@pytest.fixture(scope="module")
def data() -> DataSet:
    """Digits with some of them held out for validation."""
    return coursework.data.digits(32).subset(100, 40).held_out(0.25)


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("small_stem", "side"), [(True, 4), (False, 1)])
def test_the_small_stem_leaves_more_of_a_photo(data, small_stem, side):
    body = network(data, **RESNET18, width=4, small_stem=small_stem).backbone.eval()
    assert body.forward_features(torch.rand(1, 1, 32, 32)).shape == (1, 32, side, side)


def test_resnet_50_at_full_width_has_the_published_number_of_parameters(data):
    photos = Photos(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1))
    many = replace(data, classes=range(1000), train=photos)
    with torch.device("meta"):  # no weights are drawn
        assert count_parameters(network(many, **RESNET50, width=64)) == 25_557_032


@pytest.mark.parametrize("small_stem", [True, False])
def test_each_block_starts_as_its_shortcut(data, small_stem):
    body = network(data, **RESNET50, width=4, small_stem=small_stem).backbone
    blocks = [block for group in range(1, 5) for block in getattr(body, f"layer{group}")]
    assert len(blocks) == 16
    assert not any(block.bn3.weight.any() for block in blocks)


def test_dropout_stands_before_the_layer_that_the_engine_knows_as_head(data):
    made = network(data, **RESNET18, width=4, dropout=0.5)
    assert isinstance(made[-2], nn.Dropout)
    assert [n for n, _ in made.named_parameters() if n.startswith("head.")] == [
        "head.weight",
        "head.bias",
    ]


# ------------------------------------------------------------------------------------------------
# The plan of runs
# ------------------------------------------------------------------------------------------------


def made_up(run: Run, validation=0.5, test=0.5, training=0.6, losses=((2, 2), (1, 1)), rates=()):
    """A run that was not trained, with these numbers; `losses` are (training, validation)."""
    rows = [
        EpochRow(run.label, i + 1, *(loss, 0.5, watched), validation, rate, 1.0)
        for i, ((loss, watched), rate) in enumerate(
            zip(losses, rates or [run.recipe.learning_rate] * len(losses), strict=True)
        )
    ]
    final = {"training_accuracy": training, "test_accuracy": test}
    final |= {"training_loss": 0.3, "test_loss": 1 - test}
    return Result(run, nn.Identity(), rows, final)


def results_of(data, numbers=None, **options) -> dict[str, Result]:
    """All runs with made-up results: what `numbers` says of a label, else alike."""
    asked, results = Options("nowhere", **options), {}
    for run in resnet_runs.runs(data, asked, results):
        results[run.label] = made_up(run, **(numbers or {}).get(run.label, {}))
    return results


def report_on(data, results, language="en") -> Report:
    return Report(resnet.ASSIGNMENT, data, Options("nowhere", language=language), results)


def said(data, results, number: str) -> str:
    """The text of a point's answer."""
    report = report_on(data, results)
    POINTS[number].answer(report)
    return "\n".join(report.page.markdown)


def test_the_full_version_has_the_storys_numbers(data):
    recipes = {r.run.label: r.run.recipe for r in results_of(data, preset="full").values()}
    epochs = {label: recipe.epochs for label, recipe in recipes.items()}
    told = ("1 BasicBlock", "1 longer", "7 dropout 0.7", "8 fine-tuning")
    assert [epochs[label] for label in told] == [20, 50, 100, 75]
    assert {epochs[label] for label in epochs.keys() - set(told)} == {30}
    assert recipes["5 multi-step"].milestones == (15, 22)
    tuned, before = recipes["8 fine-tuning"], recipes["7 dropout 0.7"]
    assert (tuned.learning_rate, tuned.batch_size, before.batch_size) == (0.2, 256, 128)
    assert tuned.augment == ("flip", "vertical-flip", "rand-augment")


def test_epochs_that_are_asked_for_hold_for_every_run_and_keep_the_cuts_inside(data):
    recipes = [recipe_of(step, Options("nowhere", epochs=1), None) for step in PLAN]
    assert {recipe.epochs for recipe in recipes} == {1}
    assert {recipe.milestones for recipe in recipes} == {(), (1,)}


def test_what_is_best_on_validation_photos_goes_on_not_what_is_best_on_test_photos(data):
    numbers = {"4 blur": {"validation": 0.6}, "4 grey": {"test": 0.9}}
    numbers["5 multi-step"] = {"validation": 0.7}
    results = results_of(data, numbers)
    assert best(results, "4").run.label == "4 blur"
    starts = {label: r.run.start and r.run.start.run.label for label, r in results.items()}
    assert starts["2 SGD"] is starts["3 weight decay"] is None
    assert starts["4 grey"] == "3 weight decay"
    assert (starts["5 plateau"], starts["6 dropout 0.5"]) == ("4 blur", "5 multi-step")
    assert results["7 dropout 0.7"].run.recipe.augment == ("flip", "vertical-flip", "blur", "erase")


# ------------------------------------------------------------------------------------------------
# From data to report
# ------------------------------------------------------------------------------------------------


def dot(name: str, *_, **__) -> Picture:
    """In the place of curves, which take longer to draw than all runs to train."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    return Picture(name, buffer.getvalue(), "")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of a report that was trained and written once, and its page in each language."""
    out, reports = tmp_path_factory.mktemp("resnet"), []

    class Kept(Report):
        def draw(self):
            reports.append(self)
            return super().draw()

    with pytest.MonkeyPatch.context() as patch:
        shallow = {"depths": (1, 1, 1, 1)}
        steps = [replace(step, network={**step.network, **shallow}) for step in PLAN]
        patch.setattr(resnet_runs, "PLAN", steps)
        patch.setattr(frame, "curves", dot)
        patch.setattr(frame, "Report", Kept)
        options = Options(out, name="resnet", data="digits", subset=40, epochs=1)
        frame.work(resnet.ASSIGNMENT, options)
        kept = reports[-1]
        other = replace(options, language="ru")
        russian = Report(resnet.ASSIGNMENT, kept.data, other, kept.results).draw()
    return out, {"en": kept.page, "ru": russian}


@pytest.mark.parametrize(("language", "yes"), [("en", "yes"), ("ru", "да")])
def test_every_point_is_answered_under_its_own_number(drawn, language, yes):
    page = drawn[1][language]
    headings = [block for block in page.markdown if block.startswith("## ")]
    numbers = [heading.removeprefix("## ").split(".")[0] for heading in headings[:-1]]
    assert numbers == list(POINTS) == [str(n) for n in range(1, 11)]
    rows = page.markdown[-1].splitlines()[2:]
    assert [row.split(" | ")[2] for row in rows] == [yes] * len(POINTS)


def test_each_run_has_a_plot_of_accuracy_and_one_of_loss_and_each_comparison_too(drawn):
    page = drawn[1]["en"]
    names = [picture.name for picture in page.pictures]
    assert len(set(names)) == len(names)
    assert sum(name.endswith("_accuracy") for name in names) == len(LABELS) + 5 + 1
    assert sum(name.endswith("_loss") for name in names) == len(LABELS) + 5 + 1
    assert {f"stage_{n}_photos" for n in (2, 4, 6, 8)} | {"predictions"} <= set(names)


def test_the_page_says_that_it_is_reduced_and_states_settings_and_story(drawn):
    text = (drawn[0] / "report.md").read_text(encoding="utf-8")
    assert "This is a reduced version" in text
    assert "These are not the assignment's photos" in text
    assert "| 8 | 52.12 | 8 fine-tuning |" in text
    assert all(f"| {label} | " in text for label in LABELS)
    assert "Dropout 0.7" in text
    assert "divided by 10 after the epochs 1" in text


def test_an_unfinished_story_is_told_as_far_as_it_goes(data, monkeypatch):
    monkeypatch.setattr(frame, "curves", dot)
    results = results_of(data)
    some = {label: results[label] for label in LABELS[:5]}
    page = report_on(data, some).draw()
    rows = [row.split(" | ")[2] for row in page.markdown[-1].splitlines()[2:]]
    assert rows == ["yes", "yes", *["no"] * 6, "yes", "no"]
    assert any("3 weight decay" in block and "Not answered yet" in block for block in page.markdown)


# ------------------------------------------------------------------------------------------------
# Words and numbers
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "key"),
    [
        ([(2.0, 2.0), (1.0, 1.0), (0.1, 1.5)], "overfits"),
        ([(2.0, 2.0), (1.0, 1.0), (0.5, 0.9)], "does not overfit"),
        ([(2.0, 2.0), (1.0, 1.0), (1.1, 1.5)], "does not overfit"),  # both are worse
    ],
)
def test_overfitting_is_said_of_losses_that_part(data, losses, key):
    rows = results_of(data, {"1 longer": {"losses": losses}})["1 longer"].rows
    assert resnet.overfitting(rows)[0] == key


def test_a_rate_is_said_to_have_changed_only_where_it_did(data, monkeypatch):
    monkeypatch.setattr(frame, "curves", dot)
    losses = ((3, 3), (2, 2), (1, 1))
    numbers = {"5 multi-step": {"losses": losses, "rates": (0.1, 0.01, 0.01)}}
    text = said(data, results_of(data, numbers), "5")
    assert "Learning rate of 5 multi-step (by epochs): 0.1 (1), 0.01 (2-3)." in text
    assert "Learning rate of 5 plateau (by epochs): 0.1 (1-2); it never changed." in text


@pytest.mark.parametrize(
    ("ended", "phrase"),
    [(0.1, "same learning rate"), (0.01, "steps that large"), (0.5, "with a lower one")],
)
def test_reasons_name_the_rate_as_it_is(data, ended, phrase):
    numbers = {"7 dropout 0.7": {"rates": (0.1, ended)}}
    results = results_of(data, numbers)
    later = replace(results["8 fine-tuning"].rows[0], learning_rate=0.1)
    tuned = replace(results["8 fine-tuning"], rows=[later])
    text = resnet.reasons(report_on(data, results), tuned)
    assert phrase in text
    assert "(RandAugment)" in text
    assert "Dropout rose" not in text


def test_reasons_of_a_stage_with_another_network_speak_of_no_start(data):
    results = results_of(data)
    text = resnet.reasons(report_on(data, results), results["2 SGD"])
    assert "random weights" in text
    assert "went on from" not in text


def test_conclusions_change_with_the_numbers(data):
    rising = {label: {"test": 0.1 * int(label[0]), "training": 0.9} for label in LABELS}
    text = said(data, results_of(data, rising), "10")
    assert "Why" not in text
    assert "changed by +70.00 points" in text
    assert "Overfitting became less" in text
    assert "loses more on new ones" not in text
    falling = {label: {"test": 0.9 - 0.1 * int(label[0]), "training": 0.95} for label in LABELS}
    text = said(data, results_of(data, falling), "10")
    assert len(re.findall("Why .* is not above", text)) == 7
    assert "No stage ends above" in text
    assert "Overfitting did not become less" in text
    assert "loses more on new ones" in text


def test_directions_are_counted_beside_the_storys(data, monkeypatch):
    monkeypatch.setattr(frame, "curves", dot)
    falling = {label: {"test": 0.9 - 0.1 * int(label[0])} for label in LABELS}
    text = said(data, results_of(data, falling), "9")
    # 20, 20, 30, 40, 45, 51.98, 52.12: the first of six steps is none
    assert "Of 6 steps" in text
    assert "rises in 5, ours in 0; in 1 both do alike" in text
