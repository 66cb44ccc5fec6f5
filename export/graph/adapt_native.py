"""``adapt.onnx`` in operators of our own (``runtime/native/kernels``): the same loss and gradients.

Attention to spikes and the layers are the operators of ``core.cpu.onnx``, and each has one beside
it for its gradients, which computes again what lies between. Latents travel channels first,
(B, D, L). Session constants, the queries and the loss stay in standard operators.

``build --target cpu`` makes it from a core that is there; artifacts need not be exported again.

Legend: B batch, L latents, D model dim, H heads, K head dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from poyo_edge.artifact.onnx_guard import OWN_DOMAIN
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.adapt import AdaptWriter
from poyo_edge.export.graph.core import Linear, checked_model
from poyo_edge.export.graph.fold import FeedForwardWeights, FoldedWeights, LayerWeights, Norm
from poyo_edge.spec import ModelSpec

_DECODER = "decoder.feed_forward"


def build_adapt_for_native(folded: FoldedWeights) -> onnx.ModelProto:
    """The graph of loss and gradients, with inputs and outputs as ``build_adapt`` has them.

    Raises:
        CheckFailedError: ``onnx.checker`` refuses the graph (a bug, not a user's mistake).
    """
    graph = NativeAdaptWriter(folded).write()
    graph.opset_imports[OWN_DOMAIN] = 1
    return checked_model(graph, "adapt.cpu.onnx")


def folded_of(
    core: onnx.ModelProto, spec: ModelSpec, session: Mapping[str, npt.NDArray[np.floating]]
) -> FoldedWeights:
    """The weights that a core was written from.

    Args:
        core: as ``build_core`` writes it.
        spec: its sizes.
        session: the artifact's tensors for session constants.

    Raises:
        CheckFailedError: it is no such core.
    """
    known = {tensor.name: tensor for tensor in core.graph.initializer}

    def array(name: str) -> npt.NDArray[np.float32]:
        if name not in known:
            raise CheckFailedError(f"expected a core, got a graph without {name}")
        return np.asarray(onnx.numpy_helper.to_array(known[name]), np.float32)

    def linear(name: str) -> Linear:
        return array(f"{name}.w"), array(f"{name}.b")

    def norm(name: str) -> Norm:
        return Norm(weight=array(f"{name}.w"), bias=array(f"{name}.b"))

    def feed_forward(scope: str) -> FeedForwardWeights:
        value, gate, out = (linear(f"{scope}.{part}") for part in ("value", "gate", "out"))
        return FeedForwardWeights(norm=norm(f"{scope}.norm"), value=value, gate=gate, out=out)

    def layer(scope: str) -> LayerWeights:
        return LayerWeights(
            norm=norm(f"{scope}.attention.norm"),
            qkv=array(f"{scope}.attention.qkv.w"),
            out=linear(f"{scope}.attention.out"),
            feed_forward=feed_forward(f"{scope}.feed_forward"),
        )

    decoder = "decoder.attention"
    return FoldedWeights(
        spec=spec,
        omega=array("omega"),
        latent_cos=array("latent.cos"),
        latent_sin=array("latent.sin"),
        latent=array("encoder.latent"),
        latent_query=array("encoder.attention.latent_query")[:, 0],
        session={name: np.asarray(tensor, np.float32) for name, tensor in session.items()},
        encoder_out=linear("encoder.attention.out"),
        encoder_feed_forward=feed_forward("encoder.feed_forward"),
        layers=tuple(layer(f"layer{i}") for i in range(spec.depth)),
        decoder_query_norm=norm(f"{decoder}.norm"),
        decoder_query=array(f"{decoder}.query_rows.w"),
        decoder_context_norm=norm(f"{decoder}.norm_context"),
        decoder_key_value=array(f"{decoder}.key_value.w"),
        decoder_out=linear(f"{decoder}.out"),
        decoder_feed_forward=feed_forward(_DECODER),
        readout=linear("readout"),
    )


class NativeAdaptWriter(AdaptWriter):
    """Writes the latents' part of the graph in our operators."""

    def encoder(self) -> ir.Value:
        """Latents (B, D, L) after they have attended to spikes and boundary tokens."""
        scope, folded = "encoder.attention", self.folded
        inputs = [
            *(self.spike_unit, self.spike_time, self.spike_mask),
            *(self.unit_kv, self.boundary_lse, self.boundary_value),
            self.constant(folded.latent_query, f"{scope}.latent_query"),
            self.constant(folded.omega, "omega"),
            *self.latent_rotation(),
            self.constant(folded.latent, "encoder.latent"),
            *self.weights(folded.encoder_out, f"{scope}.out"),
        ]
        x = self.native("SpikeAttention", inputs, range(3, 6), scope)
        return self.feed_forward(x, folded.encoder_feed_forward, "encoder.feed_forward")

    def self_attention(self, x: ir.Value, layer: LayerWeights, scope: str) -> ir.Value:
        """Latents (B, D, L) after they have attended to each other."""
        inputs = [
            x,
            *self.weights((layer.norm.weight, layer.norm.bias), f"{scope}.norm"),
            self.constant(layer.qkv, f"{scope}.qkv.w"),
            *self.weights(layer.out, f"{scope}.out"),
            *self.latent_rotation(),
        ]
        return self.native("LatentAttention", inputs, [0], scope, {"heads": self.spec.self_heads})

    def feed_forward(self, x: ir.Value, weights: FeedForwardWeights, scope: str) -> ir.Value:
        """Of latents (B, D, L); the decoder's is of rows, as in the core."""
        if scope == _DECODER:
            return super().feed_forward(x, weights, scope)
        inputs = [
            x,
            *self.weights((weights.norm.weight, weights.norm.bias), f"{scope}.norm"),
            *self.weights(weights.value, f"{scope}.value"),
            *self.weights(weights.gate, f"{scope}.gate"),
            *self.weights(weights.out, f"{scope}.out"),
        ]
        return self.native("FeedForward", inputs, [0], scope)

    def decoder(self, x: ir.Value) -> ir.Value:
        """As in the core, from latents (B, D, L)."""
        x = self.transpose(x, [0, 2, 1], "decoder.latents")
        return super().decoder(self.reshape(x, [-1, self.spec.dim], "decoder.latent_rows"))

    def weights(self, linear: Linear, name: str) -> list[ir.Value]:
        """Weight and bias as constants."""
        return [self.constant(linear[0], f"{name}.w"), self.constant(linear[1], f"{name}.b")]

    def native(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        wanted: Sequence[int],
        scope: str,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Value:
        """(B, D, L) of one of our operators; those of ``inputs`` that are wanted get gradients."""
        with self.composite([inputs[i] for i in wanted]) as step:
            out = self.op(operator, inputs, f"{scope}.native", attributes, domain=OWN_DOMAIN)
            self.shaped(out, [None, self.spec.dim, self.spec.n_latents])
            step(
                [out],
                lambda grads: self.ops(
                    f"{operator}Gradient",
                    [*inputs, grads[0]],
                    f"{scope}.native.grad",
                    len(wanted),
                    attributes,
                    domain=OWN_DOMAIN,
                ),
            )
        return out
