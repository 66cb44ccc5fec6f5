"""Inputs and outputs of a graph, to compare with a contract."""

from __future__ import annotations

from typing import Any

import onnx


def signature(values: Any) -> dict[str, tuple[str, list[str | int]]]:
    """Name → type and axes of each value."""
    return {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in values
    }
