"""Does an engine say on this machine what the FP32 core says? Without torch and onnx."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import CheckFailedError
from poyo_edge.export.parity.windows import (
    Window,
    causal_windows,
    feeds,
    predict,
    synthetic_windows,
)
from poyo_edge.metrics import r2_per_dim
from poyo_edge.recording import Recording
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.spec import ModelSpec, OutputScale

LIMIT_SD = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.1}
"""Largest root mean square error, in sd of the output. The square of it is the R² that an error
costs which has nothing to do with behaviour."""
LIMIT_WORST_SD = {precision: 10 * limit for precision, limit in LIMIT_SD.items()}
LIMIT_R2 = 0.001
"""Most R² that may be lost on a recording."""
_CALIBRATION_WINDOWS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineParity(JsonRecord):
    """How far an engine is from the FP32 core, errors in the model's scale."""

    precision: str
    n_windows: int
    output_sd: float
    rms: float
    p99: float
    worst: float
    worst_window: str
    r2_core: float | None
    """On the recording, if one was given."""
    r2_engine: float | None

    @property
    def r2_lost(self) -> float | None:
        """What the engine costs; negative when it happens to decode better."""
        if self.r2_core is None or self.r2_engine is None:
            return None
        return self.r2_core - self.r2_engine

    def problems(self) -> list[str]:
        """What is beyond its limit; a NaN is beyond every limit."""
        limits = [
            ("rms error", self.rms, LIMIT_SD[self.precision] * self.output_sd),
            ("worst error", self.worst, LIMIT_WORST_SD[self.precision] * self.output_sd),
        ]
        if self.r2_lost is not None:
            limits.append(("R² lost", self.r2_lost, LIMIT_R2))
        return [
            f"{name}: expected at most {limit:.2e}, got {value:.2e}"
            for name, value, limit in limits
            if not value <= limit
        ]

    def require(self, what: str, do: str) -> None:
        """Raise when something is beyond its limit.

        Raises:
            CheckFailedError: says what, and on which window.
        """
        if problems := self.problems():
            raise CheckFailedError(
                f"{what}: {'; '.join(problems)} (output sd {self.output_sd:.3g}, worst on "
                f"{self.worst_window}); {do}"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """What engines are tried on: a session, windows of every size, and perhaps a recording."""

    spec: ModelSpec
    output: OutputScale
    constants: SessionConstants
    windows: tuple[Window, ...]
    recorded: tuple[Window, ...] = ()
    truth: npt.NDArray[np.float64] | None = None
    """(recorded windows, O) in behaviour units."""
    calibration: tuple[Window, ...] = ()
    """Of the same recording's train split, where a precision is calibrated."""

    @classmethod
    def prepare(
        cls,
        spec: ModelSpec,
        output: OutputScale,
        constants: SessionConstants,
        buckets: Sequence[int],
        most_spikes: int,
    ) -> Trial:
        """Windows of no spikes, one, and up to every bucket's edge."""
        edges = {0, 1, 100, *buckets, *(n + 1 for n in buckets), *(n // 2 for n in buckets)}
        counts = sorted(n for n in edges if n <= most_spikes)
        windows = synthetic_windows(spec, len(constants.unit_kv), counts)
        return cls(spec=spec, output=output, constants=constants, windows=tuple(windows))

    def with_recording(
        self, recording: Recording, rows: npt.NDArray[np.int32], behavior: str, split: str
    ) -> Trial:
        """The same, with the samples of a split of a recording."""
        windows, truth = causal_windows(recording, rows, behavior, self.spec, split=split)
        return dataclasses.replace(self, recorded=tuple(windows), truth=truth)

    def with_calibration(
        self, recording: Recording, rows: npt.NDArray[np.int32], behavior: str
    ) -> Trial:
        """The same, with some windows of the recording's train split."""
        windows, _ = causal_windows(
            recording, rows, behavior, self.spec, split="train", most=_CALIBRATION_WINDOWS
        )
        return dataclasses.replace(self, calibration=tuple(windows))

    def compare(self, reference: Backend, candidate: Backend, precision: str) -> EngineParity:
        """Run every window through both."""
        want, got = (self._all(backend) for backend in (reference, candidate))
        rows = np.concatenate([window.reshape(-1, self.spec.dim_out) for window in want])
        errors = [np.abs(a - b).max() for a, b in zip(want, got, strict=True)]
        every = np.concatenate([np.abs(a - b).ravel() for a, b in zip(want, got, strict=True)])
        worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
        window = (*self.windows, *self.recorded)[worst]
        r2 = [self._r2(out[len(self.windows) :]) for out in (want, got)]
        return EngineParity(
            precision=precision,
            n_windows=len(want),
            output_sd=float(rows.std(0).mean()),
            rms=float(np.sqrt(np.mean(every**2))),
            p99=float(np.percentile(every, 99)),
            worst=float(errors[worst]),
            worst_window=f"a {window.kind} window of {len(window.time)} spikes",
            r2_core=r2[0],
            r2_engine=r2[1],
        )

    def _all(self, backend: Backend) -> list[npt.NDArray[np.float32]]:
        alone = [backend.run(feeds(self.constants, [window]))[0] for window in self.windows]
        if not self.recorded:
            return alone
        return [*alone, *predict(backend, self.constants, self.recorded)]

    def _r2(self, predictions: Sequence[npt.NDArray[np.float32]]) -> float | None:
        if self.truth is None:
            return None
        scale, offset = self.output.arrays(self.spec.dim_out)
        decoded = np.stack([row[0] for row in predictions]).astype(np.float64) * scale + offset
        if not np.isfinite(decoded).all():
            return float("nan")
        return float(r2_per_dim(self.truth, decoded).mean())
