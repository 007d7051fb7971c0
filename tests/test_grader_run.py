"""The command line from outside: lines, files, exit status, whatever ends it."""

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from submissions.course import copy_submission, make_test, processes_of
from submissions.habits import HABITS

import run_tests
from course.files import UserError
from course.layout import TestFolder
from grader.outcome import Outcome, Phase
from grader.pack import PackError, files_to_pack, pack
from grader.process import run
from grader.report import Progress, show_errors, show_phases, show_result
from grader.sandbox import why_no_sandbox
from grader.session import TestResult
from grader.staging import Submission

SCRIPT = Path(run_tests.__file__)
PATIENCE = 600  # seconds: what never ends fails, what a busy machine slows down does not


@pytest.fixture
def course(tmp_path):
    """Two tests, and the submission "good"."""
    make_test(tmp_path / "tests")
    make_test(tmp_path / "tests", "01_hidden", photos=4, prefix="hidden")
    copy_submission("good", tmp_path / "good")
    return tmp_path


def call(*arguments, before=(sys.executable,), encoding="utf-8", cwd=None, **environment):
    """Run the script; returns its status, its lines, and stderr without those of progress."""
    done = subprocess.run(
        [*before, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=PATIENCE,
        check=False,
    )
    lines, errors = (text.decode(encoding).splitlines() for text in (done.stdout, done.stderr))
    told = [line for line in errors if not re.match(r"\d\d \w+, .* s of \d+ s, CPU", line)]
    return done.returncode, lines, "\n".join(told)


def results_of(tests):
    return json.loads((tests / "results.json").read_text())


def test_a_passing_run(course):
    status, lines, errors = call(course / "tests", "--submission", course / "good")
    times = [f"{entry['time']:.2f}" for entry in results_of(course / "tests")]
    own = [line for line in lines if line[:1] in "01M"]
    assert own[0] == f"00 {times[0]}s Ok, accuracy 1.0000"
    assert own[1] == f"01 {times[1]}s Ok, accuracy 1.0000"
    assert lines[-1] == own[2] == "Mark: 10 1.0000"
    assert (status, errors) == (0, "")
    statuses = [entry["status"] for entry in results_of(course / "tests")]
    assert statuses == ["Ok, accuracy 1.0000"] * 2
    output = course / "tests" / "01_hidden_check" / "output" / "output.csv"
    assert output.read_text().splitlines()[:2] == ["filename,class_id", "hidden_0.png,0"]
    gt = course / "tests" / "01_hidden_check" / "gt" / "gt.csv"
    assert gt.read_bytes() == output.read_bytes()


def test_a_failing_run_prints_the_traceback_and_exits_with_1(course):
    folder = copy_submission("classify_raises", course / "bad")
    status, lines, _ = call(course / "tests", "--submission", folder)
    assert status == 1
    assert lines[0] == "00 Runtime error"
    assert lines[1] == "Traceback (most recent call last):"
    assert "IndexError: list index out of range" in lines
    assert not any("grader" in line for line in lines if line.startswith("  File"))
    assert lines[-1] == "Mark: 0"
    assert results_of(course / "tests") == [{"status": "Runtime error"}] * 2


def test_a_test_that_fails_counts_whatever_the_last_one_says(course):
    code = (course / "good" / "solution.py").read_text()
    head = "def classify(model_path, test_img_dir):\n"
    assert head in code
    fails = head + '    assert not Path(test_img_dir, "photo_0.png").exists()\n'
    (course / "good" / "solution.py").write_text(code.replace(head, fails))
    status, lines, _ = call(course / "tests", "--submission", course / "good")
    assert (status, lines[-1]) == (1, "Mark: 10 1.0000")


def test_the_end_of_what_a_failing_submission_printed_is_shown(course):
    folder = copy_submission("classify_raises", course / "bad")
    code = (folder / "solution.py").read_text()
    (folder / "solution.py").write_text(f"{code}\nprint('x\\n' * 20_000, 'loading the weights')\n")
    _, lines, _ = call(course / "tests", "--submission", folder)
    assert "   |  loading the weights" in lines


def test_what_a_passing_submission_printed_is_shown(course):
    """Such as how many photos it could not read: nothing is left out in silence."""
    with (course / "good" / "solution.py").open("a") as code:
        code.write("\nfor i in range(9):\n    print('row', i)\n")
    status, lines, _ = call(course / "tests", "--submission", course / "good")
    assert status == 0
    shown = [line for line in lines if line.startswith("   | ")]
    assert shown == ["   | row 6", "   | row 7", "   | row 8"] * 2


ASKS_ITS_SURROUNDINGS = """
import os
for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
    assert os.environ.get(name, "") == "", name
assert not {"TORCH_HOME", "HF_HOME", "PYTHONPATH"} & set(os.environ)
assert not os.path.exists(os.path.expanduser("~/.cache"))
assert os.listdir() == os.listdir(os.environ["TMPDIR"]) == []
"""


def test_a_run_finds_nothing_of_this_machine(course):
    """No accelerator, no pretrained weights, no files."""
    code = (course / "good" / "solution.py").read_text()
    (course / "good" / "solution.py").write_text(f"{code}\n{ASKS_ITS_SURROUNDINGS}")
    devices = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "0")
    caches = dict.fromkeys(("TORCH_HOME", "HF_HOME", "TMPDIR", "PYTHONPATH"), str(course))
    status, lines, _ = call(course / "tests", "--submission", course / "good", **devices, **caches)
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000"), lines


def test_an_old_answer_is_not_graded_again(course):
    call(course / "tests", "--submission", course / "good")
    folder = copy_submission("os_exit", course / "bad")
    status, _, _ = call(course / "tests", "--submission", folder)
    assert status == 1
    assert list((course / "tests").glob("*_check/output/*")) == []


def test_true_labels_of_an_old_run_are_not_checked_with(course):
    call(course / "tests", "--submission", course / "good")
    (course / "tests" / "01_hidden_gt" / "gt.csv").unlink()
    status, _, errors = call(course / "tests", "--submission", course / "good")
    statuses = [entry["status"] for entry in results_of(course / "tests")]
    assert (status, statuses) == (1, ["Ok, accuracy 1.0000", "Checker error"])
    assert errors == "", "no traceback of the grader's"


def test_the_default_submission_is_the_one_beside_the_script(course, monkeypatch, capsys):
    monkeypatch.setattr(run_tests, "ROOT", course / "good")
    assert run_tests.main([str(course / "tests")]) == 0
    assert capsys.readouterr().out.endswith("Mark: 10 1.0000\n")


def test_another_model_file(course):
    (course / "good" / "birds_model.pt").rename(course / "other.pt")
    run = (course / "tests", "--submission", course / "good")
    assert call(*run)[0] == 1
    assert call(*run, "--model", "other.pt", cwd=course)[0] == 0


@pytest.mark.parametrize(("required", "expected"), [("0.25", 0), ("0.2501", 1)])
def test_a_required_accuracy(course, required, expected):
    folder = copy_submission("constant_class", course / "constant")
    run = (course / "tests", "--submission", folder, "--require", required)
    assert call(*run)[0] == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{tests}", "--submission", "{tests}"], "no solution.py"),
        (["{good}", "--submission", "{good}"], "no NN_*_input folder"),
        (["{tests}", "--submission", "{good}", "--limit", "speed=1"], "no limit 'speed'"),
        (["{tests}", "--submission", "{good}", "--require", "88"], "88 is no accuracy"),
        (["{tests}", "--submission", "{good}", "--reproduce"], "--holdout"),
        (["{tests}", "--submission", "{good}", "--json", "{tests}/species.csv/a"], "written"),
        (["{tests}", "--submission", "{good}", "--json", "{tests}"], "is a folder"),
        (["{tests}", "--submission", "{good}", "--errors", "{tests}"], "is a folder"),
        (["{tests}", "--submission", "{good}", "--pack", "{tests}"], "is a folder"),
        (["{good}/in_the_way", "--submission", "{good}"], "in the way"),
        (["{good}/results", "--submission", "{good}"], "is a folder"),
        (["{tests}", "--submission", "{good}", "--as", "main.py"], "invalid choice"),
        (["--no-such-option"], "unrecognized"),
    ],
)
def test_a_wrong_call_exits_with_2_and_one_line(course, arguments, text):
    (course / "tests" / "species.csv").write_text("class_id,name\n0,Wren\n")
    shutil.rmtree(course / "tests" / "01_hidden_input")
    make_test(course / "good" / "in_the_way")
    (course / "good" / "in_the_way" / "00_test_img_check").write_text("")
    (make_test(course / "good" / "results") / "results.json").mkdir()
    names = {"tests": course / "tests", "good": course / "good"}
    status, _, errors = call(*(word.format(**names) for word in arguments))
    assert status == 2
    assert text in errors
    assert "Traceback" not in errors
    assert not list(course.glob("*/*_check")), "told before the work, not after it"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_results_are_there_whatever_ends_the_run(course, number):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{signal.Signals(number).name} is ignored here, as in a shell's background")
    folder = copy_submission("hang", course / "bad")
    (course / "tests" / "results.json").write_text('[{"status": "Ok, accuracy 1.0000"}]')
    command = [sys.executable, str(SCRIPT), str(course / "tests"), "--submission", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(course)}, **quiet)
    assert waits_for(lambda: len(results_of(course / "tests")) == 2)
    process.send_signal(number)
    assert process.wait(PATIENCE) == (-9 if number == signal.SIGKILL else 128 + number)
    assert results_of(course / "tests") == [{"status": "Runtime error"}] * 2


# What a submission may leave behind when the grader is killed: a fork in a session of its own, one
# whose parent has ended, another program, and one that has nothing of its parent's environment.
HANGS_WITH_OTHERS = """
import os, subprocess, sys, time

RUN = os.environ["LC_BIRDS_TEST_RUN"]
PROGRAM = [sys.executable, "-c", "import time; time.sleep(300)", RUN]


def sleeping_fork(parent_ends):
    if (pid := os.fork()) == 0:
        os.setsid()
        if not parent_ends or os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    if parent_ends:
        os.waitpid(pid, 0)


def train_classifier(train_gt, train_img_dir, fast_train=False):
    return "network"


def classify(model_path, test_img_dir):
    sleeping_fork(parent_ends=False)
    sleeping_fork(parent_ends=True)
    subprocess.Popen(PROGRAM)
    subprocess.Popen(PROGRAM, env={})
    print(f"{RUN} hangs", flush=True)
    time.sleep(300)
"""
GRADES = """
import sys
from pathlib import Path
from grader.process import run
from grader.staging import Submission
submission = Submission.at(Path(sys.argv[1]), use_sandbox=sys.argv[2] == "os")
run("classify", submission, Path(sys.argv[3]), Path(sys.argv[3]).parent)
"""


def waits_for(condition):
    end = time.monotonic() + PATIENCE
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return true


@contextlib.contextmanager
def ended_when(processes, folder, number, code, *arguments):
    """Python runs the code, and gets a signal when it is one of so many processes of this test.

    Gives the word that they are known by.
    """
    run = secrets.token_hex(8)
    grader = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=SCRIPT.parent,
        env={**os.environ, "LC_BIRDS_TEST_RUN": run, "TMPDIR": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert waits_for(lambda: len(processes_of(run)) >= processes), processes_of(run)
        grader.send_signal(number)
        grader.wait(60)
        yield run
    finally:
        for process in processes_of(run):
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("layer", ["portable", "os"])
def test_a_killed_grader_leaves_no_process_behind(course, layer):
    if layer == "os" and why_no_sandbox():
        pytest.skip(why_no_sandbox())
    (course / "good" / "solution.py").write_text(HANGS_WITH_OTHERS)
    # The grader, the supervisor, the submission's process and four others; two of bwrap's.
    processes = 9 if layer == "os" else 7
    data = course / "tests" / "00_test_img_input"
    with ended_when(processes, course, signal.SIGKILL, GRADES, course / "good", layer, data) as run:
        assert waits_for(lambda: not processes_of(run)), processes_of(run)


def test_json_report(course):
    folder = copy_submission("constant_class", course / "constant")
    report = course / "report.json"
    call(course / "tests", "--submission", folder, "--json", report)
    content = json.loads(report.read_text())
    assert (content["mark"], content["description"]) == (0, "0.2500")
    first = content["tests"][0]
    assert (first["correct"], first["total"]) == (2, 8)
    assert [phase["name"] for phase in first["phases"]] == ["import", "fast_train", "classify"]
    assert all(phase["verdict"] == "ok" for phase in first["phases"])
    assert all(phase["peak"] > 8 * 2**20 for phase in first["phases"])  # a Python, not bwrap
    assert first["warnings"] == ["all 8 photos got the same class, 3"]
    assert "portable" in first["layers"][0]


def test_costs_are_told_in_their_units(capsys):
    phase = Phase("classify", 900, wall=1.75, cpu=2.5, peak=300 * 2**20, verdict="ok")
    show_phases(Outcome([], [phase]))
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split() == ["classify", "900", "s", "1.8", "s", "2.5", "s", "300", "MiB", "ok"]


def test_the_most_frequent_confusions_are_told_first(capsys):
    truth = {"a.png": 0, "b.png": 1, "c.png": 1, "d.png": 2}
    answer = {"a.png": 2, "b.png": 3, "c.png": 3, "d.png": 2}
    test = TestFolder(Path("00_test_img_input"))
    show_errors([TestResult(test, Outcome(), answer, truth)], {1: "Wren"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Misclassified in test 00: 3 photos"
    assert [line.split() for line in lines[2:]] == [
        ["b.png", "Wren", "class", "3"],
        ["c.png", "Wren", "class", "3"],
        ["a.png", "class", "0", "class", "2"],
    ]


def test_errors_file_names_the_species(course):
    text = 'class_id,name\n0,"Wren, Winter"\n3,Robin\n'
    (course / "tests" / "species.csv").write_text(text, encoding="utf-8-sig")  # as Excel does
    folder = copy_submission("constant_class", course / "constant")
    path = course / "errors.csv"
    _, lines, _ = call(course / "tests", "--submission", folder, "--errors", path)
    rows = path.read_text().splitlines()
    assert rows[0] == "test,filename,class_id,answer,species,answered_species"
    assert rows[1] == '00,photo_0.png,0,3,"Wren, Winter",Robin'
    assert len(rows) == 1 + 6 + 3
    assert f"{path}: 9 misclassified photos" in lines
    assert "   hidden_0.png  Wren, Winter  Robin" in lines


def test_checker_mode(course, monkeypatch, capsys):
    monkeypatch.setattr(run_tests, "ROOT", course / "good")
    monkeypatch.setenv("CHECKER", "1")
    check = course / "01_check"
    data = course / "tests" / "01_hidden_input"
    assert run_tests.main(["run_single_test", str(data), str(check / "output")]) == 0
    shutil.copytree(course / "tests" / "01_hidden_gt", check / "gt")
    for words in ([str(check)], [str(check), str(check / "output")]):  # the real script takes two
        assert run_tests.main(["check_test", *words]) == 0
        assert capsys.readouterr().out == "Ok, accuracy 1.0000\n"
    (check / "results.json").write_text('[{"time": 1.5, "status": "Ok, accuracy 0.8312"}]')
    for words in ([str(check)], [str(check), str(check / "output")]):
        assert run_tests.main(["grade", *words]) == 0
        assert json.loads(capsys.readouterr().out) == {"description": "0.8312", "mark": 8}


def test_checker_mode_fails_aloud(course, monkeypatch, capsys):
    monkeypatch.setattr(run_tests, "ROOT", copy_submission("train_raises", course / "bad"))
    monkeypatch.setenv("CHECKER", "1")
    data, output = course / "tests" / "00_test_img_input", course / "out"
    assert run_tests.main(["run_single_test", str(data), str(output)]) == 1
    assert "ValueError: the loss is not a number" in capsys.readouterr().err
    assert not output.exists()
    assert run_tests.main(["check_test", str(course)]) == 1
    assert run_tests.main(["grade", str(course)]) == 2
    assert run_tests.main(["grade"]) == 2
    said = capsys.readouterr()
    assert "MODE DATA_DIR OUTPUT_DIR" in said.err
    assert said.out == ""


def test_the_grader_never_imports_torch_nor_what_draws(course):
    """It starts at once, and what it takes of memory is the submission's."""
    code = "import sys, run_tests; run_tests.main(sys.argv[1:]); print(*sys.modules)"
    words = [str(course / "tests"), "--submission", str(course / "good")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=SCRIPT.parent,
                          capture_output=True, text=True, check=True)  # fmt: skip
    modules = done.stdout.splitlines()[-1].split()
    assert not {"torch", "rich", "matplotlib", "jinja2"} & set(modules)


def test_archive_is_the_same_every_time_and_holds_two_files(course):
    copy_submission("good", course / "again")
    (course / "again" / "notes.txt").write_text("not for upload")
    os.utime(course / "again" / "solution.py", (1e9, 1e9))
    (course / "again" / "birds_model.pt").chmod(0o600)
    for name in ("good", "again"):
        run = (course / "tests", "--submission", course / name)
        status, lines, _ = call(*run, "--pack", course / f"{name}.zip")
        assert (status, lines[-1]) == (0, "Mark: 10 1.0000")
    assert (course / "good.zip").read_bytes() == (course / "again.zip").read_bytes()
    with zipfile.ZipFile(course / "good.zip") as archive:
        assert archive.namelist() == ["solution.py", "birds_model.pt"]
        code = (course / "good" / "solution.py").read_bytes()
        assert archive.read("solution.py") == code


def test_only_a_passing_submission_is_packed(course):
    folder = copy_submission("constant_class", course / "constant")
    path = course / "upload.zip"
    run = (course / "tests", "--submission", folder, "--pack", path)
    assert call(*run, "--require", "0.5")[0] == 1
    assert not path.exists()


def test_what_the_code_imports_from_its_folder_is_packed_and_named(course):
    folder, path = copy_submission("helper_modules", course / "helped"), course / "upload.zip"
    (folder / "unused.py").write_text("")
    status, lines, _ = call(course / "tests", "--submission", folder, "--pack", path)
    assert status == 0
    names = ["solution.py", "birds_model.pt", "reading.py", "utils/names.py"]
    assert any(line.endswith(f"MB, {', '.join(names)}") for line in lines)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == names
        times = {member.date_time for member in archive.infolist()}
    assert times == {(1980, 1, 1, 0, 0, 0)}, "the same files make the same archive"


def test_a_phase_that_ran_out_of_time_says_so_in_its_row(course):
    with (course / "good" / "solution.py").open("a") as code:
        code.write("\nimport time\ntime.sleep(60)\n")
    run = (course / "tests", "--submission", course / "good", "--limit", "import=1")
    status, lines, _ = call(*run)
    assert status == 1
    assert any(line.split()[:1] == ["import"] and line.endswith("over time") for line in lines)


def test_an_archive_that_does_not_work_alone_is_not_kept(course):
    folder = course / "good"
    (folder / "shift.txt").write_text("0")
    code = (folder / "solution.py").read_text()
    (folder / "solution.py").write_text(f"{code}\nPath(__file__).with_name('shift.txt').open()\n")
    path = course / "upload.zip"
    status, lines, _ = call(course / "tests", "--submission", folder, "--pack", path)
    assert status == 1
    [line] = [line for line in lines if "not written" in line]
    assert "shift.txt" in line
    assert "The archive holds solution.py, birds_model.pt: the code, the model, and what" in line
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "code"), [("good", "classification.py"), ("named_classification", "solution.py")]
)
def test_the_code_is_named_as_an_edition_of_the_course_does(course, name, code):
    folder, path = copy_submission(name, course / "named"), course / "upload.zip"
    run = (course / "tests", "--submission", folder, "--pack", path, "--as", code)
    assert call(*run)[0] == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [code, "birds_model.pt"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "writes_code_folder",
            [
                "   classify: broke the rule 'no file written': open(",
                "   Why: a submission must not write files",
                "   What to do: take the write out",
                "   what followed from it in classify:",
                "Traceback (most recent call last):",
            ],
        ),
        (
            "memory_hog",
            [
                "Traceback (most recent call last):",
                "   classify: MemoryError",
                "   Why: it took more memory than the 0.5 GiB that each process may have",
                "   What to do: take smaller batches or one photo at a time; --limit memory=GIB",
            ],
        ),
        (
            "internet_if_there_is",
            [
                "   !! fast_train: broke the rule 'no internet':",
                "   It was refused, the submission went on and answered. The testing system most",
                "      probably says the same as this run, 'Ok, accuracy 1.0000'.",
                "   Why: the testing system has no internet",
                "   What to do: take it out",
            ],
        ),
    ],
)
def test_what_happened_why_and_what_to_do(course, name, lines):
    folder = copy_submission(name, course / "bad")
    run = (course / "tests", "--submission", folder, "--limit", "memory=0.5")
    printed = call(*run)[1]
    assert not any("<grader>" in line for line in printed)  # the grader's own frames
    said = iter(printed)
    for start in lines:
        assert any(line.startswith(start) for line in said), start


def draw_toys(folder, seed):
    make_test(folder, "00_sketch")
    make_test(folder, "01_hidden", prefix="hidden")


def toy_training(words):
    tests, init, out = words[0], words[2], words[4]
    Path(out).parent.mkdir(parents=True)
    assert words[1::2] == ["--init", "--out", "--report"]
    Path(out).write_text(Path(init).read_text() + tests)
    print("epoch 1")


@pytest.fixture
def clone(course, monkeypatch):
    """A clone without course data, its drawing and training replaced by toys."""
    data = course / "good" / "public_data"
    data.mkdir()
    monkeypatch.setattr("train_full.main", toy_training)
    monkeypatch.setattr(run_tests, "ROOT", course / "good")
    monkeypatch.setattr(run_tests, "DEFAULT_TESTS", data)
    monkeypatch.setattr("birddata.drawn_sample.draw_sample", draw_toys)
    return course / "good"


def test_without_course_data_the_sample_is_drawn_trained_and_graded(clone, capsys):
    before = (clone / "birds_model.pt").read_bytes()
    assert run_tests.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No tests in public_data")
    assert "epoch 1" in lines
    assert [line[:2] for line in lines if "s Ok, accuracy" in line] == ["00", "01"]
    kept = f"The model and the report of the training are kept in {clone / 'report' / 'sample'}"
    assert lines[-2:] == ["Mark: 10 1.0000", kept]
    assert (clone / "birds_model.pt").read_bytes() == before
    assert not list((clone / "public_data").iterdir())


def test_the_sample_is_gone_afterwards(clone):
    with run_tests.graded_sample(clone / "birds_model.pt", own=True) as (tests, model):
        assert model.read_text() == f"toy weights\n{tests}"
    assert not tests.exists()
    assert model.parent == clone / "report" / "sample"


def test_a_training_that_fails_is_no_passing_run(clone, monkeypatch, capsys):
    def fails(words):
        raise UserError("no weights")

    monkeypatch.setattr("train_full.main", fails)
    assert run_tests.main([]) == 2
    assert capsys.readouterr().err == "Error: no weights\n"


def test_the_sample_is_nothing_to_upload(clone):
    assert run_tests.main(["--pack", str(clone / "upload.zip")]) == 2
    assert not (clone / "upload.zip").exists()


@pytest.mark.slow
def test_a_fresh_clone_earns_a_10_on_its_own_sample(tmp_path):
    root = SCRIPT.parent
    for name in ("run_tests.py", "solution.py", "train_full.py", "birds_model.pt"):
        shutil.copy(root / name, tmp_path / name)
    for name in ("birddata", "course", "grader", "reporting", "public_data"):
        shutil.copytree(root / name, tmp_path / name, ignore=only_programs)
    before = (tmp_path / "birds_model.pt").read_bytes()
    empty = {"TORCH_HOME": str(tmp_path / "no_cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "run_tests.py"],
        cwd=tmp_path,
        env={**os.environ, **empty},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].startswith("Mark: 10 ")
    assert (tmp_path / "report" / "sample" / "report.html").is_file()
    assert (tmp_path / "birds_model.pt").read_bytes() == before
    assert not list((tmp_path / "public_data").glob("[0-9]*"))


def only_programs(folder, names):
    return [name for name in names if not name.endswith((".py", ".j2", ".csv"))]


# ---- surroundings that people have ----

SPEAKS = """
print("\\N{BIRD} Привет \\x1b[2J")
"""


@pytest.mark.parametrize("encoding", ["cp1251", "ascii"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_console_that_lacks_the_characters(course, encoding, fails):
    with (course / "good" / "solution.py").open("a", encoding="utf-8") as code:
        code.write(SPEAKS + ("raise ValueError('\N{BIRD}')\n" if fails else ""))
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = (course / "tests", "--submission", course / "good")
    status, lines, errors = call(*words, encoding=encoding, **environment)
    text = "\n".join(lines)
    assert (status, errors) == (int(fails), "")
    assert r"\U0001f426" in text
    assert "\x1b" not in text
    assert lines[-1] == ("Mark: 0" if fails else "Mark: 10 1.0000")


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full"])
def test_without_streams_the_verdict_is_the_exit_status(course, streams):
    words = f"{sys.executable} {SCRIPT} {course / 'tests'} --submission {course / 'good'} {streams}"
    assert subprocess.run(words, shell=True, capture_output=True, check=False).returncode == 0
    assert results_of(course / "tests")[1]["status"] == "Ok, accuracy 1.0000"


@pytest.mark.parametrize("option", ["-I", "-P"])
def test_pythons_safe_path(course, option):
    if option == "-P" and sys.version_info < (3, 11):
        pytest.skip("an option of Python 3.11")
    words = (course / "tests", "--submission", course / "good")
    status, _, errors = call(*words, before=(sys.executable, option))
    assert (status, errors) == (0, "")


def test_where_nothing_can_be_written_one_line_says_so(course):
    if why_no_sandbox():
        pytest.skip(why_no_sandbox())
    box = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", sys.executable]
    status, _, errors = call(course / "tests", "--submission", course / "good", before=box)
    assert (status, len(errors.splitlines())) == (2, 1), errors
    assert str(course / "tests") in errors


def test_no_folder_for_temporary_files(course, monkeypatch, capsys):
    def none(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert run_tests.main([str(course / "tests"), "--submission", str(course / "good")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "set TMPDIR to one that can" in line


def test_a_submission_in_shared_memory(course):
    """A place that the sandbox hides: the code is copied before."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    folder = Path("/dev/shm", f"birds-{secrets.token_hex(8)}")
    try:
        shutil.copytree(course, folder)
        (folder / "good" / "helpers").mkdir()
        (folder / "good" / "helpers" / "names.py").write_text("own = True\n")
        with (folder / "good" / "solution.py").open("a") as code:
            code.write("\nfrom helpers.names import own\n")
        assert call(folder / "tests", "--submission", folder / "good")[0] == 0
    finally:
        shutil.rmtree(folder)


def test_a_large_model_elsewhere_in_shared_memory(course, monkeypatch):
    """It is linked, not copied, so the box has to show its folder."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    monkeypatch.setattr("grader.staging.LINKED_FROM", 0)
    with (course / "good" / "solution.py").open("a") as code:
        code.write("\nPath(__file__).with_name('birds_model.pt').read_bytes()\n")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        model = shutil.move(course / "good" / "birds_model.pt", folder)
        submission = Submission.at(course / "good", Path(model))
        data = course / "tests" / "01_hidden_input"
        assert not run("classify", submission, data, course / "output").problem


def test_a_folder_that_cannot_be_read(course, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run_tests.main([str(course / "tests"), "--submission", str(course / "good")]) == 2
    assert "cannot be read: no permission" in capsys.readouterr().err


def test_as_another_user(course):
    """What is promised holds without root's powers, too."""
    python = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    probe = shutil.which("setpriv") and [*python, "-c", again]
    if not probe or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no other user who may run this Python")
    for path in (course, *course.rglob("*"), *course.parents):
        if path.is_relative_to(course) or path.owner() == "root":
            path.chmod(path.stat().st_mode | (0o777 if path.is_dir() else 0o666))
    words = (course / "tests", "--submission", course / "good")
    assert call(*words, before=python, HOME=str(course))[0] == 0


# ---- what is shown while it works ----


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_a_line_says_how_far_it_is(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress()
    progress.shown = -1000.0
    for _ in range(2):  # of plain lines not more than one can read
        progress("00_test_img_input", Phase("classify", 900), 53.2, 40.0, 212, 400)
    progress.clear()
    line, clear = "00 classify, 212 of 400 photos, 53 s of 900 s, CPU 40 s", "\r\x1b[2K"
    live = f"{clear}{line}{clear}{line}{clear}"
    assert stream.getvalue() == (live if stream.isatty() else f"{line}\n")


def test_photos_are_counted_while_they_are_read(course):
    seen = course / "seen"
    with (course / "good" / "solution.py").open("a") as code:
        code.write("\nimport time\nread = Path.read_text\ndef wait(path):\n    text = read(path)\n")
        code.write(f"    while not os.path.exists({str(seen)!r}): time.sleep(0.01)\n")
        code.write("    return text\nimport os\nPath.read_text = wait\n")

    def watch(test, phase, wall, cpu, photos, total):
        if phase.name == "classify" and photos and not seen.exists():
            seen.write_text(f"{test} {photos} {total}")

    submission = Submission.at(course / "good", watch=watch)
    data = course / "tests" / "01_hidden_input"
    assert not run("run_single_test", submission, data, course / "output").problem
    assert seen.read_text().startswith("01_hidden_input 1 4")


def test_a_busy_machine_is_named(course, capsys):
    outcome = Outcome(phases=[Phase("classify", 900, wall=100.0, cpu=20.0, verdict="ok")])
    test = TestFolder(Path("00_test_img_input"))
    show_result(TestResult(test, outcome, {"a": 0}, {"a": 0}), Submission.at(course / "good"))
    assert "the machine was busy" in " ".join(capsys.readouterr().out.split())


# ---- what is packed ----


def test_the_projects_own_upload_is_two_files():
    """In the checkout itself, where much else lies beside the code."""
    submission = Submission.at(SCRIPT.parent)
    assert list(files_to_pack(submission, [], "solution")) == ["solution.py", "birds_model.pt"]


def test_imports_are_found_by_reading_the_code(course):
    """What is imported only for the real training is packed, too."""
    folder, path = course / "good", course / "upload.zip"
    (folder / "nets" / "parts").mkdir(parents=True)
    code = (folder / "solution.py").read_text()
    head = "def train_classifier(train_gt, train_img_dir, fast_train=False):\n"
    body = "    if not fast_train:\n        from nets.big import Net\n"
    (folder / "solution.py").write_text(code.replace(head, head + body))
    (folder / "nets" / "__init__.py").write_text("")
    (folder / "nets" / "big.py").write_text("from .parts import blocks\nimport torch, last\n")
    (folder / "nets" / "parts" / "blocks.py").write_text("import unknown\n")
    (folder / "last.py").write_text("__import__('later')\n")
    (folder / "later.py").write_text("not Python\n")
    (folder / "unused.py").write_text("")
    assert call(course / "tests", "--submission", folder, "--pack", path)[0] == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[2:] == [
            *("last.py", "later.py", "nets/__init__.py", "nets/big.py", "nets/parts/blocks.py")
        ]


def test_a_package_is_packed_under_its_other_name(course):
    folder = HABITS["a package"].write(course / "package")
    submission = Submission.at(folder)
    files = files_to_pack(submission, [], "classification")
    assert list(files) == [
        "classification/__init__.py", "birds_model.pt", "classification/net.py"
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["../outside.py", "/etc/hostname", "link.py"])
def test_what_leads_out_of_the_folder_is_not_packed(course, file):
    (course / "outside.py").write_text("")
    (course / "good" / "link.py").symlink_to(course / "outside.py")
    outcome = Outcome(modules=[file])
    results = [TestResult(TestFolder(Path("00_a_input")), outcome)]
    with pytest.raises(PackError, match="leads out of"):
        files_to_pack(Submission.at(course / "good"), results, "solution")


def test_a_module_that_vanished_is_one_line(course):
    files = {"solution.py": course / "gone.py"}
    with pytest.raises(UserError, match=r"gone\.py cannot be read"):
        pack(course / "upload.zip", files, Submission.at(course / "good"), [])
    assert not (course / "upload.zip").exists()


def test_anothers_submission_is_not_trained(clone, course, capsys):
    """Outside this folder train_full.py is no business of the grader's."""
    other = copy_submission("good", course / "other")
    assert run_tests.main(["--submission", str(other)]) == 0
    out = capsys.readouterr().out
    assert "graded on it as it is" in out
    assert "epoch 1" not in out
