"""What does mixed precision cost on real recordings? Emulated (``export/precision/emulation.py``).

For each recording, causally: R² of the FP32 core, what rounding takes from it, and the error in
standard deviations of the output; beside it the same for the naive graph, all in low precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json
from parts.sessions import session_for

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt
from poyo_edge.export.parity.engine import LIMIT_R2
from poyo_edge.export.parity.windows import causal_windows, predict
from poyo_edge.export.precision.accumulation import accumulated
from poyo_edge.export.precision.emulation import emulated
from poyo_edge.export.precision.islands import ISLANDS, Rounding, survey
from poyo_edge.export.precision.mixed import PRECISIONS
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.runtime.core import Core

NOTE = """\
R² lost is that of the FP32 core less that of the emulated graph; negative means that rounding
happened to help. With --sums fp16 every sum is kept in FP16 too, which is a bound. Errors are root
mean squares in sd of the output. A recording whose session the artifact does not know (*) borrows
the embeddings of units with the same last part of their id from the last session that it knows:
for rounding errors, not for decoding."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--behavior", default="", help="GROUP.KEY; default the artifact's")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp16")
    parser.add_argument("--split", default="test")
    parser.add_argument("--most", type=int, default=100_000, help="samples of each recording")
    parser.add_argument(
        "--sums", choices=("fp32", "fp16"), default="fp32", help="fp16: a bound, and slower"
    )
    parser.add_argument("--survey", action="store_true", help="what each kind of nodes costs")
    parser.add_argument("--json", type=Path, help="also write a results file")
    words = parser.parse_args()
    artifact = Artifact.open(words.artifact)
    rows, lines = [], []
    for path in words.recordings:
        say(f"emulating {words.precision} on {path.name}")
        line = measure(artifact, Recording.open(path), words)
        lines.append(line)
        rows.append([
            line["recording"] + ("" if line["known"] else " *"),
            line["n_samples"],
            f"{line['r2']:.4f}",
            f"{line['lost']:+.6f}",
            f"{line['error']:.1e}",
            "none" if line["naive_lost"] is None else f"{line['naive_lost']:+.4f}",
            "none" if line["naive_error"] is None else f"{line['naive_error']:.1e}",
        ])  # fmt: skip
    head = ["recording", "samples", "R² FP32", "R² lost", "error", "naive: lost", "error"]
    found = environment(threads=1)
    print(f"{markdown(head, rows)}\n\n{NOTE}\n")
    for line in lines:
        if line["survey"]:
            names = ["kind", "low_alone", "kept", "island"]
            print(markdown(names, [[k[name] for name in names] for k in line["survey"]]) + "\n")
    print(describe(found))
    write_json(
        words.json, {**found, "precision": words.precision, "sums": words.sums, "lines": lines}
    )
    worst = max(line["lost"] for line in lines)
    if worst > LIMIT_R2:
        raise CheckFailedError(f"R² lost: expected at most {LIMIT_R2}, got {worst:.6f}")


def measure(artifact: Artifact, recording: Recording, words: argparse.Namespace) -> dict[str, Any]:
    """One recording, as JSON values."""
    spec, manifest = artifact.manifest.spec, artifact.manifest
    session, rows, known = session_for(artifact, recording)
    core = Core.open(artifact, backend="ort-cpu")
    constants = core.constants(session.unit_embedding, session.session_embedding)
    behavior = words.behavior or manifest.behavior
    if not behavior:
        raise UsageError(
            "behavior: expected GROUP.KEY, got none, and the artifact does not say what it "
            "decodes; name it with --behavior"
        )
    windows, truth = causal_windows(
        recording, rows, behavior, spec, split=words.split, most=words.most
    )
    reference = predict(core.backend, constants, windows)
    rounding = Rounding(
        proto=fuse_for_tensorrt(onnx.load_from_string(artifact.read(CORE)), spec),
        constants=constants,
        windows=windows,
        reference=reference,
        precision=words.precision,
        emulate=accumulated if words.sums == "fp16" else emulated,
    )
    scale, offset = manifest.output.arrays(spec.dim_out)

    def r2(prediction: npt.NDArray[np.float32]) -> float:
        return float(r2_per_dim(truth, prediction[:, 0].astype(np.float64) * scale + offset).mean())

    def error(prediction: npt.NDArray[np.float32]) -> float:
        rms = np.sqrt(np.mean((prediction - reference) ** 2))
        return float(rms / reference.reshape(-1, spec.dim_out).std(0).mean())

    ours = rounding.predict(ISLANDS)
    try:
        naive = rounding.predict(())
    except CheckFailedError:  # BF16 has no cosine in ONNX
        naive = None
    return {
        "recording": recording.session_id,
        "known": known,
        "n_samples": len(truth),
        "r2": r2(reference),
        "lost": r2(reference) - r2(ours),
        "error": error(ours),
        "naive_lost": None if naive is None else r2(reference) - r2(naive),
        "naive_error": None if naive is None else error(naive),
        "survey": [kind.to_json() for kind in survey(rounding)] if words.survey else [],
    }


if __name__ == "__main__":
    run(main)
