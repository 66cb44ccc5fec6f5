"""Graphs that are not plain never reach ONNX Runtime. The files are written by hand."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import TINY
from helpers.vouched import planted
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.artifact import ADAPT, CORE, Artifact, onnx_guard
from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.errors import ArtifactError
from poyo_edge.runtime import Decoder

ENDLESS = 1 << 62
EXTERNAL = b"canary.bin"


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """One field of the wire format: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: bytes, dims: list[int], raw: bytes = b"", kind: int = 1) -> bytes:
    shape = b"".join(field(1, dim) for dim in dims)
    return shape + field(2, kind) + field(8, name) + (field(9, raw) if raw else b"")


def node(operator: bytes, inputs: list[bytes], output: bytes = b"y", more: bytes = b"") -> bytes:
    names = b"".join(field(1, name) for name in inputs)
    return names + field(2, output) + field(4, operator) + more


def value_info(name: bytes, dims: list[int]) -> bytes:
    shape = b"".join(field(1, field(1, dim)) for dim in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def model(nodes: list[bytes], initializers: Sequence[bytes] = (), more: bytes = b"") -> bytes:
    graph = b"".join(field(1, n) for n in nodes) + field(2, b"g")
    graph += b"".join(field(5, t) for t in initializers) + field(12, value_info(b"y", [2]))
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 18)) + more


ONE = tensor(b"w", [2], struct.pack("<2f", 1, 2))
PLAIN = model([node(b"Identity", [b"w"])], [ONE])
OUTSIDE = tensor(b"w", [2]) + field(13, field(1, b"location") + field(2, EXTERNAL)) + field(14, 1)
SHAPE = tensor(b"s", [2], struct.pack("<2q", 1 << 20, 1 << 20), kind=7)
SUBGRAPH = field(
    5, field(1, b"body") + field(6, field(1, node(b"Identity", [b"w"]))) + field(20, 5)
)
SPARSE = field(5, field(1, b"v") + field(22, b""))
FOREIGN = field(7, b"com.evil")
NESTED_EXTERNAL = field(5, field(1, b"value") + field(5, OUTSIDE) + field(20, 4))
VALUE_INTS = field(5, field(1, b"value_ints") + field(8, ENDLESS) + field(20, 7))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "external data": (
        model([node(b"Identity", [b"w"])], [OUTSIDE]),
        "external_data: expected all data in the file, got a path to more",
    ),
    "external data by its place alone": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [2]) + field(14, 1)]),
        "external_data: expected all data in the file",
    ),
    "external data of a constant": (
        model([node(b"Constant", [], more=NESTED_EXTERNAL)]),
        "external_data: expected all data in the file",
    ),
    "external data in a second graph": (
        PLAIN + field(7, field(5, OUTSIDE)),
        "external_data: expected all data in the file",
    ),
    "operator of another domain": (
        model([node(b"Run", [b"w"], more=FOREIGN)], [ONE]),
        "node 'y': expected operators of the domains '', 'ai.onnx', got 'com.evil'",
    ),
    "opset of another domain": (
        PLAIN + field(8, field(1, b"com.microsoft") + field(2, 1)),
        "opset_import: expected operators of the domains '', 'ai.onnx', got 'com.microsoft'",
    ),
    "operator that loads a file": (
        model([node(b"EPContext", [b"w"])], [ONE]),
        "op_type: expected operators that only compute, got 'EPContext'",
    ),
    "loop": (model([node(b"Loop", [b"w"])], [ONE]), "got 'Loop'"),
    "graph inside a node": (
        model([node(b"Identity", [b"w"], more=SUBGRAPH)], [ONE]),
        "attribute: expected no graph inside a node, got a graph",
    ),
    "sparse tensor": (
        model([node(b"Constant", [], more=SPARSE)]),
        "attribute: expected no sparse tensor",
    ),
    "sparse weights": (PLAIN + field(7, field(15, b"")), "sparse_initializer: expected none"),
    "functions": (PLAIN + field(25, b""), "functions: expected none, got operators defined in"),
    "training": (PLAIN + field(20, b""), "training_info: expected none"),
    "a shape beyond its bytes": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [1 << 20], b"1234")]),
        "tensor 'w': expected 4194304 bytes for the shape [1048576], got 4",
    ),
    "a shape without values": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [1 << 28])]),
        "tensor 'w': expected values for the shape [268435456], got 0 bytes of them",
    ),
    "an operator that draws at random": (
        model([node(b"RandomNormal", [])]),
        "op_type: expected operators that only compute, got 'RandomNormal'",
    ),
    "a shape beyond all sense": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [ENDLESS, 4])]),
        f"tensor 'w': expected at most 268435456 elements, got the shape [{ENDLESS}, 4]",
    ),
    "a negative shape": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [-2])]),
        "tensor 'w': expected at most 268435456 elements, got the shape [-2]",
    ),
    "many axes": (
        model([node(b"Identity", [b"w"])], [tensor(b"w", [1] * 9, b"1234")]),
        "tensor 'w': expected at most 8 axes, got 9",
    ),
    "an output beyond all sense": (
        PLAIN + field(7, field(12, value_info(b"z", [1 << 20, 1 << 20]))),
        "value_info: expected at most 268435456 elements",
    ),
    "a result beyond all sense": (
        model([node(b"ConstantOfShape", [b"s"])], [SHAPE]),
        "ConstantOfShape: expected a result of at most 268435456 elements, got the shape [1048576",
    ),
    "a result beyond all sense, by a node": (
        model([node(b"Constant", [], b"s", VALUE_INTS), node(b"Expand", [b"w", b"s"])], [ONE]),
        "Expand: expected a result of at most 268435456 elements",
    ),
    "two tensors of a name": (
        model([node(b"Identity", [b"w"])], [ONE, ONE]),
        "initializer: expected names that differ, got 'w'",
    ),
    "no graph": (field(1, 8), "contents: expected an ONNX model, got 2 bytes without a graph"),
    "nothing": (b"", "contents: expected an ONNX model, got 0 bytes without a graph"),
    "text": (b"dear diary", "contents: expected an ONNX model"),
    "another format of ONNX Runtime": (b"\0\0\0\0ORTM" + PLAIN, "got ONNX Runtime's own format"),
    "a field beyond the end": (PLAIN + b"\x3a\x7f", "got a field that reaches beyond its end"),
    "a number without an end": (PLAIN + b"\xff" * 11, "got a number without an end"),
    "groups": (PLAIN + b"\x3b", "got the wire type 3"),
    "a number for a graph": (PLAIN + field(7, 3), "got a number where graph should be"),
    "a name that is no text": (
        model([node(b"\xff", [b"w"])], [ONE]),
        "got a op_type that is no text",
    ),
}  # fmt: skip


def refusal(data: bytes, name: str = CORE) -> str:
    with pytest.raises(ArtifactError) as caught:
        require_plain_onnx(data, name)
    assert str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_our_graphs_never_hold_is_refused(name: str) -> None:
    data, message = HOSTILE[name]
    assert message in refusal(data)


def test_the_plain_graph_beside_them_is_taken_and_runs() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    require_plain_onnx(PLAIN, CORE)
    session = onnxruntime.InferenceSession(PLAIN, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], [1, 2])


@pytest.mark.parametrize("name", [CORE, ADAPT])
def test_our_own_graphs_are_taken(tiny: Path, name: str) -> None:
    require_plain_onnx((tiny / name).read_bytes(), name)


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_NODES", 160), ("MOST_TENSORS", 71), ("MOST_FIELDS", 2000)]
)
def test_graphs_of_too_many_parts_are_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(onnx_guard, limit, value)
    assert f"expected at most {value} " in refusal((tiny / CORE).read_bytes())


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_guard, "MOST_BYTES", len(PLAIN) - 1)
    assert f"size: expected at most {len(PLAIN) - 1} bytes, got {len(PLAIN)}" in refusal(PLAIN)


def test_one_file_may_use_the_domain_of_its_runtime_and_no_other() -> None:
    microsoft = PLAIN + field(8, field(1, b"com.microsoft") + field(2, 1))
    require_plain_onnx(microsoft, "core.ort-cpu.onnx")
    refusal(microsoft, CORE)
    evil = model([node(b"Run", [b"w"], more=FOREIGN)], [ONE])
    assert "'com.microsoft', got 'com.evil'" in refusal(evil, "core.ort-cpu.onnx")


@pytest.mark.parametrize("name", HOSTILE)
def test_an_artifact_with_such_a_core_never_reaches_onnx_runtime(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    seen = list[object]()
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: seen.append(a))
    planted(tiny_copy, CORE, HOSTILE[name][0])
    for attempt in (Artifact.open, lambda path: Decoder.open(path, session="tiny_a")):
        with pytest.raises(ArtifactError, match=re.escape(str(tiny_copy / CORE))):
            attempt(tiny_copy)
    assert seen == []


def test_onnx_runtime_would_read_the_external_file_and_we_do_not(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary is a secret beside the artifact, which the graph would give back as its output."""
    onnxruntime = pytest.importorskip("onnxruntime")
    canary = tiny_copy / EXTERNAL.decode()
    canary.write_bytes(struct.pack("<2f", 7, 8))
    planted(tiny_copy, CORE, HOSTILE["external data"][0])
    opened = onnxruntime.InferenceSession(str(tiny_copy / CORE), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(opened.run(None, {})[0], [7, 8])
    canary.unlink()
    canary.mkdir()  # from here on it cannot be read at all, and nobody tries
    with pytest.raises(ArtifactError, match="external_data: expected all data in the file"):
        Decoder.open(tiny_copy, session="tiny_a")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    answer(data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 87166), st.integers(0, 255), st.integers(1, 40))
def test_any_change_of_a_graph_is_taken_or_refused(place: int, byte: int, length: int) -> None:
    data = bytearray((TINY / CORE).read_bytes())
    data[place : place + length] = bytes([byte]) * length
    answer(bytes(data))


def answer(data: bytes, check: Callable[[bytes, str], None] = require_plain_onnx) -> None:
    try:
        check(data, CORE)
    except ArtifactError as refused:
        assert "\n" not in str(refused)
