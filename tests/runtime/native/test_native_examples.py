"""The C and C++ examples compile without a warning, and decode."""

from __future__ import annotations

import dataclasses
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labs.redis_server import redis_server
from helpers.native import building
from helpers.paths import ROOT

from poyo_edge.artifact.frozen import metadata_of, open_frozen, sealed
from poyo_edge.files import wire

pytestmark = building.once_is_enough

EXAMPLES = ROOT / "examples" / "native"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def compiled(source: Path, libpoyoedge: Path, out: Path, *words: str) -> Path:
    """A program with the shared library."""
    compiler = building.CXX if source.suffix == ".cpp" else building.CC
    if compiler is None:
        pytest.skip(building.NO_COMPILER)
    dialect = (
        ["-std=c++17"] if source.suffix == ".cpp" else ["-std=c11", "-D_POSIX_C_SOURCE=200809L"]
    )
    building.run([
        compiler, *dialect, *STRICT, f"-I{building.NATIVE}", source, libpoyoedge,
        f"-Wl,-rpath,{libpoyoedge.parent}", "-lpthread", *words, "-o", out,
    ])  # fmt: skip
    return out


@pytest.mark.slow
def test_the_rig_decodes_what_a_callback_brings(
    libpoyoedge: Path, onnxruntime_so: Path, native_file: Path, tmp_path: Path
) -> None:
    rig = compiled(EXAMPLES / "rig.cpp", libpoyoedge, tmp_path / "rig")
    said = building.run([rig, native_file, onnxruntime_so]).splitlines()
    valid, _, _, total = said[-1].split(",")[0].split()
    assert int(total) == 100
    assert int(valid) > 0
    refused = subprocess.run(
        [rig, tmp_path / "absent.onnx", onnxruntime_so], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "No such file" in refused.stderr) == (5, True)


def renamed(native_file: Path, out: Path, units: list[str]) -> Path:
    """The same session with other names of its units."""
    opened = open_frozen(native_file)
    fields = wire.fields(memoryview(opened.data))
    model = b"".join(bytes(field.whole) for field in fields if field.number != 14)
    out.write_bytes(sealed(model, dataclasses.replace(opened.header, unit_ids=tuple(units))))
    assert metadata_of(out.read_bytes(), out)["poyo_edge.session_id"] == "tiny_a"
    return out


def test_the_open_ephys_plugin_decodes_in_a_stand_in_of_the_gui(
    libpoyoedge: Path, onnxruntime_so: Path, native_file: Path, tmp_path: Path
) -> None:
    session = renamed(native_file, tmp_path / "oe.onnx", [f"Tetrode 1/{i}" for i in range(12)])
    host = compiled(
        building.STAND_INS / "plugin_host.cpp", libpoyoedge, tmp_path / "host",
        f"-I{building.STAND_INS / 'open_ephys'}",
    )  # fmt: skip
    refused, *values = building.run([host, session, onnxruntime_so, "Tetrode 1/3"]).splitlines()
    assert "absent.onnx: No such file" in refused
    assert len(values) == 100
    assert {line.split()[:2][1] for line in values} >= {"0", "1"}  # VALID and WARMUP
    assert all(np.isfinite([float(word) for word in line.split()[2:]]).all() for line in values)


def test_the_brand_node_decodes_a_redis_stream(
    libpoyoedge: Path, onnxruntime_so: Path, native_file: Path, tmp_path: Path
) -> None:
    if not Path("/usr/include/hiredis").is_dir():
        pytest.skip("hiredis is not installed (Debian: apt install libhiredis-dev)")
    node = compiled(EXAMPLES / "brand_node.c", libpoyoedge, tmp_path / "node", "-lhiredis")
    with redis_server(tmp_path) as server:
        client = server.start()
        process = subprocess.Popen(
            [node, "-n", "poyo", "-p", str(server.port), native_file, "crossings", "decoded",
             onnxruntime_so],
        )  # fmt: skip
        try:
            wait_for(lambda: "NODE_READY" in str(client.xrange("poyo_state")))
            time.sleep(0.1)
            begin = 10**12
            for i in range(1500):
                counts = np.zeros(12, "<i2")
                counts[i % 12] = i % 2  # 500 spikes/s: 600 are the most
                client.xadd("crossings", {
                    "crossings": counts.tobytes(), "ts": struct.pack("<Q", begin + i * 10**6),
                    "sync": f'{{"i": {i}}}',
                })  # fmt: skip
            wait_for(lambda: client.xlen("decoded") >= 70)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        entries = [fields for _, fields in client.xrange("decoded")]
        assert "NODE_SHUTDOWN" in str(client.xrange("poyo_state"))
    values = np.array([np.frombuffer(fields[b"samples"], "<f8") for fields in entries])
    assert values.shape[1] == 2
    assert np.isfinite(values).all()
    assert {fields[b"status"] for fields in entries} == {b"0", b"1"}
    assert entries[-1][b"sync"].startswith(b'{"i": ')


def wait_for(done: Any, seconds: float = 20.0) -> None:
    """Until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
