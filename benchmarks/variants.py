"""Does each way to run a model on the CPU decode the same? Parity and R² on recordings.

The reference is ``core.onnx`` on ONNX Runtime, which ``export`` has compared with the checkpoint's
own model. For each other variant: the largest error and the root mean square error in standard
deviations of the output, and the R² that it loses, causally on the samples of a split. INT8 is
calibrated on the recording's train split.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json
from parts.sessions import session_for

from poyo_edge.artifact import CORE, CORE_ORT_CPU, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.export.parity.engine import Trial
from poyo_edge.export.parity.windows import feeds
from poyo_edge.recording import Recording
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ov.backend import PRECISIONS, OpenVinoBackend
from poyo_edge.runtime.core import Core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--behavior", default="", help="GROUP.KEY; default the artifact's")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    words = parser.parse_args()
    artifact = Artifact.open(words.artifact)
    rows, lines = [], []
    for path in words.recordings:
        say(f"decoding {path.name}")
        for line in measure(artifact, Recording.open(path), words):
            lines.append(line)
            rows.append([
                line["recording"], line["variant"], f"{line['r2_core']:.4f}",
                f"{line['r2_lost']:+.5f}", f"{line['worst']:.1e}", f"{line['rms']:.1e}",
            ])  # fmt: skip
    head = ["recording", "variant", "R² of core.onnx", "R² lost", "largest error, sd", "rms, sd"]
    found = environment(1)
    print(f"{markdown(head, rows)}\n\n{describe(found)}")
    write_json(words.json, {**found, "lines": lines})


def measure(
    artifact: Artifact, recording: Recording, words: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One line for each variant that this machine can run."""
    manifest = artifact.manifest
    session, rows, _ = session_for(artifact, recording)
    behavior = words.behavior or manifest.behavior
    constants = Core.open(artifact, backend="ort-cpu").constants(
        session.unit_embedding, session.session_embedding
    )
    trial = Trial.prepare(manifest.spec, manifest.output, constants, [128, 1024], 2048)
    trial = trial.with_recording(recording, rows, behavior, words.split)
    trial = trial.with_calibration(recording, rows, behavior)
    core = artifact.read(CORE)
    reference = OrtCpuBackend(core, threads=1)
    for name, backend in variants(artifact, core, trial):
        parity = trial.compare(reference, backend, "fp32")
        yield {
            "recording": recording.path.stem,
            "variant": name,
            "r2_core": parity.r2_core,
            "r2_lost": parity.r2_lost,
            "worst": parity.worst / parity.output_sd,
            "rms": parity.rms / parity.output_sd,
        }


def variants(artifact: Artifact, core: bytes, trial: Trial) -> Iterator[tuple[str, Backend]]:
    """Name and backend of each."""
    if CORE_ORT_CPU in artifact.manifest.files:
        yield "ort-cpu", OrtCpuBackend(artifact.read(CORE_ORT_CPU), threads=1)
    windows = [feeds(trial.constants, [window]) for window in trial.calibration]
    ranges = OpenVinoBackend.calibrate(core, windows)
    for precision in PRECISIONS:
        try:
            backend = OpenVinoBackend(core, threads=1, precision=precision, ranges=ranges)
        except BackendError as problem:  # this processor has no BF16
            say(f"left out: {problem}")
            continue
        yield f"openvino {precision}", backend


if __name__ == "__main__":
    run(main)
