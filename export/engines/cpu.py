"""``build --target cpu``: does the graph made for it agree, and may OpenVINO use BF16 or INT8?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poyo_edge.errors import CheckFailedError, MissingExtraError, UsageError
from poyo_edge.export.parity.engine import EngineParity, Trial
from poyo_edge.export.parity.windows import Window, feeds
from poyo_edge.runtime.backends import Backend, openvino_version
from poyo_edge.runtime.backends.ov.backend import OpenVinoBackend
from poyo_edge.runtime.backends.ov.precision import LIMIT_R2, CpuPrecision
from poyo_edge.runtime.constants import SessionConstants

BACKEND = "openvino"
_TIMED = 40
"""Windows to time, of those that were compared just before."""


def approve_precision(
    artifact: Path,
    core: bytes,
    core_sha256: str,
    trial: Trial,
    precision: str,
    recording: Path | None,
    exact: Backend,
) -> tuple[CpuPrecision, EngineParity]:
    """Measure a precision on a recording and write the record that allows it.

    Args:
        artifact: the folder to write the record into.
        core: the bytes of ``core.onnx``.
        core_sha256: their hash.
        trial: with the recording's windows, for "int8" those of calibration too.
        precision: "bf16" or "int8".
        recording: where the windows are from.
        exact: what decodes in FP32 on this machine.

    Raises:
        UsageError: no recording to measure on.
        MissingExtraError: OpenVINO is not installed.
        BackendError: this processor does not compute in that precision.
        CheckFailedError: it costs too much R²; nothing is written.
    """
    if recording is None:
        raise UsageError(
            f"precision: expected --recording beside --precision {precision}, got none; a lower "
            f"precision is used only after R² was compared on a recording"
        )
    version = openvino_version()
    if not version:
        raise MissingExtraError("openvino", "openvino", f"{precision} on the CPU")
    ranges = _ranges(core, trial) if precision == "int8" else {}
    lower = OpenVinoBackend(core, threads=1, precision=precision, ranges=ranges)
    parity = trial.compare(exact, lower, precision)
    r2, lost = parity.r2_core, parity.r2_lost
    assert r2 is not None and lost is not None
    if not lost <= LIMIT_R2:
        raise CheckFailedError(
            f"{precision} on {BACKEND}: expected R² lower by at most {LIMIT_R2} on "
            f"{recording.name}, got {lost:.5f} ({r2:.4f} in fp32, {r2 - lost:.4f} in "
            f"{precision}, error {parity.rms / parity.output_sd:.1e} sd of the output); stay "
            f"with fp32"
        )
    record = CpuPrecision(
        core_sha256=core_sha256,
        backend=BACKEND,
        version=version,
        precision=precision,
        recording=recording.name,
        n_windows=len(trial.recorded),
        r2_fp32=r2,
        r2=r2 - lost,
        speedup=speedup(exact, lower, trial.constants, _some(trial)),
        ranges=ranges,
    )
    record.save(artifact)
    return record, parity


def _ranges(core: bytes, trial: Trial) -> dict[str, float]:
    windows = [feeds(trial.constants, [window]) for window in trial.calibration]
    return OpenVinoBackend.calibrate(core, windows)


def _some(trial: Trial) -> Sequence[Window]:
    return trial.recorded[:: max(1, len(trial.recorded) // _TIMED)]


def speedup(
    exact: Backend, other: Backend, constants: SessionConstants, windows: Sequence[Window]
) -> float:
    """How many times faster the second one decodes windows; they take turns.

    Lower quartiles of processor time, of one thread each: what other processes take does not
    count, and how they cool the caches counts little.
    """
    taken = np.empty((len(windows), 2))
    for i, window in enumerate(windows):
        ready = feeds(constants, [window])
        for j, backend in enumerate((exact, other)):
            backend.run(ready)  # a number of spikes that is new costs a preparation once
            started = time.process_time_ns()
            backend.run(ready)
            taken[i, j] = time.process_time_ns() - started
    first, second = np.percentile(taken, 25, axis=0).tolist()
    return round(float(first / max(second, 1.0)), 3)
