"""Frozen weights in two torch models and in ``adapt.onnx``, and windows to fit with all three."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from helpers.models.graphs import open_graph
from helpers.models.oracle import make_oracle
from poyo_edge.arrays import Array
from poyo_edge.artifact.core_weights import half_split_order, permute_rows
from poyo_edge.core_inputs import ENCODER_WEIGHTS
from poyo_edge.export.graph.adapt import build_adapt
from poyo_edge.export.graph.adapt_ort_cpu import build_adapt_for_ort_cpu
from poyo_edge.export.graph.fold import fold
from poyo_edge.model import POYO, RotaryTimeEmbedding
from poyo_edge.spec import ModelSpec
from poyo_edge.tokens import latent_tokens, window_tokens

Feeds = dict[str, Array]
PLAIN, FAST = "adapt.onnx", "adapt.ort-cpu.onnx"

SPECS = {
    # A window that is no multiple of the step, one cross head, three outputs.
    "odd": ModelSpec(
        dim=24, depth=1, dim_head=32, cross_heads=1, self_heads=3, latents_per_step=3, dim_out=3,
        rotating_pairs=8, window_s=0.6, latent_step_s=0.25,
    ),
    "nothing still": ModelSpec(
        dim=16, depth=2, dim_head=8, cross_heads=4, self_heads=2, latents_per_step=2, dim_out=1,
        rotating_pairs=4, latent_step_s=0.25,
    ),
    "one pair, no layer": ModelSpec(
        dim=20, depth=0, dim_head=8, cross_heads=2, self_heads=1, latents_per_step=4, dim_out=3,
        rotating_pairs=1, window_s=0.5,
    ),
    "one latent, one head": ModelSpec(
        dim=8, depth=1, dim_head=8, cross_heads=1, self_heads=1, latents_per_step=1, dim_out=1,
        rotating_pairs=2, latent_step_s=1.0,
    ),
    "wide heads": ModelSpec(
        dim=16, depth=0, dim_head=64, cross_heads=2, self_heads=1, latents_per_step=2, dim_out=2,
        latent_step_s=0.5,
    ),
}  # fmt: skip


class Shape(NamedTuple):
    """Sizes of a batch of windows."""

    batch: int
    n_spikes: int
    n_units: int
    n_queries: int


class Fit(NamedTuple):
    """What the graph computes."""

    loss: Array
    unit: Array
    """(n_units, dim): gradient with respect to the unit embeddings."""
    session: Array
    """(dim,): gradient with respect to the session embedding."""


class Frozen:
    """Frozen weights: two torch models that hold them, and the graph, opened once for all sizes."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        oracle = make_oracle(spec, ["s/u"], ["s"])
        with torch.no_grad():
            # torch_brain always turns half of a head.
            oracle.rotary_emb.omega[:] = RotaryTimeEmbedding(
                spec.dim_head, spec.rotating_pairs
            ).omega
            for name, tensor in oracle.named_parameters():
                if "norm" in name:
                    tensor.add_(0.3 * torch.randn_like(tensor))
                if "to_" in name or name == "readout.weight":
                    tensor.mul_(2.0)  # sharp attention: each spike must matter
        ours = POYO(spec, ["s/u"], ["s"]).eval()
        ours.load_state_dict(oracle.state_dict())
        self.models = {"poyo_edge": ours, "torch_brain": oracle}
        weights = {
            name: x.numpy() for name, x in oracle.state_dict().items() if "vocab" not in name
        }
        self.folded = fold(weights, spec)
        self.proto = build_adapt(self.folded)
        self.fast = build_adapt_for_ort_cpu(self.folded)
        self.sessions = {
            graph: open_graph(proto.SerializeToString())
            for graph, proto in ((PLAIN, self.proto), (FAST, self.fast))
        }

    def fit(self, feeds: Mapping[str, Array], graph: str = "adapt.onnx") -> Fit:
        return run(self.sessions[graph], feeds)

    def autograd(self, feeds: Mapping[str, Array], model: str) -> Fit:
        """The same by torch. Row 0 of its tables is for padding."""
        tables = {
            name: torch.from_numpy(np.atleast_2d(feeds[f"{name}_embedding"])).requires_grad_()
            for name in ("unit", "session")
        }
        replaced = {
            f"{name}_emb.weight": torch.cat([torch.zeros(1, self.spec.dim), table])
            for name, table in tables.items()
        }
        inputs = torch_inputs(self.spec, feeds)
        prediction = torch.func.functional_call(self.models[model], replaced, kwargs=inputs)
        square = (prediction - torch.from_numpy(feeds["target"])).square().mean(-1)
        weight = torch.from_numpy(feeds["target_weight"])
        loss = (square * weight).sum() / weight.sum()
        unit, session = torch.autograd.grad(loss, list(tables.values()))
        return Fit(loss.detach().numpy(), unit.numpy(), session[0].numpy())

    def encoder_gradients(self, feeds: Mapping[str, Array], graph: str) -> dict[str, Array]:
        """Of the encoder's weights, by the graph."""
        names = [f"encoder.{name}_gradient" for name in ENCODER_WEIGHTS]
        found = self.sessions[graph].run(names, dict(feeds))
        return dict(zip(ENCODER_WEIGHTS, found, strict=True))

    def encoder_autograd(self, feeds: Mapping[str, Array], model: str) -> dict[str, Array]:
        """The same by torch, in the order of the folded weights."""
        held = self.models[model]
        of = {
            "token_type": held.token_type_emb.weight,
            "context_norm.weight": held.enc_atn.norm_context.weight,
            "context_norm.bias": held.enc_atn.norm_context.bias,
            "to_kv": held.enc_atn.to_kv.weight,
        }
        rows = {
            f"{name}_emb.weight": torch.cat([
                torch.zeros(1, self.spec.dim),
                torch.from_numpy(np.atleast_2d(feeds[f"{name}_embedding"])),
            ])
            for name in ("unit", "session")
        }  # fmt: skip
        inputs = torch_inputs(self.spec, feeds)
        prediction = torch.func.functional_call(held, rows, kwargs=inputs)
        square = (prediction - torch.from_numpy(feeds["target"])).square().mean(-1)
        weight = torch.from_numpy(feeds["target_weight"])
        gradients = torch.autograd.grad((square * weight).sum() / weight.sum(), list(of.values()))
        found = {name: one.numpy() for name, one in zip(of, gradients, strict=True)}
        found["token_type"] = found["token_type"][:3]
        order = half_split_order(held.rotary_emb.omega.numpy())
        found["to_kv"] = permute_rows(found["to_kv"], order, self.spec.dim_head)
        return found


@functools.cache
def frozen(spec: str) -> Frozen:
    return Frozen(SPECS[spec])


def labelled_windows(spec: ModelSpec, shape: Shape, *, seed: int = 0) -> Feeds:
    """Random inputs of the graph. All windows but the first are padded, by any number of tokens."""
    rng = np.random.default_rng(seed)
    batch, n_spikes, n_units, n_queries = shape
    counts = rng.integers(0, n_spikes + 1, batch)
    counts[0] = n_spikes

    def times(n: int) -> Array:
        return rng.uniform(0, spec.window_s, (batch, n)).astype(np.float32)

    def normal(*size: int) -> Array:
        return rng.normal(size=size).astype(np.float32)

    return {
        "spike_unit": rng.integers(0, n_units, (batch, n_spikes)).astype(np.int32),
        "spike_time": times(n_spikes),
        "spike_mask": np.arange(n_spikes) < counts[:, None],
        "query_time": times(n_queries),
        # Far from predictions: errors that cancel would leave nothing but rounding.
        "target": 5 + normal(batch, n_queries, spec.dim_out),
        "target_weight": rng.uniform(0.1, 3, (batch, n_queries)).astype(np.float32),
        "unit_embedding": normal(n_units, spec.dim),
        "session_embedding": normal(spec.dim),
    }


def torch_inputs(spec: ModelSpec, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """What both torch models are called with; times are float32, as in the graph."""
    batch, n_units = len(feeds["query_time"]), len(feeds["unit_embedding"])
    windows = [
        window_tokens(time, unit, n_units, spec.window_seconds)
        for time, unit in zip(feeds["spike_time"], feeds["spike_unit"], strict=True)
    ]
    mask = np.pad(feeds["spike_mask"], [(0, 0), (2 * n_units, 0)], constant_values=True)
    index, time = latent_tokens(spec)
    return {
        "input_unit_index": torch.from_numpy(np.stack([w.unit for w in windows])) + 1,
        "input_timestamps": torch.from_numpy(np.stack([w.time for w in windows])).float(),
        "input_token_type": torch.from_numpy(np.stack([w.type for w in windows])),
        "input_mask": torch.from_numpy(mask),
        "latent_index": torch.from_numpy(index).expand(batch, -1),
        "latent_timestamps": torch.from_numpy(time).float().expand(batch, -1),
        "session_index": torch.ones(batch, dtype=torch.long),
        "output_timestamps": torch.from_numpy(feeds["query_time"]),
    }


def run(session: Any, feeds: Mapping[str, Array]) -> Fit:
    names = ["loss", "unit_embedding_gradient", "session_embedding_gradient"]
    return Fit(*session.run(names, dict(feeds)))


def error(got: Fit, want: Fit) -> float:
    """Largest difference over largest value, of loss or gradients; NaN when anything is."""
    pairs = list(zip(got, want, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]))
