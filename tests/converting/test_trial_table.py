"""Trials of labs' files and of journals end in one table, with a note for what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.lab_files import ALL_TIMES, TIMES, UNITS, nwb_file, torch_brain_recording
from helpers.labs.matlab_files import mat5_file, mat73_file

from poyo_edge.converting import convert, describe
from poyo_edge.converting.trial_table import from_columns, known_as
from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.recording import Recording
from poyo_edge.trials import Trial, Trials


def converted(source: Path) -> tuple[Trials, dict[str, Any]]:
    out = source.with_name("out.h5")
    values = convert(source, out)
    trials = Recording.open(out).trials()
    assert trials is not None
    assert values["n_trials"] == len(trials)
    return trials, values


COLUMNS: dict[str, Any] = {
    "trial_start_time": np.array([0.0, 2.0, 4.0, 6.0]),
    "trial_end_time": np.array([1.5, 3.0, np.nan, 7.0]),
    "trial_gocue_time": np.array([0.4, 2.5, 4.1, np.nan]),
    "trial_result": ["R", "F", "R", "?"],
    "trial_target_corners": np.array([[7.0, -1, 9, 1]] * 4),
}
"""As xds has them."""


@pytest.mark.parametrize("write", [mat5_file, mat73_file])
@pytest.mark.parametrize("kind", ["xds", "struct"])
def test_matlab_variables_of_trials(tmp_path: Path, write: Any, kind: str) -> None:
    spikes = {"spikes": [times[:, None] for times in UNITS], "time_frame": TIMES[:, None]}
    columns = {name: one[:, None] if isinstance(one, np.ndarray) and one.ndim == 1 else one
               for name, one in COLUMNS.items()}  # fmt: skip
    short = {name.removeprefix("trial_"): one for name, one in columns.items()}
    values = {**spikes, **columns} if kind == "xds" else {**spikes, "trials": short}
    trials, about = converted(write(tmp_path / "day.mat", values))
    assert trials.start.tolist() == [0.0, 2.0, 6.0]
    assert trials.target.tolist() == [[8.0, 0.0]] * 3
    np.testing.assert_array_equal(trials.go_time, [0.4, 2.5, np.nan])
    assert trials.success.tolist() == [True, False, False]
    assert trials.judged is not None
    assert trials.judged.tolist() == [True, True, False]
    assert "left out 1 of 4 trials: no end after their start" in about["notes"]
    said = "results of trials that say neither success nor failure: '?'"
    assert said in about["notes"]
    assert not any("trial" in one["where"] for one in about["left_out"])


def test_an_nwb_table_keeps_target_go_time_and_result(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        table = file["intervals/trials"]
        n = len(table["id"])
        named = {
            "go_cue_time": np.arange(n) * 2.0 + 0.3,
            "target_pos": np.tile([8.0, 0.0], (n, 1)),
            "is_correct": np.arange(n) % 2 == 0,
        }
        for name, values in named.items():
            table[name] = values
            table[name].attrs.update(
                {"namespace": "hdmf-common", "neurodata_type": "VectorData",
                 "description": "x", "object_id": name}
            )  # fmt: skip
        table.attrs["colnames"] = np.array(
            [*table.attrs["colnames"], *named], dtype=h5py.string_dtype()
        )
    trials, values = converted(path)
    assert len(trials) == 10
    np.testing.assert_allclose(trials.go_time, np.arange(10) * 2 + 0.3)
    assert trials.target.tolist() == [[8.0, 0.0]] * 10
    assert values["trials"] == {
        "n": 10, "with_target": 10, "with_radius": 0, "success_rate": 0.5,
    }  # fmt: skip


def test_a_recording_of_torch_brain_keeps_what_it_says_of_trials(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["trials/target"] = np.array([[1.0], [np.nan], [2.0]])
        file["trials/success"] = np.array([True, False, True])
        file["trials/radius"] = np.array([0.5, -1.0, 0.7])
        file["trials/go_time"] = np.array([0.5, 9.0, 8.0])
    trials, values = converted(path)
    assert trials.has_target.tolist() == [True, False, True]
    np.testing.assert_array_equal(trials.radius, [0.5, np.nan, 0.7])
    np.testing.assert_array_equal(trials.go_time, [0.5, np.nan, 8.0])
    assert "go_time of 1 trials lies outside of them: left out" in values["notes"]


def test_trials_that_overlap_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["trials/start"][:] = [0.0, 2.0, 8.0]
        file["trials/end"][:] = [3.0, 8.0005, 20.0]
    trials, values = converted(path)
    assert trials.intervals.tolist() == [[0.0, 3.0], [8.0, 20.0]]
    assert "trials ended up to 1 ms into the next: cut there" in " ".join(values["notes"])
    said = "left out 1 of 3 trials: they begin before the one before has ended, the first at 2.000"
    assert any(note.startswith(said) for note in values["notes"])


def test_npz_arrays_of_trials(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays: dict[str, Any] = {
        "spike_times": ALL_TIMES,
        "spike_units": np.arange(len(ALL_TIMES)) % 3,
        "trials.start": [0.0, 5.0],
        "trials.end": [4.0, 9.0],
        "trials.target_x": [8.0, 0.0],
        "trials.target_y": [0.0, 8.0],
        "trials.outcome": ["success", "fail"],
    }
    np.savez(path, **arrays)
    trials, _ = converted(path)
    assert trials.target.tolist() == [[8.0, 0.0], [0.0, 8.0]]
    assert trials.success_rate == 0.5
    assert describe(path)["n_trials"] == 2


def test_tables_that_cannot_be_used_leave_a_note() -> None:
    sound: dict[str, Any] = {"start": np.arange(3.0), "end": np.arange(3.0) + 0.5}
    for columns, said in (
        ({"target": np.array(["a", "b", "c"])}, "targets of trials: expected coordinates"),
        ({"target": np.zeros((3, 17))}, "got shape (3, 17)"),
        ({"go_time": np.zeros(2)}, "left out go_time of trials: expected 3 numbers"),
        ({"target": np.array([[1, np.nan]] * 3)}, "targets of 3 trials lack a coordinate"),
        ({"success": np.zeros((3, 2))}, "left out results of trials: expected 3, got shape"),
    ):
        trials, _, notes = from_columns({**sound, **columns})
        assert len(trials) == 3
        assert said in " ".join(notes)
    assert [known_as(name) for name in ("Trial_Start-Time", "stop_time", "mood")] == [
        "start", "end", "",
    ]  # fmt: skip


# Journals.


def journal(path: Path, *, labels: bool = False, same: bool = False) -> Path:
    header = JournalHeader(session_id="s", unit_ids=("a",), tick_rate_hz=1e3, behavior="cursor.vel")
    writer = JournalWriter(path, header)
    ticks = np.arange(0, 60_000, 20)
    writer.spikes(0, 0, ticks, np.zeros(len(ticks), np.int32))
    shown = np.arange(0, 60_000, 100)
    if labels:
        times = shown if same else shown + 7
        writer.labels(0, times, np.ones((len(shown), 2)))
    writer.trial(0, Trial(number=1, start=1000, target=(8.0, 0.0), radius=1.2))
    writer.cursor(0, shown, np.stack([shown, -shown], axis=-1) / 1e3)
    writer.trial(
        0, Trial(number=1, start=1000, go_time=1200, end=2000, target=(8.0, 0.0), radius=1.2,
                 success=True),
    )  # fmt: skip
    writer.trial(0, Trial(number=2, start=3000, target=(8.0, 0.0)))  # the task dies here
    writer.trial(0, Trial(number=1, start=9000, end=9500, target=(1.0, 2.0, 3.0)))
    writer.close()
    return path


def test_a_journal_keeps_trials_and_the_cursor(tmp_path: Path) -> None:
    trials, values = converted(journal(tmp_path / "a.journal"))
    assert trials.intervals.tolist() == [[1.0, 2.0], [9.0, 9.5]]
    assert trials.go_time[0] == 1.2
    assert trials.target[0].tolist() == [8.0, 0.0]
    assert trials.has_target.tolist() == [True, False]
    assert trials.radius[0] == 1.2
    assert trials.judged is not None
    assert (trials.success.tolist(), trials.judged.tolist()) == ([True, False], [True, False])
    assert "left out 1 of 3 trials: no end after their start" in values["notes"]
    assert "targets of 1 trials do not have 2 coordinates: left out" in values["notes"]
    shown = Recording.open(tmp_path / "out.h5").behavior("cursor.pos")
    assert shown.times[10] == 1.0
    assert shown.values[10].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("same", [True, False])
def test_the_cursor_of_a_journal_lies_beside_its_labels(tmp_path: Path, same: bool) -> None:
    _, values = converted(journal(tmp_path / "a.journal", labels=True, same=same))
    key = "cursor.pos" if same else "cursor_shown.pos"
    assert set(values["behaviors"]) == {"cursor.vel", key}
    assert any("labels of cursor have other times" in note for note in values["notes"]) != same
