"""The protocol's steps 1 to 4 and nothing else: a stand-in for the course's own script, `run.py`.

The differential test lays it beside a submission and runs it in a read-only box without network:
the grader's verdict is held against what comes of that.
"""

# ruff: noqa: PTH100, PTH118, PTH120, PTH123, UP031

import os
import sys


def read_csv(filename):
    with open(filename) as file:
        rows = [line.rstrip("\n").split(",") for line in file.readlines()[1:]]
    return {name: int(class_id) for name, class_id in rows}


def save_csv(answer, filename):
    with open(filename, "w") as file:
        print("filename,class_id", file=file)
        for name in sorted(answer.keys()):
            print("%s,%d" % (name, answer[name]), file=file)


def run_single_test(data, output):
    from solution import classify, train_classifier

    code = os.path.dirname(os.path.abspath(__file__))
    train_gt = read_csv(os.path.join(data, "train", "gt.csv"))
    train_classifier(train_gt, os.path.join(data, "train", "images"), fast_train=True)
    answer = classify(os.path.join(code, "birds_model.pt"), os.path.join(data, "test", "images"))
    save_csv(answer, os.path.join(output, "output.csv"))


if __name__ == "__main__":
    assert len(sys.argv) == 4
    run_single_test(*sys.argv[2:])
