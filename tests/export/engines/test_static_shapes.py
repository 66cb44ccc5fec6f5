"""Fixing axes byte by byte gives what the onnx package gives."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import random_core  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from poyo_edge.errors import UsageError  # noqa: E402
from poyo_edge.export.engines.static_shapes import fix_axes  # noqa: E402
from poyo_edge.export.parity.windows import feeds, synthetic_windows  # noqa: E402
from poyo_edge.runtime.backends import open_backend  # noqa: E402

AXES = {"batch": 1, "n_spikes": 40, "n_units": 12, "n_queries": 3}
CORE = random_core()


def fixed_by_onnx(axes: dict[str, int]) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(CORE.proto)
    for value in [*proto.graph.input, *proto.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = axes[dimension.dim_param]
    return bytes(proto.SerializeToString())


@given(st.fixed_dictionaries({name: st.integers(1, 2**31 - 1) for name in AXES}))
def test_the_bytes_are_those_of_the_onnx_package(axes: dict[str, int]) -> None:
    assert fix_axes(CORE.data, axes) == fixed_by_onnx(axes)


def test_the_fixed_graph_says_the_same_and_takes_no_other_shape() -> None:
    window = synthetic_windows(CORE.spec, 12, (40,))
    inputs = feeds(CORE.constants, window)
    fixed = open_backend("ort-cpu", fix_axes(CORE.data, AXES))
    want = open_backend("ort-cpu", CORE.data).run(inputs)
    assert np.abs(fixed.run(inputs) - want).max() < 1e-6
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        fixed.run(feeds(CORE.constants, synthetic_windows(CORE.spec, 12, (41,))))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({**AXES, "n_spikes": 0}, r"^axes: expected sizes >= 1, got \{'n_spikes': 0\}$"),
        ({"batch": 1, "n_spikes": 8, "n_units": 8}, r"^axes: expected a size for 'n_queries'"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(axes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fix_axes(CORE.data, axes)


@given(st.integers(1, len(CORE.data) - 1))
def test_half_a_model_is_never_taken_for_a_whole_one(size: int) -> None:
    """Cut anywhere inside the graph, which is one field of the file."""
    try:
        cut = fix_axes(CORE.data[:size], AXES)
    except UsageError:
        return
    assert len(cut) < 64  # cut before the graph began: only the header is there


def test_other_bytes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^core: expected an ONNX model, got 7 bytes that"):
        fix_axes(b"\xff" * 7, AXES)
