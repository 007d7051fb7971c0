"""The rules of the testing system, kept by solution.py itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grader.pack import imports

ROOT = Path(__file__).resolve().parents[1]

WATCH = """
import dataclasses, json, sys
events = []
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
          "os.chmod", "os.utime", "shutil.rmtree"}
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}

def hook(event, args):
    if event.startswith("socket.") or event in WRITES | STARTS:
        events.append(event)
    elif event == "open" and (set(str(args[1])) & set("wax+") or (args[2] or 0) & 3):
        events.append(f"open {args[0]} {args[1]} {args[2]}")

sys.path[:] = [sys.argv[1], *(path for path in sys.path if path not in ("", sys.argv[2]))]
gt, folder, model_path, init = json.loads(sys.argv[3])
import solution
import sklearn.model_selection, torchvision.models, torchvision.transforms.v2
sys.addaudithook(hook)
tiny = solution.Settings(
    input_size=64, first_size=64, epochs=1, batch_size=8, unfrozen_blocks=3
)
solution.train_classifier(gt, folder, settings=dataclasses.replace(tiny, weights=init))
solution.train_classifier(gt, folder, True, settings=tiny)
solution.classify(model_path, folder)
import torch
assert solution.__file__.startswith(sys.argv[1])
assert not torch.cuda.is_initialized()
print(json.dumps(events))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the flags of open differ there")
def test_it_stands_alone_and_writes_nothing_opens_no_socket_starts_no_process(
    photos, model_path, init, tmp_path
):
    """Copied into an empty folder, too."""
    (tmp_path / "solution.py").write_bytes((ROOT / "solution.py").read_bytes())
    gt, folder = photos
    arguments = json.dumps([gt, str(folder), str(model_path), str(init)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH, str(tmp_path), str(ROOT), arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_only_allowed_packages_are_imported():
    names = {module.partition(".")[0] for module in imports(ROOT / "solution.py")}
    assert "torchvision" in names
    allowed = {"torch", "torchvision", "timm", "PIL", "numpy", "sklearn"} | sys.stdlib_module_names
    assert names <= allowed
