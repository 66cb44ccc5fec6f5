"""ONNX graphs: opened, and their inputs and outputs."""

from __future__ import annotations

from typing import Any


def open_graph(graph: bytes, *, threads: int = 1) -> Any:
    """A session of ONNX Runtime on the CPU that says nothing of what it does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def signature(values: Any) -> dict[str, tuple[str, list[str | int]]]:
    """Name → type and axes of each value, to compare with a contract."""
    import onnx

    return {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in values
    }
