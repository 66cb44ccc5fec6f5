"""Does a decoder of the published size keep its deadline, minute after minute?

Exports a random 1.3M model and runs ``poyo-edge bench --load`` on it in a fresh process. Below FP32
the R² gate of ``build`` is left out, since random weights decode nothing: use it for times only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from intake import random_artifact
from parts.environment import describe, environment
from parts.script import run, say

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.export.parity.windows import feeds, synthetic_windows
from poyo_edge.runtime.backends import openvino_version
from poyo_edge.runtime.backends.kernel_library import compile_library, find_library
from poyo_edge.runtime.backends.ort_native import NAME as NATIVE
from poyo_edge.runtime.backends.ov.backend import PRECISIONS, OpenVinoBackend
from poyo_edge.runtime.backends.ov.precision import CpuPrecision
from poyo_edge.runtime.core import Core

_CLI = "from poyo_edge.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", type=float, default=5000, help="spikes per second")
    parser.add_argument("--rate", type=float, default=100, help="values per second")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="below: OpenVINO")
    parser.add_argument(
        "--backend", choices=("ort-cpu", "ort-native"), default="ort-cpu", help="in fp32"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--png", type=Path, help="draw the latencies into this file")
    words = parser.parse_args()
    print(describe(environment(words.threads)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if words.backend == NATIVE and find_library() is None:
            compile_library()
        path = random_artifact(Path(folder), words.units)
        if words.precision != "fp32":
            allow(path, words.precision)
        backend = words.backend if words.precision == "fp32" else "openvino"
        say(f"running {words.minutes:g} minutes on {backend} in {words.precision}")
        command = [sys.executable, "-c", _CLI, "bench", str(path), "--backend", backend]
        for name in ("load", "rate", "minutes", "threads", "png"):
            value = getattr(words, name)
            command += [] if value is None else [f"--{name}", str(value)]
        if subprocess.run(command).returncode:
            raise BackendError(f"bench: expected figures, got none from: {' '.join(command)}")


def allow(path: Path, precision: str) -> None:
    """Let the artifact use a precision that nobody has measured R² of."""
    artifact = Artifact.open(path)
    core, ranges = artifact.read(CORE), dict[str, float]()
    if precision == "int8":
        session = artifact.session(next(iter(artifact.session_files())))
        constants = Core.open(artifact, backend="ort-cpu").constants(
            session.unit_embedding, session.session_embedding
        )
        windows = synthetic_windows(artifact.manifest.spec, len(constants.unit_kv))
        ranges = OpenVinoBackend.calibrate(core, [feeds(constants, [one]) for one in windows])
    CpuPrecision(
        core_sha256=artifact.manifest.files[CORE].sha256,
        backend="openvino",
        version=openvino_version(),
        precision=precision,
        recording="none: random weights",
        n_windows=0,
        r2_fp32=0.0,
        r2=0.0,
        speedup=float(np.nextafter(1, 2)),
        ranges=ranges,
    ).save(path)


if __name__ == "__main__":
    run(main)
