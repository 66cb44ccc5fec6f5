"""Folded cores of random weights, for tests that compile graphs or round them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import torch

from poyo_edge.export.graph.core import build_core
from poyo_edge.export.graph.fold import fold
from poyo_edge.model import POYO
from poyo_edge.runtime.constants import SessionConstants, session_constants
from poyo_edge.spec import POYO_1_3M, ModelSpec

SMALL = ModelSpec(
    dim=16,
    depth=2,
    dim_head=16,
    cross_heads=2,
    self_heads=2,
    latents_per_step=2,
    dim_out=2,
    rotating_pairs=4,
    latent_step_s=0.25,
)
SPECS = {
    "small": SMALL,
    "all turning, one head": dataclasses.replace(
        SMALL, cross_heads=1, self_heads=3, rotating_pairs=8, depth=1
    ),
    "no layers": dataclasses.replace(SMALL, depth=0),
    "1.3M": POYO_1_3M,
}
"""What passes over a core are tried on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomCore:
    """A core, and the constants of a session of it. Weights are random and scaled to vary."""

    spec: ModelSpec
    proto: onnx.ModelProto
    constants: SessionConstants

    @property
    def data(self) -> bytes:
        return bytes(self.proto.SerializeToString())


def random_core(spec: ModelSpec = SMALL, n_units: int = 12, seed: int = 0) -> RandomCore:
    torch.manual_seed(seed)
    units = [f"s/{i}" for i in range(n_units)]
    weights = {
        name: value.numpy()
        for name, value in POYO(spec, units, ["s"], emb_init_std=1.0).state_dict().items()
        if not name.endswith("vocab")
    }
    rng = np.random.default_rng(seed)
    for name, value in weights.items():
        if "norm" in name:
            weights[name] = value + 0.2 * rng.normal(size=value.shape).astype(np.float32)
    folded = fold(weights, spec)
    constants = session_constants(
        spec,
        folded.session,
        weights["unit_emb.weight"][1 : n_units + 1],
        weights["session_emb.weight"][1],
    )
    return RandomCore(spec=spec, proto=build_core(folded), constants=constants)
