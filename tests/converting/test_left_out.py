"""Nothing that might have been behaviour is left out without a reason."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.commands import run, run_json
from helpers.lab_files import TIMES, UNITS, VELOCITY, npz_file, nwb_file, torch_brain_recording

from poyo_edge.converting import ConvertOptions, convert, describe, open_source
from poyo_edge.converting.clocks import together
from poyo_edge.converting.source import LeftOut
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording


def reasons(about: dict[str, Any]) -> dict[str, str]:
    return {one["where"]: one["why"] for one in about["left_out"]}


def new_nwb(pynwb: Any) -> Any:
    return pynwb.NWBFile(
        session_description="test",
        identifier="abc",
        session_start_time=datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc),
        session_id="day_1",
    )


def written(path: Path, pynwb: Any, nwb: Any) -> Path:
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def wide_nwb(path: Path) -> Path:
    """One series that is behaviour, and some that are not or may not be."""
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    nwb = new_nwb(pynwb)
    for times in UNITS:
        nwb.add_unit(spike_times=times)

    def series(name: str, data: Any, unit: str = "m") -> Any:
        return pynwb.TimeSeries(name=name, data=data, timestamps=TIMES, unit=unit)

    module = nwb.create_processing_module("behavior", "behaviour")
    module.add(series("vel", VELOCITY))
    module.add(series("pose", np.zeros((1000, 5, 2))))
    module.add(series("video", np.zeros((1000, 65))))
    nwb.add_acquisition(series("words", np.array(["a"] * 1000)))
    nwb.add_stimulus(series("target", VELOCITY))
    return written(path, pynwb, nwb)


def test_an_nwb_file_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = wide_nwb(tmp_path / "a.nwb")
    about = describe(path)
    assert [one["key"] for one in about["series"]] == ["vel.value"]
    assert reasons(about) == {
        "acquisition/words": "text, where numbers are decoded",
        "processing/behavior/pose": "3-D, shape (1000, 5, 2), where behaviour is samples and "
        "columns; save each value as a column of its own, as .npz",
        "processing/behavior/video": "65 columns, where behaviour has 1 to 64",
        "stimulus/target": "in stimulus: take it with --behavior stimulus/target",
    }
    values = convert(path, tmp_path / "b.h5")
    assert values["behaviors"] == ["vel.value"]
    assert values["left_out"] == about["left_out"]


def test_what_lies_elsewhere_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    path = wide_nwb(tmp_path / "a.nwb")
    convert(path, tmp_path / "b.h5", ConvertOptions(behaviors=("screen.pos=stimulus/target",)))
    np.testing.assert_array_equal(
        Recording.open(tmp_path / "b.h5").behavior("screen.pos").values, VELOCITY
    )
    pose = ConvertOptions(behaviors=("processing/behavior/pose",))
    with pytest.raises(RecordingError, match="expected behaviour, got 3-D"):
        convert(path, tmp_path / "c.h5", pose)


def test_a_link_to_a_file_that_did_not_come_along_is_named(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["processing/behavior/cursor_vel"]
        file["processing/behavior/cursor_vel"] = h5py.ExternalLink("raw.nwb", "/x")
    why = reasons(describe(path))["processing/behavior/cursor_vel"]
    assert why == "a link to /x in raw.nwb, where nothing is; put that file beside this"
    options = ConvertOptions(behaviors=("processing/behavior/cursor_vel",))
    with pytest.raises(UsageError, match=r"is left out: a link to /x in raw\.nwb"):
        convert(path, tmp_path / "b.h5", options)


def test_units_in_a_processing_module_are_found(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    nwb = new_nwb(pynwb)
    module = nwb.create_processing_module("ecephys", "e")
    for sorter in ("a", "b"):
        units = pynwb.misc.Units(name=f"units_{sorter}", description="sorted")
        for times in UNITS:
            units.add_unit(spike_times=times)
        module.add(units)
    two = written(tmp_path / "two.nwb", pynwb, nwb)
    with pytest.raises(RecordingError, match="got processing/ecephys/units_a, processing/ecephys"):
        describe(two)
    with h5py.File(two, "r+") as file:
        del file["processing/ecephys/units_b"]
    about = describe(two)
    assert about["n_units"] == 3
    assert "units are those of processing/ecephys/units_a" in about["notes"]


def test_spike_times_without_an_index_are_nobodys(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        attributes = dict(file["units/spike_times"].attrs)
        del file["units/spike_times"], file["units/spike_times_index"]
        file["units/spike_times"] = np.arange(3.0)
        file["units/spike_times"].attrs.update(attributes)
    with pytest.raises(RecordingError, match="units/spike_times_index: expected the ends of each"):
        describe(path)


def test_a_torch_brain_file_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["cursor/pose"] = np.zeros((1000, 5, 2))
        file["cursor/short"] = np.zeros(999)
        file["hand/pos"] = np.zeros(1000)
        file["cursor/same"] = h5py.SoftLink("/cursor/pos")
        file["cursor/none"] = h5py.SoftLink("/cursor/nothing")
        file["eye"] = h5py.ExternalLink("eye.h5", "/eye")
    about = describe(path)
    assert {one["key"] for one in about["series"]} == {
        "cursor.pos",
        "cursor.vel",
        "cursor.same",
    }
    found = reasons(about)
    assert found.pop("cursor/pose").startswith("3-D, shape (1000, 5, 2)")
    assert found == {
        "cursor/short": "999 samples for 1000 timestamps",
        "hand/pos": "no timestamps beside it, and no sampling rate",
        "cursor/none": "a link to /cursor/nothing; copy it into the file",
        "eye": "a link to /eye in eye.h5; copy it into the file",
    }


def test_arrays_that_are_no_behavior_are_named(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz", **{"cursor.pose": np.zeros((1000, 5, 2))})
    assert list(reasons(describe(path))) == ["cursor.pose"]
    assert convert(path, tmp_path / "b.h5")["behaviors"] == ["cursor.vel"]


@pytest.mark.slow
def test_the_command_shows_them_in_words_and_as_json(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz", **{"cursor.pose": np.zeros((1000, 5, 2))})
    for more in (["--list"], ["-o", tmp_path / "b.h5"]):
        assert "left out cursor.pose: 3-D" in run("convert", path, *more).stdout
    found = run_json("convert", path, "-o", tmp_path / "c.h5")["left_out"]
    assert isinstance(found, list)
    assert [one["where"] for one in found] == ["cursor.pose"]


def test_what_is_left_out_of_a_file_of_two_clocks_is_said_and_of_no_segment(tmp_path: Path) -> None:
    path = wide_nwb(tmp_path / "a.nwb")
    about = describe(path)
    with h5py.File(path, "r+") as file:
        where = ["units/spike_times", "acquisition/words", "stimulus/presentation/target"]
        where += [f"processing/behavior/{name}" for name in ("vel", "pose", "video")]
        for name in where:
            times = file[name] if name == where[0] else file[name]["timestamps"]
            times[:] = np.where(times[()] < 10.0, times[()], times[()] - 10.0)
    found = describe(path)
    assert found["left_out"] == about["left_out"]
    assert [one["series"] for one in found["segments"]] == [["vel.value"], ["vel.value"]]
    values = convert(path, tmp_path / "b.h5", ConvertOptions(segment=2))
    assert (values["behaviors"], values["left_out"]) == (["vel.value"], about["left_out"])


def test_a_series_that_is_doubted_is_left_out_with_the_reason(tmp_path: Path) -> None:
    more = {"hand.timestamps": TIMES + 5000.0, "hand.pos": VELOCITY}
    values = convert(npz_file(tmp_path / "a.npz", **more), tmp_path / "b.h5")
    assert "--shift-behavior" in reasons(values)["hand.pos"]


def test_what_any_clock_leaves_out_is_said_once(tmp_path: Path) -> None:
    a, b = LeftOut("a", "raw"), LeftOut("b", "raw")
    with open_source(npz_file(tmp_path / "a.npz")) as source:
        clocks = [dataclasses.replace(source, left_out=one) for one in ((a,), (a, b))]
        assert together(clocks, "there").left_out == (a, b)
