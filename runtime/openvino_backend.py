"""OpenVINO on x86 processors: the core in FP32, or in BF16 where that was approved.

In BF16 the plugin would round times and angles too, and an angle of 62,832 rad means nothing in
eight bits. So the graph is cut behind the cosines and sines, which numpy computes in FP32.

Legend: B batch, N spikes, Q queries, P rotating pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.errors import BackendError, MissingExtraError

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""Ours → OpenVINO's."""
STEP = 128
"""Windows are padded to a multiple of this many spikes, and never to none: each new shape costs a
preparation, and of no spikes the plugin makes no prediction."""
_SPIKES = ("spike_unit", "spike_time", "spike_mask")
_CUTS = {"spike": "encoder.spike_time", "query": "decoder.attention.query_time"}
"""Times whose cosines and sines become inputs → names of the nodes that compute them."""
Array = npt.NDArray[Any]


class OpenVinoBackend:
    """Runs the core with OpenVINO's CPU plugin, one query of one window after the other.

    That is what a decoder asks for, and with batch and queries fixed at one the plugin fuses more.
    """

    name = "openvino"

    def __init__(self, core: bytes, *, threads: int, precision: str = "fp32") -> None:
        """Compile the core.

        Args:
            core: the bytes of ``core.onnx``, already checked.
            threads: threads for one window.
            precision: "fp32" or "bf16".

        Raises:
            MissingExtraError: openvino is not installed.
            BackendError: it cannot compile the core, or the processor lacks the precision.
        """
        try:
            import openvino
            import openvino.opset13
        except ImportError:
            raise MissingExtraError("openvino", "openvino", "the OpenVINO backend") from None
        self.precision = precision
        runtime = openvino.Core()
        able = runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in able:
            raise BackendError(
                f"openvino: expected a processor that computes BF16, got one with "
                f"{', '.join(able)}; use fp32"
            )
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model, self._omega = _cut(openvino, runtime.read_model(core))
            compiled = runtime.compile_model(model, "CPU", settings)
        except Exception as problem:
            raise BackendError(f"openvino: the core cannot be opened: {problem}") from problem
        self._inputs = {port.any_name for port in compiled.inputs}
        self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """(B, Q, O) float32 predictions in the model's scale.

        Raises:
            BackendError: OpenVINO failed.
        """
        try:
            padded = padded_spikes(feeds)
            query = np.asarray(feeds["query_time"])
            rows = []
            for i in range(len(query)):
                spikes = {name: array[i : i + 1] for name, array in padded.items()}
                ready = {**feeds, **spikes, **self._turned("spike", spikes["spike_time"])}
                rows.append([self._decode(ready, time) for time in query[i]])
        except BackendError:
            raise
        except Exception as problem:  # OpenVINO raises RuntimeError and others of its own.
            raise BackendError(f"openvino: {problem!r}") from problem
        return np.array(rows, np.float32)

    def _decode(self, feeds: Mapping[str, Array], time: np.float32) -> Array:
        """(O,) for one window and one query."""
        query = np.full((1, 1), time, np.float32)
        ready = {**feeds, "query_time": query, **self._turned("query", query)}
        wanted = {name: ready[name] for name in self._inputs}
        self._request.infer(wanted, share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data[0, 0])

    def _turned(self, what: str, time: Array) -> dict[str, Array]:
        """Cosines and sines (B, times, P) of times (B, times)."""
        angle = time[..., None] * self._omega
        return {f"{what}_cos": np.cos(angle), f"{what}_sin": np.sin(angle)}


def padded_spikes(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``spike_unit``, ``spike_time`` and ``spike_mask`` (B, N) with padding to a whole step.

    Raises:
        BackendError: their shapes or types are not those of a core's inputs.
    """
    spikes = {name: np.asarray(feeds[name]) for name in _SPIKES}
    shapes = {array.shape for array in spikes.values()}
    kinds = [array.dtype for array in spikes.values()]
    if len(shapes) != 1 or kinds != [np.int32, np.float32, np.bool_]:
        raise BackendError(
            f"openvino: expected spikes of one shape as int32, float32 and bool, got shapes "
            f"{sorted(shapes)} of {', '.join(map(str, kinds))}"
        )
    n_spikes = spikes["spike_unit"].shape[1]
    missing = -n_spikes % STEP if n_spikes else STEP
    if not missing:
        return spikes
    return {name: np.pad(array, ((0, 0), (0, missing))) for name, array in spikes.items()}


def _cut(openvino: Any, model: Any) -> tuple[Any, Array]:
    """The model with cosines and sines as inputs, shapes fixed; and its frequencies (P,)."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    omega = np.array(nodes["omega"].get_data(), np.float32)
    added = []
    for what, scope in _CUTS.items():
        for function in ("cos", "sin"):
            given = openvino.opset13.parameter([-1, -1, len(omega)], np.float32)
            given.output(0).set_names({f"{what}_{function}"})
            for user in list(nodes[f"{scope}.{function}"].output(0).get_target_inputs()):
                user.replace_source_output(given.output(0))
            added.append(given)
    kept = [one for one in model.get_parameters() if one.get_friendly_name() != "spike_time"]
    cut = openvino.Model(model.get_results(), [*kept, *added], "poyo_core")
    width = model.input("unit_kv").partial_shape[1].get_length()
    shapes = {name: [1, -1] for name in _SPIKES if name != "spike_time"}
    shapes |= {"unit_kv": [-1, width], "query_time": [1, 1]}
    shapes |= {f"spike_{function}": [1, -1, len(omega)] for function in ("cos", "sin")}
    shapes |= {f"query_{function}": [1, 1, len(omega)] for function in ("cos", "sin")}
    cut.reshape(shapes)
    return cut, omega
