"""What does a decoding process take: seconds to import and open, memory, files? And an export?

Each side runs in a fresh process that imports, opens the same random model and decodes one window
of 1000 spikes: ours from an artifact with the backends present, and torch_brain from the
checkpoint. The best of several starts counts, since the first ones read from disk.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from intake import random_artifact
from latency import SIZES
from parts.environment import describe, environment
from parts.script import markdown, require, run, say, write_json

from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends import list_backends

_MEASURE = """
import json, sys, time
def mb(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024
started = time.{clock}()
{imports}
imported = time.{clock}()
{open}
opened = time.{clock}()
{decode}
decoded = time.{clock}()
print(json.dumps({{"import_s": imported - started, "open_s": opened - imported,
    "first_s": decoded - opened, "resident_mb": mb("VmRSS"), "peak_mb": mb("VmHWM")}}))
"""
_OURS = {
    "imports": "from poyo_edge.runtime import Decoder\nimport numpy as np",
    "open": "decoder = Decoder.open({path!r}, backend={backend!r})",
    "decode": """
rng = np.random.default_rng(0)
decoder.push(np.sort(rng.uniform(0, 1, 1000)), rng.integers(0, 100, 1000))
decoder.decode(1.0)
""",
}
_TORCH_BRAIN = {
    "imports": "import torch\nfrom torch_brain.models import POYO\n"
    "sys.path.insert(0, {here!r})\nfrom parts.oracle import torch_brain_feeds, torch_brain_model\n"
    "from parts.windows import random_window\nimport numpy as np\n"
    "from poyo_edge.spec import ModelSpec",
    "open": """
torch.set_num_threads(1)
values = torch.load({path!r}, weights_only=False)
spec = ModelSpec.from_json(json.loads({spec!r}))
model = torch_brain_model(spec)
model.load_state_dict(values)
""",
    "decode": """
window = random_window(spec, 100, 1000, np.random.default_rng(0))
feeds = {{k: torch.from_numpy(v) for k, v in torch_brain_feeds(spec, window).items()}}
with torch.inference_mode():
    model(**feeds)
""",
}
CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}
_DEVICE = ("poyo-edge", "numpy", "h5py", "safetensors", "onnxruntime")
_TORCH = ("torch", "torch_brain", "temporaldata", "numpy", "h5py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    words = parser.parse_args()
    require("torch_brain", "train", "the process to compare with")
    where, results = environment(1), []
    print(describe(where))
    for size in words.sizes:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(size, Path(folder), words.starts, words.clock))
    rows = [row for one in results for row in process_rows(one)]
    head = ["process", "import s", "open s", "first window s", "resident MB", "peak MB"]
    print(f"\n{markdown(head, rows)}\n")
    rows = [[f"{one['size']}: {name}", mb] for one in results for name, mb in one["files"].items()]
    rows += [[name, mb] for name, mb in packages().items()]
    print(f"{markdown(['files', 'MB'], rows)}\n")
    rows = [[one["size"], name, f"{s:.1f}"] for one in results for name, s in one["export"]]
    print(markdown(["export", "step", "s"], rows))
    write_json(words.json, {**where, "results": results, "packages": packages()})


def measure(size: str, folder: Path, starts: int, clock: str) -> dict[str, Any]:
    """One model size: export it, start the processes, weigh the files."""
    spec, now = SIZES[size], getattr(time, CLOCKS[clock])
    steps: list[tuple[str, float]] = []

    def on_step(text: str) -> None:
        steps.append((text, now()))
        say(f"{size}: {text}")

    artifact = random_artifact(folder, 100, spec, on_step)
    checkpoint = folder / "random.pt"
    steps.append(("", now()))
    taken = [(name, steps[i + 1][1] - at) for i, (name, at) in enumerate(steps[:-1])]
    here, spec_json = str(Path(__file__).resolve().parent), json.dumps(spec.to_json())
    values = {"clock": CLOCKS[clock], "path": str(checkpoint), "here": here, "spec": spec_json}
    sides = {"torch_brain": script(_TORCH_BRAIN, values)}
    for info in list_backends():
        if info.present:
            ours = values | {"path": str(artifact), "backend": info.name}
            sides[f"poyo-edge {info.name}"] = script(_OURS, ours)
    processes = {}
    for name, source in sides.items():
        say(f"{size}: starting {name}")
        found = [start(source) for _ in range(starts)]
        processes[name] = {key: min(one[key] for one in found) for key in found[0]}
    files = {"checkpoint": checkpoint, "artifact": artifact}
    files |= {f"artifact/{p.name}": p for p in sorted(artifact.glob("*.onnx"))}
    sizes = {name: f"{weight(path):.1f}" for name, path in files.items()}
    return {"size": size, "export": taken, "processes": processes, "files": sizes}


def script(side: dict[str, str], values: dict[str, str]) -> str:
    """The program of a side."""
    parts = {name: part.format(**values) for name, part in side.items()}
    return _MEASURE.format(clock=values["clock"], **parts)


def start(source: str) -> dict[str, float]:
    """Run it in a fresh process.

    Raises:
        BackendError: it failed.
    """
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    if done.returncode:
        raise BackendError(f"process: expected figures, got: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def process_rows(one: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of processes."""
    return [
        [
            f"{one['size']}, {name}",
            *(f"{found[key]:.2f}" for key in ("import_s", "open_s", "first_s")),
            *(f"{found[key]:.0f}" for key in ("resident_mb", "peak_mb")),
        ]
        for name, found in one["processes"].items()
    ]


def weight(path: Path) -> float:
    """Megabytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def packages() -> dict[str, str]:
    """Megabytes of what has to be installed, and of the wheel where pip can build it."""
    found = {
        "installed for poyo-edge on a device": f"{installed(_DEVICE):.0f}",
        "openvino beside that": f"{installed(('openvino',)):.0f}",
        "installed for torch_brain": f"{installed(_TORCH):.0f}",
    }
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(root)]
        if subprocess.run(build, capture_output=True).returncode == 0:
            (wheel,) = Path(folder).glob("*.whl")
            found["wheel of poyo-edge"] = f"{weight(wheel):.2f}"
    return found


def installed(roots: tuple[str, ...]) -> float:
    """Megabytes of these packages and all they require, as installed here."""
    waiting, seen, total = list(roots), set[str](), 0.0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            one = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        paths = [Path(str(one.locate_file(file))) for file in one.files or ()]
        total += sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
        needs = [text for text in one.requires or () if "extra ==" not in text]
        waiting += [re.split(r"[ ;<>=!~\[(]", text, maxsplit=1)[0] for text in needs]
    return total


if __name__ == "__main__":
    run(main)
