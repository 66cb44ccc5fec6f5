"""The core as OpenVINO's CPU plugin computes it fastest: with operators that it has fused.

Same algebra as ``export/graph/fusion.py``: mask and boundary token become rows of the unit table,
told apart by two more columns of each head. Rotation is written in the form that the plugin turns
into one operator (``RoPE``), attention as ``ScaledDotProductAttention``, and cosines and sines
become inputs: in BF16 the plugin would round times and angles too, and an angle of 62,832 rad
means nothing in eight bits.

Legend: N tokens (spikes, boundary, padding), U units, L latents, H heads, K head dim,
P rotating pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.core_inputs import SPIKES

TOKEN_INPUTS = ("token_row", "token_cos", "token_sin")
QUERY_INPUTS = ("query_cos", "query_sin")
_COLUMNS = 2
"""Presence (keys) or being the boundary token (values), and minus absence."""
_LAYER = "layer{}.attention"
Node = Any
"""A node or an output of one; openvino ships no types for them that hold."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A model for one window and one query, ready to be compiled."""

    model: Any
    omega: npt.NDArray[np.float32]
    """(P,) rad/s: what the times are multiplied with before their cosines and sines."""


def fit(openvino: Any, model: Any) -> Fitted:
    """The core that OpenVINO has read, rewritten.

    Its inputs are those of the core, but instead of ``spike_*``: ``token_row`` (1, N) int32, rows
    of the units, U for padding and U + 1 once for the boundary token; ``token_cos`` and
    ``token_sin`` (1, 1, N, 2P), each twice in a row, those of time 0 for padding and boundary; and
    ``query_cos``, ``query_sin`` (1, 1, P).

    Args:
        openvino: the package, with ``opset13`` imported.
        model: read from ``core.onnx``; its nodes are found by the names they have there.
    """
    writer = _Writer(openvino, model)
    for name in _names(writer.nodes):
        writer.self_attention(name)
    writer.encoder()
    given = writer.query_rotation()
    kept = [one for one in model.get_parameters() if one.get_friendly_name() not in SPIKES]
    fitted = openvino.Model(model.get_results(), [*kept, *writer.token_inputs, *given], "poyo_core")
    width = model.input("unit_kv").partial_shape[1].get_length()
    fitted.reshape({"unit_kv": [-1, width], "query_time": [1, 1]})
    return Fitted(model=fitted, omega=writer.omega)


def _names(nodes: dict[str, Any]) -> list[str]:
    """The scopes of the self-attentions, first to last."""
    scopes: list[str] = []
    while f"{_LAYER.format(len(scopes))}.qkv" in nodes:
        scopes.append(_LAYER.format(len(scopes)))
    return scopes


class _Writer:
    """Writes attentions between nodes of a core that is there already."""

    def __init__(self, openvino: Any, model: Any) -> None:
        self.op = openvino.opset13
        self.nodes = {node.get_friendly_name(): node for node in model.get_ops()}
        self.omega = np.array(self.nodes["omega"].get_data(), np.float32)
        self.pairs = len(self.omega)
        self.heads, _, self.latents, self.dim_head = self.nodes[
            "encoder.attention.latent_query"
        ].shape
        cos, sin = (
            np.tile(self.nodes[f"latent.{name}"].get_data(), 2)[None, None]
            for name in ("cos", "sin")
        )
        self.forth = self.constant(cos), self.constant(sin)
        self.back = self.forth[0], self.constant(-sin)
        shape = [1, 1, -1, 2 * self.pairs]
        self.token_inputs = [
            self.parameter(TOKEN_INPUTS[0], [1, -1], np.int32),
            *(self.parameter(name, shape, np.float32) for name in TOKEN_INPUTS[1:]),
        ]

    def encoder(self) -> None:
        """Latents take from spikes and boundary token."""
        scope, width = "encoder.attention", self.dim_head + _COLUMNS
        rows, cos, sin = self.token_inputs
        tokens = self.op.gather(self.table(), rows, self.axis(0))
        tokens = self.op.transpose(tokens, self.ints([0, 2, 1, 3]))
        tokens = self.turn(tokens, (cos, sin), width, f"{scope}.tokens_turned")
        keys, values = self.split(tokens, 1, [self.heads, self.heads])
        query = self.op.transpose(self.nodes[f"{scope}.query"], self.ints([1, 0, 2, 3]))
        out = self.attention(query, keys, values, f"{scope}.fused")
        spikes, share, _ = self.split(out, 3, [self.dim_head, 1, _COLUMNS - 1])
        boundary = self.op.unsqueeze(self.nodes["boundary_value"], self.axis(0))
        out = self.op.add(spikes, self.op.multiply(share, boundary))
        self.put(out, self.heads, scope)

    def table(self) -> Node:
        """(U+2, 2H, K+2): keys and values of units, of padding, and of the boundary token."""
        heads, unit_kv = self.heads, self.nodes["unit_kv"]
        table = self.op.reshape(unit_kv, self.ints([-1, 2 * heads, self.dim_head]), False)
        column = np.zeros((1, 2 * heads, _COLUMNS), np.float32)
        column[0, :heads, 0] = 1.0
        n_units = self.op.gather(self.op.shape_of(unit_kv), self.ints([0]), self.axis(0))
        shape = self.op.concat([n_units, self.ints([2 * heads, _COLUMNS])], 0)
        columns = self.op.broadcast(self.constant(column), shape)
        extra = np.zeros((2, 2 * heads, self.dim_head + _COLUMNS), np.float32)
        extra[0, :heads, self.dim_head + 1] = -1.0
        extra[1, heads:, self.dim_head] = 1.0
        table = self.op.concat([table, columns], -1)
        return self.op.concat([table, self.constant(extra)], 0)

    def self_attention(self, scope: str) -> None:
        """Latents take from each other."""
        qkv = self.nodes[f"{scope}.qkv"]
        heads = qkv.output(0).partial_shape[1].get_length() // (3 * self.dim_head)
        shape = self.ints([1, self.latents, 3 * heads, self.dim_head])
        qkv = self.op.transpose(self.op.reshape(qkv, shape, False), self.ints([0, 2, 1, 3]))
        qkv = self.turn(qkv, self.forth, self.dim_head, f"{scope}.turned")
        query, key, value = self.split(qkv, 1, [heads] * 3)
        self.put(self.attention(query, key, value, f"{scope}.fused"), heads, scope)

    def put(self, out: Node, heads: int, scope: str) -> None:
        """(1, H, L, K) turned back by the latents' times, in the place of the core's rows."""
        out = self.turn(out, self.back, self.dim_head, f"{scope}.turned_back")
        out = self.op.transpose(out, self.ints([0, 2, 1, 3]))
        shape = self.ints([self.latents, heads * self.dim_head])
        self.replace(f"{scope}.rows", self.op.reshape(out, shape, False))

    def query_rotation(self) -> list[Node]:
        """Inputs in the place of the cosines and sines of the query's time."""
        given = []
        for name in QUERY_INPUTS:
            one = self.parameter(name, [1, 1, self.pairs], np.float32)
            self.replace(f"decoder.attention.query_time.{name.removeprefix('query_')}", one)
            given.append(one)
        return given

    def attention(self, query: Node, key: Node, value: Node, name: str) -> Node:
        """(1, H, queries, K); queries carry their scale already."""
        one = self.constant(np.array(1.0, np.float32))
        out = self.op.scaled_dot_product_attention(query, key, value, None, one)
        out.set_friendly_name(name)
        return out

    def turn(self, x: Node, rotation: tuple[Node, Node], width: int, name: str) -> Node:
        """The first 2P of the last axis (..., width) turned; cosines and sines are (..., 2P)."""
        turning, *still = self.split(x, 3, [2 * self.pairs, width - 2 * self.pairs])
        first, second = self.split(turning, 3, [self.pairs, self.pairs])
        minus_one = self.constant(np.full((1, 1, 1, 1), -1.0, np.float32))
        halves = self.op.concat([self.op.multiply(second, minus_one), first], -1)
        cos, sin = rotation
        out = self.op.add(self.op.multiply(turning, cos), self.op.multiply(halves, sin))
        if still:
            out = self.op.concat([out, *still], -1)
        out.set_friendly_name(name)
        return out

    def split(self, x: Node, axis: int, sizes: Sequence[int]) -> list[Node]:
        """Cut along an axis; parts of size 0 are left out."""
        kept = [size for size in sizes if size]
        if len(kept) == 1:
            return [x]
        parts = self.op.variadic_split(x, self.axis(axis), self.ints(kept))
        return [parts.output(i) for i in range(len(kept))]

    def replace(self, name: str, new: Node) -> None:
        """What used the core's node of that name uses ``new`` from now on."""
        for user in list(self.nodes[name].output(0).get_target_inputs()):
            user.replace_source_output(new.output(0))

    def parameter(self, name: str, shape: list[int], dtype: Any) -> Node:
        """A new input."""
        made = self.op.parameter(shape, dtype, name)
        made.output(0).set_names({name})
        return made

    def constant(self, array: npt.NDArray[Any]) -> Node:
        """A constant."""
        return self.op.constant(np.ascontiguousarray(array))

    def ints(self, values: Sequence[int]) -> Node:
        """An int64 vector."""
        return self.op.constant(np.array(values, np.int64))

    def axis(self, value: int) -> Node:
        """An int64 scalar."""
        return self.op.constant(np.array(value, np.int64))
