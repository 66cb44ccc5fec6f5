"""Files that labs have become recordings that we and torch_brain open, or one clear sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.lab_files import (
    ALL_TIMES,
    TIMES,
    UNITS,
    VELOCITY,
    csv_files,
    nev_file,
    npz_file,
    nwb_file,
    torch_brain_recording,
)

from poyo_edge.cli.commands.convert import convert_text
from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.converting.splitting import split_domains, split_shares
from poyo_edge.errors import MissingExtraError, RecordingError, UsageError, pip_install
from poyo_edge.recording import Recording


def assert_torch_brain_opens(path: Path) -> None:
    datasets = pytest.importorskip("torch_brain.datasets", reason="torch_brain is not installed")
    theirs = datasets.Dataset(path.parent, recording_ids=[path.stem]).get_recording(path.stem)
    ours = Recording.open(path)
    np.testing.assert_array_equal(theirs.spikes.timestamps, ours.spike_times)
    np.testing.assert_array_equal(theirs.spikes.unit_index, ours.spike_units)
    assert theirs.units.id.tolist() == list(ours.unit_ids)
    for split in ("train", "valid", "test"):
        domain = getattr(theirs, f"{split}_domain")
        np.testing.assert_array_equal(ours.intervals(split).T, [domain.start, domain.end])


def test_nwb_becomes_a_recording_that_torch_brain_opens(tmp_path: Path) -> None:
    source = nwb_file(tmp_path / "a.nwb")
    out = tmp_path / "day_1.h5"
    options = ConvertOptions(behaviors=("cursor.vel=cursor_vel.value",))
    values = convert(source, out, options)
    recording = Recording.open(out)
    assert recording.session_id == "day_1"
    assert recording.unit_ids == ("day_1/unit_10", "day_1/unit_11", "day_1/unit_12")
    np.testing.assert_array_equal(recording.spike_times, ALL_TIMES)
    for row, times in enumerate(UNITS):
        mine = recording.spike_times[recording.spike_units == row]
        np.testing.assert_array_equal(mine, times)
    assert recording.behaviors == ("cursor.vel",)
    np.testing.assert_array_equal(recording.behavior("cursor.vel").values, VELOCITY)
    np.testing.assert_array_equal(recording.behavior("cursor.vel").times, TIMES)
    assert values["n_trials"] == 10
    # 18 s were observed, 0.7 of them end at 14.6 s, inside the trial from 14 to 15.9 s.
    np.testing.assert_allclose(recording.intervals("train"), [[0, 8], [10, 14]])
    np.testing.assert_allclose(recording.intervals("valid"), [[14, 16.4 - 0.4]])
    np.testing.assert_allclose(recording.intervals("test"), [[16, 20]])
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["trials/start"][()], np.arange(0, 20, 2))
    assert_torch_brain_opens(out)


def test_list_shows_every_series_of_an_nwb_file_under_a_name_of_its_own(tmp_path: Path) -> None:
    values = describe(nwb_file(tmp_path / "a.nwb"))
    found = {one["key"]: (one["where"], one["n_dims"], one["unit"]) for one in values["series"]}
    assert found == {
        "acquisition_hand.value": ("acquisition/hand", 1, "V"),
        "cursor_vel.value": ("processing/behavior/cursor_vel", 2, "cm/s"),
        "Position_hand.value": ("processing/behavior/Position/hand", 1, "m"),
    }
    assert (values["n_units"], values["n_trials"], values["seconds"]) == (3, 10, 18.0)


def test_conversion_of_an_nwb_series_is_applied(tmp_path: Path) -> None:
    source = nwb_file(tmp_path / "a.nwb", conversion=0.01)
    convert(source, tmp_path / "b.h5")
    recording = Recording.open(tmp_path / "b.h5")
    np.testing.assert_allclose(recording.behavior("cursor_vel.value").values, VELOCITY * 0.01)
    hand = recording.behavior("Position_hand.value")
    assert hand.times[0] == 0.5
    assert np.diff(hand.times) == pytest.approx(0.02)


def test_nwb_without_units_is_refused(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["units"]
    with pytest.raises(RecordingError, match=r"units: expected a table .* got no units table"):
        convert(path, tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()


def test_a_damaged_nwb_file_is_refused(tmp_path: Path) -> None:
    path = nwb_file(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["units/spike_times_index"]
    with pytest.raises(RecordingError, match=r"a\.nwb: file: expected an NWB file"):
        describe(path)


def test_npz_and_csv_give_the_same_recording(tmp_path: Path) -> None:
    names = np.array(["u0", "u1", "u2"])[np.arange(len(ALL_TIMES)) % 3]
    convert(npz_file(tmp_path / "a.npz", spike_units=names), tmp_path / "a.h5")
    spikes, behavior = csv_files(tmp_path)
    values = convert(spikes, tmp_path / "b.h5", behavior_file=behavior)
    a, b = Recording.open(tmp_path / "a.h5"), Recording.open(tmp_path / "b.h5")
    assert a.unit_ids == b.unit_ids == ("u0", "u1", "u2")
    np.testing.assert_array_equal(a.spike_times, b.spike_times)
    np.testing.assert_array_equal(a.spike_units, b.spike_units)
    left, right = (one.behavior("cursor.vel", allow_nan=True) for one in (a, b))
    assert np.isnan(right.values[3]).all()
    np.testing.assert_array_equal(np.delete(left.values, 3, 0), np.delete(right.values, 3, 0))
    assert any("1 samples are NaN" in note for note in values["notes"])
    assert_torch_brain_opens(tmp_path / "b.h5")


def test_infinite_behaviour_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    velocity = VELOCITY.copy()
    velocity[7, 0] = np.inf
    source = npz_file(tmp_path / "a.npz", **{"cursor.vel": velocity})
    good = npz_file(tmp_path / "good.npz")
    convert(good, tmp_path / "b.h5")
    before = (tmp_path / "b.h5").read_bytes()
    options = ConvertOptions(behaviors=("cursor.vel",), overwrite=True)
    with pytest.raises(RecordingError, match=r"a\.npz: .*got 1 that are infinite"):
        convert(source, tmp_path / "b.h5", options)
    assert (tmp_path / "b.h5").read_bytes() == before
    values = convert(source, tmp_path / "c.h5")
    assert "cursor.vel" not in values["behaviors"]
    assert any("infinite" in one["why"] for one in values["left_out"])


def test_numbered_units_of_a_table_get_names_as_those_of_an_npz_do(tmp_path: Path) -> None:
    convert(npz_file(tmp_path / "a.npz"), tmp_path / "a.h5")
    rows = "".join(f"{t},{i % 3}\n" for i, t in enumerate(ALL_TIMES.tolist()))
    (tmp_path / "a.csv").write_text(f"time,unit\n{rows}")
    convert(tmp_path / "a.csv", tmp_path / "b.h5")
    ids = [Recording.open(tmp_path / f"{name}.h5").unit_ids for name in "ab"]
    assert ids[0] == ids[1] == ("a/unit_0", "a/unit_1", "a/unit_2")


def test_numbered_units_get_names(tmp_path: Path) -> None:
    convert(npz_file(tmp_path / "a.npz"), tmp_path / "b.h5")
    assert Recording.open(tmp_path / "b.h5").unit_ids == ("a/unit_0", "a/unit_1", "a/unit_2")
    ids = np.array(["x", "y", "z", "silent"])
    convert(npz_file(tmp_path / "a.npz", unit_ids=ids), tmp_path / "c.h5")
    assert Recording.open(tmp_path / "c.h5").unit_ids == ("x", "y", "z", "silent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spike_units": None}, "spike_units: expected an array"),
        ({"spike_times": ALL_TIMES[:-1]}, "spike_units of one length"),
        ({"spike_times": np.full(340, np.nan)}, "spikes/timestamps: expected finite"),
        ({"cursor.timestamps": None}, "the times of cursor.vel as cursor.timestamps"),
        ({"spike_units": np.array([None] * 340, object)}, "an .npz of plain arrays"),
        ({"unit_ids": np.array(["only"])}, "rows 0 to 0 of units/id"),
    ],
)
def test_wrong_arrays_are_one_sentence_and_write_nothing(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        convert(npz_file(tmp_path / "a.npz", **changes), tmp_path / "b.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]


@pytest.mark.parametrize(
    ("spikes", "behavior", "message"),
    [
        ("t,unit\n1,a", "time,c.v\n1,2", "the columns time,unit"),
        ("time,unit\n1", "time,c.v\n1,2", "2 cells in each row"),
        ("time,unit\nx,a", "time,c.v\n1,2", "time: expected numbers"),
        ("time,unit\n1,a", "c.v\n2", "a column time"),
        ("time,unit\n1,a", "time,v\n1,2", "columns GROUP.KEY"),
        ("time,unit\n1,a", "time,c.v\n2,2\n1,2", "ascending"),
        ("", "time,c.v\n1,2", "the columns time,unit"),
    ],
)
def test_wrong_tables_are_one_sentence(
    tmp_path: Path, spikes: str, behavior: str, message: str
) -> None:
    (tmp_path / "s.csv").write_text(spikes)
    (tmp_path / "b.csv").write_text(behavior)
    options = ConvertOptions(behaviors=("c.v",))
    with pytest.raises(RecordingError, match=message):
        convert(tmp_path / "s.csv", tmp_path / "o.h5", options, behavior_file=tmp_path / "b.csv")


def test_a_torch_brain_recording_comes_back_unchanged(tmp_path: Path) -> None:
    a = Recording.open(torch_brain_recording(tmp_path / "s.h5"))
    convert(a.path, tmp_path / "b.h5")
    b = Recording.open(tmp_path / "b.h5")
    assert (a.session_id, a.unit_ids, set(a.behaviors)) == (
        b.session_id,
        b.unit_ids,
        {*b.behaviors},
    )
    np.testing.assert_array_equal(a.spike_times, b.spike_times)
    np.testing.assert_array_equal(a.spike_units, b.spike_units)
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(a.intervals(split), b.intervals(split))
    for key in a.behaviors:
        np.testing.assert_array_equal(a.behavior(key).values, b.behavior(key).values)


def _old_names(file: Any) -> None:
    file["units/unit_name"] = file["units/id"][()]
    del file["units/id"]
    file["session"].attrs["session_id"] = file["session"].attrs["id"]
    del file["session"].attrs["id"]


def _masks(file: Any) -> None:
    for split in ("train", "valid", "test"):
        del file[f"{split}_domain"]
    for i, split in enumerate(("train", "valid", "test")):
        file[f"trials/{split}_mask"] = np.arange(3) == i
        file[f"cursor/{split}_mask"] = np.zeros(1000, bool)


def _unsorted_float32(file: Any) -> None:
    times, rows = file["spikes/timestamps"][()], file["spikes/unit_index"][()]
    del file["spikes/timestamps"], file["spikes/unit_index"]
    file["spikes/timestamps"] = times[::-1].astype(np.float32)
    file["spikes/unit_index"] = rows[::-1].astype(np.uint16)


def _nested(file: Any) -> None:
    file.create_group("behavior")
    file.move("cursor", "behavior/cursor")


@pytest.mark.parametrize("older", [_old_names, _masks, _unsorted_float32, _nested])
def test_older_layouts_are_read(tmp_path: Path, older: Callable[[Any], None]) -> None:
    source = torch_brain_recording(tmp_path / "s.h5")
    with h5py.File(source, "r+") as file:
        older(file)
    convert(source, tmp_path / "b.h5")
    recording = Recording.open(tmp_path / "b.h5")
    assert recording.session_id == "s"
    assert recording.unit_ids == ("s/a", "s/b", "s/c")
    np.testing.assert_allclose(recording.spike_times, ALL_TIMES, atol=2e-6)
    group = "behavior_cursor" if older is _nested else "cursor"
    assert set(recording.behaviors) == {f"{group}.pos", f"{group}.vel"}
    first = [[0, 3]] if older is _masks else [[0, 3], [4, 7]]
    np.testing.assert_allclose(recording.intervals("train"), first)
    assert_torch_brain_opens(tmp_path / "b.h5")


def test_nev_is_read_through_neo_without_its_noise(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    source = nev_file(tmp_path / "day.nev")
    convert(source, tmp_path / "b.h5", ConvertOptions(session_id="today"))
    recording = Recording.open(tmp_path / "b.h5")
    kept = [3000 * i + 30 for i in range(1, 60) if i % 3 != 2]
    assert recording.session_id == "today"
    assert len(recording.unit_ids) == 4
    assert all(unit_id.startswith("today/") for unit_id in recording.unit_ids)
    np.testing.assert_allclose(recording.spike_times, np.array(kept) / 30000, atol=1e-9)


def test_an_hdf5_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    source = torch_brain_recording(tmp_path / "s.h5")
    source.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(RecordingError, match="expected a complete HDF5 file, got a truncated"):
        describe(source)


def test_a_file_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    (tmp_path / "a.xyz").write_bytes(b"?" * 100)
    with pytest.raises(RecordingError, match="expected a file that neo reads"):
        convert(tmp_path / "a.xyz", None)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(RecordingError, match="a pickle, which can run any code"):
        convert(tmp_path / "a.pkl", None)


@pytest.mark.parametrize(("package", "extra"), [("pynwb", "nwb"), ("neo", "neo")])
def test_a_missing_library_is_named_with_its_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    path = tmp_path / "a.nev"
    path.write_bytes(b"NEURALEV")
    if extra == "nwb":
        with h5py.File(path, "w") as file:
            file.attrs["nwb_version"] = "2.7.0"
    with pytest.raises(MissingExtraError, match=re.escape(pip_install(extra))):
        describe(path)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = torch_brain_recording(tmp_path / "s.h5")
    for options, message in (
        (ConvertOptions(behaviors=("cursor.acc",)), "one of the series of s.h5 .cursor.pos"),
        (ConvertOptions(behaviors=("a.b=cursor.vel", "a.b=cursor.pos")), "'a.b' twice"),
        (ConvertOptions(behaviors=("ab=cursor.vel",)), "GROUP.KEY"),
    ):
        with pytest.raises((UsageError, RecordingError), match=message):
            convert(source, tmp_path / "b.h5", options)
    with pytest.raises(UsageError, match="a name that is free"):
        convert(source, source, ConvertOptions(overwrite=True))
    with pytest.raises(RecordingError, match="no such file"):
        convert(tmp_path / "none.npz", None)


def test_a_refusal_names_the_file_that_was_read(tmp_path: Path) -> None:
    source = npz_file(tmp_path / "a.npz", unit_ids=np.array(["x", "x", "y"]))
    with pytest.raises(RecordingError, match=r"a\.npz: units/id: .* got 'x' twice"):
        convert(source, tmp_path / "b.h5")


def test_names_with_signs_that_addresses_use_are_names(tmp_path: Path) -> None:
    source = nwb_file(tmp_path / "day #1?.nwb")
    values = convert(source, tmp_path / "day #1?.h5")
    assert "inspect '" + values["recording"] + "'" in convert_text(values, "poyo-edge")
    again = convert(tmp_path / "day #1?.h5", tmp_path / "b.h5")
    assert again["behaviors"] == values["behaviors"]


def test_shares_are_three_numbers() -> None:
    assert split_shares("0.5,0.2,0.3") == (0.5, 0.2, 0.3)
    for words in ("0.5", "0.5,0.5,0.5", "a,b,c", "0.5,0.5,0", ""):
        with pytest.raises(UsageError, match="shares of train, valid and test"):
            split_shares(words)


def test_splits_follow_each_other_and_leave_what_no_share_claims() -> None:
    observed = np.array([[0.0, 10.0], [20.0, 30.0]])
    domains = split_domains(observed, np.empty((0, 2)), (0.5, 0.25, 0.1))
    assert {name: one.tolist() for name, one in domains.items()} == {
        "train": [[0.0, 10.0]],
        "valid": [[20.0, 25.0]],
        "test": [[25.0, 27.0]],
    }
    with pytest.raises(UsageError, match="some time in the valid split"):
        split_domains(observed, np.array([[0.0, 30.0]]), (0.5, 0.25, 0.25))
