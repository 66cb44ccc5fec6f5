"""torch_brain's POYO, the oracle of several tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from parts.oracle import torch_brain_model

from poyo_edge.spec import ModelSpec


def make_oracle(
    spec: ModelSpec, unit_ids: Sequence[str], session_ids: Sequence[str], *, seed: int = 0
) -> Any:
    """In eval mode, with embeddings large enough that its outputs vary."""
    torch.manual_seed(seed)
    model = torch_brain_model(spec)
    model.unit_emb.initialize_vocab(list(unit_ids))
    model.session_emb.initialize_vocab(list(session_ids))
    with torch.no_grad():
        for name in ("unit_emb", "session_emb", "token_type_emb", "latent_emb"):
            getattr(model, name).weight.normal_()
    return model
