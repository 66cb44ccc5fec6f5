"""The folded core as an ONNX graph: opset 18, standard operators only, one file.

Nodes are named after what they compute (``encoder.attention.score``), so that later passes and
profiles can speak about them. Between attentions, latents travel as rows of one matrix
(B·L, D): every linear layer is then a single matrix product.

Legend: B batch, N spike tokens, L latents, Q queries, D model dim, H heads, K head dim,
P rotating pairs, O outputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from poyo_edge.arrays import Float32
from poyo_edge.core_inputs import INPUTS, OUTPUTS
from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.fold import FeedForwardWeights, FoldedWeights, LayerWeights, Norm
from poyo_edge.export.graph.ops import GraphWriter
from poyo_edge.runtime.constants import LAYER_NORM_EPS

OPSET = 18
IR_VERSION = 8
MASK_FILL = 6.0e4
"""How far a padded spike's score is lowered: finite, and representable in FP16."""

Linear = tuple[Float32, Float32]
Rotation = tuple[ir.Value, ir.Value]


def build_core(folded: FoldedWeights) -> onnx.ModelProto:
    """The FP32 core with the inputs and dynamic axes of ``core_inputs``.

    Raises:
        CheckFailedError: ``onnx.checker`` refuses the graph (a bug, not a user's mistake).
    """
    return checked_model(CoreWriter(folded).write(), "core.onnx")


def checked_model(graph: ir.Graph, file: str) -> onnx.ModelProto:
    """The model of a finished graph.

    Raises:
        CheckFailedError: ``onnx.checker`` refuses it; ``file`` is named.
    """
    proto = ir.serde.serialize_model(
        ir.Model(graph, ir_version=IR_VERSION, producer_name="poyo-edge")
    )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(f"{file}: expected a valid graph, got: {error}") from error
    return proto


class CoreWriter(GraphWriter):
    """Writes the core from its inputs to its output; one instance writes one graph.

    What depends on the inputs stands in methods of its own where ``export/graph/adapt.py`` needs a
    gradient.
    """

    def __init__(self, folded: FoldedWeights) -> None:
        super().__init__()
        self.folded = folded
        self.spec = folded.spec
        self.inputs = {
            name: graph_input(name, array.shape(self.spec), array.dtype)
            for name, array in INPUTS.items()
        }
        self.spike_unit = self.inputs["spike_unit"]
        self.spike_time = self.inputs["spike_time"]
        self.spike_mask = self.inputs["spike_mask"]
        self.unit_kv = self.inputs["unit_kv"]
        self.boundary_lse = self.inputs["boundary_lse"]
        self.boundary_value = self.inputs["boundary_value"]
        self.session_query = self.inputs["session_query"]
        self.query_time = self.inputs["query_time"]

    def write(self) -> ir.Graph:
        """The graph of the core."""
        inputs = [*self.inputs.values()]
        return self.graph(inputs, [self.predict()], opset=OPSET, name="poyo_core")

    def predict(self) -> ir.Value:
        """Prediction (B, Q, O)."""
        x = self.encoder()
        for i, layer in enumerate(self.folded.layers):
            x = self.self_attention(x, layer, f"layer{i}.attention")
            x = self.feed_forward(x, layer.feed_forward, f"layer{i}.feed_forward")
        prediction = self.decoder(x)
        output = OUTPUTS["prediction"]
        prediction.dtype = ir.DataType.from_numpy(np.dtype(output.dtype))
        prediction.shape = ir.Shape(output.shape(self.spec))
        return prediction

    def encoder(self) -> ir.Value:
        """Latents (B·L, D) after they have attended to the spikes."""
        scope = "encoder.attention"
        out = self.attend_to_spikes(scope)
        out = self.rotate(out, self.latent_rotation(inverse=True), f"{scope}.rotate_back")
        out = self.transpose(out, [1, 2, 0, 3], f"{scope}.merge_heads")
        out = self.output(out, self.folded.encoder_out, scope)
        out = self.reshape(out, [-1, self.spec.n_latents, self.spec.dim], f"{scope}.batch")
        latent = self.constant(self.folded.latent, "encoder.latent")
        out = self.op("Add", [out, latent], "encoder.residual")
        out = self.reshape(out, [-1, self.spec.dim], "encoder.rows")
        return self.feed_forward(out, self.folded.encoder_feed_forward, "encoder.feed_forward")

    def attend_to_spikes(self, scope: str) -> ir.Value:
        """(H, B, L, K): what the latents' queries take from spikes and boundary tokens."""
        keys, values = self.spike_keys_and_values()
        weight = self.softmax(self.score(self.encoder_query(), keys, scope), scope)
        spikes = self.op("MatMul", [weight, values], f"{scope}.spike_value")
        boundary = self.unsqueeze(self.boundary_value, [1], f"{scope}.boundary_batch")
        share = self.boundary_share(weight, scope)
        boundary = self.op("Mul", [share, boundary], f"{scope}.boundary_part")
        return self.op("Add", [spikes, boundary], f"{scope}.value")

    def boundary_share(self, weight: ir.Value, scope: str) -> ir.Value:
        """(H, B, L, 1): the weight of the virtual boundary token, which is the last one."""
        last = [self.ints([-1]), self.ints([np.iinfo(np.int64).max]), self.ints([3])]
        return self.op("Slice", [weight, *last], f"{scope}.boundary_share")

    def encoder_query(self) -> ir.Value:
        """(H, 1, L, K+2): queries, minus the boundary tokens' log-sum-exp, mask fill.

        Softmax does not notice a shift of a whole row, so the spikes' scores are lowered by the
        log-sum-exp and the virtual boundary token becomes a row of zeros with score 0.
        """
        scope = "encoder.attention"
        lowered = self.op("Neg", [self.boundary_lse], f"{scope}.minus_lse")
        lowered = self.unsqueeze(lowered, [1, 3], f"{scope}.minus_lse_column")
        shape = (self.spec.cross_heads, 1, self.spec.n_latents, 1)
        fill = self.constant(np.full(shape, MASK_FILL, np.float32), f"{scope}.mask_fill")
        query = self.constant(self.folded.latent_query[:, None], f"{scope}.latent_query")
        return self.concat([query, lowered, fill], -1, f"{scope}.query")

    def spike_keys_and_values(self) -> tuple[ir.Value, ir.Value]:
        """Keys (H, B, N+1, K+2) and values (H, B, N+1, K); the last row is zero."""
        heads, dim_head = self.spec.cross_heads, self.spec.dim_head
        table = self.reshape(self.unit_kv, [-1, 2 * heads, dim_head], "encoder.table")
        table = self.transpose(table, [1, 0, 2], "encoder.table_by_head")
        # The table is cut, not the tokens: it has a row for each unit, they for each spike.
        tables = self.halves(table, dim_head, "encoder.table_parts")
        parts = [
            self.op("Gather", [part, self.spike_unit], f"encoder.spike.{i}", {"axis": 1})
            for i, part in enumerate(tables)
        ]
        tokens = self.turn(parts, self.spike_rotation, "encoder.spike_rotate")
        tokens = self.zero_row(tokens, 2, 4, "encoder.spike_and_boundary")
        keys, values = self.split(tokens, 0, [heads, heads], "encoder.key_value")
        columns = self.mask_columns()
        return self.concat([keys, columns], -1, "encoder.attention.key"), values

    @functools.cached_property
    def spike_rotation(self) -> Rotation:
        """Cos and sin (B, N, P) of the spikes' times."""
        return self.time_rotation(self.spike_time, "encoder.spike_time")

    def mask_columns(self) -> ir.Value:
        """(H, B, N+1, 2): what the queries' last two columns meet: presence, minus absence."""
        scope = "encoder.mask"
        to_float = {"to": ir.DataType.FLOAT.value}
        present = self.op("Cast", [self.spike_mask], f"{scope}.present", to_float)
        present = self.unsqueeze(present, [0, 3], f"{scope}.column")
        absent = self.op("Sub", [present, self.scalar(1.0)], f"{scope}.minus_absent")
        columns = self.concat([present, absent], -1, f"{scope}.columns")
        columns = self.zero_row(columns, 2, 4, f"{scope}.and_boundary")
        return self.concat([columns] * self.spec.cross_heads, 0, f"{scope}.by_head")

    def self_attention(self, x: ir.Value, layer: LayerWeights, scope: str) -> ir.Value:
        """Latents (B·L, D) after they have attended to each other."""
        heads = self.spec.self_heads
        qkv = self.norm(x, layer.norm, f"{scope}.norm")
        qkv = self.by_head(self.linear(qkv, (layer.qkv, None), f"{scope}.qkv"), 3 * heads, scope)
        qkv = self.rotate(qkv, self.latent_rotation(), f"{scope}.rotate")
        query, key, value = self.split(qkv, 1, [heads] * 3, f"{scope}.split")
        out = self.attend(self.score(query, key, scope), value, scope)
        out = self.rotate(out, self.latent_rotation(inverse=True), f"{scope}.rotate_back")
        out = self.transpose(out, [0, 2, 1, 3], f"{scope}.merge_heads")
        out = self.output(out, layer.out, scope)
        return self.op("Add", [x, out], f"{scope}.residual")

    def decoder(self, x: ir.Value) -> ir.Value:
        """Prediction (B, Q, O) from latents (B·L, D)."""
        scope, folded, heads = "decoder.attention", self.folded, self.spec.cross_heads
        kv = self.norm(x, folded.decoder_context_norm, f"{scope}.norm_context")
        kv = self.linear(kv, (folded.decoder_key_value, None), f"{scope}.key_value")
        kv = self.by_head(kv, 2 * heads, scope)
        key, value = self.split(kv, 1, [heads, heads], f"{scope}.split")
        session = self.reshape(self.session_query, [1, self.spec.dim], f"{scope}.session")
        score = self.decoder_score(session, key, scope)
        out = self.attend(score, value, scope)
        out = self.transpose(out, [0, 2, 1, 3], f"{scope}.merge_heads")
        out = self.output(out, folded.decoder_out, scope)
        out = self.op("Add", [out, session], "decoder.residual")
        out = self.feed_forward(out, folded.decoder_feed_forward, "decoder.feed_forward")
        out = self.linear(out, folded.readout, "readout")
        shape = self.op("Shape", [self.query_time], "prediction.batch_and_queries")
        shape = self.concat([shape, self.ints([self.spec.dim_out])], 0, "prediction.shape")
        return self.op("Reshape", [out, shape], "prediction")

    def decoder_score(self, session: ir.Value, key: ir.Value, scope: str) -> ir.Value:
        """(B, H, Q, L). All queries are one vector, turned by each query's time.

        The dimensions that do not turn give the same score for every query, so they are
        multiplied apart and broadcast.
        """
        heads, turning = self.spec.cross_heads, 2 * self.spec.rotating_pairs
        query = self.norm(session, self.folded.decoder_query_norm, f"{scope}.norm")
        query = self.linear(query, (self.folded.decoder_query, None), f"{scope}.query_rows")
        query = self.reshape(query, [1, heads, 1, self.spec.dim_head], f"{scope}.query_by_head")
        sizes = [turning, self.spec.dim_head - turning]
        query_parts = self.split(query, -1, sizes, f"{scope}.query_parts")
        key_parts = self.split(key, -1, sizes, f"{scope}.key_parts")
        cos, sin = self.time_rotation(self.query_time, f"{scope}.query_time")
        by_head = (
            self.unsqueeze(cos, [1], f"{scope}.query_time.cos_by_head"),
            self.unsqueeze(sin, [1], f"{scope}.query_time.sin_by_head"),
        )
        q = self.rotate(query_parts[0], by_head, f"{scope}.query_rotate", width=turning)
        k = self.rotate(key_parts[0], self.latent_rotation(), f"{scope}.key_rotate", width=turning)
        score = self.score(q, k, f"{scope}.turning")
        if len(query_parts) == 1:
            return score
        still = self.score(query_parts[1], key_parts[1], f"{scope}.still")
        return self.op("Add", [score, still], f"{scope}.score")

    def attend(self, score: ir.Value, value: ir.Value, scope: str) -> ir.Value:
        """(..., queries, K) from scores (..., queries, keys) and values (..., keys, K)."""
        return self.op("MatMul", [self.softmax(score, scope), value], f"{scope}.value")

    def softmax(self, score: ir.Value, scope: str) -> ir.Value:
        """Attention weights of scores (..., queries, keys)."""
        return self.op("Softmax", [score], f"{scope}.weight", {"axis": -1})

    def score(self, query: ir.Value, key: ir.Value, scope: str) -> ir.Value:
        """Attention scores (..., queries, keys)."""
        key = self.transpose(key, [0, 1, 3, 2], f"{scope}.key_transposed")
        return self.op("MatMul", [query, key], f"{scope}.score")

    def output(self, out: ir.Value, linear: Linear, scope: str) -> ir.Value:
        """(B, rows, H, K) → (B·rows, D)."""
        out = self.reshape(out, [-1, len(linear[0])], f"{scope}.rows")
        return self.linear(out, linear, f"{scope}.out")

    def feed_forward(self, x: ir.Value, weights: FeedForwardWeights, scope: str) -> ir.Value:
        """``x + W_out (value * gelu(gate))`` on rows (..., D)."""
        normed = self.norm(x, weights.norm, f"{scope}.norm")
        value = self.linear(normed, weights.value, f"{scope}.value")
        gate = self.gelu(self.linear(normed, weights.gate, f"{scope}.gate"), f"{scope}.gelu")
        hidden = self.op("Mul", [value, gate], f"{scope}.hidden")
        out = self.linear(hidden, weights.out, f"{scope}.out")
        return self.op("Add", [x, out], f"{scope}.residual")

    def gelu(self, x: ir.Value, scope: str) -> ir.Value:
        """GELU by the error function, in the form that runtimes recognise and fuse."""
        erf = self.op("Div", [x, self.scalar(math.sqrt(2.0))], f"{scope}.scaled")
        erf = self.op("Erf", [erf], f"{scope}.erf")
        erf = self.op("Add", [erf, self.scalar(1.0)], f"{scope}.plus_one")
        out = self.op("Mul", [x, erf], f"{scope}.product")
        return self.op("Mul", [out, self.scalar(0.5)], f"{scope}.half")

    def by_head(self, x: ir.Value, heads: int, scope: str) -> ir.Value:
        """(B·L, heads·K) → (B, heads, L, K)."""
        shape = [-1, self.spec.n_latents, heads, self.spec.dim_head]
        x = self.reshape(x, shape, f"{scope}.by_latent")
        return self.transpose(x, [0, 2, 1, 3], f"{scope}.by_head")

    def rotate(
        self, x: ir.Value, rotation: Rotation, scope: str, *, width: int | None = None
    ) -> ir.Value:
        """Turn the first 2P of the last axis of ``x`` (..., width); cos and sin are (..., P)."""
        parts = self.halves(x, width or self.spec.dim_head, f"{scope}.parts")
        return self.turn(parts, rotation, scope)

    def halves(self, x: ir.Value, width: int, name: str) -> list[ir.Value]:
        """The last axis cut into first members of pairs, second members, and what is still."""
        pairs = self.spec.rotating_pairs
        return self.split(x, -1, [pairs, pairs, width - 2 * pairs], name)

    def turn(self, parts: list[ir.Value], rotation: Rotation, scope: str) -> ir.Value:
        """Put the parts of ``halves`` together again, with the pairs turned."""
        return self.concat(self.turned(parts, rotation, scope), -1, f"{scope}.turned")

    def turned(self, parts: list[ir.Value], rotation: Rotation, scope: str) -> list[ir.Value]:
        """The parts of ``halves`` with the pairs turned."""
        cos, sin = rotation
        first, second, *still = parts
        plus = self.op("Mul", [first, cos], f"{scope}.first_cos")
        minus = self.op("Mul", [second, sin], f"{scope}.second_sin")
        turned = self.op("Sub", [plus, minus], f"{scope}.first")
        plus = self.op("Mul", [second, cos], f"{scope}.second_cos")
        minus = self.op("Mul", [first, sin], f"{scope}.first_sin")
        return [turned, self.op("Add", [plus, minus], f"{scope}.second"), *still]

    def latent_rotation(self, *, inverse: bool = False) -> Rotation:
        """Constants (L, P): rotation by the latents' times, or back."""
        cos = self.constant(self.folded.latent_cos, "latent.cos")
        if inverse:
            return cos, self.constant(-self.folded.latent_sin, "latent.minus_sin")
        return cos, self.constant(self.folded.latent_sin, "latent.sin")

    def time_rotation(self, time: ir.Value, scope: str) -> Rotation:
        """(B, N) seconds → cos and sin, each (B, N, P)."""
        time = self.unsqueeze(time, [-1], f"{scope}.column")
        omega = self.constant(self.folded.omega, "omega")
        angle = self.op("Mul", [time, omega], f"{scope}.angle")
        return self.op("Cos", [angle], f"{scope}.cos"), self.op("Sin", [angle], f"{scope}.sin")

    def norm(self, x: ir.Value, norm: Norm, name: str) -> ir.Value:
        """LayerNorm over the last axis."""
        weight = self.constant(norm.weight, f"{name}.w")
        bias = self.constant(norm.bias, f"{name}.b")
        attributes = {"axis": -1, "epsilon": LAYER_NORM_EPS}
        return self.op("LayerNormalization", [x, weight, bias], name, attributes)

    def linear(self, x: ir.Value, linear: tuple[Float32, Float32 | None], name: str) -> ir.Value:
        """``x @ w + b`` on rows: one ``Gemm``, or a ``MatMul`` when there is no bias."""
        weight = self.constant(linear[0], f"{name}.w")
        if linear[1] is None:
            return self.op("MatMul", [x, weight], name)
        return self.op("Gemm", [x, weight, self.constant(linear[1], f"{name}.b")], name)


def graph_input(
    name: str, shape: Sequence[int | str], dtype: type[np.generic] = np.float32
) -> ir.Value:
    """An input of a graph; axes with names are free."""
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return ir.Value(name=name, type=kind, shape=ir.Shape(shape))
