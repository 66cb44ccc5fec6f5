"""The command to type next is the one that is right for what happened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.arrays import written_again
from typer.testing import CliRunner

from poyo_edge.cli import app, next_commands
from poyo_edge.runtime.backends.machine import Machine
from poyo_edge.simulation.recordings import Simulation, simulate_study

JETSON = Machine(sm="87", l4t="36.4.3", tensorrt="10.3.0", driver="12.6")


def typed(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return f"{done.output}{done.exception or ''}"


@pytest.fixture
def on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_commands, "this_machine", lambda: JETSON)


@pytest.mark.usefixtures("on_a_jetson")
def test_an_artifact_without_engines_on_a_jetson_leads_to_build(tiny: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(tiny, tmp_path / "my model.poyo")
    command = f"build '{artifact}'"
    assert (
        typed("inspect", artifact)
        .partition("Next:")[2]
        .splitlines()[1]
        .endswith(f"{command}  # engines of this Jetson")
    )
    assert command in typed("verify", artifact)
    assert next_commands.engine_notes(artifact, "ort-cpu")[0].endswith(command)
    assert next_commands.engine_notes(artifact, "tensorrt") == []


def test_elsewhere_nothing_is_said_of_engines(tiny: Path) -> None:
    assert next_commands.to_build(tiny) == ""
    assert "Next" not in typed("verify", tiny)


@pytest.mark.slow
@pytest.mark.parametrize("named", [(), ("--session", "tiny_a")])
def test_units_that_nobody_knows_lead_to_calibrate(
    tiny: Path, tmp_path: Path, named: tuple[str, ...]
) -> None:
    simulation = Simulation(duration_s=20.0, n_units=6)
    (recording,) = simulate_study(tmp_path, n_sessions=1, simulation=simulation)
    strangers = [f"stranger/{row}" for row in range(6)]
    day = written_again(recording, tmp_path / "day.h5", unit_ids=strangers, session_id="day/1")
    said = typed("replay", tiny, day, "--behavior", "cursor.vel", *named)
    first = f"calibrate {tiny} {day} --behavior cursor.vel -o day"
    assert first in said
