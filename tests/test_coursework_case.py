"""The coursework `case`: from data to report, and words that follow the numbers."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import coursework.data
from coursework import case
from coursework.__main__ import main
from coursework.case_measures import Effect, course, effects, fit
from coursework.case_network import DROPOUT, OWN, RECIPE, SIDE, WITH, WITHOUT, few, layers, network
from coursework.data import DataSet
from coursework.engine import Result, Run, count_parameters
from coursework.options import Options
from coursework.report import Report
from solution import EpochRow

POINTS = [point.number for point in case.POINTS]


@pytest.fixture(scope="module")
def data() -> DataSet:
    """Digits with some of them held out for validation."""
    return coursework.data.digits(SIDE).subset(40, 40).held_out(0.25)


def made_up(data, label, losses=(2.0, 1.0), training=0.9, test=0.8, recipe=RECIPE) -> Result:
    """A run that was not trained, with these numbers."""
    rows = [EpochRow(label, i + 1, 1.0, 0.5, v, 1 / v, 0.1, 1.0) for i, v in enumerate(losses)]
    final = {"training_accuracy": training, "test_accuracy": test}
    final |= {"training_loss": 0.3, "test_loss": 1 - test}
    torch.manual_seed(0)
    return Result(Run(label, "", nn.Identity, data, recipe), network(data, 0.0), rows, final)


def report_of(data, tmp_path, regular=0.05, bare=0.10, spread=0.01, language="en", **own) -> Report:
    """On made-up runs whose training accuracy lies so far above test accuracy."""
    results = {OWN: made_up(data, OWN, **own)}
    for labels, gap in ((WITH, regular), (WITHOUT, bare)):
        for label, shift in zip(labels, (-spread, 0.0, spread), strict=True):
            results[label] = made_up(data, label, training=0.8 + gap + shift, test=0.8)
    return Report(case.ASSIGNMENT, data, Options(tmp_path, language=language), results)


# ------------------------------------------------------------------------------------------------
# From data to report
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Pages by language and the numbers of the runs, which were trained once."""
    out, pages, histories = tmp_path_factory.mktemp("case"), {}, []
    asked = ["--data", "digits", "--subset", "40", "--epochs", "1", "--accelerator", "cpu"]
    for language in ("en", "ru"):
        assert main(["case", *asked, "--out", str(out), "--lang", language]) == 0
        pages[language] = (out / "report.md").read_text(encoding="utf-8")
        histories.append(json.loads((out / "history.json").read_text()))
    assert histories[0] == histories[1]  # seconds, too
    return pages, histories[0], {path.stem for path in (out / "pictures").iterdir()}


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_point_is_answered_under_its_own_number(drawn, language):
    page = drawn[0][language]
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert [h.removeprefix("## ").split(".")[0] for h in headings[:-1]] == POINTS
    checked = page.split(headings[-1])[1]
    answered = {"en": "yes", "ru": "да"}[language]
    assert [row.split(" | ")[2] for row in checked.splitlines() if row.startswith("| ")][2:] == [
        answered
    ] * len(POINTS)


def test_the_runs_are_one_on_all_photos_and_three_seeds_of_each_ablation(drawn):
    _, history, pictures = drawn
    assert list(history) == [
        OWN,
        *(label for pair in zip(WITH, WITHOUT, strict=True) for label in pair),
    ]
    seeds = [history[label]["recipe"]["seed"] for label in (*WITH, *WITHOUT)]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert pictures >= {"samples", "augmentation", "own_cnn_loss", "ablation_accuracy"}


def test_digits_are_not_taken_for_the_assignments_photos(drawn):
    english, russian = drawn[0].values()
    assert "These are not the assignment's photos" in english
    assert "a mirrored digit is no digit any more" in english
    assert "отражённая цифра уже не цифра" in russian


# ------------------------------------------------------------------------------------------------
# The network and its reasons
# ------------------------------------------------------------------------------------------------


def test_the_network_is_the_one_of_the_main_run(data):
    assert count_parameters(network(data, DROPOUT)) == 135_674
    assert network(data, DROPOUT).eval()(torch.rand(2, 1, 36, 28)).shape == (2, 10)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_layer_has_a_reason_of_its_own_in_a_sentence(data, tmp_path, language):
    report = report_of(data, tmp_path, language=language)
    reasons = [case.layer_reason(report, name) for name, _ in layers(data, DROPOUT)]
    assert len(set(reasons)) == len(reasons) == 24
    assert all(len(r.split()) > 8 and r.endswith(".") for r in reasons)
    assert all("28" in reason for reason in reasons if "24 x 24" in reason)


def test_the_ablation_watches_few_photos_and_tests_on_all():
    whole = coursework.data.digits(8).held_out(0.4)
    part = few(whole)
    assert len(part.validation) == 500
    assert len(part.test) == len(whole.test)


# ------------------------------------------------------------------------------------------------
# Words follow numbers
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "loss", "accuracy"),
    [
        ((2.0, 1.0), "as wanted", "as wanted"),
        ((1.0, 2.0), "not as wanted", "not as wanted"),
        ((2.0, 2.0), "not as wanted", "not as wanted"),
        ((2.0,), "of one", "of one"),
    ],
)
def test_the_course_of_the_training_is_told_by_its_ends(data, losses, loss, accuracy):
    result = made_up(data, OWN, losses)
    assert course(result, "val_loss") == loss
    assert course(result, "val_accuracy") == accuracy


def test_a_loss_that_rises_is_not_said_to_fall(data, tmp_path):
    report = report_of(data, tmp_path, losses=(1.0, 0.5, 2.0))
    case.training(report)
    text = "\n".join(report.page.markdown)
    assert "Validation loss did not fall: it was 1.0000 after the first epoch and 2.0000" in text
    assert "lowest after epoch 2 (0.5000)" in text
    assert "Validation loss was lowest after epoch 2 of 3" in case.conclusions(report)[2]


@pytest.mark.parametrize(
    ("training", "test", "phrase"),
    [
        (0.80, 0.80, "fit without gap"),
        (1.00, 0.38, "fit by heart"),  # once called "better"
        (0.39, 0.38, "fit without gap"),
    ],
)
def test_training_accuracy_is_judged_beside_test_accuracy(data, training, test, phrase):
    assert fit(made_up(data, OWN, training=training, test=test)) == phrase


def test_a_gap_beyond_chance_is_overfitting(data):
    many = replace(data, test=coursework.data.digits(8).train)  # two standard errors: 0.021
    assert fit(made_up(many, OWN, training=0.82, test=0.80)) == "fit without gap"
    assert fit(made_up(many, OWN, training=0.83, test=0.80)) == "fit with gap"
    assert fit(made_up(many, OWN, training=0.91, test=0.80)) == "fit by heart"


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(-0.31, "smaller"), (-0.25, "same"), (0.0, "same"), (0.25, "same"), (0.31, "larger")],
)
def test_a_difference_within_the_spread_is_none(difference, verdict):
    assert Effect("gap", (1.0 + difference, 0.125), (1.0, 0.125)).verdict == verdict


def test_mean_and_deviation_over_three_seeds_by_hand(data, tmp_path):
    found = effects(report_of(data, tmp_path, regular=0.05, bare=0.10, spread=0.01).results)
    assert found["gap"].with_it == pytest.approx((0.05, 0.01))
    assert found["gap"].difference == pytest.approx(-0.05)
    assert found["test accuracy"].without == pytest.approx((0.8, 0.0))


@pytest.mark.parametrize(
    ("regular", "bare", "said"),
    [
        (0.05, 0.10, "new photos are answered neither better nor worse"),
        (0.10, 0.05, "the gap is even larger with it"),
        (0.10, 0.11, "is not shown here"),
    ],
)
def test_dropout_is_judged_by_the_spread_of_the_seeds(data, tmp_path, regular, bare, said):
    report = report_of(data, tmp_path, regular, bare)
    assert said in case.conclusions(report)[3]


@pytest.mark.parametrize(
    ("accuracy", "phrase"),
    [("larger", "dropout pays"), ("same", "dropout narrows"), ("smaller", "dropout costs")],
)
def test_a_smaller_gap_is_weighed_against_test_accuracy(accuracy, phrase):
    differences = {"larger": 0.1, "same": 0.0, "smaller": -0.1}
    found = {
        "gap": Effect("gap", (0.1, 0.01), (0.2, 0.01)),
        "test accuracy": Effect("test accuracy", (differences[accuracy], 0.01), (0.0, 0.01)),
    }
    assert case.conclusion_on_dropout(found) == phrase


def test_the_most_frequent_error_is_counted(data, tmp_path):
    report, truths = report_of(data, tmp_path), data.test.labels
    answers = truths.clone()
    chosen = (truths == 4).nonzero()[:3, 0]
    answers[chosen] = 9
    answers[(truths == 1).nonzero()[0, 0]] = 7
    report.results[OWN] = replace(report.results[OWN], network=Says(answers))
    total = int((truths == 4).sum())
    assert case.confusion(report) == (
        f"The most frequent error is 9 in the place of 4: {len(chosen)} of {total} photos of 4 "
        f"among the first 40 test photos, and of {len(chosen) + 1} errors in all."
    )
    report.results[OWN] = replace(report.results[OWN], network=Says(truths))
    assert case.confusion(report).startswith("None of the first 40 test photos")


class Says(nn.Module):
    """Gives these answers, whatever the photos."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 10)."""
        return nn.functional.one_hot(self.answers[: len(x)], 10).float()


def test_what_the_command_line_changed_is_told_beside_the_reasons(data, tmp_path):
    given = replace(RECIPE, learning_rate=0.25, batch_size=7)
    report = report_of(data, tmp_path, recipe=given)
    case.settings(report)
    text = "\n".join(report.page.markdown)
    assert "command line: learning rate 0.25 instead of 0.005" in text
    assert "command line: batch size 7 instead of 64" in text
    assert text.count("command line") == 2
    kept = report_of(data, tmp_path)
    case.settings(kept)
    assert "command line" not in "\n".join(kept.page.markdown)


def test_criteria_are_judged_by_the_numbers(data, tmp_path):
    good = report_of(data, tmp_path).draw()
    assert "All criteria are met." in good.markdown
    bad = report_of(data, tmp_path, 0.10, 0.05, losses=(1.0, 2.0), test=0.1)
    unmet = {c.name for c in case.criteria(bad) if not c.met}
    assert unmet == {"training loss", "training accuracy", "training test",
                     "training overfitting", "report pictures"}  # fmt: skip


def test_a_report_after_the_first_run_says_what_is_still_missing(data, tmp_path):
    whole = report_of(data, tmp_path)
    early = Report(case.ASSIGNMENT, data, whole.options, {OWN: whole.results[OWN]}).draw()
    text = "\n".join(early.markdown)
    assert text.count("Not answered yet") == 2
    assert f"({', '.join((*WITH, *WITHOUT))})" in text
