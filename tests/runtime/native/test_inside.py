"""Parts of the C library that nobody calls from outside, against Python's and numpy's."""

from __future__ import annotations

import ctypes as c
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.native import building
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_edge.artifact.frozen import MAY_USE, open_frozen
from poyo_edge.artifact.onnx_guard import require_plain_onnx
from poyo_edge.errors import ArtifactError
from poyo_edge.files import wire
from poyo_edge.files.writing import sha256_bytes
from poyo_edge.runtime.latency import LatencyHistogram


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> c.CDLL:
    """The library with doors, under the address sanitizer's simpler sister: undefined behaviour."""
    if building.CC is None:
        pytest.skip(building.NO_COMPILER)
    path = tmp_path_factory.mktemp("inside") / "libinside.so"
    building.build_library(
        path, "-fvisibility=default", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error",
        str(building.STAND_INS / "inside.c"),
    )  # fmt: skip
    lib = c.CDLL(str(path))
    lib.inside_sum.restype = c.c_double
    lib.inside_sum.argtypes = [c.c_void_p, c.c_size_t]
    lib.inside_sha256.argtypes = [c.c_char_p, c.c_size_t, c.c_char_p]
    lib.inside_latency.argtypes = [c.c_void_p, c.c_size_t, c.c_void_p, c.c_void_p]
    lib.inside_guard.argtypes = [c.c_char_p, c.c_size_t, c.c_char_p, c.c_size_t]
    lib.inside_read.argtypes = [c.c_char_p, c.c_char_p, c.c_size_t, c.c_char_p, c.c_size_t]
    return lib


@pytest.mark.slow
@given(st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_sums_are_numpys(inside: c.CDLL, n: int, seed: int) -> None:
    values = np.random.default_rng(seed).exponential(20, n).astype(np.float32)
    assert inside.inside_sum(values.ctypes.data, n) == float(values.sum())


@given(st.binary(max_size=300))
def test_digests_are_those_of_everybody(inside: c.CDLL, data: bytes) -> None:
    digest = c.create_string_buffer(65)
    inside.inside_sha256(data, len(data), digest)
    assert digest.value.decode() == sha256_bytes(data)


@given(st.lists(st.integers(0, 2 * 10**10), max_size=300))
def test_latencies_fall_into_pythons_bins(inside: c.CDLL, latencies: list[int]) -> None:
    histogram, counts = LatencyHistogram(), np.zeros(1400, np.int64)
    for latency in latencies:
        histogram.add(latency)
    values, percentiles = np.array(latencies, np.int64), np.zeros(4)
    inside.inside_latency(
        values.ctypes.data, len(values), counts.ctypes.data, percentiles.ctypes.data
    )
    assert np.array_equal(counts, histogram.counts)
    summary = histogram.summary_ms()
    expected = [summary[name] for name in ("p50", "p90", "p99", "p999")]
    np.testing.assert_allclose(percentiles, expected, atol=6e-5, rtol=1e-9)


def python_takes(data: bytes) -> bool:
    try:
        require_plain_onnx(data, "x.onnx", MAY_USE)
    except ArtifactError:
        return False
    return True


def c_takes(inside: c.CDLL, data: bytes) -> tuple[bool, str]:
    why = c.create_string_buffer(200)
    taken = inside.inside_guard(data, len(data), why, len(why))
    return bool(taken), why.value.decode()


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=3),
    end=st.none() | st.floats(0, 1),
)
def test_both_guards_take_the_same_files(
    inside: c.CDLL, native_file: Path, cuts: list[tuple[float, bytes]], end: float | None
) -> None:
    data = bytearray(native_file.read_bytes())
    for where, new in cuts:
        at = int(where * (len(data) - len(new)))
        data[at : at + len(new)] = new
    changed = bytes(data if end is None else data[: int(end * len(data))])
    taken, why = c_takes(inside, changed)
    assert taken == python_takes(changed), why


def model(graph: bytes = b"", more: bytes = b"") -> bytes:
    """A model of a graph of fields, and fields beside it."""
    return wire.block(7, graph) + more


HOSTILE = {
    "data elsewhere": model(wire.block(5, wire.block(13, b"\x0a\x01x"))),
    "data elsewhere, said by a number": model(wire.block(5, wire.integer(14, 1))),
    "another domain": model(more=wire.block(8, wire.block(1, "evil"))),
    "a node of another domain": model(wire.block(1, wire.block(7, "evil"))),
    "an operator that is none of our own": model(
        wire.block(1, wire.block(4, "Shell") + wire.block(7, "poyo_edge"))
    ),
    "an attribute that our operator has not": model(
        wire.block(1, wire.block(4, "QueryAttention") + wire.block(7, "poyo_edge")
                   + wire.block(5, wire.block(1, "path")))
    ),
    "an attribute of an operator that has none": model(
        wire.block(1, wire.block(7, "poyo_edge") + wire.block(4, "FeedForward")
                   + wire.block(5, wire.block(1, "heads")))
    ),
    "an operator that loops": model(wire.block(1, wire.block(4, "Loop"))),
    "a graph inside a node": model(wire.block(1, wire.block(5, wire.block(6, b"")))),
    "functions": model(more=wire.block(25, b"")),
    "training": model(more=wire.block(20, b"")),
    "a sparse tensor": model(wire.block(15, b"")),
    "a tensor larger than stated": model(
        wire.block(5, [wire.integer(1, 5), wire.integer(2, 1), wire.block(9, bytes(16))])
    ),
    "a tensor beyond all sense": model(
        wire.block(5, [wire.integer(1, 1 << 40), wire.block(9, b"")])
    ),
    "a negative size": model(wire.block(5, [wire.integer(1, 2**64 - 1), wire.block(9, b"")])),
    "many axes": model(wire.block(5, [wire.integer(1, 1)] * 9)),
    "a shape that asks for terabytes": model(
        wire.block(5, [wire.integer(1, 2), wire.integer(2, 7), wire.block(8, "s"),
                       wire.block(9, (1 << 30).to_bytes(8, "little") * 2)])
        + wire.block(1, [wire.block(1, "x"), wire.block(1, "s"), wire.block(4, "Expand")])
    ),
    "an initializer twice": model(2 * wire.block(5, [wire.block(8, "s"), wire.block(9, b"")])),
    "no graph": wire.block(8, wire.block(1, "")),
    "the format of ONNX Runtime": b"\x00\x00\x00\x00ORTM" + bytes(20),
    "text that is none": model(wire.block(1, wire.block(4, b"\xff\xfe"))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_both(inside: c.CDLL, name: str) -> None:
    taken, why = c_takes(inside, HOSTILE[name])
    assert not taken
    assert why.startswith("expected ")
    assert not python_takes(HOSTILE[name])


def test_a_plain_model_is_taken_by_both(inside: c.CDLL, native_file: Path) -> None:
    assert c_takes(inside, native_file.read_bytes()) == (True, "")
    assert python_takes(native_file.read_bytes())


def sealed_again(content: bytes) -> bytes:
    changed = content[:-64] + b"0" * 64
    return changed[:-64] + sha256_bytes(changed).encode()


@pytest.mark.parametrize("number", [b"05", b"+5"])
def test_numbers_that_json_has_not_are_refused_by_both(
    inside: c.CDLL, native_file: Path, tmp_path: Path, number: bytes
) -> None:
    content, rates = native_file.read_bytes(), b'"rate_hz":['
    at = content.index(rates) + len(rates)
    changed = sealed_again(content[:at] + number + content[at + len(number) :])
    why = c.create_string_buffer(300)
    assert inside.inside_read(b"sealed.onnx", changed, len(changed), why, len(why)) == 5
    assert b"poyo_edge.activity" in why.value
    path = tmp_path / "sealed.onnx"
    path.write_bytes(changed)
    with pytest.raises(ArtifactError):
        open_frozen(path)


def test_entries_without_a_key_or_a_value_are_read_as_python_reads_them(
    inside: c.CDLL, native_file: Path, tmp_path: Path
) -> None:
    content, path = native_file.read_bytes(), tmp_path / "sealed.onnx"
    keys = [*re.finditer(rb"\x0a(?s:.)(poyo_edge\.[a-z0-9_]+)\x12", content)]
    assert len(keys) > 8
    for at in [place for key in keys for place in (key.start(), key.end() - 1)]:
        changed = bytearray(content)
        changed[at] |= 8  # field 1 or 2 of the entry becomes one that nobody knows
        sealed = sealed_again(bytes(changed))
        path.write_bytes(sealed)
        why = c.create_string_buffer(300)
        code = inside.inside_read(b"sealed.onnx", sealed, len(sealed), why, len(why))
        try:
            open_frozen(path)
        except ArtifactError:
            assert code == 5, at
        else:
            assert code == 0, why.value


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_is_sealed_again_after_damage_is_read_as_python_reads_it(
    inside: c.CDLL, native_file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Its digest holds, so what is in it counts. The last 2,000 bytes are metadata."""
    content = bytearray(native_file.read_bytes())
    at = data.draw(st.integers(len(content) - 2000, len(content) - 70))
    content[at] = data.draw(st.integers(0, 255))
    changed = sealed_again(bytes(content))
    path = tmp_path_factory.getbasetemp() / "sealed.onnx"
    path.write_bytes(changed)
    why = c.create_string_buffer(300)
    code = inside.inside_read(b"sealed.onnx", changed, len(changed), why, len(why))
    assert code in (0, 5)
    if code == 0:
        open_frozen(path)
    else:
        assert "expected" in why.value.decode(errors="replace")
