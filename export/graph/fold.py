"""Fold POYO's weights: everything that is constant for a model is computed here, once.

Plain numpy on plain arrays; the graph (``export/graph/core.py``) and the session constants
(``runtime/constants.py``) are built from the result.

Legend: D model dim, H heads, L latents, K head dim, P rotating pairs, C = H·K.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float32, Float64
from poyo_edge.artifact.core_weights import half_split_order, permute_rows
from poyo_edge.runtime.constants import layer_norm, rotate_halves, rotation
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens

Weights = Mapping[str, npt.NDArray[np.floating]]
N_TYPES = 3
"""Types that tokens of a session have: spike, start, end. The table has a fourth."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """LayerNorm: weight and bias, each (D,)."""

    weight: Float32
    bias: Float32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardWeights:
    """LayerNorm, value and gate projections (D, 4D) with biases, output (4D, D) with bias."""

    norm: Norm
    value: tuple[Float32, Float32]
    gate: tuple[Float32, Float32]
    out: tuple[Float32, Float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One processing layer: queries, keys and values (D, 3·C), output (C, D) with bias."""

    norm: Norm
    qkv: Float32
    out: tuple[Float32, Float32]
    feed_forward: FeedForwardWeights


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldedWeights:
    """All constants of the core, float32, with head dimensions in half-split order."""

    spec: ModelSpec
    omega: Float32
    """(P,) rad/s, the frequencies other than 0."""
    latent_cos: Float32
    """(L, P), and ``latent_sin`` likewise: rotation by the latents' times."""
    latent_sin: Float32
    latent: Float32
    """(L, D): latent embeddings, repeated over the steps."""
    latent_query: Float32
    """(H, L, K): the encoder's queries, rotated and scaled by 1/√K."""
    session: dict[str, Float32]
    """The tensors that the session constants need (``runtime.constants.constant_shapes``)."""
    encoder_out: tuple[Float32, Float32]
    encoder_feed_forward: FeedForwardWeights
    layers: tuple[LayerWeights, ...]
    decoder_query_norm: Norm
    decoder_query: Float32
    """(D, C), scaled by 1/√K."""
    decoder_context_norm: Norm
    decoder_key_value: Float32
    """(D, 2·C): keys of all heads, then values of all heads."""
    decoder_out: tuple[Float32, Float32]
    decoder_feed_forward: FeedForwardWeights
    readout: tuple[Float32, Float32]


def fold(weights: Weights, spec: ModelSpec) -> FoldedWeights:
    """Fold a ``state_dict`` (torch_brain's flat keys, without vocabularies).

    Args:
        weights: name → array as in the ``state_dict``.
        spec: sizes that the shapes agree with.
    """
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    omega_all = w["rotary_emb.omega"]
    order = half_split_order(omega_all)
    omega = omega_all[omega_all != 0]
    index, time = latent_tokens(spec)
    cos, sin = rotation(omega, time)
    heads, dim_head = spec.cross_heads, spec.dim_head
    scale = 1.0 / math.sqrt(dim_head)

    latent = w["latent_emb.weight"][index]
    to_q = permute_rows(w["enc_atn.to_q.weight"], order, dim_head)
    query = layer_norm(latent, w["enc_atn.norm.weight"], w["enc_atn.norm.bias"])
    query = query @ to_q.T * scale
    query = query.reshape(len(index), heads, dim_head).transpose(1, 0, 2)
    query = rotate_halves(query, cos, sin)
    session = {
        "token_type": w["token_type_emb.weight"][:N_TYPES],
        "context_norm.weight": w["enc_atn.norm_context.weight"],
        "context_norm.bias": w["enc_atn.norm_context.bias"],
        "to_kv": permute_rows(w["enc_atn.to_kv.weight"], order, dim_head),
        "latent_query": query,
        "omega": omega,
    }
    # Values are turned in the encoder and the self-attention only, but one order serves all.
    return FoldedWeights(
        spec=spec,
        omega=_f32(omega),
        latent_cos=_f32(cos),
        latent_sin=_f32(sin),
        latent=_f32(latent),
        latent_query=_f32(query),
        session={name: _f32(value) for name, value in session.items()},
        encoder_out=_output(w, "enc_atn.to_out", order, dim_head),
        encoder_feed_forward=_feed_forward(w, "enc_ffn"),
        layers=tuple(_layer(w, f"proc_layers.{i}", order, spec, scale) for i in range(spec.depth)),
        decoder_query_norm=_norm(w, "dec_atn.norm"),
        decoder_query=_f32(permute_rows(w["dec_atn.to_q.weight"], order, dim_head).T * scale),
        decoder_context_norm=_norm(w, "dec_atn.norm_context"),
        decoder_key_value=_f32(permute_rows(w["dec_atn.to_kv.weight"], order, dim_head).T),
        decoder_out=_output(w, "dec_atn.to_out", order, dim_head),
        decoder_feed_forward=_feed_forward(w, "dec_ffn"),
        readout=_linear(w, "readout"),
    )


def _layer(
    w: Mapping[str, Float64],
    prefix: str,
    order: npt.NDArray[np.int64],
    spec: ModelSpec,
    scale: float,
) -> LayerWeights:
    qkv = permute_rows(w[f"{prefix}.0.to_qkv.weight"], order, spec.dim_head).T.copy()
    qkv[:, : spec.self_heads * spec.dim_head] *= scale
    return LayerWeights(
        norm=_norm(w, f"{prefix}.0.norm"),
        qkv=_f32(qkv),
        out=_output(w, f"{prefix}.0.to_out", order, spec.dim_head),
        feed_forward=_feed_forward(w, f"{prefix}.1"),
    )


def _feed_forward(w: Mapping[str, Float64], prefix: str) -> FeedForwardWeights:
    weight, bias = w[f"{prefix}.1.net.0.weight"], w[f"{prefix}.1.net.0.bias"]
    hidden = len(bias) // 2
    return FeedForwardWeights(
        norm=_norm(w, f"{prefix}.0"),
        value=(_f32(weight[:hidden].T), _f32(bias[:hidden])),
        gate=(_f32(weight[hidden:].T), _f32(bias[hidden:])),
        out=_linear(w, f"{prefix}.1.net.3"),
    )


def _linear(w: Mapping[str, Float64], prefix: str) -> tuple[Float32, Float32]:
    return _f32(w[f"{prefix}.weight"].T), _f32(w[f"{prefix}.bias"])


def _output(
    w: Mapping[str, Float64], prefix: str, order: npt.NDArray[np.int64], dim_head: int
) -> tuple[Float32, Float32]:
    weight = permute_rows(w[f"{prefix}.weight"].T, order, dim_head)
    return _f32(weight), _f32(w[f"{prefix}.bias"])


def _norm(w: Mapping[str, Float64], prefix: str) -> Norm:
    return Norm(weight=_f32(w[f"{prefix}.weight"]), bias=_f32(w[f"{prefix}.bias"]))


def _f32(x: npt.NDArray[np.floating]) -> Float32:
    return np.ascontiguousarray(x, dtype=np.float32)
