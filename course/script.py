"""The course's script: what the testing system runs, step by step.

The grader lays it beside the code, as `run.py`, and starts it with the script's words:

    run.py run_single_test DATA_DIR OUTPUT_DIR

What it announces by `sys.audit` is heard by the hook in grader/rules.py alone. Two modes are the
grader's own: "train" saves what `fast_train=False` trains, "classify" does nothing else.
"""

# ruff: noqa: ANN001, ANN201, PTH100, PTH118, PTH120, PTH123, UP031

import os
import sys
from sys import audit


def read_csv(filename):
    """Return class ids by file name, as the course's script reads them."""
    with open(filename) as file:
        rows = [line.rstrip("\n").split(",") for line in file.readlines()[1:]]
    return {name: int(class_id) for name, class_id in rows}


def save_csv(answer, filename):
    """Write class ids by file name, as the course's script writes them."""
    with open(filename, "w") as file:
        print("filename,class_id", file=file)
        for name in sorted(answer.keys()):
            print("%s,%d" % (name, answer[name]), file=file)


def run_single_test(data_dir, output_dir, with_training=True):
    """Train, drop the result, classify, write the answer."""
    audit("grader.phase", "import")
    from solution import classify, train_classifier

    if with_training:
        train_gt = read_csv(os.path.join(data_dir, "train", "gt.csv"))
        train_images = os.path.join(data_dir, "train", "images")
        audit("grader.phase", "fast_train")
        if train_classifier(train_gt, train_images, fast_train=True) is None:
            audit("grader.warning", "train_classifier returns None; the assignment wants a network")
    audit("grader.phase", "classify")
    code_dir = os.path.dirname(os.path.abspath(__file__))
    model_path = os.path.join(code_dir, "birds_model.pt")
    answer = classify(model_path, os.path.join(data_dir, "test", "images"))
    audit("grader.phase", "answer")
    save_csv(answer, os.path.join(output_dir, "output.csv"))


def train(data_dir, output_dir):
    """Train in full and save the network, as the submission turns it into a checkpoint."""
    audit("grader.phase", "import")
    import solution

    train_gt = read_csv(os.path.join(data_dir, "train", "gt.csv"))
    train_images = os.path.join(data_dir, "train", "images")
    audit("grader.phase", "train")
    network = solution.train_classifier(train_gt, train_images, fast_train=False)
    settings = [solution.Settings()] if hasattr(solution, "Settings") else []
    checkpoint = solution.to_checkpoint(network, *settings)
    audit("grader.phase", "save")
    sys.modules["torch"].save(checkpoint, os.path.join(output_dir, "birds_model.pt"))


def main(mode, data_dir, output_dir):
    """Run one mode; an exception that leaves it is a runtime error."""
    try:
        if mode == "train":
            train(data_dir, output_dir)
        else:
            run_single_test(data_dir, output_dir, with_training=mode != "classify")
    except BaseException as error:
        audit("grader.failure", error)
        raise
    audit("grader.phase", "exit")


if __name__ == "__main__":
    main(*sys.argv[1:])
