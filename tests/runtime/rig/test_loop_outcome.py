"""What becomes of trials, as the loop judges its own values by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.loops import Bench, stream

from poyo_edge.artifact import Activity
from poyo_edge.journal import Journal, JournalHeader, JournalWriter
from poyo_edge.runtime.control.outcome import CONTROL
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.health import HealthMonitor, HealthSettings
from poyo_edge.runtime.intake import Counters
from poyo_edge.trials import TrialUpdate

if TYPE_CHECKING:
    from conftest import Rig as Core

STEP = 64
"""Ticks between two values."""


def controlled(bench: Bench, core: Core, n_trials: int, *, turned: bool) -> None:
    """Trials of half a second in which the target lies where the next values lead, or behind.

    Values are those of a random model: each trial is told when they are known, as from a task that
    tells late.
    """
    times, rows = stream(core, 1 + n_trials / 2)
    for number in range(1, n_trials + 1):
        first = 64 + 32 * (number - 1)
        bench.run(times, rows, range(first, first + 33))
        values = np.array([one.result.value for one in bench.out[-30:]])
        way = values.mean(0) * (-1 if turned else 1)
        start, end = first * STEP, (first + 30) * STEP
        ticks = np.array([start, end])
        bench.loop.feed_cursor(ticks, np.zeros((2, 2)))
        bench.loop.feed_trial(
            TrialUpdate(number, {
                "start": start, "end": end, "success": not turned, "radius": 0.01,
                "target": tuple((10 * way / np.linalg.norm(way)).tolist()),
            })
        )  # fmt: skip
        bench.loop.step()


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_values_that_lead_away_from_targets_are_flagged(
    rig: Core, tmp_path: Path, turned: bool
) -> None:
    header = JournalHeader(session_id="s", unit_ids=rig.a.header.unit_ids, tick_rate_hz=rig.grid_hz)
    bench = Bench(rig, journal=JournalWriter(tmp_path / "a.journal", header))
    controlled(bench, rig, 18, turned=turned)
    outcome = bench.loop.stats()["outcome"]
    assert outcome["trials"] == 18
    assert outcome["status"] == ("degraded" if turned else "ok")
    last = bench.out[-1].result
    assert (CONTROL in last.flags) == turned
    if turned:
        assert last.status is Status.DEGRADED
        assert "no control" in outcome["reason"]
    assert bench.loop.journal is not None
    bench.loop.journal.close()
    told = [one["outcome"]["status"] for one in Journal(tmp_path / "a.journal").entries()
            if isinstance(one, dict) and "outcome" in one]  # fmt: skip
    assert told == [outcome["status"]]
    assert bench.loop.stats()["decoder"]["health"]["drift_excused"] == (not turned)


def test_a_loop_without_trials_judges_none(rig: Core) -> None:
    bench = Bench(rig)
    bench.run(*stream(rig, 2.0), range(64, 128))
    outcome = bench.loop.stats()["outcome"]
    assert (outcome["status"], outcome["trials"], outcome["block"]) == ("unknown", 0, None)
    assert not any(CONTROL in one.result.flags for one in bench.out)


@pytest.mark.parametrize("excused", [False, True])
def test_other_rates_are_no_drift_while_control_is_as_good_as_it_was(excused: bool) -> None:
    rate, rng = np.linspace(4.0, 30.0, 12), np.random.default_rng(0)
    activity = Activity(
        rate_hz=rate.astype(np.float32), rate_sd_hz=np.sqrt(rate).astype(np.float32),
        output_low=np.full(2, -3, np.float32), output_high=np.full(2, 3, np.float32),
    )  # fmt: skip
    health = HealthMonitor([f"u{i}" for i in range(12)], activity, 1.0, HealthSettings())
    health.drift_excused = excused
    for _ in range(40):
        rows = np.repeat(np.arange(12, dtype=np.int32), rng.poisson(1.8 * rate))
        health.look(rows, Counters())
    assert health.to_json()["drifted_share"] > 0.5
    assert health.flags == (() if excused else ("drift",))
