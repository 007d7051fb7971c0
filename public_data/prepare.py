"""Write the course layout of tests from the photos that you have, or check them.

    python public_data/prepare.py SOURCE [--holdout 0.15] [--out DIR] [--seed N]
    python public_data/prepare.py --check DIR [--json FILE]

README.md beside this file says what SOURCE may be; the work is done in birddata/.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # with `python -P` or -I it is not there

from course.cli import run  # noqa: E402


def main() -> int:
    """Import what takes long, and run."""
    from birddata import prepare

    return prepare.main(out=HERE)


if __name__ == "__main__":
    run(main, "Interrupted: no test is half-written.")
