"""How rounding errors grow through the layers, and what over- or underflows on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from poyo_edge.export.parity.windows import Window, feeds
from poyo_edge.export.precision.emulation import (
    EXACT,
    Emulate,
    emulated,
    open_session,
    rounded_values,
)
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.constants import SessionConstants

SMALLEST_NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerError(JsonRecord):
    """One layer: its error, and what rounding did inside it."""

    layer: str
    error: float
    """Of the layer's last node: root mean square error over root mean square."""
    worst_node: str
    worst_error: float
    overflows: int
    """Values that became infinite."""
    zeros: int
    """Values other than 0 that became 0."""
    subnormals: int
    """Values that lost digits because they are small, without becoming 0."""
    n_values: int


@dataclasses.dataclass(slots=True)
class _Tally:
    square: float = 0.0
    """Sum of squares of the reference."""
    difference: float = 0.0
    overflows: int = 0
    zeros: int = 0
    subnormals: int = 0
    n_values: int = 0

    @property
    def error(self) -> float:
        if self.square == 0.0:
            return 0.0 if self.difference == 0.0 else float("inf")
        return float(np.sqrt(self.difference / self.square))


def layer_errors(
    proto: onnx.ModelProto,
    mixed: onnx.ModelProto,
    precision: str,
    constants: SessionConstants,
    windows: Sequence[Window],
    emulate: Emulate = emulated,
) -> list[LayerError]:
    """Error growth along the graph, window by window, nodes compared by name.

    Args:
        proto: the FP32 core.
        mixed: what ``mixed_precision`` made of it.
        precision: which one that was.
        constants: of the session.
        windows: to run.
        emulate: ``accumulated`` for sums in FP16.
    """
    emulation = emulate(mixed)
    there = {name for node in emulation.graph.node for name in node.output}
    rounded = {name for name in rounded_values(mixed) if name in there}
    watched = [name for name in _float_values(proto) if name in there]
    wanted = [*watched, *sorted(rounded - set(watched)), *(name + EXACT for name in rounded)]
    plain, rough = open_session(proto, watched), open_session(emulation, wanted)
    tallies = {name: _Tally() for name in {*watched, *rounded}}
    for window in windows:
        inputs = dict(feeds(constants, [window]))
        want = dict(zip(watched, plain.run(watched, inputs), strict=True))
        got = dict(zip(wanted, rough.run(wanted, inputs), strict=True))
        for name in watched:
            _compare(tallies[name], want[name], got[name])
        for name in rounded:
            _count(tallies[name], got[name + EXACT], got[name], SMALLEST_NORMAL[precision])
    return _by_layer(tallies, watched)


def layer_of(name: str) -> str:
    """The layer that a node belongs to: "layer3.attention" of "layer3.attention.score"."""
    first, _, rest = name.partition(".")
    if first in ("encoder", "decoder"):
        part = "feed_forward" if rest.startswith("feed_forward") else "attention"
        return f"{first}.{part}"
    if first.startswith("layer"):
        return f"{first}.{rest.partition('.')[0]}"
    return "readout" if first in ("readout", "prediction") else "inputs"


def _by_layer(tallies: dict[str, _Tally], order: list[str]) -> list[LayerError]:
    layers: dict[str, list[str]] = {}
    for name in order:
        layers.setdefault(layer_of(name), []).append(name)
    for name in sorted(set(tallies) - set(order)):  # casts, which have no node in the FP32 core
        layers.setdefault(layer_of(name), []).insert(0, name)
    lines = []
    for layer, names in layers.items():
        members = [tallies[name] for name in names]
        worst = max(names, key=lambda name: tallies[name].error)
        lines.append(
            LayerError(
                layer=layer,
                error=tallies[names[-1]].error,
                worst_node=worst,
                worst_error=tallies[worst].error,
                overflows=sum(tally.overflows for tally in members),
                zeros=sum(tally.zeros for tally in members),
                subnormals=sum(tally.subnormals for tally in members),
                n_values=sum(tally.n_values for tally in members),
            )
        )
    return lines


def _compare(tally: _Tally, want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> None:
    tally.square += float(np.square(want, dtype=np.float64).sum())
    difference = np.square(got.astype(np.float64) - want).sum()
    tally.difference += float(difference) if np.isfinite(difference) else float("inf")


def _count(
    tally: _Tally,
    exact: npt.NDArray[np.float32],
    rounded: npt.NDArray[np.float32],
    smallest: float,
) -> None:
    size = np.abs(exact)
    tally.overflows += int((np.isfinite(exact) & ~np.isfinite(rounded)).sum())
    tally.zeros += int(((size > 0) & (rounded == 0)).sum())
    tally.subnormals += int(((rounded != 0) & (size < smallest)).sum())
    tally.n_values += exact.size


def _float_values(proto: onnx.ModelProto) -> list[str]:
    """Names of the float32 values that nodes compute, in order."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    names = [name for node in proto.graph.node for name in node.output]
    return [name for name in names if kinds.get(name) == onnx.TensorProto.FLOAT]
