"""train_full.py: from the course's layout to a model file that is whole or as it was."""

import csv
import errno
import hashlib
import io
import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from conftest import TINY

import solution
import train_full
from course import layout
from reporting import birds

SMALL = ("input_size", "first_size", "epochs", "views", "batch_size", "unfrozen_blocks")


@pytest.fixture
def tests_dir(photos, tmp_path):
    """The drawn photos in the course's layout."""
    gt, folder = photos
    train = tmp_path / "data" / "00_test_img_input" / "train"
    train.mkdir(parents=True)
    (train / "images").symlink_to(folder, target_is_directory=True)
    rows = "".join(f"{name},{class_id}\n" for name, class_id in gt.items())
    (train / "gt.csv").write_text("filename,class_id\n" + rows)
    with (tmp_path / "data" / "species.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("class_id", "name"), (-7, "Wren, winter"), (3, "Jay")])
    other = tmp_path / "data" / "01_other_input" / "train"  # a test that is not trained on
    (other / "images").mkdir(parents=True)
    (other / "gt.csv").write_text("filename,class_id\nother.jpg,9\n")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def small_settings(monkeypatch):
    """Other defaults; what the command line says is still what counts."""
    small = partial(solution.Settings, **{k: getattr(TINY, k) for k in SMALL})
    small.seed, small.epochs = TINY.seed, TINY.epochs
    monkeypatch.setattr(train_full, "Settings", small)


def test_it_trains_and_says_what_it_wrote(tests_dir, photos, init, tmp_path, capsys, monkeypatch):
    """From a table with semicolons, another spelling of a name, and a photo that is gone."""
    table = tests_dir / "00_test_img_input/train/gt.csv"
    text = table.read_text().replace("05.jpg", "05.JPG") + "gone.jpg,3\n"
    table.write_text(text.replace(",", ";"))
    monkeypatch.setattr("torch.hub.download_url_to_file", None)  # nothing is fetched with --init
    out = tmp_path / "model.pt"
    arguments = [str(tests_dir), "--init", str(init), "--out", str(out), "--epochs", "1"]
    assert train_full.main([*arguments, "--seed", "5"]) == 0
    said = capsys.readouterr()
    for part in ("script would stop here", "05.JPG for 05.jpg", "gone.jpg"):
        assert part in said.err
    lines = said.out.splitlines()
    assert lines[0] == f"25 photos of 3 species in {tests_dir / '00_test_img_input' / 'train'}"
    assert [line.split()[0] for line in lines if "run  " in line and "epoch" not in line] == [
        "validation",
        "final",
    ]
    assert [line for line in lines if line.startswith("val: one look")]
    assert lines[-4].startswith("Validation accuracy of both looks 0.")
    assert "mark " in lines[-4]
    assert lines[-3].startswith("Left out: 1 of 25 labels")
    assert lines[-2].startswith(f"Wrote {out} (9.")
    assert lines[-1] == f"Wrote {tmp_path / 'report' / 'report.html'}"
    checkpoint = torch.load(out, weights_only=True)
    assert checkpoint["class_names"] == ["Wren, winter", "Jay", "1000"]
    assert checkpoint["settings"]["epochs"] == 1
    assert checkpoint["settings"]["seed"] == 5
    assert set(solution.classify(out, tests_dir / "00_test_img_input/train/images")) == {
        f"{i:02d}.jpg" for i in range(24)
    }
    history = birds.read_history(tmp_path / "report")
    assert [row["stage"] for row in history.epochs] == ["validation run", "final run"]
    assert history.labels == photos[0]
    correct = int(birds.answers_of(history).right.sum())
    assert correct == history.facts["validation"]["correct"]
    assert f"{correct} of {history.facts['validation']['total']} right" in (
        tmp_path / "report" / "report.md"
    ).read_text(encoding="utf-8")


def test_a_report_that_fails_leaves_the_model(tests_dir, init, tmp_path, capsys):
    out, report = tmp_path / "model.pt", tmp_path / "r"
    report.write_text("a file in the way")
    arguments = [str(tests_dir), "--init", str(init), "--epochs", "1"]
    assert train_full.main([*arguments, "--out", str(out), "--report", str(report)]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len([line for line in error if line.startswith("Error: the model is written")]) == 1
    assert solution.known_answer_error(out) < 1e-3


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_interrupt_or_a_full_disk_leaves_the_old_file(
    trouble, tests_dir, init, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "model.pt"
    out.write_bytes(b"old")

    def fail(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:1000])
        raise trouble

    monkeypatch.setattr(Path, "write_bytes", fail)
    arguments = [str(tests_dir), "--init", str(init), "--out", str(out), "--epochs", "1"]
    assert train_full.main(arguments) == (1 if isinstance(trouble, OSError) else 130)
    assert out.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["data", "model.pt"]  # noqa: PTH208
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "as it was" in line or "cannot be written" in line]) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: [path.rename(d / path.name[:2]) for path in d.iterdir()], "no test in"),
        (lambda d: (d / "00_test_img_input/train/gt.csv").unlink(), "gt.csv"),
        (lambda d: (d / "00_test_img_input/train/gt.csv").write_text("a,b\n1,2\n"), "must start"),
    ],
)
def test_mistakes_are_one_line_and_status_1(spoil, said, tests_dir, init, capsys):
    spoil(tests_dir)
    assert train_full.main([str(tests_dir), "--init", str(init)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert said in error


def test_without_network_and_weights_the_error_says_what_to_do(tests_dir, monkeypatch, capsys):
    def offline(url, file, hash_prefix=None, **_):
        assert hash_prefix, "what comes is checked"
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    assert train_full.main([str(tests_dir)]) == 1
    said = capsys.readouterr().err
    assert "no route" in said
    assert "mobilenet_v2-b0353104.pth" in said
    assert "--init" in said


@pytest.fixture
def cached_weights(monkeypatch, tmp_path):
    """Where the cache would hold a file, what the published one holds, and where it is served."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    name = f"net-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    file, served = tmp_path / "checkpoints" / name, tmp_path / "served.pth"
    monkeypatch.setattr(solution, "imagenet_weights_file", lambda: file)
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=served.as_uri()))
    monkeypatch.setattr(train_full, "MobileNet_V2_Weights", weights)
    return file, buffer.getvalue(), served


@pytest.mark.parametrize("there", [True, False])
def test_half_a_checkpoint_in_the_cache_is_fetched_again(there, cached_weights, capsys):
    file, whole, served = cached_weights
    if there:
        file.parent.mkdir()
        file.write_bytes(whole[: len(whole) // 2])
    served.write_bytes(b"<html>Log in to the wireless network</html>")
    if there:
        cure = f"delete .*{file.name}, or put it there"
        with pytest.raises(solution.SubmissionError, match=cure):
            train_full.fetch_imagenet_weights()
    else:
        train_full.fetch_imagenet_weights()
        assert "cannot be downloaded" in capsys.readouterr().err
        assert not file.exists()
    served.write_bytes(whole)
    train_full.fetch_imagenet_weights()
    assert file.read_bytes() == whole
    assert ("is damaged: it is fetched again" in capsys.readouterr().err) == there


def test_other_weights_that_were_put_there_by_hand_are_taken(cached_weights, capsys):
    """They were once called damaged, and without a network the training did not start."""
    file, whole, _ = cached_weights  # nothing is served: a download would be told
    file.parent.mkdir()
    torch.save({"weight": torch.ones(3)}, file)
    by_hand = file.read_bytes()
    assert by_hand != whole
    train_full.fetch_imagenet_weights()
    assert capsys.readouterr().err == f"note: {file} is not the file that torchvision publishes\n"
    assert file.read_bytes() == by_hand
    file.write_bytes(whole)
    train_full.fetch_imagenet_weights()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
def test_names_that_are_no_utf8_are_trained_on_and_reported(tests_dir, init, tmp_path, photos):
    """Those of a Russian Windows, of photos and of species."""
    train = tests_dir / "00_test_img_input/train"
    (train / "images").unlink()
    shutil.copytree(photos[1], train / "images")
    other = "\u0434\u0440\u043e\u0437\u0434.jpg".encode("cp1251").decode("utf-8", "surrogateescape")
    (train / "images/00.jpg").rename(train / "images" / other)
    gt = {other if name == "00.jpg" else name: class_id for name, class_id in photos[0].items()}
    (train / "gt.csv").write_bytes(layout.gt_bytes(gt))
    names = "class_id,name\n3,\u0414\u0440\u043e\u0437\u0434\n-7,\xfc\n".encode("cp1251", "replace")
    (tests_dir / "species.csv").write_bytes(names + b"1000,\xa5\xb6\n")
    arguments = [str(tests_dir), "--init", str(init), "--out", str(tmp_path / "model.pt")]
    assert train_full.main([*arguments, "--epochs", "1"]) == 0
    assert other in birds.read_history(tmp_path / "report").labels
    assert (tmp_path / "report/report.html").is_file()


def test_what_is_left_out_is_counted_at_the_end(tests_dir, init, tmp_path, capsys):
    train = tests_dir / "00_test_img_input/train"
    rows = (train / "gt.csv").read_text().splitlines()
    (train / "gt.csv").write_text("\n".join([*rows[:-1], "gone.jpg,3", ""]))
    arguments = [str(tests_dir), "--init", str(init), "--out", str(tmp_path / "model.pt")]
    assert train_full.main([*arguments, "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "Left out: 1 of 24 labels, whose photos cannot be read; see above\n" in out
    assert f"Left out: 1 files without a label, such as '{rows[-1].split(',')[0]}'\n" in out


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--colour", "red"], ["a", "b"]])
def test_wrong_calls_have_status_2(arguments):
    with pytest.raises(SystemExit) as stop:
        train_full.main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--epochs", "0"]])
def test_numbers_that_are_none_are_named_with_what_is_taken(arguments, capsys):
    with pytest.raises(SystemExit):
        train_full.parse(arguments)
    assert f"{arguments[1]} is no whole number from" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(solution, "train_classifier", None)
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file/model.pt"):
        assert train_full.main([str(tmp_path), "--out", str(out)]) == 1
        assert capsys.readouterr().err.startswith(f"Error: {out}")
