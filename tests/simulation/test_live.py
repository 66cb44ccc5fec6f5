"""A simulated person in real time, through the rig that everybody runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.waiting import wait_until

from poyo_edge.runtime.page.ring.aim import Aim, point
from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.rig import Rig, RigSettings
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.live_feed.live import LiveFeed
from poyo_edge.simulation.tuning import Tuning, TuningRanges

if TYPE_CHECKING:
    from conftest import Rig as Tiny


def an_array(rig: Tiny) -> SimulatedArray:
    """Of the units that the tiny session knows."""
    settings = ArraySettings(n_units=12)
    tuning = Tuning.draw(12, TuningRanges(), np.random.default_rng(0), "rectified")
    return SimulatedArray(
        tuning, rig.a.header.unit_ids, np.zeros((12, 0)), settings=settings, seed=0
    )


@pytest.mark.slow
def test_a_person_and_then_a_mouse_control_the_rig(rig: Tiny, tiny: Path, tmp_path: Path) -> None:
    aim = Aim(tmp_path / "aim")
    feed = LiveFeed(an_array(rig), aim=aim.read)
    ring = str(tmp_path / "ring")
    began = time.monotonic()
    opened = Rig.open(
        tiny, feed, (), RigSettings(session="tiny_a", ring=ring), on_value=feed.on_value
    )
    with opened:
        reader = FrameReader(ring, back_s=60)
        wait_until(lambda: opened.loop.counters.trials >= 1 and reader.written > 120)
        frames = reader.read()
        took = time.monotonic() - began
        assert len(frames) <= 50 * took + 1, "in real time"
        assert frames["counts"].sum() > 100
        assert (frames["trial"] >= 0).any()
        moved = frames["cursor"][frames["cursor_dims"] == 2][:, :2]
        assert np.ptp(moved, axis=0).max() > 0, "the decoder's values move it"
        assert np.isfinite(frames["target"][frames["trial"] >= 0][:, :2]).all()
        point(aim.path, 9.0, 9.0)
        steered = feed._steered(np.zeros(2))
        assert steered is not None
        assert steered == pytest.approx(np.array([1, 1]) * 20 / 2**0.5), "its push, to the mouse"
        wait_until(lambda: aim.read() is None)
        assert feed._steered(np.zeros(2)) is None, "a mouse that is gone steers no more"
    aim.close()
    assert opened.feed.to_json()["last_failure"] == ""
