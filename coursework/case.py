"""An own CNN for a small data set, with the reason for every layer and every setting.

    python -m coursework case

Seven runs: the network on all training photos, and, on a part of them small enough to be learnt by
heart, the same network with and without its method against overfitting, three seeds each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coursework.case_measures import (
    Effect,
    augmented,
    course,
    effects,
    error,
    even,
    fit,
    gap,
    normalised,
    untrained,
)
from coursework.case_network import (
    DROPOUT,
    FULL_EPOCHS,
    OWN,
    RECIPE,
    SEEDS,
    VALIDATION_SHARE,
    WITH,
    WITHOUT,
    conv,
    few,
    layers,
    load,
    network,
    runs,
)
from coursework.data import DIGITS, DataSet
from coursework.engine import Batches, Normalise, Result, Training, count_parameters, probabilities
from coursework.report import Assignment, Point, Report, described

LOOKED_THROUGH = 1_000  # test photos, for right and wrong answers


# ------------------------------------------------------------------------------------------------
# 1: the architecture
# ------------------------------------------------------------------------------------------------


def architecture(report: Report) -> None:
    """Every layer with its reason, starting weights, padding, parameters, code."""
    data, say = report.data, report.say
    rows, x = [], data.train.inputs[:1].float()
    for name, layer in layers(data, DROPOUT):
        x = layer.eval()(x)
        shape = " x ".join(str(n) for n in x.shape[1:])
        reason = layer_reason(report, name)
        rows.append((_described(layer), shape, f"{count_parameters(layer):,}", reason))
    report.text("architecture", layers=len(rows))
    report.page.table([say(word) for word in ("layer", "output", "parameters", "why")], rows)
    _parameters(report)
    report.text("initialisation", **untrained(data))
    report.text("padding", **_padding(data))
    report.code(layers, conv, network)


def layer_reason(report: Report, name: str) -> str:
    """Why a layer is there, with the sizes of the data at hand."""
    side = report.data.side
    places = (side // 4) ** 2
    sides = {"side": side, "half": side // 2, "quarter": side // 4, "places": places}
    shares = {"share": DROPOUT, "half_share": DROPOUT / 2}
    return report.say(f"layer {name}", classes=len(report.data.classes), **sides, **shares)


def _described(layer: nn.Module) -> str:
    name = type(layer).__name__
    if isinstance(layer, nn.Conv2d):
        return f"{name} {layer.kernel_size[0]} x {layer.kernel_size[1]}, {layer.out_channels}"
    if isinstance(layer, nn.MaxPool2d):
        return f"{name} {layer.kernel_size}"
    return f"{name} {layer.p:g}" if isinstance(layer, nn.Dropout) else name


def _parameters(report: Report) -> None:
    counts = [(count_parameters(layer), layer) for _, layer in layers(report.data, DROPOUT)]
    total, (most, largest) = sum(n for n, _ in counts), max(counts, key=lambda pair: pair[0])
    values = {"total": f"{total:,}", "most": f"{most:,}", "share": f"{most / total:.0%}"}
    photos = f"{len(report.data.train):,}"
    report.text("parameter count", largest=_described(largest), photos=photos, **values)


def _padding(data: DataSet) -> dict[str, Any]:
    side = data.side
    without = ((side - 4) // 2 - 4) // 2 - 2  # two convolutions, pooling, two, pooling, one
    average = ", ".join(f"{value:.3f}" for value in data.statistics()[0])
    return {"side": side, "quarter": side // 4, "without": without, "mean": average}


# ------------------------------------------------------------------------------------------------
# 2: the data
# ------------------------------------------------------------------------------------------------


def preparation(report: Report) -> None:
    """Splits, normalisation, loaders, augmentation with its reason and its pictures."""
    data, say = report.data, report.say
    shown = data.train.inputs[:8]
    report.samples("samples", shown, _names(data, data.train.labels[:8]), "samples caption")
    report.text("split", share=f"{VALIDATION_SHARE:.0%}", **_counts(data))
    parts = (data.train, data.validation, data.test)
    counts = [np.bincount(p.labels.numpy(), minlength=len(data.classes)).tolist() for p in parts]
    header = ("class", "training", "validation", "test")
    rows = zip(data.classes, *counts, strict=True)
    report.page.table([say(word) for word in header], rows)
    report.text("normalisation", **_normalised(data))
    batch = min(report.options.recipe(RECIPE, FULL_EPOCHS).batch_size, len(data.train))
    report.text("loaders", batch=batch, steps=f"{len(data.train) // batch:,}", **_counts(data))
    report.code(DataSet.held_out, Normalise, Batches, Training.train_dataloader)
    _augmentation(report)


def _names(data: DataSet, labels: Tensor) -> list[str]:
    return [data.classes[label] for label in labels.tolist()]


def _counts(data: DataSet) -> dict[str, str]:
    kinds = ("train", "validation", "test")
    return {kind: f"{len(getattr(data, kind)):,}" for kind in kinds}


def _normalised(data: DataSet) -> dict[str, str]:
    means, deviations = (", ".join(f"{v:.4f}" for v in values) for values in data.statistics())
    after, spread = normalised(data)
    return {"means": means, "deviations": deviations, "after": f"{after:+.3f}",
            "spread": f"{spread:.3f}"}  # fmt: skip


def _augmentation(report: Report) -> None:
    data, say = report.data, report.say
    report.page.items(say(f"augment {name}") for name in RECIPE.augment)
    digits = data.name.startswith(DIGITS)
    report.text("augmentation of digits" if digits else "augmentation of things")
    report.text("augmentation left out")
    after, changed = augmented(data)
    names = _names(data, data.train.labels[: len(after)])
    titles = [f"{name}: {say('before')}" for name in names]
    titles += [
        f"{name}: {say('changed' if new else 'unchanged')}"
        for name, new in zip(names, changed, strict=True)
    ]
    photos = torch.cat([data.train.inputs[: len(after)], after])
    report.samples("augmentation", photos, titles, "augmentation caption", columns=len(after))


# ------------------------------------------------------------------------------------------------
# 3 and 4: settings and training
# ------------------------------------------------------------------------------------------------


def settings(report: Report) -> None:
    """Loss and hyper-parameters with their reasons, and where they come from."""
    report.settings(OWN)
    _departures(report)
    report.text("dropout chosen", share=DROPOUT, half=DROPOUT / 2)
    report.text("trials")


def _departures(report: Report) -> None:
    """What the command line changed, since the reasons speak of the recipe without that."""
    run = report.results[OWN].run
    own, used = (described(r, report.say) for r in (replace(run, recipe=RECIPE), run))
    for name in own:
        if own[name] != used[name] and name != "loader":  # it repeats the batch size
            setting = report.say(f"setting {name}")
            report.text("departure", setting=setting, own=own[name], used=used[name])


def training(report: Report) -> None:
    """Curves, what they say in numbers, test loss and accuracy, seconds an epoch."""
    own, say = report.results[OWN], report.say
    report.curves(OWN)
    header = ("epoch", "training loss", "training accuracy", "validation loss")
    header += ("validation accuracy", "rate", "seconds")
    numbers = [
        (row.epoch, *(f"{v:.4f}" for v in (row.loss, row.accuracy, row.val_loss, row.val_accuracy)),
         f"{row.learning_rate:.1e}", f"{row.seconds:.1f}") for row in own.rows
    ]  # fmt: skip
    report.page.table([say(word) for word in header], numbers)
    report.text("training means")
    for value in ("val_loss", "val_accuracy"):
        report.text(f"{value} {course(own, value)}", **_course(own, value))
    report.runs_table([OWN])
    report.text("tested", **_tested(own))


def _course(result: Result, value: str) -> dict[str, Any]:
    values = [getattr(row, value) for row in result.rows]
    best = (np.argmin if value == "val_loss" else np.argmax)(values)
    numbers = {"first": values[0], "last": values[-1], "best": values[best]}
    return {k: f"{v:.4f}" for k, v in numbers.items()} | {"at": best + 1, "epochs": len(values)}


def _tested(result: Result) -> dict[str, str]:
    seconds = f"{result.seconds / len(result.rows):.1f}"
    numbers = {"loss": result.final["test_loss"], "accuracy": result.final["test_accuracy"]}
    numbers["even"] = even(result.run.data)
    numbers["chance"] = 1 / len(result.run.data.classes)
    shown = {name: f"{value:.4f}" for name, value in numbers.items()}
    return shown | {"photos": f"{len(result.run.data.test):,}", "seconds": seconds}


# ------------------------------------------------------------------------------------------------
# 5: the method against overfitting
# ------------------------------------------------------------------------------------------------


def conclusion_on_dropout(found: Mapping[str, Effect]) -> str:
    """The phrase that the gap and the test accuracy bear out."""
    if found["gap"].verdict != "smaller":
        return "dropout does nothing" if found["gap"].verdict == "same" else "dropout widens"
    accuracy = found["test accuracy"].verdict
    return {"larger": "dropout pays", "same": "dropout narrows", "smaller": "dropout costs"}[
        accuracy
    ]


def ablation(report: Report) -> None:
    """Dropout: how it works, and what it does over three seeds."""
    say, some = report.say, report.results[WITH[0]].run
    photos, epochs = f"{len(some.data.train):,}", some.recipe.epochs
    watched = f"{len(some.data.watched):,}"
    report.text("dropout works", share=DROPOUT, half=DROPOUT / 2)
    report.text("ablation", photos=photos, epochs=epochs, watched=watched, seeds=len(SEEDS))
    report.recipes((OWN, WITH[0], WITHOUT[0]))
    report.code(few, runs)
    report.runs_table((*WITH, *WITHOUT))
    report.text("ablation curves")
    report.overview((*WITH, *WITHOUT), "ablation")
    for label in (WITH[0], WITHOUT[0]):
        report.curves(label)
    found = effects(report.results)
    header = ("measure", "with dropout", "without dropout", "difference", "beyond")
    report.page.table([say(word) for word in header], [_row(report, e) for e in found.values()])
    report.text("spread", seeds=len(SEEDS))
    report.page.items(say(f"{e.name} {e.verdict}") for e in found.values())
    report.text(conclusion_on_dropout(found))


def _row(report: Report, effect: Effect) -> tuple[str, ...]:
    sides = (f"{middle:.4f} ± {deviation:.4f}" for middle, deviation in
             (effect.with_it, effect.without))  # fmt: skip
    beyond = report.say("no" if effect.verdict == "same" else "yes")
    return (report.say(effect.name), *sides, f"{effect.difference:+.4f}", beyond)


# ------------------------------------------------------------------------------------------------
# 6: predictions, conclusions, the check
# ------------------------------------------------------------------------------------------------


def ending(report: Report) -> None:
    """Right and wrong answers, conclusions, and the criteria of the course."""
    _predictions(report)
    report.page.heading(report.say("conclusions"), 3)
    for sentence in conclusions(report):
        report.page.text(sentence)
    report.page.heading(report.say("criteria"), 3)
    _show_criteria(report, criteria(report))


def _answers(report: Report) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the answers (N,), answers (N,), truths (N,) of the first test photos."""
    test = report.data.test
    most, answers = probabilities(report.results[OWN].network, test.inputs[:LOOKED_THROUGH]).max(
        1
    )  # (N,), (N,)
    return most, answers, test.labels[:LOOKED_THROUGH]


def _predictions(report: Report) -> None:
    most, answers, truths = _answers(report)
    right = answers == truths  # (N,)
    test = report.data.test
    report.text("answers", photos=f"{len(right):,}", right=f"{int(right.sum()):,}")
    for kind, chosen in (("right", right), ("wrong", ~right)):
        indices = chosen.nonzero()[:4, 0]
        if not len(indices):
            report.text(f"none {kind}")
            continue
        report.text(f"answers {kind}", probability=f"{most[chosen].mean():.2f}")
        shown = (test.inputs[indices], test.labels[indices])
        report.predictions(f"predictions_{kind}", report.results[OWN].network, *shown)


def confusion(report: Report) -> str:
    """The most frequent error among the first test photos, in words."""
    _, answers, truths = _answers(report)
    pairs = list(zip(truths.tolist(), answers.tolist(), strict=True))
    errors = Counter(pair for pair in pairs if pair[0] != pair[1])
    if not errors:
        return report.say("no confusion", photos=f"{len(pairs):,}")
    (truth, answer), count = errors.most_common(1)[0]
    names = {"truth": report.data.classes[truth], "answer": report.data.classes[answer]}
    total = sum(pair[0] == truth for pair in pairs)
    return report.say(
        "confusion",
        count=count,
        total=total,
        errors=errors.total(),
        photos=f"{len(pairs):,}",
        **names,
    )


def conclusions(report: Report) -> list[str]:
    """Several sentences, each bound to the numbers of these runs."""
    own, say = report.results[OWN], report.say
    network = {"parameters": f"{own.parameters:,}", "epochs": len(own.rows)}
    trained = {"train": f"{len(own.run.data.train):,}", "name": own.run.data.name}
    best = _course(own, "val_loss")
    last = "best last" if best["at"] == best["epochs"] else "best before"
    numbers = {"training": f"{own.final['training_accuracy']:.4f}", "gap": f"{gap(own):+.4f}"}
    return [
        say("concluded", **network, **trained, **_tested(own)),
        say(fit(own), **numbers),
        say(last, **best),
        say(conclusion_on_dropout(effects(report.results))),
        confusion(report),
        say("limits", photos=f"{len(own.run.data.test):,}", error=f"{error(own):.4f}"),
    ]


@dataclass(frozen=True)
class Criterion:
    """What the course asks for, and what there is to show for it."""

    name: str  # begins with the area; of the phrases `wanted <name>` and `evidence <name>`
    met: bool
    evidence: Mapping[str, Any]


def criteria(report: Report) -> list[Criterion]:
    """Every criterion, judged by the numbers of the runs and by what the page holds."""
    return [*_designed(report), *_prepared(report), *_trained(report), *_reported(report)]


def _designed(report: Report) -> list[Criterion]:
    names = [name for name, _ in layers(report.data, DROPOUT)]
    different = len({layer_reason(report, name) for name in names})
    start = untrained(report.data)
    near = abs(float(start["loss"]) / float(start["even"]) - 1) < 0.1
    return [
        Criterion("architecture layers", different == len(names),
                  {"layers": len(names), "reasons": different}),
        Criterion("architecture start", near, start),
    ]  # fmt: skip


def _prepared(report: Report) -> list[Criterion]:
    data, (middle, spread) = report.data, normalised(report.data)
    _, changed = augmented(data)
    numbers = {"after": f"{middle:+.3f}", "spread": f"{spread:.3f}"}
    apart = data.validation is not None and all(map(len, (data.train, data.watched, data.test)))
    pictures = {"changed": sum(changed), "shown": len(changed)}
    return [
        Criterion("data split", apart, _counts(data) if apart else {}),
        Criterion("data normalised", abs(middle) < 0.1 and abs(spread - 1) < 0.1, numbers),
        Criterion("data augmentation", any(changed), pictures),
    ]


def _trained(report: Report) -> list[Criterion]:
    own, found = report.results[OWN], effects(report.results)["gap"]
    loss, accuracy = _course(own, "val_loss"), _course(own, "val_accuracy")
    better = own.final["test_accuracy"] - error(own) > 1 / len(own.run.data.classes)
    wide = {"with_it": f"{found.with_it[0]:.4f}", "without": f"{found.without[0]:.4f}"}
    spread = f"{found.with_it[1] + found.without[1]:.4f}"
    return [
        Criterion("training loss", course(own, "val_loss") == "as wanted", loss),
        Criterion("training accuracy", course(own, "val_accuracy") == "as wanted",
                  accuracy),
        Criterion("training test", better, _tested(own)),
        Criterion("training overfitting", found.verdict == "smaller", wide | {"spread": spread}),
    ]  # fmt: skip


def _reported(report: Report) -> list[Criterion]:
    wanted = {"samples", "augmentation", "own_cnn_loss", "own_cnn_accuracy", "ablation_accuracy"}
    wanted |= {"predictions_right", "predictions_wrong"}
    there = wanted & {picture.name for picture in report.page.pictures}
    shown = {"there": len(there), "wanted": len(wanted)}
    return [Criterion("report pictures", there == wanted, shown)]


def _show_criteria(report: Report, found: Sequence[Criterion]) -> None:
    say = report.say
    rows = [
        (say(f"area {c.name.split()[0]}"), say(f"wanted {c.name}"), say("yes" if c.met else "no"),
         say(f"evidence {c.name}", **c.evidence))
        for c in found
    ]  # fmt: skip
    report.page.table([say(word) for word in ("area", "asked for", "met", "evidence")], rows)
    missed = "; ".join(say(f"wanted {c.name}") for c in found if not c.met)
    report.text("not met" if missed else "all met", missed=missed)


POINTS = (
    Point("1", architecture),
    Point("2", preparation),
    Point("3", settings, (OWN,)),
    Point("4", training, (OWN,)),
    Point("5", ablation, (*WITH, *WITHOUT, OWN)),
    Point("6", ending, (OWN, *WITH, *WITHOUT)),
)

ASSIGNMENT = Assignment(
    name="case",
    data_set="Fashion-MNIST",
    languages=("en", "ru"),
    summary="""\
What: an own CNN for Fashion-MNIST, with the reasons for its layers and settings, an ablation of
      the method against overfitting over three seeds, and a check against the course's criteria.
Needs: Fashion-MNIST, or CIFAR-10, or class folders (--data DIR, or Fashion-MNIST by download,
       30 MB); without it, digits.
Time: 5 minutes on 2 cores (AMD EPYC, Zen 4); --full trains for 40 epochs.""",
    load=load,
    runs=runs,
    points=POINTS,
)
