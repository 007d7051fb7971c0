"""The control questions of the assignment `transfer`, answered from its runs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from coursework.engine import Result, accepts, forward_all
from coursework.pretrained import lower
from coursework.report import Point, Report, verdict_on
from coursework.transfer_report import (
    answers,
    by,
    gap_key,
    gap_values,
    grey_of,
    main_run,
    network_of,
    reference,
)

ALL = "all photos"  # there is no comparison without it
PROBED = 500  # test photos that are answered with other preprocessing


def _compared(report: Report, question: str, before: str) -> None:
    """A comparison with the reference, and the phrase of the question that it bears out."""
    after = reference(report)
    report.page.text(report.compare(before, after))
    verdict = verdict_on(report.results[before], report.results[after])
    same = ("verdict no difference", "verdict overfits more")
    ending = "better" if verdict == "verdict better" else "same" if verdict in same else "worse"
    report.text(f"{question} {ending}")


def _seconds(report: Report, *labels: str) -> None:
    words = ("run", "parameters", "epochs", "seconds an epoch", "seconds", "test accuracy")
    rows = [
        (
            label,
            f"{(r := report.results[label]).parameters:,}",
            len(r.rows),
            f"{r.seconds / len(r.rows):.1f}",
            f"{r.seconds:.1f}",
            f"{r.final['test_accuracy']:.4f}",
        )
        for label in labels
    ]
    report.page.table([report.say(word) for word in words], rows)


def why_transfer(report: Report) -> None:
    """Pretrained against random weights."""
    report.text("Q1 text")
    _seconds(report, "random weights", reference(report))
    _compared(report, "Q1", "random weights")


def why_frozen(report: Report) -> None:
    """No block, some blocks, all blocks frozen."""
    report.text("Q2 text")
    _seconds(report, "random weights", reference(report), "head only")
    _compared(report, "Q2", "head only")


def why_two_rates(report: Report) -> None:
    """A smaller rate for the pretrained blocks against one for all."""
    recipe = report.results[reference(report)].run.recipe
    report.text("Q3 text", share=f"{recipe.backbone_rate:g}")
    _compared(report, "Q3", "one rate")


def other_channels(report: Report) -> None:
    """The first layer, in words and by its weights."""
    grey = grey_of(report)
    report.text("Q4 text")
    before, after = (f"{math.prod(shape):,}" for shape in (grey.before, grey.after))
    key = "Q4 same" if grey.same else "Q4 different"
    share = f"{grey.difference / grey.greatest:.1e}"
    report.text(key, before=before, after=after, share=share)


def why_prepared(report: Report) -> None:
    """The same network on photos that lack a part of the preprocessing."""
    report.text("Q5 text")
    rows, right = [], {}
    for key, shape, accuracy in probes(report):
        right[key] = accuracy
        shown = report.say("nothing left") if accuracy is None else f"{accuracy:.4f}"
        rows.append((report.say(f"probe {key}"), shape or "-", shown))
    header = ("preprocessing", "after the blocks", "test accuracy")
    report.page.table([report.say(word) for word in header], rows)
    report.text("Q5 probes", photos=min(PROBED, len(report.data.test)))
    for key in ("not normalised", "not enlarged"):
        if right[key] is None:
            report.text("Q5 impossible")
        else:
            change = right[key] - right["whole"]
            report.text(f"Q5 {key}" if change < 0 else f"Q5 {key} no loss", change=f"{change:+.4f}")


def probes(report: Report) -> list[tuple[str, str, float | None]]:
    """Kind of preprocessing, shape after the last block, accuracy on some test photos."""
    used, photos = network_of(report), report.data.test
    normalise, enlarge, *frozen = lower(used.backbone, used.frozen, used.pretrained)
    kinds = {
        "whole": (normalise, enlarge),
        "not normalised": (enlarge,),
        "not enlarged": (normalise,),
    }
    found = []
    for key, steps in kinds.items():
        blocks = nn.Sequential(*steps, *frozen, used.trunk, used.blocks)
        if not accepts(blocks, 1, report.data.side, report.data.side):
            found.append((key, "", None))
            continue
        features = forward_all(blocks, photos.inputs[:PROBED], False)  # (N, channels, h, w)
        with torch.inference_mode():
            said = used.head(features.mean((2, 3))).argmax(1)  # (N,)
        right = (said == photos.labels[:PROBED]).float().mean().item()
        found.append((key, by(features.shape[1:]), right))
    return found


def what_measures_say(report: Report) -> None:
    """Precision, recall and F1 by the class that is answered worst."""
    report.text("Q6 text")
    measured, names = answers(report, "test"), report.data.classes
    worst = int(measured.f1.argmin())
    right, said = int(measured.matrix[worst, worst]), int(measured.matrix[:, worst].sum())
    values = {"right": right, "said": said, "count": int(measured.count[worst])}
    figures = ("precision", "recall", "f1")
    values |= {figure: f"{getattr(measured, figure)[worst]:.3f}" for figure in figures}
    report.text("Q6 worst", name=names[worst], **values)
    key = "Q6 never"
    if right:
        many = np.sign(said - values["count"])
        key = {1: "Q6 too often", -1: "Q6 too rarely", 0: "Q6 as often"}[int(many)]
    report.text(key, name=names[worst])
    macro, accuracy = f"{measured.f1.mean():.4f}", f"{measured.accuracy:.4f}"
    report.text("Q6 macro", macro=macro, accuracy=accuracy)


def overfitting(report: Report) -> None:
    """The gap of each run, and what was done about it."""
    report.text("Q7 text")
    rows = []
    for label, result in report.results.items():
        shown = gap_values(result)
        rows.append((label, shown["training_accuracy"], shown["test_accuracy"], shown["gap"]))
    header = ("run", "training accuracy", "test accuracy", "gap")
    report.page.table([report.say(word) for word in header], rows)
    report.text(gap_key(report), **gap_values(main_run(report)))
    report.page.items(_measures(report))
    if "augmented" in report.results:
        base, changed = (report.results[label] for label in (reference(report), "augmented"))
        gaps = [_gap(result) for result in (base, changed)]
        values = {"before": f"{gaps[0]:+.4f}", "after": f"{gaps[1]:+.4f}"}
        report.text("Q7 narrower" if gaps[1] < gaps[0] else "Q7 not narrower", **values)


def _measures(report: Report) -> list[str]:
    used, recipe = network_of(report), main_run(report).run.recipe
    values = {"p": used.dropout.p, "frozen": used.frozen, "decay": f"{recipe.weight_decay:g}"}
    values |= {"epochs": recipe.epochs, "photos": f"{len(report.data.validation):,}"}
    keys = ["dropout", "decay", "epochs", "validation"]
    return [report.say(f"Q7 {key}", **values) for key in ["frozen"] * bool(used.frozen) + keys]


def _gap(result: Result) -> float:
    return result.final["training_accuracy"] - result.final["test_accuracy"]


QUESTIONS = (
    Point("Q1", why_transfer, (ALL, "random weights")),
    Point("Q2", why_frozen, (ALL, "head only", "random weights")),
    Point("Q3", why_two_rates, (ALL, "one rate")),
    Point("Q4", other_channels),
    Point("Q5", why_prepared),
    Point("Q6", what_measures_say),
    Point("Q7", overfitting),
)
