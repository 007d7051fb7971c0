"""What the model file says about itself, and the reproduction check; torch is replaced by a toy."""

import pickle
import re
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from submissions.course import copy_submission, make_test

import run_tests
from course.layout import labels_fingerprint, photo_digests, read_csv
from grader.model import Metadata
from grader.reproduce import TOLERANCE, paired, unpaired

NOT_PACKED = 'float(Path(__file__).with_name("retrained.txt").read_text())'
VALIDATION = {"correct": 85, "total": 100, "accuracy": 0.85, "interval": [0.767, 0.907]}


@pytest.fixture
def course(tmp_path):
    """Test 00 has the same photos on both sides, test 01 trains on those and asks for others."""
    make_test(tmp_path / "tests", photos=40)
    make_test(tmp_path / "tests", "01_hidden", photos=40, prefix="hidden")
    train = tmp_path / "tests" / "01_hidden_input" / "train" / "gt.csv"
    train.write_text((tmp_path / "tests" / "00_test_img_gt" / "gt.csv").read_text())
    copy_submission("keeps_record", tmp_path / "code")
    return tmp_path


def grade(course, capsys, *options, retrained=1.0, **checkpoint):
    """Exit status and lines for a model with these metadata."""
    content = pickle.dumps({"share": 1.0, **checkpoint}, protocol=2)
    with zipfile.ZipFile(course / "code" / "birds_model.pt", "w") as archive:
        archive.writestr("birds_model/data.pkl", content)
    (course / "code" / "retrained.txt").write_text(str(retrained))
    arguments = [str(course / "tests"), "--submission", str(course / "code"), *options]
    status = run_tests.main(arguments)
    return status, [line.strip() for line in capsys.readouterr().out.splitlines()]


def edit(course, old, new, count=-1):
    path = course / "code" / "solution.py"
    code = path.read_text()
    assert old in code
    path.write_text(code.replace(old, new, count))


def trained_on(course, *folders):
    """The record of a training on the photos of these folders."""
    names = [path for folder in folders for path in (course / "tests" / folder).iterdir()]
    return {"photos": len(names), "photo_digests": photo_digests(names)}


def public(course):
    return trained_on(course, "00_test_img_input/train/images")


def test_photos_seen_in_training_say_nothing(course, capsys):
    for path in (course / "tests").glob("01*"):
        path.rename(path.with_name(f"hidden_{path.name}"))
    _, lines = grade(course, capsys, training=public(course), validation=VALIDATION)
    text = "trained on 40 of these 40 photos, so this accuracy says nothing about the hidden sample"
    assert f"test 00: {text}" in lines
    assert (
        "validation accuracy stored in the model: 0.8500 "
        "(95 % interval 0.7672 to 0.9069, 85 of 100)"
    ) in lines
    [expectation] = [line for line in lines if line.startswith("mark to expect")]
    assert re.match(
        r"mark to expect on 40 hidden photos: 10, probability 0\.\d\d; else", expectation
    )


def test_the_same_names_are_not_the_same_photos(course, capsys):
    """Every sample starts at 0000.jpg: what is in the files decides."""
    record = public(course)
    for photo in (course / "tests").glob("*/*/images/*"):
        photo.write_text(photo.read_text() + "\n")
    _, lines = grade(course, capsys, training=record, validation=VALIDATION)
    assert "test 00: photos that the model was not trained on" in lines
    assert any(line.startswith("this model is a demonstration") for line in lines)


def test_without_digests_nobody_knows(course, capsys):
    gt = read_csv(course / "tests" / "00_test_img_gt" / "gt.csv")
    training = {"photos": 40, "labels_sha256": labels_fingerprint(gt)}
    _, lines = grade(course, capsys, training=training, validation=VALIDATION)
    why = "whether the model was trained on these photos is unknown, it keeps no digests of its"
    assert f"test 00: {why} photos" in lines
    assert any(line.startswith("mark to expect") for line in lines)
    assert not any(line.startswith("this model is a demonstration") for line in lines)


def test_photos_kept_out_count_as_they_are(course, capsys):
    _, lines = grade(course, capsys, training=public(course), validation=VALIDATION)
    assert "test 01: photos that the model was not trained on" in lines
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_model_without_record(course, capsys):
    _, lines = grade(course, capsys)
    assert any(line.endswith("is unknown, it keeps no record of its training") for line in lines)
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_demonstration_is_called_one_and_not_packed(course, capsys):
    elsewhere = {"photos": 9, "photo_digests": "f" * 72}
    path = course / "upload.zip"
    edit(course, NOT_PACKED, "1.0")
    pack = ("--pack", str(path))
    status, lines = grade(course, capsys, *pack, training=elsewhere)
    assert any(line.startswith("this model is a demonstration, trained on other") for line in lines)
    assert any("python train_full.py" in line and "not written" in line for line in lines)
    assert (status, path.exists()) == (1, False)
    assert grade(course, capsys, *pack, "--demonstration", training=elsewhere)[0] == 0
    assert path.exists()


@pytest.mark.parametrize("record", [True, False])
def test_a_model_of_these_photos_or_without_record_is_no_demonstration(course, capsys, record):
    edit(course, NOT_PACKED, "1.0")
    metadata = {"training": public(course)} if record else {}
    status, lines = grade(course, capsys, "--pack", str(course / "upload.zip"), **metadata)
    assert not any("demonstration" in line for line in lines)
    assert status == 0


@pytest.mark.parametrize(
    ("metadata", "share", "text"),
    [
        ({"class_ids": [100, 101]}, 0.0, "other species than the test asks for: 4 of 4 class ids"),
        ({"class_ids": [0, 1, 2, 3]}, 0.0, "accuracy 0.0000 here, 0.8500 in its validation"),
        ({}, 0.5, "accuracy 0.5000 here, 0.8500 in its validation"),
    ],
)
def test_no_mark_is_expected_of_a_model_of_other_species(course, capsys, metadata, share, text):
    _, lines = grade(course, capsys, share=share, validation=VALIDATION, **metadata)
    [line] = [line for line in lines if line.startswith("WRONG:")]
    assert text in line
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_mark_is_expected_of_a_model_of_these_species(course, capsys):
    known = {"class_ids": [0, 1, 2, 3], "training": {"labels_sha256": "f" * 64}}
    _, lines = grade(course, capsys, share=0.8, validation=VALIDATION, **known)
    assert any(line.startswith("mark to expect") for line in lines)


def test_a_model_that_cannot_be_inspected_is_still_graded(course, capsys):
    """Nothing of the file is run: what is not plain is an error."""
    status, lines = grade(course, capsys, odd=PurePosixPath("x"))
    assert any(line.startswith("cannot be inspected: it holds a pathlib.P") for line in lines)
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


def test_the_shipped_models_facts_are_read_without_torch():
    metadata = Metadata.of(Path(run_tests.__file__).with_name("birds_model.pt"))
    assert len(metadata["class_ids"]) > 1
    assert metadata["training"]["photos"] > 1
    assert metadata.validation


@pytest.mark.parametrize("validation", [None, {}, 3, {"correct": 5, "total": 0}, {"correct": "x"}])
def test_a_validation_that_cannot_be_used_is_none(validation):
    assert Metadata(validation=validation).validation is None


def test_reproduced_on_photos_kept_out_of_both(course, capsys):
    status, lines = grade(course, capsys, "--reproduce", training=public(course), retrained=0.975)
    assert "compared on 40 photos that neither model was trained on" in lines
    assert any(line.startswith("reproduced: +0.0250 lost, allowed 0.0606") for line in lines)
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


def test_not_reproduced(course, capsys):
    status, lines = grade(course, capsys, "--reproduce", training=public(course), retrained=0.5)
    assert any(line.startswith("NOT reproduced: +0.5000 lost") for line in lines)
    assert status == 1


def test_a_model_trained_on_the_photos_is_held_to_its_stored_validation(course, capsys):
    images = [f"{test}_input/test/images" for test in ("00_test_img", "01_hidden")]
    metadata = {"training": trained_on(course, *images), "validation": VALIDATION}
    status, lines = grade(course, capsys, "--reproduce", **metadata, retrained=0.8)
    assert any(line.startswith("compared on different photos") for line in lines)
    assert any(line.startswith("submitted model 0.8500 (85 of 100), retr") for line in lines)
    assert status == 0
    assert grade(course, capsys, "--reproduce", **metadata, retrained=0.3)[0] == 1


def test_photos_that_may_have_been_seen_are_not_compared_on(course, capsys):
    """With a record of other labels, nobody can tell: the stored validation stands in."""
    training = {"photos": 3, "labels_sha256": labels_fingerprint({"elsewhere.jpg": 1})}
    metadata = {"training": training, "validation": VALIDATION}
    status, lines = grade(course, capsys, "--reproduce", **metadata, retrained=0.8)
    assert any("the submitted model may have been trained on these 40" in line for line in lines)
    assert status == 0


def test_a_training_that_fails_reproduces_nothing(course, capsys):
    edit(course, "    return {", "    assert fast_train\n    return {", count=1)
    status, lines = grade(course, capsys, "--reproduce", training=public(course))
    assert any(line.startswith("NOT reproduced: train: AssertionError") for line in lines)
    assert (status, lines[-1]) == (1, "Mark: 10 1.0000")


def test_a_submission_that_fails_is_not_trained_again(course, capsys):
    edit(course, "    return {", "    assert not fast_train\n    return {", count=1)
    status, lines = grade(course, capsys, "--reproduce", training=public(course))
    assert status == 1
    assert not any("reproduced" in line for line in lines)


def test_pretrained_weights_of_this_machine_are_there_to_retrain_only(course, capsys, monkeypatch):
    names = ("TORCH_HOME", "HF_HOME")  # timm's are in the second
    for name in names:
        monkeypatch.setenv(name, "/caches/of/this/user")
    edit(course, "from pathlib import Path\n", "import os\nfrom pathlib import Path\n")
    there = f'[os.environ.get(name) == "/caches/of/this/user" for name in {names}]'
    check = f"    assert {there} == [not fast_train] * 2\n"
    edit(course, "    return {", f"{check}    return {{", count=1)
    status, lines = grade(course, capsys, "--reproduce", training=public(course))
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


def test_paired_comparison_is_mcnemars():
    first = [True] * 90 + [False] * 10
    second = [True] * 80 + [False] * 10 + [True] * 2 + [False] * 8
    comparison = paired(first, second, "photos")
    assert comparison.drop == pytest.approx(0.08)
    assert comparison.standard_error == pytest.approx((12 - 64 / 100) ** 0.5 / 100)
    assert not comparison.reproduced
    assert paired(first, first, "photos").allowed == TOLERANCE


def test_a_better_training_reproduces():
    assert unpaired((80, 100), (95, 100), "photos").reproduced
    assert unpaired((800, 1000), (790, 1000), "photos").reproduced
    assert not unpaired((800, 1000), (740, 1000), "photos").reproduced
