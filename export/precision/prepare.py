"""On a workstation: the graph of one precision, with everything about it that needs no GPU.

Needs onnx; devices take what this wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt
from poyo_edge.export.parity.engine import LIMIT_SD, EngineParity, Trial
from poyo_edge.export.parity.windows import Window, predict
from poyo_edge.export.precision.accumulation import accumulated
from poyo_edge.export.precision.emulation import Emulate, EmulatedBackend, emulated
from poyo_edge.export.precision.islands import ISLANDS, Rounding, find_islands
from poyo_edge.export.precision.mixed import Island, mixed_precision
from poyo_edge.export.precision.operator_table import VERSIONS
from poyo_edge.export.precision.operators import require_operators
from poyo_edge.export.precision.rounding import LayerError, layer_errors
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend

_MOST_SPIKES = 1000
"""Windows that rounding is measured on; more spikes change its cost, not its size."""
_MOST_RECORDED = 128
"""Windows of the recording that sums in FP16 are emulated on: they take several times as long."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IslandReport(JsonRecord):
    """What stays in FP32, and what it would cost if it did not."""

    name: str
    why: str
    n_nodes: int
    error_without: float
    """Error in sd of the output with this island given up; infinite if no such graph exists."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """What a graph of low precision loses under one emulation."""

    error: float
    """In sd of the output; 0 for FP32."""
    naive_error: float
    """The same with no island at all."""
    layers: tuple[LayerError, ...]
    parity: EngineParity | None
    """On windows of the trial and its recording; None for FP32."""

    def to_json(self) -> dict[str, Any]:
        """JSON values; infinite is null."""
        return {
            "error": _finite(self.error),
            "naive_error": _finite(self.naive_error),
            "layers": [
                {key: _finite(value) for key, value in layer.to_json().items()}
                for layer in self.layers
            ],
            "parity": None if self.parity is None else self.parity.to_json(),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A graph that has passed every check that needs no GPU."""

    precision: str
    graph: bytes
    islands: tuple[IslandReport, ...]
    rounded: Emulated
    """Results rounded, sums in FP32."""
    accumulated: Emulated | None
    """Sums in FP16 too, a bound, on fewer windows; None where nothing sums so."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the graph itself."""
        return {
            "precision": self.precision,
            **self.rounded.to_json(),
            "accumulated": None if self.accumulated is None else self.accumulated.to_json(),
            "islands": [
                {**i.to_json(), "error_without": _finite(i.error_without)} for i in self.islands
            ],
            "operators": list(VERSIONS),
        }


def prepare_graph(core: bytes, precision: str, trial: Trial, *, instead: str) -> Prepared:
    """Make the graph of a precision and check it.

    Args:
        core: the bytes of ``core.onnx``, already checked.
        precision: "fp32", "fp16" or "bf16".
        trial: what rounding is measured on.
        instead: what to do when rounding costs too much, for the error.

    Raises:
        CheckFailedError: an operator that some TensorRT lacks, or rounding costs too much.
    """
    proto = onnx.load_from_string(core)
    require_operators(proto)
    if precision == "fp32":
        none = Emulated(error=0.0, naive_error=0.0, layers=(), parity=None)
        return Prepared(precision=precision, graph=core, islands=(), rounded=none, accumulated=None)
    proto = fuse_for_tensorrt(proto, trial.spec)
    backend = OrtCpuBackend(core, threads=1)
    few = [window for window in trial.windows if len(window.time) <= _MOST_SPIKES]
    measured = [_rounding(proto, backend, precision, trial, few, emulated)]
    if precision == "fp16":
        some = [trial.windows[i] for i in (len(few) // 2, len(few) - 1, -1)]
        measured.append(_rounding(proto, backend, precision, trial, some, accumulated))
    islands: tuple[Island, ...] = ISLANDS
    for rounding in measured:
        islands, _ = find_islands(rounding, LIMIT_SD[precision], islands)
    mixed = mixed_precision(proto, islands, precision)
    require_operators(mixed)
    parity = trial.compare(backend, EmulatedBackend(mixed), precision)
    parity.require(f"emulated {precision}", instead)
    found = [_emulated(measured[0], islands, mixed, trial, parity)]
    if precision == "fp16":
        fewer = _fewer(trial, measured[1].windows)
        bound = fewer.compare(backend, EmulatedBackend(mixed, accumulated), precision)
        found.append(_emulated(measured[1], islands, mixed, trial, bound))
    return Prepared(
        precision=precision,
        graph=mixed.SerializeToString(),
        islands=tuple(_report(measured[-1], islands, island) for island in islands),
        rounded=found[0],
        accumulated=found[1] if len(found) > 1 else None,
    )


def _rounding(
    proto: onnx.ModelProto,
    backend: Backend,
    precision: str,
    trial: Trial,
    windows: Sequence[Window],
    emulate: Emulate,
) -> Rounding:
    return Rounding(
        proto=proto,
        constants=trial.constants,
        windows=windows,
        reference=predict(backend, trial.constants, windows, batch=4),
        precision=precision,
        emulate=emulate,
    )


def _emulated(
    rounding: Rounding,
    islands: tuple[Island, ...],
    mixed: onnx.ModelProto,
    trial: Trial,
    parity: EngineParity,
) -> Emulated:
    last = rounding.windows[-2:]
    layers = layer_errors(
        rounding.proto, mixed, rounding.precision, trial.constants, last, rounding.emulate
    )
    return Emulated(
        error=_error(rounding, islands),
        naive_error=_error(rounding, ()),
        layers=tuple(layers),
        parity=parity,
    )


def _fewer(trial: Trial, windows: Sequence[Window]) -> Trial:
    """These windows, and some of the recording's, evenly over it."""
    step = -(-len(trial.recorded) // _MOST_RECORDED) or 1
    return dataclasses.replace(
        trial,
        windows=tuple(windows),
        recorded=trial.recorded[::step],
        truth=None if trial.truth is None else trial.truth[::step],
    )


def _report(rounding: Rounding, islands: tuple[Island, ...], island: Island) -> IslandReport:
    return IslandReport(
        name=island.name,
        why=island.why,
        n_nodes=sum(island.holds(node.name) for node in rounding.proto.graph.node),
        error_without=_error(rounding, tuple(i for i in islands if i is not island)),
    )


def _error(rounding: Rounding, islands: tuple[Island, ...]) -> float:
    try:
        return rounding.error(islands)
    except CheckFailedError:
        return float("inf")


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
