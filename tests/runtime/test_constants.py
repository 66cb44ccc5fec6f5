"""Session constants against attention written out slowly, over all 2U boundary tokens."""

from __future__ import annotations

import cmath
import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.constants import (
    LAYER_NORM_EPS,
    SessionConstants,
    constant_shapes,
    rotate_halves,
    rotation,
    session_constants,
)
from poyo_edge.spec import ModelSpec

SPEC = ModelSpec(
    dim=6,
    depth=0,
    dim_head=8,
    cross_heads=3,
    self_heads=1,
    latents_per_step=2,
    dim_out=1,
    rotating_pairs=3,
    window_s=0.7,
    latent_step_s=0.25,
)
N_UNITS = 5
RELATIVE = 1e-6  # float32 results; measured worst case 4e-8 of the largest value

Array = npt.NDArray[np.float64]


def weights(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=shape) for name, shape in constant_shapes(SPEC).items()}
    return {**drawn, "omega": np.array([62831.0, 300.0, 2.0])}


def embeddings(seed: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N_UNITS, SPEC.dim)), rng.normal(size=SPEC.dim)


def slow_key_and_value(w: dict[str, Array], unit: Array, token_type: int, time: float) -> Array:
    """(2, H, K): key and value of one token, turned by its time."""
    token = unit + w["token_type"][token_type]
    spread = math.sqrt(((token - token.mean()) ** 2).mean() + LAYER_NORM_EPS)
    normed = (token - token.mean()) / spread * w["context_norm.weight"] + w["context_norm.bias"]
    turned = (w["to_kv"] @ normed).reshape(2, SPEC.cross_heads, SPEC.dim_head)
    pairs = SPEC.rotating_pairs
    for i, omega in enumerate(w["omega"]):
        turn = cmath.exp(1j * float(np.float32(time) * np.float32(omega)))
        both = (turned[..., i] + 1j * turned[..., pairs + i]) * turn
        turned[..., i], turned[..., pairs + i] = both.real, both.imag
    return np.asarray(turned)


def slow_boundary(w: dict[str, Array], units: Array) -> tuple[Array, Array]:
    """Log-sum-exp (H, L) and softmax-weighted value (H, L, K) of all start and end tokens."""
    ends = [
        slow_key_and_value(w, unit, token_type, time)
        for unit in units
        for token_type, time in ((1, 0.0), (2, SPEC.window_seconds))
    ]
    lse = np.empty((SPEC.cross_heads, SPEC.n_latents))
    value = np.empty((*lse.shape, SPEC.dim_head))
    for head in range(SPEC.cross_heads):
        for latent in range(SPEC.n_latents):
            query = w["latent_query"][head, latent]
            shares = np.array([math.exp(query @ key[head]) for key, _ in ends])
            lse[head, latent] = math.log(shares.sum())
            values = np.array([value[head] for _, value in ends])
            value[head, latent] = (shares[:, None] * values).sum(0) / shares.sum()
    return lse, value


def close(actual: npt.NDArray[Any], expected: Array) -> bool:
    return bool(np.abs(actual - expected).max() <= RELATIVE * np.abs(expected).max())


def folded(w: dict[str, Array], units: Array, session: Array) -> SessionConstants:
    return session_constants(SPEC, w, units, session)


def test_boundary_tokens_collapse_to_what_slow_attention_gives() -> None:
    w, (units, session) = weights(), embeddings()
    constants = folded(w, units, session)
    lse, value = slow_boundary(w, units)
    assert close(constants.boundary_lse, lse)
    assert close(constants.boundary_value, value)


def test_one_unit_table_row_is_the_spike_token_without_its_time() -> None:
    w, (units, session) = weights(), embeddings()
    constants = folded(w, units, session)
    for row, unit in zip(constants.unit_kv, units, strict=True):
        assert close(row, slow_key_and_value(w, unit, 0, 0.0).ravel())


def test_the_session_query_is_the_session_embedding() -> None:
    units, session = embeddings()
    constants = folded(weights(), units, session)
    assert constants.session_query.tolist() == session.astype(np.float32).tolist()


def test_constants_have_the_shapes_that_the_core_declares() -> None:
    feeds = folded(weights(), *embeddings()).feeds()
    heads, latents, dim_head = SPEC.cross_heads, SPEC.n_latents, SPEC.dim_head
    assert {name: array.shape for name, array in feeds.items()} == {
        "unit_kv": (N_UNITS, 2 * heads * dim_head),
        "boundary_lse": (heads, latents),
        "boundary_value": (heads, latents, dim_head),
        "session_query": (SPEC.dim,),
    }
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.float32)}


def test_the_order_of_units_changes_only_the_order_of_the_table() -> None:
    w, (units, session) = weights(), embeddings()
    order = np.array([3, 0, 4, 2, 1])
    one, other = folded(w, units, session), folded(w, units[order], session)
    assert np.array_equal(other.unit_kv, one.unit_kv[order])
    assert close(other.boundary_lse, one.boundary_lse.astype(np.float64))
    assert close(other.boundary_value, one.boundary_value.astype(np.float64))


def test_scores_too_large_for_exp_stay_finite() -> None:
    w, (units, session) = weights(), embeddings()
    constants = folded({**w, "latent_query": 500 * w["latent_query"]}, units, session)
    assert np.abs(constants.boundary_lse).max() > 800
    assert all(np.isfinite(array).all() for array in constants.feeds().values())


def test_the_angle_is_a_float32_product_as_it_is_in_the_core() -> None:
    omega, time = np.array([62831.853]), np.array([0.7312345])
    cos, sin = rotation(omega, time)
    angle = float(np.float32(62831.853) * np.float32(0.7312345))
    assert (cos[0, 0], sin[0, 0]) == (np.cos(angle), np.sin(angle))
    assert abs(cos[0, 0] - math.cos(62831.853 * 0.7312345)) > 1e-5


def test_turning_back_undoes_turning() -> None:
    x = np.random.default_rng(2).normal(size=(4, SPEC.dim_head))
    cos, sin = rotation(weights()["omega"], np.array([0.1, 0.2, 0.3, 0.4]))
    turned = rotate_halves(x, cos, sin)
    assert np.array_equal(turned[:, 6:], x[:, 6:])
    assert np.abs(turned[:, :6] - x[:, :6]).min() > 1e-6
    assert np.abs(rotate_halves(turned, cos, -sin) - x).max() < 1e-14


@pytest.mark.parametrize(
    ("units", "session", "message"),
    [
        (np.zeros((3, 7)), np.zeros(6), "unit_embedding: expected shape (3, 6), got (3, 7)"),
        (np.zeros((3, 6)), np.zeros((1, 6)), "session_embedding: expected shape (6,), got (1, 6)"),
        (np.zeros((0, 6)), np.zeros(6), "unit_embedding: expected at least one unit, got none"),
        (
            np.full((3, 6), np.nan),
            np.zeros(6),
            "unit_embedding: expected finite values, got NaN or Inf",
        ),
        (
            np.zeros((3, 6)),
            np.array([0, 0, np.inf, 0, 0, 0]),
            "session_embedding: expected finite values, got NaN or Inf",
        ),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(units: Array, session: Array, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message) + "$"):
        folded(weights(), units, session)
