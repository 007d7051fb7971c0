"""The protocol's steps 1 to 4 and nothing else: a stand-in for the course's own script, `run.py`.

The differential test lays it beside a submission and runs it in a read-only box without network:
the grader's verdict is held against what comes of that.
"""

import os
import sys


def read_csv(filename):
    with open(filename) as file:  # noqa: PTH123 - as the course's script does
        rows = [line.rstrip("\n").split(",") for line in file.readlines()[1:]]
    return {name: int(class_id) for name, class_id in rows}


def save_csv(answer, filename):
    with open(filename, "w") as file:  # noqa: PTH123
        print("filename,class_id", file=file)
        for name in sorted(answer.keys()):
            print("%s,%d" % (name, answer[name]), file=file)  # noqa: UP031


def main(module, model, data, output):
    code = __import__(module)
    train_gt = read_csv(os.path.join(data, "train", "gt.csv"))  # noqa: PTH118
    code.train_classifier(train_gt, os.path.join(data, "train", "images"), fast_train=True)  # noqa: PTH118
    save_csv(code.classify(model, os.path.join(data, "test", "images")), output)  # noqa: PTH118


if __name__ == "__main__":
    main(*sys.argv[1:])
