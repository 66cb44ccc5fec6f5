"""Files that were cut, and behaviour that shares little of its time with the spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.lab_files import ALL_TIMES, TIMES, VELOCITY, nev_file, npz_file, nwb_file

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording


def test_a_nev_that_ends_inside_a_packet_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    path = nev_file(tmp_path / "a.nev")
    assert describe(path)["notes"] == ["left out as noise: 2 of 6 units"]
    path.write_bytes(path.read_bytes()[:-50])
    message = "whole packets of 104 bytes, got 58 of them and 54 bytes of another"
    with pytest.raises(RecordingError, match=message):
        convert(path, tmp_path / "b.h5")
    assert any(message in note for note in describe(path)["notes"])
    convert(path, tmp_path / "b.h5", ConvertOptions(accept=("truncated",)))
    assert Recording.open(tmp_path / "b.h5").accepted == ("truncated",)


@pytest.mark.parametrize(
    ("n_bytes", "message"),
    [(4, "got a truncated file of 4 bytes"), (200, "expected 400 bytes, got a truncated file")],
)
def test_a_nev_without_its_header_is_truncated(tmp_path: Path, n_bytes: int, message: str) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    path = nev_file(tmp_path / "a.nev")
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(RecordingError) as refused:
        describe(path)
    if n_bytes == 4:
        assert "NEURALEV" in str(refused.value)
    else:
        assert message in str(refused.value)


def beside(tmp_path: Path, times: Any, **options: Any) -> list[str]:
    path = npz_file(tmp_path / "a.npz", **{"cursor.timestamps": times})
    chosen = ConvertOptions(behaviors=("cursor.vel",), overwrite=True, **options)
    notes: list[str] = convert(path, tmp_path / "b.h5", chosen)["notes"]
    return [note for note in notes if "of the longer" in note]


def test_spikes_that_end_before_behavior_are_said(tmp_path: Path) -> None:
    (note,) = beside(tmp_path, TIMES * 4)
    assert "spikes cover 25% of the longer; was the file of the spikes cut" in note
    assert beside(tmp_path, TIMES * 1.5) == []


def test_behavior_of_a_small_part_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"expected labels in the test split, 15\.\d+ to 19\."):
        beside(tmp_path, TIMES / 4)
    (note,) = beside(tmp_path, TIMES / 4, split_labelled=True)
    assert "it covers 25% of the longer" in note
    recording = Recording.open(tmp_path / "b.h5")
    for split in ("train", "valid", "test"):
        assert recording.within(TIMES / 4, split).any()
    spans = np.concatenate([recording.domains[name] for name in ("train", "valid", "test")])
    assert spans.min() == pytest.approx(max(0.0, ALL_TIMES[0]), abs=0.02)
    assert spans.max() == pytest.approx(TIMES[-1] / 4)


def test_one_series_without_labels_in_a_split_does_not_refuse_the_others(tmp_path: Path) -> None:
    more = {"eye.timestamps": TIMES / 4, "eye.pos": VELOCITY}
    path = npz_file(tmp_path / "a.npz", **more)
    notes = convert(path, tmp_path / "b.h5")["notes"]
    assert "eye.pos has no labels in test" in notes
    assert Recording.open(tmp_path / "b.h5").behaviors == ("cursor.vel", "eye.pos")


def test_labels_that_are_all_nan_in_a_split_are_none(tmp_path: Path) -> None:
    values = np.where(TIMES[:, None] > 12.0, np.nan, VELOCITY)
    path = npz_file(tmp_path / "a.npz", **{"cursor.vel": values})
    with pytest.raises(RecordingError, match="expected labels in the test split"):
        convert(path, tmp_path / "b.h5")
    convert(path, tmp_path / "b.h5", ConvertOptions(accept=("overlap",)))


def test_a_mask_is_never_joined_with_movement(tmp_path: Path) -> None:
    mask = {"m.timestamps": TIMES, "m.mask": TIMES > 1, "m.zeros": np.zeros(1000)}
    path = npz_file(tmp_path / "a.npz", **mask, **{"cursor.speed": VELOCITY[:, 0]})
    for name in ("m.mask", "m.zeros"):
        options = ConvertOptions(behaviors=(f"a.b=cursor.speed,{name}",))
        with pytest.raises(RecordingError, match="movement in each column that is joined, got onl"):
            convert(path, tmp_path / "b.h5", options)


def test_the_mask_of_falcon_is_a_split_and_no_behavior(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    path = nwb_file(tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(path), "a") as io:
        nwb = io.read()
        inside = (TIMES >= 2.0) & (TIMES < 5.0) | (TIMES >= 18.0)
        nwb.add_acquisition(
            pynwb.TimeSeries(name="eval_mask", data=inside, timestamps=TIMES, unit="bool")
        )
        io.write(nwb)
    about = describe(path)
    assert about["splits"] == ["eval"]
    assert "eval_mask.value" not in [one["key"] for one in about["series"]]
    assert {"where": "acquisition/eval_mask",
            "why": "a mask, which says when and not what; where it is true is the split eval"
            } in about["left_out"]  # fmt: skip
    convert(path, tmp_path / "b.h5", ConvertOptions(behaviors=("cursor.vel=cursor_vel",)))
    recording = Recording.open(tmp_path / "b.h5")
    np.testing.assert_allclose(recording.domains["eval"], [[2.0, 5.0], [18.0, 20.0]])
    np.testing.assert_array_equal(recording.within(TIMES, "eval"), inside)
    assert {"train", "valid", "test"} <= set(recording.domains)
