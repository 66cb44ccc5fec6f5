"""What passes over a finished core share: values by name, and new ones in place of old ones."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from poyo_edge.errors import CheckFailedError
from poyo_edge.export.graph.ops import GraphWriter
from poyo_edge.spec import ModelSpec


class Rewriter(GraphWriter):
    """Writes nodes between the values of a core that is there already."""

    def __init__(self, graph: ir.Graph, spec: ModelSpec, prefix: str = "fused") -> None:
        """``prefix`` goes before the names of new constants, which then meet none of the core."""
        super().__init__()
        self.spec = spec
        self._prefix = prefix
        computed = (value for node in graph for value in node.outputs)
        values = (*computed, *graph.inputs, *graph.initializers.values())
        self.known = {value.name or "": value for value in values}

    def constant(self, array: npt.NDArray[Any], name: str) -> ir.Value:
        """An initializer whose name is new to the core."""
        return super().constant(array, f"{self._prefix}.{name}")

    def weight(self, name: str) -> npt.NDArray[Any]:
        """A constant of the core."""
        value = self.known[name].const_value
        assert value is not None, name
        return value.numpy()


def rewritten(proto: onnx.ModelProto, a_pass: ir.passes.InPlacePass) -> onnx.ModelProto:
    """The graph that a pass makes of a core, without shapes that no longer hold.

    Raises:
        CheckFailedError: what the pass asks for before or after does not hold (a bug).
    """
    model = ir.serde.deserialize_model(proto)
    try:
        a_pass(model)
    except (ir.passes.PreconditionError, ir.passes.PostconditionError) as error:
        raise CheckFailedError(f"fusion: {error.__cause__ or error}") from error
    found = ir.serde.serialize_model(model)
    del found.graph.value_info[:]
    return found


def replace_value(graph: ir.Graph, name: str, new: ir.Value, writer: GraphWriter) -> None:
    """Put what was written since the last call in place of the value of that name."""
    old = next(value for node in graph for value in node.outputs if value.name == name)
    anchor = old.producer()
    assert anchor is not None
    written = [node for node in writer.tape.nodes if node.graph is None]
    graph.insert_before(anchor, written)
    ir.convenience.replace_all_uses_with(old, new)


def signature(graph: ir.Graph) -> list[str]:
    """Inputs and outputs, as text to compare."""
    return [str(value) for value in (*graph.inputs, *graph.outputs)]
