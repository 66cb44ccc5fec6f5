"""Which ONNX operators each TensorRT accepts: only those that our graphs use, or tempt to.

Derived from onnx-tensorrt's ``operators.md`` at the versions named, and for TensorRT-RTX from
asking its own parser. Not every TensorRT has a published table; ``TABLES`` says which one stands
for it, and whether that settles anything.
"""

from __future__ import annotations

import dataclasses

VERSIONS = ("10.3", "10.13", "10.15", "11.1", "rtx-1.7.1")
NEWEST_OPSET = {"10.3": 20, "10.13": 22, "10.15": 24, "11.1": 24, "rtx-1.7.1": 26}
"""The newest opset that is documented; for 10.3 and 10.13 that of their neighbours."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """By which table the operators of a TensorRT are checked."""

    tensorrt: str
    table: str
    """One of ``VERSIONS``."""
    settles: bool
    """Whether passing the table means that this TensorRT has the operators."""
    why: str


TABLES = (
    TableSource(
        tensorrt="10.3",
        table="10.3",
        settles=True,
        why="no table of its own is published: made from the table of 10.1 and the "
        "change logs since",
    ),
    TableSource(
        tensorrt="10.7",
        table="10.3",
        settles=True,
        why="the rows that we use are the same in 10.3 and 10.13 on either side of it, or stricter "
        "in 10.3",
    ),
    TableSource(
        tensorrt="10.13",
        table="10.13",
        settles=True,
        why="no table of its own is published: made from the table of 10.14, less what 10.14 added",
    ),
    TableSource(
        tensorrt="10.16",
        table="10.15",
        settles=True,
        why="no table of its own is published: the rows that we use are the same in 10.15 and "
        "11.1, on either side of it",
    ),
    TableSource(
        tensorrt="11.4",
        table="11.1",
        settles=False,
        why="no table after 11.1 is published: the rows that we use are the same from 10.13 to "
        "11.1; the parser on the Jetson decides",
    ),
)

_FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})
_NUMBERS = _FLOATS | {"INT32", "INT64"}
_ANY = _NUMBERS | {"BOOL"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What holds for one operator."""

    types: frozenset[str]
    """ONNX types of its data; shapes, axes and the like are INT64 beside that."""
    attributes: frozenset[str] = frozenset()
    """Attributes that have been looked at; another one is refused until it has been."""
    constants: tuple[int, ...] = ()
    """Inputs that must be initializers (asked by some version, so held in all)."""
    shape_inputs: tuple[int, ...] = ()
    """Inputs that are INT64 shapes, axes, sizes or bounds rather than data."""
    only_output: bool = False
    """Only the first output may be used."""
    like_types: bool = False
    """All data inputs must have one type, or strong typing is a parse error."""
    first: str = VERSIONS[0]
    """The first version of the table that has it."""


def _op(types: frozenset[str] = _FLOATS, attributes: str = "", **more: object) -> Operator:
    return Operator(types=types, attributes=frozenset(attributes.split()), **more)  # type: ignore[arg-type]


OPERATORS = {
    "Add": _op(_NUMBERS, like_types=True),
    "Cast": _op(_ANY | {"UINT8"}, "to"),
    "Concat": _op(_ANY, "axis", like_types=True),
    "Cos": _op(),
    "Div": _op(_NUMBERS, like_types=True),
    "Erf": _op(),
    "Gather": _op(_ANY, "axis"),
    "Gemm": _op(_FLOATS, "alpha beta transA transB", like_types=True),
    "LayerNormalization": _op(_FLOATS, "axis epsilon", only_output=True, like_types=True),
    "MatMul": _op(like_types=True),
    "Mul": _op(_NUMBERS, like_types=True),
    "Neg": _op(_NUMBERS),
    "Pad": _op(_NUMBERS, "mode", constants=(1, 3), shape_inputs=(1, 3)),
    "Reshape": _op(_ANY, "allowzero", shape_inputs=(1,)),
    "Shape": _op(_ANY),
    "Sin": _op(),
    "Slice": _op(_ANY, constants=(1, 2, 3, 4), shape_inputs=(1, 2, 3, 4)),
    "Softmax": _op(_FLOATS, "axis"),
    "Split": _op(_ANY, "axis", constants=(1,), shape_inputs=(1,)),
    "Sub": _op(_NUMBERS, like_types=True),
    "Transpose": _op(_ANY, "perm"),
    "Unsqueeze": _op(_ANY, constants=(1,), shape_inputs=(1,)),
    # Not used: what one would like to use, and must not on the older versions.
    "Attention": _op(_FLOATS, "is_causal kv_num_heads q_num_heads scale", first="10.15"),
    "RMSNormalization": _op(_FLOATS, "axis epsilon", like_types=True, first="10.15"),
    "RotaryEmbedding": _op(
        _FLOATS, "interleaved num_heads rotary_embedding_dim", like_types=True, first="10.15"
    ),
}
