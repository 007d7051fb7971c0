"""`python solution.py PHOTO_OR_FOLDER`: what is printed, and how sure it says it is."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import draw_photo
from PIL import Image

import solution


@pytest.fixture
def named_model(model_path, tmp_path):
    """A model whose species have names, and which is never unsure."""

    def change(**facts):
        checkpoint = torch.load(model_path, weights_only=True)
        checkpoint |= {"class_names": ["Wren", "Barn Owl", "Ibis"], "unsure_below": 0.0} | facts
        path = tmp_path / "named.pt"
        torch.save(checkpoint, path)
        return str(path)

    return change


def shares(out: str) -> dict[str, float]:
    lines = [line for line in out.splitlines() if "%  " in line]
    return {line.split("%  ")[1]: float(line.split("%")[0]) for line in lines}


def test_a_photo_gets_species_and_probabilities(photos, named_model, capsys):
    _, folder = photos
    photo, model = folder / "01.jpg", named_model()
    assert solution.main([str(photo), "--model", model]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{photo}\n")
    assert shares(out).keys() == {"Wren", "Barn Owl", "Ibis"}
    assert sum(shares(out).values()) == pytest.approx(100, abs=0.02)
    assert list(shares(out).values()) == sorted(shares(out).values(), reverse=True)
    assert len({line.index("%") for line in out.splitlines()[1:]}) == 1, "one column"
    best = {-7: "Wren", 3: "Barn Owl", 1000: "Ibis"}[solution.classify(model, folder)["01.jpg"]]
    assert next(iter(shares(out))) == best


def test_a_folder_gets_an_answer_for_each_photo_and_top_limits_them(photos, named_model, capsys):
    gt, folder = photos
    assert solution.main([str(folder), "--model", named_model(), "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(".jpg")] == [
        str(folder / name) for name in gt
    ]
    assert out.count("%") == len(gt)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_low_probability_earns_a_remark(photos, named_model, capsys, threshold):
    _, folder = photos
    model = named_model(unsure_below=threshold)
    assert solution.main([str(folder / "00.jpg"), "--model", model]) == 0
    assert ("unsure" in capsys.readouterr().out) == (threshold == 1.0)


def test_a_temperature_changes_probabilities_but_no_answer(photos, named_model, capsys):
    _, folder = photos
    found = []
    for temperature in (0.05, 20.0):
        model = named_model(temperature=temperature)
        solution.main([str(folder / "00.jpg"), "--model", model])
        found.append(shares(capsys.readouterr().out))
    assert list(found[0]) == list(found[1])
    assert max(found[0].values()) > max(found[1].values())


def test_any_size_and_kind_of_photo_is_answered(named_model, tmp_path, capsys):
    draw_photo(tmp_path / "wide.png", 0, seed=0, size=(900, 3))
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    assert solution.main([str(tmp_path), "--model", named_model()]) == 0
    assert len(shares(capsys.readouterr().out)) == 3


def test_a_file_that_is_no_photo_fails_but_the_others_are_answered(
    photos, named_model, tmp_path, capsys
):
    (tmp_path / "a.jpg").write_text("no photo")
    draw_photo(tmp_path / "b.png", 0, seed=0)
    assert solution.main([str(tmp_path), "--model", named_model()]) == 1
    captured = capsys.readouterr()
    assert "b.png" in captured.out
    assert "a.jpg" not in captured.out
    why, count = captured.err.splitlines()
    assert "a.jpg" in why
    assert count.startswith("1 of 2 photos cannot be decoded")


def test_mistakes_are_told_in_one_line(photos, named_model, tmp_path, capsys):
    _, folder = photos
    for arguments in (
        [str(tmp_path / "absent.jpg"), "--model", named_model()],
        [str(folder), "--model", str(tmp_path / "absent.pt")],
        [str(tmp_path / "empty"), "--model", named_model()],
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert solution.main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("Error: ")
        assert captured.err.count("\n") == 1
        assert "absent" in captured.err or "empty" in captured.err


def test_the_frame_on_the_photo_is_around_what_the_second_look_saw():
    pixels = torch.randint(0, 60, (3, 80, 120), dtype=torch.uint8)
    nothing, heat = torch.zeros(2), torch.zeros(3, 4)
    seen = solution.Seen(nothing, nothing, nothing, heat, box=(60, 10, 110, 60))
    first, second = (np.asarray(picture) for picture in solution.pictures_of_looks(pixels, seen))
    rows, columns = np.nonzero((first == 255).all(2))  # the frame is white
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (60, 10, 109, 59)
    assert np.array_equal(second, pixels[:, 10:60, 60:110].permute(1, 2, 0).numpy())


def test_show_draws_both_looks_and_replaces_the_file(photos, named_model, tmp_path, capsys):
    _, folder = photos
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    (tmp_path / "held.png").hardlink_to(out)
    arguments = [str(folder / "01.jpg"), "--model", named_model(), "--show"]
    assert solution.main([*arguments, str(out)]) == 0
    assert f"Wrote {out}" in capsys.readouterr().out
    with Image.open(out) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (colours[:, 0] > colours[:, 1] + 80).any(), "the map is red"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held.png", "named.pt", "out.png"]
    assert (tmp_path / "held.png").read_bytes() == b"old", "replaced, not written into"

    assert solution.main([str(folder), "--model", named_model(), "--show", str(out)]) == 1
    assert solution.main([*arguments, str(tmp_path / "absent" / "out.png")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("Error: ") for line in errors] == [True, True]


def test_it_runs_as_a_program(photos, model_path):
    _, folder = photos
    command = [sys.executable, solution.__file__, str(folder / "00.jpg"), "--model", model_path]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(shares(run.stdout)) == 3, "class ids stand in for missing names"
    assert run.stderr == ""


def test_fitted_temperature_makes_confidence_agree_with_accuracy():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    assert solution.fit_temperature(3 * truth, labels) == pytest.approx(3, rel=0.1)
    assert solution.fit_temperature(truth / 2, labels) == pytest.approx(0.5, rel=0.1)


def test_facts_of_the_validation_come_from_its_answers(network):
    answers, facts = network.validation_answers, network.facts
    assert facts["temperature"] == solution.fit_temperature(answers["logits"], answers["labels"])
    top = (answers["logits"] / facts["temperature"]).softmax(1).amax(1).numpy()
    assert facts["unsure_below"] == pytest.approx(np.quantile(top, 0.05), abs=1e-6)


def test_side_by_side_keeps_the_order_and_the_callers_threads():
    before, names = torch.get_num_threads(), set()

    def work(item: int) -> int:
        names.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1
        return item * item

    assert list(solution.side_by_side(work, range(50))) == [i * i for i in range(50)]
    assert 1 <= len(names) <= before
    assert torch.get_num_threads() == before


def test_callers_side_by_side_leave_torchs_threads_as_they_were():
    """Each used to restore what it had found, which was another caller's one thread."""
    before, seen = torch.get_num_threads(), []

    def call(items: int) -> None:
        list(solution.side_by_side(lambda _: time.sleep(0.01), range(items)))

    callers = [threading.Thread(target=call, args=(items,)) for items in (3, 5, 7)]
    callers.append(threading.Thread(target=lambda: seen.append(torch.get_num_threads())))
    for caller in callers[:3]:
        caller.start()
    for caller in callers[:3]:
        caller.join()
    callers[3].start()
    callers[3].join()
    assert [torch.get_num_threads(), *seen] == [before, before]


def test_side_by_side_holds_few_items_at_a_time_and_passes_errors_on():
    drawn, before = [], torch.get_num_threads()
    results = solution.side_by_side(lambda i: i, (drawn.append(i) or i for i in range(1000)))
    next(results)
    assert len(drawn) <= 2 * before + 1
    results.close()
    with pytest.raises(ZeroDivisionError):
        list(solution.side_by_side(lambda i: 1 // i, [1, 0]))
    assert torch.get_num_threads() == before
