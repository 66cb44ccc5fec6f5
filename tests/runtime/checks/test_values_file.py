"""What a replay decoded is written as it was decoded, whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from helpers.commands import run
from helpers.paths import TINY

from poyo_edge.errors import UsageError
from poyo_edge.recording import Recording, write_recording
from poyo_edge.runtime.checks.replay import Replay, replay
from poyo_edge.runtime.checks.values_file import require_writable, write_values
from poyo_edge.simulation.recordings import Simulation, simulate_recording

if TYPE_CHECKING:
    from conftest import Rig


@pytest.fixture
def recording(rig: Rig, tmp_path: Path) -> Path:
    """A simulated session of the tiny artifact's own units."""
    simulation = Simulation(duration_s=6.0, n_units=12)
    path = simulate_recording(tmp_path / "sim.h5", session_id="sim", seed=1, simulation=simulation)
    opened = Recording.open(path)
    velocity = opened.behavior("cursor.vel")
    return write_recording(
        tmp_path / "tiny_a.h5", session_id="tiny_a", subject_id="m", unit_ids=rig.a.header.unit_ids,
        spike_times=opened.spike_times, spike_units=opened.spike_units,
        behaviors={"cursor.vel": (velocity.times, velocity.values)}, domains={"test": [(3.0, 6.0)]},
    )  # fmt: skip


def replayed(rig: Rig, recording: Path) -> Replay:
    return replay(rig.decoder(), Recording.open(recording), "cursor.vel")


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            assert file["decoded"].attrs["unit"] == "cm/s"
            return {name: file[name].asstr()[()] if name == "status" else file[name][()]
                    for name in file}  # fmt: skip
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["t", "truth.0", "truth.1", "decoded.0", "decoded.1", "status"]
    numbers = np.array([row[:-1] for row in rows], float)
    return {"t": numbers[:, 0], "truth": numbers[:, 1:3], "decoded": numbers[:, 3:],
            "status": np.array([row[-1] for row in rows])}  # fmt: skip


@pytest.mark.parametrize("name", ["v.csv", "v.npz", "v.h5", "V.CSV"])
def test_every_value_is_there_to_the_last_bit(
    rig: Rig, recording: Path, tmp_path: Path, name: str
) -> None:
    result = replayed(rig, recording)
    found = read(write_values(tmp_path / name, result, unit="cm/s").rename(tmp_path / name.lower()))
    np.testing.assert_array_equal(found["t"], result.times)
    np.testing.assert_array_equal(found["truth"], result.truth)
    np.testing.assert_array_equal(found["decoded"], result.decoded)
    assert tuple(found["status"]) == result.statuses
    assert set(result.statuses) <= {"VALID", "WARMUP", "DEGRADED", "HELD"}
    counted = {name: result.statuses.count(name) for name in set(result.statuses)}
    assert counted == {k: v for k, v in result.stats["statuses"].items() if v}


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    there = tmp_path / "v.csv"
    there.write_text("mine")
    with pytest.raises(UsageError, match=r"a name that is free, got a file there; .*--overwrite"):
        require_writable(there, overwrite=False, reads=())
    require_writable(there, overwrite=True, reads=())
    with pytest.raises(UsageError, match="a name that is free"):
        require_writable(there, overwrite=True, reads=(there,))
    with pytest.raises(UsageError, match=r"ends in \.csv, \.npz, \.h5, got \.txt"):
        require_writable(tmp_path / "v.txt", overwrite=False, reads=())
    with pytest.raises(UsageError, match="got a folder"):
        (tmp_path / "d.csv").mkdir()
        require_writable(tmp_path / "d.csv", overwrite=False, reads=())


def test_the_command_writes_them_and_never_over_its_recording(
    recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "values.csv"
    done = run("replay", TINY, recording, "--out", out, "--json", "--session", "tiny_a")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["values"] == str(out)
    assert len(read(out)["t"]) == values["n_predictions"]
    before = recording.read_bytes()
    done = run("replay", TINY, recording, "--out", recording, "--overwrite", "--session", "tiny_a")
    assert done.returncode == 2
    assert recording.read_bytes() == before
