"""CIFAR-10 from scratch: the report, point by point; its networks are in ladder_networks.py.

python -m coursework ladder
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2.functional import resize

from coursework.data import DataSet, Photos, one_hot
from coursework.engine import Result, accepts, count_parameters, probabilities
from coursework.ladder_networks import (
    ANY_SIZE,
    ASSIGNED,
    COMPARED,
    DEEPER,
    DROPPED,
    MINIMAL,
    NORM,
    RELU,
    SIDE,
    SIGMOID,
    TUNED,
    WIDER,
    blocks,
    conv_block,
    first_gradient,
    glorot,
    layers,
    minimal,
    networks,
    receptive_field,
    runs,
)
from coursework.ladder_photo import JUDGED, answer_photo, new_photo, read_back
from coursework.options import Options
from coursework.report import Assignment, Point, Report, described, noise, verdict_on
from reporting.charts import bars

SUMMARY = """\
What: eight networks on CIFAR-10, from two convolutions of 5 filters to four blocks with batch
      norm, dropout and global average pooling; what each change brings; a new photo (--photo FILE).
Needs: CIFAR-10 (--data DIR, or a download of 170 MB); without it, digits.
Time: 15 minutes on 2 cores (AMD EPYC, Zen 4); --preset night up to three hours; --full trains each
      of the nine runs for 150 epochs."""

ASSIGNED_PHOTOS = 50_000
SHOWN = 4  # test photos whose probabilities are written out
OTHER_SIZES = ((28, 32), (36, 30), (48, 64))  # height, width


# ------------------------------------------------------------------------------------------------
# Points 1 to 4: data and the minimal network
# ------------------------------------------------------------------------------------------------


def _samples(report: Report) -> None:
    data = report.data
    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:16]
    names = [data.classes[label] for label in data.train.labels[chosen]]
    report.samples("samples", data.train.inputs[chosen], names, "samples caption")
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    ends = sorted({counts.min().item(), counts.max().item()})
    report.text("classes", counts=" – ".join(f"{count:,}" for count in ends))
    within = variance_within(data.train)
    report.text("diverse" if within > 0.9 else "alike", share=f"{100 * within:.1f} %")
    if data.name == "CIFAR10":
        report.text("diverse CIFAR10")


def variance_within(photos: Photos) -> float:
    """The share of the pixels' variance that is among photos of one class, of some thousands."""
    pixels = photos.inputs[:5_000].float().flatten(1)  # (N, C * H * W)
    labels = photos.labels[:5_000]
    spread = sum(
        (pixels[labels == label].var(0, correction=0) * (labels == label).sum()).sum()
        for label in labels.unique()
    )
    return float(spread / (pixels.var(0, correction=0).sum() * len(pixels)))


def _one_hot(report: Report) -> None:
    data, network = report.data, report.results[MINIMAL].run.fresh()
    labels = data.train.labels[:6]
    vectors = one_hot(labels, len(data.classes))
    report.code(one_hot)
    names = [data.classes[label] for label in labels]
    rows = [(n, *v) for n, v in zip(names, vectors.int().tolist(), strict=True)]
    report.page.table((report.say("label"), *data.classes), rows)
    logits = probabilities(network, data.train.inputs[:6]).log()
    losses = [functional.cross_entropy(logits, target) for target in (vectors, labels)]
    report.text("one-hot", vectors=f"{losses[0]:.4f}", indices=f"{losses[1]:.4f}")


def _minimal(report: Report) -> None:
    report.text("minimal")
    report.code(minimal, glorot)
    report.text("initialisation")


def _parameters(report: Report) -> None:
    for label in (MINIMAL, WIDER):
        _layers(report, label)
    few, many = (f"{count_parameters(minimal(3, 10, filters)):,}" for filters in (5, 20))
    report.text("assigned parameters", few=few, many=many)


def _layers(report: Report, label: str) -> None:
    """A row a layer, with its output for one photo, and how its parameters are counted."""
    data = report.data
    network = networks(data.channels, len(data.classes))[label]()
    rows = layers(network, (data.channels, SIDE, SIDE))
    total = f"{count_parameters(network):,}"
    report.text("layers", run=label, parameters=total)
    header = ("layer", "output", "formula", "parameters")
    rows = [*rows, (report.say("sum"), "", "", total)]
    report.page.table([report.say(word) for word in header], rows)


# ------------------------------------------------------------------------------------------------
# Points 5 to 7: the minimal network before, in and after training
# ------------------------------------------------------------------------------------------------


def _before(report: Report) -> None:
    network = report.results[MINIMAL].run.fresh()
    _probabilities(report, {"before": network})
    seen = outlook(network, report.data.test)
    report.text("outlook", **_written(seen), **_chance(report))
    guessing = 1 / len(report.data.classes)
    noise = 2 * math.sqrt(guessing * (1 - guessing) / seen["photos"])
    report.text("knows nothing" if abs(seen["right"] - guessing) <= noise else "lucky weights")


def _training(report: Report) -> None:
    run = report.results[MINIMAL].run
    here, assigned = (described(r, report.say) for r in (run, replace(run, recipe=ASSIGNED)))
    report.page.table(
        [report.say(word) for word in ("setting", "assignment", "here", "why")],
        [(report.say(f"setting {n}"), assigned[n], here[n], report.say(f"why {n}")) for n in here],
    )
    _comparability(report)
    report.curves(MINIMAL)
    _learned(report, MINIMAL)


def _comparability(report: Report) -> None:
    """What the preset has of the assignment's recipe, and which numbers stand beside which."""
    run = report.results[MINIMAL].run
    recipe, photos = run.recipe, len(run.data.train)
    steps = ASSIGNED_PHOTOS / ASSIGNED.batch_size * ASSIGNED.epochs
    share = photos / recipe.batch_size * recipe.epochs * recipe.learning_rate
    share /= steps * ASSIGNED.learning_rate
    same = replace(recipe, seed=ASSIGNED.seed) == ASSIGNED and photos == ASSIGNED_PHOTOS
    values = {"epochs": recipe.epochs, "rate": f"{recipe.learning_rate:g}", "photos": f"{photos:,}"}
    values |= {"preset": report.options.preset, "share": f"{100 * share:.3g} %"}
    report.text("as assigned" if same else "not as assigned", **values)
    report.text("comparable", first=MINIMAL, last=ANY_SIZE, tuned=TUNED)


def _learned(report: Report, label: str) -> None:
    """From where to where the loss went, and whether the network guesses still."""
    result = report.results[label]
    losses = {"first": result.rows[0].loss, "last": result.rows[-1].loss}
    losses["clueless"] = math.log(len(report.data.classes))
    accuracy = result.final["test_accuracy"]
    verdict = report.say("still guessing" if guesses(result) else "learns")
    values = {name: f"{loss:.4f}" for name, loss in losses.items()}
    values |= {"accuracy": f"{accuracy:.4f}", "verdict": verdict} | _chance(report)
    report.text("learned", run=label, epochs=len(result.rows), **values)


def guesses(result: Result) -> bool:
    """Whether the test accuracy is near that of guessing."""
    return result.final["test_accuracy"] < 1.2 / len(result.run.data.classes)


def _after(report: Report) -> None:
    result = report.results[MINIMAL]
    stages = {"before": result.run.fresh(), "after": result.network}
    _probabilities(report, stages)
    before, after = (outlook(network, report.data.test) for network in stages.values())
    both = {f"{name}_before": text for name, text in _written(before).items()}
    both |= {f"{name}_after": text for name, text in _written(after).items()}
    report.text("before and after", **both, **_chance(report))
    gained, surer = (after[name] - before[name] for name in ("truth", "top"))
    moved = "towards the truth" if gained > 0.02 else "surer only" if surer > 0.02 else "hardly"
    report.text(f"moved {moved}", gained=f"{gained:+.3f}", surer=f"{surer:+.3f}")


def _probabilities(report: Report, stages: Mapping[str, nn.Module]) -> None:
    """A row for each stage of the first test photos: the softmax output of each class."""
    data, rows = report.data, []
    outputs = {key: probabilities(net, data.test.inputs[:SHOWN]) for key, net in stages.items()}
    for index, label in enumerate(data.test.labels[:SHOWN]):
        for stage, output in outputs.items():
            values = (f"{p:.3f}" for p in output[index])
            rows.append((data.classes[label], report.say(stage), *values))
    report.page.table((report.say("photo of"), report.say("stage"), *data.classes), rows)


def outlook(network: nn.Module, photos: Photos) -> dict[str, float]:
    """What the network makes of the first photos: accuracy, mean probabilities, answers given."""
    labels = photos.labels[:JUDGED]
    p = probabilities(network, photos.inputs[:JUDGED])  # (N, classes)
    return {
        "photos": len(labels),
        "answers": len(p.argmax(1).unique()),
        "right": (p.argmax(1) == labels).float().mean().item(),
        "top": p.amax(1).mean().item(),
        "truth": p.gather(1, labels[:, None]).mean().item(),
    }


def _written(seen: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for name, v in seen.items()}


def _chance(report: Report) -> dict[str, Any]:
    classes = len(report.data.classes)
    return {"classes": classes, "chance": f"{1 / classes:.3f}"}


# ------------------------------------------------------------------------------------------------
# Points 8 to 12: one change after the other
# ------------------------------------------------------------------------------------------------


def _said(key: str) -> Callable[[Report], None]:
    """A point that a paragraph answers."""
    return lambda report: report.text(key)


def _step(report: Report, before: str, after: str) -> None:
    """Why the change, its curves, and what came of it."""
    report.text(f"about {after}")
    report.curves(after)
    report.page.text(report.compare(before, after))


def _wider(report: Report) -> None:
    _step(report, MINIMAL, WIDER)
    few, many = (f"{report.results[label].parameters:,}" for label in (MINIMAL, WIDER))
    report.text("more parameters", few=few, many=many)


def _sigmoid(report: Report) -> None:
    report.code(conv_block)
    _layers(report, SIGMOID)
    _step(report, WIDER, SIGMOID)
    _learned(report, SIGMOID)
    one, other = (report.results[label] for label in (WIDER, SIGMOID))
    better = verdict_on(one, other) == "verdict better"
    promising = "no" if guesses(other) else "yes" if better else "slow"
    report.text(f"promising {promising}", before=WIDER)


def _relu(report: Report) -> None:
    _step(report, SIGMOID, RELU)
    train = report.data.train
    batch = Photos(train.inputs[:64], train.labels[:64])
    fresh = [report.results[label].run.fresh() for label in (SIGMOID, RELU)]
    sigmoid, relu = (first_gradient(network, batch) for network in fresh)
    values = {"sigmoid": f"{sigmoid:.1e}", "relu": f"{relu:.1e}", "ratio": f"{relu / sigmoid:,.1f}"}
    larger = "gradient larger" if relu > sigmoid else "gradient not larger"
    report.text(larger, photos=len(batch), **values)


def _deeper_network(report: Report) -> None:
    report.code(blocks)
    _layers(report, DEEPER)


def _deeper_training(report: Report) -> None:
    report.curves(DEEPER)
    _learned(report, DEEPER)


def _deeper_effect(report: Report) -> None:
    report.page.text(report.compare(RELU, DEEPER))
    two, four = (report.results[label] for label in (RELU, DEEPER))
    fields = {"two": receptive_field(two.network), "four": receptive_field(four.network)}
    share = {
        f"{name}_last": f"{100 * count_parameters(result.network[-1]) / result.parameters:.0f} %"
        for name, result in (("two", two), ("four", four))
    }
    report.text("receptive fields", side=SIDE, **fields, **share)


def _norm(report: Report) -> None:
    _step(report, DEEPER, NORM)
    target = report.results[DEEPER].rows[-1].val_accuracy
    epochs = (row.epoch for row in report.results[NORM].rows if row.val_accuracy >= target)
    reached = next(epochs, None)
    values = {"target": f"{target:.4f}", "epochs": len(report.results[DEEPER].rows)}
    report.text("reached" if reached else "not reached", epoch=reached, before=DEEPER, **values)


def _dropout(report: Report) -> None:
    _step(report, NORM, DROPPED)
    pair = [report.results[label] for label in (NORM, DROPPED)]
    before, after = map(gap, pair)
    smaller = after < before - noise(*pair)
    values = {"before": f"{before:+.4f}", "after": f"{after:+.4f}"}
    report.text("gap smaller" if smaller else "gap not smaller", **values)


def gap(result: Result) -> float:
    """How far the accuracy on training photos is above that on test photos."""
    return result.final["training_accuracy"] - result.final["test_accuracy"]


def _any_size(report: Report) -> None:
    _step(report, DROPPED, ANY_SIZE)
    _sizes(report)
    result, before = (report.results[label] for label in (ANY_SIZE, DROPPED))
    counts = {"after": result.parameters, "before": before.parameters}
    counts["saved"] = before.parameters - result.parameters
    values = {name: f"{count:,}" for name, count in counts.items()}
    path, network = read_back(report, ANY_SIZE)
    shown = report.data.test.inputs[:SHOWN]
    same = torch.equal(*(probabilities(n, shown) for n in (result.network, network)))
    values["verdict"] = report.say("read back" if same else "read back differently")
    report.text("parameters saved", file=f"{path.parent.name}/{path.name}", **values)


def _sizes(report: Report) -> None:
    """Which network takes which size, and how often the last one is right on it."""
    data, sizes = report.data, ((SIDE, SIDE), *OTHER_SIZES)
    takes, fails = report.say("takes"), report.say("fails")
    rows = [
        (label, *(takes if accepts(r.network, data.channels, *size) else fails for size in sizes))
        for label, r in report.results.items()
    ]
    header = [f"{height} x {width}" for height, width in sizes]
    report.page.table((report.say("run"), *header), rows)
    network, some = report.results[ANY_SIZE].network, data.test.inputs[: JUDGED // 2]
    rights = []
    for size in sizes:
        answers = probabilities(network, resize(some, list(size))).argmax(1)
        rights.append((answers == data.test.labels[: len(some)]).float().mean().item())
    values = ", ".join(f"{size}: {right:.3f}" for size, right in zip(header, rights, strict=True))
    report.text("accuracy by size", run=ANY_SIZE, photos=len(some), values=values)


# ------------------------------------------------------------------------------------------------
# Point 14: conclusions
# ------------------------------------------------------------------------------------------------


def _conclusions(report: Report) -> None:
    results = report.results
    missing = [label for label in (*COMPARED, TUNED) if label not in results]
    if missing:
        report.text("unfinished", runs=", ".join(missing))
    report.runs_table()
    report.overview()
    accuracies = {label: result.final["test_accuracy"] for label, result in results.items()}
    report.page.picture(bars("accuracies", accuracies, report.say("test accuracy")))
    report.text("order", order=order(list(results.values())))
    compared = [results[label] for label in COMPARED if label in results]
    if len(compared) > 1:
        _changes(report, compared)
        _sizes_and_gaps(report, compared)
    if TUNED in results:
        _recipe(report)
    _comparability(report)


def order(results: Sequence[Result]) -> str:
    """Labels from the highest test accuracy to the lowest; `≈` where chance may have decided."""
    ranked = sorted(results, key=lambda r: r.final["test_accuracy"], reverse=True)
    parts = [ranked[0].run.label]
    for better, worse in pairwise(ranked):
        sign = ">" if verdict_on(worse, better) == "verdict better" else "≈"
        parts += [sign, worse.run.label]
    return " ".join(parts)


def _changes(report: Report, compared: Sequence[Result]) -> None:
    """Which changes raised the test accuracy, which lowered it, and which did neither."""
    listed: dict[str, list[str]] = {"raised": [], "neither": [], "lowered": []}
    gains = {}
    for before, after in pairwise(compared):
        gain = after.final["test_accuracy"] - before.final["test_accuracy"]
        up, down = (verdict_on(*p) == "verdict better" for p in ((before, after), (after, before)))
        kind = "raised" if up else "lowered" if down else "neither"
        listed[kind].append(f"{after.run.label} ({gain:+.4f})")
        gains |= {gain: (before, after.run.label)} if up else {}
    none = report.say("none")
    report.text("changes", **{kind: ", ".join(names) or none for kind, names in listed.items()})
    if gains:
        before, best = gains[max(gains)]
        accuracy = f"{before.final['test_accuracy']:.4f}"
        values = {"before": before.run.label, "accuracy": accuracy}
        values |= {"run": best, "change": report.change(best), "gain": f"{max(gains):+.4f}"}
        report.text("best change", **values)
    idle = [result.run.label for result in compared if guesses(result)]
    if idle:
        report.text("at chance", runs=", ".join(idle), **_chance(report))


def _sizes_and_gaps(report: Report, compared: Sequence[Result]) -> None:
    """Whether the largest is the best; who overfits most and least; what an epoch costs."""
    best = max(compared, key=lambda r: r.final["test_accuracy"])
    largest = max(compared, key=lambda r: r.parameters)
    key = "largest is best" if best.parameters == largest.parameters else "largest is not best"
    values = {"best": best.run.label, "largest": largest.run.label}
    report.text(key, n=f"{best.parameters:,}", m=f"{largest.parameters:,}", **values)
    ranked = sorted(compared, key=gap)
    named = {"most": ranked[-1].run.label, "least": ranked[0].run.label}
    report.text("gaps", high=f"{gap(ranked[-1]):+.4f}", low=f"{gap(ranked[0]):+.4f}", **named)
    ranked = sorted(compared, key=seconds)
    named = {"fast": ranked[0].run.label, "slow": ranked[-1].run.label}
    costs = {"less": f"{seconds(ranked[0]):.1f}", "more": f"{seconds(ranked[-1]):.1f}"}
    report.text("costs", **named, **costs)


def seconds(result: Result) -> float:
    """Of an epoch, on average."""
    return result.seconds / len(result.rows)


def _recipe(report: Report) -> None:
    """What the other recipe makes of the same network, beside what the architectures made."""
    report.text(f"about {TUNED}")
    report.recipes([ANY_SIZE, TUNED])
    report.curves(TUNED)
    report.page.text(report.compare(ANY_SIZE, TUNED))
    first, last, tuned = (report.results[label] for label in (MINIMAL, ANY_SIZE, TUNED))
    a, b, c = (result.final["test_accuracy"] for result in (first, last, tuned))
    counts = {
        f"{name}_{kind}": f"{number:,}"
        for name, result in (("last", last), ("tuned", tuned))
        for kind, number in (("photos", len(result.run.data.train)), ("epochs", len(result.rows)))
    }
    values = {"last": f"{b:.4f}", "tuned": f"{c:.4f}", "recipe": f"{c - b:+.4f}"}
    values |= {"architecture": f"{b - a:+.4f}"} | counts
    report.text("recipe larger" if c - b > b - a else "recipe not larger", **values)


POINTS = (
    Point("1", _samples),
    Point("2", _one_hot, (MINIMAL,)),
    Point("3", _minimal),
    Point("4", _parameters),
    Point("5", _before, (MINIMAL,)),
    Point("6", _training, (MINIMAL,)),
    Point("7", _after, (MINIMAL,)),
    Point("8", _said("about blocks")),
    Point("8.1", _wider, (MINIMAL, WIDER)),
    Point("8.2", _sigmoid, (WIDER, SIGMOID)),
    Point("8.3", _relu, (SIGMOID, RELU)),
    Point("9", _said(f"about {DEEPER}")),
    Point("9.1", _deeper_network),
    Point("9.2", _deeper_training, (DEEPER,)),
    Point("9.3", _deeper_effect, (RELU, DEEPER)),
    Point("10", _norm, (DEEPER, NORM)),
    Point("11", _dropout, (NORM, DROPPED)),
    Point("12", _any_size, (DROPPED, ANY_SIZE)),
    Point("13", answer_photo, (ANY_SIZE,)),
    Point("14", _conclusions, (MINIMAL,)),
)


def _load(options: Options) -> DataSet:
    """The data; a photo that cannot be read is said before anything is trained."""
    new_photo(options)
    return options.load("CIFAR10", SIDE)


ASSIGNMENT = Assignment(
    name="ladder",
    data_set="CIFAR-10",
    languages=("en", "pl"),
    summary=SUMMARY,
    load=_load,
    runs=runs,
    points=POINTS,
)
