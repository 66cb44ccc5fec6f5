"""Which nodes have to stay in FP32: found by measuring, and the outcome kept here with its figures.

The figures in ``ISLANDS`` are from the emulation (``emulation.py``) on five recordings of a
trained model (dim 64, depth 2) and on random weights of the published sizes; ``survey`` and
``find_islands`` measure the same for any core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from poyo_edge.arrays import Float32
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.parity.windows import Window, predict
from poyo_edge.export.precision.emulation import Emulate, EmulatedBackend, emulated
from poyo_edge.export.precision.mixed import Island, mixed_precision
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.constants import SessionConstants

TIME = Island(
    name="time",
    patterns=("spike_time", "query_time", "*_time.angle", "*_time.cos", "*_time.sin"),
    why="angles reach 62,832 rad, where FP16 has steps of 32 rad: alone in FP16 they move the "
    "output by 0.5 of its sd",
)
NORM = Island(
    name="norm",
    patterns=("*norm", "*norm_context"),
    why="sums of squares overflow inside the operator, which emulation cannot see "
    "(NVIDIA/TensorRT issues 2564, 2781, 4493); its inputs must have like types",
)
RESIDUAL = Island(
    name="residual",
    patterns=("*residual", "session_query"),
    why="errors add up along the layers: with it in FP16, 24 layers err 4 times as much",
)
READOUT = Island(
    name="readout",
    patterns=("readout",),
    why="its rounding is the output's: up to a tenth of the error, for one small product",
)
ISLANDS = (TIME, NORM, RESIDUAL, READOUT)


def _kind(name: str, *patterns: str) -> Island:
    return Island(name=name, patterns=patterns, why="found by measuring")


KINDS = (
    *ISLANDS,
    _kind("mask", "encoder.mask.*"),
    _kind("session", "unit_kv", "boundary_lse", "boundary_value"),
    _kind("rotation", "*rotate.*", "*rotate_back.*"),
    _kind("score", "*.score"),
    _kind("softmax", "*attention.weight"),
    _kind("value", "*attention.value", "*.spike_value", "*.boundary_part"),
    _kind("projection", "*.qkv", "*.key_value", "*.query_rows"),
    _kind("output", "*attention.out"),
    _kind("feed forward", "*_forward.value", "*_forward.gate", "*_forward.hidden", "*_forward.out"),
    _kind("gelu", "*.gelu.*"),
)
"""Everything that computes, by what it computes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KindError(JsonRecord):
    """What one kind of nodes costs."""

    kind: str
    low_alone: float
    """Error when it alone is in low precision, in sd of the output."""
    kept: float
    """Error when it is in FP32 beside the islands, and all else in low precision."""
    island: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounding:
    """Measures what rounding does to the output of one core, on fixed windows."""

    proto: onnx.ModelProto
    constants: SessionConstants
    windows: Sequence[Window]
    reference: Float32
    """(windows, Q, O) of the FP32 core."""
    precision: str = "fp16"
    emulate: Emulate = emulated
    """``accumulated`` for sums in FP16."""

    def error(self, islands: Sequence[Island]) -> float:
        """Root mean square error over the output's standard deviation; infinite for NaN."""
        got = self.predict(islands)
        if not np.isfinite(got).all():
            return float("inf")
        spread = self.reference.reshape(-1, self.reference.shape[-1]).std(0).mean()
        return float(np.sqrt(np.mean((got - self.reference) ** 2)) / spread)

    def predict(self, islands: Sequence[Island]) -> Float32:
        """(windows, Q, O) float32 of the emulated graph with these islands."""
        mixed = mixed_precision(self.proto, islands, self.precision)
        backend = EmulatedBackend(mixed, self.emulate)
        return predict(backend, self.constants, self.windows)


def survey(rounding: Rounding, islands: Sequence[Island] = ISLANDS) -> list[KindError]:
    """What each kind of nodes costs; with BF16, kinds that ONNX keeps from it count as infinite."""
    names = {island.name for island in islands}
    error = _quietly(rounding)
    return [
        KindError(
            kind=kind.name,
            low_alone=error([other for other in KINDS if other is not kind]),
            kept=error([*islands, kind]),
            island=kind.name in names,
        )
        for kind in KINDS
    ]


def find_islands(
    rounding: Rounding, limit: float, start: Sequence[Island] = ()
) -> tuple[tuple[Island, ...], float]:
    """Add the kind that helps most until the error is within ``limit``, then drop what is not
    needed.

    Args:
        rounding: what to measure with.
        limit: error to reach, in sd of the output.
        start: islands that are there from the beginning and stay.

    Returns:
        The islands, and their error; above ``limit`` if not even all kinds reach it.
    """
    error = _quietly(rounding)
    islands, best = list(start), error(start)
    while best > limit and len(islands) < len(KINDS):
        names = {island.name for island in islands}
        tried = [(error([*islands, kind]), kind) for kind in KINDS if kind.name not in names]
        best, helper = min(tried, key=lambda pair: pair[0])
        islands.append(helper)
    for island in list(islands[len(start) :]):
        without = [other for other in islands if other is not island]
        if (value := error(without)) <= limit:
            islands, best = without, value
    return tuple(islands), best


def _quietly(rounding: Rounding) -> Callable[[Sequence[Island]], float]:
    """The error, infinite where no graph of that precision exists (BF16 has no cosine)."""

    def error(islands: Sequence[Island]) -> float:
        try:
            return rounding.error(islands)
        except CheckFailedError:
            return float("inf")

    return error
