"""How fast `classify` is: against a textbook, other engines, and what the processor allows.

    python benchmarks/classify_speed.py IMG_DIR [--model birds_model.pt] [--rounds 5] [--out DIR]

End to end (decode, transform, network) on one folder, imports excluded, the contestants in turns;
prints medians and ratios, and with --out draws them as DIR/classify_speed.png. The floor is the
network's operations over the measured rate of a large float32 matrix product on the same threads,
plus the decoding of the files. The last line is a process of its own: import, model, one photo.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import references
import textbook

import solution
from grader.protocol import written
from reporting import charts

ROOT = Path(solution.__file__).parent


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


def first_answer(model: Path, photo: Path) -> float:
    """Seconds from the import of `solution` to the answer for one photo, in a new process."""
    program = (
        "import sys, time; start = time.perf_counter(); import solution\n"
        "classifier = solution.load_classifier(sys.argv[1])\n"
        "list(classifier.answers([solution.Path(sys.argv[2])]))\n"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", program, str(model), str(photo)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def contestants(model: Path, folder: Path) -> dict[str, Callable[[], dict[str, int]]]:
    """What is compared, by name; each answers for the whole folder."""
    classifier = solution.load_classifier(model)
    graph = references.to_onnx(classifier.checkpoint)
    engines = {
        "ONNX Runtime": references.onnx_runtime(graph),
        "OpenVINO": references.open_vino(graph),
    }
    return {
        "textbook": lambda: textbook.classify(model, folder),
        "solution": lambda: solution.classify(model, folder),
    } | {
        name: lambda network=network: references.classify(network, classifier, folder)
        for name, network in engines.items()
    }


def logits_difference(model: Path, folder: Path) -> float:
    """Greatest difference of a logit from ONNX Runtime's, on the first photos of a folder."""
    classifier = solution.load_classifier(model)
    network = references.onnx_runtime(references.to_onnx(classifier.checkpoint))
    photos = solution.list_photos(folder)[: references.BATCH]
    ours = torch.stack([logits for _, logits in classifier.answers(photos)])
    return (ours - torch.from_numpy(network(references.inputs(classifier, photos)))).abs().max()


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("img_dir", type=Path, metavar="IMG_DIR")
    parser.add_argument("--model", type=Path, default=ROOT / "birds_model.pt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="DIR")
    options = parser.parse_args()
    paths = solution.list_photos(options.img_dir)
    classifier = solution.load_classifier(options.model)
    amount = operations(len(classifier.class_ids), classifier.side) * len(paths)
    work = contestants(options.model, options.img_dir)
    answers = [call() for call in work.values()]  # the first run warms up
    times: dict[str, list[float]] = {name: [] for name in (*work, "decoding alone", "floor")}
    for _ in range(options.rounds):
        for name, call in work.items():
            times[name].append(seconds(call))
        decoding = seconds(lambda: [solution.read_photo(path, classifier.side) for path in paths])
        times["decoding alone"].append(decoding)
        times["floor"].append(amount / peak_rate() + decoding)
    rates = {name: len(paths) / statistics.median(values) for name, values in times.items()}
    print(f"{len(paths)} photos, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, rate in rates.items():
        against = "   ".join(f"{rate / rates[other]:6.2f}" for other in ("textbook", "solution"))
        print(f"{name:<15} {rate:7.1f} photos/s   {against}")
    print(f"same answers from all: {'yes' if all(a == answers[0] for a in answers) else 'no'}")
    print(f"logits differ by at most {logits_difference(options.model, options.img_dir):.1e}")
    print(f"import and first answer: {first_answer(options.model, paths[0]):.1f} s")
    if options.out:
        draw(
            {name: rate for name, rate in rates.items() if name in work or name == "floor"},
            options.out,
        )


def draw(rates: dict[str, float], folder: Path) -> None:
    """Write the bar chart."""
    picture = charts.bars("classify_speed", rates, "photos a second, end to end")
    with written(folder / f"{picture.name}.{picture.kind}") as temporary:
        temporary.write_bytes(picture.image)


if __name__ == "__main__":
    main()
