"""torch_brain's own model: what benchmarks compare with, and what tests take for right.

Legend: B batch, N spikes, U units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parts.script import require
from parts.windows import Window
from poyo_edge.errors import UsageError
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens, window_tokens

_TORCH_BRAIN_FFN_MULT = 4


def torch_brain_model(spec: ModelSpec, **more: Any) -> Any:
    """torch_brain's own ``POYO`` of these sizes, in eval mode, vocabularies not yet set.

    Args:
        spec: sizes and time window.
        more: further arguments of ``torch_brain.models.POYO``.

    Raises:
        MissingExtraError: torch_brain is not installed.
        UsageError: torch_brain cannot build this size.
    """
    require("torch_brain", "train", "the comparison with torch_brain")
    from torch_brain.models import POYO

    if spec.ffn_mult != _TORCH_BRAIN_FFN_MULT:
        raise UsageError(
            f"ffn_mult: expected {_TORCH_BRAIN_FFN_MULT}, the only one that torch_brain builds, "
            f"got {spec.ffn_mult}"
        )
    model = POYO(
        sequence_length=spec.window_seconds,
        latent_step=float(spec.latent_step_s),
        num_latents_per_step=spec.latents_per_step,
        dim_out=spec.dim_out,
        dim=spec.dim,
        depth=spec.depth,
        dim_head=spec.dim_head,
        cross_heads=spec.cross_heads,
        self_heads=spec.self_heads,
        **more,
    )
    return model.eval()


def torch_brain_feeds(spec: ModelSpec, window: Window) -> dict[str, npt.NDArray[Any]]:
    """Inputs of torch_brain's forward: 2U boundary tokens, spikes, latents, one query.

    Unit i is row i + 1 of its table, the session is row 1; times are float32.
    """
    each = [
        window_tokens(
            time.astype(np.float64), unit.astype(np.int64), window.n_units, spec.window_seconds
        )
        for time, unit in zip(window.spike_time, window.spike_unit, strict=True)
    ]
    batch, (latent_index, latent_time) = len(each), latent_tokens(spec)
    return {
        "input_unit_index": np.stack([tokens.unit for tokens in each]) + 1,
        "input_timestamps": np.stack([tokens.time for tokens in each]).astype(np.float32),
        "input_token_type": np.stack([tokens.type for tokens in each]),
        "latent_index": np.tile(latent_index, (batch, 1)),
        "latent_timestamps": np.tile(latent_time.astype(np.float32), (batch, 1)),
        "session_index": np.ones(batch, np.int64),
        "output_timestamps": np.full((batch, 1), spec.window_seconds, np.float32),
    }
