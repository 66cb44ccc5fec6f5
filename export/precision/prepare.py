"""On a workstation: the graph of one precision, with everything about it that needs no GPU.

Needs onnx; devices take what this wrote.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx

from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.tensorrt_fusion import fuse_for_tensorrt
from poyo_edge.export.parity.engine import LIMIT_SD, EngineParity, Trial
from poyo_edge.export.parity.windows import predict
from poyo_edge.export.precision.emulation import EmulatedBackend
from poyo_edge.export.precision.islands import ISLANDS, Rounding, find_islands
from poyo_edge.export.precision.mixed import Island, mixed_precision
from poyo_edge.export.precision.operator_table import VERSIONS
from poyo_edge.export.precision.operators import require_operators
from poyo_edge.export.precision.rounding import LayerError, layer_errors
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend

_MOST_SPIKES = 1000
"""Windows that rounding is measured on; more spikes change its cost, not its size."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IslandReport(JsonRecord):
    """What stays in FP32, and what it would cost if it did not."""

    name: str
    why: str
    n_nodes: int
    error_without: float
    """Error in sd of the output with this island given up; infinite if no such graph exists."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A graph that has passed every check that needs no GPU."""

    precision: str
    graph: bytes
    islands: tuple[IslandReport, ...]
    error: float
    """Of emulated rounding, in sd of the output; 0 for FP32."""
    naive_error: float
    """The same with no island at all."""
    layers: tuple[LayerError, ...]
    parity: EngineParity | None
    """Emulated, on the trial's windows and recording; None for FP32."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the graph itself."""
        return {
            "precision": self.precision,
            "error": _finite(self.error),
            "naive_error": _finite(self.naive_error),
            "islands": [
                {**i.to_json(), "error_without": _finite(i.error_without)} for i in self.islands
            ],
            "layers": [
                {key: _finite(value) for key, value in layer.to_json().items()}
                for layer in self.layers
            ],
            "parity": None if self.parity is None else self.parity.to_json(),
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
        return Prepared(
            precision=precision,
            graph=core,
            islands=(),
            error=0.0,
            naive_error=0.0,
            layers=(),
            parity=None,
        )
    proto = fuse_for_tensorrt(proto, trial.spec)
    rounding = _rounding(proto, core, precision, trial)
    islands, error = find_islands(rounding, LIMIT_SD[precision], ISLANDS)
    mixed = mixed_precision(proto, islands, precision)
    require_operators(mixed)
    parity = trial.compare(OrtCpuBackend(core, threads=1), EmulatedBackend(mixed), precision)
    parity.require(f"emulated {precision}", instead)
    return Prepared(
        precision=precision,
        graph=mixed.SerializeToString(),
        islands=tuple(_report(proto, rounding, islands, island) for island in islands),
        error=error,
        naive_error=_error(rounding, ()),
        layers=tuple(layer_errors(proto, mixed, precision, trial.constants, rounding.windows[-2:])),
        parity=parity,
    )


def _rounding(proto: onnx.ModelProto, core: bytes, precision: str, trial: Trial) -> Rounding:
    windows = [window for window in trial.windows if len(window.time) <= _MOST_SPIKES]
    reference = predict(OrtCpuBackend(core, threads=1), trial.constants, windows, batch=4)
    return Rounding(
        proto=proto,
        constants=trial.constants,
        windows=windows,
        reference=reference,
        precision=precision,
    )


def _report(
    proto: onnx.ModelProto, rounding: Rounding, islands: tuple[Island, ...], island: Island
) -> IslandReport:
    return IslandReport(
        name=island.name,
        why=island.why,
        n_nodes=sum(island.holds(node.name) for node in proto.graph.node),
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
