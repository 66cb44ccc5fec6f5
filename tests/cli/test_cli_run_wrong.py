"""``poyo-edge run`` on a stream that is another than its feed reads: status, reason, exit code."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import run

from poyo_edge.journal import Journal
from poyo_edge.recording import write_recording

SECONDS = "1.5"


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Set at the end of a test, for its senders."""
    event = threading.Event()
    yield event
    event.set()


def send_again(stop: threading.Event, send: Callable[[], Any]) -> threading.Thread:
    """Call it each 20 ms beside the test."""

    def go() -> None:
        while not stop.wait(0.02):
            try:
                send()
            except OSError:
                return

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread


def serve(stop: threading.Event, data: bytes) -> int:
    """A server on loopback that sends the same bytes again and again; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def go() -> None:
        with listening, listening.accept()[0] as peer:
            send_again(stop, lambda: peer.sendall(data)).join()

    threading.Thread(target=go, daemon=True).start()
    return int(listening.getsockname()[1])


def run_on(tiny: Path, address: str, *more: object) -> subprocess.CompletedProcess[str]:
    words = ["--session", "tiny_a", "--from", address, "--seconds", SECONDS, "--json"]
    return run("run", tiny, *words, *more)


def require_nothing_decoded(done: subprocess.CompletedProcess[str], reason: str) -> dict[str, Any]:
    """Exit code 3, the reason once while it runs and once at the end; what --json says."""
    assert done.returncode == 3, done.stderr
    assert "error: run: expected spikes of the session's units, but no spike was used: " in (
        done.stderr
    )
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.mark.slow
def test_datagrams_that_are_no_packets(tiny: Path, tmp_path: Path, stop: threading.Event) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    send_again(stop, lambda: peer.sendto(b'{"time": 3}', ("127.0.0.1", port)))
    journal = tmp_path / "a.journal"
    done = run_on(tiny, f"udp://127.0.0.1:{port}", "--record", journal)
    reason = 'expected times, "t" in seconds or "ticks", got neither, in {"time": 3}'
    values = require_nothing_decoded(done, reason)
    assert (values["feed"]["first_problem"], values["loop"]["decoded"]) == (reason, 0)
    assert done.stderr.count(f"the feed: {reason}\n") == 1
    assert {"feed": "problem", "said": reason} in list(Journal(journal).entries())
    peer.close()


@pytest.mark.slow
def test_lines_that_name_rows_for_units(tiny: Path, stop: threading.Event) -> None:
    port = serve(stop, b'{"t": [1.5], "units": [3]}\n')
    done = run_on(tiny, f"tcp://127.0.0.1:{port}")
    require_nothing_decoded(done, "expected names (text), got 3; send the units' names")


@pytest.mark.slow
def test_labels_of_another_width_are_said_with_the_one_expected(
    tiny: Path, stop: threading.Event
) -> None:
    reason = "labels: expected 2 values each, as the model decodes, got 3; send the behaviour"
    port = serve(stop, b'{"t": [1.5], "behavior": [[1, 2, 3]]}\n')
    done = run_on(tiny, f"tcp://127.0.0.1:{port}", "--calibrate", "20")
    values = require_nothing_decoded(done, reason)
    assert values["loop"]["bad_packets"] > 0
    assert done.stderr.count(f"the feed: {reason}") == 1


@pytest.mark.slow
def test_labels_of_a_recording_that_have_another_width_are_refused(
    tiny: Path, tmp_path: Path
) -> None:
    made = write_recording(
        tmp_path / "a.h5", session_id="tiny_a", subject_id="s", unit_ids=["tiny_a/unit_00"],
        spike_times=np.arange(100) / 20, spike_units=np.zeros(100, np.int64),
        behaviors={"cursor.vel": (np.arange(250) / 50, np.zeros((250, 3)))},
        domains={"all": [(0.0, 5.0)]},
    )  # fmt: skip
    done = run_on(tiny, f"file:{made}?labels=cursor.vel")
    assert done.returncode == 2, done.stderr
    assert "labels: expected 2 values each, as the model decodes, got 3" in done.stderr
    assert run_on(tiny, f"file:{made}").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<I5sIB", 0x3AE2710F, b"A-001", 7, 0x80), "id 0x80, which marks an artifact"),
        (struct.pack("<II", 0x2EF07A08, 5) + bytes(64), "got RHX's waveform output; name the port"),
    ],
    ids=["artifacts", "waveforms"],
)
def test_intan_that_sends_no_spikes(
    tiny: Path, stop: threading.Event, data: bytes, reason: str
) -> None:
    done = run_on(tiny, f"intan://127.0.0.1:{serve(stop, data)}")
    require_nothing_decoded(done, reason)


@pytest.mark.slow
def test_open_ephys_with_two_streams(tiny: Path, stop: threading.Event) -> None:
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")
    context = zmq.Context()
    publisher = context.socket(zmq.PUB)
    publisher.setsockopt(zmq.LINGER, 0)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    head = {"event_type": "spike", "electrode": "T1", "sample_number": 5}
    parts = [json.dumps({**head, "stream": name}).encode() for name in "AB"]
    thread = send_again(stop, lambda: [publisher.send(part) for part in parts])
    done = run_on(tiny, f"openephys://127.0.0.1:{port}")
    stop.set()
    thread.join()
    context.destroy()
    assert done.returncode == 2
    assert "expected spikes of one stream, got 'B' beside 'A'; choose with ?stream=" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (np.full(60, -0.4, "<f4"), "expected whole counts of 0 to 1000 as float32, got -0.4"),
        (np.ones(60, "i1"), "expected whole counts of 0 to 1000 as float32, got 2.369e-38"),
    ],
)
def test_brand_with_scores_or_bytes_for_counts(
    tiny: Path, tmp_path: Path, stop: threading.Event, counts: Any, reason: str
) -> None:
    redis = pytest.importorskip("redis", reason="redis is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir",
             str(tmp_path)]  # fmt: skip
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)

        def add() -> None:
            stamp = struct.pack("<Q", time.monotonic_ns())
            client.xadd("s", {"samples": counts.tobytes(), "ts": stamp})

        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.01)
        thread = send_again(stop, add)
        done = run_on(tiny, f"redis://127.0.0.1:{port}/s")
        stop.set()
        thread.join()
        client.close()
    finally:
        server.kill()
        server.wait()
    require_nothing_decoded(done, reason)


@pytest.mark.slow
def test_an_lsl_stream_of_a_regular_rate(tiny: Path) -> None:
    try:
        import pylsl
    except Exception as error:  # The wheel may lack the library behind it.
        pytest.skip(f"pylsl is not installed ({error})")
    name = f"poyo_edge_run_{time.monotonic_ns()}"
    stream = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Counts", 60, 50, "float32", "a2"))
    done = run_on(tiny, f"lsl://{name}")
    assert done.returncode == 2
    assert "got source_id 'a2' on " in done.stderr
    assert "(type 'Counts', 60 channel(s), 50 Hz); name a stream of spike events" in done.stderr
    del stream
