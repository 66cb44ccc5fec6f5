"""Engines of the tiny artifact for the double of TensorRT, and engines that are in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.paths import TINY
from helpers.trt.double import MAGIC
from poyo_edge.artifact import CORE
from poyo_edge.export.engines.static_shapes import fix_axes
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.backends.trt.engine_key import EngineKey
from poyo_edge.runtime.backends.trt.engines import ENGINES, EngineRecord, EngineStore

BUCKETS = (64, 1024)


def engines(core: bytes, n_units: int = 16) -> dict[int, bytes]:
    """Token bucket → engine."""
    return {
        size: MAGIC
        + fix_axes(core, {"batch": 1, "n_spikes": size, "n_units": n_units, "n_queries": 1})
        for size in BUCKETS
    }


def installed(artifact: Path, data: bytes, **changes: Any) -> tuple[EngineStore, EngineRecord]:
    """An engine in an artifact's folder, for the tiny core on ``ORIN`` but for what is changed."""
    key: dict[str, Any] = {
        "flavour": "tensorrt",
        "core_sha256": sha256_bytes((TINY / CORE).read_bytes()),
        "graph_sha256": "d" * 64,
        "precision": "fp16",
        "n_spikes": 512,
        "n_units": 16,
        "version": "10.3.0",
        "sm": ("87",),
        "driver": "12.6",
        "l4t": "36.4.3",
        "flags": (),
    }
    record = EngineRecord(
        key=EngineKey(**(key | changes)), sha256=sha256_bytes(data), size=len(data), build_s=1.0,
        parity=None, created="",
    )  # fmt: skip
    store = EngineStore(artifact / ENGINES)
    store.write(record, data)
    return store, record
