"""Which kernels a builder makes of a graph, read from what it lists with detailed profiling.

TensorRT-RTX names every fused kernel on a machine without a GPU, and which nodes are in it. On
another GPU, and with another builder, the kernels may be others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from poyo_edge.records import JsonRecord
from poyo_edge.spec import ModelSpec

LISTING = "Layers:"
"""What the message begins with in which a builder lists its kernels."""
_LINE = re.compile(r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), (?P<rest>.*)$")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPE = re.compile(r"Datatype: (\w+)")
_SUFFIX = re.compile(r"_myl\d+_\d+$")
_TYPES = {"Half": "fp16", "Float": "fp32", "BFloat16": "bf16", "Bf16": "bf16"}
_MOVES = frozenset(("Move", "Resh", "Tran", "Slic", "Conc", "Repl", "Cast", "Gath"))
"""How the names of generated kernels abbreviate operators that compute nothing."""
_SMALLEST_HEAD, _LARGEST_HEAD, _ALIGNMENT = 16, 256, 8
"""Head sizes of fused attention (NVIDIA/TensorRT issue 2981)."""
_COLUMNS = 2
"""What the encoder's keys have beside their head; see ``export/graph/tensorrt_fusion.py``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(JsonRecord):
    """One launch on the GPU."""

    kernel: str
    """The builder's name for it, without its number."""
    nodes: tuple[str, ...]
    """Nodes of the graph that it computes, in part or whole."""
    precision: str
    """Types of what it writes, like "fp16" or "fp16+fp32"."""

    @property
    def is_attention(self) -> bool:
        """Whether a product, a softmax and another product are in it."""
        return "_mha" in self.kernel

    @property
    def is_copy(self) -> bool:
        """Whether it computes nothing: it moves, cuts, joins, repeats or casts."""
        if re.match(r"reformat", self.kernel, re.IGNORECASE):
            return True
        operators = re.findall(r"[A-Z][a-z]+", self.kernel.removeprefix("__myl_"))
        return self.kernel.startswith("__myl_") and set(operators) <= _MOVES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KernelPlan(JsonRecord):
    """The kernels of one engine, in the order of their launch."""

    kernels: int
    fused_attentions: int
    copies: int
    """Kernels that compute nothing."""
    waits: int
    """Of one stream for another."""
    layers: tuple[Kernel, ...]

    def problems(self, spec: ModelSpec, precision: str) -> list[str]:
        """What is not as expected of a core in a precision."""
        fused = expected_attentions(spec, precision)
        wanted = {"fused_attentions": fused, "copies": 0, "waits": 0}
        return [
            f"{name.replace('_', ' ')}: expected {want}, got {getattr(self, name)}"
            for name, want in wanted.items()
            if getattr(self, name) != want
        ]

    def counts(self) -> dict[str, int]:
        """The integers alone."""
        values = self.to_json()
        return {name: value for name, value in values.items() if name != "layers"}


def expected_attentions(spec: ModelSpec, precision: str) -> int:
    """How many attentions fuse: the encoder's, the layers' and the decoder's, by their head sizes.

    The encoder's is filled up to a multiple of 8. In FP32 no attention is fused.
    """
    if precision == "fp32":
        return 0
    encoder = -(-(spec.dim_head + _COLUMNS) // _ALIGNMENT) * _ALIGNMENT
    return _fuses(encoder) + (spec.depth + 1) * _fuses(spec.dim_head)


def read_kernel_plan(listing: str) -> KernelPlan | None:
    """The plan in a builder's message; None where it lists nothing that is understood."""
    lines = [found for line in listing.splitlines() if (found := _LINE.match(line))]
    kernels = [line for line in lines if line["kind"] not in ("signal", "wait")]
    if not kernels:
        return None
    layers = tuple(_kernel(line) for line in kernels)
    return KernelPlan(
        kernels=len(layers),
        fused_attentions=sum(layer.is_attention for layer in layers),
        copies=sum(layer.is_copy for layer in layers),
        waits=sum(line["kind"] == "wait" for line in lines),
        layers=layers,
    )


def plan_line(plans: Mapping[str, Mapping[str, Any]], expected: int) -> str:
    """One line about the plans of all buckets, from their JSON values; "" without any.

    Args:
        plans: token bucket → values of ``KernelPlan.to_json`` or ``counts``.
        expected: attentions that should be fused.
    """
    if not plans:
        return ""

    def each(name: str) -> str:
        """One number where all buckets agree, else that of each bucket."""
        values = {size: plan[name] for size, plan in plans.items()}
        if len(set(values.values())) == 1:
            return str(next(iter(values.values())))
        return ", ".join(f"{value} ({size})" for size, value in values.items())

    return (
        f"{each('kernels')} kernels, {each('fused_attentions')} of {expected} attentions fused, "
        f"{each('copies')} copies, {each('waits')} waits"
    )


def _kernel(line: re.Match[str]) -> Kernel:
    rest = line["rest"]
    outputs = rest[rest.find("Outputs:") :]
    types = sorted({_TYPES.get(kind, kind.lower()) for kind in _TYPE.findall(outputs)})
    return Kernel(
        kernel=_SUFFIX.sub("", line["name"]),
        nodes=tuple(sorted(set(_NODE.findall(rest)))),
        precision="+".join(types),
    )


def _fuses(head: int) -> bool:
    return _SMALLEST_HEAD <= head <= _LARGEST_HEAD and head % _ALIGNMENT == 0
