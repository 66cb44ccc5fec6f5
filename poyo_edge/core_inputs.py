"""The core's inputs and its output: names, dtypes and axes, in the order of the graph.

Legend: H cross-attention heads, L latents, K head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from poyo_edge.arrays import Array
from poyo_edge.spec import ModelSpec


class CoreArray(NamedTuple):
    """One input or output."""

    dtype: type[np.generic]
    axes: tuple[str, ...]
    """Free axes by their names in the graph, the others by what their sizes are."""

    def shape(self, spec: ModelSpec) -> list[int | str]:
        """The size of each axis that a model fixes, and the name of each that is free."""
        heads, dim_head = spec.cross_heads, spec.dim_head
        sizes = {
            "2·H·K": 2 * heads * dim_head,
            "H": heads,
            "L": spec.n_latents,
            "K": dim_head,
            "dim": spec.dim,
            "dim_out": spec.dim_out,
        }
        return [sizes.get(axis, axis) for axis in self.axes]


INPUTS = {
    "spike_unit": CoreArray(np.int32, ("batch", "n_spikes")),
    "spike_time": CoreArray(np.float32, ("batch", "n_spikes")),
    "spike_mask": CoreArray(np.bool_, ("batch", "n_spikes")),
    "unit_kv": CoreArray(np.float32, ("n_units", "2·H·K")),
    "boundary_lse": CoreArray(np.float32, ("H", "L")),
    "boundary_value": CoreArray(np.float32, ("H", "L", "K")),
    "session_query": CoreArray(np.float32, ("dim",)),
    "query_time": CoreArray(np.float32, ("batch", "n_queries")),
}
OUTPUTS = {"prediction": CoreArray(np.float32, ("batch", "n_queries", "dim_out"))}
SPIKES = tuple(name for name, array in INPUTS.items() if "n_spikes" in array.axes)
PER_WINDOW = tuple(name for name, array in INPUTS.items() if "batch" in array.axes)
PER_SESSION = tuple(name for name in INPUTS if name not in PER_WINDOW)


ENCODER_WEIGHTS = ("token_type", "context_norm.weight", "context_norm.bias", "to_kv")
"""The weights that turn embeddings into keys and values. A session may have its own: they end in
``PER_SESSION``, so the core stays what it is."""
ENCODER = "encoder."
"""Before their names where they are inputs of ``adapt.onnx``, and in session files."""


def one_window(n_spikes: int, n_units: int) -> dict[str, int]:
    """Size of each free axis for one window with one query."""
    return {"batch": 1, "n_spikes": n_spikes, "n_units": n_units, "n_queries": 1}


def no_spikes(batch: int, n_spikes: int) -> dict[str, Array]:
    """The inputs of spikes, each (batch, n_spikes), filled with padding."""
    return {name: np.zeros((batch, n_spikes), INPUTS[name].dtype) for name in SPIKES}
