"""The FP32 core → a graph whose attentions TensorRT runs as one kernel each, as a named pass.

TensorRT fuses an attention when its head size is a multiple of 8 and nothing but its product with
the values reads its softmax (NVIDIA/TensorRT issue 2981). The core's encoder has neither: queries
and keys have two columns more than a head, and the boundary tokens' share is cut out of the
softmax. Here columns of zeros fill queries and keys up, and the share is one more column of the
values: 1 in the boundary token's row, 0 elsewhere. The decoder's queries, whose still dimensions
the core multiplies apart, become whole again. Only standard operators are used.

Legend: B batch, N spike tokens, L latents, Q queries, H heads, K head dim, W padded head dim,
P rotating pairs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from poyo_edge.export.graph.core import MASK_FILL
from poyo_edge.export.graph.rewriting import CorePass, Rewriter, replace_value, rewritten
from poyo_edge.spec import ModelSpec

ALIGNMENT = 8
"""Head sizes are multiples of it in TensorRT's fused kernels."""
_COLUMNS = 2
"""What a key carries beside its head: presence, minus absence."""
_ENCODER, _DECODER = "encoder.attention", "decoder.attention"


def n_attentions(spec: ModelSpec) -> int:
    """Attentions of a core: the encoder's, one for each layer, and the decoder's."""
    return spec.depth + 2


def fuse_for_tensorrt(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """A graph for TensorRT that computes what the core ``proto`` does.

    Args:
        proto: the FP32 core, as ``build_core`` writes it.
        spec: its sizes.

    Raises:
        CheckFailedError: ``proto`` is not such a core (a bug).
    """
    return rewritten(proto, FuseForTensorRT(spec))


class FuseForTensorRT(CorePass):
    """The pass. Before: the core by the names of its nodes. After: same inputs and outputs."""

    def looks_for(self) -> list[str]:
        """What encoder and decoder attend with and to."""
        return [
            f"{_ENCODER}.value", f"{_ENCODER}.minus_lse_column",
            f"{_DECODER}.key_rotate.turned", f"{_DECODER}.value",
        ]  # fmt: skip

    def write(self, graph: ir.Graph) -> Rewriter:
        """Both attentions."""
        writer = _Writer(graph, self.spec)
        replace_value(graph, f"{_ENCODER}.value", writer.encoder(), writer)
        replace_value(graph, f"{_DECODER}.value", writer.decoder(), writer)
        return writer

    def check(self, graph: ir.Graph) -> None:
        """There is one softmax each, read by one product and nothing else."""
        attentions = [node for node in graph if node.op_type == "Softmax"]
        if len(attentions) != n_attentions(self.spec):
            raise ir.passes.PostconditionError(
                f"expected {n_attentions(self.spec)} attentions, got {len(attentions)}"
            )
        for node in attentions:
            users = [use.node.op_type for use in node.outputs[0].uses()]
            if users != ["MatMul"]:
                raise ir.passes.PostconditionError(
                    f"expected one product after {node.name!r}, got {users}"
                )


class _Writer(Rewriter):
    """Writes attentions between values of a core that is there already."""

    def encoder(self) -> ir.Value:
        """(H, B, L, K): what the latents take from spikes and boundary tokens."""
        scope, dim_head = _ENCODER, self.spec.dim_head
        width = -(-(dim_head + _COLUMNS) // ALIGNMENT) * ALIGNMENT
        key, value = self.tokens(width - dim_head)
        out = self.attend(self.encoder_query(width), key, value, scope, "spike_value")
        sizes = [dim_head, 1, width - dim_head - 1]
        spikes, share, _ = self.split(out, -1, sizes, f"{scope}.value_parts")
        boundary = self.known[f"{scope}.boundary_batch"]
        boundary = self.op("Mul", [share, boundary], f"{scope}.boundary_part")
        return self.op("Add", [spikes, boundary], f"{scope}.value")

    def encoder_query(self, width: int) -> ir.Value:
        """(H, 1, L, W): queries, minus the boundary tokens' log-sum-exp, mask fill, zeros."""
        scope = _ENCODER
        query = self.weight(f"{scope}.latent_query")
        fill = np.zeros((*query.shape[:-1], width - self.spec.dim_head - 1), np.float32)
        fill[..., 0] = MASK_FILL
        parts = [
            self.known[f"{scope}.latent_query"],
            self.known[f"{scope}.minus_lse_column"],
            self.constant(fill, f"{scope}.mask_fill"),
        ]
        return self.concat(parts, -1, f"{scope}.query")

    def tokens(self, n_columns: int) -> tuple[ir.Value, ir.Value]:
        """Keys and values (H, B, N+1, W); the last row is the boundary token's."""
        present, absent = (
            self.zero_row(self.known[f"encoder.mask.{name}"], 2, 4, f"encoder.mask.{name}_rows")
            for name in ("column", "minus_absent")
        )
        marks = self.op(
            "Add",
            [self.in_column(present, 0, n_columns), self.in_column(absent, 1, n_columns)],
            "encoder.mask.marks",
        )
        boundary = self.op("Sub", [absent, present], "encoder.mask.minus_spike")
        boundary = self.op("Add", [boundary, self.scalar(1.0)], "encoder.mask.boundary")
        share = self.in_column(boundary, 0, n_columns)
        key, value = self.known["encoder.key_value.0"], self.known["encoder.key_value.1"]
        return (
            self.concat([key, marks], -1, f"{_ENCODER}.key"),
            self.concat([value, share], -1, f"{_ENCODER}.value_and_share"),
        )

    def in_column(self, x: ir.Value, column: int, n_columns: int) -> ir.Value:
        """(H, B, N+1, n_columns): ``x`` (1, B, N+1, 1) in one column of zeros, for every head."""
        where = np.zeros((self.spec.cross_heads, 1, 1, n_columns), np.float32)
        where[..., column] = 1.0
        at = self.constant(where, f"encoder.mask.column_{column}")
        return self.op("Mul", [x, at], f"{x.name}.by_head")

    def decoder(self) -> ir.Value:
        """(B, H, Q, K): what the queries take from the latents."""
        scope, still = _DECODER, self.known.get(f"{_DECODER}.key_parts.1")
        key = self.known[f"{scope}.key_rotate.turned"]
        key = key if still is None else self.concat([key, still], -1, f"{scope}.key")
        value = self.known[f"{scope}.split.1"]
        return self.attend(self.decoder_query(), key, value, scope, "value")

    def decoder_query(self) -> ir.Value:
        """(B, H, Q, K): the session's query, turned by each query's time.

        ``q·cos + turned(q)·sin``, where ``turned(q)`` is the query with its pairs turned by 90
        degrees, and comes from the same product: its weights are those of ``q``, turned.
        """
        scope, heads, dim_head = _DECODER, self.spec.cross_heads, self.spec.dim_head
        product = self.known[f"{scope}.query_rows"].producer()
        assert product is not None and product.inputs[0] is not None
        weight = self.weight(f"{scope}.query_rows.w")
        weight = np.concatenate([weight, self._turned(weight)], axis=1)
        both = self.constant(weight, f"{scope}.query_rows.w")
        rows = self.op("MatMul", [product.inputs[0], both], f"{scope}.query_rows")
        rows = self.reshape(rows, [1, 2 * heads, 1, dim_head], f"{scope}.query_by_head")
        query, turned = self.split(rows, 1, [heads, heads], f"{scope}.query_parts")
        cos, sin = self.query_rotation()
        query = self.op("Mul", [query, cos], f"{scope}.query_rotate.cos")
        turned = self.op("Mul", [turned, sin], f"{scope}.query_rotate.sin")
        return self.op("Add", [query, turned], f"{scope}.query_rotate.turned")

    def query_rotation(self) -> list[ir.Value]:
        """Cos and sin (B, 1, Q, K) of the queries' times; 1 and 0 where nothing turns."""
        scope, pairs = f"{_DECODER}.query_time", self.spec.rotating_pairs
        omega = np.zeros(self.spec.dim_head, np.float32)
        omega[:pairs] = omega[pairs : 2 * pairs] = self.weight("omega")
        factors = [self.known[f"{scope}.column"], self.constant(omega, "omega")]
        angle = self.op("Mul", factors, f"{scope}.angle")
        turns = [self.op(kind, [angle], f"{scope}.{kind.lower()}") for kind in ("Cos", "Sin")]
        return [self.unsqueeze(turn, [1], f"{turn.name}_by_head") for turn in turns]

    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, scope: str, name: str
    ) -> ir.Value:
        """(..., queries, W) of queries (..., queries, W), keys and values (..., keys, W)."""
        key = self.transpose(key, [0, 1, 3, 2], f"{scope}.key_transposed")
        score = self.op("MatMul", [query, key], f"{scope}.score")
        weight = self.op("Softmax", [score], f"{scope}.weight", {"axis": -1})
        return self.op("MatMul", [weight, value], f"{scope}.{name}")

    def _turned(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(D, H·K): each head's first P columns replaced by minus the next P, and those by them."""
        heads = weight.reshape(len(weight), -1, self.spec.dim_head)
        pairs, turned = self.spec.rotating_pairs, np.zeros_like(heads)
        turned[..., :pairs] = -heads[..., pairs : 2 * pairs]
        turned[..., pairs : 2 * pairs] = heads[..., :pairs]
        return turned.reshape(weight.shape)
