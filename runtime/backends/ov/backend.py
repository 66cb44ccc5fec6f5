"""OpenVINO on x86 processors: the core in FP32, or lower where that was approved.

Legend: B batch, N spikes, Q queries, P rotating pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Array
from poyo_edge.core_inputs import INPUTS, PER_SESSION, SPIKES
from poyo_edge.errors import BackendError, pip_install
from poyo_edge.runtime.backends.base import Backend, BackendInfo, CoreToOpen, Feeds
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.runtime.backends.ov.graph import QUERY_INPUTS, TOKEN_INPUTS, fit
from poyo_edge.runtime.backends.ov.int8 import quantise, tap, widest
from poyo_edge.runtime.backends.ov.package import openvino_package, openvino_version
from poyo_edge.runtime.backends.ov.precision import CpuPrecision, approved_precision

NAME = "openvino"
PRECISIONS = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
"""Ours → the capability that a processor needs for it."""
STEP = 128
"""Windows are padded to a multiple of this many tokens: each new shape costs a preparation."""
_SPIKE_KINDS = [INPUTS[name].dtype for name in SPIKES]
_OTHER_KINDS = {name: array.dtype for name, array in INPUTS.items() if name not in SPIKES}


class OpenVinoBackend(Backend):
    """Runs the core with OpenVINO's CPU plugin, one query of one window after the other.

    That is what a decoder asks for, and with batch and queries fixed at one the plugin fuses more.
    Inputs are written into memory that the plugin reads in place.
    """

    name = NAME

    def __init__(
        self,
        core: bytes,
        *,
        threads: int,
        precision: str = "fp32",
        ranges: Mapping[str, float] | None = None,
        counters: bool = False,
    ) -> None:
        """Compile the core.

        Args:
            core: the bytes of ``core.onnx``, already checked.
            threads: threads for one window.
            precision: "fp32", "bf16", or "int8": the layers' products in INT8, and everything
                else in BF16 where the processor has it.
            ranges: of those products, for "int8"; see ``calibrate``.
            counters: let the plugin time each node; see ``counters()``.

        Raises:
            MissingExtraError: openvino is not installed.
            BackendError: it cannot compile the core, or the processor lacks the precision.
        """
        openvino = openvino_package()
        runtime = openvino.Core()
        able = runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if PRECISIONS[precision] not in able:
            raise BackendError(
                f"openvino: expected a processor that computes {PRECISIONS[precision]}, got one "
                f"with {', '.join(able)}; use fp32"
            )
        self.precision = precision
        try:
            fitted = fit(openvino, runtime.read_model(core))
            if precision == "int8":
                quantise(openvino, fitted.model, ranges or {})
            low = precision == "bf16" or (precision == "int8" and "BF16" in able)
            hint = "bf16" if low else "f32"
            settings = {**_settings(hint, threads), "PERF_COUNT": counters}
            self._open(openvino, runtime, fitted.model, settings)
        except BackendError:
            raise
        except Exception as problem:
            raise BackendError(f"openvino: the core cannot be opened: {problem}") from problem
        self._omega = fitted.omega

    @classmethod
    def calibrate(cls, core: bytes, windows: Sequence[Feeds]) -> dict[str, float]:
        """What "int8" needs to know: name of a weight → largest value that it is multiplied with.

        Args:
            core: the bytes of ``core.onnx``, already checked.
            windows: feeds of at least one window, one query each.

        Raises:
            MissingExtraError: openvino is not installed.
            BackendError: it cannot compile or run the core.
        """
        openvino = openvino_package()
        self = cls.__new__(cls)
        runtime = openvino.Core()
        try:
            fitted = fit(openvino, runtime.read_model(core))
            tapped, names = tap(openvino, fitted.model)
            self._open(openvino, runtime, tapped, _settings("f32", 1))
        except Exception as problem:
            raise BackendError(f"openvino: the core cannot be opened: {problem}") from problem
        self._omega = fitted.omega
        seen = []
        for window in windows:
            self.run(window)
            values = [self._request.get_output_tensor(i + 1).data for i in range(len(names))]
            largest = [float(np.abs(value).max()) for value in values]
            seen.append(dict(zip(names, largest, strict=True)))
        return widest(seen)

    def counters(self) -> Any:
        """OpenVINO's ``ProfilingInfo`` of each node: its mean time in all runs so far."""
        return self._request.profiling_info

    def run(self, feeds: Feeds) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        A session's arrays must not be changed in place: the same array is not read again.

        Raises:
            BackendError: OpenVINO failed.
        """
        _check(feeds)
        try:
            self._set_constants(feeds)
            n_units = len(feeds["unit_kv"])
            rows = []
            for i, times in enumerate(feeds["query_time"]):
                unit, time, mask = (feeds[name][i] for name in SPIKES)
                self._set_spikes(unit, time, mask, n_units)
                rows.append([self._decode(time) for time in times])
        except Exception as problem:  # OpenVINO raises RuntimeError and others of its own.
            self._constants.clear()
            raise BackendError(f"openvino: {problem!r}") from problem
        return np.array(rows, np.float32)

    def _open(self, openvino: Any, runtime: Any, model: Any, settings: dict[str, Any]) -> None:
        self._tensor = openvino.Tensor
        compiled = runtime.compile_model(model, "CPU", settings)
        self._inputs = {port.any_name: port.partial_shape for port in compiled.inputs}
        self._request = compiled.create_infer_request()
        self._constants: dict[str, tuple[Array, Array]] = {}
        pairs = self._inputs[QUERY_INPUTS[0]][2].get_length()
        self._query = {name: np.empty((1, 1, pairs), np.float32) for name in QUERY_INPUTS}
        for name, array in self._query.items():
            self._set(name, array)
        if "query_time" in self._inputs:  # its shape alone is asked for
            self._query["query_time"] = np.zeros((1, 1), np.float32)
            self._set("query_time", self._query["query_time"])
        self._grow(STEP, pairs)

    def _grow(self, n_tokens: int, pairs: int) -> None:
        """Room for this many tokens."""
        self._row = np.empty(n_tokens, np.int32)
        self._angle = np.empty((n_tokens, pairs), np.float32)
        self._turned = [np.empty((n_tokens, 2 * pairs), np.float32) for _ in TOKEN_INPUTS[1:]]

    def _set_constants(self, feeds: Feeds) -> None:
        """The session's arrays, where they are others than before."""
        for name in PER_SESSION:
            known, _ = self._constants.get(name, (None, None))
            if known is not feeds[name]:
                contiguous = np.ascontiguousarray(feeds[name])
                self._set(name, contiguous)
                self._constants[name] = feeds[name], contiguous

    def _set_spikes(self, unit: Array, time: Array, mask: Array, n_units: int) -> None:
        """Rows, cosines and sines of one window's N spikes, the boundary token and padding."""
        n, pairs = len(unit), len(self._omega)
        n_tokens = -(-(n + 1) // STEP) * STEP
        if n_tokens > len(self._row):
            self._grow(n_tokens, pairs)
        row = self._row[:n_tokens]
        row[:n] = unit
        row[:n][~mask] = n_units
        row[n], row[n + 1 :] = n_units + 1, n_units
        self._set(TOKEN_INPUTS[0], row[None])
        angle = np.multiply(time[:, None], self._omega, out=self._angle[:n])
        for name, turned, function, still in zip(
            TOKEN_INPUTS[1:], self._turned, (np.cos, np.sin), (1.0, 0.0), strict=True
        ):
            function(angle, out=turned[:n, :pairs])
            turned[:n, pairs:] = turned[:n, :pairs]
            turned[n:n_tokens] = still
            self._set(name, turned[None, None, :n_tokens])

    def _decode(self, time: np.float32) -> Array:
        """(O,) for one query of the window that is set."""
        angle = time * self._omega
        for name, function in zip(QUERY_INPUTS, (np.cos, np.sin), strict=True):
            function(angle, out=self._query[name][0, 0])
        self._request.infer()
        return np.array(self._request.get_output_tensor(0).data[0, 0])

    def _set(self, name: str, array: Array) -> None:
        self._request.set_tensor(name, self._tensor(array, shared_memory=True))


def look(_: Machine) -> BackendInfo:
    """Whether OpenVINO is installed."""
    version = openvino_version()
    reason = f"openvino {version}"
    if not version:
        reason = f"openvino is not installed; run: {pip_install('openvino')}"
    return BackendInfo(name=NAME, present=bool(version), reason=reason)


def was_faster(given: CoreToOpen) -> bool:
    """Whether a precision is approved for the artifact in which it was faster than ONNX Runtime,
    which in FP32 it is not.

    Raises:
        ArtifactError: the record of it is damaged.
    """
    approved = _approved(given)
    return approved is not None and approved.speedup > 1.0


def open_core(given: CoreToOpen) -> Backend:
    """The core in the precision that is approved for it, else in FP32.

    Raises:
        ArtifactError: the record of an approved precision is damaged.
        MissingExtraError: openvino is not installed.
        BackendError: it cannot compile the core, or the processor lacks the precision.
    """
    approved = _approved(given)
    return OpenVinoBackend(
        given.core,
        threads=given.threads,
        precision="fp32" if approved is None else approved.precision,
        ranges={} if approved is None else approved.ranges,
    )


def _approved(given: CoreToOpen) -> CpuPrecision | None:
    beside, version = given.beside, openvino_version()
    if beside.folder is None or not version:
        return None
    return approved_precision(beside.folder, beside.core_sha256, version)


def _settings(hint: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }


def _check(feeds: Feeds) -> None:
    """Refuse what OpenVINO would misread.

    Raises:
        BackendError: shapes or types are not those of a core's inputs.
    """
    spikes = [feeds[name] for name in SPIKES]
    shapes = {array.shape for array in spikes}
    kinds = [array.dtype for array in spikes]
    if len(shapes) != 1 or kinds != _SPIKE_KINDS:
        raise BackendError(
            f"openvino: expected spikes of one shape as int32, float32 and bool, got shapes "
            f"{sorted(shapes)} of {', '.join(map(str, kinds))}"
        )
    for name, kind in _OTHER_KINDS.items():
        if feeds[name].dtype != kind:
            raise BackendError(
                f"openvino: {name}: expected {kind.__name__}, got {feeds[name].dtype}"
            )
