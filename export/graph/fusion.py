"""The FP32 core → a graph for ONNX Runtime on the CPU, as a named pass.

ONNX Runtime has attention and rotation as operators of its own (domain ``com.microsoft``). With
them no matrix is split, turned and put together again around each attention, and no scores are
written to memory. The standard core stays what every other runtime gets.

Spikes become a single gather and a single rotation: mask and boundary token are made rows of the
unit table, and what tells them apart are two more columns of each head.

Legend: B batch, N spike tokens, U units, L latents, H heads, K head dim, P rotating pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from poyo_edge.export.graph.rewriting import CorePass, Rewriter, replace_value, rewritten
from poyo_edge.spec import ModelSpec

DOMAIN = "com.microsoft"
OPERATORS = frozenset(("MultiHeadAttention", "RotaryEmbedding"))
"""What the pass takes from that domain; both are in every ONNX Runtime from 1.19."""
_COLUMNS = 2
_INT32 = ir.DataType.INT32


def fuse_for_ort_cpu(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """A graph for ONNX Runtime's CPU provider that computes what the core ``proto`` does.

    Args:
        proto: the FP32 core, as ``build_core`` writes it.
        spec: its sizes.

    Raises:
        CheckFailedError: ``proto`` is not such a core (a bug).
    """
    return rewritten(proto, FuseForOrtCpu(spec))


class FuseForOrtCpu(CorePass):
    """The pass. Before: the core by the names of its nodes. After: same inputs and outputs."""

    domain = DOMAIN

    def looks_for(self) -> list[str]:
        """What each attention gives."""
        return [f"{scope}.rows" for scope in ("encoder.attention", *self._layers())]

    def write(self, graph: ir.Graph) -> Rewriter:
        """Each attention."""
        writer = _FusedWriter(graph, self.spec)
        replace_value(graph, "encoder.attention.rows", writer.encoder(), writer)
        for scope in self._layers():
            replace_value(graph, f"{scope}.rows", writer.self_attention(scope), writer)
        return writer

    def check(self, graph: ir.Graph) -> None:
        """There is one attention each, and no other foreign operator."""
        foreign = [node.op_type for node in graph if node.domain == DOMAIN]
        if set(foreign) - OPERATORS or foreign.count("MultiHeadAttention") != self.spec.depth + 1:
            raise ir.passes.PostconditionError(f"expected an attention each, got {foreign}")

    def _layers(self) -> list[str]:
        return [f"layer{i}.attention" for i in range(self.spec.depth)]


class _FusedWriter(Rewriter):
    """Writes attentions between values of a core that is there already."""

    def encoder(self) -> ir.Value:
        """(B·L, H·K): what the latents take from spikes and boundary tokens."""
        scope, heads, latents = "encoder.attention", self.spec.cross_heads, self.spec.n_latents
        width = self.spec.dim_head + _COLUMNS
        keys, values, batch = self.spikes(heads, width)
        query = self.transpose(self.known[f"{scope}.query"], [1, 2, 0, 3], f"{scope}.query_rows")
        query = self.reshape(query, [1, latents, heads * width], f"{scope}.query_by_latent")
        shape = self.concat([batch, self.ints([1, 1])], 0, f"{scope}.query_shape")
        query = self.op("Expand", [query, shape], f"{scope}.query_batch")
        out = self.attention([query, keys, values], heads, f"{scope}.fused")
        out = self.reshape(out, [-1, latents, heads, width], f"{scope}.value_by_head")
        sizes = [self.spec.dim_head, 1, _COLUMNS - 1]
        spikes, share, _ = self.split(out, -1, sizes, f"{scope}.value_parts")
        boundary = self.transpose(
            self.known["boundary_value"], [1, 0, 2], f"{scope}.boundary_by_latent"
        )
        boundary = self.op("Mul", [share, boundary], f"{scope}.boundary_taken")
        out = self.op("Add", [spikes, boundary], f"{scope}.value_and_boundary")
        out = self.reshape(out, [-1, latents, heads * self.spec.dim_head], f"{scope}.value_rows")
        return self.turned_back(out, heads, scope)

    def spikes(self, heads: int, width: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Keys and values, (B, N+1, H·width) each, turned by their times; and B as (1,)."""
        tables, first_row = self.tables(heads, width)
        rows, time = self.spike_rows(first_row)
        omega, pairs = self.known["omega"], self.spec.rotating_pairs
        angle = self.op("Mul", [time, omega], "encoder.spike_time.angle_by_token")
        rotation = [
            self.reshape(
                self.op(kind, [angle], f"encoder.spike_time.{kind}"), [-1, pairs], f"encoder.{kind}"
            )
            for kind in ("Cos", "Sin")
        ]
        shape = self.op("Shape", [rows], "encoder.batch_and_tokens")
        shape = self.concat([shape, self.ints([heads * width])], 0, "encoder.token_shape")
        turned = []
        for table, name in zip(tables, ("keys", "values"), strict=True):
            x = self.op("Gather", [table, rows], f"encoder.{name}.of_spikes", {"axis": 0})
            x = self.reshape(x, [1, -1, heads * width], f"encoder.{name}.in_a_row")
            x = self.turn(x, rotation, heads, f"encoder.{name}.turned")
            turned.append(self.op("Reshape", [x, shape], f"encoder.{name}"))
        batch = self.op("Shape", [rows], "encoder.batch_size", {"start": 0, "end": 1})
        return turned[0], turned[1], batch

    def tables(self, heads: int, width: int) -> tuple[list[ir.Value], ir.Value]:
        """Tables of keys and values (U+2, H·width), and U as (1,) int64.

        Row U is what padding is: a key that meets the queries' mask fill. Row U+1 is the virtual
        boundary token: a key of zeros, whose log-sum-exp the queries have subtracted from all
        others, and a value that counts how much it was attended to.
        """
        dim_head = self.spec.dim_head
        table = self.known["unit_kv"]
        n_units = self.op("Shape", [table], "encoder.n_units", {"start": 0, "end": 1})
        table = self.reshape(table, [-1, 2 * heads, dim_head], "encoder.units")
        column = np.zeros((1, 2 * heads, _COLUMNS), np.float32)
        column[0, :heads, 0] = 1.0
        shape = self.concat([n_units, self.ints([2 * heads, _COLUMNS])], 0, "encoder.column_shape")
        columns = [self.constant(column, "encoder.unit_column"), shape]
        expanded = self.op("Expand", columns, "encoder.unit_columns")
        table = self.concat([table, expanded], -1, "encoder.units_and_columns")
        extra = np.zeros((2, 2 * heads, width), np.float32)
        extra[0, :heads, dim_head + 1] = -1.0
        extra[1, heads:, dim_head] = 1.0
        extra_rows = self.constant(extra, "encoder.padding_and_boundary")
        table = self.concat([table, extra_rows], 0, "encoder.rows_and_columns")
        parts = self.split(table, 1, [heads, heads], "encoder.key_and_value_table")
        flat = [
            self.reshape(part, [-1, heads * width], f"encoder.table.{i}")
            for i, part in enumerate(parts)
        ]
        return flat, n_units

    def spike_rows(self, n_units: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Rows of the tables (B, N+1) int32, and times (B, N+1, 1): spikes, then the boundary."""
        padding = self.op("Cast", [n_units], "encoder.padding_row", {"to": _INT32.value})
        where = [self.known["spike_mask"], self.known["spike_unit"], padding]
        rows = self.op("Where", where, "encoder.spike_rows")
        boundary = self.op("Squeeze", [padding], "encoder.padding_row_scalar")
        one = self.constant(np.array(1, np.int32), "encoder.one_row")
        boundary = self.op("Add", [boundary, one], "encoder.boundary_row")
        pads = self.ints([0, 0, 0, 1])
        rows = self.op("Pad", [rows, pads, boundary], "encoder.token_rows", {"mode": "constant"})
        time = self.zero_row(self.known["spike_time"], 1, 2, "encoder.token_time")
        return rows, self.unsqueeze(time, [-1], "encoder.token_time_column")

    def self_attention(self, scope: str) -> ir.Value:
        """(B·L, H·K): what the latents take from each other."""
        heads = self.spec.self_heads
        inner = heads * self.spec.dim_head
        product = self.known[f"{scope}.qkv"].producer()
        assert product is not None
        normed, weight = product.inputs
        assert normed is not None and weight is not None and weight.const_value is not None
        qkv = weight.const_value.numpy()
        turned = []
        for i, name in enumerate(("query", "key", "value")):
            part = np.ascontiguousarray(qkv[:, i * inner : (i + 1) * inner])
            x = self.op(
                "MatMul", [normed, self.constant(part, f"{scope}.{name}.w")], f"{scope}.{name}"
            )
            x = self.reshape(x, [-1, self.spec.n_latents, inner], f"{scope}.{name}_batch")
            turned.append(self.turn(x, self.latent_rotation(), heads, f"{scope}.{name}_turned"))
        return self.turned_back(self.attention(turned, heads, f"{scope}.fused"), heads, scope)

    def turned_back(self, out: ir.Value, heads: int, scope: str) -> ir.Value:
        """(B, L, H·K) turned back by the latents' times, as rows (B·L, H·K)."""
        out = self.turn(out, self.latent_rotation(inverse=True), heads, f"{scope}.turned_back")
        return self.reshape(out, [-1, heads * self.spec.dim_head], f"{scope}.fused_rows")

    def latent_rotation(self, *, inverse: bool = False) -> list[ir.Value]:
        """Cos and sin (L, P) of the latents' times; the core's own constants."""
        return [self.known["latent.cos"], self.known[f"latent.{'minus_' if inverse else ''}sin"]]

    def turn(self, x: ir.Value, rotation: Sequence[ir.Value], heads: int, name: str) -> ir.Value:
        """Each head's first 2P dimensions of ``x`` (B, rows, H·K) turned; cos and sin (rows, P)."""
        first = self.constant(np.zeros(1, np.int64), "first_position")
        attributes = {
            "interleaved": 0,
            "num_heads": heads,
            "rotary_embedding_dim": 2 * self.spec.rotating_pairs,
        }
        inputs = [x, first, *rotation]
        return self.op("RotaryEmbedding", inputs, name, attributes, domain=DOMAIN)

    def attention(self, qkv: Sequence[ir.Value], heads: int, name: str) -> ir.Value:
        """(B, queries, H·K); queries carry their scale already."""
        attributes = {"num_heads": heads, "scale": 1.0}
        return self.op("MultiHeadAttention", qkv, name, attributes, domain=DOMAIN)
