"""``benchmarks/gpu.py`` on the double: each part runs, and says what it found, or why not."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("torch_brain")

import gpu as script
from helpers.trt.double import Double
from parts import gpu_sides as sides

from poyo_edge.errors import BackendError
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.backends.trt.libcuda import CudaLibrary


@pytest.mark.parametrize("integrated", [False, True])
def test_the_functions_of_cuda_copy_there_and_back(integrated: bool) -> None:
    double = Double()
    double.integrated = integrated
    found = sides.cuda_functions(Cuda(CudaLibrary(double.cuda)), 3)
    assert (found["copied_back"], found["mapped"]) == (True, integrated)
    assert found["graph_of_a_copy"]["p50_ms"] >= 0
    assert double.memory == {}


def test_a_copy_that_goes_wrong_is_a_failure() -> None:
    library = Double().cuda
    library.cudaMemcpyAsync = lambda *_: 0  # says that it did
    with pytest.raises(BackendError, match="expected what was copied there"):
        sides.cuda_functions(Cuda(CudaLibrary(library)), 1)


def test_attention_in_fp16_is_compared_with_both_emulations() -> None:
    found = sides.fp16_numerics("cpu", n_keys=512)
    assert 0 < found["torch"] < found["emulated_fp16_sums"] < 0.02
    assert 0 < found["emulated_fp32_sums"] < found["emulated_fp16_sums"]


def test_a_part_that_cannot_run_says_why_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> sides.Figures:
        raise BackendError("no device")

    wanted: script.Parts = {"a": broken, "b": lambda: {"p50_ms": 1.0}}
    found = dict(script.measure(wanted, 1.0))
    assert found == {"a": {"skipped": "no device"}, "b": {"p50_ms": 1.0}}
    assert "a: skipped no device" in capsys.readouterr().out
    assert dict(script.measure({"b": broken}, -1.0)) == {"b": {"skipped": "-1 minutes are over"}}
