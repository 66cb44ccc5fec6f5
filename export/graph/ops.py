"""A small vocabulary for writing ONNX graphs: named nodes, shared constants, no surprises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape


class GraphWriter:
    """Writes nodes onto a tape. Each node and its output carry the name given.

    Constants with the same name are written once; giving one name to two different arrays is a
    bug and raises ``ValueError``.
    """

    def __init__(self) -> None:
        self.tape = Tape()
        self._constants: dict[str, tuple[npt.NDArray[Any], ir.Value]] = {}

    def graph(
        self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], *, opset: int, name: str
    ) -> ir.Graph:
        """The finished graph."""
        return ir.Graph(
            inputs=inputs,
            outputs=outputs,
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports={"": opset},
            name=name,
        )

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """One node with one output; ``domain`` is that of operators beyond the standard."""
        value = self.tape.op(op_type, inputs, attributes, domain=domain, name=name)
        value.name = name
        return value

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        count: int,
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> list[ir.Value]:
        """One node with several outputs, ``name.0``, ``name.1``, …"""
        values = list(
            self.tape.op_multi_out(
                op_type, inputs, attributes, num_outputs=count, domain=domain, name=name
            )
        )
        for i, value in enumerate(values):
            value.name = f"{name}.{i}"
        return values

    def split(self, x: ir.Value, axis: int, sizes: Sequence[int], name: str) -> list[ir.Value]:
        """Cut ``x`` along ``axis``; parts of size 0 are left out."""
        kept = [size for size in sizes if size]
        if len(kept) == 1:
            return [x]
        return self.ops("Split", [x, self.ints(kept)], name, len(kept), {"axis": axis})

    def constant(self, array: npt.NDArray[Any], name: str) -> ir.Value:
        """An initializer."""
        if name in self._constants:
            known, value = self._constants[name]
            if known.dtype != array.dtype or not np.array_equal(known, array):
                raise ValueError(f"constant {name!r} has two values")
            return value
        value = self.tape.initializer(ir.tensor(np.asarray(array, order="C"), name=name))
        self._constants[name] = (array, value)
        return value

    def ints(self, values: Sequence[int]) -> ir.Value:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64), f"ints.{'_'.join(map(str, values))}")

    def scalar(self, value: float) -> ir.Value:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32), f"scalar.{value:.9g}")

    def reshape(self, x: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """``Reshape``; -1 is inferred, 0 keeps the dimension."""
        return self.op("Reshape", [x, self.ints(shape)], name)

    def transpose(self, x: ir.Value, perm: Sequence[int], name: str) -> ir.Value:
        """``Transpose``."""
        return self.op("Transpose", [x], name, {"perm": list(perm)})

    def unsqueeze(self, x: ir.Value, axes: Sequence[int], name: str) -> ir.Value:
        """``Unsqueeze``."""
        return self.op("Unsqueeze", [x, self.ints(axes)], name)

    def concat(self, parts: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """``Concat``; a single part passes through."""
        if len(parts) == 1:
            return parts[0]
        return self.op("Concat", parts, name, {"axis": axis})

    def zero_row(self, x: ir.Value, axis: int, rank: int, name: str) -> ir.Value:
        """``x`` with a row of zeros behind the last one along ``axis``."""
        pads = [0] * (2 * rank)
        pads[rank + axis] = 1
        return self.op("Pad", [x, self.ints(pads)], name, {"mode": "constant"})
