"""The functions of poyoedge.h: what they refuse, with what sentence, and what they promise."""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.native import building, calling
from helpers.native.calling import ENVIRONMENT, FILE, USAGE, NativeDecoder, NativeError

from poyo_edge import __version__
from poyo_edge.artifact.frozen import PREFIX, metadata_of, open_frozen
from poyo_edge.files.writing import sha256_bytes

HEADER = (building.NATIVE / "poyoedge.h").read_text()


def refusal(*arguments: Any, **settings: Any) -> NativeError:
    """Why a decoder does not open."""
    with pytest.raises(NativeError) as caught:
        NativeDecoder(*arguments, **settings)
    return caught.value


@pytest.mark.slow
def test_names_and_codes_are_those_of_the_header(libpoyoedge: Path) -> None:
    for name, code in zip(
        ("OK", "USAGE", "ENVIRONMENT", "FILE", "BUSY"), (0, 2, 4, 5, 6), strict=True
    ):
        assert re.search(rf"POYOEDGE_{name} = {code}[,\s]", HEADER)
    flags = re.findall(r"POYOEDGE_FLAG_(\w+) = 1 << (\d+)", HEADER)
    assert [(name.lower(), int(bit)) for name, bit in flags] == [
        (name, bit) for bit, name in enumerate(calling.FLAGS)
    ]
    statuses = re.findall(r"^\s*POYOEDGE_(VALID|WARMUP|DEGRADED|HELD|INVALID)\b", HEADER, re.M)
    assert tuple(statuses) == calling.STATUSES
    assert calling.load(libpoyoedge).poyoedge_version().decode() == __version__


def test_structs_have_the_size_that_the_compiler_gives_them(
    tmp_path: Path, libpoyoedge: Path
) -> None:
    assert building.CC is not None
    source = tmp_path / "sizes.c"
    source.write_text(
        f'#include "{building.NATIVE}/poyoedge.h"\n#include <stdio.h>\n'
        'int main(void) { printf("%zu %zu %zu", sizeof(poyoedge_options), '
        "sizeof(poyoedge_result), sizeof(poyoedge_state)); return 0; }\n"
    )
    building.run([building.CC, source, "-o", tmp_path / "sizes"])
    sizes = building.run([tmp_path / "sizes"]).split()
    structs = (calling.Options, calling.ResultStruct, calling.State)
    assert [int(size) for size in sizes] == [ctypes.sizeof(struct_) for struct_ in structs]


def test_it_says_what_it_decodes_with(native_decoder: NativeDecoder, native_file: Path) -> None:
    state, header = native_decoder.state(), open_frozen(native_file).header
    assert state.session_id.decode() == header.session_id
    assert (state.n_units, state.dim_out) == (len(header.unit_ids), 2)
    assert (state.window_s, state.max_spikes) == (header.window_s, header.max_spikes)
    assert state.unit.decode() == header.unit
    assert state.onnxruntime.decode() == "1.21.0-stand-in"
    assert (state.n_decodes, state.decoding_since_ns, state.last_decode_ns) == (0, 0, 0)
    native_decoder.decode(1.0)
    assert native_decoder.state().last_decode_ns > 0


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"capacity": 0}, "capacity: expected 1 to 2^28 spikes"),
        ({"threads": 0}, "threads: expected 1 to 1024"),
        ({"tick_rate_hz": -1.0}, "tick_rate_hz: expected a number > 0"),
        ({"tick_rate_hz": np.nan}, "tick_rate_hz: expected a number > 0"),
        ({"hold_s": np.inf}, "hold_s: expected seconds >= 0"),
        ({"decay_s": -0.1}, "decay_s: expected seconds >= 0"),
        ({"silence_s": np.nan}, "silence_s: expected seconds >= 0"),
        ({"missed_spikes": 0.0}, "missed_spikes: expected spikes > 0"),
        ({"future_limit_s": np.nan}, "future_limit_s: expected seconds > 0"),
        ({"size": 8}, "size: expected sizeof(poyoedge_options)"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(
    libpoyoedge: Path, stand_in: Path, native_file: Path, setting: dict[str, Any], sentence: str
) -> None:
    if "size" in setting:
        options = calling.Options(size=8)
        why, handle = ctypes.create_string_buffer(200), ctypes.c_void_p(1)
        lib = calling.load(libpoyoedge)
        assert lib.poyoedge_open(ctypes.byref(options), ctypes.byref(handle), why, 200) == USAGE
        assert (handle.value, why.value.decode()[: len(sentence)]) == (None, sentence)
        return
    problem = refusal(libpoyoedge, native_file, stand_in, **setting)
    assert (problem.code, str(problem)[: len(sentence)]) == (USAGE, sentence)


def damages(data: bytes) -> dict[str, tuple[bytes, str]]:
    """What may have become of a frozen file, and what is to be said of it."""
    schema = b"poyo-edge/frozen/1"
    return {
        "a bit turned": (data[:999] + bytes([data[999] ^ 1]) + data[1000:], "expected the digest"),
        "the digest turned": (data[:-1] + b"x", "sha256: expected the digest"),
        "cut off": (data[:-100], "expected"),
        "more behind it": (data + b"\x0a\x00", "sha256: expected 64 hexadecimal digits"),
        "another schema": (data.replace(schema, b"poyo-edge/frozen/2"), "schema: expected 'poyo"),
        "no metadata": (data[: data.index(b"poyo_edge.schema") - 4], "schema: expected 'poyo-edge"),
        "empty": (b"", "schema: expected"),
        "something else": (b"\x89PNG\r\n\x1a\n" * 100, "expected an ONNX model"),
    }  # fmt: skip


@pytest.mark.parametrize("damage", damages(b"x" * 2000 + b"poyo_edge.schema"))
def test_a_damaged_file_is_refused_in_a_sentence(
    libpoyoedge: Path, stand_in: Path, native_file: Path, tmp_path: Path, damage: str
) -> None:
    content, sentence = damages(native_file.read_bytes())[damage]
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    problem = refusal(libpoyoedge, path, stand_in)
    assert problem.code == FILE
    assert str(path) in str(problem)
    assert sentence in str(problem)


def test_a_file_that_is_none_is_refused(libpoyoedge: Path, stand_in: Path, tmp_path: Path) -> None:
    assert refusal(libpoyoedge, tmp_path / "x.onnx", stand_in).code == FILE
    problem = refusal(libpoyoedge, tmp_path, stand_in)
    assert (problem.code, "expected a file, got something else" in str(problem)) == (FILE, True)


def an_elf(machine: int) -> bytes:
    """The first bytes of a library for some machine."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(44)


def test_an_onnx_runtime_that_does_not_fit_is_refused(
    libpoyoedge: Path, native_file: Path, tmp_path: Path
) -> None:
    old = building.build_stand_in(tmp_path / "old.so", "-DSTAND_IN_API=18")
    other, broken, none = tmp_path / "other.so", tmp_path / "broken.so", tmp_path / "none.so"
    other.write_bytes(an_elf(243))
    own = {62: 62, 183: 183}[struct.unpack("<H", Path("/proc/self/exe").read_bytes()[18:20])[0]]
    broken.write_bytes(an_elf(own))
    none.write_text("nothing")
    for path, sentence in {
        old: "got 1.18.0-stand-in",
        other: "got one for RISC-V on ",
        broken: "got one that cannot be loaded",
        none: "got a file that is no library",
        libpoyoedge: "got a library of something else",
        tmp_path / "absent.so": "got No such file",
        Path("/proc/self"): "got a folder without libonnxruntime.so",
    }.items():
        problem = refusal(libpoyoedge, native_file, path)
        assert problem.code == ENVIRONMENT
        assert f"{path}: expected ONNX Runtime 1.19 or newer" in str(problem)
        assert sentence in str(problem)


@pytest.mark.parametrize("where", ["a folder", "a name in this folder"])
def test_a_folder_or_a_bare_name_is_enough(
    libpoyoedge: Path, native_file: Path, stand_in: Path, tmp_path: Path, where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name = "libonnxruntime.so.1.21.0"
    shutil.copy(stand_in, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path if where == "a folder" else Path(name)
    with NativeDecoder(libpoyoedge, native_file, path) as native_decoder:
        assert native_decoder.decode(1.0).status == "WARMUP"


def test_memory_is_held_for_windows_of_so_many_spikes(
    libpoyoedge: Path, native_file: Path, tmp_path: Path
) -> None:
    """The stand-in decodes no larger ones, so a warm-up with them fails."""
    small = building.build_stand_in(tmp_path / "small.so", "-DSTAND_IN_GOOD", "-DSTAND_IN_MOST=300")
    problem = refusal(libpoyoedge, native_file, small)
    assert (problem.code, "it was told to fail" in str(problem)) == (ENVIRONMENT, True)
    settings = {"warm_spikes": 300, "missed_spikes": np.inf}
    with NativeDecoder(libpoyoedge, native_file, small, **settings) as decoder:
        for end, n in ((1.0, 300), (3.0, 301)):
            decoder.push(np.linspace(end - 0.9, end - 0.1, n), np.arange(n, dtype=np.int32) % 12)
            assert decoder.decode(end).n_spikes == n
        assert decoder.counters()["backend_failures"] == 1


def test_unit_names_that_it_does_not_know_have_no_row(
    native_decoder: NativeDecoder, native_file: Path
) -> None:
    names = [*open_frozen(native_file).header.unit_ids, "", "tiny_a/unit_0", "nobody"]
    rows = native_decoder.rows(names)
    assert (rows[-3:] == -1).all()
    assert len(set(rows[:-3].tolist())) == 12
    native_decoder.push(np.arange(len(names)) / 100, rows)
    assert native_decoder.counters()["unknown_unit"] == 3
    assert native_decoder.counters()["accepted"] == 12


def test_times_that_are_none_are_counted_or_refused(native_decoder: NativeDecoder) -> None:
    native_decoder.push(np.array([np.nan, np.inf, 0.5]), np.zeros(3, np.int32))
    assert native_decoder.counters()["not_finite"] == 2
    for t in (np.nan, np.inf, 1e300):
        with pytest.raises(NativeError, match="expected finite seconds") as caught:
            native_decoder.decode(t)
        assert caught.value.code == USAGE
    assert native_decoder.state().n_decodes == 0


def test_ticks_that_wrap_begin_anew(libpoyoedge: Path, stand_in: Path, native_file: Path) -> None:
    with NativeDecoder(libpoyoedge, native_file, stand_in, tick_rate_hz=30000.0) as native_decoder:
        last = 2**32 - 100
        native_decoder.push(np.array([last - 50]), np.zeros(1, np.int32))
        assert native_decoder.decode(last).n_spikes == 1
        native_decoder.push(np.array([100]), np.zeros(1, np.int32))
        result = native_decoder.decode(200)
        assert {"clock_reset", "warmup", "silent"} <= result.flags
        assert native_decoder.counters()["late"] == 1
        for tick in (2**62, -(2**62)):
            with pytest.raises(NativeError, match="expected ticks below 2"):
                native_decoder.decode(tick)
        native_decoder.push(np.array([2**63 - 1, -(2**63)]), np.zeros(2, np.int32))
        assert native_decoder.decode(400).status == "WARMUP"


def test_seconds_and_ticks_are_not_mixed(
    libpoyoedge: Path, stand_in: Path, native_file: Path
) -> None:
    with NativeDecoder(libpoyoedge, native_file, stand_in) as seconds:
        seconds.ticks = True
        with pytest.raises(NativeError, match=r"use poyoedge_push$"):
            seconds.push(np.zeros(1), np.zeros(1, np.int32))
        with pytest.raises(NativeError, match=r"use poyoedge_decode$"):
            seconds.decode(1)
    with NativeDecoder(libpoyoedge, native_file, stand_in, tick_rate_hz=1000.0) as ticks:
        ticks.ticks = False
        with pytest.raises(NativeError, match=r"use poyoedge_push_ticks$"):
            ticks.push(np.zeros(1), np.zeros(1, np.int32))
        with pytest.raises(NativeError, match=r"use poyoedge_decode_ticks$"):
            ticks.decode(1.0)


def test_after_close_every_call_is_refused(native_decoder: NativeDecoder) -> None:
    closed = native_decoder
    closed.close()
    assert not closed.handle
    sentence = "expected a decoder, got NULL or one that is being closed"
    for call in (
        lambda: closed.push(np.zeros(0), np.zeros(0, np.int32)),
        lambda: closed.rows(["x"]),
        lambda: closed.swap(Path("x")),
        closed.state,
        lambda: closed.decode(1.0),
    ):
        with pytest.raises(NativeError, match=sentence) as caught:
            call()
        assert caught.value.code == USAGE
    closed.close()


def test_a_session_of_another_core_leaves_the_old_one(
    native_decoder: NativeDecoder, native_file: Path, tmp_path: Path
) -> None:
    data = native_file.read_bytes()
    said = metadata_of(data, native_file)
    other = data.replace(said[PREFIX + "core_hash"].encode(), b"0" * 64)
    other = other[:-64] + sha256_bytes(other[:-64] + b"0" * 64).encode()
    path = tmp_path / "other.onnx"
    path.write_bytes(other)
    open_frozen(path)
    with pytest.raises(NativeError, match="expected a session of the core") as caught:
        native_decoder.swap(path)
    assert caught.value.code == FILE
    assert native_decoder.decode(1.0).status == "WARMUP"
    assert "expected a session of the core" in native_decoder.error()


def test_a_value_that_does_not_fit_is_refused(native_decoder: NativeDecoder) -> None:
    native_decoder.dim_out = 1
    with pytest.raises(NativeError, match="expected room for dim_out numbers"):
        native_decoder.decode(1.0)


@pytest.mark.parametrize("of", ["library", "stand_in"])
def test_only_what_the_header_declares_can_be_called(
    libpoyoedge: Path, stand_in: Path, of: str
) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    names = building.run(["nm", "-D", "--defined-only", {"library": libpoyoedge}.get(of, stand_in)])
    defined = {line.split()[-1] for line in names.splitlines()}
    declared = set(re.findall(r"\b(poyoedge_[a-z_]+)\(", HEADER))
    assert (defined == declared) == (of == "library")
