"""Times of another unit or clock: asked back with the flag that says it, and read as it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.commands import run_json
from helpers.lab_files import ALL_TIMES, TIMES, VELOCITY, npz_file, nwb_file, torch_brain_recording

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.converting.plausible import per_second
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording


def csv_in_ms(folder: Path) -> Path:
    lines = [f"{t * 1000!r},u{i % 3}" for i, t in enumerate(ALL_TIMES.tolist())]
    (folder / "a.csv").write_text("\n".join(["time,unit", *lines]))
    return folder / "a.csv"


def nwb_in_ms(folder: Path) -> Path:
    path = nwb_file(folder / "a.nwb")
    with h5py.File(path, "r+") as file:
        for name in ("spike_times", "obs_intervals"):
            file[f"units/{name}"][:] = file[f"units/{name}"][()] * 1000
    return path


def hdf5_in_ms(folder: Path) -> Path:
    path = torch_brain_recording(folder / "s.h5")
    with h5py.File(path, "r+") as file:
        names = [f"{name}/{edge}" for name in file if name.endswith("domain")
                 for edge in ("start", "end")]  # fmt: skip
        for name in ("spikes/timestamps", *names):
            file[name][:] = file[name][()] * 1000
    return path


IN_MS: dict[str, Callable[[Path], Path]] = {
    "csv": csv_in_ms,
    "npz": lambda folder: npz_file(folder / "a.npz", spike_times=ALL_TIMES * 1000),
    "NWB": nwb_in_ms,
    "torch_brain HDF5": hdf5_in_ms,
}


@pytest.mark.parametrize("name", IN_MS)
def test_spikes_in_milliseconds_are_asked_back_and_read_as_said(tmp_path: Path, name: str) -> None:
    path, out = IN_MS[name](tmp_path), tmp_path / "b.h5"
    with pytest.raises(RecordingError, match=r"spike times: expected .* --time-unit ms, us or"):
        convert(path, out)
    assert not out.exists()
    assert any("--time-unit ms" in note for note in describe(path)["notes"])
    convert(path, out, ConvertOptions(time_unit="ms"))
    recording = Recording.open(out)
    np.testing.assert_allclose(recording.spike_times, ALL_TIMES, rtol=1e-15)
    assert recording.intervals("test")[-1, 1] <= 20.0 + 1e-6


def test_intervals_may_be_in_seconds_beside_spikes_in_milliseconds(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    before = Recording.open(path)
    with h5py.File(path, "r+") as file:
        file["spikes/timestamps"][:] = before.spike_times * 1000
    values = convert(path, tmp_path / "b.h5", ConvertOptions(time_unit="ms"))
    after = Recording.open(tmp_path / "b.h5")
    np.testing.assert_allclose(after.spike_times, before.spike_times, rtol=1e-15)
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(after.intervals(split), before.intervals(split))
    assert any("splits were taken as seconds" in note for note in values["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f8", "u8"])
def test_samples_are_a_rate(tmp_path: Path, kind: str) -> None:
    path = npz_file(tmp_path / "a.npz", spike_times=np.rint(ALL_TIMES * 30000).astype(kind))
    with pytest.raises(RecordingError, match="340 whole numbers"):
        convert(path, tmp_path / "b.h5")
    run_json("convert", path, "-o", tmp_path / "b.h5", "--time-unit", "samples:30000")
    recording = Recording.open(tmp_path / "b.h5")
    np.testing.assert_allclose(recording.spike_times, ALL_TIMES, atol=1 / 30000)


@pytest.mark.parametrize("words", ["m", "samples", "samples:0", "samples:x", "ms:3", ""])
def test_a_unit_is_one_of_four(tmp_path: Path, words: str) -> None:
    with pytest.raises(UsageError, match="time-unit: expected s, ms, us or samples:RATE"):
        convert(npz_file(tmp_path / "a.npz"), None, ConvertOptions(time_unit=words))
    assert [per_second(one, "x") for one in ("s", "ms", "us", "samples:24414.0625")] == [
        1, 1000, 1_000_000, 24414.0625
    ]  # fmt: skip


OTHER_CLOCKS: dict[str, tuple[Any, ConvertOptions, str]] = {
    "milliseconds": (TIMES * 1e3, ConvertOptions(behavior_time_unit="ms"), "one each 20 s"),
    "since 1970": (TIMES + 1.7e9, ConvertOptions(shift_behavior_s=-1.7e9), "0.000 s of them"),
    "milliseconds since the start of a computer": (
        TIMES * 1e3 + 5e6,
        ConvertOptions(behavior_time_unit="ms", shift_behavior_s=-5000.0),
        "one each 20 s",
    ),
}


@pytest.mark.parametrize("name", OTHER_CLOCKS)
@pytest.mark.parametrize("wanted", [(), ("cursor.vel",)], ids=["all", "asked for"])
def test_behaviour_of_another_clock_is_asked_back_and_read_as_said(
    tmp_path: Path, name: str, wanted: tuple[str, ...]
) -> None:
    times, options, message = OTHER_CLOCKS[name]
    path = npz_file(tmp_path / "a.npz", **{"cursor.timestamps": times})
    with pytest.raises(RecordingError, match=f"cursor.vel: .*{message}.* --behavior-time-unit ms"):
        convert(path, tmp_path / "b.h5", ConvertOptions(behaviors=wanted))
    convert(path, tmp_path / "b.h5", options)
    found = Recording.open(tmp_path / "b.h5").behavior("cursor.vel")
    np.testing.assert_allclose(found.times, TIMES, atol=1e-6)


def test_a_series_that_is_doubted_is_left_out_beside_one_that_is_not(tmp_path: Path) -> None:
    more = {"hand.timestamps": TIMES + 5000.0, "hand.pos": VELOCITY}
    values = convert(npz_file(tmp_path / "a.npz", **more), tmp_path / "b.h5")
    assert values["behaviors"] == ["cursor.vel"]
    assert any("left out hand.pos: " in n and "--shift-behavior" in n for n in values["notes"])
    options = ConvertOptions(accept=("overlap",), overwrite=True)
    values = convert(tmp_path / "a.npz", tmp_path / "b.h5", options)
    assert values["behaviors"] == ["cursor.vel", "hand.pos"]
    assert Recording.open(tmp_path / "b.h5").accepted == ("overlap",)
    with pytest.raises(UsageError, match="accept: expected one of time-unit, float32, "):
        convert(tmp_path / "a.npz", tmp_path / "b.h5", ConvertOptions(accept=("all",)))


def test_an_nwb_series_with_a_period_for_a_rate_or_a_time_for_an_offset_is_refused(
    tmp_path: Path,
) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    wanted = ConvertOptions(behaviors=("Position_hand.value",))
    with h5py.File(path, "r+") as file:
        file["processing/behavior/Position/hand/starting_time"].attrs["rate"] = 0.02
    with pytest.raises(RecordingError, match="at least 1 sample each second, got one each 50 s"):
        convert(path, tmp_path / "b.h5", wanted)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/Position/hand/starting_time"].attrs["rate"] = 50.0
        file["processing/behavior/Position/hand/data"].attrs["offset"] = 137.4
    with pytest.raises(RecordingError, match=r"an offset of values of up to 3.*, got 137.4, as if"):
        convert(path, tmp_path / "b.h5", wanted)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/Position/hand/data"].attrs["conversion"] = 0.0
    with pytest.raises(RecordingError, match="a conversion and an offset that are numbers"):
        convert(path, tmp_path / "b.h5", wanted)


def test_trials_and_observed_time_of_another_clock_are_not_taken(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        for edge in ("start_time", "stop_time"):
            file[f"intervals/trials/{edge}"][:] += 1000.0
    values = convert(path, tmp_path / "b.h5")
    assert values["n_trials"] == 0
    assert any(note.startswith("left out 10 trials: 0 of them") for note in values["notes"])
    with h5py.File(path, "r+") as file:
        file["units/obs_intervals"][:] += 1000.0
    with pytest.raises(RecordingError, match="observed time: expected spikes in it"):
        convert(path, tmp_path / "c.h5")


def test_list_says_what_is_wrong_with_spikes_that_cannot_be_converted(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["spikes/unit_index"][7] = -2
    assert any("got -2" in note for note in describe(path)["notes"])
    assert describe(npz_file(tmp_path / "a.npz"))["notes"] == []
