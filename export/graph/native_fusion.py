"""The FP32 core → a graph of operators of our own (``runtime/native/kernels``), as a named pass.

Attention to spikes, each layer's attention and feed-forward, and the attention of queries become
one node each. Between them latents travel channels first, (B, D, L): so they lie along vectors,
and no operator transposes anything. Weights stay in their standard layout; an operator packs them
when it is created. What is left in standard operators is the last feed-forward and the readout.

Legend: B batch, Q queries, L latents, D model dim, H heads, K head dim.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from poyo_edge.artifact.onnx_guard import OWN_DOMAIN, OWN_OPERATORS
from poyo_edge.export.graph.rewriting import CorePass, Rewriter, replace_value, rewritten
from poyo_edge.spec import ModelSpec

_REPLACED = "decoder.attention.rows"


def fuse_for_native(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """A graph for ONNX Runtime with our operators that computes what the core ``proto`` does.

    Args:
        proto: the FP32 core, as ``build_core`` writes it.
        spec: its sizes.

    Raises:
        CheckFailedError: ``proto`` is not such a core (a bug).
    """
    return rewritten(proto, FuseForNative(spec))


class FuseForNative(CorePass):
    """The pass. Before: the core by the names of its nodes. After: same inputs and outputs."""

    domain = OWN_DOMAIN

    def looks_for(self) -> list[str]:
        """What the queries read."""
        return [_REPLACED]

    def reads(self) -> list[str]:
        """The weights of all layers."""
        return [f"layer{i}.attention.qkv.w" for i in range(self.spec.depth)]

    def write(self, graph: ir.Graph) -> Rewriter:
        """Everything up to the queries."""
        writer = _NativeWriter(graph, self.spec, prefix="native")
        replace_value(graph, _REPLACED, writer.queries(), writer)
        return writer

    def check(self, graph: ir.Graph) -> None:
        """Each operator is there as often as the model has it."""
        found = [node.op_type for node in graph if node.domain == OWN_DOMAIN]
        depth = self.spec.depth
        wanted = ["SpikeAttention", "FeedForward"]
        wanted += ["LatentAttention", "FeedForward"] * depth + ["QueryAttention"]
        if found != wanted or set(found) - set(OWN_OPERATORS):
            raise ir.passes.PostconditionError(f"expected {wanted}, got {found}")


class _NativeWriter(Rewriter):
    """Writes our operators on weights of a core that is there already."""

    def queries(self) -> ir.Value:
        """(B·Q, H·K): what the queries take from latents that went through all layers."""
        x = self.feed_forward(self.spikes(), "encoder.feed_forward")
        for i in range(self.spec.depth):
            x = self.latents(x, f"layer{i}.attention")
            x = self.feed_forward(x, f"layer{i}.feed_forward")
        scope = "decoder.attention"
        inputs = [
            x,
            *self.values("session_query", "query_time"),
            *self.values(f"{scope}.norm.w", f"{scope}.norm.b", f"{scope}.query_rows.w"),
            *self.values(f"{scope}.norm_context.w", f"{scope}.norm_context.b"),
            *self.values(f"{scope}.key_value.w", "latent.cos", "latent.sin", "omega"),
        ]
        return self.own("QueryAttention", inputs, scope, heads=self.spec.cross_heads)

    def spikes(self) -> ir.Value:
        """(B, D, L): latents after they have attended to spikes and boundary tokens."""
        scope, spec = "encoder.attention", self.spec
        query = self.weight(f"{scope}.latent_query")
        query = query.reshape(spec.cross_heads, spec.n_latents, spec.dim_head)
        inputs = [
            *self.values("spike_unit", "spike_time", "spike_mask"),
            *self.values("unit_kv", "boundary_lse", "boundary_value"),
            self.constant(query, f"{scope}.latent_query"),
            *self.values("omega", "latent.cos", "latent.sin", "encoder.latent"),
            *self.values(f"{scope}.out.w", f"{scope}.out.b"),
        ]
        return self.own("SpikeAttention", inputs, scope)

    def latents(self, x: ir.Value, scope: str) -> ir.Value:
        """(B, D, L): latents after they have attended to each other."""
        names = ("norm.w", "norm.b", "qkv.w", "out.w", "out.b")
        weights = self.values(*(f"{scope}.{name}" for name in names), "latent.cos", "latent.sin")
        return self.own("LatentAttention", [x, *weights], scope, heads=self.spec.self_heads)

    def feed_forward(self, x: ir.Value, scope: str) -> ir.Value:
        """(B, D, L): what goes in, and the feed-forward of it."""
        parts = ("norm", "value", "gate", "out")
        weights = self.values(*(f"{scope}.{part}.{kind}" for part in parts for kind in "wb"))
        return self.own("FeedForward", [x, *weights], scope)

    def own(self, operator: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        """One of our operators."""
        return self.op(operator, inputs, f"{name}.native", attributes, domain=OWN_DOMAIN)

    def values(self, *names: str) -> list[ir.Value]:
        """Inputs and constants of the core."""
        return [self.known[name] for name in names]
