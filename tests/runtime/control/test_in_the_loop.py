"""Control in the decode loop: what leaves it, what the journal keeps, and when commands act."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.journals import require_same_bits
from helpers.loops import Bench, S, stream
from helpers.waiting import PATIENCE_S, wait_until

from poyo_edge.converting import convert
from poyo_edge.errors import SessionError, UsageError
from poyo_edge.journal import Controlled, Decoded, Journal, JournalHeader, JournalWriter, swap_of
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime import Result, Status
from poyo_edge.runtime.control import ControlSettings, tell
from poyo_edge.runtime.control.control import Control
from poyo_edge.runtime.feeds.values import LoopResult, Sink
from poyo_edge.runtime.rig import Rig as Opened
from poyo_edge.runtime.rig import RigSettings
from poyo_edge.trials import Trial

if TYPE_CHECKING:
    from conftest import Rig

KEYS = {"trial", "seq", "t", "tick", "epoch", "value", "status", "flags", "n_spikes", "host_ns",
        "latency_us", "sync", "valid_for_ms"}  # fmt: skip


def benched(
    rig: Rig, journal: Path | None = None, settings: ControlSettings | None = None, **more: Any
) -> Bench:
    """A loop with sessions to swap in."""
    if journal is not None:
        header = JournalHeader(
            session_id="s", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz
        )
        more["journal"] = JournalWriter(journal, header)
    decoder = rig.decoder(tick_rate_hz=rig.grid_hz)
    ready = {"tiny_a": decoder.prepare(rig.a), "tiny_b": decoder.prepare(rig.b)}
    return Bench(rig, decoder=decoder, control=Control(decoder, settings, ready), **more)


def ends(bench: Bench) -> int:
    """The number of 1/64 s that the next packet ends at."""
    return (bench.host.ns - 100 * S) * 64 // S + 1


def test_off_changes_no_bit_of_values_and_journal(rig: Rig, tmp_path: Path) -> None:
    times, rows = stream(rig, 3.0)
    header = JournalHeader(session_id="s", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz)
    plain = Bench(rig, journal=JournalWriter(tmp_path / "plain.journal", header))
    off = benched(rig, tmp_path / "off.journal", ControlSettings())
    given = list[Result]()
    decode = off.loop.decoder.decode

    def seen(t: int, **more: Any) -> Result:
        given.append(decode(t, **more))
        return given[-1]

    vars(off.loop.decoder)["decode"] = seen
    off.loop.control.note_trial(Trial(number=1, start=0, target=(1.0, 2.0)))
    off.loop.control.note_cursor(0, (0.0, 0.0))
    for bench in (plain, off):
        bench.run(times, rows, range(1, 180))
        assert bench.loop.journal is not None
        bench.loop.journal.close()
    assert len(given) > 170
    assert all(one.result is own for one, own in zip(off.out, given, strict=True))
    assert [one.to_json() for one in off.out] == [one.to_json() for one in plain.out]
    assert {*off.out[-1].to_json()} == KEYS
    assert off.loop.stats()["control"] is None
    one, other = ((tmp_path / f"{name}.journal").read_bytes() for name in ("plain", "off"))
    assert one == other


def test_what_leaves_is_controlled_and_the_journal_keeps_both(rig: Rig, tmp_path: Path) -> None:
    bench = benched(rig, tmp_path / "a.journal", ControlSettings(gain=2.0, speed_cap=3.0))
    times, rows = stream(rig, 3.0)
    bench.run(times, rows, range(1, 150))
    assert bench.loop.journal is not None
    bench.loop.journal.close()
    last = bench.out[-1]
    assert last.control is not None
    own = rig.batch(times, rows, float(last.result.t) / rig.grid_hz)
    assert np.array_equal(last.control.decoded, own)
    speed = min(2 * np.hypot(*own), 3.0)
    np.testing.assert_allclose(last.result.value, own / np.hypot(*own) * speed)
    told = last.to_json()
    assert {*told} == KEYS | {"decoded", "control"}
    assert told["decoded"] == own.tolist()
    assert told["control"] == {
        "status": "VALID", "ramp": 1.0, "assist": 0.0, "click": False, "held": ""
    }  # fmt: skip
    assert bench.loop.stats()["control"]["settings"]["gain"] == 2.0
    n = require_same_bits(tmp_path / "a.journal", rig.decoder(tick_rate_hz=rig.grid_hz))
    assert n == len(bench.out)
    entries = list(Journal(tmp_path / "a.journal").entries())
    assert entries[0] == {"control": ControlSettings(gain=2.0, speed_cap=3.0).to_json()}
    left = [one for one in entries if isinstance(one, Controlled)]
    decoded = [one for one in entries if isinstance(one, Decoded)]
    assert [one.tick for one in left] == [one.tick for one in decoded]
    out = np.stack([one.result.value for one in bench.out])
    assert np.array_equal(np.stack([one.value for one in left]), out)
    convert(tmp_path / "a.journal", tmp_path / "a.h5")
    again = Recording.open(tmp_path / "a.h5")
    assert np.array_equal(again.behavior("controlled.value").values, out)


def test_zero_and_resume_take_effect_with_the_next_value(rig: Rig, tmp_path: Path) -> None:
    bench = benched(rig, tmp_path / "a.journal", ControlSettings(slow_start_s=0.25))
    times, rows = stream(rig, 5.0)
    bench.run(times, rows, range(1, 120))
    bench.loop.command("zero")
    bench.run(times, rows, range(120, 130))
    for one in bench.out[-10:]:
        assert one.result.value.tolist() == [0.0, 0.0]
        assert (one.result.status, one.result.flags) == (Status.HELD, ("unverified", "zeroed"))
        assert one.control is not None
        assert (one.control.status, one.control.held) == (Status.VALID, "zeroed")
    bench.loop.command("resume")
    bench.run(times, rows, range(130, 150))
    ramps = [one.control.ramp for one in bench.out[-20:] if one.control is not None]
    assert ramps[:3] == [0.0, 1 / 16, 2 / 16]
    assert ramps[-1] == 1.0
    bench.loop.command("mark", "the end")
    bench.run(times, rows, range(150, 151))
    assert bench.loop.journal is not None
    bench.loop.journal.close()
    events = [one for one in Journal(tmp_path / "a.journal").entries() if isinstance(one, dict)]
    told = [one["command"] for one in events if "command" in one]
    assert told == ["zero", "resume", "mark"]
    assert bench.loop.stats()["commands"]["accepted"] == {"zero": 1, "resume": 1, "mark": 1}
    assert require_same_bits(tmp_path / "a.journal", rig.decoder(tick_rate_hz=rig.grid_hz))


def test_commands_work_with_nothing_else_on_and_a_refused_one_raises(rig: Rig) -> None:
    bench = Bench(rig)
    times, rows = stream(rig, 3.0)
    bench.run(times, rows, range(1, 100))
    bench.loop.command("zero")
    bench.run(times, rows, range(100, 101))
    assert bench.out[-1].result.value.tolist() == [0.0, 0.0]
    bench.loop.command("resume")
    bench.run(times, rows, range(101, 102))
    assert bench.out[-1].control is None
    with pytest.raises(UsageError, match="name it with --also-session"):
        bench.loop.command("swap", "tiny_b")


def test_a_swap_waits_for_the_end_of_its_trial(rig: Rig, tmp_path: Path) -> None:
    bench = benched(rig, tmp_path / "a.journal")
    times, rows = stream(rig, 5.0)
    bench.run(times, rows, range(1, 100))
    trial = Trial(number=7, start=int(1.5 * rig.grid_hz))
    bench.loop.control.note_trial(trial)
    bench.run(times, rows, range(100, 102))
    answer = bench.loop.command("swap", "tiny_b")
    assert "at the end of trial 7" in answer.reason
    bench.run(times, rows, range(102, 110))
    assert bench.out[-1].result.session_id == "tiny_a"
    over = Trial(number=7, start=trial.start, end=110 * 64)
    bench.loop.control.note_trial(over)
    bench.run(times, rows, range(110, 120))
    sessions = [one.result.session_id for one in bench.out[-12:]]
    assert sessions == sorted(sessions)
    assert sessions[-1] == "tiny_b"
    bench.loop.command("revert")
    bench.run(times, rows, range(120, 125))
    assert bench.out[-1].result.session_id == "tiny_a"
    assert bench.loop.journal is not None
    bench.loop.journal.close()
    entries = list(Journal(tmp_path / "a.journal").entries())
    swaps = [swap.session_id for one in entries if (swap := swap_of(one)) is not None]
    assert swaps == ["tiny_b", "tiny_a"]


def test_a_pause_takes_no_labels(rig: Rig) -> None:
    heard: list[int] = []
    bench = benched(rig, on_labels=lambda ticks, _: heard.append(len(ticks)))
    times, rows = stream(rig, 3.0)
    bench.run(times, rows, range(1, 100))
    for name in ("pause", "resume"):
        bench.loop.feed_labels([99 * 64], [[1.0, 2.0]])
        bench.run(times, rows, range(ends(bench), ends(bench) + 1))
        bench.loop.command(name)
    assert heard == [1]
    assert bench.loop.stats()["commands"]["labels_left_out"] == 1


def test_trials_that_cannot_be_meant_are_counted_and_the_loop_goes_on(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    bench = benched(rig, settings=ControlSettings(attenuation=0.5))
    for number in range(3):
        bench.loop.control.note_trial(Trial(number=number, start=0, target=(1.0,)))
        bench.loop.control.note_cursor(0, (1.0, float("nan")))
    found = bench.loop.stats()["control"]
    assert (found["refused_trials"], found["refused_positions"]) == (3, 3)
    assert found["first_refused"].startswith("trial 0: expected a target of 2 values")
    assert len(caplog.messages) == 1


def test_a_new_clock_forgets_trials_of_the_old_one(rig: Rig) -> None:
    bench = benched(rig, settings=ControlSettings(attenuation=0.5))
    times, rows = stream(rig, 6.0)
    bench.run(times, rows, range(1, 100))
    bench.loop.control.note_trial(Trial(number=1, start=90 * 64, target=(1.0, 1.0)))
    assert bench.loop.control.controller.running(100 * 64) is not None
    bench.run(times, rows, range(100, 200), shift=30 * rig.grid_hz)
    assert {one.epoch for one in bench.out} == {0, 1}
    assert bench.loop.control.controller.running(31 * rig.grid_hz) is None


class Hanging:
    """A rig on real time whose decoder hangs when told, and sinks that note what came."""

    def __init__(self, rig: Rig, tiny: Path, tmp_path: Path, *sinks: Sink) -> None:
        times, rows = rig.stream(20_000, 100.0)
        path = write_recording(
            tmp_path / "a.h5", session_id="tiny_a", subject_id="s",
            unit_ids=rig.a.header.unit_ids, spike_times=times, spike_units=rows, behaviors={},
            domains={},
        )  # fmt: skip
        self.out: list[LoopResult] = []
        self.go_on, self.hung = threading.Event(), threading.Event()
        self.opened = Opened.open(
            tiny, f"file:{path}", sinks,
            RigSettings(session="tiny_a", control_address="udp://127.0.0.1:0",
                        journal=tmp_path / "a.journal"),
            on_value=self.out.append,
        )  # fmt: skip
        self.decode = self.opened.decoder.decode

    def hang(self) -> None:
        def never(t: int, **more: Any) -> Result:
            self.hung.set()
            assert self.go_on.wait(PATIENCE_S)
            return self.decode(t, **more)

        vars(self.opened.decoder)["decode"] = never
        assert self.hung.wait(PATIENCE_S)

    def tell(self, name: str) -> None:
        assert self.opened.port is not None
        assert tell(self.opened.port.address, self.opened.port.token, name).ok


def moving(one: LoopResult) -> bool:
    return bool(one.result.value.any())


@pytest.mark.parametrize("name", ["stop", "zero"])
def test_a_stop_works_while_the_decoder_hangs(
    rig: Rig, tiny: Path, tmp_path: Path, name: str
) -> None:
    hanging = Hanging(rig, tiny, tmp_path)
    with hanging.opened as opened:
        wait_until(lambda: hanging.out and moving(hanging.out[-1]))
        hanging.hang()
        n = len(hanging.out)
        hanging.tell(name)
        wait_until(lambda: len(hanging.out) > n)
        zero = hanging.out[n]
        assert not moving(zero)
        assert zero.result.status is Status.INVALID
        assert zero.result.flags[-1] == {"stop": "stopped", "zero": "zeroed"}[name]
        assert zero.valid_until_ns > zero.host_ns
        if name == "stop":
            assert opened.stopped
            began = time.monotonic()
            opened.stop()
            assert time.monotonic() - began < PATIENCE_S / 2, "it waits for no decoder that hangs"
        hanging.go_on.set()
        if name == "zero":
            wait_until(lambda: len(hanging.out) > n + 3)
    assert not any(map(moving, hanging.out[n:]))
    seqs = [one.seq for one in hanging.out]
    assert seqs == sorted(set(seqs))
    told = [one for one in Journal(tmp_path / "a.journal").entries() if isinstance(one, dict)]
    assert name in [one.get("command") for one in told]


def test_a_stop_works_while_a_sink_hangs(rig: Rig, tiny: Path, tmp_path: Path) -> None:
    """A sink whose peer was sent SIGSTOP: it takes nothing, and its pipe is full."""
    peer = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.buffer.read()"],
                            stdin=subprocess.PIPE)  # fmt: skip
    assert peer.stdin is not None
    pipe = peer.stdin.fileno()
    lump = b"x" * (1 << 16)
    sink = Sink("pipe:peer", lambda _: (os.write(pipe, lump), None)[1], lambda: None)
    hanging = Hanging(rig, tiny, tmp_path, sink)
    try:
        with hanging.opened as opened:
            wait_until(lambda: hanging.out and moving(hanging.out[-1]))
            peer.send_signal(signal.SIGSTOP)
            wait_until(lambda: opened.stats()["sinks"][0]["behind_ms"] > 200)
            hanging.tell("stop")
            seq = hanging.out[-1].seq
            wait_until(lambda: not moving(hanging.out[-1]))
            assert [one for one in hanging.out if one.seq > seq + 1 and moving(one)] == []
            opened.stop()
        assert hanging.out[-1].result.flags[-1] == "stopped"
    finally:
        peer.send_signal(signal.SIGCONT)
        peer.kill()
        peer.wait()
        peer.stdin.close()


def test_a_stopped_loop_ends_with_zero(rig: Rig, tiny: Path, tmp_path: Path) -> None:
    hanging = Hanging(rig, tiny, tmp_path)
    with hanging.opened as opened:
        wait_until(lambda: hanging.out and moving(hanging.out[-1]))
        opened.command("stop")
        wait_until(lambda: not opened.loop.running)
        assert not opened.loop.running
        assert not moving(hanging.out[-1])
        assert hanging.out[-1].result.status in (Status.HELD, Status.INVALID)


@pytest.mark.parametrize("hangs", [False, True])
def test_zero_leaves_however_soon_the_rig_is_closed_after_a_stop(
    rig: Rig, tiny: Path, tmp_path: Path, hangs: bool
) -> None:
    """Whoever sees that it was stopped closes it at once, before the next window is due."""
    hanging = Hanging(rig, tiny, tmp_path)
    with hanging.opened as opened:
        wait_until(lambda: hanging.out and moving(hanging.out[-1]))
        if hangs:
            hanging.hang()
        commands = opened.loop.control.commands
        commands.on_halt = lambda: None  # seen between the flag and what follows from it
        opened.command("stop")
        opened.stop()
        left = list(hanging.out)
        hanging.go_on.set()
    assert left[-1].result.flags[-1] == "stopped"
    assert not any(map(moving, hanging.out[len(left) - 1 :]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RigSettings(session="tiny_a", control_token_file="t"), "expected control_address with it"),
        (RigSettings(session="tiny_a", control_address="udp://1.2.3.4:5"), "this machine alone"),
        (RigSettings(session="tiny_a", also_sessions=("nobody",)), "one of the 2 ids"),
    ],
)
def test_a_rig_that_cannot_be_commanded_is_not_opened(
    tiny: Path, settings: RigSettings, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Opened.open(tiny, "udp://127.0.0.1:0", settings=settings)


def test_a_session_of_another_core_is_refused_before_the_run(
    rig: Rig, tiny: Path, tmp_path: Path
) -> None:
    header = dataclasses.replace(rig.b.header, core_hash="0" * 64)
    path = tmp_path / "other.session"
    dataclasses.replace(rig.b, header=header).save(path)
    settings = RigSettings(session="tiny_a", also_sessions=(path,))
    with pytest.raises(SessionError, match="core"):
        Opened.open(tiny, "udp://127.0.0.1:0", settings=settings)


def test_a_name_that_means_two_sessions_is_refused(rig: Rig, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.session"
    dataclasses.replace(rig.b, session_embedding=rig.b.session_embedding * 2).save(path)
    settings = RigSettings(session="tiny_a", also_sessions=("tiny_b", path))
    with pytest.raises(UsageError, match="expected names that differ, got 'tiny_b' twice"):
        Opened.open(tiny, "udp://127.0.0.1:0", settings=settings)


def test_a_value_that_was_on_its_way_when_a_stop_came_leaves_as_zero(rig: Rig) -> None:
    """The command's side gave a zero already; what the loop had made before must not follow it."""
    bench = Bench(rig)
    bench.run(*stream(rig, 2.0), range(1, 100))
    late, delivery = bench.out[-1], bench.loop._delivery
    assert late.result.value.any() and late.control is None
    over = threading.Event()
    delivery.watch(lambda: "stopped", over.set)
    assert over.wait(30)
    given = delivery.give(late)
    assert bench.out[-1] is given
    assert not given.result.value.any()
    assert given.result.status is Status.INVALID and "stopped" in given.result.flags
    assert given.control is not None
    assert given.control.decoded.tolist() == late.result.value.tolist()
