"""A residual network from scratch on small photos: the story of a homework, stage by stage.

    python -m coursework resnet

Its author went from 20 % to 52.12 % test accuracy. `resnet_runs.py` has the networks and runs; here
is what they tell, a function a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from coursework.data import augmentation
from coursework.engine import Result
from coursework.report import Assignment, Point, Report, verdict_on
from coursework.resnet_runs import (
    FULL_EPOCHS,
    FULL_WIDTH,
    NAME,
    PLAN,
    WIDTH,
    best,
    load,
    network,
    runs,
    shrink_stem,
)
from solution import EpochRow

SUMMARY = """\
What: residual networks from scratch, from a plain BasicBlock network to a fine-tuned ResNet-50
      for small photos: a homework's story in eight stages, 15 runs.
Needs: CIFAR-10 or any folder of class folders, Tiny ImageNet's layout included (--data DIR, or
      CIFAR-10 by download, 170 MB); without it, digits.
Time: 14 minutes on 2 cores (AMD EPYC, Zen 4), with an eighth of the width and 10,000 photos;
      --full takes the whole width, all photos and the story's own epochs: a matter for a GPU."""

# Test accuracy in percent. Seven numbers are known for eight stages; it is our reading that dropout
# 0.5 (stage 6) was on the way to 51.98.
STORY = {"1": 20.0, "2": 20.0, "3": 30.0, "4": 40.0, "5": 45.0, "7": 51.98, "8": 52.12}
STAGES = ("1", "2", "3", "4", "5", "6", "7", "8")
DROPOUT = {step.label: step.network.get("dropout", 0.0) for step in PLAN}
SHOWN = 4  # photos in a row of samples


def labels_of(stage: str) -> list[str]:
    """Of its runs."""
    return [step.label for step in PLAN if step.label.startswith(stage)]


def finished(report: Report) -> dict[str, Result]:
    """By finished stage, the run that was best on the validation photos."""
    done = [s for s in STAGES if all(label in report.results for label in labels_of(s))]
    return {stage: best(report.results, stage) for stage in done}


def percent(result: Result) -> str:
    """Its test accuracy."""
    return f"{100 * result.final['test_accuracy']:.2f}"


# ------------------------------------------------------------------------------------------------
# The stages
# ------------------------------------------------------------------------------------------------


def _preface(report: Report) -> None:
    """How much of the story is run."""
    width = FULL_WIDTH if report.options.full else WIDTH
    values = {"width": width, "full_width": FULL_WIDTH, "photos": f"{len(report.data.train):,}"}
    report.text("whole version" if report.options.full else "reduced version", **values)
    trained = {label: len(result.rows) for label, result in report.results.items()}
    rows = [(step.label, trained.get(step.label, "-"), FULL_EPOCHS[step.label]) for step in PLAN]
    report.page.table([report.say(word) for word in ("run", "epochs here", "epochs full")], rows)
    report.text("epochs known")


def _basic(report: Report) -> None:
    first, longer = (report.results[label] for label in labels_of("1"))
    report.text("about 1", first=len(first.rows), longer=len(longer.rows))
    report.code(network)
    report.settings(first.run.label)
    key, values = overfitting([*first.rows, *longer.rows])
    _told(report, "1", [report.compare(*labels_of("1")), report.say(key, **values)])


def overfitting(rows: Sequence[EpochRow]) -> tuple[str, dict[str, str]]:
    """What the course of the losses bears out: a phrase, and what it is filled in with."""
    low = min(rows, key=lambda row: row.val_loss)
    end, epoch = rows[-1], 1 + rows.index(low)
    values = {"epoch": f"{epoch} / {len(rows)}", "low": f"{low.val_loss:.4f}"}
    values |= {"end": f"{end.val_loss:.4f}", "before": f"{low.loss:.4f}"}
    overfits = end.val_loss > low.val_loss and end.loss < low.loss
    return "overfits" if overfits else "does not overfit", values | {"after": f"{end.loss:.4f}"}


def _plain(report: Report) -> None:
    sgd, adam = (report.results[label].run.recipe for label in labels_of("2"))
    report.text("about 2", sgd=f"{sgd.learning_rate:g}", adam=f"{adam.learning_rate:g}")
    _changed(report, "2", ("flip", "vertical-flip"))
    _told(report, "2", [report.compare(*labels_of("2"))])


def _small_stem(report: Report) -> None:
    side = report.data.side
    report.text("about 3", side=side, large=-(-side // 4))
    report.code(shrink_stem)
    _told(report, "3", [report.compare(*labels_of("3"))])


def _colours(report: Report) -> None:
    flips, *others = labels_of("4")
    report.text("about 4", flips=flips)
    _changed(report, "4", ("grey", "blur", "jitter"))
    _told(report, "4", [report.compare(flips, label) for label in others])


def _schedules(report: Report) -> None:
    report.text("about 5", start=_start(report, "5 plateau"))
    _told(report, "5", [report.compare(*labels_of("5"))])


def _dropout(report: Report) -> None:
    report.text("about 6", start=_start(report, "6 dropout 0.5"))
    _changed(report, "6", ("erase",))
    _told(report, "6")


def _more_dropout(report: Report) -> None:
    report.text("about 7", epochs=len(report.results["7 dropout 0.7"].rows))
    _told(report, "7")


def _fine_tuning(report: Report) -> None:
    result = report.results["8 fine-tuning"]
    before, now = result.run.start.run.recipe, result.run.recipe
    values = {"before": before.batch_size, "after": now.batch_size}
    rates = {"rate": f"{before.learning_rate:g}", "new": f"{now.learning_rate:g}"}
    report.text("about 8", **values, **rates)
    _changed(report, "8", ("rand-augment",))
    _told(report, "8")
    photos = report.data.test.take(torch.arange(min(2 * SHOWN, len(report.data.test))).numpy())
    report.predictions("predictions", result.network, photos.inputs, photos.labels)


def _start(report: Report, label: str) -> str:
    start = report.results[label].run.start
    return start.run.label if start else report.say("random weights")


# ------------------------------------------------------------------------------------------------
# What all stages show
# ------------------------------------------------------------------------------------------------


def _told(report: Report, stage: str, said: Sequence[str] = ()) -> None:
    """Settings, numbers and curves of a stage, what is `said` of its runs, and the story's word."""
    labels, chosen = labels_of(stage), best(report.results, stage)
    report.recipes(labels)
    _numbers(report, labels)
    report.page.items([*said, *_rates(report, labels), *_after_the_last(report, stage)])
    if len(labels) > 1:
        accuracies = ((label, report.results[label].rows[-1].val_accuracy) for label in labels)
        listed = ", ".join(f"{label} {accuracy:.4f}" for label, accuracy in accuracies)
        report.text("chosen", label=chosen.run.label, accuracies=listed)
    ours = {"label": chosen.run.label, "ours": percent(chosen)}
    if stage in STORY:
        report.text("story says", story=STORY[stage], **ours)
    else:
        report.text("story silent", **ours)
    if len(labels) > 1:
        report.overview(labels, f"stage_{stage}")
    for label in labels:
        report.curves(label)


def _numbers(report: Report, labels: Sequence[str]) -> None:
    words = ("run", "what changed", "starts from", "training loss", "training accuracy")
    finals = ("training_loss", "training_accuracy", "test_loss", "test_accuracy")
    rows = [
        (
            label,
            report.change(label),
            _start(report, label),
            *(f"{report.results[label].final[name]:.4f}" for name in finals),
        )
        for label in labels
    ]
    header = [report.say(word) for word in (*words, "test loss", "test accuracy")]
    report.page.table(header, rows)


def _rates(report: Report, labels: Sequence[str]) -> list[str]:
    """The learning rate of each run that has a schedule, epoch by epoch, as it was."""
    lines = []
    for label in labels:
        result = report.results[label]
        groups = groupby(result.rows, lambda row: f"{row.learning_rate:.3g}")
        courses = [(rate, [row.epoch for row in rows]) for rate, rows in groups]
        rates = ", ".join(f"{rate} ({_span(epochs)})" for rate, epochs in courses)
        key = "rate changed" if len(courses) > 1 else "rate stayed"
        if result.run.recipe.schedule != "constant":
            lines.append(report.say(key, label=label, rates=rates))
    return lines


def _span(epochs: Sequence[int]) -> str:
    first, last = epochs[0], epochs[-1]
    return f"{first}-{last}" if last > first else str(first)


def _after_the_last(report: Report, stage: str) -> list[str]:
    """Against the stage before, with reasons where that is not beaten."""
    lines = []
    for before, after in pairwise(finished(report).values()):
        if after.run.label.startswith(stage):
            text = report.compare(before.run.label, after.run.label)
            lines.append(report.say("stage to stage", text=text))
            lines += _why_below(report, before, after)
    return lines


def _why_below(report: Report, before: Result, after: Result) -> list[str]:
    if after.final["test_accuracy"] > before.final["test_accuracy"]:
        return []
    return [report.say("why below", label=after.run.label, reasons=reasons(report, after))]


def reasons(report: Report, result: Result) -> str:
    """What a run's own numbers say on why it is not above another."""
    run, rows, say = result.run, result.rows, report.say
    photos = len(run.data.train)
    steps = len(rows) * (photos // min(run.recipe.batch_size, photos))
    course = {"first": f"{rows[0].val_accuracy:.4f}", "last": f"{rows[-1].val_accuracy:.4f}"}
    said = [say("reason course", epochs=len(rows), steps=steps, **course)]
    said += _other_conditions(report, result) if run.start else [say("reason anew")]
    if rows[-1].val_accuracy > rows[0].val_accuracy:
        said.append(say("reason rising"))
    return " ".join(said)


def _other_conditions(report: Report, result: Result) -> list[str]:
    """What is harder than where the run goes on from."""
    start, say = result.run.start, report.say
    before, now = start.rows[-1], result.rows[0]
    order = (now.learning_rate > before.learning_rate) - (now.learning_rate < before.learning_rate)
    key = {-1: "reason rate lower", 0: "reason rate same", 1: "reason rate higher"}[order]
    rates = {"before": f"{before.learning_rate:.3g}", "now": f"{now.learning_rate:.3g}"}
    said = [say(key, start=start.run.label, **rates, accuracy=f"{before.val_accuracy:.4f}")]
    new = [n for n in result.run.recipe.augment if n not in start.run.recipe.augment]
    if new:
        said.append(say("reason augment", names=", ".join(say(f"short {name}") for name in new)))
    dropout = [DROPOUT[run.label] for run in (start.run, result.run)]
    if dropout[1] > dropout[0]:
        said.append(say("reason dropout", before=dropout[0], now=dropout[1]))
    return said


def _changed(report: Report, stage: str, names: Sequence[str]) -> None:
    """The first photos, and below them what each augmentation makes of them."""
    photos = report.data.train.inputs[:SHOWN]
    shown, titles = list(photos), [report.say("original")] * len(photos)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in names:
            change = augmentation((name,), photos.shape[-1])
            shown += [_visibly(change, photo) for photo in photos]
            titles += [report.say(f"short {name}")] * len(photos)
    report.samples(f"stage_{stage}_photos", torch.stack(shown), titles, "changed caption", SHOWN)


def _visibly(change: nn.Module, photo: Tensor) -> Tensor:
    """The first of some random versions that is another photo, if there is one."""
    versions = (change(photo) for _ in range(30))
    return next((version for version in versions if not torch.equal(version, photo)), photo)


# ------------------------------------------------------------------------------------------------
# The story as a whole
# ------------------------------------------------------------------------------------------------


def _beside(report: Report) -> None:
    done = finished(report)
    header = [report.say(word) for word in ("stage", "story %", "run", "ours %")]
    rows = [
        (stage, STORY.get(stage, "-"), done[stage].run.label, percent(done[stage]))
        if stage in done
        else (stage, STORY.get(stage, "-"), "-", "-")
        for stage in STAGES
    ]
    report.page.table(header, rows)
    report.text("seven numbers")
    report.page.items(_comparable(report, done))
    report.runs_table()
    report.overview([result.run.label for result in done.values()], "stages")


def _comparable(report: Report, done: dict[str, Result]) -> list[str]:
    say, classes, tested = report.say, len(report.data.classes), len(report.data.test)
    told = [(STORY[s], done[s].final["test_accuracy"]) for s in STAGES if s in STORY and s in done]
    rises = [(b[0] > a[0], b[1] > a[1]) for a, b in pairwise(told)]
    values = {"steps": len(rises), "story": sum(a for a, _ in rises)}
    values |= {"ours": sum(b for _, b in rises), "alike": sum(a == b for a, b in rises)}
    chance = f"{100 * (2 * 2 * 0.25 / tested) ** 0.5:.1f}"  # two standard errors, at most
    lines = [say("comparable", **values)]
    lines.append(say("not comparable data", classes=classes, guessing=f"{100 / classes:.3g}"))
    if not report.options.full:
        lines.append(say("not comparable size", width=WIDTH, full_width=FULL_WIDTH))
    return [*lines, say("not comparable chance", tested=f"{tested:,}", points=chance)]


def _conclusions(report: Report) -> None:
    done = list(finished(report).values())
    first, last = done[0], done[-1]
    top = max(done, key=lambda result: result.final["test_accuracy"])
    values = {"first": percent(first), "last": percent(last), "top": percent(top)}
    change = f"{100 * (last.final['test_accuracy'] - first.final['test_accuracy']):+.2f}"
    labels = {"one": first.run.label, "other": last.run.label, "label": top.run.label}
    lines = [report.say("conclusion ends", change=change, **values, **labels)]
    lines += [_greatest_step(report, done), _gap(report), *_choices(report)]
    lines += [line for pair in pairwise(done) for line in _why_below(report, *pair)]
    report.page.items([*lines, _next(report, last)])


def _greatest_step(report: Report, done: Sequence[Result]) -> str:
    steps = [(b.final["test_accuracy"] - a.final["test_accuracy"], a, b) for a, b in pairwise(done)]
    points, before, after = max(steps, key=lambda step: step[0])
    if points <= 0:
        return report.say("conclusion no step")
    labels = {"before": before.run.label, "after": after.run.label}
    changed = report.change(after.run.label)
    return report.say("conclusion step", points=f"{100 * points:+.2f}", changed=changed, **labels)


def gap(result: Result) -> float:
    """Training accuracy minus test accuracy."""
    return result.final["training_accuracy"] - result.final["test_accuracy"]


def _gap(report: Report) -> str:
    """What became of the overfitting of stage 1."""
    first, last = report.results["1 longer"], report.results["8 fine-tuning"]
    key = "conclusion gap smaller" if gap(last) < gap(first) else "conclusion gap not smaller"
    return report.say(key, first=f"{gap(first):+.4f}", last=f"{gap(last):+.4f}")


def _choices(report: Report) -> list[str]:
    """What each comparison within a stage came to."""
    pairs = [labels_of("2"), labels_of("3"), labels_of("5")]
    pairs += [(labels_of("4")[0], label) for label in labels_of("4")[1:]]
    verdicts = [verdict_on(report.results[a], report.results[b]) for a, b in pairs]
    return [
        report.say("conclusion pair", before=a, after=b, verdict=report.say(verdict))
        for (a, b), verdict in zip(pairs, verdicts, strict=True)
    ]


def _next(report: Report, last: Result) -> str:
    """Where the next improvement is to be looked for."""
    key = "next generalise" if gap(last) > 1 - last.final["training_accuracy"] else "next fit"
    values = {"training": f"{last.final['training_accuracy']:.4f}", "gap": f"{gap(last):+.4f}"}
    return report.say(key, label=last.run.label, **values)


ANSWERS = (_basic, _plain, _small_stem, _colours, _schedules, _dropout, _more_dropout, _fine_tuning)
ASSIGNMENT = Assignment(
    name=NAME,
    data_set="CIFAR-10",
    languages=("en", "ru"),
    summary=SUMMARY,
    load=load,
    runs=runs,
    points=(
        *(Point(s, answer, labels_of(s)) for s, answer in zip(STAGES, ANSWERS, strict=True)),
        Point("9", _beside),
        Point("10", _conclusions, [step.label for step in PLAN]),
    ),
    preface=_preface,
)
