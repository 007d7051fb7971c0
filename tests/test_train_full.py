"""train_full.py: from the course's layout to a model file that is whole or as it was."""

import errno
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from commands import call
from conftest import TINY, course_layout
from torchvision.models import Weights, WeightsEnum

import solution
import train_full
from course import layout
from reporting import report as reports

CHANGED = {name: getattr(TINY, name) for name in ("input_size", "first_size", "batch_size")}
CHANGED |= {"unfrozen_blocks": TINY.unfrozen_blocks, "epochs": 1, "seed": 5, "layer_decay": 0.5}


def trained(tests_dir, init, out, *options) -> int:
    """Call train_full.py for a training of a second; return its status."""
    changes = [word for name, value in CHANGED.items() for word in ("--set", f"{name}={value}")]
    return call(train_full.main, tests_dir, *changes, "--init", init, "--out", out, *options)


@pytest.fixture
def command(tests_dir, init, tmp_path):
    return partial(trained, tests_dir, init, tmp_path / "model.pt")


@pytest.fixture(scope="module")
def whole(photos, init, tmp_path_factory):
    """The folder of a training that ended well, with names of a Russian Windows; its labels."""
    folder, (gt, images) = tmp_path_factory.mktemp("whole"), photos
    images = Path(shutil.copytree(images, folder / "photos"))
    if os.name != "nt":  # where there are no such names
        other = "дрозд.jpg".encode("cp1251").decode("utf-8", "surrogateescape")
        (images / "00.jpg").rename(images / other)
        gt = {other if name == "00.jpg" else name: class_id for name, class_id in gt.items()}
    data = course_layout(folder / "data", (gt, images))
    names = 'class_id,name\n-7,"Wren, winter"\n3,Дрозд\n'
    (data / "species.csv").write_text(names, encoding="cp1251")
    assert trained(data, init, folder / "model.pt") == 0
    return folder, gt


def test_it_trains_and_says_what_it_wrote(
    command, tests_dir, photos, tmp_path, capsys, monkeypatch
):
    """From a table with semicolons, another spelling of a name, and photos and labels alone."""
    table = tests_dir / "00_test_img_input/train/gt.csv"
    text = table.read_text().replace("05.jpg", "05.JPG").replace("07.jpg,3", "gone.jpg,3")
    table.write_text(text.replace(",", ";"))
    monkeypatch.setattr("torch.hub.download_url_to_file", None)  # nothing is fetched with --init
    out, report = tmp_path / "model.pt", tmp_path / "other"
    assert command("--report", report) == 0
    captured = capsys.readouterr()
    for part in ("script would stop here", "gone.jpg"):
        assert part in captured.err
    lines = captured.out.splitlines()
    assert "" not in lines
    images = tests_dir / "00_test_img_input/train/images"
    assert lines[0] == f"24 photos of 3 species in {images}"
    assert lines[1] == "Labels without a photo: 1, such as 'gone.jpg'"
    assert lines[2] == "Photos without a label, left out: 1, such as '07.jpg'"
    assert lines[3].startswith("Settings: input_size=64, ")
    assert "seed=5, layer_decay=0.5" in lines[3]
    rows = [line.split() for line in lines if " run " in line and "epoch" not in line]
    assert [row[:3] for row in rows] == [["validation", "run", "1"], ["final", "run", "1"]]
    assert [row[5:7].count("-") for row in rows] == [0, 2], "no validation of the final run"
    assert lines.pop() == f"Wrote {report}/report.html"
    assert lines[-3].startswith("validation accuracy stored in the model: 0.")
    assert re.match(r"mark to expect on \d hidden photos: ", lines[-2])
    assert lines[-1].startswith(f"Wrote {out} (9.")
    assert set(solution.classify(out, images)) == photos[0].keys()


def test_the_checkpoint_says_how_it_was_trained(whole, init):
    folder, gt = whole
    checkpoint = torch.load(folder / "model.pt", weights_only=True)
    assert checkpoint["class_names"] == ["Wren, winter", "Дрозд", "class 1000"]
    expected = solution.Settings(**CHANGED, weights=str(init))
    assert solution.Settings(**checkpoint["settings"]) == expected
    contents = [path.read_bytes() for path in (folder / "photos").iterdir()]
    digests = [hashlib.sha256(content).hexdigest()[:8] for content in contents]
    assert checkpoint["training"] == {
        "photos": 24,
        "photo_digests": "".join(sorted(digests)),
        "labels_sha256": layout.labels_fingerprint(gt),
        "seed": 5,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }
    assert checkpoint["validation"]["total"] == 5
    assert 0.1 <= checkpoint["temperature"] <= 10
    assert checkpoint["temperature"] != 1.0
    assert 0 < checkpoint["confidence_threshold"] < 1

    numbers = reports.read_history(folder / "report")
    assert [row["stage"] for row in numbers.epochs] == ["validation run", "final run"]
    assert numbers.labels == gt
    assert numbers.model == {k: v for k, v in checkpoint.items() if k != "state_dict"}


def test_report_only_draws_the_report_anew_without_training(whole, command, capsys, monkeypatch):
    page = whole[0] / "report/report.html"
    page.unlink()
    monkeypatch.setattr(solution, "train_classifier", None)
    assert command("--report-only", "--report", page.parent) == 0
    assert "<html" in page.read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(f"Wrote {page}\n")


def test_without_species_of_two_photos_it_says_so(tests_dir, command, tmp_path, capsys):
    train = tests_dir / "00_test_img_input/train"
    (train / "gt.csv").write_bytes(layout.gt_bytes({"00.jpg": 0, "01.jpg": 1}))
    assert command() == 0
    assert "Validation accuracy: unknown" in capsys.readouterr().out
    assert solution.load_classifier(tmp_path / "model.pt").early_exit == 1.0
    assert (tmp_path / "report/report.html").is_file()


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_interrupt_or_a_full_disk_leaves_the_old_file(trouble, tmp_path, monkeypatch):
    out = tmp_path / "model.pt"
    out.write_bytes(b"old")

    def fail(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:9])
        raise trouble

    monkeypatch.setattr(Path, "write_bytes", fail)
    told = KeyboardInterrupt if isinstance(trouble, KeyboardInterrupt) else train_full.UserError
    with pytest.raises(told) as error:
        train_full.save({}, out)
    assert told is KeyboardInterrupt or "cannot be written: the disk is full" in str(error.value)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 130, "Interrupted: a model file not reported above is as it was.\n"),
        (["--sed"], 2, "error: unrecognized arguments: --sed\n"),
    ],
)
def test_an_interrupt_of_the_long_imports_is_one_line_and_a_wrong_call_is_told_before(
    words, status, told, tmp_path
):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, train_full.__file__, *words],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert done.stderr.endswith(told)
    assert done.stderr == told or words


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("eposch=3", "the settings are weights, input_size,"),
        ("epochs", "no NAME=VALUE"),
        ("epochs=1.5", "'1.5'"),
        ("epochs=0", "epochs is a number from 1 to 1000"),
        ("unfrozen_blocks=20", "from 0 to 19"),
        ("head_learning_rate=nan", "from 0 to 1"),
    ],
)
def test_changes_that_are_none_are_named(text, cause):
    with pytest.raises(train_full.UserError, match=cause) as error:
        train_full.changes([text])
    assert str(error.value).startswith(f"--set {text}: ")


NUMBERS = {k: v for k, v in asdict(solution.Settings()).items() if not isinstance(v, str)}


@pytest.mark.parametrize("which", [0, 1])
def test_the_ends_of_the_bounds_can_be_trained(which, photos, tiny):
    """Of all settings at once but the sizes, which would take time, and zero rates at one end."""
    ends = {name: train_full.BOUNDS.get(name, (0, 1))[which] for name in NUMBERS}
    ends |= {"epochs": 1, "first_size": 64, "input_size": 32 * (which + 1)}
    network = solution.train_classifier(*photos, settings=replace(tiny, **ends))
    assert network.validation is not None


def test_a_file_that_cannot_be_written_is_told_before_the_training(
    command, tests_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(solution, "train_classifier", None)
    file, gt = tmp_path / "file", tests_dir / "00_test_img_input/train/gt.csv"
    file.write_text("")
    for option, path, culprit in (
        ("--out", tmp_path, tmp_path),
        ("--out", file / "m.pt", file),
        ("--out", gt, gt),
        ("--report", file, file),
    ):
        assert command(option, path) == 1
        assert capsys.readouterr().err.startswith(f"Error: {culprit}")


@pytest.mark.parametrize(("largest", "culprit"), [(10 * 2**20, "model.pt"), (9, "history.json")])
def test_a_disk_with_less_room_than_the_result_is_told_before_the_training(
    largest, culprit, command, tmp_path, capsys, monkeypatch
):
    def full(path, content):
        if len(content) > largest and path.name == culprit:
            raise OSError(errno.ENOSPC, "No space left", str(path))

    monkeypatch.setattr(solution, "train_classifier", None)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert command() == 1
    error = capsys.readouterr().err
    assert re.fullmatch(rf"Error: \S*/{culprit} cannot be written: the disk is full; .*\n", error)


def test_a_model_may_be_trained_in_its_own_place(whole, tests_dir, tmp_path):
    model = shutil.copy(whole[0] / "model.pt", tmp_path)
    assert trained(tests_dir, model, model) == 0
    assert (tmp_path / "report/history.json").is_file()


# ---- Pretrained weights --------------------------------------------------------------------------


@pytest.fixture
def cached_weights(monkeypatch, tmp_path):
    """Where the cache would hold a file, what the published one holds, and where it is served."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    name = f"net-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    served = tmp_path / "served" / name
    served.parent.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    class Published(WeightsEnum):
        V0 = Weights(served.as_uri(), None, {})

    monkeypatch.setattr(train_full, "MobileNet_V2_Weights", Published)
    file, named = tmp_path / "checkpoints" / name, solution.weights_file
    monkeypatch.setattr(solution, "weights_file", lambda w: file if w == "V0" else named(w))
    return file, buffer.getvalue(), served


@pytest.mark.parametrize("there", [True, False])
def test_half_a_checkpoint_in_the_cache_is_fetched_again(there, cached_weights, capsys):
    file, whole, served = cached_weights
    if there:
        file.parent.mkdir()
        file.write_bytes(whole[: len(whole) // 2])
    served.write_bytes(b"<html>Log in to the wireless network</html>")
    with pytest.raises(train_full.UserError, match=rf"put {file.name} into .*--init CHECKPOINT"):
        train_full.fetch_weights("V0")
    assert file.exists() == there
    served.write_bytes(whole)
    train_full.fetch_weights("V0")
    assert file.read_bytes() == whole
    assert capsys.readouterr().err.count(f"fetching {file}\n") == 2


def test_other_weights_that_were_put_there_by_hand_are_taken(cached_weights, capsys):
    """They were once called damaged, and without a network the training did not start."""
    file, whole, _ = cached_weights  # nothing is served: a download would be told
    file.parent.mkdir()
    torch.save({"weight": torch.ones(3)}, file)
    by_hand = file.read_bytes()
    assert by_hand != whole
    train_full.fetch_weights("V0")
    assert capsys.readouterr().err == ""
    assert file.read_bytes() == by_hand


def test_weights_of_timm_are_fetched_by_their_name(cached_weights, monkeypatch):
    import timm

    folder, asked = cached_weights[0].parent, []

    def create(name, pretrained):
        asked.append((name, pretrained))
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(timm, "create_model", create)
    train_full.fetch_weights("mobilenetv2_100.ra_in1k")
    assert asked == [("mobilenetv2_100.ra_in1k", True)]
    state = torch.load(folder / "mobilenetv2_100.ra_in1k.pth", weights_only=True)
    assert state.keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("mistyped.pt", "no file mistyped.pt: "),
        ("text.pt", "text.pt cannot be read, truncated, or no checkpoint: "),
        ("IMAGENET1K_V9", "no pretrained weights can be fetched "),
    ],
)
def test_a_path_is_no_name_to_fetch_and_a_name_may_be_nobodys(
    weights, told, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("no checkpoint")
    assert command("--init", weights) == 1
    *others, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"Error: {told}")
    assert len(others) == (weights == "IMAGENET1K_V9"), "what is fetched"
    assert [path.name for path in tmp_path.glob("*.pt")] == ["text.pt"]
