"""The C library beside Python's decoder: latency of a window, memory of a process, differences.

Both decode the same random stream in blocks that take turns, each on ONNX Runtime's CPU: Python the
artifact, C its session frozen. Latencies are those that the decoders state (call to result).
Memory is that of a process of its own that has decoded 2,000 windows: what is resident, and what of
it no file holds (the rest are pages of libraries, which processes share and the system may drop).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from intake import random_artifact
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Artifact
from poyo_edge.errors import CheckFailedError
from poyo_edge.export import freeze_session
from poyo_edge.runtime import Decoder, DecoderSettings
from poyo_edge.runtime.health import HealthSettings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.native import building  # noqa: E402
from helpers.native.calling import NativeDecoder, onnxruntime_library  # noqa: E402

STEP_S, BLOCK = 0.02, 250
N_UNITS = 100
"""Of the random model."""
WARM_SPIKES = (2048, 1024)
"""Sizes of windows that memory is held for, besides the largest."""
_PYTHON = """
import sys
import numpy as np
from poyo_edge.runtime import Decoder
decoder = Decoder.open(sys.argv[1], session=sys.argv[2], backend="ort-cpu")
rng = np.random.default_rng(0)
for i in range(2000):
    decoder.push(np.sort(i * 0.02 + rng.uniform(0, 0.02, 20)), rng.integers(0, 10, 20))
    decoder.decode((i + 1) * 0.02)
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(lines["VmRSS"].split()[0], lines["RssAnon"].split()[0])
"""


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "artifact", type=Path, nargs="?",
        help="NAME.poyo; left out, a random 1.3M model is exported (needs torch_brain)",
    )  # fmt: skip
    parser.add_argument("--session", help="a file or an id; default: the only one")
    parser.add_argument("--windows", type=int, default=20_000, help="of each")
    parser.add_argument("--rate", type=float, default=480.0, help="spikes per second")
    parser.add_argument("--onnxruntime", type=Path, help="C's; default: the one that Python uses")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    expect(building.CC is not None, "expected a C compiler, got none")
    library = arguments.onnxruntime or onnxruntime_library()
    expect(library is not None, "expected libonnxruntime in the installed onnxruntime, got none")
    assert library is not None
    with tempfile.TemporaryDirectory() as folder:
        if arguments.artifact is None:
            arguments.artifact = random_artifact(Path(folder), N_UNITS)
        frozen = Path(folder) / "frozen.onnx"
        session = Artifact.open(arguments.artifact).session(arguments.session)
        freeze_session(arguments.artifact, session, frozen)
        saved = Path(folder) / "x.session"
        session.save(saved)
        native = building.build_library(Path(folder) / "libpoyoedge.so")
        found = timed(arguments, session, frozen, native, library)
        say("memory of processes")
        found["memory_mb"] = memory(Path(folder), arguments.artifact, saved, frozen, library)
        found["file_mb"] = {
            "libpoyoedge": native.stat().st_size / 1e6,
            "libonnxruntime": library.stat().st_size / 1e6,
            "frozen": frozen.stat().st_size / 1e6,
        }
    rows = [[name, *(round(float(v), 3) for v in found[name].values())] for name in ("python", "c")]
    print(markdown(["decoder", *found["c"]], rows))
    held = [[name, *(f"{v:.1f}" for v in mb)] for name, mb in found["memory_mb"].items()]
    print("\n" + markdown(["memory of", "resident MB", "of it in no file"], held))
    print(
        f"\nlargest difference {found['largest_difference_sd']:.1e} sd in {found['windows']} "
        f"windows; statuses and counters equal; files in MB: {found['file_mb']}"
    )
    print(describe(environment(1)))
    if arguments.json:
        write_json(arguments.json, {**found, "environment": environment(1)})


def timed(
    arguments: argparse.Namespace, session: Any, frozen: Path, native: Path, library: Path
) -> dict[str, Any]:
    """Latencies and differences of the two on one stream."""
    off = DecoderSettings(health=HealthSettings(verify_s=None, horizon_s=1e9))
    python = Decoder.open(arguments.artifact, session=session, backend="ort-cpu", settings=off)
    rng, n_units = np.random.default_rng(0), len(python.unit_ids)
    latencies: dict[str, list[float]] = {"python": [], "c": []}
    values: dict[str, list[Float64]] = {"python": [], "c": []}
    with NativeDecoder(native, frozen, library) as c:
        for first in range(0, arguments.windows, BLOCK):
            chunks = []
            for i in range(first, min(first + BLOCK, arguments.windows)):
                n = int(rng.poisson(arguments.rate * STEP_S))
                times = np.sort(i * STEP_S + rng.uniform(0, STEP_S, n))
                chunks.append(
                    (times, rng.integers(0, n_units, n).astype(np.int32), (i + 1) * STEP_S)
                )
            said: dict[str, list[tuple[str, frozenset[str], int]]] = {"python": [], "c": []}
            sides = ("python", "c") if first // BLOCK % 2 else ("c", "python")
            for side in sides:
                decoder: Any = python if side == "python" else c
                for times, rows, t in chunks:
                    decoder.push(times, rows)
                    result = decoder.decode(t)
                    latencies[side].append(result.latency_ns / 1e6)
                    values[side].append(result.value)
                    said[side].append(
                        (str(result.status), frozenset(result.flags), result.n_spikes)
                    )
            expect(said["c"] == said["python"], "expected equal statuses, got others")
            say(f"{first + len(chunks)} of {arguments.windows} windows")
        expect(c.counters() == python.stats()["counters"], "expected equal counters, got others")
    ours, theirs = np.array(values["python"]), np.array(values["c"])
    sd = ours.std(0)
    points = {"p50 ms": 50, "p99 ms": 99, "p99.9 ms": 99.9, "max ms": 100}
    return {
        "windows": len(ours),
        "largest_difference_sd": float((np.abs(ours - theirs) / sd).max()),
        **{
            side: {name: float(np.percentile(times, p)) for name, p in points.items()}
            for side, times in latencies.items()
        },
    }


def memory(
    folder: Path, artifact: Path, session: Path, frozen: Path, library: Path
) -> dict[str, list[float]]:
    """Megabytes resident, and of these in no file, in processes that decode and do nothing else."""
    program = folder / "soak"
    building.run([
        str(building.CC), *building.DIALECT, "-O2", *building.SOURCES,
        building.STAND_INS / "soak.c", "-o", program, *building.LIBRARIES,
    ])  # fmt: skip
    said = building.run([sys.executable, "-c", _PYTHON, artifact, session])
    found = {"python": [int(kib) / 1024 for kib in said.split()]}
    for warm in (0, *WARM_SPIKES):
        said = building.run([program, library, frozen, frozen, "2000", "0", str(warm)])
        _, resident, _, _, private = map(int, said.split())
        name = f"c, warm_spikes = {warm}" if warm else "c"
        found[name] = [resident / 1024, private / 1024]
    return found


def expect(fine: bool, sentence: str) -> None:
    """Raise ``CheckFailedError`` unless it is so."""
    if not fine:
        raise CheckFailedError(sentence)


if __name__ == "__main__":
    run(main)
