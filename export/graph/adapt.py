"""``adapt.onnx``: loss of a batch of labelled windows and its gradients, for new sessions.

The core as it is, its session constants in the graph instead of in numpy, a weighted mean square
error, and the gradients with respect to ``unit_embedding`` and ``session_embedding``: all that a
device needs to fit a new session without torch. With more labels the weights that turn embeddings
into keys and values may be fitted too, which end in the core's inputs all the same; everything else
is frozen.

Nothing scatters: a unit's gradient is the sum over its spikes, written as a product with a one-hot
matrix. (ONNX Runtime's ``ScatterND`` with "add" loses sums when indices repeat and several
threads run.) A rotation's gradient is the rotation back.

Legend: B batch, N spike tokens, L latents, Q queries, D model dim, H heads, K head dim,
P rotating pairs, O outputs, U units.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from poyo_edge.core_inputs import ENCODER, ENCODER_WEIGHTS, INPUTS, OUTPUTS, PER_WINDOW
from poyo_edge.export.graph.core import OPSET, CoreWriter, Rotation, checked_model, graph_input
from poyo_edge.export.graph.fold import FoldedWeights, Norm
from poyo_edge.export.graph.gradient import Gradients, GradientWriter, Rule
from poyo_edge.runtime.constants import LAYER_NORM_EPS, rotation
from poyo_edge.tokens import TOKEN_END, TOKEN_SPIKE, TOKEN_START

_NO_UNIT = np.iinfo(np.int32).max
"""The unit of the virtual boundary token: out of range, which a one-hot matrix shows as zeros."""


def build_adapt(folded: FoldedWeights) -> onnx.ModelProto:
    """The graph of loss and gradients.

    Inputs: the core's ``spike_unit``, ``spike_time``, ``spike_mask`` and ``query_time``, and, all
    float32, ``unit_embedding`` (n_units, D), ``session_embedding`` (D,), ``target``
    (batch, n_queries, O) in the model's scale and ``target_weight`` (batch, n_queries). The
    weights of ``ENCODER_WEIGHTS`` are inputs too, as ``encoder.NAME``: the trained ones where
    nothing else is given.

    Outputs, float32: ``loss`` (), which is
    ``sum(target_weight * mean_O((prediction - target)²)) / sum(target_weight)``;
    ``unit_embedding_gradient`` (n_units, D), ``session_embedding_gradient`` (D,), and
    ``encoder.NAME_gradient`` of each of those weights.

    Raises:
        CheckFailedError: ``onnx.checker`` refuses the graph (a bug, not a user's mistake).
    """
    return checked_model(AdaptWriter(folded).write(), "adapt.onnx")


class AdaptWriter(GradientWriter, CoreWriter):
    """Writes session constants, the core, the loss, and the gradients behind it."""

    def __init__(self, folded: FoldedWeights) -> None:
        super().__init__(folded)
        spec = self.spec
        self.unit_embedding = self.variable(graph_input("unit_embedding", ["n_units", spec.dim]))
        self.session_embedding = self.variable(graph_input("session_embedding", [spec.dim]))
        self.own = {name: self.default(name) for name in ENCODER_WEIGHTS}
        self.target = graph_input("target", OUTPUTS["prediction"].shape(spec))
        self.target_weight = graph_input("target_weight", INPUTS["query_time"].shape(spec))

    def write(self) -> ir.Graph:
        """The graph of loss and gradients."""
        self.unit_kv = self.unit_rows(TOKEN_SPIKE, "session.spike")
        self.boundary_lse, self.boundary_value = self.boundary()
        self.session_query = self.session_embedding
        variables = [self.unit_embedding, self.session_embedding, *self.own.values()]
        window = [self.inputs[name] for name in PER_WINDOW]
        inputs = [*window, self.target, self.target_weight, *variables]
        prediction = self.predict()
        loss, seed = self.loss(prediction)
        outputs = [loss]
        gradients = self.gradients(prediction, seed, variables, inputs)
        for variable, gradient in zip(variables, gradients, strict=True):
            out = self.op("Identity", [gradient], f"{variable.name}_gradient")
            out.type, out.shape = variable.type, variable.shape
            outputs.append(out)
        return self.graph(inputs, outputs, opset=OPSET, name="poyo_adapt")

    def loss(self, prediction: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The loss, and its gradient with respect to the prediction."""
        with self.unrecorded():
            error = self.op("Sub", [prediction, self.target], "loss.error")
            weight = self.unsqueeze(self.target_weight, [2], "loss.weight")
            weighted = self.op("Mul", [error, weight], "loss.weighted_error")
            square = self.op("Mul", [weighted, error], "loss.square")
            total = self.summed(square, [0, 1, 2], keep=False)
            weights = self.summed(weight, [0, 1, 2], keep=False)
            count = self.op("Mul", [weights, self.scalar(self.spec.dim_out)], "loss.count")
            loss = self.op("Div", [total, count], "loss")
            loss.dtype, loss.shape = ir.DataType.FLOAT, ir.Shape([])
            double = self.op("Mul", [weighted, self.scalar(2.0)], "loss.double")
            return loss, self.op("Div", [double, count], "loss.gradient")

    def default(self, name: str) -> ir.Value:
        """An input that is a weight of the encoder where none is given."""
        value = self.constant(self.folded.session[name], ENCODER + name)
        return self.variable(value)

    def unit_rows(self, token_type: int, scope: str) -> ir.Value:
        """Keys and values (U, 2·H·K) of all units' tokens of one type, not turned."""
        kind, key_value = self.token_kinds[token_type], self.to_kv
        token = self.op("Add", [self.unit_embedding, kind], f"{scope}.token")
        inputs = [token, self.own["context_norm.weight"], self.own["context_norm.bias"]]
        with self.composite(inputs) as step:
            token, normed, rule = self.norm_of(inputs, f"{scope}.norm")

            def all_rules(grads: list[ir.Value]) -> Gradients:
                along = self.op("Mul", [grads[0], normed()], f"{scope}.norm.grad.by_weight")
                weight, bias = (self.summed(g, [0], keep=False) for g in (along, grads[0]))
                return [*rule(grads), weight, bias]

            step([token], all_rules)
        return self.op("MatMul", [token, key_value], f"{scope}.kv")

    @functools.cached_property
    def token_kinds(self) -> list[ir.Value]:
        """Embeddings (1, D) of the token types, in their order."""
        return self.split(self.own["token_type"], 0, [1, 1, 1], "token_type.rows")

    @functools.cached_property
    def to_kv(self) -> ir.Value:
        """(D, 2·H·K)."""
        return self.transpose(self.own["to_kv"], [1, 0], "to_kv.transposed")

    def boundary(self) -> tuple[ir.Value, ir.Value]:
        """``boundary_lse`` (H, L) and ``boundary_value`` (H, L, K)."""
        heads, dim_head, scope = self.spec.cross_heads, self.spec.dim_head, "session.boundary"
        ends = []
        for token_type, time in ((TOKEN_START, 0.0), (TOKEN_END, self.spec.window_seconds)):
            name = f"{scope}.{token_type}"
            rows = self.unit_rows(token_type, name)
            rows = self.reshape(rows, [1, -1, 2 * heads, dim_head], f"{name}.by_head")
            cos, sin = (x.astype(np.float32) for x in rotation(self.folded.omega, np.array(time)))
            turn = self.constant(cos, f"{name}.cos"), self.constant(sin, f"{name}.sin")
            ends.append(self.rotate(rows, turn, f"{name}.rotate"))
        tokens = self.concat(ends, 0, f"{scope}.ends")
        tokens = self.transpose(tokens, [2, 0, 1, 3], f"{scope}.by_head")
        tokens = self.reshape(tokens, [2 * heads, -1, dim_head], f"{scope}.tokens")
        key, value = self.split(tokens, 0, [heads, heads], f"{scope}.key_value")
        key = self.transpose(key, [0, 2, 1], f"{scope}.key_transposed")
        query = self.constant(self.folded.latent_query, f"{scope}.query")
        score = self.op("MatMul", [query, key], f"{scope}.score")
        with self.composite([score, value]) as step:
            lse = self.op("ReduceLogSumExp", [score, self.ints([2])], f"{scope}.lse")
            weight = self.softmax(score, scope)
            out = self.op("MatMul", [weight, value], f"{scope}.value")

            def rule(grads: list[ir.Value]) -> Gradients:
                level = self.dot(grads[1], out, f"{scope}.grad.dot")
                level = self.op("Sub", [grads[0], level], f"{scope}.grad.level")
                return self.attention_gradients(weight, value, grads[1], level, 3, f"{scope}.grad")

            step([lse, out], rule)
        shape = [heads, self.spec.n_latents]
        return self.reshape(lse, shape, f"{scope}.lse_rows"), out

    def attend_to_spikes(self, scope: str) -> ir.Value:
        """As in the core; the gradients are those of attention, summed for each unit."""
        with self.composite([self.unit_kv, self.boundary_lse, self.boundary_value]) as step:
            keys, values = self.spike_keys_and_values()
            weight = self.softmax(self.score(self.encoder_query(), keys, scope), scope)
            spikes = self.op("MatMul", [weight, values], f"{scope}.spike_value")
            boundary = self.unsqueeze(self.boundary_value, [1], f"{scope}.boundary_batch")
            share = self.boundary_share(weight, scope)
            part = self.op("Mul", [share, boundary], f"{scope}.boundary_part")
            out = self.op("Add", [spikes, part], f"{scope}.value")

            def rule(grads: list[ir.Value]) -> Gradients:
                grad, name = grads[0], f"{scope}.grad"
                level = self.dot(grad, out, f"{name}.dot")
                minus = self.op("Neg", [level], f"{name}.level")
                score, value = self.attention_gradients(weight, values, grad, minus, 4, name)
                # Without the two columns of the queries that hold no part of the keys.
                query = self.constant(self.folded.latent_query[:, None], f"{scope}.latent_query")
                score = self.swapped(score, 4, f"{name}.score_transposed")
                key = self.op("MatMul", [score, query], f"{name}.key")
                units = [self.summed_by_unit(key, f"{name}.key")]
                units += [self.summed_by_unit(value, f"{name}.value")]
                # A shift of the boundary token's score by its log-sum-exp is all that varies.
                pull = self.op(
                    "Sub", [self.dot(grad, boundary, f"{name}.pull"), level], f"{name}.boundary"
                )
                lse = self.op("Mul", [share, pull], f"{name}.boundary_lse")
                held = self.op("Mul", [share, grad], f"{name}.boundary_value")
                return [
                    self.concat(units, 1, f"{name}.unit_kv"),
                    self.summed(lse, [1, 3], keep=False),
                    self.summed(held, [1], keep=False),
                ]

            step([out], rule)
        return out

    def summed_by_unit(self, grad: ir.Value, scope: str) -> ir.Value:
        """Gradients of tokens (H, B, N+1, K), turned back and summed for each unit: (U, H·K)."""
        heads, dim_head = self.spec.cross_heads, self.spec.dim_head
        parts = self.halves(grad, dim_head, f"{scope}.parts")
        grad = self.concat(self.turned_back(parts, self.token_rotation, scope), -1, f"{scope}.back")
        grad = self.reshape(grad, [heads, -1, dim_head], f"{scope}.tokens")
        grad = self.op("MatMul", [self.unit_one_hot, grad], f"{scope}.by_unit")
        grad = self.transpose(grad, [1, 0, 2], f"{scope}.units_first")
        return self.reshape(grad, [-1, heads * dim_head], f"{scope}.rows")

    @functools.cached_property
    def token_rotation(self) -> Rotation:
        """Cos and sin (B, N+1, P) of the spikes' times; the boundary token's do not matter."""
        cos, sin = self.spike_rotation
        return self.zero_row(cos, 1, 3, "tokens.cos"), self.zero_row(sin, 1, 3, "tokens.sin")

    @functools.cached_property
    def unit_one_hot(self) -> ir.Value:
        """(U, B·(N+1)): 1 where a token belongs to a unit; boundary tokens belong to none."""
        scope, one_behind = "tokens.unit", self.ints([0, 0, 0, 1])
        nobody = self.constant(np.array(_NO_UNIT, np.int32), f"{scope}.nobody")
        index = self.op("Pad", [self.spike_unit, one_behind, nobody], f"{scope}.padded")
        index = self.reshape(index, [-1], f"{scope}.flat")
        shape = self.op("Shape", [self.unit_embedding], f"{scope}.table")
        depth = self.op("Gather", [shape, self.ints([0])], f"{scope}.count")
        depth = self.op("Cast", [depth], f"{scope}.depth", {"to": ir.DataType.INT32.value})
        off_on = self.constant(np.array([0, 1], np.float32), f"{scope}.off_on")
        return self.op("OneHot", [index, depth, off_on], f"{scope}.one_hot", {"axis": 0})

    def attend(self, score: ir.Value, value: ir.Value, scope: str) -> ir.Value:
        """As in the core, as one step (four axes)."""
        with self.composite([score, value]) as step:
            weight = self.softmax(score, scope)
            out = self.op("MatMul", [weight, value], f"{scope}.value")

            def rule(grads: list[ir.Value]) -> Gradients:
                level = self.dot(grads[0], out, f"{scope}.grad.dot")
                level = self.op("Neg", [level], f"{scope}.grad.level")
                return self.attention_gradients(weight, value, grads[0], level, 4, f"{scope}.grad")

            step([out], rule)
        return out

    def attention_gradients(
        self,
        weight: ir.Value,
        value: ir.Value,
        grad: ir.Value,
        level: ir.Value,
        rank: int,
        scope: str,
    ) -> tuple[ir.Value, ir.Value]:
        """Gradients of scores and values of ``softmax(score) @ value``.

        ``level`` (..., queries, 1) is what each row's scores get in common: minus the product of
        the output and its gradient (Dao et al. 2022, arXiv 2205.14135, appendix B.2).
        """
        pull = self.op(
            "MatMul",
            [grad, self.swapped(value, rank, f"{scope}.value_transposed")],
            f"{scope}.pull_by_value",
        )
        pull = self.op("Add", [pull, level], f"{scope}.levelled")
        score = self.op("Mul", [weight, pull], f"{scope}.score")
        weight = self.swapped(weight, rank, f"{scope}.weight_transposed")
        return score, self.op("MatMul", [weight, grad], f"{scope}.values")

    def dot(self, a: ir.Value, b: ir.Value, name: str) -> ir.Value:
        """Sums of products over the last of four axes, or of three: (..., 1)."""
        return self.summed(self.op("Mul", [a, b], name), [-1])

    def turn(self, parts: list[ir.Value], rotation: Rotation, scope: str) -> ir.Value:
        """As in the core; the gradient is turned back."""
        with self.composite(parts) as step:
            turned = self.turned(parts, rotation, scope)
            out = self.concat(turned, -1, f"{scope}.turned")

            def rule(grads: list[ir.Value]) -> Gradients:
                width = self.length(out, -1)
                cut = self.halves(grads[0], width, f"{scope}.grad.parts")
                back = self.turned_back(cut, rotation, f"{scope}.grad")
                return [
                    self.summed_to(part, like, of)
                    for part, like, of in zip(back, parts, turned, strict=True)
                ]

            step([out], rule)
        return out

    def turned_back(self, parts: list[ir.Value], rotation: Rotation, scope: str) -> list[ir.Value]:
        """The inverse of ``turned``: the same with the members of each pair exchanged."""
        first, second, *still = parts
        second, first = self.turned([second, first], rotation, scope)
        return [first, second, *still]

    def norm(self, x: ir.Value, norm: Norm, name: str) -> ir.Value:
        """As in the core, with the statistics that the gradient needs."""
        with self.composite([x]) as step:
            weight = self.constant(norm.weight, f"{name}.w")
            out, _, rule = self.norm_of([x, weight, self.constant(norm.bias, f"{name}.b")], name)
            step([out], rule)
        return out

    def norm_of(
        self, inputs: Sequence[ir.Value], name: str
    ) -> tuple[ir.Value, Callable[[], ir.Value], Rule]:
        """LayerNorm of x, with weight and bias; the normed x, once asked for; the rule for x."""
        x, weight, _ = inputs
        attributes = {"axis": -1, "epsilon": LAYER_NORM_EPS}
        out, mean, inverse_sd = self.ops("LayerNormalization", inputs, name, 3, attributes)
        scope = f"{name}.grad"

        @functools.cache
        def normed() -> ir.Value:
            centred = self.op("Sub", [x, mean], f"{scope}.centred")
            return self.op("Mul", [centred, inverse_sd], f"{scope}.normed")

        def rule(grads: list[ir.Value]) -> Gradients:
            grad = self.op("Mul", [grads[0], weight], f"{scope}.weighted")
            mean_grad = self.op("ReduceMean", [grad, self.ints([-1])], f"{scope}.mean")
            along = self.op("Mul", [grad, normed()], f"{scope}.product")
            along = self.op("ReduceMean", [along, self.ints([-1])], f"{scope}.along")
            along = self.op("Mul", [normed(), along], f"{scope}.part_along")
            grad = self.op("Sub", [grad, mean_grad], f"{scope}.minus_mean")
            grad = self.op("Sub", [grad, along], f"{scope}.minus_along")
            return [self.op("Mul", [grad, inverse_sd], scope)]

        return out, normed, rule

    def gelu(self, x: ir.Value, scope: str) -> ir.Value:
        """As in the core; the derivative is ``Φ(x) + x φ(x)`` of the normal distribution."""
        with self.composite([x]) as step:
            scaled = self.op("Mul", [x, self.scalar(1 / math.sqrt(2.0))], f"{scope}.scaled")
            erf = self.op("Erf", [scaled], f"{scope}.erf")
            plus = self.op("Add", [erf, self.scalar(1.0)], f"{scope}.plus_one")
            below = self.op("Mul", [plus, self.scalar(0.5)], f"{scope}.probability")
            out = self.op("Mul", [x, below], f"{scope}.product")

            def rule(grads: list[ir.Value]) -> Gradients:
                name = f"{scope}.grad"
                square = self.op("Mul", [scaled, scaled], f"{name}.square")
                density = self.op("Neg", [square], f"{name}.exponent")
                density = self.op("Exp", [density], f"{name}.density")
                part = self.op("Mul", [x, self.scalar(1 / math.sqrt(2 * math.pi))], f"{name}.x")
                part = self.op("Mul", [part, density], f"{name}.part")
                slope = self.op("Add", [below, part], f"{name}.slope")
                return [self.op("Mul", [grads[0], slope], name)]

            step([out], rule)
        return out
