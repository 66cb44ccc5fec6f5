"""Loss and gradients of both graphs of gradients against autograd through two torch models."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch_brain.models")

from helpers.models.adapt_oracle import (  # noqa: E402
    FAST,
    PLAIN,
    SPECS,
    Feeds,
    Fit,
    Shape,
    error,
    frozen,
    labelled_windows,
    run,
)
from helpers.models.graphs import open_graph  # noqa: E402

from poyo_edge.export.graph.core import build_core  # noqa: E402
from poyo_edge.runtime.backends import open_backend  # noqa: E402
from poyo_edge.runtime.constants import session_constants  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = ("poyo_edge", "torch_brain")
GRAPHS = (PLAIN, FAST)
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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("spec", SPECS)
def test_loss_and_gradients_equal_autograds(spec: str, shape: Shape, model: str) -> None:
    feeds = labelled_windows(SPECS[spec], shape)
    want = frozen(spec).autograd(feeds, model)
    for graph in GRAPHS:
        assert error(frozen(spec).fit(feeds, graph), want) <= LIMIT, graph


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_the_encoders_weights_equal_autograds(spec: str, model: str) -> None:
    feeds = labelled_windows(SPECS[spec], USUAL)
    want = frozen(spec).encoder_autograd(feeds, model)
    for graph in GRAPHS:
        for name, got in frozen(spec).encoder_gradients(feeds, graph).items():
            assert got.shape == want[name].shape
            assert np.abs(got - want[name]).max() <= LIMIT * np.abs(want[name]).max(), name


def test_weights_of_the_encoder_that_are_given_take_the_place_of_the_models() -> None:
    feeds, spec = labelled_windows(SPECS["odd"], USUAL), SPECS["odd"]
    own = {name: 1.1 * frozen("odd").folded.session[name] for name in ("to_kv", "token_type")}
    constants = session_constants(
        spec,
        {**frozen("odd").folded.session, **own},
        feeds["unit_embedding"],
        feeds["session_embedding"],
    )
    core = open_backend("ort-cpu", build_core(frozen("odd").folded).SerializeToString())
    window = ("spike_unit", "spike_time", "spike_mask", "query_time")
    prediction = core.run({**{name: feeds[name] for name in window}, **constants.feeds()})
    square = ((prediction.astype(np.float64) - feeds["target"]) ** 2).mean(-1)
    want = np.average(square, weights=feeds["target_weight"])
    given = {f"encoder.{name}": array for name, array in own.items()}
    for graph in GRAPHS:
        assert frozen("odd").fit({**feeds, **given}, graph).loss == pytest.approx(want, rel=LIMIT)


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
    for graph in GRAPHS:
        for some, other in zip(feeds, reversed(feeds), strict=True):
            first, _, again = (frozen("odd").fit(x, graph) for x in (some, other, some))
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
        fits.append([frozen(spec).fit({**feeds, **padded}, graph) for graph in GRAPHS])
    for plain, fast in fits:
        assert error(plain, fits[0][0]) <= ROUNDING
        assert error(fast, fits[0][1]) <= ROUNDING


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
    for graph in GRAPHS:
        fit = frozen("odd").fit(feeds, graph)
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
        session = open_graph(frozen("wide heads").proto.SerializeToString(), threads=threads)
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


def test_the_graph_for_onnx_runtime_takes_no_other_foreign_operators() -> None:
    """Those that every ONNX Runtime from 1.19 has."""
    nodes = frozen("odd").fast.graph.node
    foreign = {node.op_type for node in nodes if node.domain == "com.microsoft"}
    assert foreign == {"FusedMatMul", "RotaryEmbedding"}
    assert {node.domain for node in nodes} == {"", "com.microsoft"}
    assert all(node.domain == "" for node in frozen("odd").proto.graph.node)
