"""What stays the same for every window of a session, computed once when the session is opened.

The encoder's keys and values depend on a token only through its unit and its type; the latent
queries are constants of the model; the 2U boundary tokens have fixed times, so their share of
the softmax is fixed too. All of it is algebra, not approximation, and small enough for numpy.

Legend: U units, D model dim, H cross-attention heads, L latents, K head dim, P rotating pairs.
Inside a head the dimensions are ordered: first members of the rotating pairs, second members,
then the dimensions that do not turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.core_inputs import PER_SESSION
from poyo_edge.errors import UsageError
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import TOKEN_END, TOKEN_SPIKE, TOKEN_START

LAYER_NORM_EPS = 1e-5


def constant_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name → shape of the tensors in ``weights.safetensors`` that the session constants need."""
    inner = spec.cross_heads * spec.dim_head
    return {
        "token_type": (3, spec.dim),
        "context_norm.weight": (spec.dim,),
        "context_norm.bias": (spec.dim,),
        "to_kv": (2 * inner, spec.dim),
        "latent_query": (spec.cross_heads, spec.n_latents, spec.dim_head),
        "omega": (spec.rotating_pairs,),
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionConstants:
    """The core's per-session inputs, float32 (shapes in the design's table of inputs)."""

    unit_kv: Float32
    """(U, 2·H·K): keys of all heads, then values of all heads, of each unit's spikes."""
    boundary_lse: Float32
    """(H, L): log-sum-exp of the scores of all boundary tokens."""
    boundary_value: Float32
    """(H, L, K): softmax-weighted value of all boundary tokens."""
    session_query: Float32
    """(D,): session embedding."""

    def feeds(self) -> dict[str, Float32]:
        """Name → array, as the core's graph names its inputs."""
        return {name: getattr(self, name) for name in PER_SESSION}


def session_constants(
    spec: ModelSpec,
    weights: Mapping[str, npt.NDArray[np.floating]],
    unit_embedding: npt.NDArray[np.floating],
    session_embedding: npt.NDArray[np.floating],
) -> SessionConstants:
    """Fold a session's embeddings into the core's inputs.

    Args:
        spec: sizes of the model.
        weights: the tensors of ``constant_shapes``.
        unit_embedding: (U, D), U >= 1.
        session_embedding: (D,).

    Raises:
        UsageError: a shape is wrong or a value is not finite.
    """
    _require_shape("unit_embedding", unit_embedding, (len(unit_embedding), spec.dim))
    _require_shape("session_embedding", session_embedding, (spec.dim,))
    for name, shape in constant_shapes(spec).items():
        _require_shape(name, weights[name], shape)
    if len(unit_embedding) == 0:
        raise UsageError("unit_embedding: expected at least one unit, got none")
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    units = np.asarray(unit_embedding, dtype=np.float64)
    heads, dim_head = spec.cross_heads, spec.dim_head

    def key_value(token_type: int) -> Float64:
        token = units + w["token_type"][token_type]
        token = layer_norm(token, w["context_norm.weight"], w["context_norm.bias"])
        return np.asarray(token @ w["to_kv"].T)

    spike = key_value(TOKEN_SPIKE)
    ends = np.stack([key_value(TOKEN_START), key_value(TOKEN_END)])
    ends = ends.reshape(2, len(units), 2 * heads, dim_head)
    cos, sin = rotation(w["omega"], np.array([0.0, spec.window_seconds]))
    ends = rotate_halves(ends, cos[:, None, None], sin[:, None, None])
    ends = ends.reshape(2 * len(units), 2, heads, dim_head)
    lse, value = _attend(w["latent_query"], ends[:, 0], ends[:, 1])
    return SessionConstants(
        unit_kv=spike.astype(np.float32),
        boundary_lse=lse.astype(np.float32),
        boundary_value=value.astype(np.float32),
        session_query=np.asarray(session_embedding, dtype=np.float32),
    )


def layer_norm(x: Float64, weight: Float64, bias: Float64) -> Float64:
    """LayerNorm over the last axis, (..., D) → (..., D); ``weight`` and ``bias`` are (D,)."""
    centred = x - x.mean(-1, keepdims=True)
    sd = np.sqrt((centred**2).mean(-1, keepdims=True) + LAYER_NORM_EPS)
    return np.asarray(centred / sd * weight + bias)


def rotation(
    omega: npt.NDArray[np.floating], time: npt.NDArray[np.floating]
) -> tuple[Float64, Float64]:
    """``(cos, sin)`` of the angles at ``time`` (...,) seconds, each (..., P) float64.

    The angle is a float32 product, as it is in the core and in torch_brain's
    ``RotaryTimeEmbedding.forward`` on float32 times: at 62,832 rad/s its rounding is 0.002 rad,
    so constants that were more exact than the core would not cancel against it.
    """
    angle = np.asarray(time, np.float32)[..., None] * np.asarray(omega, np.float32)
    return np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))


def rotate_halves(x: Float64, cos: Float64, sin: Float64) -> Float64:
    """Turn the first 2P head dimensions of ``x`` (..., K): halves, not neighbours, are pairs."""
    pairs = cos.shape[-1]
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def _attend(query_HLK: Float64, key_EHK: Float64, value_EHK: Float64) -> tuple[Float64, Float64]:
    score = np.einsum("hlk,ehk->hle", query_HLK, key_EHK, optimize=True)
    peak = score.max(-1, keepdims=True)
    weight = np.exp(score - peak)
    total = weight.sum(-1)
    value = np.einsum("hle,ehk->hlk", weight, value_EHK, optimize=True) / total[..., None]
    return peak[..., 0] + np.log(total), value


def _require_shape(name: str, array: npt.NDArray[np.floating], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise UsageError(f"{name}: expected shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{name}: expected finite values, got NaN or Inf")
