"""What runs the core: one file for each backend, one table of them all."""

from poyo_edge.runtime.backends.opening import (
    Backend,
    BackendInfo,
    CpuSource,
    EngineSource,
    Feeds,
    list_backends,
    open_backend,
    open_ort_cpu,
    openvino_version,
)

__all__ = [
    "Backend",
    "BackendInfo",
    "CpuSource",
    "EngineSource",
    "Feeds",
    "list_backends",
    "open_backend",
    "open_ort_cpu",
    "openvino_version",
]
