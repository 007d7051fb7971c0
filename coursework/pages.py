"""What the four reports share: numbers as a language writes them, comparisons, Jinja2."""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torchinfo
from markupsafe import Markup
from torch import nn

from coursework import charts
from coursework.data import DataSet, Options
from coursework.engine import Result

THIN, NO_BREAK, MINUS = "\u202f", "\u00a0", "\u2212"


def decimal(value: float, places: int = 4) -> str:
    """Return 0,9240 for 0.924; thousands by a thin space."""
    text = f"{abs(value):,.{places}f}".replace(",", THIN).replace(".", ",")
    negative = value < 0 and any(digit in text for digit in "123456789")
    return MINUS + text if negative else text


def percent(value: float, places: int = 1) -> str:
    """Return 92,4 % for 0.924."""
    return f"{decimal(100 * value, places)}{NO_BREAK}%"


def signed(value: float, places: int = 4) -> str:
    """Return +0,0123 or −0,0123."""
    text = decimal(value, places)
    return text if text.startswith(MINUS) else "+" + text


def plural(value: float, one: str, few: str, many: str, polish: bool = False) -> str:
    """Return a number with its noun: 1 эпоха, 2 эпохи, 5 эпох, 21 эпоха, but Polish 21 epok."""
    number = round(value)
    last, teens = number % 10, 10 < number % 100 < 20
    singular = number == 1 if polish else last == 1 and not teens
    word = one if singular else few if 2 <= last <= 4 and not teens else many
    return f"{decimal(number, 0)}{NO_BREAK}{word}"


def rate(value: float) -> str:
    """Return a learning rate such as 0,015 or 3e-05."""
    return f"{value:.3g}".replace(".", ",").replace("-", MINUS)


class Comparison(NamedTuple):
    """The test accuracy of one run minus that of another."""

    difference: float
    margin: float  # two standard errors of the difference, for this many test photos
    sign: int  # 1 or -1 if the difference is greater than chance explains, else 0


def margin(*results: Result) -> float:
    """Return two standard errors of a test accuracy, or of the difference of two."""
    photos, accuracies = len(results[0].run.data.test), [r.final["test_acc"] for r in results]
    return 2 * math.sqrt(sum(a * (1 - a) / photos for a in accuracies))


def compare(before: Result, after: Result) -> Comparison:
    """Compare two runs on the test photos."""
    difference, chance = after.final["test_acc"] - before.final["test_acc"], margin(before, after)
    return Comparison(difference, chance, (difference > chance) - (difference < -chance))


def layers(network: nn.Module, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return torchinfo's rows of a plain sequence of layers, with receptive fields in pixels."""
    info = torchinfo.summary(network, (1, *shape), verbose=0, device="cpu").summary_list
    rows, field, jump = [], 1, 1
    for layer in (layer for layer in info if layer.is_leaf_layer):
        if isinstance(layer.module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride = np.ravel(layer.module.kernel_size)[0], np.ravel(layer.module.stride)[0]
            field, jump = field + (int(kernel) - 1) * jump, jump * int(stride)
        size = f"{NO_BREAK}×{NO_BREAK}".join(map(str, layer.output_size[1:]))
        row = {"name": layer.var_name, "kind": layer.class_name, "output": size}
        rows.append(row | {"parameters": layer.num_params, "field": field})
    return rows


def source(functions: Callable | type | Sequence[Callable | type]) -> str:
    """Return the source text of one function or several, as it stands in the package."""
    several = functions if isinstance(functions, Sequence) else (functions,)
    return "\n\n".join(inspect.cleandoc("\n" + inspect.getsource(each)) for each in several)


def draw(module: ModuleType, data: DataSet, results: dict[str, Result], options: Options) -> str:
    """Return the page of an assignment, whose package is `module` (`m` in its template)."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"dec": decimal, "n": lambda value: decimal(value, 0), "pct": percent}
    environment.filters |= {"signed": signed, "plural": plural, "rate": rate}
    code, heading = '<pre class="code">{}</pre>', '<{0} id="item-{1}">{1}. {2}</{0}>'
    box = '<figure class="{}">{}<figcaption>{}</figcaption></figure>'
    items: list[tuple[str, str, str]] = []  # the assignment's, in the order of their headings

    def item(level: int, number: str, wording: str, icons: str = "") -> Markup:
        items.append((number, wording, icons))
        return Markup(heading).format(f"h{level}" if level else "b", number, wording)

    environment.globals |= {"compare": compare, "margin": margin, "layers": layers, "m": module}
    environment.globals |= {
        "code": lambda functions: Markup(code).format(source(functions)),
        "figure": lambda picture, caption: Markup(box).format("picture", picture, caption),
        "curves": lambda labels, caption, **more: Markup(box).format(
            "curves", charts.curves(results, labels, language=module.LANGUAGE, **more), caption
        ),
    }
    template = environment.get_template(f"{module.NAME}/report.{module.LANGUAGE}.html.j2")
    shared = {"data": data, "results": results, "options": options, "language": module.LANGUAGE}
    own = module.context(data, results, options)
    return template.render(**shared, **own, items=items, item=item)
