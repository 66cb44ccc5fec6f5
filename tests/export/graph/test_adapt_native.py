"""Loss and gradients in operators of our own, against autograd through two torch models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch_brain.models")

from helpers.models.adapt_oracle import (  # noqa: E402
    FAST,
    SPECS,
    Shape,
    error,
    frozen,
    labelled_windows,
    run,
)

from poyo_edge.artifact.onnx_guard import (  # noqa: E402
    OWN_DOMAIN,
    OWN_OPERATORS,
    require_plain_onnx,
)
from poyo_edge.core_inputs import ENCODER_WEIGHTS  # noqa: E402
from poyo_edge.errors import ArtifactError, BackendError, CheckFailedError  # noqa: E402
from poyo_edge.export.graph.adapt_native import build_adapt_for_native, folded_of  # noqa: E402
from poyo_edge.export.graph.core import build_core  # noqa: E402
from poyo_edge.runtime.backends import open_ort_cpu  # noqa: E402
from poyo_edge.runtime.backends.kernel_library import KernelLibrary  # noqa: E402
from poyo_edge.runtime.backends.native_record import ADAPT_GRAPH  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [
    Shape((1, 3)[(i + j) % 2], n_spikes, n_units, (1, 5, 20)[(i + 2 * j) % 3])
    for i, n_spikes in enumerate((0, 1, 65, 200))
    for j, n_units in enumerate((1, 12, 96))
]
LIMIT = 1e-5
"""Largest relative error of loss and gradients, as for the other graphs of gradients."""
TO_FAST = 3e-6
"""The same between this graph and the other one for ONNX Runtime."""


def opened(kernels: KernelLibrary, spec: str, instructions: str = "", threads: int = 1) -> Any:
    """The graph on operators for some instructions."""
    kernels.choose(instructions)
    graph = bytes(build_adapt_for_native(frozen(spec).folded).SerializeToString())
    session = open_ort_cpu(graph, threads=threads, what=ADAPT_GRAPH, operators=str(kernels.path))
    kernels.choose()
    return session


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("instructions", ["avx512", "avx2", "sse2", "neon"])
def test_loss_and_gradients_equal_autograds(
    kernels: KernelLibrary, spec: str, instructions: str
) -> None:
    try:
        session = opened(kernels, spec, instructions)
    except BackendError as problem:
        pytest.skip(str(problem))
    for shape in SHAPES:
        feeds = labelled_windows(SPECS[spec], shape)
        found = run(session, feeds)
        assert error(found, frozen(spec).autograd(feeds, "torch_brain")) <= LIMIT, shape
        assert error(found, frozen(spec).fit(feeds, FAST)) <= TO_FAST, shape


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_the_encoders_weights_equal_autograds(
    kernels: KernelLibrary, spec: str
) -> None:
    feeds = labelled_windows(SPECS[spec], Shape(3, 40, 12, 5))
    want = frozen(spec).encoder_autograd(feeds, "torch_brain")
    names = [f"encoder.{name}_gradient" for name in ENCODER_WEIGHTS]
    for name, got in zip(
        ENCODER_WEIGHTS, opened(kernels, spec).run(names, dict(feeds)), strict=True
    ):
        assert np.abs(got - want[name]).max() <= LIMIT * np.abs(want[name]).max(), name


def test_threads_and_what_was_run_before_change_nothing(kernels: KernelLibrary) -> None:
    one, two = (opened(kernels, "odd", threads=n) for n in (1, 2))
    feeds = [labelled_windows(SPECS["odd"], shape) for shape in SHAPES]
    for some, other in zip(feeds, reversed(feeds), strict=True):
        first, _, again, threaded = run(one, some), run(one, other), run(one, some), run(two, some)
        assert error(again, first) == 0.0
        assert error(threaded, first) == 0.0


def test_padding_may_belong_to_any_unit_at_any_time(kernels: KernelLibrary) -> None:
    session, feeds = opened(kernels, "odd"), labelled_windows(SPECS["odd"], Shape(3, 40, 12, 5))
    absent, want = ~feeds["spike_mask"], run(session, feeds)
    assert absent.sum() > 10
    feeds["spike_unit"][absent], feeds["spike_time"][absent] = 5, 1e3
    assert error(run(session, feeds), want) == 0.0


def test_a_core_gives_back_the_weights_that_it_was_written_from() -> None:
    folded = frozen("nothing still").folded
    found = folded_of(build_core(folded), folded.spec, folded.session)
    assert build_adapt_for_native(found) == build_adapt_for_native(folded)
    core = build_core(folded)
    del core.graph.initializer[:]
    with pytest.raises(CheckFailedError, match="expected a core, got a graph without"):
        folded_of(core, folded.spec, folded.session)


def test_the_guard_takes_it_under_its_name_alone() -> None:
    proto = build_adapt_for_native(frozen("odd").folded)
    own = {node.op_type for node in proto.graph.node if node.domain == OWN_DOMAIN}
    assert own == {*OWN_OPERATORS} - {"QueryAttention"}
    require_plain_onnx(proto.SerializeToString(), ADAPT_GRAPH)
    with pytest.raises(ArtifactError, match="got 'poyo_edge'"):
        require_plain_onnx(proto.SerializeToString(), "adapt.onnx")
