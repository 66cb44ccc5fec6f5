"""What passes over a finished core share: the frame, values by name, new ones in place of old."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

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


class CorePass(ir.passes.InPlacePass, abc.ABC):
    """A pass that writes parts of a core anew. Inputs and outputs stay what they are."""

    domain = ""
    """Of operators that are none of ONNX's, in its version 1; "" for none."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self._signature: list[str] = []

    @abc.abstractmethod
    def looks_for(self) -> Iterable[str]:
        """Names of computed values of the core that the pass cannot do without."""

    def reads(self) -> Iterable[str]:
        """Names of constants that it cannot do without either."""
        return ()

    @abc.abstractmethod
    def write(self, graph: ir.Graph) -> Rewriter:
        """Replace values, and give what wrote the new ones."""

    @abc.abstractmethod
    def check(self, graph: ir.Graph) -> None:
        """Raise ``PostconditionError`` if the graph is not what the pass is for."""

    def requires(self, model: ir.Model) -> None:
        """Everything that the pass looks for by name is there."""
        names = {value.name for node in model.graph for value in node.outputs}
        missing = [name for name in self.looks_for() if name not in names]
        missing += [name for name in self.reads() if name not in model.graph.initializers]
        if missing:
            raise ir.passes.PreconditionError(f"expected a core, got a graph without {missing[0]}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Write anew, and drop what nobody needs any longer."""
        graph = model.graph
        self._signature = _signature(graph)
        writer = self.write(graph)
        for value in writer.tape.initializers:
            graph.register_initializer(value)
        common_passes.RemoveUnusedNodesPass()(model)
        if self.domain:
            graph.opset_imports[self.domain] = 1
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Inputs and outputs as before, and what the pass itself promises."""
        if _signature(model.graph) != self._signature:
            raise ir.passes.PostconditionError("expected unchanged inputs and outputs")
        self.check(model.graph)


def rewritten(proto: onnx.ModelProto, a_pass: CorePass) -> onnx.ModelProto:
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


def _signature(graph: ir.Graph) -> list[str]:
    """Inputs and outputs, as text to compare."""
    return [str(value) for value in (*graph.inputs, *graph.outputs)]
