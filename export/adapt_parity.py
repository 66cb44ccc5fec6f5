"""Does ``adapt.onnx`` give the gradients that the checkpoint's own model gives?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poyo_edge.artifact import ADAPT, GoldenGradients
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.parity import Float32Angles, Reference
from poyo_edge.export.windows import Window, padded
from poyo_edge.model import POYO
from poyo_edge.runtime.backends import open_ort_cpu
from poyo_edge.tokens import boundary_tokens, latent_tokens

TOLERANCE = 1e-5
"""Largest error of a gradient, relative to its largest entry."""
_TOLERANCE_ROUNDING = 4.0
"""As in the parity of the core: this many times the model's own float32 rounding is allowed."""
_OUTPUTS = ("loss", "unit_embedding_gradient", "session_embedding_gradient")
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
    reference: Reference, adapt: bytes, windows: Sequence[Window], *, seed: int = 0
) -> tuple[GradientParity, GoldenGradients]:
    """Loss and gradients of a padded batch of windows with random labels, through both.

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
    got = open_ort_cpu(adapt, threads=1, what=ADAPT).run(list(_OUTPUTS), feeds)
    want = _own_gradients(model, feeds)
    double = copy.deepcopy(model).double()
    double.rotary_emb = Float32Angles(model.rotary_emb)  # type: ignore[assignment]
    rounding = _relative(want, _own_gradients(double, feeds))
    parity = GradientParity(
        max_relative_error=_relative(got, want),
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


def _own_gradients(model: POYO, feeds: Feeds) -> list[npt.NDArray[np.float64]]:
    """Loss, unit gradient and session gradient by the model's own forward and autograd."""
    dtype = model.readout.weight.dtype
    copied = copy.deepcopy(model).requires_grad_(False)
    units, session = (
        torch.from_numpy(feeds[name]).to(dtype).requires_grad_()
        for name in ("unit_embedding", "session_embedding")
    )
    copied._modules |= {"unit_emb": _Rows(units), "session_emb": _Rows(session[None])}
    spec = copied.spec
    batch, n_units = len(feeds["spike_unit"]), len(units)
    ends = boundary_tokens(n_units, spec.window_seconds)

    def behind(ends_part: npt.NDArray[Any], spikes: npt.NDArray[Any]) -> torch.Tensor:
        rows = np.broadcast_to(ends_part, (batch, len(ends_part))).astype(spikes.dtype)
        return torch.from_numpy(np.concatenate([rows, spikes], axis=1))

    spike_unit = feeds["spike_unit"].astype(np.int64)
    index, time = latent_tokens(spec)
    prediction = copied(
        input_unit_index=behind(ends.unit, spike_unit),
        input_timestamps=behind(ends.time, feeds["spike_time"]),
        input_token_type=behind(ends.type, np.zeros_like(spike_unit)),
        input_mask=behind(np.ones(2 * n_units, np.bool_), feeds["spike_mask"]),
        latent_index=torch.from_numpy(np.tile(index, (batch, 1))),
        latent_timestamps=torch.from_numpy(np.tile(time, (batch, 1)).astype(np.float32)),
        session_index=torch.zeros(batch, dtype=torch.int64),
        output_timestamps=torch.from_numpy(feeds["query_time"]),
    )
    weight = torch.from_numpy(feeds["target_weight"]).to(dtype)
    error = (prediction - torch.from_numpy(feeds["target"]).to(dtype)).square().mean(-1)
    loss = (error * weight).sum() / weight.sum()
    loss.backward()
    assert units.grad is not None
    assert session.grad is not None
    found = (loss.detach(), units.grad, session.grad)
    return [part.double().numpy() for part in found]


def _relative(got: Sequence[Any], want: Sequence[npt.NDArray[np.float64]]) -> float:
    return max(
        float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
        for one, other in zip(got, want, strict=True)
    )
