"""What a loop and a rig write into a ring."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from helpers.loops import Bench, stream
from helpers.waiting import wait_until

from poyo_edge.runtime.feeds.sockets import UdpFeed
from poyo_edge.runtime.page.ring.layout import FLAGS, STATUSES, flags_of
from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.page.ring.telling import Events
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.rig import Rig, RigSettings
from poyo_edge.trials import Trial

if TYPE_CHECKING:
    from conftest import Rig as Tiny

SHAPE = RingShape(dims=2, units=12, rate_hz=64, tick_rate_hz=4096, window_s=1.0, seconds=10)


def test_each_value_is_a_frame_with_what_came_before_it(rig: Tiny, tmp_path: Path) -> None:
    ring = FrameWriter(str(tmp_path / "run"), SHAPE)
    reader = FrameReader(str(ring.path))
    told = list[int]()
    bench = Bench(rig, frames=ring, on_spikes=lambda ticks, rows: told.append(len(rows)))
    times, rows = stream(rig, 4.0)
    bench.run(times, rows, range(1, 129))
    bench.loop.feed_trial(Trial(number=1, start=8000, target=(3.0, 4.0)))
    bench.loop.feed_cursor([8100], [[1.0, 2.0]])
    bench.loop.feed_labels([8000], [[5.0, 6.0]])
    bench.run(times, rows, range(129, 193))
    frames = reader.read()
    assert len(frames) == len(bench.out) > 100
    assert (frames["value"] == [one.result.value for one in bench.out]).all()
    assert frames["tick"].tolist() == [one.result.t for one in bench.out]
    assert [STATUSES[one] for one in frames["status"]] == [o.result.status for o in bench.out]
    assert [flags_of(int(one)) for one in frames["flags"]] == [
        tuple(sorted(o.result.flags, key=FLAGS.index)) for o in bench.out
    ]
    assert int(frames["counts"].sum()) == sum(told)
    assert frames["decoded"].tolist() == [*range(1, len(frames) + 1)]
    last = frames[-1]
    assert (last["trial"], last["target"][:2].tolist()) == (1, [3.0, 4.0])
    assert (last["cursor"][:2].tolist(), last["label"].tolist()) == ([1.0, 2.0], [5.0, 6.0])
    assert (frames["in_to_out_ns"] >= -1).all()
    ring.close()


def test_a_rig_tells_its_state_beside_and_ends_its_ring(tiny: Path, tmp_path: Path) -> None:
    name = str(tmp_path / "run")
    settings = RigSettings(session="tiny_a", ring=name, control_address="udp://127.0.0.1:0")
    with Rig.open(tiny, "udp://127.0.0.1:0", (), settings) as rig:
        rig.told_beside["calibration"] = lambda: {"fits": []}
        reader = FrameReader(name)
        assert isinstance(rig.feed, UdpFeed)
        feed = rig.feed
        wait_until(lambda: feed.port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            for _ in range(200):
                now = time.monotonic_ns()
                ours.sendto(
                    f'{{"ticks": [{now}], "units": ["{rig.decoder.unit_ids[0]}"]}}'.encode(),
                    ("127.0.0.1", feed.port),
                )
                time.sleep(0.005)
        wait_until(lambda: reader.written > 10)
        assert len(reader.read()) > 10
        rig.command("mark", "hello")
        wait_until(lambda: "calibration" in reader.state()[1])
        wait_until(lambda: reader.state()[1]["events"])
    _, state = reader.state()
    assert state["ended"] == "ended"
    assert state["session"]["unit_ids"] == list(rig.decoder.unit_ids)
    assert state["run"]["artifact"] == tiny.name
    assert rig.port is not None
    assert state["run"]["control"] == rig.port.address
    assert rig.port.token not in str(state)
    kinds = [one["kind"] for one in state["events"]]
    assert [kind for kind in kinds if kind != "feed"] == ["command", "end"]  # feed: a busy machine
    assert not reader.alive
    assert not Path(name).exists()


def test_a_rig_without_a_ring_writes_none(tiny: Path) -> None:
    rig = Rig.open(tiny, "udp://127.0.0.1:0", (), RigSettings(session="tiny_a"))
    assert rig.loop.frames is None
    rig.stop()


def test_what_happens_is_an_event_once() -> None:
    events = Events()
    fits = [{"swapped": True}]
    command = {"command": "swap", "session": "b", "ok": True, "reason": "at once"}
    first = {"session": {"session_id": "a"}, "commands": {"newest": []}, "stalled": False}
    events.look(first, 1)
    events.look(first, 2)
    assert not events.kept
    second = {**first, "session": {"session_id": "b"}, "commands": {"newest": [command]},
              "calibration": {"fits": fits}, "stalled": True}  # fmt: skip
    events.look(second, 3)
    events.look(second, 4)
    assert [one["kind"] for one in events.kept] == ["swap", "command", "fit", "feed"]
    assert {one["host_ns"] for one in events.kept} == {3}
    commands = [{"command": "mark", "text": str(i), "ok": True, "reason": ""} for i in range(64)]
    events.look({**second, "commands": {"newest": commands}}, 5)
    events.look({**second, "commands": {"newest": [*commands[1:], command]}}, 6)
    assert [one["text"] for one in events.kept][-2:] == ["mark 63: ", "swap b: at once"]
    assert events.kept[-1]["host_ns"] == 6
    assert np.diff([one["host_ns"] for one in events.kept]).min() >= 0
