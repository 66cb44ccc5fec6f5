"""``poyo-edge closed-loop`` end to end on the small artifact, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import run, run_json
from helpers.paths import TINY
from helpers.reports.page import Page

from poyo_edge.artifact import Artifact
from poyo_edge.cli.commands.closed_loop import closed_loop_text
from poyo_edge.recording import write_recording
from poyo_edge.simulation.array import ArraySettings, SimulatedArray
from poyo_edge.simulation.observing import ObservationSettings, observe
from poyo_edge.simulation.person import Person
from poyo_edge.simulation.tasks import TaskSettings

pytestmark = pytest.mark.slow

SHORT = ("--observe-s", 20, "--latency", 0, "--latency", 100, "--radius", 2, "--trials", 2,
         "--timeout", 3)  # fmt: skip


def recorded(folder: Path, unit_ids: tuple[str, ...], *, shown_s: float = 0.0) -> Path:
    """A minute of reaches that units of these names fire at, or others of ``shown_s`` before."""
    array = SimulatedArray.draw(ArraySettings(n_units=len(unit_ids)), seed=0)
    task, settings = TaskSettings(kind="random"), ObservationSettings(seconds=60.0)
    block = observe(array, Person(), task, settings, seed=1)
    lag = round(shown_s / array.period_s)
    return write_recording(
        folder / "day.h5",
        session_id="day",
        subject_id="simulated",
        unit_ids=list(unit_ids),
        spike_times=block.spike_times,
        spike_units=block.spike_rows,
        behaviors={"cursor.vel": (block.times + array.delay_s, np.roll(block.velocity, lag, 0))},
        domains={"train": [(0.0, 60.0)]},
    )


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    unit_ids = Artifact.open(TINY).session("tiny_a").header.unit_ids
    return recorded(tmp_path_factory.mktemp("day"), unit_ids)


def require_one_line(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """The reason alone."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_decoders_are_compared_on_an_array_of_a_recording(day: Path) -> None:
    values: dict[str, Any] = run_json(
        "closed-loop", TINY, "--recording", day, "--session", "tiny_a", *SHORT, "--seeds", 2
    )
    rows = values["conditions"]
    assert [(row["decoder"], row["latency_ms"]) for row in rows] == [
        (name, latency) for latency in (0.0, 100.0) for name in ("poyo", "wiener", "kalman")
    ]
    assert values["wiener_share"] == [0.0, 0.0], "of the session that is named, for each seed"
    for row in rows:
        assert (row["radius_cm"], row["n_trials"]) == (2.0, 4)
        assert 0 <= row["success"] <= 1
        assert row["bits_per_s"] >= 0
        assert {"time_s", "path_efficiency", "dial_in_s", "angular_error_deg"} <= {*row}
    assert max(row["success"] for row in rows if row["decoder"] == "wiener") > 0
    assert values["seeds"] == [0, 1]
    assert set(values["step"]) == {"poyo", "wiener", "kalman"}
    for one in values["step"].values():
        assert {"held_gain_1s", "rise_ms", "rest_sd", "overshoot"} <= {*one}
        assert np.isfinite(list(one.values())).all()
    assert [one["latency_ms"] for one in values["against"]] == [0.0, 100.0]
    text = closed_loop_text(values)
    assert "| wiener | 100 | 2 |" in text
    assert "No person or animal was in this loop" in text


def test_decoders_are_calibrated_again_and_what_became_of_each_is_told(day: Path) -> None:
    values: dict[str, Any] = run_json(
        "closed-loop", TINY, "--recording", day, "--session", "tiny_a", *SHORT,
        "--recalibrate-s", 15, "--labels", "constant",
    )  # fmt: skip
    assert (values["recalibrate_s"], values["labels"]) == (15.0, "constant")
    told = {one["decoder"]: one for one in values["recalibrated"]}
    assert set(told) == {"poyo", "wiener", "kalman"}
    assert told["poyo"]["taken"] is (told["poyo"]["reason"] == "")
    assert told["wiener"]["taken"]
    assert told["wiener"]["labelled_s"] > 0
    assert "| recalibrated | seed |" in closed_loop_text(values)


def test_recalibration_with_unknown_labels_is_refused(day: Path) -> None:
    done = run("closed-loop", TINY, "--recording", day, "--recalibrate-s", 15, "--labels", "wish")
    require_one_line(done, 2, "error: kind: expected one of ['observation', 'proportional'")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="no matplotlib")
def test_table_json_and_pictures_are_written(day: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("closed-loop", TINY, "--recording", day, "--session", "tiny_a", *SHORT, "--out", out)
    assert done.returncode == 0, done.stderr
    names = {"closed_loop.md", "closed_loop.json", "paths.png", "throughput.png", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    assert done.stdout.startswith((out / "closed_loop.md").read_text())
    assert len(json.loads((out / "closed_loop.json").read_text())["conditions"]) == 6
    assert all((out / name).stat().st_size > 5000 for name in names if name.endswith(".png"))
    page = Page((out / "report.html").read_text())
    assert "Which way did the cursor go?" in page.text
    assert len([one for one in page.of("svg") if one.get("role") == "img"]) == 1 + 3
    assert "an array fitted to day" in done.stderr


def test_a_session_that_observation_cannot_make_good_is_refused(tmp_path: Path) -> None:
    """The array fires at nothing, and neither the small artifact nor a filter decodes it."""
    unit_ids = tuple(f"x/{row}" for row in range(30))
    nothing = recorded(tmp_path, unit_ids, shown_s=30.0)
    done = run("closed-loop", TINY, "--recording", nothing, *SHORT, "--quiet")
    require_one_line(done, 3, "error: session 'observed': expected an angular error of at most 60°")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--session", "tiny_a"), "session 'tiny_a': expected the recording of its units too"),
        (("--distance", 12), "distance_cm: expected targets in the workspace of ±10 cm, got 12 cm"),
        (("--latency", -1), "latency_ms: expected 0 to 5000 ms, got -1.0"),
        (("--radius", 0), "radius_cm: expected a number > 0, got 0.0"),
        (("--task", "maze"), "task: expected one of ['center-out', 'random', 'grid'], got 'maze'"),
        (("--hold", 6), "hold_s: expected 0 up to the timeout of 5 s, got 6.0"),
        (("--seconds", 0), "seconds of observation: expected 1 to 86400, got 0.0"),
        (("--observe-s", 0), "seconds of observation: expected 1 to 86400, got 0.0"),
        (("--gain", 0), "gain: expected above 0 up to 100, got 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(words: tuple[object, ...], said: str) -> None:
    require_one_line(run("closed-loop", TINY, *words), 2, f"error: {said}")


def test_a_session_of_other_units_is_refused(tmp_path: Path) -> None:
    other = recorded(tmp_path, ("x/1", "x/2", "x/3", "x/4"))
    done = run("closed-loop", TINY, "--recording", other, "--session", "tiny_a", *SHORT, "--quiet")
    require_one_line(
        done, 2, "error: session 'tiny_a': expected one of the array's units, like 'x/1'"
    )
