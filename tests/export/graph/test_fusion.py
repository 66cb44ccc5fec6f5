"""The graph for ONNX Runtime on the CPU says what the core says, to the last spike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import SMALL, SPECS, random_core  # noqa: E402

from poyo_edge.errors import CheckFailedError  # noqa: E402
from poyo_edge.export.graph.fusion import DOMAIN, OPERATORS, fuse_for_ort_cpu  # noqa: E402
from poyo_edge.export.parity.windows import feeds, synthetic_windows  # noqa: E402
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend  # noqa: E402
from poyo_edge.spec import ModelSpec  # noqa: E402

LIMIT = 2e-6
"""Largest error of outputs of about 0.3; measured worst case 2.4e-7."""


@pytest.fixture(params=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return SPECS[request.param]


def test_it_agrees_with_the_core_alone_and_in_padded_batches(spec: ModelSpec) -> None:
    random = random_core(spec)
    plain = OrtCpuBackend(random.data, threads=1)
    fused = OrtCpuBackend(fuse_for_ort_cpu(random.proto, spec).SerializeToString(), threads=1)
    windows = synthetic_windows(spec, 12, (0, 1, 7, 300))
    together = feeds(random.constants, windows)
    want, got = plain.run(together), fused.run(together)
    assert np.abs(got - want).max() <= LIMIT
    for window, expected in zip(windows, want, strict=True):
        alone = fused.run(feeds(random.constants, [window]))[0]
        assert np.abs(alone - expected).max() <= LIMIT
    together["spike_mask"][3, :150] = False  # the comparison above can see a mask
    assert np.abs(fused.run(together)[3] - want[3]).max() > 100 * LIMIT


def test_it_stays_one_plain_file_with_two_operators_of_the_runtime() -> None:
    random = random_core()
    fused = fuse_for_ort_cpu(random.proto, SMALL)
    foreign = {node.op_type for node in fused.graph.node if node.domain == DOMAIN}
    assert foreign == OPERATORS
    assert {node.domain for node in fused.graph.node} == {"", DOMAIN}
    assert fused.ir_version == random.proto.ir_version
    names = [node.name for node in fused.graph.node]
    assert len(set(names)) == len(names)
    used = {name for node in fused.graph.node for name in node.input}
    assert not {tensor.name for tensor in fused.graph.initializer} - used
    assert fused.graph.input == random.proto.graph.input
    assert fused.graph.output == random.proto.graph.output


def test_the_core_itself_is_left_alone() -> None:
    random = random_core()
    before = random.data
    fuse_for_ort_cpu(random.proto, SMALL)
    assert random.data == before


def test_another_graph_is_refused() -> None:
    deeper = dataclasses.replace(SMALL, depth=3)
    with pytest.raises(CheckFailedError, match=r"expected a core, got a graph without layer2"):
        fuse_for_ort_cpu(random_core().proto, deeper)
