"""What the keys, shapes and vocabularies of a POYO ``state_dict`` say about the model.

The keys are those of torch_brain's ``POYO`` since November 2024 ("flat" keys). Sizes come from
shapes alone: configurations that were saved beside the weights can contradict them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from poyo_edge.checkpoint.foreign import Foreign
from poyo_edge.checkpoint.keys import OMEGA, SESSION_TABLE, UNIT_TABLE, VOCAB_KEYS
from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.model import NOT_AVAILABLE, RotaryTimeEmbedding
from poyo_edge.records import is_text
from poyo_edge.spec import ModelSpec

Shape = tuple[int, ...]
OmegaFormula = Literal["v0.1.0", "v0.1.1+", "custom"]

# The two published formulas differ by 1.1e-5 (relative, slowest pair), float32 noise is 1e-6.
_OMEGA_TOLERANCE = 4e-6


def float_tensors(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """All entries but the vocabularies as contiguous float32 CPU tensors.

    Raises:
        CheckpointError: an entry is no dense floating-point tensor, or is not finite.
    """
    weights = {}
    for key, value in state.items():
        if key in VOCAB_KEYS:
            continue
        if not _is_dense_float(value):
            raise _wrong(path, key, "a dense floating-point tensor", _kind(value))
        weights[key] = value.detach().to(torch.float32, copy=True).contiguous()
        n_bad = int((~torch.isfinite(weights[key])).sum())
        if n_bad:
            raise _wrong(path, key, "finite float32 numbers", f"{n_bad} that are not finite")
    return weights


def _kind(value: object) -> object:
    if isinstance(value, Foreign):
        return value.name
    return value.dtype if isinstance(value, Tensor) else type(value).__name__


def _is_dense_float(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.device.type == "cpu"
    )


def spec_from_weights(
    path: Path, weights: Mapping[str, Tensor], window_s: float, latent_step_s: float
) -> ModelSpec:
    """The sizes that the shapes imply, after every key and shape has been found to agree.

    Raises:
        CheckpointError: a key is missing or unexpected, or a shape contradicts the others.
    """
    omega = _omega(path, weights)
    dim_head = 2 * len(omega)
    latents_per_step, dim = _shape(path, weights, "latent_emb.weight", 2)
    depth = _depth(weights)
    self_heads = (
        _count(path, weights, "proc_layers.0.0.to_qkv.weight", 3 * dim_head) if depth else 1
    )
    hidden = _shape(path, weights, "enc_ffn.1.net.3.weight", 2)[1]
    try:
        spec = ModelSpec(
            dim=dim,
            depth=depth,
            dim_head=dim_head,
            cross_heads=_count(path, weights, "enc_atn.to_q.weight", dim_head),
            self_heads=self_heads,
            latents_per_step=latents_per_step,
            dim_out=_shape(path, weights, "readout.weight", 2)[0],
            ffn_mult=hidden // max(dim, 1),
            rotating_pairs=int((omega != 0).sum()),
            window_s=window_s,
            latent_step_s=latent_step_s,
        )
    except UsageError as error:
        raise _wrong(path, "sizes", "the shapes of a POYO", str(error)) from None
    _require_shapes(path, weights, spec)
    return spec


def expected_shapes(spec: ModelSpec, n_unit_rows: int, n_session_rows: int) -> dict[str, Shape]:
    """Key → shape of every tensor in the ``state_dict`` of a POYO with these sizes."""
    dim = spec.dim
    cross, own = spec.cross_heads * spec.dim_head, spec.self_heads * spec.dim_head
    shapes: dict[str, Shape] = {
        UNIT_TABLE: (n_unit_rows, dim),
        SESSION_TABLE: (n_session_rows, dim),
        "token_type_emb.weight": (4, dim),
        "latent_emb.weight": (spec.latents_per_step, dim),
        OMEGA: (spec.dim_head // 2,),
    }
    for side in ("enc", "dec"):
        shapes |= _norm(f"{side}_atn.norm", dim) | _norm(f"{side}_atn.norm_context", dim)
        shapes[f"{side}_atn.to_q.weight"] = (cross, dim)
        shapes[f"{side}_atn.to_kv.weight"] = (2 * cross, dim)
        shapes |= _linear(f"{side}_atn.to_out", dim, cross) | _feed_forward(f"{side}_ffn", spec)
    for i in range(spec.depth):
        layer = f"proc_layers.{i}"
        shapes |= _norm(f"{layer}.0.norm", dim) | _linear(f"{layer}.0.to_out", dim, own)
        shapes[f"{layer}.0.to_qkv.weight"] = (3 * own, dim)
        shapes |= _feed_forward(f"{layer}.1", spec)
    return shapes | _linear("readout", spec.dim_out, dim)


def omega_formula(omega: Tensor) -> OmegaFormula:
    """Which release of torch_brain computed ``omega`` (P,) float32 rad/s.

    v0.1.0 spaced the periods from 0.1 ms by powers of 4 s / 0.1 ms, without the last one; v0.1.1
    and later space them from 0.1 ms to 2.0627 s.
    """
    n_pairs = int((omega != 0).sum())
    if n_pairs == 0:
        return "custom"
    turning = omega[:n_pairs].double()
    power = torch.arange(n_pairs, dtype=torch.float64) / n_pairs
    old = 2 * math.pi / (1e-4 * (4.0 / 1e-4) ** power)
    new = RotaryTimeEmbedding(2 * len(omega), n_pairs).omega[:n_pairs].double()
    error = {"v0.1.0": (turning / old - 1).abs().max(), "v0.1.1+": (turning / new - 1).abs().max()}
    if min(error.values()) > _OMEGA_TOLERANCE:
        return "custom"
    return "v0.1.0" if error["v0.1.0"] < error["v0.1.1+"] else "v0.1.1+"


def vocab_rows(path: Path, state: Mapping[str, Any], key: str, n_rows: int) -> dict[str, int]:
    """Word → row of the table, ordered by row, as plain ``str`` and ``int``.

    Raises:
        CheckpointError: the vocabulary is absent or does not name each row exactly once.
    """
    vocab = state.get(key)
    if not isinstance(vocab, Mapping):
        got = type(vocab).__name__ if key in state else "no such key"
        raise _wrong(path, key, "a mapping from ids to rows", got)
    for word, row in vocab.items():
        if not is_text(word) or type(row) is not int or not 0 <= row < n_rows:
            raise _wrong(path, key, f"ids with rows 0 to {n_rows - 1}", f"{word!r}: {row!r}")
    if vocab.get(NOT_AVAILABLE) != 0:
        got = vocab.get(NOT_AVAILABLE, "no such word")
        raise _wrong(path, key, f"the word {NOT_AVAILABLE!r} at row 0", got)
    if len(set(vocab.values())) != len(vocab):
        raise _wrong(path, key, "a row of its own for each id", "ids that share a row")
    if len(vocab) != n_rows:
        raise _wrong(path, key, f"{n_rows} ids, one per row of the table", f"{len(vocab)} ids")
    return {str(word): row for word, row in sorted(vocab.items(), key=lambda item: item[1])}


def _omega(path: Path, weights: Mapping[str, Tensor]) -> Tensor:
    _shape(path, weights, OMEGA, 1)
    omega = weights[OMEGA]
    if bool((omega < 0).any()):
        raise _wrong(path, OMEGA, "rates >= 0 rad/s", f"{omega.min().item():g}")
    turning = omega != 0
    # One count describes the rotation everywhere else, so the turning pairs must come first.
    if bool((turning[1:] & ~turning[:-1]).any()):
        raise _wrong(path, OMEGA, "zeros only at the end", "a zero before another rate")
    return omega


def _depth(weights: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in weights if key.startswith("proc_layers.")})


def _shape(path: Path, weights: Mapping[str, Tensor], key: str, n_axes: int) -> Shape:
    if key not in weights:
        raise _wrong(path, key, "a tensor", "no such key")
    shape = tuple(weights[key].shape)
    if len(shape) != n_axes or 0 in shape:
        raise _wrong(path, key, f"a tensor with {n_axes} non-empty axes", f"shape {shape}")
    return shape


def _count(path: Path, weights: Mapping[str, Tensor], key: str, step: int) -> int:
    n_rows = _shape(path, weights, key, 2)[0]
    if n_rows % step:
        raise _wrong(path, key, f"a multiple of {step} rows", f"{n_rows} rows")
    return n_rows // step


def _require_shapes(path: Path, weights: Mapping[str, Tensor], spec: ModelSpec) -> None:
    n_unit_rows = _shape(path, weights, UNIT_TABLE, 2)[0]
    n_session_rows = _shape(path, weights, SESSION_TABLE, 2)[0]
    expected = expected_shapes(spec, n_unit_rows, n_session_rows)
    missing = [key for key in expected if key not in weights]
    if missing:
        got = f"no such key ({len(missing)} of {len(expected)} keys are missing)"
        raise _wrong(path, missing[0], f"a tensor of shape {expected[missing[0]]}", got)
    for key, tensor in weights.items():
        shape = tuple(tensor.shape)
        if key not in expected:
            raise _wrong(path, key, "no such key in a POYO", f"a tensor of shape {shape}")
        if shape != expected[key]:
            raise _wrong(path, key, f"shape {expected[key]}", f"shape {shape}")


def _linear(key: str, n_out: int, n_in: int) -> dict[str, Shape]:
    return {f"{key}.weight": (n_out, n_in), f"{key}.bias": (n_out,)}


def _norm(key: str, dim: int) -> dict[str, Shape]:
    return {f"{key}.weight": (dim,), f"{key}.bias": (dim,)}


def _feed_forward(key: str, spec: ModelSpec) -> dict[str, Shape]:
    dim, hidden = spec.dim, spec.dim * spec.ffn_mult
    inner = _linear(f"{key}.1.net.0", 2 * hidden, dim) | _linear(f"{key}.1.net.3", dim, hidden)
    return _norm(f"{key}.0", dim) | inner


def _wrong(path: Path, key: str, expected: object, got: object) -> CheckpointError:
    do = "pass a checkpoint of torch_brain's POYO (single head, spikes)"
    return CheckpointError(path, key, expected=expected, got=got, do=do)
