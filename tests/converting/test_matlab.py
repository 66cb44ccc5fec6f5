"""MATLAB files of both versions, as labs write them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.lab_files import TIMES, UNITS, VELOCITY
from helpers.labs.matlab_files import mat5_file, mat73_file

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording

Written = Callable[[Path, dict[str, Any]], Path]
XDS: dict[str, Any] = {
    "meta": {"monkey": "J"},
    "spikes": [times[:, None] for times in UNITS],
    "unit_names": ["elec1", "elec2", "elec3"],
    "time_frame": TIMES[:, None],
    "curs_v": VELOCITY,
    "EMG": np.zeros((1000, 3), np.float32),
    "spike_counts": np.zeros((1000, 3)),
    "gain": np.arange(7, dtype=np.int16),
    "has_EMG": np.ones(1),
}


def packed(path: Path, values: dict[str, Any]) -> Path:
    return mat5_file(path, values, packed=True)


VERSIONS = pytest.mark.parametrize("write", [mat5_file, packed, mat73_file])


@VERSIONS
@pytest.mark.parametrize("inside", [True, False])
def test_units_and_behavior_are_those_of_the_file(
    tmp_path: Path, write: Written, inside: bool
) -> None:
    path = write(tmp_path / "day.mat", {"xds": XDS} if inside else XDS)
    options = ConvertOptions(behaviors=("cursor.vel=curs_v", "EMG"))
    convert(path, tmp_path / "o.h5", options)
    recording = Recording.open(tmp_path / "o.h5")
    assert recording.unit_ids == ("day/elec1", "day/elec2", "day/elec3")
    for row, times in enumerate(UNITS):
        np.testing.assert_array_equal(recording.spike_times[recording.spike_units == row], times)
    velocity = recording.behavior("cursor.vel")
    np.testing.assert_array_equal(velocity.values, VELOCITY)
    np.testing.assert_array_equal(velocity.times, TIMES)
    about = describe(path)
    where = "xds." * inside
    assert {(one["where"], one["why"]) for one in about["left_out"]} == {
        (f"{where}spike_counts", "counts of the spikes"),
        (f"{where}gain", "1x7 for the 1000 times of time_frame"),
    }


@VERSIONS
def test_samples_in_rows_and_cells_of_channels_and_units(tmp_path: Path, write: Written) -> None:
    channels = [[UNITS[0][None], UNITS[1][None]], [UNITS[2][None], np.empty((0, 0))]]
    names = ["M1 001", "M1 002"]
    values = {"spikes": channels, "chan_names": names, "t": TIMES[None], "cursor_pos": VELOCITY.T}
    convert(write(tmp_path / "indy.mat", values), tmp_path / "o.h5")
    recording = Recording.open(tmp_path / "o.h5")
    assert recording.unit_ids == ("indy/M1 001_1", "indy/M1 002_1")
    np.testing.assert_array_equal(recording.spike_times[recording.spike_units == 1], UNITS[2])
    np.testing.assert_array_equal(recording.behavior("cursor_pos.value").values, VELOCITY)


@VERSIONS
def test_spikes_of_all_units_in_one_list(tmp_path: Path, write: Written) -> None:
    values = {"spikes": np.array([0.5, 1.0, 1.5]), "unit": np.array([4.0, 2.0, 4.0])}
    path = write(tmp_path / "a.mat", values)
    about = describe(path)
    assert (about["unit_ids"], about["n_spikes"]) == (["a/unit_2", "a/unit_4"], 3)


@VERSIONS
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": np.zeros(3), "s": {"y": np.zeros(2)}}, r"got 0 in (x|s) .*; save spikes, a cell"),
        ({"a": XDS, "b": XDS}, "got 2 in a"),
        ({"spikes": np.zeros((3, 4))}, "a cell with the seconds of each unit, got 3x4 numbers"),
        ({"spikes": [np.zeros((3, 4))]}, "got 3x4 numbers in cell 1"),
        ({"spikes": ["words"]}, "got 1x5 text in cell 1"),
        ({"spikes": np.zeros(3), "units": np.zeros(2)}, "a unit for each spike, got 2 for 3"),
    ],
)
def test_other_variables_are_listed(
    tmp_path: Path, write: Written, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        describe(write(tmp_path / "a.mat", values))


@VERSIONS
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_was_cut_off_is_one_sentence(
    tmp_path: Path, write: Written, kept: float
) -> None:
    path = write(tmp_path / "a.mat", XDS)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(RecordingError, match="a complete MATLAB file, got a truncated or damaged"):
        describe(path)


@VERSIONS
def test_errors_of_what_is_done_with_it_are_no_damage(tmp_path: Path, write: Written) -> None:
    path = write(tmp_path / "a.mat", XDS)
    with pytest.raises(UsageError, match=r"one of the series of a\.mat"):
        convert(path, tmp_path / "b.h5", ConvertOptions(behaviors=("none",)))


def test_no_byte_of_a_file_leads_to_anything_but_a_sentence(tmp_path: Path) -> None:
    whole = mat5_file(tmp_path / "a.mat", {"spikes": [TIMES[:3]], "t": TIMES[:4]}).read_bytes()
    for at in range(128, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "b.mat").write_bytes(damaged)
        with contextlib.suppress(RecordingError):
            describe(tmp_path / "b.mat")


def test_what_scipy_writes_is_read(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    cells = np.empty((1, len(UNITS)), object)
    for i, times in enumerate(UNITS):
        cells[0, i] = times
    for compressed in (False, True):
        values = {"xds": {"spikes": cells, "time_frame": TIMES, "curs_v": VELOCITY}}
        io.savemat(tmp_path / "a.mat", values, do_compression=compressed)
        about = describe(tmp_path / "a.mat")
        assert about["n_spikes"] == sum(map(len, UNITS))
        assert [one["key"] for one in about["series"]] == ["curs_v.value"]


def test_complex_numbers_are_not_taken_for_their_real_part(tmp_path: Path) -> None:
    values = {name: XDS[name] for name in ("spikes", "time_frame")}
    path = mat5_file(tmp_path / "a.mat", {**values, "curs_v": VELOCITY[:, :1]})
    assert describe(path)["series"]
    data = bytearray(path.read_bytes())
    flags = data.rindex(struct.pack("<II", 6, 8)) + 8  # of the variable written last
    data[flags : flags + 4] = struct.pack("<I", struct.unpack_from("<I", data, flags)[0] | 0x0800)
    path.write_bytes(data)
    about = describe(path)
    assert about["series"] == []
    (one,) = about["left_out"]
    assert one["why"].startswith("complex numbers")
    mat73_file(tmp_path / "b.mat", values)
    with h5py.File(tmp_path / "b.mat", "r+") as file:
        pairs = np.zeros((1, 1000), [("real", "f8"), ("imag", "f8")])
        file.create_dataset("curs_v", data=pairs).attrs["MATLAB_class"] = np.bytes_(b"double")
    assert describe(tmp_path / "b.mat")["left_out"] == [one]
