"""The command line: from words to a report, and errors in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

from course.files import UserError
from coursework import __main__ as command
from coursework import ladder
from tests.coursework_helpers import class_folders, tiny_run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def small_ladder(monkeypatch):
    """The ladder with tiny networks, on photos as small."""
    builds = {label: (title, tiny_run().build) for label, (title, _) in ladder.BUILDS.items()}
    monkeypatch.setattr(ladder, "BUILDS", builds)


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "data", {"cat": 30, "dog": 30})


def test_a_command_trains_and_writes_its_report_and_numbers(tmp_path, folder, small_ladder, capsys):
    words = ["ladder", "--data", str(folder), "--out", str(tmp_path / "out"), "--epochs", "1"]
    words += ["--seed", "3", "--accelerator", "cpu", "--precision", "32-true"]
    assert command.main(words) == 0
    history = json.loads((tmp_path / "out/history.json").read_text())
    assert history["assignment"] == "ladder"
    assert list(history["runs"]) == [*ladder.BUILDS, "tuned"]
    assert {run["settings"]["seed"] for run in history["runs"].values()} == {3}
    assert {len(run["epochs"]) for run in history["runs"].values()} == {1}
    page = (tmp_path / "out/report.html").read_text()
    assert "<td>14</td>" in page
    assert not re.search(r"""(src|href|url\()["']?=?["']?https?:""", page)  # it holds all it shows
    assert list((tmp_path / "out/logs/minimal").rglob("metrics.csv"))
    lines = capsys.readouterr().out.splitlines()
    assert sum("epoch 1/1" in line for line in lines) == 9
    assert lines[-1] == f"Wrote {tmp_path}/out/report.html and {tmp_path}/out/history.json."


def test_a_folder_of_another_assignment_is_refused(tmp_path, folder, small_ladder):
    (tmp_path / "history.json").write_text('{"assignment": "case"}')
    with pytest.raises(UserError, match=r"holds the results of case: choose another --out"):
        command.main(["ladder", "--data", str(folder), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: name"),
        (["poem"], "invalid choice: 'poem'"),
        (["case", "--photo", "x.jpg"], "--photo is for ladder only"),
        (["ladder", "--network", "vgg11"], "--network is for transfer only"),
        (["case", "--epochs", "-1"], "'-1' is no whole number from 1 on"),
        (["case", "--subset", "99"], "'99' is no whole number from 100 on"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_imported(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.parse(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_flags_of_the_trainer_are_passed_on(tmp_path, folder, monkeypatch):
    given = {}

    def train_all(name, runs, out, flags, first):
        given.update(flags=flags, out=out, epochs=[run.recipe.epochs for run in runs])
        raise UserError("enough")

    monkeypatch.setattr("coursework.engine.train_all", train_all)
    monkeypatch.chdir(tmp_path)
    words = ["ladder", "--data", str(folder), "--devices", "2", "--strategy", "ddp", "--night"]
    words += ["--num-nodes", "3", "--precision", "bf16-mixed", "--accelerator", "gpu"]
    with pytest.raises(UserError, match=r"enough"):
        command.main(words)
    flags = {"devices": 2, "strategy": "ddp", "num_nodes": 3}
    assert given["flags"] == flags | {"precision": "bf16-mixed", "accelerator": "gpu"}
    assert given["epochs"] == [150] * 8 + [30]
    assert given["out"] == Path("report/coursework/ladder")


def test_list_describes_all(capsys):
    assert command.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name}: " in text for name in command.ASSIGNMENTS)


@pytest.mark.parametrize("name", ["lightning", "jinja2"])
def test_a_missing_library_is_named(monkeypatch, name):
    for module in [m for m in sys.modules if m.startswith(("coursework.case", "coursework.pages"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "coursework.engine", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name} is not installed.*requirements-coursework.txt"):
        command.assignment("case")


def test_an_error_is_one_line_on_stderr(tmp_path, capsys):
    assert call(command.main, "case", "--out", tmp_path, "--data", "/no/such") == 1
    assert re.fullmatch(r"Error: no data set in /no/such .*\n", capsys.readouterr().err)


def test_a_folder_that_cannot_be_written_is_told_before_the_work():
    """And before torch and Lightning are imported: the process ends at once."""
    words = [sys.executable, "-m", "coursework", "ladder", "--out", "/dev/null/x"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: /dev/null/x cannot be .*\n", done.stderr)


def test_a_photo_that_cannot_be_read_is_told_before_the_work(tmp_path):
    path = tmp_path / "photo.jpg"
    for message in ("No such file", "cannot be read as a photo"):
        with pytest.raises((UserError, OSError), match=message):
            command.main(["ladder", "--photo", str(path), "--out", str(tmp_path / "out")])
        path.write_bytes(b"no photo")
