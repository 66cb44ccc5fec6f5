"""Trials of recordings: written, read back, opened by torch_brain, and refused by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.paths import DATA, SHARED
from helpers.recordings import small

from poyo_edge.errors import RecordingError
from poyo_edge.inspecting import inspect_path
from poyo_edge.recording import Recording, write_recording
from poyo_edge.simulation.recordings import Simulation, simulate_recording
from poyo_edge.trials import Trials

REAL = SHARED / "data" / "motor"


def told() -> Trials:
    return Trials.of(
        [0.0, 2.0, 5.0],
        [1.5, 3.0, 9.0],
        go_time=[0.4, np.nan, 5.0],
        target=[[8.0, 0.0], [np.nan, np.nan], [0.0, -8.0]],
        success=[True, False, True],
        radius=[1.2, np.nan, 0.8],
        judged=[True, False, True],
    )


def written(path: Path, trials: Any) -> Path:
    times = np.arange(100) / 10
    return write_recording(
        path,
        session_id="s",
        subject_id="a",
        unit_ids=["u0"],
        spike_times=times,
        spike_units=np.zeros(100, int),
        behaviors={"cursor.pos": (times, np.zeros((100, 2)))},
        domains={"train": [(0.0, 4.0)], "test": [(4.0, 10.0)]},
        trials=trials,
    )


def assert_same(first: Trials | None, second: Trials) -> None:
    assert first is not None
    for name in ("start", "end", "go_time", "target", "success", "radius", "judged"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert_same(Recording.open(written(tmp_path / "s.h5", told())).trials(), told())


def test_starts_and_ends_alone_are_trials_too(tmp_path: Path) -> None:
    path = written(tmp_path / "s.h5", [(0.0, 1.0), (2.0, 3.0)])
    assert_same(Recording.open(path).trials(), Trials.of([0.0, 2.0], [1.0, 3.0]))
    with h5py.File(path) as file:
        assert set(file["trials"]) == {"start", "end"}


def test_a_recording_without_trials_has_none(tmp_path: Path) -> None:
    assert Recording.open(small(tmp_path / "s.h5")).trials() is None
    none = Trials.of([], [], target=np.empty((0, 2)))
    assert Recording.open(written(tmp_path / "n.h5", none)).trials() is None
    assert Recording.open(DATA / "0.1.0" / "day.h5").trials() is None


def test_torch_brain_opens_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torch_brain.datasets", reason="torch_brain is not installed")
    path = written(tmp_path / "s.h5", told())
    theirs = datasets.Dataset(path.parent, recording_ids=["s"]).get_recording("s")
    np.testing.assert_array_equal(theirs.trials.start, told().start)
    np.testing.assert_array_equal(theirs.trials.target, told().target)
    part = theirs.slice(1.9, 10.0)
    np.testing.assert_allclose(part.trials.go_time, [np.nan, 5.0 - 1.9])


BAD = {
    "overlap": (
        "start",
        [0.0, 1.0, 5.0],
        "trials/start: expected a start at or after the end of the trial before, got start 1.0, ",
    ),
    "backwards": ("end", [1.5, 1.0, 9.0], "trials/end: expected an end after the start, got start"),
    "no end": ("end", [1.5, np.nan, 9.0], "trials/end: expected a finite end, got start 2.0"),
    "fewer": ("end", [1.5], r"trials/end: expected end of shape (3,), got (1,); write the group"),
    "width": (
        "target",
        np.zeros((3, 3)),
        "trials/target: expected 2 coordinates in each row, as cursor/pos has, got 3; write the",
    ),
    "half a target": ("target", [[8, 0], [1, np.nan], [0, 1]], "trials/target: expected a target"),
    "text": ("target", np.array([b"a", b"b", b"c"]), "trials/target: expected numbers, got dtype"),
    "results": ("success", [0, 2, 1], "trials/success: expected true or false, got 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_trials_that_cannot_be_are_refused_by_field_and_row(tmp_path: Path, name: str) -> None:
    field, value, message = BAD[name]
    path = written(tmp_path / "s.h5", told())
    with h5py.File(path, "r+") as file:
        del file[f"trials/{field}"]
        file[f"trials/{field}"] = value
    recording = Recording.open(path)  # what needs no trials goes on
    with pytest.raises(RecordingError) as caught:
        recording.trials()
    assert str(caught.value).startswith(f"{path}: {message}")
    if name in ("overlap", "backwards", "no end", "half a target"):
        assert str(caught.value).endswith("in row 1; correct or remove this trial")
    about = inspect_path(path)
    assert about["trials"] is None
    assert about["notes"][0].startswith(f"its trials cannot be used: trials/{field}: expected ")


def test_trials_without_an_end_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s.h5", told())
    with h5py.File(path, "r+") as file:
        del file["trials/end"]
    with pytest.raises(RecordingError, match=r"trials/end: expected a time for each trial"):
        Recording.open(path).trials()


def test_overlapping_trials_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"s\.h5: trials/start: expected .* in row 1; correct"):
        written(tmp_path / "s.h5", [(0.0, 2.0), (1.0, 3.0)])
    assert not list(tmp_path.iterdir())


def test_inspect_says_how_many_have_a_target_and_were_reached(tmp_path: Path) -> None:
    about = inspect_path(written(tmp_path / "s.h5", told()))
    assert about["trials"] == {"n": 3, "with_target": 2, "with_radius": 2, "success_rate": 1.0}


def test_each_reach_of_a_simulated_recording_is_a_trial(tmp_path: Path) -> None:
    path = simulate_recording(
        tmp_path / "a.h5", session_id="a", seed=1, simulation=Simulation(duration_s=20.0, n_units=3)
    )
    recording = Recording.open(path)
    trials, position = recording.trials(), recording.behavior("cursor.pos")
    assert trials is not None
    assert 12 < len(trials) < 40
    assert trials.success_rate == 1.0
    for end, target in zip(trials.end, trials.target, strict=True):
        at = [np.interp(end, position.times, column) for column in position.values.T]
        np.testing.assert_allclose(at, target, atol=0.05)


@pytest.mark.parametrize(
    ("name", "n", "rate"),
    [("jango_20141203", 299, 1.0), ("spike_20120904", 209, 0.7608), ("spike_20120824", 0, None)],
)
def test_trials_of_real_sessions_are_read(name: str, n: int, rate: float | None) -> None:
    path = REAL / f"{name}.h5"
    if not path.is_file():
        pytest.skip("needs the real recordings in shared")
    trials = Recording.open(path).trials()
    assert (0 if trials is None else len(trials)) == n
    if trials is not None:
        assert trials.has_target.all()
        assert trials.success_rate == pytest.approx(rate, abs=1e-4)
