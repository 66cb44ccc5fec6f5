"""What ``gpu.py`` asks of a GPU: each part is a function that gives figures, or raises why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from parts.latency_peers import as_tensors
from parts.oracle import torch_brain_feeds
from parts.windows import random_window
from poyo_edge.errors import BackendError
from poyo_edge.export.parity.windows import feeds, predict, synthetic_windows
from poyo_edge.export.precision.accumulation import KEYS, TILE, accumulated
from poyo_edge.export.precision.emulation import EmulatedBackend, emulated
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ort_cuda import OrtCudaBackend
from poyo_edge.runtime.backends.trt.cuda import Cuda
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.spec import ModelSpec

Figures = dict[str, Any]
_WARM = 10


def timed_ms(work: Callable[[], object], times: int) -> Figures:
    """Median, 99th percentile and worst of ``work``, which waits for its own end."""
    for _ in range(min(_WARM, times)):
        work()
    taken = np.empty(times)
    for i in range(times):
        started = time.perf_counter()
        work()
        taken[i] = (time.perf_counter() - started) * 1e3
    p50, p99 = np.percentile(taken, [50, 99])
    found = {"p50_ms": p50, "p99_ms": p99, "max_ms": taken.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def cuda_functions(cuda: Cuda, times: int) -> Figures:
    """Every function of ``cuda.py``: memory there and back, a graph, an event; and how long."""
    block = cuda.block({"x": ((8191,), np.float32), "y": ((8191,), np.int32)})
    block.host["x"][:] = np.arange(8191)
    event = cuda.event()

    def there() -> None:
        cuda.to_device(block)
        cuda.record(event)
        while not cuda.done(event):
            pass

    there()
    graph = cuda.capture(lambda: cuda.to_device(block))

    def launched() -> None:
        cuda.launch(graph)
        cuda.wait()

    launched()
    if not block.mapped:
        block.host["x"][:] = -1
    cuda.to_host(block)
    cuda.wait()
    same = bool(np.array_equal(block.host["x"], np.arange(8191)))
    found: Figures = {"copied_back": same, "mapped": block.mapped, "bytes": block.n_bytes}
    found["copy_and_event"] = timed_ms(there, times)
    found["graph_of_a_copy"] = timed_ms(launched, times)
    cuda.close()
    if not same:
        raise BackendError("CUDA: expected what was copied there, got something else back")
    return found


def fp16_numerics(device: str, n_keys: int = 8192, head: int = 64) -> Figures:
    """Attention of 128 rows in FP16 by torch, beside both emulations, in rms of the exact one."""
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, n, head, generator=generator).to(torch.float16)
        for n in (128, n_keys, n_keys)
    )
    exact = torch.softmax(q.double() @ k.double().mT / 8, -1) @ v.double()
    scale = exact.pow(2).mean().sqrt()
    attend = torch.nn.functional.scaled_dot_product_attention
    got = attend(q.to(device), k.to(device), v.to(device), scale=1 / 8).cpu()
    scores = (q.float() @ k.float().mT / 8).half().float()
    sums = _running(scores.numpy(), v.float().numpy())
    rounded = (torch.softmax(scores, -1).half().float() @ v.float()).half()

    def error(x: Any) -> float:
        return float((torch.as_tensor(x).double() - exact).pow(2).mean().sqrt() / scale)

    return {
        "n_keys": n_keys,
        "torch": error(got),
        "emulated_fp32_sums": error(rounded),
        "emulated_fp16_sums": error(sums),
    }


def _running(score: Any, value: Any) -> Any:
    """(…, rows, K): blocks of keys with a running maximum, sums in FP16 (``accumulation.py``)."""
    low = np.full((*score.shape[:-1], 1), -np.inf, np.float32)
    weights, total = np.zeros_like(low), np.zeros((*score.shape[:-1], value.shape[-1]), np.float16)
    for at in range(0, score.shape[-1], KEYS):
        block = score[..., at : at + KEYS]
        new = np.maximum(low, block.max(-1, keepdims=True))
        weight, rescale = np.exp(block - new).astype(np.float16), np.exp(low - new)
        weights = weights * rescale + weight.astype(np.float32).sum(-1, keepdims=True)
        total = (total * rescale).astype(np.float16)
        for tile in range(0, block.shape[-1], TILE):
            rows = weight[..., tile : tile + TILE].astype(np.float32)
            exact = rows @ value[..., at + tile : at + tile + TILE, :]
            total = (total.astype(np.float32) + exact).astype(np.float16)
        low = new
    return (total.astype(np.float32) / weights).astype(np.float16)


def onnxruntime_cuda(
    core: bytes,
    mixed: onnx.ModelProto,
    spec: ModelSpec,
    constants: SessionConstants,
    device: str,
    times: int,
) -> Figures:
    """The core in FP32 and mixed FP16 with bound buffers: errors, beside emulation, and times."""
    windows = synthetic_windows(spec, len(constants.unit_kv), (0, 100, 1000))
    plain = OrtCpuBackend(core, threads=1)
    want = predict(plain, constants, windows, batch=1)
    spread = float(want.reshape(-1, want.shape[-1]).std(0).mean())
    found: Figures = {"n_spikes": len(windows[-1].time)}

    def error(backend: Backend) -> float:
        got = predict(backend, constants, windows, batch=1)
        return float(np.sqrt(np.mean((got - want) ** 2)) / spread)

    for name, graph in (("fp32", core), ("fp16", mixed.SerializeToString())):
        backend = OrtCudaBackend(graph, (127, 1023), device=device)
        last = feeds(constants, [windows[-1]])
        found[name] = {"error_sd": error(backend), **timed_ms(lambda: backend.run(last), times)}  # noqa: B023
    found["emulated_fp32_sums_sd"] = error(EmulatedBackend(mixed, emulated))
    found["emulated_fp16_sums_sd"] = error(EmulatedBackend(mixed, accumulated))
    return found


def torch_brain(spec: ModelSpec, model: Any, device: str, times: int, *, compiled: bool) -> Figures:
    """torch_brain's POYO, eager and compiled, FP32."""
    import torch

    found: Figures = {}
    n_units = len(model.unit_emb.vocab) - 1
    window = random_window(spec, n_units, 1000, np.random.default_rng(0))
    inputs = {k: v.to(device) for k, v in as_tensors(torch_brain_feeds(spec, window)).items()}
    there = model.to(device)
    kinds = {"eager": there}
    if compiled:
        kinds["compiled"] = torch.compile(there)
    for name, one in kinds.items():

        def decode(run: Any = one) -> None:
            with torch.inference_mode():
                run(**inputs).cpu()

        found[name] = timed_ms(decode, times)
    return found


def calibration_steps(adapt: bytes, batch: Any, device: str, times: int) -> Figures:
    """One gradient of ``adapt.onnx`` on the device and on the CPU."""
    import onnxruntime

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(f"this ONNX Runtime has no {provider}")
    found: Figures = {"windows": len(batch["spike_time"])}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, one in (("cpu", "CPUExecutionProvider"), (device, provider)):
        session = onnxruntime.InferenceSession(adapt, options, providers=[one])
        found[name] = timed_ms(lambda: session.run(None, batch), times)  # noqa: B023
    return found
