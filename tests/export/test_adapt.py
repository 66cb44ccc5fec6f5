"""Loss and gradients of ``adapt.onnx`` against autograd through two torch models."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch_brain.models")

import onnx_ir as ir  # noqa: E402
from oracle import make_oracle  # noqa: E402

from poyo_edge.errors import CheckFailedError  # noqa: E402
from poyo_edge.export.adapt import build_adapt  # noqa: E402
from poyo_edge.export.fold import fold  # noqa: E402
from poyo_edge.export.graph import OPSET, build_core, checked_model  # noqa: E402
from poyo_edge.model import POYO, RotaryTimeEmbedding  # noqa: E402
from poyo_edge.runtime.backends import open_backend  # noqa: E402
from poyo_edge.runtime.constants import session_constants  # noqa: E402
from poyo_edge.spec import ModelSpec  # noqa: E402
from poyo_edge.tokens import latent_tokens, window_tokens  # noqa: E402

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

SPECS = {
    # A window that is no multiple of the step, one cross head, three outputs.
    "odd": ModelSpec(
        dim=24, depth=1, dim_head=32, cross_heads=1, self_heads=3, latents_per_step=3, dim_out=3,
        rotating_pairs=8, window_s=0.6, latent_step_s=0.25,
    ),
    "nothing still": ModelSpec(
        dim=16, depth=2, dim_head=8, cross_heads=4, self_heads=2, latents_per_step=2, dim_out=1,
        rotating_pairs=4, latent_step_s=0.25,
    ),
    "one pair, no layer": ModelSpec(
        dim=20, depth=0, dim_head=8, cross_heads=2, self_heads=1, latents_per_step=4, dim_out=3,
        rotating_pairs=1, window_s=0.5,
    ),
    "one latent, one head": ModelSpec(
        dim=8, depth=1, dim_head=8, cross_heads=1, self_heads=1, latents_per_step=1, dim_out=1,
        rotating_pairs=2, latent_step_s=1.0,
    ),
    "wide heads": ModelSpec(
        dim=16, depth=0, dim_head=64, cross_heads=2, self_heads=1, latents_per_step=2, dim_out=2,
        latent_step_s=0.5,
    ),
}  # fmt: skip
MODELS = ("poyo_edge", "torch_brain")


class Shape(NamedTuple):
    """Sizes of a batch of windows."""

    batch: int
    n_spikes: int
    n_units: int
    n_queries: int


SHAPES = [
    Shape((1, 3, 8)[(i + j) % 3], n_spikes, n_units, (1, 5, 20)[(i + 2 * j) % 3])
    for i, n_spikes in enumerate((0, 1, 7, 200))
    for j, n_units in enumerate((1, 2, 12, 96))
]
"""All pairs of numbers of spikes and units, with the others in turn."""
USUAL = Shape(batch=3, n_spikes=40, n_units=12, n_queries=5)

LIMIT = 1e-5  # 2.0e-6
"""Largest relative error of loss and gradients; the measured worst case is beside it."""
ROUNDING = 1e-6  # 0
"""The same between runs that add up the same numbers."""


class Fit(NamedTuple):
    """What the graph computes."""

    loss: Array
    unit: Array
    """(n_units, dim): gradient with respect to the unit embeddings."""
    session: Array
    """(dim,): gradient with respect to the session embedding."""


class Frozen:
    """Frozen weights: two torch models that hold them, and the graph, opened once for all sizes."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        oracle = make_oracle(spec, ["s/u"], ["s"])
        with torch.no_grad():
            # torch_brain always turns half of a head.
            oracle.rotary_emb.omega[:] = RotaryTimeEmbedding(
                spec.dim_head, spec.rotating_pairs
            ).omega
            for name, tensor in oracle.named_parameters():
                if "norm" in name:
                    tensor.add_(0.3 * torch.randn_like(tensor))
                if "to_" in name or name == "readout.weight":
                    tensor.mul_(2.0)  # sharp attention: each spike must matter
        ours = POYO(spec, ["s/u"], ["s"]).eval()
        ours.load_state_dict(oracle.state_dict())
        self.models = {"poyo_edge": ours, "torch_brain": oracle}
        weights = {
            name: x.numpy() for name, x in oracle.state_dict().items() if "vocab" not in name
        }
        self.folded = fold(weights, spec)
        self.proto = build_adapt(self.folded)
        self.session = open_session(self.proto)

    def fit(self, feeds: Mapping[str, Array]) -> Fit:
        return run(self.session, feeds)

    def autograd(self, feeds: Mapping[str, Array], model: str) -> Fit:
        """The same by torch. Row 0 of its tables is for padding."""
        tables = {
            name: torch.from_numpy(np.atleast_2d(feeds[f"{name}_embedding"])).requires_grad_()
            for name in ("unit", "session")
        }
        replaced = {
            f"{name}_emb.weight": torch.cat([torch.zeros(1, self.spec.dim), table])
            for name, table in tables.items()
        }
        inputs = torch_inputs(self.spec, feeds)
        prediction = torch.func.functional_call(self.models[model], replaced, kwargs=inputs)
        square = (prediction - torch.from_numpy(feeds["target"])).square().mean(-1)
        weight = torch.from_numpy(feeds["target_weight"])
        loss = (square * weight).sum() / weight.sum()
        unit, session = torch.autograd.grad(loss, list(tables.values()))
        return Fit(loss.detach().numpy(), unit.numpy(), session[0].numpy())


@functools.cache
def frozen(spec: str) -> Frozen:
    return Frozen(SPECS[spec])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("spec", SPECS)
def test_loss_and_gradients_equal_autograds(spec: str, shape: Shape, model: str) -> None:
    feeds = labelled_windows(SPECS[spec], shape)
    assert error(frozen(spec).fit(feeds), frozen(spec).autograd(feeds, model)) <= LIMIT


def test_the_limit_sees_a_wrong_gradient() -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL)
    right = frozen("odd").autograd(feeds, "poyo_edge")
    for name in Fit._fields:
        wrong = getattr(right, name).copy()
        wrong.flat[0] += 2e-5 * np.abs(wrong).max()
        assert error(right._replace(**{name: wrong}), right) > LIMIT
    unit = right.unit.copy()
    unit[0, 0] = np.nan
    assert not error(right._replace(unit=unit), right) <= LIMIT


def test_the_opened_graph_keeps_nothing_from_the_shape_before() -> None:
    feeds = [labelled_windows(SPECS["odd"], shape) for shape in SHAPES]
    for some, other in zip(feeds, reversed(feeds), strict=True):
        first, _, again = (frozen("odd").fit(x) for x in (some, other, some))
        assert error(again, first) <= ROUNDING


@pytest.mark.parametrize("spec", SPECS)
def test_padding_may_belong_to_any_unit_at_any_time(spec: str) -> None:
    feeds = labelled_windows(SPECS[spec], USUAL)
    absent = ~feeds["spike_mask"]
    assert absent.sum() > 10
    fits = []
    for unit, time in ((0, 0.0), (11, 0.4), (5, 1e3)):
        padded = {name: feeds[name].copy() for name in ("spike_unit", "spike_time")}
        padded["spike_unit"][absent], padded["spike_time"][absent] = unit, time
        fits.append(frozen(spec).fit({**feeds, **padded}))
    assert max(error(fit, fits[0]) for fit in fits) <= ROUNDING


def test_a_window_is_the_same_alone_unpadded() -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL)
    of_tokens = ("spike_unit", "spike_time", "spike_mask")
    of_windows = (*of_tokens, "query_time", "target", "target_weight")
    window = {name: x[1:2] if name in of_windows else x for name, x in feeds.items()}
    heard = int(window["spike_mask"].sum())
    assert 0 < heard < 40
    short = {name: x[:, :heard] if name in of_tokens else x for name, x in window.items()}
    assert error(frozen("odd").fit(short), frozen("odd").fit(window)) <= LIMIT


@pytest.mark.parametrize("padding", [0, 30])
def test_a_silent_window_is_fitted_by_its_boundary_tokens(padding: int) -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL._replace(n_spikes=padding))
    feeds["spike_mask"][:] = False
    fit = frozen("odd").fit(feeds)
    assert all(error(fit, frozen("odd").autograd(feeds, model)) <= LIMIT for model in MODELS)
    assert (np.abs(fit.unit).max(axis=1) > 0.01 * np.abs(fit.unit).max()).all()


def test_a_unit_without_spikes_still_learns_from_its_boundary_tokens() -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL)
    feeds["spike_unit"] %= 10
    fit = frozen("odd").fit(feeds)
    assert error(fit, frozen("odd").autograd(feeds, "torch_brain")) <= LIMIT
    assert (np.abs(fit.unit[10:]).max(axis=1) > 0.01 * np.abs(fit.unit).max()).all()


def test_a_window_of_weight_0_is_as_if_absent() -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL)
    feeds["target_weight"][1] = 0
    shared = ("unit_embedding", "session_embedding")
    others = {name: x if name in shared else x[[0, 2]] for name, x in feeds.items()}
    assert error(frozen("odd").fit(feeds), frozen("odd").fit(others)) <= LIMIT


def test_a_sample_of_weight_0_is_as_if_absent() -> None:
    feeds = labelled_windows(SPECS["odd"], USUAL)
    feeds["target_weight"][:, 2:4] = 0
    feeds["target"][:, 2:4] = 1e3
    labels = ("query_time", "target", "target_weight")
    others = {name: x[:, [0, 1, 4]] if name in labels else x for name, x in feeds.items()}
    assert error(frozen("odd").fit(feeds), frozen("odd").fit(others)) <= LIMIT


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n_spikes", [0, 40])
def test_the_loss_is_that_of_the_cores_predictions(spec: str, n_spikes: int) -> None:
    feeds = labelled_windows(SPECS[spec], USUAL._replace(n_spikes=n_spikes))
    folded = frozen(spec).folded
    constants = session_constants(
        SPECS[spec], folded.session, feeds["unit_embedding"], feeds["session_embedding"]
    )
    core = open_backend("ort-cpu", build_core(folded).SerializeToString())
    window = ("spike_unit", "spike_time", "spike_mask", "query_time")
    prediction = core.run({**{name: feeds[name] for name in window}, **constants.feeds()})
    square = ((prediction.astype(np.float64) - feeds["target"]) ** 2).mean(-1)
    want = np.average(square, weights=feeds["target_weight"])
    assert frozen(spec).fit(feeds).loss == pytest.approx(want, rel=LIMIT)


@pytest.mark.parametrize("spec", SPECS)
def test_a_step_against_the_gradient_lowers_the_loss_as_much_as_it_says(spec: str) -> None:
    feeds = labelled_windows(SPECS[spec], USUAL)
    fit = frozen(spec).fit(feeds)
    steepness = float(np.sqrt((fit.unit**2).sum() + (fit.session**2).sum()))
    step = 0.03

    def loss(ahead: float) -> float:
        moved = {
            f"{name}_embedding": feeds[f"{name}_embedding"] + ahead / steepness * gradient
            for name, gradient in (("unit", fit.unit), ("session", fit.session))
        }
        return float(frozen(spec).fit({**feeds, **moved}).loss)

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert slope == pytest.approx(steepness, rel=2e-4)  # 2.7e-5


def many_repeats() -> Feeds:
    """5,600 spikes of 299 units, and a silent one."""
    shape = Shape(batch=7, n_spikes=800, n_units=300, n_queries=5)
    feeds = labelled_windows(SPECS["wide heads"], shape)
    feeds["spike_mask"][:] = True
    feeds["spike_unit"] %= 299
    return feeds


def test_repeated_units_lose_nothing_on_two_threads() -> None:
    """On rows of 128 numbers, threads that race for a unit's sum lose some in a few runs of 100."""
    feeds = many_repeats()
    want = frozen("wide heads").autograd(feeds, "poyo_edge")
    for threads, runs in ((1, 2), (2, 10)):
        session = open_session(frozen("wide heads").proto, threads=threads)
        fits = [run(session, feeds) for _ in range(runs)]
        assert max(error(fit, want) for fit in fits) <= LIMIT, threads
        assert max(error(fit, fits[0]) for fit in fits) <= ROUNDING, threads


def test_one_lost_summand_of_5600_would_be_seen() -> None:
    """The gradient of a spike of unit 0 goes to another unit that is equal and silent."""
    feeds = many_repeats()
    feeds["unit_embedding"][299] = feeds["unit_embedding"][0]
    whole = frozen("wide heads").fit(feeds)
    spike = tuple(np.argwhere(feeds["spike_unit"] == 0)[0])
    feeds["spike_unit"][spike] = 299
    fit = frozen("wide heads").fit(feeds)
    lossy = whole.unit.copy()
    lossy[0] = fit.unit[0]
    assert fit.loss == pytest.approx(whole.loss, rel=1e-6)
    assert error(whole._replace(unit=lossy), whole) > 10 * LIMIT


def test_graph_keeps_the_contract_of_its_inputs_and_outputs() -> None:
    graph = frozen("odd").proto.graph
    assert signature(graph.input) == {
        "spike_unit": ("INT32", ["batch", "n_spikes"]),
        "spike_time": ("FLOAT", ["batch", "n_spikes"]),
        "spike_mask": ("BOOL", ["batch", "n_spikes"]),
        "query_time": ("FLOAT", ["batch", "n_queries"]),
        "target": ("FLOAT", ["batch", "n_queries", 3]),
        "target_weight": ("FLOAT", ["batch", "n_queries"]),
        "unit_embedding": ("FLOAT", ["n_units", 24]),
        "session_embedding": ("FLOAT", [24]),
    }
    assert signature(graph.output) == {
        "loss": ("FLOAT", []),
        "unit_embedding_gradient": ("FLOAT", ["n_units", 24]),
        "session_embedding_gradient": ("FLOAT", [24]),
    }


@pytest.mark.parametrize("spec", SPECS)
def test_graph_is_one_plain_file_that_old_runtimes_open(spec: str) -> None:
    proto = frozen(spec).proto
    assert proto.ir_version == 8
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert OPSET == 18
    assert not any(node.domain for node in proto.graph.node)
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("spec", SPECS)
def test_no_node_scatters(spec: str) -> None:
    nodes = frozen(spec).proto.graph.node
    assert not any(a.type == onnx.AttributeProto.GRAPH for node in nodes for a in node.attribute)
    operators = {node.op_type for node in nodes}
    assert {"MatMul", "OneHot"} <= operators
    assert not any("Scatter" in name or name == "GatherND" for name in operators)


def test_building_twice_gives_the_same_bytes() -> None:
    built = frozen("odd")
    assert build_adapt(built.folded).SerializeToString() == built.proto.SerializeToString()


def test_an_invalid_graph_is_refused_by_the_name_of_its_file() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.Node("", "NoSuchOperator", [x])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": OPSET}, name="invalid")
    message = r"^adapt\.onnx: expected a valid graph, got: .*NoSuchOperator"
    with pytest.raises(CheckFailedError, match=message):
        checked_model(graph, "adapt.onnx")


def labelled_windows(spec: ModelSpec, shape: Shape, *, seed: int = 0) -> Feeds:
    """Random inputs of the graph. All windows but the first are padded, by any number of tokens."""
    rng = np.random.default_rng(seed)
    batch, n_spikes, n_units, n_queries = shape
    counts = rng.integers(0, n_spikes + 1, batch)
    counts[0] = n_spikes

    def times(n: int) -> Array:
        return rng.uniform(0, spec.window_s, (batch, n)).astype(np.float32)

    def normal(*size: int) -> Array:
        return rng.normal(size=size).astype(np.float32)

    return {
        "spike_unit": rng.integers(0, n_units, (batch, n_spikes)).astype(np.int32),
        "spike_time": times(n_spikes),
        "spike_mask": np.arange(n_spikes) < counts[:, None],
        "query_time": times(n_queries),
        # Far from predictions: errors that cancel would leave nothing but rounding.
        "target": 5 + normal(batch, n_queries, spec.dim_out),
        "target_weight": rng.uniform(0.1, 3, (batch, n_queries)).astype(np.float32),
        "unit_embedding": normal(n_units, spec.dim),
        "session_embedding": normal(spec.dim),
    }


def torch_inputs(spec: ModelSpec, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """What both torch models are called with; times are float32, as in the graph."""
    batch, n_units = len(feeds["query_time"]), len(feeds["unit_embedding"])
    windows = [
        window_tokens(time, unit, n_units, spec.window_seconds)
        for time, unit in zip(feeds["spike_time"], feeds["spike_unit"], strict=True)
    ]
    mask = np.pad(feeds["spike_mask"], [(0, 0), (2 * n_units, 0)], constant_values=True)
    index, time = latent_tokens(spec)
    return {
        "input_unit_index": torch.from_numpy(np.stack([w.unit for w in windows])) + 1,
        "input_timestamps": torch.from_numpy(np.stack([w.time for w in windows])).float(),
        "input_token_type": torch.from_numpy(np.stack([w.type for w in windows])),
        "input_mask": torch.from_numpy(mask),
        "latent_index": torch.from_numpy(index).expand(batch, -1),
        "latent_timestamps": torch.from_numpy(time).float().expand(batch, -1),
        "session_index": torch.ones(batch, dtype=torch.long),
        "output_timestamps": torch.from_numpy(feeds["query_time"]),
    }


def open_session(proto: Any, *, threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(session: Any, feeds: Mapping[str, Array]) -> Fit:
    names = ["loss", "unit_embedding_gradient", "session_embedding_gradient"]
    return Fit(*session.run(names, dict(feeds)))


def error(got: Fit, want: Fit) -> float:
    """Largest difference over largest value, of loss or gradients; NaN when anything is."""
    pairs = list(zip(got, want, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]))


def signature(values: Any) -> dict[str, tuple[str, list[str | int]]]:
    return {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in values
    }
