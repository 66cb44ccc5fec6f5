"""Engines of the tiny artifact for the double of TensorRT."""

from __future__ import annotations

from helpers.trt.double import MAGIC
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.runtime.backends.machine import Machine

ORIN = Machine(sm="87", driver="12.6", l4t="36.4.3", tensorrt="10.3.0")
BUCKETS = (64, 1024)


def engines(core: bytes, n_units: int = 16) -> dict[int, bytes]:
    return {
        size: MAGIC
        + fix_axes(core, {"batch": 1, "n_spikes": size, "n_units": n_units, "n_queries": 1})
        for size in BUCKETS
    }
