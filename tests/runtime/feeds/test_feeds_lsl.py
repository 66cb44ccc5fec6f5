"""The feed of the Lab Streaming Layer against real outlets, that die, hang and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from helpers.feeds import Receiver, a_value
from helpers.waiting import PATIENCE_S, until

from poyo_edge.runtime.feeds import open_feed, open_sink


def outlet(lsl: Any, name: str, source_id: str = "") -> Any:
    source_id = source_id or name
    info = lsl.StreamInfo(name, "spikes", 2, lsl.IRREGULAR_RATE, lsl.cf_double64, source_id)
    return lsl.StreamOutlet(info)


@pytest.fixture
def lsl() -> Any:
    try:
        import pylsl
    except Exception as error:  # The wheel may lack the library behind it.
        pytest.skip(f"pylsl is not installed ({error})")
    return pylsl


def test_an_lsl_outlet_that_dies_is_found_again(lsl: Any) -> None:
    name = f"poyo_edge_test_{os.getpid()}"
    feed, receiver = open_feed(f"lsl://{name}"), Receiver()
    feed.start(receiver)
    for round_ in range(2):
        stream = outlet(lsl, name, f"source {round_}")
        assert stream.wait_for_consumers(PATIENCE_S)
        before = len(receiver.spikes)
        stamp = lsl.local_clock()
        stream.push_sample([3.0, 1.0], stamp)
        stream.push_sample([12.0, 0.0], stamp + 0.001)
        receiver.wait(before + 2)
        assert [unit for _, unit in receiver.spikes[before:]] == ["ch3", "ch12"]
        # On one machine, what LSL corrects is below a millisecond.
        assert receiver.spikes[before][0] / 1e9 == pytest.approx(stamp, abs=1e-3)
        del stream
        if round_ == 0:
            lost = threading.Event()

            def look(lost: threading.Event = lost) -> None:
                if feed.counters.failures:
                    lost.set()

            until(lost, look)
    feed.stop()
    assert feed.counters.connections == 2


def test_an_lsl_outlet_that_hangs_is_left_for_another_of_its_name(
    lsl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poyo_edge.runtime.feeds.wire.lsl_inlet._SILENT_S", 0.2)
    name = f"poyo_edge_hung_{os.getpid()}"
    code = (
        "import sys, time, pylsl as l\n"
        f"o = l.StreamOutlet(l.StreamInfo({name!r}, 'spikes', 2, 0, l.cf_double64, 'one'))\n"
        "while True:\n"
        "    o.push_sample([4.0, 0.0]); time.sleep(0.01)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    feed, receiver = open_feed(f"lsl://{name}"), Receiver()
    try:
        feed.start(receiver)
        receiver.wait(1)
        child.send_signal(signal.SIGSTOP)
        other = outlet(lsl, name, "two")
        came = threading.Event()

        def push(other: Any = other) -> None:
            other.push_sample([9.0, 0.0], lsl.local_clock())
            if receiver.spikes[-1][1] == "ch9":
                came.set()

        until(came, push)
    finally:
        feed.stop()
        child.kill()
        child.wait()
    assert "came back as another outlet" in feed.last_failure
    assert receiver.losses == [1]


def refused_by(feed: Any) -> str:
    """Why a feed that is started ends by itself."""
    feed.start(Receiver())
    assert feed.finished.wait(PATIENCE_S)
    feed.stop()
    assert feed.first_problem == feed.last_failure
    return str(feed.last_failure)


@pytest.mark.parametrize(("channels", "rate"), [(60, 50), (8, 1000), (1, 50), (60, 0)])
def test_an_lsl_stream_of_counts_or_signals_is_refused(lsl: Any, channels: int, rate: int) -> None:
    name = f"poyo_edge_counts_{os.getpid()}_{channels}_{rate}"
    stream = lsl.StreamOutlet(lsl.StreamInfo(name, "EMG", channels, rate, "float32", "id"))
    said = refused_by(open_feed(f"lsl://{name}"))
    assert said.startswith(f"lsl://{name}: expected an irregular stream with a sample for each")
    assert f"(type 'EMG', {channels} channel(s), {f'{rate} Hz' if rate else 'irregular'})" in said
    del stream


def test_lsl_streams_of_one_name_are_listed_and_one_is_chosen(lsl: Any) -> None:
    name = f"poyo_edge_twin_{os.getpid()}"
    spikes = outlet(lsl, name)
    rates = lsl.StreamOutlet(lsl.StreamInfo(name, "Rates", 60, 50, "float32", "other"))
    said = refused_by(open_feed(f"lsl://{name}"))
    assert "expected one stream, got 2 of " in said
    for words in (f"source_id {name!r} on ", "(type 'spikes', 2 channel(s), irregular)",
                  "source_id 'other' on ", "(type 'Rates', 60 channel(s), 50 Hz)",
                  f"choose with lsl://{name}?source_id="):  # fmt: skip
        assert words in said
    assert "source_id 'none', got 0 of" in refused_by(open_feed(f"lsl://{name}?source_id=none"))
    feed, receiver = open_feed(f"lsl://{name}?source_id={name}"), Receiver()
    feed.start(receiver)
    assert spikes.wait_for_consumers(PATIENCE_S)
    spikes.push_sample([3.0, 1.0], lsl.local_clock())
    receiver.wait(1)
    for sample, stamp, problem in (
        ([3.7, 0.0], lsl.local_clock(), "expected a whole channel number or a unit's name first"),
        ([3.0, 0.0], 1.76e9, "expected stamps of LSL's clock (local_clock), got 1.76e+09 s"),
    ):
        feed.first_problem = ""
        seen = threading.Event()
        spikes.push_sample(sample, stamp)

        def look(seen: threading.Event = seen) -> None:
            if feed.first_problem:
                seen.set()

        until(seen, look)
        assert problem in feed.first_problem
    feed.stop()
    assert [unit for _, unit in receiver.spikes] == ["ch3"]
    assert feed.counters.malformed == 2
    del spikes, rates


def test_values_go_out_over_lsl(lsl: Any) -> None:
    name = f"poyo_edge_out_{os.getpid()}"
    sink = open_sink(f"lsl://{name}", 2, valid_for_ms=60.0)
    found = lsl.resolve_byprop("name", name, 1, timeout=PATIENCE_S)
    inlet = lsl.StreamInlet(found[0])
    inlet.open_stream(timeout=PATIENCE_S)
    sink(a_value())
    sample, _ = inlet.pull_sample(timeout=PATIENCE_S)
    described = inlet.info(timeout=PATIENCE_S).desc().child_value("valid_for_ms")
    inlet.close_stream()
    assert sample == [1.5, -2.0, 0.0]
    assert described == "60"
    sink.close()
