"""What may be written behind --behavior: names, short ones, and columns to join."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from helpers.lab_files import TIMES, VELOCITY, npz_file, nwb_file

from poyo_edge.converting import ConvertOptions, convert
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording

AXES = {
    "index.timestamps": TIMES,
    "index.vel": VELOCITY[:, 0],
    "mrs.timestamps": TIMES,
    "mrs.vel": VELOCITY[:, 1],
    "late.timestamps": TIMES + 0.001,
    "late.vel": VELOCITY[:, 1],
    "short.timestamps": TIMES[:-1],
    "short.vel": VELOCITY[:-1, 1],
}


def taken(path: Path, *behaviors: str) -> Recording:
    out = path.with_suffix(".h5")
    convert(path, out, ConvertOptions(behaviors=behaviors, overwrite=True))
    return Recording.open(out)


def test_columns_of_several_series_become_one_behavior(tmp_path: Path) -> None:
    recording = taken(npz_file(tmp_path / "a.npz", **AXES), "finger.vel=index.vel, mrs.vel")
    assert recording.behaviors == ("finger.vel",)
    np.testing.assert_array_equal(recording.behavior("finger.vel").values, VELOCITY)
    np.testing.assert_array_equal(recording.behavior("finger.vel").times, TIMES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.b=index.vel,late.vel", r"late\.vel: .* got 0\.001000 s for 0\.000000 s of index\.vel"),
        ("a.b=index.vel,short.vel", r"short\.vel: .* got 999 for 1000 of index\.vel"),
    ],
)
def test_columns_of_other_times_are_never_joined(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        taken(npz_file(tmp_path / "a.npz", **AXES), words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("index.vel,mrs.vel", "a name for the columns that are joined, like finger.vel=index.vel"),
        ("a.b=index.vel,none.vel", r"one of the series .* got 'none\.vel'; --list"),
    ],
)
def test_what_nobody_can_mean_is_refused(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        taken(npz_file(tmp_path / "a.npz", **AXES), words)


def test_a_short_name_is_enough_where_one_series_has_it(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    assert taken(path, "cursor_vel").behaviors == ("cursor_vel.value",)
    assert taken(path, "cursor.vel=cursor_vel").behaviors == ("cursor.vel",)
    with pytest.raises(UsageError, match="'hand', which may be any of these"):
        taken(path, "hand")


def test_one_series_for_each_finger_is_joined(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    nwb = pynwb.NWBFile(
        session_description="t",
        identifier="t",
        session_start_time=datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc),
    )
    nwb.add_unit(spike_times=TIMES)
    fingers = pynwb.behavior.BehavioralTimeSeries(name="finger_vel")
    for name, column in zip(("index_vel", "mrs_vel"), VELOCITY.T, strict=True):
        fingers.add_timeseries(
            pynwb.TimeSeries(name=name, data=column, timestamps=TIMES, unit="AU")
        )
    nwb.add_acquisition(fingers)
    with pynwb.NWBHDF5IO(str(tmp_path / "m2.nwb"), "w") as io:
        io.write(nwb)
    recording = taken(tmp_path / "m2.nwb", "finger.vel=index_vel,mrs_vel")
    np.testing.assert_array_equal(recording.behavior("finger.vel").values, VELOCITY)


def test_joined_columns_are_doubted_as_single_ones_are(tmp_path: Path) -> None:
    late = {name: one + 5000.0 * ("times" in name) for name, one in AXES.items()}
    path = npz_file(tmp_path / "a.npz", **late)
    with pytest.raises(RecordingError, match=r"finger\.vel: .* clock of the spikes, .*--shift"):
        taken(path, "finger.vel=index.vel,mrs.vel")
    options = ConvertOptions(behaviors=("finger.vel=index.vel,mrs.vel",), shift_behavior_s=-5000)
    assert convert(path, tmp_path / "b.h5", options)["behaviors"] == ["finger.vel"]


@pytest.mark.parametrize("odd", [0, 1])
def test_an_offset_of_any_column_that_is_joined_is_doubted(tmp_path: Path, odd: int) -> None:
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    path = nwb_file(tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(path), "a") as io:
        nwb = io.read()
        for i in range(2):
            nwb.add_acquisition(
                pynwb.TimeSeries(
                    name=f"axis_{i}", data=VELOCITY[:, i], timestamps=TIMES, unit="m",
                    offset=1e6 * (i == odd),
                )
            )  # fmt: skip
        io.write(nwb)
    with pytest.raises(RecordingError, match=r"hand\.pos: expected an offset .*, got 1e\+06"):
        taken(path, "hand.pos=axis_0,axis_1")
