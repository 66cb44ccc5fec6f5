"""ONNX Runtime's CUDA backend: the same code on the CPU's memory, and what stops it there."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models.tiny_windows import tiny_windows

from poyo_edge.artifact import CORE, Artifact
from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends import open_backend
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ort_cuda import OrtCudaBackend, look


@pytest.fixture
def core(tiny: Path) -> bytes:
    return Artifact.open(tiny).read(CORE)


@pytest.fixture
def feeds(tiny: Path) -> dict[str, Any]:
    return tiny_windows(tiny, (30, 600))


def test_bound_buffers_give_what_the_cpu_gives(core: bytes, feeds: dict[str, Any]) -> None:
    backend = OrtCudaBackend(core, (64, 1024), device="cpu")
    want = OrtCpuBackend(core, threads=1).run(feeds)
    assert np.abs(backend.run(feeds) - want).max() < 2e-6
    assert np.abs(backend.run(feeds) - want).max() < 2e-6
    other = {**feeds, "session_query": feeds["session_query"] * 2}
    want = OrtCpuBackend(core, threads=1).run(other)
    assert np.abs(backend.run(other) - want).max() < 2e-6


def test_a_window_beyond_the_largest_bucket_is_refused(core: bytes, feeds: dict[str, Any]) -> None:
    backend = OrtCudaBackend(core, (64,), device="cpu")
    with pytest.raises(BackendError, match=r"^ort-cuda: expected at most 64 spikes .* got 600$"):
        backend.run(feeds)


def test_inputs_that_do_not_fit_are_a_backend_error(core: bytes, feeds: dict[str, Any]) -> None:
    backend = OrtCudaBackend(core, (1024,), device="cpu")
    with pytest.raises(BackendError, match=r"^ort-cuda: "):
        backend.run({**feeds, "boundary_lse": np.zeros((7, 7), np.float32)})


def test_a_core_that_is_none_is_refused() -> None:
    with pytest.raises(BackendError, match=r"^ort-cuda: the core cannot be opened: "):
        OrtCudaBackend(b"not a core", (64,), device="cpu")


def test_an_onnxruntime_without_cuda_says_what_to_install(core: bytes) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*pip install onnxruntime-gpu"):
        open_backend("ort-cuda", core)


def test_on_jetpack_6_nothing_is_advised_that_does_not_exist(
    core: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for version, words in (((3, 10), "build TensorRT engines"), ((3, 12), "pip install")):
        monkeypatch.setattr(sys, "version_info", version)
        assert words in look(Machine(sm="87")).reason
        with pytest.raises(BackendError, match=words):
            OrtCudaBackend(core, (64,))


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(core: bytes, feeds: dict[str, Any]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no CUDA provider in this ONNX Runtime")
    want = OrtCpuBackend(core, threads=1).run(feeds)
    assert np.abs(OrtCudaBackend(core, (64, 1024)).run(feeds) - want).max() < 1e-4
