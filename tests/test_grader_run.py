"""The command line from outside: lines, files, exit status, whatever ends it."""

import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from submissions.course import make_test, processes_of
from submissions.habits import HABITS, Habit

import run_tests
from course.files import UserError
from course.layout import CheckerError, TestFolder
from grader.outcome import Outcome, Phase
from grader.pack import PackError, files_to_pack, pack
from grader.process import show_progress
from grader.report import say, show_errors, show_phases
from grader.sandbox import why_no_sandbox
from grader.session import TestResult, check_answer
from grader.session import grade as grade_of
from grader.staging import LIMITS, Submission

SCRIPT = Path(run_tests.__file__)
PATIENCE = 600  # seconds: what never ends fails, what a busy machine slows down does not
OK, ERROR = "Ok, accuracy 1.0000", "Runtime error"
TEST = TestFolder(Path("00_test_img_input"))


@pytest.fixture
def course(tmp_path):
    """A test, and the submission "good"."""
    make_test(tmp_path / "tests")
    HABITS["good"].write(tmp_path / "good")
    return tmp_path


@pytest.fixture
def main(capsys):
    """Call the script's main function; returns the status, the lines, and stderr."""

    def main(*words):
        try:
            status = run_tests.main(list(map(str, words)))
        except SystemExit as stop:  # argparse's
            status = stop.code
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err.strip()

    return main


@pytest.fixture
def grade(course, main):
    """Grade the submission "good", or another."""

    def grade(*options, habit=None):
        folder = habit.write(course / secrets.token_hex(4)) if habit else course / "good"
        return main(course / "tests", "--submission", folder, *options)

    return grade


def call(*words, script=SCRIPT, options=(), **environment):
    """Run the script in a process of its own; returns its status, its lines, and stderr."""
    done = subprocess.run(
        [sys.executable, *options, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def statuses_of(tests):
    return [entry["status"] for entry in json.loads((tests / "results.json").read_text())]


# ---- a whole run in a process of its own, with all that it writes ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two tests; all photos get the same class."""
    folder = tmp_path_factory.mktemp("whole")
    make_test(folder / "tests")
    make_test(folder / "tests", "01_hidden", photos=4, prefix="hidden")
    species = 'class_id,name\n0,"Wren, Winter"\n3,Robin\n'
    (folder / "tests" / "species.csv").write_text(species, encoding="utf-8-sig")  # as Excel does
    rows = "import reading, utils.names\nfor i in range(9):\n    print('row', i)"
    files = {"reading.py": "", "utils/names.py": "", "unused.py": "", "notes.txt": "mine"}
    Habit(top=rows, answer="photo.name: 3", files=files).write(folder / "code")
    words = [folder / "tests", "--submission", folder / "code", "--require", "0.25"]
    words += ["--json", folder / "all.json", "--pack", folder / "upload.zip"]
    status, lines, errors = call(*words, options=["-X", "importtime"])
    return SimpleNamespace(folder=folder, status=status, lines=lines, errors=errors)


def test_a_passing_run(whole):
    tests = whole.folder / "tests"
    times = [f"{entry['time']:.2f}" for entry in json.loads((tests / "results.json").read_text())]
    assert [line for line in whole.lines if line[:1] in "01M" and line != "Model"] == [
        f"00 {times[0]}s Ok, accuracy 0.2500",
        f"01 {times[1]}s Ok, accuracy 0.2500",
        "Misclassified in test 01: 3 photos",
        "Mark: 0 0.2500",
    ]
    assert "   hidden_0.png  Wren, Winter  Robin" in whole.lines
    assert whole.lines[-1] == "Mark: 0 0.2500"
    assert whole.status == 0
    assert all(line.startswith("import time:") for line in whole.errors.splitlines())
    output = (tests / "01_hidden_check" / "output" / "output.csv").read_text().splitlines()
    assert output[:2] == ["filename,class_id", "hidden_0.png,3"]
    gt = (tests / "01_hidden_check" / "gt" / "gt.csv").read_bytes()
    assert gt == (tests / "01_hidden_gt" / "gt.csv").read_bytes()
    # The end of what it printed, such as how many photos it could not read.
    shown = [line for line in whole.lines if line.startswith("   | ")]
    assert shown == ["   | row 6", "   | row 7", "   | row 8"] * 2


def test_json_report(whole):
    content = json.loads((whole.folder / "all.json").read_text())
    assert (content["mark"], content["description"]) == (0, "0.2500")
    first = content["tests"][0]
    assert (first["correct"], first["total"], len(first["misclassified"])) == (2, 8, 6)
    assert first["misclassified"][0] == ["photo_0.png", 0, 3]
    assert [phase["name"] for phase in first["phases"]] == ["import", "fast_train", "classify"]
    assert all(phase["verdict"] == "ok" for phase in first["phases"])
    assert all(phase["peak"] > 8 * 2**20 for phase in first["phases"])  # a Python, not bwrap
    assert first["warnings"] == ["all 8 photos got the same class, 3"]
    assert "portable" in first["layers"][0]


def test_what_the_code_imports_from_its_folder_is_packed_and_named(whole):
    names = ["solution.py", "birds_model.pt", "reading.py", "utils/names.py"]
    assert any(line.endswith(f"MB, {', '.join(names)}") for line in whole.lines)
    with zipfile.ZipFile(whole.folder / "upload.zip") as archive:
        assert archive.namelist() == names
        code = (whole.folder / "code" / "solution.py").read_bytes()
        assert archive.read("solution.py") == code
        times = {member.date_time for member in archive.infolist()}
    assert times == {(1980, 1, 1, 0, 0, 0)}, "the same files make the same archive"


def test_the_grader_never_imports_torch_nor_what_draws(whole):
    """It starts at once, and what it takes of memory is the submission's."""
    modules = {line.rpartition("|")[2].strip() for line in whole.errors.splitlines()}
    assert "grader.session" in modules
    assert not {"torch", "rich", "matplotlib", "jinja2"} & modules


# ---- what fails, and what must not be taken for a pass ----


def test_a_failing_run_prints_the_traceback_and_exits_with_1(course, grade):
    write = "open('/etc/x', 'w')"
    habit = Habit(top="print('x\\n' * 20_000, 'loading the weights')", classify=write)
    status, lines, _ = grade(habit=habit)
    assert (status, lines[:2]) == (1, ["00 Runtime error", "Traceback (most recent call last):"])
    assert "OSError: [Errno 30] Read-only file system: '/etc/x'" in lines
    assert not any("grader>" in line or "run.py" in line for line in lines)
    assert "   Why: a submission must not write files: its folder is read-only there" in lines
    assert "   |  loading the weights" in lines
    assert lines[-1] == "Mark: 0"
    assert json.loads((course / "tests" / "results.json").read_text()) == [{"status": ERROR}]


def test_a_test_that_fails_counts_whatever_the_last_one_says(course, grade):
    make_test(course / "tests", "01_hidden", photos=4, prefix="hidden")
    habit = Habit(classify="assert not Path(test_img_dir, 'photo_0.png').exists()")
    status, lines, _ = grade(habit=habit)
    assert (status, lines[-1]) == (1, "Mark: 10 1.0000")


def test_a_run_finds_nothing_of_this_machine(course, grade, monkeypatch):
    """No accelerator, no pretrained weights, no files."""
    devices = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    for name in devices[:2]:
        monkeypatch.setenv(name, "0")
    for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, str(course))
    asks = f"""
    assert not any(map(os.environ.get, {devices}))
    ours = ("HF_", "TORCH", "XDG_", "TIMM", "PYTHON")
    assert not [n for n in os.environ if n.startswith(ours) and n != "PYTHONUSERBASE"]
    assert not os.path.exists(os.path.expanduser("~/.cache"))
    assert os.listdir() == os.listdir(os.environ["TMPDIR"]) == []
    """
    status, lines, _ = grade(habit=Habit(top=asks))
    assert (status, lines[-1]) == (0, "Mark: 10 1.0000"), lines


def test_an_old_answer_is_not_graded_again(course, grade):
    output = course / "tests" / "00_test_img_check" / "output"
    output.mkdir(parents=True)
    shutil.copy(course / "tests" / "00_test_img_gt" / "gt.csv", output / "output.csv")
    assert grade(habit=HABITS["os._exit"])[0] == 1
    assert list(output.iterdir()) == []


def test_true_labels_of_an_old_run_are_not_checked_with(course, grade):
    old = course / "tests" / "00_test_img_check" / "gt"
    shutil.copytree(course / "tests" / "00_test_img_gt", old)
    (course / "tests" / "00_test_img_gt" / "gt.csv").unlink()
    status, _, errors = grade()
    assert (status, statuses_of(course / "tests"), errors) == (1, ["Checker error"], "")


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("gt/gt.csv", None, "no file"),
        ("gt/gt.csv", "filename,class_id\n", "holds no row"),
        ("gt/gt.csv", "filename,class_id\nowl.png,1\n", "names owl.png, which is no file in"),
        ("input/train/gt.csv", None, "no file"),
        ("input/train/gt.csv", "filename;class_id\nphoto_0.png;1\n", "its header must be"),
    ],
)
def test_a_fault_of_the_test_is_not_told_as_the_submissions(course, grade, file, text, fault):
    path = course / "tests" / f"00_test_img_{file}"
    path.unlink()
    if text is not None:
        path.write_text(text)
    status, lines, _ = grade()
    told = " ".join(line.strip() for line in lines)
    assert status == 1
    assert "Why: the test itself is at fault, not the submission" in told
    assert fault in told
    assert str(path) in told
    assert "python public_data/prepare.py" in told
    assert "let classify return" not in told


def test_below_a_required_accuracy_it_fails_and_is_not_packed(course, grade):
    path, constant = course / "upload.zip", Habit(answer="photo.name: 3")
    status, lines, _ = grade("--require", "0.2501", "--pack", path, habit=constant)
    assert status == 1
    assert "Failed: 0.2500 is below the required 0.2501" in lines
    assert not path.exists()


def test_another_model_file_and_code_in_a_place_that_the_box_hides(course, main, monkeypatch):
    """Folders and large files are linked, not copied, so the box has to show theirs."""
    monkeypatch.setattr("grader.staging.LINKED_FROM", 0)
    there = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    files = {"birds_model.pt": None, "helpers/names.py": "own = True"}
    top = "from helpers.names import own"
    helped = Habit(top=top, classify="assert open(model_path).read()", files=files)
    with tempfile.TemporaryDirectory(dir=there) as folder:
        model = shutil.move(course / "good" / "birds_model.pt", folder)
        words = [course / "tests", "--submission", helped.write(Path(folder, "code"))]
        assert main(*words, "--model", model)[0] == 0
        assert main(*words)[0] == 1
        assert main(*words, "--model", course / "none")[0] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("{tests} --submission {tests}", "no solution.py"),
        ("{good} --submission {good}", "no NN_*_input folder"),
        ("{tests} --submission {good} --require 88", "88 is no accuracy"),
        ("{tests} --submission {good} --reproduce", "--holdout"),
        ("{tests} --submission {good} --pack {tests}", "is a folder"),
        ("{good}/in_the_way --submission {good}", "a part of its path is a file"),
        ("--no-such-option", "unrecognized"),
    ],
)
def test_a_wrong_call_exits_with_2_and_one_line(course, main, words, text):
    make_test(course / "good" / "in_the_way")
    (course / "good" / "in_the_way" / "00_test_img_check").write_text("")
    words = words.format(tests=course / "tests", good=course / "good").split()
    status, _, errors = main(*words)
    assert status == 2
    assert text in errors.splitlines()[-1]
    assert not list(course.glob("*/*_check")), "told before the work, not after it"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_results_are_there_whatever_ends_the_run(course, number):
    make_test(course / "tests", "01_hidden")
    folder = HABITS["a classification that never ends"].write(course / "bad")
    results = course / "tests" / "results.json"
    results.write_text('[{"status": "Ok, accuracy 1.0000"}]')
    command = [sys.executable, str(SCRIPT), str(course / "tests"), "--submission", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(course)}, **quiet)
    assert waits_for(lambda: len(json.loads(results.read_text())) == 2)
    process.send_signal(number)
    assert process.wait(PATIENCE) == (-9 if number == signal.SIGKILL else 128 + number)
    assert statuses_of(course / "tests") == [ERROR] * 2


# What a submission may leave behind when the grader is killed: an orphan in a session of its own,
# and a program that has nothing of its parent's environment.
HANGS_WITH_OTHERS = Habit(
    classify="""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    program = [sys.executable, "-c", "import time; time.sleep(300)"]
    subprocess.Popen([*program, os.environ["LC_BIRDS_TEST_RUN"]], env={})
    time.sleep(300)
    """,
)
GRADES = """
import sys
from pathlib import Path
from grader.process import run
from grader.staging import Submission
folder, data = map(Path, sys.argv[2:])
run("classify", Submission.at(folder, use_sandbox=sys.argv[1] == "os"), data, folder)
"""


def waits_for(condition):
    end = time.monotonic() + PATIENCE
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return true


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("layer", ["portable", "os"])
def test_a_killed_grader_leaves_no_process_behind(course, layer):
    if layer == "os" and why_no_sandbox():
        pytest.skip(why_no_sandbox())
    folder = HANGS_WITH_OTHERS.write(course / "bad")
    run, data = secrets.token_hex(8), course / "tests" / "00_test_img_input"
    grader = subprocess.Popen(
        [sys.executable, "-c", GRADES, layer, str(folder), str(data)],
        cwd=SCRIPT.parent,
        env={**os.environ, "LC_BIRDS_TEST_RUN": run, "TMPDIR": str(course)},
        stderr=subprocess.DEVNULL,
    )
    # The grader, the supervisor, the submission's process and two others; two of bwrap's.
    processes = 7 if layer == "os" else 5
    try:
        assert waits_for(lambda: len(processes_of(run)) >= processes), processes_of(run)
        grader.kill()
        grader.wait(60)
        assert waits_for(lambda: not processes_of(run)), processes_of(run)
    finally:
        for process in processes_of(run):
            process.kill()


# ---- what is told ----


def test_the_most_frequent_confusions_are_told_first(capsys):
    truth = {"a.png": 0, "b.png": 1, "c.png": 1, "d.png": 2}
    answer = {"a.png": 2, "b.png": 3, "c.png": 3, "d.png": 2}
    show_errors(TestResult(TEST, Outcome(), answer, truth), {1: "Wren"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Misclassified in test 00: 3 photos"
    assert [line.split() for line in lines[2:]] == [
        ["b.png", "Wren", "class", "3"],
        ["c.png", "Wren", "class", "3"],
        ["a.png", "class", "0", "class", "2"],
    ]


def test_costs_are_told_in_their_units(capsys):
    costs = {"limit": 900, "wall": 100.06, "cpu": 20.0, "peak": 300 * 2**20, "verdict": "ok"}
    show_phases(Outcome(phases=[Phase("classify", **costs)]))
    assert "classify 900 s 100.1 s 20.0 s 300 MiB ok" in " ".join(capsys.readouterr().out.split())


def test_a_phase_that_ran_out_of_time_says_so_in_its_row(grade):
    status, lines, _ = grade("--limit", "import=0.3", habit=Habit(top="time.sleep(60)"))
    assert status == 1
    assert any(line.split()[:1] == ["import"] and line.endswith("over time") for line in lines)


def test_a_refusal_that_was_caught_is_told_with_why_and_what_to_do(grade):
    said = iter(grade(habit=HABITS["the network, as far as it is there"])[1])
    for start in (
        "   !! fast_train: broke the rule 'no internet':",
        "   It was refused, the submission went on and answered. The testing system most",
        "      probably says the same as this run, 'Ok, accuracy 1.0000'.",
        "   Why: the testing system has no internet",
        "   What to do: take it out",
    ):
        assert any(line.startswith(start) for line in said), start


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_a_terminal_shows_how_far_it_is(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    show_progress("00_test_img_input", Phase("classify", 900, 53.2, 40.0))
    say("00 Runtime error")
    clear = "\r\x1b[2K"
    live = f"{clear}00 classify, 53 s of 900 s, CPU 40 s{clear}"
    assert stream.getvalue() == (live if stream.isatty() else "")


# ---- the testing system's own calls ----


def test_checker_mode(course, monkeypatch, main):
    monkeypatch.setattr(run_tests, "ROOT", course / "good")
    monkeypatch.setenv("CHECKER", "1")
    check = course / "01_check"
    data = course / "tests" / "00_test_img_input"
    assert main("run_single_test", data, check / "output")[0] == 0
    shutil.copytree(course / "tests" / "00_test_img_gt", check / "gt")
    (check / "results.json").write_text('[{"time": 1.5, "status": "Ok, accuracy 0.8312"}]')
    for words in ([check], [check, check / "output"]):  # the real script takes two
        assert main("check_test", *words) == (0, ["Ok, accuracy 1.0000"], "")
        status, [line], _ = main("grade", *words)
        assert (status, json.loads(line)) == (0, {"description": "0.8312", "mark": 8})


def test_checker_mode_fails_aloud(course, monkeypatch, main):
    monkeypatch.setattr(run_tests, "ROOT", HABITS["a training that raises"].write(course / "bad"))
    monkeypatch.setenv("CHECKER", "1")
    output = course / "out"
    status, lines, errors = main("run_single_test", course / "tests/00_test_img_input", output)
    assert (status, lines, output.exists()) == (1, [], False)
    assert "ValueError: the loss is not a number" in errors
    assert main("check_test", course)[:2] == (1, [])
    assert main("grade", course)[:2] == (2, [])
    status, lines, errors = main("grade")
    assert (status, lines) == (2, [])
    assert "MODE DATA_DIR OUTPUT_DIR" in errors


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("--pack good/birds_model.pt", "good/birds_model.pt is read by this command"),
        ("--json tests/00_test_img_input/train/images/photo_0.png", "is read by this command"),
        ("--json tests/results.json", "results.json would be written twice"),
        ("--pack large.zip", "large.zip cannot be written: the disk is full"),
    ],
)
def test_an_output_that_would_do_harm_is_told_before_the_work(
    words, cause, course, grade, monkeypatch
):
    def full(path, content):
        if len(content) > 2**20:
            raise OSError(28, "No space left on device", str(path))

    (course / "good/birds_model.pt").write_bytes(bytes(2**20))
    monkeypatch.chdir(course)
    monkeypatch.setattr(Path, "write_bytes", full)
    before = sorted(course.rglob("*"))
    status, lines, error = grade(*words.split())
    assert (status, lines, error.count("\n")) == (2, [], 0), error
    assert cause in error
    assert sorted(course.rglob("*")) == before


# ---- without course data ----


def draw_toys(folder, seed):
    make_test(folder, "00_sketch")


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


def test_without_course_data_the_sample_is_drawn_trained_and_graded(clone, main):
    before, kept = (clone / "birds_model.pt").read_text(), clone / "report" / "sample"
    status, lines, _ = main()
    assert status == 0
    assert lines[0].startswith("No tests in public_data")
    assert "epoch 1" in lines
    assert [line[:2] for line in lines if "s Ok, accuracy" in line] == ["00"]
    text = f"The model and the report of the training are kept in {kept}"
    assert lines[-2:] == ["Mark: 10 1.0000", text]
    assert (clone / "birds_model.pt").read_text() == before
    backbone, tests = (kept / "birds_model.pt").read_text().splitlines(keepends=True)
    assert backbone == before
    assert not Path(tests).exists()
    assert not list((clone / "public_data").iterdir())


def test_the_sample_is_nothing_to_upload(clone, main):
    assert main("--pack", clone / "upload.zip")[0] == 2
    assert not (clone / "upload.zip").exists()


@pytest.mark.slow
def test_a_fresh_clone_earns_a_10_on_its_own_sample(tmp_path):
    for pattern in ("*.py", "*.pt", "*/*.py", "*/*.j2", "*/*.csv"):
        for path in SCRIPT.parent.glob(pattern):
            copy = tmp_path / path.relative_to(SCRIPT.parent)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    before = (tmp_path / "birds_model.pt").read_bytes()
    empty = {"TORCH_HOME": str(tmp_path / "no_cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    status, lines, errors = call(script=tmp_path / "run_tests.py", **empty)
    assert status == 0, errors
    assert lines[-2].startswith("Mark: 10 ")
    assert (tmp_path / "report" / "sample" / "report.html").is_file()
    assert (tmp_path / "birds_model.pt").read_bytes() == before
    assert not list((tmp_path / "public_data").glob("[0-9]*"))


def test_anothers_submission_is_not_trained(clone, course, main):
    """Outside this folder train_full.py is no business of the grader's."""
    status, lines, _ = main("--submission", HABITS["good"].write(course / "other"))
    assert status == 0
    assert any("graded on it as it is" in line for line in lines)
    assert "epoch 1" not in lines


# ---- surroundings that people have; those of all commands: test_environments.py ----


def test_no_folder_for_temporary_files(grade, monkeypatch):
    def none(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    status, _, error = grade()
    assert status == 2
    assert error.endswith("set TMPDIR to one that can")


# ---- what is packed ----


def test_the_archive_is_the_same_every_time(course):
    HABITS["good"].write(course / "again")
    os.utime(course / "again" / "solution.py", (1e9, 1e9))
    (course / "again" / "birds_model.pt").chmod(0o600)
    for name in ("good", "again"):
        submission = Submission.at(course / name)
        files = files_to_pack(submission, [], "solution")
        pack(course / f"{name}.zip", files, submission, [])
    assert (course / "good.zip").read_bytes() == (course / "again.zip").read_bytes()


def test_an_archive_that_does_not_work_alone_is_not_kept(course, grade):
    reads = Habit(top="Path(__file__).with_name('data.txt').open()", files={"data.txt": ""})
    path = course / "upload.zip"
    status, lines, _ = grade("--pack", path, habit=reads)
    assert status == 1
    [line] = [line for line in lines if "not written" in line]
    assert "data.txt" in line
    assert "The archive holds solution.py, birds_model.pt: the code, the model, and what" in line
    assert not path.exists()


def test_the_code_is_named_as_an_edition_of_the_course_does(course, grade):
    """A package with all that is in it."""
    path = course / "upload.zip"
    assert grade("--pack", path, "--as", "solution.py", habit=HABITS["a package"])[0] == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["solution/__init__.py", "birds_model.pt", "solution/net.py"]
    files = files_to_pack(Submission.at(course / "good"), [], "classification")
    assert list(files) == ["classification.py", "birds_model.pt"]


def test_the_projects_own_upload_is_two_files():
    """In the checkout itself, where much else lies beside the code."""
    submission = Submission.at(SCRIPT.parent)
    assert list(files_to_pack(submission, [], "solution")) == ["solution.py", "birds_model.pt"]


def test_imports_are_found_by_reading_the_code(course):
    """What is imported only for the real training is packed, too."""
    files = {
        "nets/__init__.py": "",
        "nets/big.py": "from .parts import blocks\nimport torch, last\n",
        "nets/parts/blocks.py": "import unknown\n",
        "last.py": "not Python\n",
        "unused.py": "",
    }
    train = "if not fast_train:\n    from nets.big import Net"
    folder = Habit(train=train, files=files).write(course / "helped")
    names = list(files_to_pack(Submission.at(folder), [], "solution"))
    assert names[2:] == sorted(files.keys() - {"unused.py"})


@pytest.mark.parametrize("file", ["../outside.py", "/etc/hostname", "link.py"])
def test_what_leads_out_of_the_folder_is_not_packed(course, file):
    (course / "outside.py").write_text("")
    (course / "good" / "link.py").symlink_to(course / "outside.py")
    results = [TestResult(TEST, Outcome(modules=[file]))]
    with pytest.raises(PackError, match="leads out of"):
        files_to_pack(Submission.at(course / "good"), results, "solution")


# ---- the check, the grade, the limits ----


def test_check_counts_rows_of_the_truth_only():
    assert check_answer({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0}) == (1, 2)
    with pytest.raises(CheckerError, match="lacks 'a' and 1 more"):
        check_answer({}, {"b": 1, "a": 1})
    with pytest.raises(CheckerError, match="no row"):
        check_answer({"a": 1}, {})


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_results_file_that_cannot_be_read_is_no_grade(tmp_path, content):
    if content:
        (tmp_path / "results.json").write_text(content)
    text = "is not a list of results" if content else "no such file"
    with pytest.raises(UserError, match=text):
        grade_of(tmp_path)


@pytest.mark.parametrize("change", ["clasify=60", "classify=0", "classify", "classify=nan"])
def test_limits_are_the_assignments_and_a_wrong_one_is_refused(change, capsys):
    assert LIMITS["fast_train"] == LIMITS["classify"] == 15 * 60
    with pytest.raises(SystemExit, match="2"):
        run_tests.parse(["--limit", change])
    assert "argument --limit" in capsys.readouterr().err
