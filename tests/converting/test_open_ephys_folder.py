"""Folders of Open Ephys' binary format with spikes that were detected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labs.open_ephys_files import RATE, open_ephys_folder

from poyo_edge.converting import convert, describe
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording

SAMPLES = np.arange(1, 301) * 1000
CLUSTERS = np.arange(300) % 2
ONE = {"Electrode 1": (SAMPLES, CLUSTERS), "Electrode 2": (SAMPLES + 5, np.zeros(300))}


def test_each_cluster_of_an_electrode_is_a_unit(tmp_path: Path) -> None:
    path = open_ephys_folder(tmp_path / "day", ONE)
    values = convert(path, tmp_path / "o.h5")
    recording = Recording.open(tmp_path / "o.h5")
    assert values["format"] == "Open Ephys"
    assert recording.unit_ids == ("day/Electrode_1_0", "day/Electrode_1_1", "day/Electrode_2_0")
    for row, samples in enumerate((SAMPLES[::2], SAMPLES[1::2], SAMPLES + 5)):
        times = recording.spike_times[recording.spike_units == row]
        np.testing.assert_array_equal(times, samples / RATE + 2.0)
    assert values["left_out"] == [
        {
            "where": "continuous/Board-100.Rhythm Data",
            "why": "4 channels at 30000.0 Hz: raw voltage",
        }
    ]


@pytest.mark.parametrize(
    "arrays",
    [
        {"timestamps": np.full(300, -1.0)},
        {"timestamps": SAMPLES},
        {"sample_numbers": None, "timestamps": None, "spike_times": SAMPLES},
    ],
)
def test_without_synchronized_times_samples_count(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = open_ephys_folder(tmp_path / "day", {"Electrode 1": (SAMPLES, CLUSTERS)}, **arrays)
    about = describe(path)
    assert "times are sample numbers by their rate" in about["notes"]
    convert(path, tmp_path / "o.h5")
    np.testing.assert_array_equal(Recording.open(tmp_path / "o.h5").spike_times, SAMPLES / RATE)


def test_streams_with_clocks_of_their_own_are_not_laid_over_each_other(tmp_path: Path) -> None:
    path = open_ephys_folder(tmp_path / "day", ONE, timestamps=np.full(300, -1.0))
    (oebin,) = path.rglob("structure.oebin")
    values = json.loads(oebin.read_text())
    values["spikes"][1]["stream_name"] = "Probe B"
    oebin.write_text(json.dumps(values))
    with pytest.raises(RecordingError, match="one clock of all streams, got Probe B, Rhythm Data"):
        describe(path)


def test_of_several_recordings_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        open_ephys_folder(tmp_path / "day" / name, ONE)
    with pytest.raises(RecordingError, match="one recording with spikes, got a/Record Node 101/"):
        describe(tmp_path / "day")
    assert describe(tmp_path / "day" / "a")["n_units"] == 3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("clusters.npy", b"?", "numpy cannot read"),
        ("clusters.npy", None, "clusters.npy: expected an array, got no such file"),
        ("structure.oebin", b"{", "a description in JSON"),
        ("structure.oebin", b'{"spikes": [], "continuous": []}', "without spikes .* sort it"),
        ("structure.oebin", b'{"spikes": [{"folder_name": "x"}]}', "a rate in Hz, got None"),
    ],
)
def test_damaged_folders_are_one_sentence(
    tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    path = open_ephys_folder(tmp_path / "day", {"Electrode 1": (SAMPLES, CLUSTERS)})
    (found,) = path.rglob(file)
    found.unlink()
    if content is not None:
        found.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        describe(path)
