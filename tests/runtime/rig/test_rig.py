"""A rig from address to journal, on real time."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.journals import require_same_bits

from poyo_edge.converting import convert
from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.journal import Journal
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.rig import Rig, RigSettings
from poyo_edge.runtime.unit_names import UnitNames
from poyo_edge.simulation.recordings import Simulation, simulate_recording

if TYPE_CHECKING:
    from conftest import Rig as Bench


@pytest.fixture
def recording(rig: Bench, tmp_path: Path) -> Path:
    """Eight seconds of spikes of session a."""
    times, rows = rig.stream(2400, 8.0)
    label_times = np.arange(400) / 50.0
    return write_recording(
        tmp_path / "a.h5",
        session_id="tiny_a",
        subject_id="s",
        unit_ids=rig.a.header.unit_ids,
        spike_times=times,
        spike_units=rows,
        behaviors={"cursor.vel": (label_times, np.zeros((400, 2)))},
        domains={"all": [(0.0, 8.0)]},
    )


@pytest.mark.slow
def test_values_decoded_live_equal_a_replay_of_what_was_recorded(
    rig: Bench, tiny: Path, recording: Path, tmp_path: Path
) -> None:
    out = list[LoopResult]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(20)
        opened = Rig.open(
            tiny,
            f"file:{recording}?speed=8&labels=cursor.vel",
            [f"udp://127.0.0.1:{peer.getsockname()[1]}"],
            RigSettings(session="tiny_a", journal=tmp_path / "a.journal"),
            on_value=out.append,
        )
        with opened:
            assert json.loads(peer.recv(65536))["seq"] >= 1  # on a busy machine a newer one first
            assert opened.feed.finished.wait(30)
            opened.require_alive()
        opened.stop()
    stats = opened.stats()
    assert stats["journal"]["error"] is None
    assert stats["feed"]["malformed"] == 0
    left = Counter(one.result.status.value for one in out)
    assert {name: n for name, n in stats["given"].items() if n} == left
    assert out[-1].t_s == pytest.approx(8.0, abs=1.0)
    n = require_same_bits(tmp_path / "a.journal", rig.decoder(tick_rate_hz=1e9))
    assert n == len(out) > 0
    convert(tmp_path / "a.journal", tmp_path / "again.h5")
    again = Recording.open(tmp_path / "again.h5")
    assert len(again.spike_times) == stats["decoder"]["counters"]["received"]
    assert set(again.behaviors) == {"cursor.vel", "decoded.status", "decoded.value"}
    np.testing.assert_array_equal(
        again.behavior("decoded.value").values, np.stack([one.result.value for one in out])
    )


@pytest.mark.slow
def test_a_rig_that_cannot_be_opened_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    name = f"poyo_edge_rig_{threading.get_native_id()}"
    with pytest.raises(UsageError, match="udp://x: expected HOST:PORT"):
        Rig.open(
            tiny, "udp://127.0.0.1:0", [f"shm:{name}", "udp://x"], RigSettings(session="tiny_a")
        )
    assert not (Path("/dev/shm") / name).exists()
    with pytest.raises(PoyoEdgeError):
        Rig.open(tmp_path / "none.poyo", "udp://127.0.0.1:0")
    made = simulate_recording(
        tmp_path / "a.h5", session_id="s", seed=0, simulation=Simulation(duration_s=2.0, n_units=3)
    )
    with pytest.raises(UsageError, match=r"a speed that gives 1 to 1000 .* got 50 Hz × 30; lower"):
        Rig.open(tiny, f"file:{made}?speed=30", settings=RigSettings(session="tiny_a"))


def open_files() -> int:
    """Of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_loop_that_cannot_be_made_leaves_no_sink_and_no_open_journal(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, closed = list[Sink](), list[str]()

    def opening(address: str, *_: Any, **__: Any) -> Sink:
        made.append(Sink(address, lambda _: None, lambda: closed.append(address)))
        return made[-1]

    monkeypatch.setattr("poyo_edge.runtime.rig.rig.open_sink", opening)
    mine = Sink("mine", lambda _: None, lambda: closed.append("mine"))
    feed, path = UdpFeed("127.0.0.1", 0), tmp_path / "a.journal"
    feed.bits = 99
    before = open_files()
    with pytest.raises(UsageError, match="bits: expected"):
        Rig.open(
            tiny, feed, ["udp://a:1", mine, "udp://b:2"],
            RigSettings(session="tiny_a", journal=path),
        )  # fmt: skip
    assert closed == ["udp://b:2", "udp://a:1"], "not what another opened"
    assert open_files() == before
    assert list(Journal(path).entries()) == []


def test_units_are_known_by_id_by_their_last_part_and_by_alias() -> None:
    names = UnitNames(["d/ch1", "d/ch2", "e/ch2", "x"], {"A-001": "e/ch2"})
    wanted = ["ch1", "d/ch2", "ch2", "x", "A-001", "nothing", ""]
    assert names.rows(wanted).tolist() == [0, 1, -1, 3, 2, -1, -1]
    with pytest.raises(UsageError, match="expected unit ids of the session"):
        UnitNames(["a"], {"A-001": "b"})
    turned = UnitNames(["ch1", "ch2", "ch3"], {"ch1": "ch2", "ch2": "ch1"})
    assert turned.rows(["ch1", "ch2", "ch3", "x"]).tolist() == [1, 0, 2, -1], "what was said counts"
    assert turned.of(["ch1"]).rows(["ch1", "ch2"]).tolist() == [-1, 0]
