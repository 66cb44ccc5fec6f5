"""Do the graphs of gradients give what the checkpoint's own model gives?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poyo_edge.artifact import GoldenGradients
from poyo_edge.artifact.core_weights import half_split_order, permute_rows
from poyo_edge.core_inputs import ENCODER, ENCODER_WEIGHTS
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.fold import N_TYPES
from poyo_edge.export.parity.core import Reference, in_float64
from poyo_edge.export.parity.meter import Meter, Progress
from poyo_edge.export.parity.windows import Window, padded
from poyo_edge.model import POYO
from poyo_edge.runtime.backends import open_ort_cpu
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import boundary_tokens, latent_tokens

TOLERANCE = 1e-5
"""Largest error of a gradient, relative to its largest entry."""
_TOLERANCE_ROUNDING = 4.0
"""As in the parity of the core: this many times the model's own float32 rounding is allowed."""
_OUTPUTS = (
    "loss", "unit_embedding_gradient", "session_embedding_gradient",
    *(f"{ENCODER}{name}_gradient" for name in ENCODER_WEIGHTS),
)  # fmt: skip
Feeds = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GradientParity:
    """The largest error of loss and gradients, each relative to its largest entry."""

    max_relative_error: float
    rounding: float
    """The model's own: its float32 gradients against its float64 gradients."""
    tolerance: float

    def require(self) -> None:
        """Raise when the error is too large.

        Raises:
            CheckFailedError: with the figures.
        """
        if not self.max_relative_error <= self.tolerance:
            raise CheckFailedError(
                f"parity of gradients: expected a relative error of at most {self.tolerance:.2e}, "
                f"got {self.max_relative_error:.2e}; no artifact was written: please report this "
                f"with the checkpoint's layout"
            )


def compare_gradients(
    reference: Reference,
    graphs: Mapping[str, bytes],
    windows: Sequence[Window],
    *,
    seed: int = 0,
    tell: Progress | None = None,
) -> tuple[GradientParity, GoldenGradients]:
    """Loss and gradients of a padded batch of windows with random labels, through all.

    Args:
        reference: the checkpoint's own model.
        graphs: file name in the artifact → bytes; the largest error of all counts.
        windows: the batch.
        seed: of the labels.
        tell: told how many windows the checkpoint's own model has done.

    Returns:
        The parity, and the batch with what the checkpoint's own model says, for ``verify``.
    """
    rng = np.random.default_rng(seed)
    feeds: Feeds = dict(padded(windows))
    n_queries, dim_out = feeds["query_time"].shape[1], reference.model.spec.dim_out
    shape = (len(windows), n_queries)
    feeds["target"] = rng.standard_normal((*shape, dim_out)).astype(np.float32)
    feeds["target_weight"] = rng.uniform(0.5, 1.0, shape).astype(np.float32)
    model = reference.model
    rows = torch.from_numpy(reference.unit_rows)
    feeds["unit_embedding"] = model.unit_emb.weight.detach()[rows].numpy().copy()
    feeds["session_embedding"] = (
        model.session_emb.weight.detach()[reference.session_row].numpy().copy()
    )
    got = [
        open_ort_cpu(graph, threads=1, what=name).run(list(_OUTPUTS), feeds)
        for name, graph in graphs.items()
    ]
    meter = Meter(tell, 2 * len(windows))
    want = _own_gradients(model, feeds, meter)
    rounding = _relative(want, _own_gradients(in_float64(model), feeds, meter))
    parity = GradientParity(
        max_relative_error=max(_relative(one, want) for one in got),
        rounding=rounding,
        tolerance=max(TOLERANCE, _TOLERANCE_ROUNDING * rounding),
    )
    expected = {
        name: np.asarray(array, np.float32) for name, array in zip(_OUTPUTS, want, strict=True)
    }
    return parity, GoldenGradients(feeds=feeds, expected=expected, tolerance=10 * parity.tolerance)


class _Rows(torch.nn.Module):
    """Stands in for a vocabulary: the session's rows alone."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """(...,) → (..., D)."""
        return self.table[index]


def _own_gradients(model: POYO, feeds: Feeds, meter: Meter) -> list[npt.NDArray[np.float64]]:
    """Loss and all gradients by the model's own forward and autograd, in the order of ``_OUTPUTS``.

    Windows go through one by one, without padding, and their gradients add up.
    """
    dtype = model.readout.weight.dtype
    copied = copy.deepcopy(model).requires_grad_(False)
    units, session = (
        torch.from_numpy(feeds[name]).to(dtype).requires_grad_()
        for name in ("unit_embedding", "session_embedding")
    )
    copied._modules |= {"unit_emb": _Rows(units), "session_emb": _Rows(session[None])}
    attention = copied.enc_atn
    encoder = {
        "token_type": copied.token_type_emb.weight,
        "context_norm.weight": attention.norm_context.weight,
        "context_norm.bias": attention.norm_context.bias,
        "to_kv": attention.to_kv.weight,
    }
    for parameter in encoder.values():
        parameter.requires_grad_()
    weight = torch.from_numpy(feeds["target_weight"]).to(dtype)
    target = torch.from_numpy(feeds["target"])
    loss = torch.zeros((), dtype=dtype)
    for i in meter.over(range(len(weight))):
        prediction = copied(**_own_feeds(feeds, i, len(units), copied.spec))
        error = (prediction[0] - target[i]).square().mean(-1)
        part = (error * weight[i]).sum() / weight.sum()
        part.backward()
        loss += part.detach()
    found = {name: _gradient(parameter) for name, parameter in encoder.items()}
    found["token_type"] = found["token_type"][:N_TYPES]
    order = half_split_order(copied.rotary_emb.omega.numpy())
    found["to_kv"] = permute_rows(found["to_kv"], order, copied.spec.dim_head)
    own = [_gradient(units), _gradient(session), *(found[name] for name in ENCODER_WEIGHTS)]
    return [loss.double().numpy(), *own]


def _gradient(of: torch.Tensor) -> npt.NDArray[np.float64]:
    assert of.grad is not None
    return np.asarray(of.grad.double().numpy())


def _own_feeds(feeds: Feeds, i: int, n_units: int, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """What torch_brain's forward takes for one window of the batch, without its padding."""
    ends, (index, time) = boundary_tokens(n_units, spec.window_seconds), latent_tokens(spec)
    kept = feeds["spike_mask"][i]
    unit, spike_time = feeds["spike_unit"][i, kept].astype(np.int64), feeds["spike_time"][i, kept]
    arrays = {
        "input_unit_index": np.concatenate([ends.unit, unit]),
        "input_timestamps": np.concatenate([ends.time, spike_time], dtype=np.float32),
        "input_token_type": np.concatenate([ends.type, np.zeros_like(unit)]),
        "latent_index": index,
        "latent_timestamps": time.astype(np.float32),
        "session_index": np.int64(0),
        "output_timestamps": feeds["query_time"][i],
    }
    return {name: torch.from_numpy(np.asarray(array)[None]) for name, array in arrays.items()}


def _relative(got: Sequence[Any], want: Sequence[npt.NDArray[np.float64]]) -> float:
    return max(
        float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
        for one, other in zip(got, want, strict=True)
    )
