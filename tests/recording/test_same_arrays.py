"""Recordings hold the same arrays for us and for torch_brain, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.arrays import sound_arrays
from helpers.paths import SHARED

from poyo_edge.recording import Recording, write_recording

REAL_RECORDINGS = SHARED / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "s1.h5", **sound_arrays())


def torch_brain_file(path: Path) -> Path:
    """A recording that torch_brain wrote, with a regularly sampled behaviour that has a gap."""
    data = pytest.importorskip("torch_brain.data")
    arrays = sound_arrays()
    whole = data.Interval(0.0, 10.0)
    times, values = arrays["behaviors"]["cursor.vel"]
    seen = np.r_[0:100, 150:200]
    recording = data.Data(
        session=data.Data(id="s1"),
        subject=data.Data(id="monkey"),
        units=data.ArrayDict(id=np.array(arrays["unit_ids"])),
        spikes=data.IrregularTimeSeries(
            timestamps=arrays["spike_times"], unit_index=arrays["spike_units"], domain=whole
        ),
        cursor=data.IrregularTimeSeries(
            timestamps=times,
            vel=values,
            pos=arrays["behaviors"]["cursor.pos"][1],
            domain=whole,
        ),
        wheel=data.RegularTimeSeries(speed=values[:, 0], sampling_rate=50.0, domain_start=0.5),
        lever=data.RegularTimeSeries.from_gappy_timeseries(
            times[seen] + 0.25, sampling_rate=50.0, angle=values[seen]
        ),
        domain=whole,
        train_domain=data.Interval(np.array([0.0, 4.0]), np.array([3.0, 7.0])),
        valid_domain=data.Interval(7.0, 8.0),
        test_domain=data.Interval(8.0, 10.0),
    )
    recording.save(path)
    return path


def assert_equals_torch_brain(path: Path) -> None:
    datasets = pytest.importorskip("torch_brain.datasets")
    theirs = datasets.Dataset(path.parent, recording_ids=[path.stem]).get_recording(path.stem)
    ours = Recording.open(path)
    assert ours.session_id == theirs.session.id
    assert ours.unit_ids == tuple(theirs.units.id.tolist())
    np.testing.assert_array_equal(ours.spike_times, theirs.spikes.timestamps)
    np.testing.assert_array_equal(ours.spike_units, theirs.spikes.unit_index)
    for split in set(ours.domains) - {"all"}:
        domain = getattr(theirs, f"{split}_domain")
        np.testing.assert_array_equal(ours.intervals(split).T, [domain.start, domain.end])
    np.testing.assert_array_equal(ours.intervals("all").T, [theirs.domain.start, theirs.domain.end])
    assert ours.behaviors
    for key in ours.behaviors:
        group, name = key.split(".")
        series = getattr(theirs, group)
        if hasattr(series, "to_irregular"):
            series = series.to_irregular()
        behavior, values = ours.behavior(key), getattr(series, name)
        np.testing.assert_array_equal(behavior.times, series.timestamps)
        np.testing.assert_array_equal(behavior.values, values.reshape(len(values), -1))
    theirs.close()


def test_torch_brain_reads_the_same_arrays_from_our_file(path: Path) -> None:
    assert_equals_torch_brain(path)


def test_we_read_the_same_arrays_from_torch_brains_file(tmp_path: Path) -> None:
    path = torch_brain_file(tmp_path / "s1.h5")
    assert_equals_torch_brain(path)
    assert len(Recording.open(path).behavior("lever.angle").times) == 150


def test_our_file_has_the_attributes_and_index_of_torch_brains(tmp_path: Path, path: Path) -> None:
    theirs = torch_brain_file(tmp_path / "theirs.h5")
    with h5py.File(path) as a, h5py.File(theirs) as b:
        a.visititems(lambda name, node: same_node(node, b.get(name)))
        assert dict(a.attrs) == dict(b.attrs)


def same_node(ours: Any, theirs: Any) -> None:
    if theirs is None:
        return
    assert {k: np.asarray(v).tolist() for k, v in ours.attrs.items()} == {
        k: np.asarray(v).tolist() for k, v in theirs.attrs.items()
    }
    if isinstance(ours, h5py.Dataset):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours[()], theirs[()])


def test_windows_of_torch_brains_dataset_hold_our_spikes(path: Path) -> None:
    datasets = pytest.importorskip("torch_brain.datasets")
    dataset = datasets.Dataset(path.parent)
    window = dataset[datasets.DatasetIndex("s1", 2.5, 3.5)]
    recording = Recording.open(path)
    inside = (recording.spike_times >= 2.5) & (recording.spike_times < 3.5)
    np.testing.assert_array_equal(window.spikes.timestamps, recording.spike_times[inside] - 2.5)
    np.testing.assert_array_equal(window.spikes.unit_index, recording.spike_units[inside])


@pytest.mark.slow
@pytest.mark.skipif(not REAL_RECORDINGS.is_dir(), reason="the real recordings are not here")
def test_real_recordings_equal_what_torch_brain_reads() -> None:
    for path in sorted(REAL_RECORDINGS.glob("*/*.h5")):
        assert_equals_torch_brain(path)
