"""Spikes and behaviour that lie in two files, and folders of sorted spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labs.sorted_files import phy_folder

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.recording import Recording

TIMES = np.arange(600) / 10.0
VELOCITY = np.stack([np.sin(TIMES), np.cos(TIMES)], axis=-1)
SPIKES: dict[str, Any] = {"spike_times": TIMES, "spike_units": np.arange(600) % 2}


def behavior_npz(path: Path, **more: Any) -> Path:
    np.savez(path, **{"cursor.timestamps": TIMES, "cursor.vel": VELOCITY, **more})
    return path


def test_sorted_spikes_and_behavior_beside_them_become_one_recording(tmp_path: Path) -> None:
    spikes = phy_folder(tmp_path / "kilosort4")
    beside = behavior_npz(tmp_path / "behavior.npz")
    options = ConvertOptions(session_id="day_3")
    values = convert(tmp_path / "kilosort4", tmp_path / "d.h5", options, behavior_file=beside)
    assert "left out as noise: 1 of 4 units" in values["notes"]
    recording = Recording.open(tmp_path / "d.h5")
    assert recording.unit_ids == ("day_3/unit_0", "day_3/unit_7", "day_3/unit_9")
    for row, cluster in enumerate((0, 7, 9)):
        of_unit = recording.spike_times[recording.spike_units == row]
        np.testing.assert_allclose(of_unit, spikes[cluster], atol=1e-9)
    np.testing.assert_array_equal(recording.behavior("cursor.vel").values, VELOCITY)
    about = describe(tmp_path / "kilosort4")
    assert (about["session_id"], about["series"]) == ("kilosort4", [])


def test_two_days_of_numbered_units_stay_two(tmp_path: Path) -> None:
    source = behavior_npz(tmp_path / "data.npz", **SPIKES)
    names = set[str]()
    for day in ("day_1", "day_2"):
        convert(source, tmp_path / f"{day}.h5", ConvertOptions(session_id=day))
        names |= set(Recording.open(tmp_path / f"{day}.h5").unit_ids)
    assert names == {"day_1/unit_0", "day_1/unit_1", "day_2/unit_0", "day_2/unit_1"}
    own = behavior_npz(tmp_path / "own.npz", **SPIKES, unit_ids=np.array(["a", "data/b"]))
    convert(own, tmp_path / "own.h5", ConvertOptions(session_id="day_3"))
    assert Recording.open(tmp_path / "own.h5").unit_ids == ("a", "data/b")


def test_behavior_of_both_files_is_taken_and_no_name_twice(tmp_path: Path) -> None:
    source = behavior_npz(tmp_path / "data.npz", **SPIKES)
    (tmp_path / "eye.csv").write_text("time,eye.pos\n0.5,1\n1.5,2\n")
    convert(source, tmp_path / "d.h5", behavior_file=tmp_path / "eye.csv")
    assert Recording.open(tmp_path / "d.h5").behaviors == ("cursor.vel", "eye.pos")
    with pytest.raises(RecordingError, match=r"names that data\.npz does not have, got 'cursor"):
        describe(source, source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "behaviour as .csv or .npz, got no such file"),
        ("b.mat", "behaviour as .csv or .npz, got .mat"),
        ("only_spikes.npz", "at least one behaviour, got none"),
        ("text.npz", "an .npz of plain arrays"),
    ],
)
def test_behavior_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, name: str, message: str
) -> None:
    np.savez(tmp_path / "only_spikes.npz", **SPIKES)
    for junk in ("b.mat", "text.npz"):
        (tmp_path / junk).write_text("?")
    with pytest.raises(RecordingError, match=message):
        convert(tmp_path / "only_spikes.npz", tmp_path / "d.h5", behavior_file=tmp_path / name)
    assert not (tmp_path / "d.h5").exists()


def test_the_behavior_file_is_never_written_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "spikes.npz", **SPIKES)
    beside = behavior_npz(tmp_path / "b.npz")
    before = beside.read_bytes()
    with pytest.raises(UsageError, match="a name that is free"):
        convert(
            tmp_path / "spikes.npz", beside, ConvertOptions(overwrite=True), behavior_file=beside
        )
    assert beside.read_bytes() == before
