"""What the four reports share: numbers as a language writes them, comparisons, Jinja2."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import torchinfo
from markupsafe import Markup, escape
from torch import nn

from course.files import atomic_write
from coursework import charts
from coursework.data import DataSet
from coursework.engine import Result
from coursework.options import Options

THIN, NO_BREAK, MINUS = "\u202f", "\u00a0", "\u2212"


# ------------------------------------------------------------------------------------------------
# Numbers
# ------------------------------------------------------------------------------------------------


def decimal(value: float, places: int = 4) -> str:
    """Return 0,9240 for 0.924; thousands by a thin space."""
    text = f"{abs(value):,.{places}f}".replace(",", THIN).replace(".", ",")
    negative = value < 0 and any(digit in text for digit in "123456789")
    return MINUS + text if negative else text


def count(value: float) -> str:
    """Return 10 000, with a thin space, for 10000."""
    return decimal(value, 0)


def percent(value: float, places: int = 1) -> str:
    """Return 92,4 % for 0.924."""
    return f"{decimal(100 * value, places)}{NO_BREAK}%"


def signed(value: float, places: int = 4) -> str:
    """Return +0,0123 or −0,0123."""
    text = decimal(value, places)
    return text if text.startswith(MINUS) else "+" + text


def plural(value: float, one: str, few: str, many: str, polish: bool = False) -> str:
    """Return the number with its noun: 1 эпоха, 2 эпохи, 5 эпох; Polish 21 epok, Russian 21 эпоха."""
    number = round(value)
    last, teens = number % 10, 10 < number % 100 < 20
    singular = number == 1 if polish else last == 1 and not teens
    word = one if singular else few if 2 <= last <= 4 and not teens else many
    return f"{count(number)}{NO_BREAK}{word}"


def rate(value: float) -> str:
    """Return a learning rate such as 0,015 or 3e-05."""
    return f"{value:.3g}".replace(".", ",").replace("-", MINUS)


# ------------------------------------------------------------------------------------------------
# Comparisons
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The test accuracy of one run minus that of another."""

    difference: float
    margin: float  # two standard errors of the difference, for this many test photos

    @property
    def sign(self) -> int:
        """1 or -1 if the difference is greater than chance explains, else 0."""
        if abs(self.difference) <= self.margin:
            return 0
        return 1 if self.difference > 0 else -1


def compare(before: Result, after: Result) -> Comparison:
    """Compare two runs on the test photos, taken as independent, which is cautious."""
    photos, accuracies = len(after.run.data.test), [r.final["test_acc"] for r in (before, after)]
    variance = sum(a * (1 - a) / photos for a in accuracies)
    return Comparison(accuracies[1] - accuracies[0], 2 * math.sqrt(variance))


def margin(result: Result) -> float:
    """Return two standard errors of a run's test accuracy."""
    accuracy = result.final["test_acc"]
    return 2 * math.sqrt(accuracy * (1 - accuracy) / len(result.run.data.test))


# ------------------------------------------------------------------------------------------------
# Networks and code
# ------------------------------------------------------------------------------------------------


def layers(network: nn.Module, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return torchinfo's rows of a network's leaves for a photo (C, H, W).

    The receptive field is in pixels a side, for layers in a row.
    """
    info = torchinfo.summary(network, (1, *shape), verbose=0, device="cpu").summary_list
    rows, field, jump = [], 1, 1
    for layer in info:
        if not layer.is_leaf_layer:
            continue
        if isinstance(layer.module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride = (
                size if isinstance(size, int) else size[0]
                for size in (layer.module.kernel_size, layer.module.stride)
            )
            field, jump = field + (kernel - 1) * jump, jump * stride
        size = " × ".join(map(str, layer.output_size[1:]))
        kind = {"name": layer.var_name, "kind": layer.class_name, "output": size}
        rows.append({**kind, "parameters": layer.num_params, "field": field})
    return rows


def source(functions: Callable | type | Sequence[Callable | type]) -> str:
    """Return the source text of one function or several, as it stands in the package."""
    several = functions if isinstance(functions, Sequence) else (functions,)
    return "\n\n".join(inspect.cleandoc("\n" + inspect.getsource(each)) for each in several)


# ------------------------------------------------------------------------------------------------
# Pages
# ------------------------------------------------------------------------------------------------


class Items:
    """The assignment's items, by its own numbers; each is answered once, where `heading` stands."""

    def __init__(self, wordings: Mapping[str, str]) -> None:
        self.wordings, self.answered = wordings, []

    def heading(self, number: str, level: int = 3) -> Markup:
        """Return the heading of an item, as a link's target. Raises KeyError if there is none."""
        wording = self.wordings[number]
        self.answered.append(number)
        return Markup('<h{0} id="item-{1}">{2}</h{0}>').format(
            level, number, f"{number}. {wording}"
        )


def render(template: str, **context: Any) -> str:
    """Return the page that a template `<assignment>/report.<language>.html.j2` makes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "dec": decimal,
        "n": count,
        "pct": percent,
        "signed": signed,
        "plural": plural,
        "rate": rate,
    }
    environment.globals |= {
        "compare": compare,
        "margin": margin,
        "layers": layers,
        "code": lambda functions: Markup('<pre class="code">{}</pre>').format(source(functions)),
        "figure": lambda picture, caption, kind="picture": Markup(
            '<figure class="{}">{}<figcaption>{}</figcaption></figure>'
        ).format(kind, picture, caption),
        "escape": escape,
    }
    return environment.get_template(template).render(**context)


def write(page: str, folder: Path) -> Path:
    """Write the page as `report.html`."""
    path = folder / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def draw(module: ModuleType, data: DataSet, results: Mapping[str, Result], options: Options) -> str:
    """Return an assignment's page; `module` is its package."""
    items = Items(module.ITEMS)

    def plot(*labels: str, **more: Any) -> Markup:
        return charts.curves(results, labels, module.WORDS, **more)

    return render(
        module.TEMPLATE,
        data=data,
        results=results,
        options=options,
        items=items,
        item=items.heading,
        plot=plot,
        **module.context(data, results, options),
    )
