"""The tiny run as a command: streams first and Lightning after, as in `python -m coursework`.

`python -m tests.coursework_command wait OUT` stands still in its third epoch; `two OUT` is the run
in two processes.
"""

import sys
import time
from pathlib import Path

from course.cli import run


def main() -> None:
    from coursework.engine import Training, train_all
    from tests.coursework_helpers import plain_run, tiny_run

    def wait(training):
        start(training)
        if training.current_epoch == 2:
            print("waiting", flush=True)
            time.sleep(300)

    kind, out = sys.argv[1:]
    tiny, flags, start = tiny_run(), {"accelerator": "cpu"}, Training.on_train_epoch_start
    if kind == "two":
        tiny, flags = plain_run(), flags | {"devices": 2, "strategy": "ddp"}
    else:
        Training.on_train_epoch_start = wait
    train_all("tiny", [tiny], Path(out), flags)


if __name__ == "__main__":
    run(main, "Interrupted.")
