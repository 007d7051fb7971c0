"""What the model file says about itself, and the reproduction check; torch is replaced by a toy."""

import json
import re

import pytest
from submissions.course import copy_submission, make_test

import run_tests
import solution
from course.layout import find_tests, read_csv
from grader.model import find_seen, label_sets, labels_fingerprint, validation_of
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
    """Exit status and lines for a model with these facts."""
    content = {"share": 1.0, "known_answer_error": 2e-6, **checkpoint}
    (course / "code" / "birds_model.pt").write_text(json.dumps(content))
    (course / "code" / "retrained.txt").write_text(str(retrained))
    arguments = [str(course / "tests"), "--submission", str(course / "code"), *options]
    status = run_tests.main(arguments)
    return status, [line.strip() for line in capsys.readouterr().out.splitlines()]


def edit(course, old, new, count=-1):
    path = course / "code" / "solution.py"
    code = path.read_text()
    assert old in code
    path.write_text(code.replace(old, new, count))


def trained_on(*files):
    gt = {name: class_id for file in files for name, class_id in read_csv(file).items()}
    return {"photos": len(gt), "labels_sha256": labels_fingerprint(gt)}


def public(course):
    return trained_on(course / "tests" / "00_test_img_gt" / "gt.csv")


def test_fingerprint_is_that_of_the_submission():
    gt = {"b.jpg": 3, "a,ä.jpg": -7}
    assert labels_fingerprint(gt) == solution.labels_fingerprint(gt)


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


def test_photos_kept_out_count_as_they_are(course, capsys):
    _, lines = grade(course, capsys, training=public(course), validation=VALIDATION)
    assert "test 01: photos that the model was not trained on" in lines
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_model_trained_elsewhere_or_without_record(course, capsys):
    elsewhere = {"photos": 9, "labels_sha256": "f" * 64}
    _, lines = grade(course, capsys, training=elsewhere, validation=VALIDATION)
    other = "training: on other labels than these tests' (fingerprint ffffffffffff); "
    assert other + "whether it has seen some of these photos is not known" in lines
    assert any(line.startswith("mark to expect") for line in lines)
    _, lines = grade(course, capsys)
    assert any(line.startswith("training: no record in the file") for line in lines)
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_demonstration_is_called_one_and_not_packed(course, capsys):
    elsewhere = {"photos": 9, "labels_sha256": "f" * 64}
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
    facts = {"training": public(course)} if record else {}
    status, lines = grade(course, capsys, "--pack", str(course / "upload.zip"), **facts)
    assert not any("demonstration" in line for line in lines)
    assert status == 0


@pytest.mark.parametrize(
    ("facts", "share", "text"),
    [
        ({"class_ids": [100, 101]}, 0.0, "other species than the test asks for: 4 of 4 class ids"),
        ({"class_ids": [0, 1, 2, 3]}, 0.0, "accuracy 0.0000 here, 0.8500 in its validation"),
        ({}, 0.5, "accuracy 0.5000 here, 0.8500 in its validation"),
    ],
)
def test_no_mark_is_expected_of_a_model_of_other_species(course, capsys, facts, share, text):
    _, lines = grade(course, capsys, share=share, validation=VALIDATION, **facts)
    [line] = [line for line in lines if line.startswith("WRONG:")]
    assert text in line
    assert not any(line.startswith("mark to expect") for line in lines)


def test_a_mark_is_expected_of_a_model_of_these_species(course, capsys):
    known = {"class_ids": [0, 1, 2, 3], "training": {"labels_sha256": "f" * 64}}
    _, lines = grade(course, capsys, share=0.8, validation=VALIDATION, **known)
    assert any(line.startswith("mark to expect") for line in lines)


@pytest.mark.parametrize(
    ("error", "verdict"), [(1e-3, "right on this machine"), (1.1e-3, "WRONG on this machine")]
)
def test_known_answer(course, capsys, error, verdict):
    status, lines = grade(course, capsys, known_answer_error=error)
    [line] = [line for line in lines if line.startswith("known answer:")]
    assert verdict in line
    assert status == 0  # the testing system does not ask


def test_a_model_that_cannot_be_inspected_is_still_graded(course, capsys):
    status, lines = grade(course, capsys, known_answer_error="none")
    assert any(line.startswith("cannot be inspected: ValueError") for line in lines)
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


def test_an_inspection_without_end_is_cut_off(course, capsys):
    head = "def known_answer_error(model_path):\n"
    edit(course, head, f"{head}    while True:\n        pass\n")
    status, lines = grade(course, capsys, "--limit", "inspect=0.3")
    assert "cannot be inspected: over its time limit of 0.3 s" in lines
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000")


@pytest.mark.parametrize("validation", [None, {}, 3, {"correct": 5, "total": 0}, {"correct": "x"}])
def test_a_validation_that_cannot_be_used_is_none(validation):
    assert validation_of({"validation": validation}) is None


def test_a_model_trained_on_all_photos_has_seen_those_held_out(course):
    """The shipped model, graded on a split of what it learnt from."""
    tests = find_tests(course / "tests")
    together = label_sets(tests)["photos of all these tests"]
    held_out = read_csv(tests[-1].gt / "gt.csv")
    record = {"photos": len(together), "labels_sha256": labels_fingerprint(together)}
    seen = find_seen({"training": record}, tests)
    assert seen.count(held_out) == len(held_out)


def test_seen_photos_are_counted_by_name(course):
    seen = find_seen({"training": public(course)}, find_tests(course / "tests"))
    assert seen.what == "training photos of test 00"
    assert seen.count({"photo_1.png": 1, "hidden_1.png": 1}) == 1


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
    gts = [course / "tests" / name / "gt.csv" for name in ("00_test_img_gt", "01_hidden_gt")]
    both = course / "tests" / "00_test_img_input" / "train" / "gt.csv"
    rows = [*gts[0].read_text().splitlines(), *gts[1].read_text().splitlines()[1:]]
    both.write_text("\n".join(rows) + "\n")
    facts = {"training": trained_on(*gts), "validation": VALIDATION}
    status, lines = grade(course, capsys, "--reproduce", **facts, retrained=0.8)
    assert any(line.startswith("compared on different photos") for line in lines)
    assert any(line.startswith("submitted model 0.8500 (85 of 100), retr") for line in lines)
    assert status == 0
    assert grade(course, capsys, "--reproduce", **facts, retrained=0.3)[0] == 1


def test_photos_that_may_have_been_seen_are_not_compared_on(course, capsys):
    """With a record of other labels, nobody can tell: the stored validation stands in."""
    training = {"photos": 3, "labels_sha256": labels_fingerprint({"elsewhere.jpg": 1})}
    facts = {"training": training, "validation": VALIDATION}
    status, lines = grade(course, capsys, "--reproduce", **facts, retrained=0.8)
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
    there = f'[os.environ[name] == "/caches/of/this/user" for name in {names}]'
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
