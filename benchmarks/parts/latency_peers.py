"""The sides of ``latency.py``: how each is opened, and what makes a window's inputs ready."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from parts.oracle import torch_brain_feeds
from parts.windows import Window, random_window
from poyo_edge.arrays import Float32
from poyo_edge.errors import BackendError
from poyo_edge.export.graph.core import build_core
from poyo_edge.export.graph.fold import FoldedWeights, fold
from poyo_edge.export.graph.fusion import fuse_for_ort_cpu
from poyo_edge.export.graph.native_fusion import fuse_for_native
from poyo_edge.runtime.backends import Backend
from poyo_edge.runtime.backends.kernel_library import compile_library, find_library
from poyo_edge.runtime.backends.ort_cpu import OrtCpuBackend
from poyo_edge.runtime.backends.ort_native import OrtNativeBackend
from poyo_edge.runtime.backends.ov.backend import OpenVinoBackend
from poyo_edge.runtime.constants import session_constants
from poyo_edge.spec import ModelSpec

Run = Callable[[], Float32]
"""Decode a batch, inputs ready-made: (B, O) float32 in the model's scale."""
EAGER, COMPILED = "torch_brain eager", "torch.compile"
DIRECT, DIRECT_OPENVINO = "direct ONNX export", "direct export on OpenVINO"
OURS, CORE = "poyo-edge ort-cpu", "poyo-edge core.onnx"
NATIVE = "poyo-edge ort-native"
OPENVINO, BF16 = "poyo-edge openvino", "poyo-edge openvino bf16"
INT8 = "poyo-edge openvino int8"
WIENER, GRU = "Wiener filter", "GRU"
FOR_SCALE = (WIENER, GRU)
"""Other models: nothing to agree on."""
TOLERANCES = {BF16: 0.1, INT8: 0.1}
"""Largest difference to torch_brain eager, in root mean squares of the outputs, where it is not
``TOLERANCE``."""
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """What every peer is made from."""

    spec: ModelSpec
    model: Any
    """torch_brain's POYO, whose unit i is row i + 1 of its table."""
    threads: int
    batch: int = 1
    """Windows that are decoded together; the direct export allows no other number."""
    instructions: str = ""
    """The instruction set of ort-native; "" is the best of this processor."""
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    """Peer → what a reader of the table should know about it."""

    def core(self) -> tuple[onnx.ModelProto, FoldedWeights]:
        """The folded core of the model."""
        folded = fold(self.weights(), self.spec)
        return build_core(folded), folded

    def weights(self) -> dict[str, Float32]:
        """The model's tensors as arrays, without the vocabularies."""
        state = self.model.state_dict().items()
        return {k: v.numpy() for k, v in state if isinstance(v, torch.Tensor)}


Peer = Callable[[Window], Run]
"""Makes the inputs for a window ready."""


def torch_brain_eager(setup: Setup) -> Peer:
    """torch_brain's POYO as it is."""
    setup.notes[EAGER] = "inference mode, no padding and so no mask"

    def bind(window: Window) -> Run:
        feeds = as_tensors(torch_brain_feeds(setup.spec, window))

        def decode() -> Float32:
            with torch.inference_mode():
                return np.asarray(setup.model(**feeds)[:, 0].numpy())

        return decode

    return bind


def torch_compiled(setup: Setup) -> Peer:
    """torch_brain's POYO through ``torch.compile``."""
    setup.notes[COMPILED] = "torch.compile, inductor, dynamic shapes"
    compiled: Any = torch.compile(setup.model, dynamic=True)

    def bind(window: Window) -> Run:
        feeds = as_tensors(torch_brain_feeds(setup.spec, window))

        def decode() -> Float32:
            with torch.inference_mode():
                return np.asarray(compiled(**feeds)[:, 0].numpy())

        return decode

    return bind


def openvino_on_direct_export(setup: Setup) -> Peer:
    """The direct export on OpenVINO instead."""
    from poyo_edge.runtime.backends.ov.package import openvino_package

    openvino = openvino_package()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "direct.onnx")
        setup.notes[DIRECT_OPENVINO] = export_direct(setup, path)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": setup.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", settings)
    request, names = compiled.create_infer_request(), {i.any_name for i in compiled.inputs}

    def bind(window: Window) -> Run:
        arrays = torch_brain_feeds(setup.spec, window)
        feeds = {name: array for name, array in arrays.items() if name in names}

        def decode() -> Float32:
            request.infer(feeds, share_inputs=True)
            return np.array(request.get_output_tensor(0).data[:, 0])

        return decode

    return bind


def wiener(setup: Setup) -> Peer:
    """A linear filter on counts in ten bins of each unit, for scale; another model altogether."""
    setup.notes[WIENER] = "counts in 10 bins of the window, one product; another model"

    def bind(window: Window) -> Run:
        batch, size = len(window.spike_time), 10 * window.n_units
        weight = np.zeros((size, setup.spec.dim_out), np.float32)
        place = (window.spike_time / setup.spec.window_seconds * 10).astype(np.int64)
        first = np.arange(batch)[:, None] * size

        def decode() -> Float32:
            rows = first + place * window.n_units + window.spike_unit
            counts = np.bincount(rows.ravel(), minlength=batch * size).astype(np.float32)
            return np.asarray(counts.reshape(batch, size) @ weight)

        return decode

    return bind


def gru(setup: Setup) -> Peer:
    """A GRU of 128 over 50 bins of 20 ms, for scale; another model altogether."""
    setup.notes[GRU] = "torch GRU, 128 hidden, 50 bins of 20 ms, the whole window; another model"

    def bind(window: Window) -> Run:
        layer = torch.nn.GRU(window.n_units, 128, batch_first=True)
        bins = torch.zeros(len(window.spike_time), 50, window.n_units)

        def decode() -> Float32:
            with torch.inference_mode():
                return np.asarray(layer(bins)[1][0, :, : setup.spec.dim_out].numpy())

        return decode

    return bind


def direct_export(setup: Setup) -> Peer:
    """torch_brain's POYO through ``torch.onnx.export``, on ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "direct.onnx")
        setup.notes[DIRECT] = export_direct(setup, path)
        session = onnxruntime.InferenceSession(
            path, session_options(setup.threads), providers=["CPUExecutionProvider"]
        )
    names = {value.name for value in session.get_inputs()}

    def bind(window: Window) -> Run:
        arrays = torch_brain_feeds(setup.spec, window)
        feeds = {name: array for name, array in arrays.items() if name in names}
        return lambda: np.asarray(session.run(None, feeds)[0][:, 0])

    return bind


def poyo_edge_ort_cpu(setup: Setup) -> Peer:
    """The folded core on the runtime's own backend."""
    core, folded = setup.core()
    fused = fuse_for_ort_cpu(core, setup.spec).SerializeToString()
    backend = OrtCpuBackend(fused, threads=setup.threads)
    setup.notes[OURS] = "core.ort-cpu.onnx, which export makes from the core"
    return _backend_peer(setup, folded, backend)


def poyo_edge_native(setup: Setup) -> Peer:
    """The folded core with operators of our own, compiled where they are not."""
    if find_library() is None:
        compile_library()
    core, folded = setup.core()
    graph = fuse_for_native(core, setup.spec).SerializeToString()
    backend = OrtNativeBackend(graph, threads=setup.threads, instructions=setup.instructions)
    setup.notes[NATIVE] = f"core.cpu.onnx, operators of our own for {backend.instructions}"
    return _backend_peer(setup, folded, backend)


def poyo_edge_core(setup: Setup) -> Peer:
    """The core of standard operators on ONNX Runtime."""
    core, folded = setup.core()
    setup.notes[CORE] = "core.onnx, which every other runtime gets"
    return _backend_peer(
        setup, folded, OrtCpuBackend(core.SerializeToString(), threads=setup.threads)
    )


def poyo_edge_openvino(setup: Setup, name: str, precision: str) -> Peer:
    """The core on OpenVINO."""
    proto, folded = setup.core()
    core, ranges = proto.SerializeToString(), dict[str, float]()
    if precision == "int8":
        rng = np.random.default_rng(0)
        n_units = len(setup.weights()["unit_emb.weight"]) - 1
        windows = [random_window(setup.spec, n_units, n, rng) for n in (0, 250, 1000)]
        ready = [core_feeds(setup, folded, window) for window in windows]
        ranges = OpenVinoBackend.calibrate(core, ready)
    backend = OpenVinoBackend(core, threads=setup.threads, precision=precision, ranges=ranges)
    setup.notes[name] = f"core.onnx on OpenVINO in {precision}, cosines and sines by numpy"
    return _backend_peer(setup, folded, backend)


def _backend_peer(setup: Setup, folded: FoldedWeights, backend: Backend) -> Peer:
    def bind(window: Window) -> Run:
        feeds = core_feeds(setup, folded, window)
        return lambda: np.asarray(backend.run(feeds)[:, 0])

    return bind


PEERS: dict[str, Callable[[Setup], Peer]] = {
    EAGER: torch_brain_eager,
    DIRECT: direct_export,
    OURS: poyo_edge_ort_cpu,
    NATIVE: poyo_edge_native,
    CORE: poyo_edge_core,
    OPENVINO: functools.partial(poyo_edge_openvino, name=OPENVINO, precision="fp32"),
    BF16: functools.partial(poyo_edge_openvino, name=BF16, precision="bf16"),
    INT8: functools.partial(poyo_edge_openvino, name=INT8, precision="int8"),
    COMPILED: torch_compiled,
    DIRECT_OPENVINO: openvino_on_direct_export,
    WIENER: wiener,
    GRU: gru,
}
"""Name → how it is opened. The first is the reference for the outputs."""
USUAL = (EAGER, DIRECT, OURS, NATIVE, CORE)


def as_tensors(feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The same inputs for torch."""
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def core_feeds(
    setup: Setup, folded: FoldedWeights, window: Window
) -> Mapping[str, npt.NDArray[Any]]:
    """Inputs of the folded core, session constants included."""
    weights = setup.weights()
    constants = session_constants(
        setup.spec,
        folded.session,
        weights["unit_emb.weight"][1 : window.n_units + 1],
        weights["session_emb.weight"][1],
    )
    return {
        "spike_unit": window.spike_unit,
        "spike_time": window.spike_time,
        "spike_mask": np.ones(window.spike_time.shape, np.bool_),
        "query_time": np.full((len(window.spike_time), 1), setup.spec.window_seconds, np.float32),
        **constants.feeds(),
    }


def export_direct(setup: Setup, path: Path) -> str:
    """Export torch_brain's POYO with a dynamic number of tokens; says how it was done.

    The older exporter (``dynamo=False``) is no way out where this one fails: it cannot read the
    vocabularies in the model's state and, given the state without them, ends Python (torch 2.13).

    Raises:
        BackendError: torch cannot export the model.
    """
    window = random_window(setup.spec, 4, 100, np.random.default_rng(0), batch=setup.batch)
    example = as_tensors(torch_brain_feeds(setup.spec, window))
    n_tokens = torch.export.Dim("tokens", min=2, max=1 << 16)
    tokens = ("input_unit_index", "input_timestamps", "input_token_type")
    shapes = {name: {1: n_tokens} if name in tokens else None for name in example}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                setup.model, kwargs=example, dynamic_shapes=shapes, dynamo=True, verbose=False
            )
            assert program is not None
            program.save(path)
    except Exception as problem:
        raise BackendError(
            f"{DIRECT}: torch {torch.__version__} cannot export torch_brain's POYO with "
            f"dynamo=True: {problem}; "
            f"install onnxscript and the torch that constraints.txt names"
        ) from problem
    return f"torch.onnx.export(dynamo=True) of torch {torch.__version__}, dynamic tokens"


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """The options that poyo-edge opens its own core with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
