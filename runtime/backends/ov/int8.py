"""INT8 on OpenVINO: which products, and what ranges their inputs have on a recording.

The products with weights in the layers between encoder and decoder are done on eight-bit
integers: weights with a scale for each output, inputs with one scale each, from the largest value
that a calibration run saw. Attention, LayerNorm, encoder and readout stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError

_WEIGHT = re.compile(r"layer\d+\.(attention\.(qkv|out)|feed_forward\.(value|gate|out))\.w")
_WEIGHT_LEVELS, _INPUT_LEVELS = 255, 256
"""Weights are symmetric; inputs use all of -128 … 127."""
_TOP = 127 / 128
_LEAST = np.float32(1e-30)
"""Where all values are zero, any scale will do that is not."""


def quantise(openvino: Any, model: Any, ranges: Mapping[str, float]) -> None:
    """Mark the products to be done in INT8; OpenVINO folds the marks when it compiles.

    Args:
        openvino: the package, with ``opset13`` imported.
        model: the core, changed in place.
        ranges: name of the weight → largest absolute value of the other factor.

    Raises:
        BackendError: they are the ranges of another core.
    """
    op = openvino.opset13
    products = dict(_products(model))
    if set(products) != set(ranges):
        raise BackendError(
            f"openvino: expected the ranges of {len(products)} products for int8, got "
            f"{len(ranges)} of another core; build again"
        )
    for name, product in products.items():
        weight = product.input_value(1).get_node()
        axis = 1 if product.get_attributes()["transpose_b"] else 0
        most = np.abs(weight.get_data()).max(axis, keepdims=True)
        most = np.maximum(most, _LEAST)
        _mark(op, product, 1, -most, most, _WEIGHT_LEVELS)
        reach = np.array([[max(ranges[name], _LEAST)]], np.float32)
        _mark(op, product, 0, -reach, reach * np.float32(_TOP), _INPUT_LEVELS)


def tap(openvino: Any, model: Any) -> tuple[Any, list[str]]:
    """A model that also returns the inputs of those products, and their names in that order."""
    products = dict(_products(model))
    taps = [openvino.opset13.result(product.input_value(0)) for product in products.values()]
    results = [*model.get_results(), *taps]
    return openvino.Model(results, model.get_parameters(), "poyo_core_tapped"), list(products)


def widest(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest of the values of several windows, for each product."""
    return {name: max(one[name] for one in seen) for name in seen[0]}


def _products(model: Any) -> Iterator[tuple[str, Any]]:
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            name = node.input_value(1).get_node().get_friendly_name()
            if _WEIGHT.fullmatch(name):
                yield name, node


def _mark(
    op: Any,
    product: Any,
    port: int,
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
    levels: int,
) -> None:
    ends = [op.constant(end) for end in (low, high, low, high)]
    marked = op.fake_quantize(product.input_value(port), *ends, levels)
    product.input(port).replace_source_output(marked.output(0))
