"""Reports from made-up results: each item is answered, and the sentences follow the numbers."""

import html
import re
from functools import cache

import pytest
import torch
from markupsafe import Markup
from torch.nn import functional
from torchvision import models

from course.files import UserError
from coursework import case, charts, ladder, pages, resnet, transfer
from coursework.pages import compare, decimal, percent, plural, rate, signed
from tests.coursework_helpers import made_up

# The items of the four texts by their own numbers; the sections of the student's report, and tasks
# with more than one question, have sub-items of ours.
ITEMS = {
    "case": "1 1.1 2 2.1 3 4 5 6 6.1",
    "transfer": "1 2 3 4 5 6 7 8 9 В1 В2 В3 В4 В5 В6 В7",
    "resnet": "1 2 2.1 2.2 3 3.1 3.2 3.3 4 4.1 4.2 4.3 5 5.1 5.2 5.3 6 6.1 6.2 6.3",
    "ladder": "1 2 3 4 5 6 6.1 6.1.1 6.1.2 6.1.3 6.1.4 6.2 6.2.1 6.2.2 6.2.3 6.2.4 7 8 8.1 8.2 8.3 "
    "9 9.1 9.2 9.2.1 9.3 9.3.1 9.3.2 9.3.2.1 9.3.2.2 9.3.3 9.4 9.4.1 10 10.2 10.2.1 10.3 11 "
    "11.1 11.2 11.3 11.4 12 12.1 12.2 12.3 13 14",
}
NAMES = tuple(ITEMS)
# What the icons of the ladder's text ask for, by item.
CURVES = "6.2 8.3 9.3.3 9.4.1 10.3 11.4 12.3"
ICONS = {"code": "2 3 6 9.2 9.3 10.2 11.1 12.1 12.2", "curves": CURVES, "seconds": CURVES}
# What the results of a report may be like: each label's accuracy on the test photos.
EQUAL = lambda label, place: 0.6  # noqa: E731
RISING = lambda label, place: min(0.99, 0.2 + 0.09 * place)  # noqa: E731
FALLING = lambda label, place: max(0.01, 0.95 - 0.09 * place)  # noqa: E731
CHANCE = lambda label, place: 0.2 + 0.001 * place  # noqa: E731
KINDS = EQUAL, FALLING, RISING, CHANCE


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """MobileNetV2 has weights in the cache, which are not the ones that their name says."""
    state = models.mobilenet_v2().state_dict()

    def imagenet_state(name):
        if name != "mobilenet_v2":
            raise UserError("no weights")
        return state

    monkeypatch.setattr(transfer, "imagenet_state", imagenet_state)
    monkeypatch.setattr(transfer, "is_genuine", lambda backbone: False)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Drawing a page's pictures takes seconds, most tests read its words."""
    with monkeypatch.context() as patch:
        for kind in ("curves", "photos"):
            patch.setattr(charts, kind, lambda *_, **__: Markup("<svg></svg>"))
        yield patch


@cache
def page_of(name, accuracy):
    return pages.draw(*made_up(name, accuracy))


def text_of(page):
    page = re.sub(r"<(svg|pre|style|code).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split()).replace(pages.NO_BREAK, " ")


def section(page, number):
    """The HTML between an item's heading and the next one."""
    after = page.partition(f'id="item-{number}"')[2]
    return re.split(r'id="item-|class="acceptance"', after)[0]


@pytest.mark.parametrize("accuracy", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_item_is_answered_once_whatever_the_numbers(name, accuracy):
    page = page_of(name, accuracy)
    assert re.findall(r'id="item-([^"]+)"', page) == ITEMS[name].split()
    for number in ITEMS[name].split():
        assert page.count(f'href="#item-{number}"') == 1
    text = text_of(page)
    assert not re.search(r"\bNone\b|\bnan\b|\bTrue\b|\bFalse\b|\d\.\d{3}", text)
    assert not re.search(r"все(х|ми)? (данны|изображени|фото)|wszystki\w+ zdję", text)


def test_the_ladder_answers_each_icon_at_its_item_and_nowhere_else():
    page = page_of("ladder", RISING)
    for kind, numbers in ICONS.items():
        for number in ITEMS["ladder"].split():
            shown = f'class="{kind}"' in section(page, number)
            assert shown == (number in numbers.split()), (number, kind)
    assert '<figure class="picture"' in section(page, "1")
    layers = {"10.2": "BatchNorm2d", "11.1": "Dropout", "12.2": "AdaptiveAvgPool2d"}
    assert all(f"nn.{layer}" in section(page, number) for number, layer in layers.items())
    assert "1 180" not in page  # of ten classes; these are five


def test_the_lines_that_the_ladder_quotes_stand_in_its_code():
    page, source = page_of("ladder", RISING), pages.source([ladder.conv_block, ladder.blocks])
    for number in ("10.2", "11.1", "12.1", "12.2"):
        quoted = re.search(r'<pre class="code">(.*?)</pre>', section(page, number), re.S)[1]
        assert html.unescape(quoted) in source


@pytest.mark.parametrize(
    ("accuracy", "said", "never"),
    [
        (RISING, ["skuteczność na danych testowych wzrosła", "Zmiana pomaga"], ["szkodzi"]),
        (FALLING, ["spadła o", "zmiana szkodzi"], ["wzrosła o", "Głębsza sieć jest lepsza"]),
        (EQUAL, ["różnicy nie stwierdzono", "bez wniosku"], ["Zmiana pomaga", "Batch norm przyśp"]),
        (CHANCE, ["niczego się nie nauczyła"], ["Zmiana pomaga"]),
    ],
)
def test_the_ladder_concludes_what_its_numbers_say(accuracy, said, never):
    text = text_of(pages.draw(*made_up("ladder", accuracy, test=1_000)))
    assert [words for words in said if words not in text] == []
    assert [words for words in never if words in text] == []


@pytest.mark.parametrize(
    ("high", "said"),
    [
        (("free", "main"), ["Вывод: предобученные веса лучше случайных", "Преимущество видно"]),
        (("random",), ["случайные веса оказались лучше", "Здесь преимущества нет"]),
        ((), ["разность в пределах погрешности", "Здесь преимущество не больше погрешности"]),
    ],
)
def test_transfer_judges_pretraining_by_its_numbers(high, said):
    text = text_of(page_of("transfer", lambda label, _: 0.95 if label in high else 0.5))
    for words in [*said, "Внимание: это не тот файл", "VGG11 и GoogLeNet нет в кэше"]:
        assert words in text


@pytest.mark.parametrize(
    ("right", "said"),
    [(0.95, "Модель адекватна"), (0.6, "Модель учится"), (0.2, "Модель не адекватна")],
)
def test_transfer_judges_the_model_by_its_predictions(monkeypatch, right, said):
    def predict(network, inputs):
        place = torch.arange(len(inputs))
        return functional.one_hot((place + (place >= right * len(place))) % 5, 5).float()

    monkeypatch.setattr(transfer, "predict", predict)
    text = text_of(pages.draw(*made_up("transfer", EQUAL)))
    assert re.findall(r"Модель (?:не )?(?:адекватна|учится)", text) == [said] * 2
    assert text.count(f"изображениях: {decimal(right)}") == 2


@pytest.mark.parametrize("direction", [1, -1, 0])
def test_resnet_agrees_with_the_story_only_beyond_chance(direction):
    told = {step.label: step for step in resnet.STEPS}
    values = {}
    for label, step in told.items():
        change = 0.06 * direction * (step.story or 0)
        values[label] = values[step.against] + change if step.against else 0.5
    _, _, results, _ = found = made_up("resnet", lambda label, _: values[label], test=1_000)
    for verdict in resnet.verdicts(results).values():
        story = verdict.step.story
        expected = None if story is None else True if story == 0 else {1: True, -1: False, 0: None}
        assert verdict.agrees is (expected[direction] if isinstance(expected, dict) else expected)
    text = text_of(pages.draw(*found))
    assert "у нас то же" in text  # of the flips, which the story finds alike
    assert ("не совпадает" in text) == (direction == -1)


def test_each_comparison_of_resnet_changes_one_thing():
    for step in (step for step in resnet.STEPS if step.against):
        before, after = resnet.resolve(step.against), resnet.resolve(step.label)
        changed = [bool(step.network), before[3] != after[3]]
        recipe = {k for k in {**before[1], **after[1]} if before[1].get(k) != after[1].get(k)}
        if step.start:
            recipe -= {"epochs"}  # a run that goes on has epochs of its own
            changed.append(step.start == step.against and not recipe and before[3] == after[3])
        changed.append(bool(recipe))
        assert sum(changed) == 1, step.label


@pytest.mark.parametrize(
    ("last", "said"),
    [(0.9, "dropout предотвращает переобучение"), (1.4, "dropout переобучения не предотвратил")],
)
def test_case_says_of_dropout_what_the_losses_say(last, said):
    module, data, results, options = made_up("case", EQUAL)
    for seed in case.SEEDS:
        for label, end in ((f"plain-{seed}", 1.3), (f"dropout-{seed}", last)):
            rows = results[label].rows
            for row in rows:
                row["val_loss"] = 0.8
            rows[-1]["val_loss"] = end
    assert said in text_of(pages.draw(module, data, results, options))


def test_case_chooses_the_length_on_validation_data():
    module, data, results, options = made_up("case", RISING)
    results["length-3"].rows[-1]["val_loss"] = 0.1
    text = text_of(pages.draw(module, data, results, options))
    assert "3 ← выбрано" in text
    assert "Более долгое обучение потерь на проверке не снизило" in text


@pytest.mark.parametrize(("name", "accuracy"), [*zip(NAMES, KINDS, strict=True)])
def test_runs_of_one_chart_have_colours_of_their_own(name, accuracy, undrawn):
    undrawn.undo()
    page = pages.draw(*made_up(name, accuracy))
    assert 'src="data:image/png;base64,' in page
    legends = re.findall(r'<div class="legend">(.*?)</div>', page, re.S)
    for legend in legends:
        colours = set(re.findall(r"#[0-9a-f]{6}", legend))
        assert colours <= set(charts.COLOURS)
        titles = {title.partition(":")[0] for title in re.findall(r"</i> ([^<]+)", legend)}
        assert len(colours) == len(titles) > 0
    assert legends


def test_a_continued_curve_begins_where_the_first_one_ended():
    _, _, results, _ = made_up("resnet", EQUAL)
    first = charts.abscissae(results, results["basic"], False)
    later = charts.abscissae(results, results["basic-longer"], False)
    assert later[0] == first[-1] + 1
    many = charts.smooth([float(i) for i in range(20)], many=20)
    assert (charts.smooth([1.0, 2.0]), many[-1]) == ([1.0, 2.0], 14.5)


def test_numbers_are_written_as_the_languages_write_them():
    thin, space = pages.THIN, pages.NO_BREAK
    assert decimal(0.924) == "0,9240"
    assert decimal(2250, 0) == f"2{thin}250"
    assert percent(0.102) == f"10,2{space}%"
    assert (signed(0.5, 1), signed(-0.5, 1), signed(-0.00001, 2)) == ("+0,5", "−0,5", "+0,00")
    assert (rate(0.001), rate(3e-5)) == ("0,001", "3e−05")
    russian = [plural(n, "эпоха", "эпохи", "эпох").split(space)[1] for n in (1, 3, 5, 11, 21, 112)]
    assert russian == ["эпоха", "эпохи", "эпох", "эпох", "эпоха", "эпох"]
    polish = [plural(n, "a", "b", "c", polish=True)[-1] for n in (1, 2, 5, 12, 21, 22)]
    assert "".join(polish) == "abcccb"


def test_a_difference_counts_from_two_standard_errors_on():
    accuracies = lambda label, place: (0.5, 0.6, 0.75)[min(place, 2)]  # noqa: E731
    _, _, results, _ = made_up("case", accuracies, test=100)
    first, second, third = list(results.values())[:3]
    assert compare(first, second).margin == pytest.approx(2 * (0.0025 + 0.6 * 0.4 / 100) ** 0.5)
    assert [compare(first, r).sign for r in (second, third)] == [0, 1]
    assert compare(third, first).sign == -1
