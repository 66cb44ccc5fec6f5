"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.feeds import Receiver, a_value
from helpers.paths import ROOT

from poyo_edge.runtime import Decoder
from poyo_edge.runtime.feeds import open_feed
from poyo_edge.runtime.rig.brand_node import KNOWN
from poyo_edge.simulation.recordings import Simulation, simulate_recording

EXAMPLES = ROOT / "examples"


def the_example(name: str = "embed") -> Any:
    """The module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    embed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(embed)
    return embed


def test_embedding_example_decodes_a_live_stream(tiny: Path) -> None:
    embed = the_example()
    session = Decoder.open(tiny, session="tiny_a").session_id
    seen = embed.main(str(tiny), session, seconds=1.6)
    assert seen["VALID"] > 0
    assert seen["WARMUP"] > 0
    assert sum(seen.values()) == round(1.6 / embed.PERIOD_S)


def test_embedding_example_moves_by_no_value_that_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    embed, now = the_example(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    newest = embed.Newest()
    assert newest.velocity() is None
    newest.put(a_value().result)
    assert newest.velocity() == [1.5, -2.0]
    now += embed.VALID_FOR_S * 1.01
    assert newest.velocity() is None


def test_lsl_example_sends_spikes_that_a_feed_reads_and_reads_values(tmp_path: Path) -> None:
    try:
        import pylsl
    except Exception as error:  # The wheel may lack the library behind it.
        pytest.skip(f"pylsl is not installed ({error})")
    lsl, name = the_example("lsl"), f"poyo_edge_example_{os.getpid()}"
    simulation = Simulation(duration_s=30.0, n_units=4)
    day = simulate_recording(tmp_path / "day.h5", session_id="day", seed=0, simulation=simulation)
    feed, receiver = open_feed(f"lsl://{name}"), Receiver()
    feed.start(receiver)
    sender = threading.Thread(target=lsl.send, args=(str(day), name, 10.0), daemon=True)
    sender.start()
    receiver.wait(5)
    feed.stop()
    assert {unit for _, unit in receiver.spikes} <= {f"day/unit_{i:03d}" for i in range(4)}

    info = pylsl.StreamInfo(f"{name}_out", "decoded", 3, 0, pylsl.cf_double64, "decoded")
    outlet, seen = pylsl.StreamOutlet(info), dict[str, int]()
    reader = threading.Thread(
        target=lambda: seen.update(lsl.read(f"{name}_out", seconds=1.0)), daemon=True
    )
    reader.start()
    assert outlet.wait_for_consumers(20.0)
    outlet.push_sample([1.0, 2.0, 0.0])
    outlet.push_sample([0.0, 0.0, 4.0])
    reader.join(20.0)
    assert seen == {"VALID": 1, "WARMUP": 0, "DEGRADED": 0, "HELD": 0, "INVALID": 1}


def test_brand_example_has_parameters_that_the_node_knows() -> None:
    text = (EXAMPLES / "brand_graph.yaml").read_text(encoding="utf-8")
    parameters = text.partition("parameters:")[2]
    named = set(re.findall(r"^ +(\w+):", parameters, re.MULTILINE))
    assert {"artifact", "input_stream", "output_stream"} <= named <= KNOWN
