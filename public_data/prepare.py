"""Write the course layout of tests from the photos that you have, or say what is wrong with them.

    python public_data/prepare.py SOURCE [--holdout 0.15] [--out DIR] [--seed N]
    python public_data/prepare.py --check DIR [--json FILE]

README.md beside this file says what SOURCE may be; the work is done in birddata/.
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here.parent))
    from birddata.prepare import main

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up, too
    raise SystemExit(main(out=here))
