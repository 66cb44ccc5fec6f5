"""A clock that begins anew inside a file: its stretches are never laid over each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.commands import run_json
from helpers.lab_files import (
    ALL_TIMES,
    TIMES,
    UNITS,
    csv_files,
    nev_file,
    npz_file,
    nwb_file,
    torch_brain_recording,
)
from helpers.labs.matlab_files import mat5_file, mat73_file
from helpers.labs.open_ephys_files import RATE, open_ephys_folder
from helpers.labs.sorted_files import phy_folder

from poyo_edge.cli.commands.convert import list_text
from poyo_edge.converting import ConvertOptions, convert, describe, open_source
from poyo_edge.converting.source import restarts
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.journal import Journal, JournalHeader, JournalWriter
from poyo_edge.recording import Recording

AT_S = 10.0
"""Where the clocks of these files begin anew."""


def two_starts(times: Any) -> Any:
    return np.where(times < AT_S, times, times - AT_S)


def nwb_of_two_starts(folder: Path) -> Path:
    path = nwb_file(folder / "a.nwb")
    with h5py.File(path, "r+") as file:
        spikes = file["units/spike_times"]
        spikes[:] = two_starts(spikes[()])
        velocity = file["processing/behavior/cursor_vel/timestamps"]
        velocity[:] = two_starts(velocity[()])
    return path


def hdf5_of_two_starts(folder: Path) -> Path:
    path = torch_brain_recording(folder / "s.h5")
    with h5py.File(path, "r+") as file:
        spikes = file["spikes/timestamps"]
        spikes[:] = two_starts(spikes[()])
    return path


def nev_of_two_starts(folder: Path) -> Path:
    pytest.importorskip("neo", reason="neo is not installed")
    return nev_file(folder / "a.nev", starts=2)


def journal_of_two_starts(folder: Path) -> Path:
    header = JournalHeader(session_id="s", unit_ids=("s/a", "s/b"), tick_rate_hz=1000.0)
    writer = JournalWriter(folder / "a.journal", header)
    for _ in range(2):
        for first in range(0, 5000, 20):
            ticks = np.arange(first, first + 20, 4, dtype=np.int64)
            writer.spikes(0, 0, ticks, np.array([0, 1, 0, 1, 1], np.int32))
            writer.decoded(first + 20, 0, "VALID", 5, np.array([1.0]))
    writer.close()
    return folder / "a.journal"


def npz_of_two_starts(folder: Path) -> Path:
    return npz_file(folder / "a.npz", spike_times=two_starts(ALL_TIMES))


def csv_of_two_starts(folder: Path) -> Path:
    spikes, _ = csv_files(folder)
    lines = [f"{t!r},u{i % 3}" for i, t in enumerate(two_starts(ALL_TIMES).tolist())]
    spikes.write_text("\n".join(["time,unit", *lines]))
    return spikes


def phy_of_two_starts(folder: Path) -> Path:
    phy_folder(folder / "ks")
    ticks = np.load(folder / "ks" / "spike_times.npy")
    half = int(AT_S * RATE)
    np.save(folder / "ks" / "spike_times.npy", np.where(ticks < half, ticks, ticks - half))
    return folder / "ks"


def mat_of_two_starts(folder: Path, write: Callable[..., Path] = mat5_file) -> Path:
    values = {"spikes": [two_starts(times) for times in UNITS], "time_frame": two_starts(TIMES)}
    return write(folder / "a.mat", {**values, "curs_v": np.zeros((len(TIMES), 2))})


def mat73_of_two_starts(folder: Path) -> Path:
    return mat_of_two_starts(folder, mat73_file)


def open_ephys_of_two_starts(folder: Path) -> Path:
    samples = np.tile(np.arange(1, 151) * 1000, 2)
    return open_ephys_folder(folder / "day", {"E1": (samples, np.arange(300) % 2)})


FILES: dict[str, Callable[[Path], Path]] = {
    "NWB": nwb_of_two_starts,
    "torch_brain HDF5": hdf5_of_two_starts,
    "neo": nev_of_two_starts,
    "npz": npz_of_two_starts,
    "csv": csv_of_two_starts,
    "journal": journal_of_two_starts,
    "Phy": phy_of_two_starts,
    "MATLAB 5": mat_of_two_starts,
    "MATLAB 7.3": mat73_of_two_starts,
    "Open Ephys": open_ephys_of_two_starts,
}


@pytest.mark.parametrize("name", FILES)
def test_a_clock_that_begins_anew_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path)
    message = r"expected one clock .* begins anew \(.* after|before .*--segment 1 to 2; --list"
    with pytest.raises(RecordingError, match=message):
        convert(path, tmp_path / "b.h5")
    with pytest.raises(RecordingError, match=message), open_source(path):
        pass
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize("name", FILES)
def test_list_shows_segments_and_each_becomes_a_recording(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path)
    found = describe(path)
    assert [one["segment"] for one in found["segments"]] == [1, 2]
    assert sum(one["n_spikes"] for one in found["segments"]) == found["n_spikes"]
    assert any("begins anew" in note for note in found["notes"])
    for one in found["segments"]:
        options = ConvertOptions(segment=one["segment"], overwrite=True)
        values = convert(path, tmp_path / "b.h5", options)
        assert values["n_spikes"] == one["n_spikes"]
        assert values["behaviors"] == sorted(one["series"])
    for segment in (0, 3):
        with pytest.raises(UsageError, match="segment: expected 1 to 2, got"):
            convert(path, tmp_path / "c.h5", ConvertOptions(segment=segment))


def test_a_segment_holds_the_spikes_and_behaviour_of_its_own_time(tmp_path: Path) -> None:
    path, out = nwb_of_two_starts(tmp_path), tmp_path / "b.h5"
    options = ConvertOptions(segment=2, behaviors=("cursor_vel.value",))
    values = convert(path, out, options)
    recording = Recording.open(out)
    for row, times in enumerate(UNITS):
        mine = recording.spike_times[recording.spike_units == row]
        np.testing.assert_allclose(mine, times[times >= AT_S] - AT_S)
    velocity = recording.behavior("cursor_vel.value")
    np.testing.assert_allclose(velocity.times, TIMES[TIMES >= AT_S] - AT_S)
    assert any("observed intervals" in note and "trials" in note for note in values["notes"])
    with pytest.raises(RecordingError, match=r"hand: expected times that begin anew 1 times"):
        convert(
            path,
            tmp_path / "c.h5",
            dataclasses.replace(options, behaviors=("Position_hand.value",)),
        )


@pytest.mark.slow
def test_segments_are_listed_in_the_command_that_comes_next(tmp_path: Path) -> None:
    path = nwb_of_two_starts(tmp_path)
    assert "--segment 1 " in list_text(run_json("convert", path, "--list"), "poyo-edge")
    written = run_json("convert", path, "--segment", "1", "-o", tmp_path / "b.h5")
    assert written["seconds"] == pytest.approx(AT_S, abs=0.5)


def test_units_that_fall_back_unlike_others_cannot_be_divided(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        spikes, end = file["units/spike_times"], file["units/spike_times_index"][0]
        spikes[:end] = two_starts(spikes[:end])
    message = r"unit_10: \d\.\d+ s after 9\.\d+ s at index \d+; units fall back 0 to 1 times"
    with pytest.raises(RecordingError, match=message):
        convert(path, tmp_path / "b.h5", ConvertOptions(segment=1))


def test_spikes_that_came_a_little_late_are_sorted_and_counted(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        spikes = file["units/spike_times"]
        spikes[20] = spikes[21] + 0.02
        expected = np.sort(spikes[()])
    values = convert(path, tmp_path / "b.h5")
    np.testing.assert_array_equal(Recording.open(tmp_path / "b.h5").spike_times, expected)
    assert any(note.startswith("1 spikes lay up to 20 ms behind") for note in values["notes"])
    assert "segments" not in values


@pytest.mark.parametrize("name", ["Phy", "MATLAB 5", "Open Ephys"])
def test_readers_of_folders_and_matlab_say_what_came_late(tmp_path: Path, name: str) -> None:
    late = np.arange(1, 101) * 900
    late[[40, 41]] = late[[41, 40]]
    if name == "Phy":
        phy_folder(path := tmp_path / "ks")
        np.save(path / "spike_times.npy", late)
        np.save(path / "spike_clusters.npy", np.zeros(100, np.int32))
    elif name == "MATLAB 5":
        path = mat5_file(tmp_path / "a.mat", {"spikes": [late / RATE]})
    else:
        path = open_ephys_folder(tmp_path / "day", {"E1": (late, np.zeros(100))})
    notes = describe(path)["notes"]
    assert any(note.startswith("1 spikes lay up to 30 ms behind: sorted") for note in notes)


def test_spikes_of_one_unit_after_another_are_no_second_clock(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    before = Recording.open(path)
    with h5py.File(path, "r+") as file:
        by_unit = np.argsort(before.spike_units, kind="stable")
        file["spikes/timestamps"][:] = before.spike_times[by_unit]
        file["spikes/unit_index"][:] = before.spike_units[by_unit]
    convert(path, tmp_path / "b.h5")
    after = Recording.open(tmp_path / "b.h5")
    np.testing.assert_array_equal(before.spike_times, after.spike_times)
    np.testing.assert_array_equal(before.spike_units, after.spike_units)


def test_restarts_are_where_times_fall_back_by_more_than_lateness() -> None:
    assert restarts(np.array([0.0, 1.0, 0.95, 2.0])) == []
    assert restarts(np.array([0.0, 1.0, 2.0, 0.5, 1.0, 0.2])) == [3, 5]
    assert restarts(np.empty(0)) == []


@pytest.mark.parametrize("n_bytes", [0, 8], ids=["with its first bytes", "from its header on"])
def test_a_journal_behind_another_is_not_merged(tmp_path: Path, n_bytes: int) -> None:
    path = journal_of_two_starts(tmp_path)
    whole, n_entries = path.read_bytes(), len(list(Journal(path).entries()))
    path.write_bytes(whole + whole[n_bytes:])
    with pytest.raises(RecordingError, match=f"another one from byte {len(whole)} on"):
        convert(path, tmp_path / "b.h5", ConvertOptions(segment=1))
    assert len(list(Journal(path).entries())) == n_entries


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "starts, not ends": (lambda x: x.__setitem__(slice(None), [0, 300, 300]), "got 300 in the"),
    "out of order": (lambda x: x.__setitem__(slice(1, 3), [340, 300]), "got 300 after 340 in row"),
    "ends too early": (lambda x: x.__setitem__(2, 330), "got 330 in the last row"),
    "ends too late": (lambda x: x.__setitem__(2, 350), "got 350 in the last row"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_does_not_fit_its_spikes_is_refused(tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        change(file["units/spike_times_index"])
    expected = "units/spike_times_index: expected ends that ascend to 340.* " + message
    with pytest.raises(RecordingError, match=expected):
        convert(path, tmp_path / "b.h5")
