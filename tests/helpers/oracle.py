"""torch_brain's POYO, the oracle of several tests, built from our ``ModelSpec``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from poyo_edge.spec import ModelSpec


def make_oracle(
    spec: ModelSpec, unit_ids: Sequence[str], session_ids: Sequence[str], *, seed: int = 0
) -> Any:
    """In eval mode, with embeddings large enough that its outputs vary."""
    from torch_brain.models import POYO

    torch.manual_seed(seed)
    model = POYO(
        sequence_length=spec.window_seconds,
        latent_step=spec.latent_step_s,
        num_latents_per_step=spec.latents_per_step,
        dim_out=spec.dim_out,
        dim=spec.dim,
        depth=spec.depth,
        dim_head=spec.dim_head,
        cross_heads=spec.cross_heads,
        self_heads=spec.self_heads,
    )
    model.unit_emb.initialize_vocab(list(unit_ids))
    model.session_emb.initialize_vocab(list(session_ids))
    with torch.no_grad():
        for name in ("unit_emb", "session_emb", "token_type_emb", "latent_emb"):
            getattr(model, name).weight.normal_()
    return model.eval()
