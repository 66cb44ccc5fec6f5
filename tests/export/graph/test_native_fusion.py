"""The graph of our own operators says what the core says, and the guard knows no others."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="makes random models")
onnx = pytest.importorskip("onnx")

from helpers.models.cores import SMALL, SPECS, RandomCore, random_core  # noqa: E402

from poyo_edge.artifact.onnx_guard import (  # noqa: E402
    OWN_DOMAIN,
    OWN_OPERATORS,
    require_plain_onnx,
)
from poyo_edge.errors import ArtifactError, BackendError, CheckFailedError  # noqa: E402
from poyo_edge.export.graph.native_fusion import fuse_for_native  # noqa: E402
from poyo_edge.export.parity.windows import feeds, synthetic_windows  # noqa: E402
from poyo_edge.runtime.backends.kernel_library import KernelLibrary  # noqa: E402
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend  # noqa: E402
from poyo_edge.runtime.backends.ort_native import OrtNativeBackend  # noqa: E402
from poyo_edge.spec import ModelSpec  # noqa: E402

LIMIT = 1e-6
"""Largest error of outputs of about 0.3; measured worst case 2.4e-7, which is a rounding or two."""
ODD = dataclasses.replace(
    SMALL, dim=26, dim_head=14, cross_heads=3, self_heads=3, latents_per_step=7, ffn_mult=3
)
"""No size of it is a whole number of vectors or of rows of a tile."""
MORE_SPECS = {**SPECS, "odd": ODD}


def native(random: RandomCore, **settings: object) -> OrtNativeBackend:
    """The graph of our operators, opened."""
    graph = fuse_for_native(random.proto, random.spec).SerializeToString()
    return OrtNativeBackend(graph, threads=1, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", MORE_SPECS.values(), ids=MORE_SPECS)
@pytest.mark.parametrize("instructions", ["avx512", "avx2", "sse2", "neon"])
def test_it_agrees_with_the_core_alone_in_batches_and_with_masks(
    kernels: KernelLibrary, spec: ModelSpec, instructions: str
) -> None:
    random = random_core(spec, n_units=13)
    try:
        fused = native(random, instructions=instructions)
    except BackendError as problem:
        pytest.skip(str(problem))
    plain = OrtCpuBackend(random.data, threads=1)
    windows = synthetic_windows(spec, 13, (0, 1, 7, 65, 1000, 8000 if spec == SMALL else 300))
    together = dict(feeds(random.constants, windows))
    want = plain.run(together)
    assert np.abs(fused.run(together) - want).max() <= LIMIT
    for window, expected in zip(windows, want, strict=True):
        alone = fused.run(feeds(random.constants, [window]))[0]
        assert np.abs(alone - expected).max() <= LIMIT
    together["spike_mask"][4, ::3] = False
    masked = plain.run(together)
    assert np.abs(fused.run(together) - masked).max() <= LIMIT
    assert np.abs(masked[4] - want[4]).max() > 100 * LIMIT  # a mask can be seen


def test_one_unit_is_served(kernels: KernelLibrary) -> None:
    random = random_core(n_units=1)
    fused, plain = native(random), OrtCpuBackend(random.data, threads=1)
    ready = dict(feeds(random.constants, synthetic_windows(SMALL, 1, (0, 30))))
    assert np.abs(fused.run(ready) - plain.run(ready)).max() <= LIMIT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["spike_time", "unit_kv", "session_query", "boundary_value"])
def test_what_is_no_number_gives_what_the_core_gives(
    kernels: KernelLibrary, name: str, value: float
) -> None:
    random = random_core()
    fused, plain = native(random), OrtCpuBackend(random.data, threads=1)
    ready = dict(feeds(random.constants, synthetic_windows(SMALL, 12, (40, 40))))
    array = ready[name] = ready[name].copy()
    array[(0,) * array.ndim] = value
    with np.errstate(all="ignore"):
        want, got = plain.run(ready), fused.run(ready)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, atol=LIMIT)


def test_a_spike_of_no_unit_is_refused_as_the_core_refuses_it(kernels: KernelLibrary) -> None:
    random = random_core()
    ready = feeds(random.constants, synthetic_windows(SMALL, 12, (5,)))
    ready["spike_unit"][0, 2] = 12
    for backend in (native(random), OrtCpuBackend(random.data, threads=1)):
        with pytest.raises(BackendError):
            backend.run(ready)


def test_windows_side_by_side_in_one_session_are_those_of_one_after_the_other(
    kernels: KernelLibrary,
) -> None:
    random = random_core(ODD)
    fused = native(random)
    ready = [feeds(random.constants, synthetic_windows(ODD, 12, (n,))) for n in (3, 50, 400, 1200)]
    want = [fused.run(window) for window in ready]
    found: dict[int, list[npt.NDArray[np.float32]]] = {}

    def decode(i: int) -> None:
        found[i] = [fused.run(ready[(i + k) % 4]) for k in range(40)]

    threads = [threading.Thread(target=decode, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, outputs in found.items():
        assert all(np.array_equal(got, want[(i + k) % 4]) for k, got in enumerate(outputs))
    assert len(found) == 4


def test_threads_of_one_window_change_nothing(kernels: KernelLibrary) -> None:
    random = random_core(SPECS["1.3M"])
    graph = fuse_for_native(random.proto, random.spec).SerializeToString()
    ready = feeds(random.constants, synthetic_windows(random.spec, 12, (500,)))
    one, two = (OrtNativeBackend(graph, threads=n).run(ready) for n in (1, 2))
    assert np.array_equal(one, two)


def test_it_stays_one_plain_file_with_our_operators_alone() -> None:
    random = random_core()
    fused = fuse_for_native(random.proto, SMALL)
    own = [node for node in fused.graph.node if node.domain == OWN_DOMAIN]
    assert {node.op_type for node in own} == {
        name for name in OWN_OPERATORS if not name.endswith("Gradient")
    }
    assert {node.domain for node in fused.graph.node} == {"", OWN_DOMAIN}
    used = {name for node in fused.graph.node for name in node.input}
    assert not {tensor.name for tensor in fused.graph.initializer} - used
    assert fused.graph.input == random.proto.graph.input
    assert fused.graph.output == random.proto.graph.output
    require_plain_onnx(fused.SerializeToString(), "core.cpu.onnx")


def test_only_a_core_is_taken() -> None:
    deeper = dataclasses.replace(SMALL, depth=3)
    with pytest.raises(CheckFailedError, match=r"expected a core, got a graph without layer2"):
        fuse_for_native(random_core().proto, deeper)


@pytest.mark.parametrize("wrong", ["operator", "attribute", "file"])
def test_the_guard_takes_no_other_operator_attribute_or_file(wrong: str) -> None:
    fused = fuse_for_native(random_core().proto, SMALL)
    own = next(node for node in fused.graph.node if node.domain == OWN_DOMAIN)
    file, sentence = "core.cpu.onnx", ""
    if wrong == "operator":
        own.op_type, sentence = "Shell", "op_type: expected one of SpikeAttention"
    elif wrong == "attribute":
        own.attribute.append(onnx.helper.make_attribute("path", "/etc/passwd"))
        sentence = "attribute: expected no attribute of SpikeAttention, got 'path'"
    else:
        file, sentence = "core.onnx", "got 'poyo_edge'"
    with pytest.raises(ArtifactError, match=sentence):
        require_plain_onnx(fused.SerializeToString(), file)


def test_sizes_that_the_operators_do_not_serve_are_refused_with_what_to_do(
    kernels: KernelLibrary,
) -> None:
    fused = fuse_for_native(random_core().proto, SMALL)
    for node in fused.graph.node:
        if node.op_type == "LatentAttention":
            node.attribute[0].i = 3  # of 32 numbers
    with pytest.raises(BackendError, match=r"heads: expected a divisor.*use ort-cpu"):
        OrtNativeBackend(fused.SerializeToString(), threads=1)
