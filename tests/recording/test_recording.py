"""Recordings: what was written comes back, and one clear sentence for every bad file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.arrays import sound_arrays
from helpers.commands import write_to_full_disk

from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording, write_recording


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "s1.h5", **sound_arrays())


def edited(path: Path, name: str, value: Any) -> Path:
    """Replace one dataset; None deletes it."""
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    return path


def test_written_arrays_come_back_unchanged(path: Path) -> None:
    arrays = sound_arrays()
    recording = Recording.open(path)
    assert recording.session_id == "s1"
    assert recording.unit_ids == tuple(arrays["unit_ids"])
    assert recording.spike_times.dtype == np.float64
    np.testing.assert_array_equal(recording.spike_times, arrays["spike_times"])
    np.testing.assert_array_equal(recording.spike_units, arrays["spike_units"])
    assert recording.behaviors == ("cursor.pos", "cursor.vel", "eye.pupil")
    for split, intervals in arrays["domains"].items():
        np.testing.assert_array_equal(recording.intervals(split), intervals)
    for key, (times, values) in arrays["behaviors"].items():
        behavior = recording.behavior(key)
        np.testing.assert_array_equal(behavior.times, times)
        np.testing.assert_array_equal(behavior.values, values.reshape(len(times), -1))


def test_within_takes_the_start_and_leaves_the_end_of_every_interval(path: Path) -> None:
    times = np.array([0.0, 2.999, 3.0, 3.5, 4.0, 6.999, 7.0])
    inside = Recording.open(path).within(times, "train")
    assert inside.tolist() == [True, True, False, False, True, True, False]


def test_without_a_domain_everything_written_lies_in_the_recording(tmp_path: Path) -> None:
    arrays = sound_arrays()
    del arrays["domains"]["all"]
    recording = Recording.open(write_recording(tmp_path / "s1.h5", **arrays))
    assert recording.within(recording.spike_times, "all").all()
    assert recording.within(recording.behavior("eye.pupil").times, "all").all()


def test_ids_stored_as_variable_length_text_are_read(path: Path) -> None:
    ids = np.array(["s1/ä", "s1/b", "s1/c"], dtype=object)
    edited(path, "units/id", ids)
    assert Recording.open(path).unit_ids == ("s1/ä", "s1/b", "s1/c")


Spoil = Callable[[Path], Path]


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-4000])
    return path


def text(path: Path) -> Path:
    path.write_text("time,unit\n")
    return path


def without_session_id(path: Path) -> Path:
    with h5py.File(path, "r+") as file:
        del file["session"].attrs["id"]
    return path


def spike_times(value: Callable[[Any], Any]) -> Spoil:
    return lambda path: edited(path, "spikes/timestamps", value(sound_arrays()["spike_times"]))


def spike_units(value: Callable[[Any], Any]) -> Spoil:
    return lambda path: edited(path, "spikes/unit_index", value(sound_arrays()["spike_units"]))


def replaced(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[7] = value
        return array

    return change


BAD_FILES: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda p: p.with_name("none.h5"), "got no such file; check the path"),
    "folder": (lambda p: p.parent, "got a folder; check the path"),
    "text": (text, "expected an HDF5 recording, got a file of another format"),
    "truncated": (cut, "got a truncated or damaged one .*; copy it again"),
    "no session id": (without_session_id, "session: expected a group with the attribute 'id'"),
    "no session": (lambda p: edited(p, "session", None), "session: expected .* got no such group"),
    "no spikes group": (
        lambda p: edited(p, "spikes", None),
        "spikes/timestamps: expected a dataset, got a file that holds only cursor, domain, eye",
    ),
    "no unit_index": (
        lambda p: edited(p, "spikes/unit_index", None),
        "spikes/unit_index: expected a dataset, got a group spikes that holds only domain, ",
    ),
    "no unit ids": (lambda p: edited(p, "units/id", None), "units/id: expected a dataset"),
    "unsorted": (spike_times(lambda t: t[::-1]), r"expected ascending seconds, got .* s after"),
    "nan": (spike_times(replaced(np.nan)), "got 1 NaN or infinite, the first at index 7"),
    "inf": (spike_times(replaced(np.inf)), "got 1 NaN or infinite, the first at index 7"),
    "integer times": (
        spike_times(lambda t: t.astype(int)),
        r"expected a list of float64 seconds, got shape \(400,\), dtype int64",
    ),
    "no spikes": (
        lambda p: spike_units(lambda u: u[:0])(spike_times(lambda t: t[:0])(p)),
        "spikes/timestamps: expected at least one spike, got none; leave this recording out",
    ),
    "lengths": (
        spike_units(lambda u: u[:-1]),
        r"expected as many unit indices as timestamps, .* got shapes \(400,\) and \(399,\)",
    ),
    "too large": (spike_units(replaced(3)), "expected rows 0 to 2 of units/id, got 3"),
    "negative": (spike_units(replaced(-1)), "expected rows 0 to 2 of units/id, got -1"),
    "not integer": (
        spike_units(lambda u: u.astype(float)),
        "unit_index: expected integers, got dtype float64",
    ),
    "duplicate ids": (
        lambda p: edited(p, "units/id", np.array([b"a", b"b", b"a"])),
        "units/id: expected at least one unit, all with different names, got 'a' twice",
    ),
    "zero units": (
        lambda p: edited(p, "units/id", np.array([], dtype="S1")),
        "units/id: expected at least one unit, all with different names, got none",
    ),
    "numbers as ids": (
        lambda p: edited(p, "units/id", np.arange(3)),
        "units/id: expected a list of names",
    ),
    "interval backwards": (
        lambda p: edited(p, "test_domain/end", np.array([8.0])),
        "test_domain: expected finite intervals that end after they start, got 8.0 to 8.0 s",
    ),
    "interval without end": (
        lambda p: edited(p, "test_domain/end", np.array([9.0, 10.0])),
        "test_domain: expected one end for each start",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence(path: Path, name: str) -> None:
    spoil, message = BAD_FILES[name]
    bad = spoil(path)
    with pytest.raises(RecordingError, match=message) as caught:
        Recording.open(bad)
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["cursor.acc", "cursor", "", "hand.vel", "spikes.unit_index"])
def test_an_absent_behavior_is_answered_with_those_that_exist(path: Path, key: str) -> None:
    with pytest.raises(RecordingError, match=r"one of the behaviours cursor.pos, cursor.vel, eye"):
        Recording.open(path).behavior(key)


def test_an_absent_split_is_answered_with_those_that_exist(path: Path) -> None:
    with pytest.raises(RecordingError, match="one of the splits all, test, train, valid, got 'x'"):
        Recording.open(path).intervals("x")


def test_nan_in_behavior_is_refused_with_count_and_first_time(path: Path) -> None:
    values = sound_arrays()["behaviors"]["cursor.vel"][1]
    values[[10, 20], 1] = np.nan
    edited(path, "cursor/vel", values)
    recording = Recording.open(path)
    with pytest.raises(RecordingError, match=r"got 2 NaN or infinite .* first at 0\.200000 s"):
        recording.behavior("cursor.vel")
    assert np.isnan(recording.behavior("cursor.vel", allow_nan=True).values).sum() == 2


def test_infinite_behavior_is_refused_even_where_nan_is_allowed(path: Path) -> None:
    values = sound_arrays()["behaviors"]["cursor.vel"][1]
    values[0, 0] = np.inf
    edited(path, "cursor/vel", values)
    with pytest.raises(RecordingError, match="expected finite values"):
        Recording.open(path).behavior("cursor.vel", allow_nan=True)


def test_unsorted_behavior_times_are_refused(path: Path) -> None:
    edited(path, "cursor/timestamps", sound_arrays()["behaviors"]["cursor.vel"][0][::-1])
    with pytest.raises(RecordingError, match=r"cursor\.vel timestamps: expected ascending seconds"):
        Recording.open(path).behavior("cursor.vel")


def test_behavior_of_another_length_is_not_offered_and_refused(path: Path) -> None:
    edited(path, "cursor/vel", np.zeros((499, 2)))
    recording = Recording.open(path)
    assert "cursor.vel" not in recording.behaviors
    with pytest.raises(RecordingError, match="one value for each of 500 timestamps, got 499"):
        recording.behavior("cursor.vel")


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "unsorted": ({"spike_times": np.arange(400)[::-1] / 10.0}, "expected ascending seconds"),
    "non-ascii id": ({"unit_ids": ["a", "b", "ä"]}, "different names in ASCII, got 'ä'"),
    "row": ({"spike_units": np.full(400, 3)}, "expected rows 0 to 2 of units/id, got 3"),
    "key": ({"behaviors": {"vel": ([0.0], [1.0])}}, "a name of the form GROUP.KEY, got 'vel'"),
    "length": (
        {"behaviors": {"cursor.vel": ([0.0, 1.0], [1.0])}},
        r"one value for each of 2 timestamps of cursor, got shape \(1,\)",
    ),
    "times of a group": (
        {"behaviors": {"c.a": ([0.0, 1.0], [1.0, 2.0]), "c.b": ([0.0, 2.0], [1.0, 2.0])}},
        "got other timestamps; write it under a group of its own",
    ),
    "interval": ({"domains": {"test": [(2.0, 1.0)]}}, "test_domain: .* got 2.0 to 1.0 s"),
    "reserved": ({"behaviors": {"spikes.amp": ([0.0], [1.0])}}, "form GROUP.KEY, got 'spikes"),
    "outside": (
        {"domains": {"all": [(0.0, 5.0)]}},
        r"domain: expected a domain that holds .* s, got \[\[0.0, 5.0\]\]; widen it",
    ),
    "interval shape": ({"domains": {"all": [0.0, 1.0]}}, r"domain: expected .* shape \(K, 2\)"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    change, message = BAD_ARRAYS[name]
    with pytest.raises(RecordingError, match=message):
        write_recording(tmp_path / "s1.h5", **{**sound_arrays(), **change})
    assert not list(tmp_path.iterdir())


def test_writing_into_an_absent_folder_says_which_to_create(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"folder: expected one that exists.*create .*none$"):
        write_recording(tmp_path / "none" / "s1.h5", **sound_arrays())


def test_a_failed_write_leaves_the_old_file_and_no_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("poyo_edge.recording.writing._write_units", stop)
    with pytest.raises(KeyboardInterrupt):
        write_recording(path, **sound_arrays())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_to_full_disk(
        "from poyo_edge.recording import write_recording",
        "write_recording(sys.argv[1], session_id='s', subject_id='a', unit_ids=['u'],"
        " spike_times=[0.0, 9.0], spike_units=[0, 0], behaviors={}, domains={})",
        tmp_path / "s.h5",
        5000,
    )
    assert not list(tmp_path.iterdir())
