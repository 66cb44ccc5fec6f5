"""``adapt.onnx`` for ONNX Runtime on the CPU: the same loss and gradients in less time.

ONNX Runtime has operators of its own (domain ``com.microsoft``) that turn whole rows and that
multiply matrices which lie between others in memory. With them the latents' attention needs no
copy of queries, keys and values by head, forward and back, and no cutting around each rotation.
The plain graph stays what every other runtime gets.

Rows of latents are in order of (latent, window) instead of (window, latent): with the latent in
front, heads and windows are batch axes that ``FusedMatMul`` multiplies over where they lie.

Legend: B batch, L latents, D model dim, H heads, K head dim, P rotating pairs, C = H·K.
"""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from poyo_edge.export.graph.adapt import AdaptWriter
from poyo_edge.export.graph.core import Rotation, checked_model
from poyo_edge.export.graph.fold import FoldedWeights, LayerWeights
from poyo_edge.export.graph.fusion import DOMAIN
from poyo_edge.export.graph.gradient import Gradients

_ROWS_BY_ROWS = ("transBatchA", "transBatchB", "transB")


def build_adapt_for_ort_cpu(folded: FoldedWeights) -> onnx.ModelProto:
    """The graph of loss and gradients, with inputs and outputs as ``build_adapt`` has them.

    Raises:
        CheckFailedError: ``onnx.checker`` refuses the graph (a bug, not a user's mistake).
    """
    graph = OrtCpuAdaptWriter(folded).write()
    graph.opset_imports[DOMAIN] = 1
    return checked_model(graph, "adapt.ort-cpu.onnx")


class OrtCpuAdaptWriter(AdaptWriter):
    """Writes the latents' part of the graph for ONNX Runtime's CPU provider."""

    def encoder(self) -> ir.Value:
        """Latents (L·B, D) after they have attended to the spikes."""
        scope, spec = "encoder.attention", self.spec
        inner = spec.cross_heads * spec.dim_head
        out = self.attend_to_spikes(scope)
        out = self.transpose(out, [2, 1, 0, 3], f"{scope}.merge_heads")
        out = self.reshape(out, [-1, inner], f"{scope}.heads_in_rows")
        out = self.turned_rows(out, spec.cross_heads, f"{scope}.rotate_back", back=True)
        out = self.output(out, self.folded.encoder_out, scope)
        out = self.reshape(out, [spec.n_latents, -1, spec.dim], f"{scope}.batch")
        latent = self.constant(self.folded.latent[:, None], "encoder.latent")
        out = self.op("Add", [out, latent], "encoder.residual")
        out = self.reshape(out, [-1, spec.dim], "encoder.rows")
        return self.feed_forward(out, self.folded.encoder_feed_forward, "encoder.feed_forward")

    def by_head(self, x: ir.Value, heads: int, scope: str) -> ir.Value:
        """(L·B, heads·K) → (B, heads, L, K)."""
        shape = [self.spec.n_latents, -1, heads, self.spec.dim_head]
        x = self.reshape(x, shape, f"{scope}.by_latent")
        return self.transpose(x, [1, 2, 0, 3], f"{scope}.by_head")

    def self_attention(self, x: ir.Value, layer: LayerWeights, scope: str) -> ir.Value:
        """Latents (L·B, D) after they have attended to each other."""
        heads, inner = self.spec.self_heads, self.spec.self_heads * self.spec.dim_head
        normed = self.norm(x, layer.norm, f"{scope}.norm")
        turned = []
        for i, name in enumerate(("query", "key", "value")):
            weight = layer.qkv[:, i * inner : (i + 1) * inner]
            rows = self.linear(normed, (weight, None), f"{scope}.{name}")
            turned.append(self.turned_rows(rows, heads, f"{scope}.{name}_turned"))
        out = self.attend_rows(turned, heads, scope)
        out = self.turned_rows(out, heads, f"{scope}.rotate_back", back=True)
        out = self.linear(out, layer.out, f"{scope}.out")
        return self.op("Add", [x, out], f"{scope}.residual")

    def attend_rows(self, qkv: list[ir.Value], heads: int, scope: str) -> ir.Value:
        """Rows (L·B, C) of values, weighed; from turned rows of queries, keys and values."""
        with self.composite(qkv) as step:
            query, key, value = (
                self.heads_apart(x, heads, f"{scope}.{name}_by_latent")
                for x, name in zip(qkv, ("query", "key", "value"), strict=True)
            )
            score = self.product(query, key, f"{scope}.score", *_ROWS_BY_ROWS)
            weight = self.softmax(score, scope)
            out = self.rows(
                self.product(weight, value, f"{scope}.weighed", "transBatchB"), f"{scope}.rows"
            )

            def rule(grads: list[ir.Value]) -> Gradients:
                name = f"{scope}.grad"
                grad = self.heads_apart(grads[0], heads, f"{name}.by_latent")
                level = self.op(
                    "Mul", [grad, self.heads_apart(out, heads, f"{name}.out")], f"{name}.dot"
                )
                level = self.transpose(self.summed(level, [-1]), [1, 2, 0, 3], f"{name}.level")
                pull = self.product(grad, value, f"{name}.pull_by_value", *_ROWS_BY_ROWS)
                pull = self.op("Sub", [pull, level], f"{name}.levelled")
                pull = self.op("Mul", [weight, pull], f"{name}.score")
                return [
                    self.rows(
                        self.product(*pair, f"{name}.{of}", "transBatchB", *across),
                        f"{name}.{of}_rows",
                    )
                    for of, pair, across in (
                        ("query", (pull, key), ()),
                        ("key", (pull, query), ("transA",)),
                        ("values", (weight, grad), ("transA",)),
                    )
                ]

            self.shaped(out, [None, heads * self.spec.dim_head])
            step([out], rule)
        return out

    def turned_rows(self, x: ir.Value, heads: int, scope: str, *, back: bool = False) -> ir.Value:
        """Rows (L·B, C) turned by their latents' times, or back."""
        with self.composite([x]) as step:
            out = self.turn_rows(x, heads, scope, back=back)
            self.shaped(out, [None, heads * self.spec.dim_head])
            step(
                [out],
                lambda grads: [self.turn_rows(grads[0], heads, f"{scope}.grad", back=not back)],
            )
        return out

    def turn_rows(self, x: ir.Value, heads: int, scope: str, *, back: bool) -> ir.Value:
        """The same, without a step of its own."""
        inner = heads * self.spec.dim_head
        x = self.reshape(x, [1, -1, inner], f"{scope}.in_a_row")
        cos, minus_sin = self.row_rotation_back
        rotation = [cos, minus_sin if back else self.row_sin]
        attributes = {
            "interleaved": 0,
            "num_heads": heads,
            "rotary_embedding_dim": 2 * self.spec.rotating_pairs,
        }
        inputs = [x, self.ints([0]), *rotation]
        x = self.op("RotaryEmbedding", inputs, f"{scope}.turned", attributes, domain=DOMAIN)
        return self.reshape(x, [-1, inner], f"{scope}.turned_rows")

    @functools.cached_property
    def row_rotation_back(self) -> Rotation:
        """Cos and minus sin (L·B, P) of the latents' times, for each row."""
        cos, minus_sin = self.latent_rotation(inverse=True)
        return self.for_rows(cos, "latent.row_cos"), self.for_rows(
            minus_sin, "latent.row_minus_sin"
        )

    @functools.cached_property
    def row_sin(self) -> ir.Value:
        """Sin (L·B, P) of the latents' times, for each row."""
        return self.for_rows(self.latent_rotation()[1], "latent.row_sin")

    def for_rows(self, x: ir.Value, name: str) -> ir.Value:
        """Constants (L, P), repeated for the windows: (L·B, P)."""
        pairs = self.spec.rotating_pairs
        batch = self.op("Shape", [self.query_time], f"{name}.batch", {"start": 0, "end": 1})
        shape = self.concat([self.ints([1]), batch, self.ints([pairs])], 0, f"{name}.shape")
        x = self.op("Expand", [self.unsqueeze(x, [1], f"{name}.by_latent"), shape], f"{name}.all")
        return self.reshape(x, [-1, pairs], name)

    def heads_apart(self, x: ir.Value, heads: int, name: str) -> ir.Value:
        """(L·B, C) → (L, B, H, K)."""
        return self.reshape(x, [self.spec.n_latents, -1, heads, self.spec.dim_head], name)

    def rows(self, x: ir.Value, name: str) -> ir.Value:
        """(B, H, L, K) → (L·B, C)."""
        heads = self.spec.self_heads
        x = self.transpose(x, [2, 0, 1, 3], f"{name}.latent_first")
        return self.reshape(x, [-1, heads * self.spec.dim_head], name)

    def product(self, a: ir.Value, b: ir.Value, name: str, *across: str) -> ir.Value:
        """``FusedMatMul`` across axes: "transBatchA" and "B" say that rows are the first one."""
        return self.op("FusedMatMul", [a, b], name, dict.fromkeys(across, 1), domain=DOMAIN)
