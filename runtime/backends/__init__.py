"""What runs the core: one file for each backend, one table of them all."""

from poyo_edge.runtime.backends.base import Backend, BackendInfo, Beside, Feeds
from poyo_edge.runtime.backends.opening import BACKENDS, BEHIND, list_backends, open_backend
from poyo_edge.runtime.backends.ort_cpu import open_ort_cpu
from poyo_edge.runtime.backends.ov.package import openvino_version

__all__ = [
    "BACKENDS",
    "BEHIND",
    "Backend",
    "BackendInfo",
    "Beside",
    "Feeds",
    "list_backends",
    "open_backend",
    "open_ort_cpu",
    "openvino_version",
]
