"""How fast `classify` is: against a textbook solution, and against what the processor allows.

    python benchmarks/classify_speed.py IMG_DIR [--model birds_model.pt] [--rounds 5]

End to end (decode, transform, network) on one folder, imports excluded, the two in turns; the
medians and their ratio. The floor is the network's operations over the measured rate of a large
float32 matrix product on the same threads, plus the decoding of the files.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import textbook

import solution

MODEL = Path(solution.__file__).with_name("birds_model.pt")


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def operations(classes: int, side: int) -> int:
    """Multiplications and additions of the convolutions and the head, for one photo."""
    network = solution.BirdNet(range(classes)).eval()
    total = 2 * network.head.weight.numel()

    def count(conv: torch.nn.Conv2d, _: tuple, y: torch.Tensor) -> None:
        nonlocal total
        total += 2 * conv.weight[0].numel() * y.numel()

    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    handles = [conv.register_forward_hook(count) for conv in convolutions]
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return total


def peak_rate(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a large float32 matrix product, the best of several."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("img_dir", type=Path, metavar="IMG_DIR")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    classifier = solution.load_classifier(options.model)
    side = classifier.side
    paths = solution.list_photos(options.img_dir)
    amount = operations(len(classifier.class_ids), side) * len(paths)
    work = {
        "textbook": lambda: textbook.classify(options.model, options.img_dir),
        "solution": lambda: solution.classify(options.model, options.img_dir),
        "decode": lambda: [solution.read_photo(path, side) for path in paths],
    }
    times: dict[str, list[float]] = {name: [] for name in (*work, "floor")}
    for _ in range(options.rounds):
        for name, call in work.items():
            times[name].append(seconds(call))
        times["floor"].append(amount / peak_rate() + times["decode"][-1])
    same = work["textbook"]() == work["solution"]()
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{len(paths)} photos, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        ratio = medians["textbook"] / median
        print(f"{name:<9} {median:7.2f} s {len(paths) / median:7.1f} photos/s {ratio:6.2f}x")
    print(f"same answers: {'yes' if same else 'no'}")
    print(f"solution against the floor: {medians['solution'] / medians['floor']:.2f}")


if __name__ == "__main__":
    main()
