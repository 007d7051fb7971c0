"""The frame of the coursework reports: points, self-check, interrupts, verdicts, axes."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import coursework.data
from coursework import report as frame
from coursework.engine import Recipe, Result, Run
from coursework.options import Options
from coursework.report import Assignment, Point, Report
from solution import EpochRow

DATA = coursework.data.digits(8)


def made_up(label, training=0.9, test=0.8, losses=(2.0, 1.0), data=DATA) -> Result:
    """A run that was not trained, with these numbers; watched losses are half as large."""
    rows = [EpochRow(label, i + 1, v, 0.5, v / 2, 0.5, 0.1, 1.0) for i, v in enumerate(losses)]
    final = {"training_accuracy": training, "test_accuracy": test}
    final |= {"training_loss": 0.1, "test_loss": 0.2}
    return Result(
        Run(label, "changed", nn.Identity, data, Recipe(epochs=2)), nn.Identity(), rows, final
    )


def yield_two(data, options, results):
    """Two runs."""
    for label in ("a", "b"):
        yield Run(label, "", nn.Identity, data, Recipe(epochs=2))


def answer(report: Report) -> None:
    """Two blocks, one of them a picture."""
    report.page.text("answered")
    report.samples("photos", DATA.test.inputs[:1], ["7"], "predictions caption")


ASSIGNMENT = Assignment(
    name="case",  # whose phrases it borrows
    data_set="Fashion-MNIST",
    languages=("en", "ru"),
    summary="",
    load=lambda options: DATA,
    runs=yield_two,
    points=(Point("1", answer, ("a",)), Point("2", answer, ("a", "b")), Point("3", lambda _: None)),
)


def draw(tmp_path, results, language="en") -> list[str]:
    return Report(ASSIGNMENT, DATA, Options(tmp_path, language=language), results).draw().markdown


# ------------------------------------------------------------------------------------------------
# Points and self-check
# ------------------------------------------------------------------------------------------------


def test_a_point_waits_for_its_runs_and_says_so(tmp_path):
    early = draw(tmp_path, {"a": made_up("a")})
    assert sum(block == "answered" for block in early) == 1
    assert early.count("Not answered yet: it needs runs that are not finished (b).") == 1
    late = draw(tmp_path, {"a": made_up("a"), "b": made_up("b")})
    assert sum(block == "answered" for block in late) == 2
    assert "Not answered yet" not in "".join(late)


@pytest.mark.parametrize(("language", "yes", "no"), [("en", "yes", "no"), ("ru", "да", "нет")])
def test_the_self_check_counts_what_is_there(tmp_path, language, yes, no):
    table = draw(tmp_path, {"a": made_up("a")}, language)[-1]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    checked = [(row[0], *row[2:]) for row in rows]
    assert checked == [("1", yes, "2", "1"), ("2", no, "1", "0"), ("3", no, "0", "0")]


# ------------------------------------------------------------------------------------------------
# Reports while runs are trained
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made(Options):
    """Trains nothing; at the run `stop` it raises `error`."""

    stop: str = ""
    error: type[BaseException] = KeyboardInterrupt
    needs_report: bool = False  # before the run `stop`

    def train(self, run: Run) -> Result:
        """A made-up result."""
        if run.label == self.stop:
            assert (self.out / "report.html").exists() == self.needs_report
            raise self.error
        return made_up(run.label)


def written(folder: Path) -> tuple[str, list[str]]:
    page = (folder / "report.md").read_text(encoding="utf-8")
    return page, list(json.loads((folder / "history.json").read_text()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, coursework.data.CourseworkError])
def test_an_interrupt_leaves_the_report_of_what_has_ended(tmp_path, error):
    with pytest.raises(error):
        frame.work(ASSIGNMENT, Made(tmp_path, stop="b", error=error))
    page, runs = written(tmp_path)
    assert runs == ["a"]
    assert "not finished (b)" in page


def test_the_report_is_drawn_again_while_runs_are_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "REDRAW_SECONDS", -1)
    with pytest.raises(KeyboardInterrupt):
        frame.work(ASSIGNMENT, Made(tmp_path, stop="b", needs_report=True))


def test_an_interrupt_of_the_first_run_leaves_no_report(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        frame.work(ASSIGNMENT, Made(tmp_path, stop="a"))
    assert not list(tmp_path.iterdir())


def test_finished_runs_are_all_in_the_report(tmp_path):
    frame.work(ASSIGNMENT, Made(tmp_path))
    page, runs = written(tmp_path)
    assert runs == ["a", "b"]
    assert "not finished" not in page


# ------------------------------------------------------------------------------------------------
# Verdicts
# ------------------------------------------------------------------------------------------------

PHOTOS = len(DATA.test)
CHANCE = 2 * math.sqrt(2 * 0.5 * 0.5 / PHOTOS)  # at a mean accuracy of 0.5: 0.0745


@pytest.mark.parametrize(
    ("test", "training", "verdict"),
    [
        (1.02, 0.0, "better, by more than chance explains"),
        (0.98, 0.0, "no difference that so many test photos could tell"),
        (0.98, 0.98, "no difference that so many test photos could tell"),
        (0.98, 1.02, "better on training photos only: it overfits more"),
        (-0.98, 1.02, "better on training photos only: it overfits more"),
        (-0.98, -9.0, "no difference that so many test photos could tell"),
        (-1.02, 1.02, "worse on test photos and better on training photos: it overfits"),
        (-1.02, 0.98, "worse, and no better on training photos either"),
    ],
)
def test_a_verdict_turns_at_two_standard_errors(tmp_path, test, training, verdict):
    half = test * CHANCE / 2
    results = {
        "a": made_up("a", training=0.6, test=0.5 - half),
        "b": made_up("b", training=0.6 + training * CHANCE, test=0.5 + half),
    }
    said = Report(ASSIGNMENT, DATA, Options(tmp_path), results).compare("a", "b")
    assert f": {verdict}" in said
    assert said.startswith(f"b against a: test accuracy {2 * half:+.4f}, ")
    assert said.endswith(f"is {0.6 + training * CHANCE - 0.5 - half:+.4f}.")


# ------------------------------------------------------------------------------------------------
# Pictures
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """What the frame asks of each chart."""
    asked, curves = {}, frame.curves

    def kept(name, runs, *rest, **style):
        asked[name] = style | {"runs": runs}
        return curves(name, runs, *rest, **style)

    monkeypatch.setattr(frame, "curves", kept)
    return asked


def test_all_plots_have_the_same_axes_and_a_run_one_colour(tmp_path, drawn):
    results = {"a": made_up("a"), "b 1": made_up("b 1", losses=(1.5, 0.5, 0.4))}
    report = Report(ASSIGNMENT, DATA, Options(tmp_path), results)
    report.curves("a")
    report.curves("b 1")
    report.overview()
    assert set(drawn) == {f"{n}_{v}" for n in ("a", "b_1", "all") for v in ("accuracy", "loss")}
    frames = {asked["frame"] for name, asked in drawn.items() if name.endswith("accuracy")}
    assert [(f.epochs, f.low, f.high) for f in frames] == [(3, 0.0, 1.0)]
    frames = {asked["frame"] for name, asked in drawn.items() if name.endswith("loss")}
    assert [(f.epochs, f.low, f.high) for f in frames] == [(3, 0.0, pytest.approx(2.1))]
    assert len({tuple(asked["colours"].items()) for asked in drawn.values()}) == 1
    assert list(drawn["a_loss"]["runs"]["a"]) == ["training", "test"]
    assert drawn["a_loss"]["runs"]["a"] == {"training": [2.0, 1.0], "test": [1.0, 0.5]}
    assert list(drawn["all_loss"]["runs"]["a"]) == ["test"]


@pytest.mark.parametrize("losses", [(2.0, 1e6), (float("nan"), float("inf"))])
def test_a_loss_that_diverges_does_not_flatten_the_others(tmp_path, drawn, losses):
    results = {"a": made_up("a"), "b": made_up("b", losses=losses)}
    Report(ASSIGNMENT, DATA, Options(tmp_path), results).overview()
    highest = drawn["all_loss"]["frame"].high
    assert 2.0 < highest <= 1.05 * 2 * math.log(10) + 1e-9


class Seven(nn.Module):
    """Answers 7, whatever the photo."""

    def forward(self, x):
        return 100 * torch.eye(10)[7].expand(len(x), -1)


def test_a_wrong_answer_stands_beside_the_truth(tmp_path):
    report = Report(ASSIGNMENT, DATA, Options(tmp_path), {})
    report.predictions("answers", Seven(), DATA.test.inputs[:2], torch.tensor([7, 3]))
    assert report.page.pictures[0].alt == "7 1.00; 7 1.00, (is 3)"


def test_lines_in_the_russian_report_are_named_in_russian(tmp_path, drawn):
    report = Report(
        ASSIGNMENT, DATA, Options(tmp_path, language="ru", smoothing=3), {"a": made_up("a")}
    )
    report.curves("a")
    assert drawn["a_loss"]["epoch"] == "эпоха"
    assert list(drawn["a_loss"]["runs"]["a"]) == ["обучение", "тест"]
    assert "скользящее среднее" in report.page.pictures[0].caption
    assert "by epoch" not in report.page.pictures[0].alt
