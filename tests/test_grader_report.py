"""What the model file says about itself, and the reproduction check; torch is replaced by a toy."""

import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from submissions.course import FIXTURES, make_test

import run_tests
from course.layout import find_tests, labels_fingerprint, photo_digests, read_csv
from grader.model import Metadata
from grader.outcome import Outcome
from grader.report import show_model
from grader.reproduce import TOLERANCE, allowed_drop
from grader.session import TestResult

NOT_PACKED = 'float(Path(__file__).with_name("retrained.txt").read_text())'
VALIDATION = {"correct": 85, "total": 100, "accuracy": 0.85, "interval": [0.767, 0.907]}


@pytest.fixture
def course(tmp_path):
    """Test 01 asks for other photos than those that it trains on, which lie in "public"."""
    make_test(tmp_path / "public", photos=40)
    make_test(tmp_path / "tests", "01_hidden", photos=40, prefix="hidden")
    train = tmp_path / "tests" / "01_hidden_input" / "train"
    shutil.rmtree(train)
    shutil.copytree(tmp_path / "public" / "00_test_img_input" / "train", train)
    shutil.copytree(FIXTURES / "keeps_record", tmp_path / "code")
    return tmp_path


def trained_on(*folders):
    """The record of a training on the photos of these folders."""
    photos = [path for folder in folders for path in folder.iterdir()]
    return {"photos": len(photos), "photo_digests": photo_digests(photos)}


@pytest.fixture
def public(course):
    return trained_on(course / "public/00_test_img_input/train/images")


# ---- what is told of the model, after a run with so many right answers ----


@pytest.fixture
def told(course, capsys):
    def told(folder="public", correct=40, **metadata):
        tests = find_tests(course / folder)
        truths = [read_csv(test.gt / "gt.csv") for test in tests]
        answers = [{n: i if k < correct else -1 for k, (n, i) in enumerate(truth.items())}
                   for truth in truths]  # fmt: skip
        results = map(TestResult, tests, [Outcome() for _ in tests], answers, truths)
        show_model(Metadata(metadata), list(results))
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    return told


def test_photos_seen_in_training_say_nothing(told, public):
    text = "trained on 40 of these 40 photos, so this accuracy says nothing about the hidden sample"
    *lines, expectation = told(training=public, validation=VALIDATION)
    assert lines == [
        "Model",
        f"test 00: {text}",
        "validation accuracy stored in the model: 0.8500 "
        "(95 % interval 0.7672 to 0.9069, 85 of 100)",
    ]
    assert re.match(
        r"mark to expect on 40 hidden photos: 10, probability 0\.\d\d; else", expectation
    )


def test_the_same_names_are_not_the_same_photos(course, told, public):
    """Every sample starts at 0000.jpg: what is in the files decides."""
    for photo in (course / "public").glob("*/*/images/*"):
        photo.write_text(photo.read_text() + "\n")
    lines = told(training=public, validation=VALIDATION)
    assert "test 00: photos that the model was not trained on" in lines
    assert any(line.startswith("this model is a demonstration") for line in lines)


def test_photos_kept_out_count_as_they_are(told, public):
    lines = told("tests", training=public, validation=VALIDATION)
    assert lines == ["Model", "test 01: photos that the model was not trained on"]


UNKNOWN = "test 00: whether the model was trained on these photos is unknown, it keeps no digests"
STORED = "validation accuracy stored in the model: 0.8500", "mark to expect on 40 hidden photos"


@pytest.mark.parametrize(
    ("correct", "metadata", "expected"),
    [
        (40, {"training": {"photos": 40}}, STORED),
        (40, {"validation": None}, ()),
        (32, {"class_ids": [0, 1, 2, 3]}, STORED),
        (20, {}, ("WRONG: accuracy 0.5000 here, 0.8500 in its validation",)),
        (0, {"class_ids": [100, 101]}, ("WRONG: the model knows other species than the test",)),
    ],
)
def test_the_stored_accuracy_is_told_unless_it_cannot_hold(told, correct, metadata, expected):
    title, unknown, *lines = told(correct=correct, **{"validation": VALIDATION, **metadata})
    assert (title, unknown) == ("Model", UNKNOWN)
    assert len(lines) == len(expected)
    assert all(map(str.startswith, lines, expected))


def test_the_shipped_models_facts_are_read_without_torch():
    metadata = Metadata.of(Path(run_tests.__file__).with_name("birds_model.pt"))
    assert len(metadata["class_ids"]) > 1
    assert metadata["training"]["photo_digests"]
    assert metadata.validation


def test_of_the_model_file_nothing_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "evil",)

    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"odd": Evil(), "class_ids": [3]}))
    assert Metadata.of(tmp_path / "model")["class_ids"] == [3]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("validation", [None, 3, {"correct": 5, "total": 0}, {"correct": "x"}])
def test_a_validation_that_cannot_be_used_is_none(validation):
    assert Metadata(validation=validation).validation is None


# ---- whole runs ----


@pytest.fixture
def grade(course, capsys):
    """Exit status and lines for a model with these metadata."""

    def grade(*options, retrained=1.0, **checkpoint):
        content = pickle.dumps({"share": 1.0, **checkpoint}, protocol=2)
        with zipfile.ZipFile(course / "code" / "birds_model.pt", "w") as archive:
            archive.writestr("birds_model/data.pkl", content)
        (course / "code" / "retrained.txt").write_text(str(retrained))
        words = [course / "tests", "--submission", course / "code", *options]
        status = run_tests.main(list(map(str, words)))
        return status, [line.strip() for line in capsys.readouterr().out.splitlines()]

    return grade


def edit(course, old, new, count=-1):
    path = course / "code" / "solution.py"
    code = path.read_text()
    assert old in code
    path.write_text(code.replace(old, new, count))


def test_a_demonstration_is_not_packed_unless_it_is_meant(course, grade):
    path, elsewhere = course / "upload.zip", {"photos": 9, "photo_digests": "f" * 72}
    edit(course, NOT_PACKED, "1.0")
    status, lines = grade("--pack", path, training=elsewhere)
    assert any("python train_full.py" in line and "not written" in line for line in lines)
    assert (status, path.exists()) == (1, False)
    assert grade("--pack", path, "--demonstration", training=elsewhere)[0] == 0
    assert path.exists()


def test_reproduced_on_photos_kept_out_of_both(course, grade, public, monkeypatch):
    """With the pretrained weights of this machine, timm's in the second, in the training alone."""
    names = ("TORCH_HOME", "HF_HOME")
    for name in names:
        monkeypatch.setenv(name, "/caches/of/this/user")
    there = f'[os.environ.get(name) == "/caches/of/this/user" for name in {names}]'
    edit(course, "from pathlib import Path\n", "import os\nfrom pathlib import Path\n")
    check = f"    assert {there} == [not fast_train] * 2\n"
    edit(course, "    return {", f"{check}    return {{", count=1)
    status, lines = grade("--reproduce", training=public, retrained=0.975)
    assert "compared on 40 photos that neither model was trained on" in lines
    assert any(line.startswith("reproduced: +0.0250 lost, allowed 0.0606") for line in lines)
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


@pytest.mark.parametrize(
    ("trained", "retrained", "found", "status"),
    [
        ("elsewhere", 0.5, "NOT reproduced: +0.5000 lost", 1),
        ("here", 0.8, "compared on different photos: the submitted model was trained on these", 0),
        ("here", 0.3, "submitted model 0.8500 (85 of 100), retrained model 0.3000", 1),
        # With a record of other labels, nobody can tell: the stored validation stands in.
        ("unknown", 0.8, "compared on different photos: the submitted model may have been", 0),
    ],
)
def test_a_model_trained_on_the_photos_is_held_to_its_stored_validation(
    course, grade, public, trained, retrained, found, status
):
    unknown = {"photos": 3, "labels_sha256": labels_fingerprint({"elsewhere.jpg": 1})}
    here = trained_on(course / "tests/01_hidden_input/test/images")
    training = {"elsewhere": public, "here": here, "unknown": unknown}[trained]
    metadata = {"training": training, "validation": VALIDATION}
    result, lines = grade("--reproduce", **metadata, retrained=retrained)
    assert any(line.startswith(found) for line in lines)
    assert result == status


def test_a_model_without_anything_to_compare_with_is_told_before_the_training(course, grade):
    training = trained_on(course / "tests/01_hidden_input/test/images")
    status, lines = grade("--reproduce", training=training)
    assert status == 2
    assert lines[-1].startswith("Reproduction")


def test_a_training_that_fails_reproduces_nothing(course, grade, public):
    edit(course, "    return {", "    assert fast_train\n    return {", count=1)
    status, lines = grade("--reproduce", training=public)
    assert any(line.startswith("NOT reproduced: train: AssertionError") for line in lines)
    assert (status, lines[-1]) == (1, "Mark: 10 1.0000")


def test_the_variances_of_both_accuracies_add_up():
    error = (0.8 * 0.2 / 100 + 0.5 * 0.5 / 1000) ** 0.5
    allowed = allowed_drop((80, 100), (500, 1000))
    assert allowed == pytest.approx(TOLERANCE + 1.644854 * error)
