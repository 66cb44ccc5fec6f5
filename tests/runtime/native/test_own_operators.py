"""The C library with operators of our own: the same values, and nothing without being asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="makes the graph")

from helpers.native.building import once_is_enough
from helpers.native.calling import ENVIRONMENT, USAGE, NativeDecoder, NativeError, Options

from poyo_edge.artifact.frozen import open_frozen
from poyo_edge.errors import UsageError
from poyo_edge.export import freeze_session
from poyo_edge.export.engines.build import build_engines
from poyo_edge.export.engines.options import BuildOptions
from poyo_edge.runtime.backends import open_ort_cpu
from poyo_edge.runtime.backends.kernel_library import KernelLibrary

pytestmark = once_is_enough


@pytest.fixture
def frozen(kernels: KernelLibrary, tiny_copy: Path, tmp_path: Path) -> dict[bool, Path]:
    """Whether it has operators of our own → a frozen file of the same session."""
    build_engines(tiny_copy, BuildOptions(target="cpu"))
    files = {own: tmp_path / f"{own}.onnx" for own in (False, True)}
    for own, path in files.items():
        assert freeze_session(tiny_copy, "tiny_a", path, kernels=own).kernels == own
    return files


def test_c_and_python_decode_the_same_with_them(
    kernels: KernelLibrary, frozen: dict[bool, Path], libpoyoedge: Path, onnxruntime_so: Path
) -> None:
    path, operators = frozen[True], str(kernels.path)
    python = open_ort_cpu(open_frozen(path).data, threads=1, what="it", operators=operators)
    plain = open_ort_cpu(open_frozen(frozen[False]).data, threads=1, what="the other")
    rng = np.random.default_rng(0)
    with NativeDecoder(libpoyoedge, path, onnxruntime_so, kernels=operators.encode()) as decoder:
        times, rows = np.sort(rng.random(400)) * 2, rng.integers(0, 12, 400).astype(np.int32)
        decoder.push(times, rows)
        for t in (1.0, 1.5, 1.97):
            got = decoder.decode(t)
            inside = (times >= t - 1.0) & (times < t)
            feeds = {
                "spike_unit": rows[None, inside],
                "spike_time": (times[inside] - (t - 1.0)).astype(np.float32)[None],
            }
            assert got.n_spikes == inside.sum() > 100
            want, other = (one.run(["value"], feeds)[0][0, 0] for one in (python, plain))
            assert np.abs(got.value - want).max() <= 1e-6
            assert 0 < np.abs(want - other).max() <= 1e-5  # other operators, the same value


def test_without_their_library_such_a_file_is_refused_with_what_to_do(
    kernels: KernelLibrary, frozen: dict[bool, Path], libpoyoedge: Path, onnxruntime_so: Path
) -> None:
    with pytest.raises(NativeError, match=r"options\.kernels, or freeze without --kernels") as no:
        NativeDecoder(libpoyoedge, frozen[True], onnxruntime_so)
    assert no.value.code == USAGE
    for wrong in (frozen[False], onnxruntime_so, Path("nowhere.so")):
        with pytest.raises(NativeError, match=r"expected poyo_edge_kernels\.so") as wrong_one:
            NativeDecoder(libpoyoedge, frozen[True], onnxruntime_so, kernels=str(wrong).encode())
        assert wrong_one.value.code == ENVIRONMENT
    own = str(kernels.path).encode()
    with NativeDecoder(libpoyoedge, frozen[False], onnxruntime_so, kernels=own) as decoder:
        decoder.swap(frozen[True])


def test_options_of_callers_that_know_no_kernels_are_taken(
    native_file: Path, libpoyoedge: Path, stand_in: Path
) -> None:
    NativeDecoder(libpoyoedge, native_file, stand_in, size=Options.kernels.offset).close()
    with pytest.raises(NativeError, match="size: expected"):
        NativeDecoder(libpoyoedge, native_file, stand_in, size=Options.kernels.offset - 8)


def test_an_artifact_without_their_graph_is_not_frozen_so(tiny_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"kernels: expected .* --target cpu; or freeze without"):
        freeze_session(tiny_copy, "tiny_a", tmp_path / "x.onnx", kernels=True)
    with pytest.raises(UsageError, match="without plain"):
        freeze_session(tiny_copy, "tiny_a", tmp_path / "x.onnx", kernels=True, plain=True)
    assert not (tmp_path / "x.onnx").exists()
