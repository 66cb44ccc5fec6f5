"""Behaviour files that may not be changed: columns and arrays under their own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import run
from helpers.lab_files import ALL_TIMES, TIMES, VELOCITY, csv_files, npz_file

from poyo_edge.converting import ConvertOptions, convert, describe
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording


def table(path: Path, head: str = "time_s,vx,vy,word", *, factor: float = 1.0) -> Path:
    rows = np.column_stack([TIMES * factor, VELOCITY]).tolist()
    lines = [",".join([*map(repr, row), "a"]) for row in rows]
    path.write_text("\n".join([head, *lines]))
    return path


@pytest.fixture
def spikes(tmp_path: Path) -> Path:
    return csv_files(tmp_path)[0]


def velocity(spikes: Path, behavior: Path, words: str, **options: object) -> None:
    """Convert, and compare with what was written."""
    out = spikes.with_name("out.h5")
    chosen = ConvertOptions(behaviors=(words,), overwrite=True, **options)  # type: ignore[arg-type]
    convert(spikes, out, chosen, behavior_file=behavior)
    found = Recording.open(out).behavior("cursor.vel")
    np.testing.assert_allclose(found.times, TIMES)
    np.testing.assert_array_equal(found.values, VELOCITY)


@pytest.mark.parametrize("clock", ["time", "time_s", "t", "Timestamps"])
def test_columns_are_taken_by_their_names(spikes: Path, tmp_path: Path, clock: str) -> None:
    velocity(spikes, table(tmp_path / "j.csv", f"{clock},vx,vy,word"), "cursor.vel=vx,vy")


def test_times_of_another_name_and_unit_are_said(spikes: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "j.csv", "time_ms,vx,vy,word", factor=1000)
    with pytest.raises(RecordingError, match=r"got the columns time_ms,vx,vy,word; .*--time-col"):
        describe(spikes, path)
    velocity(spikes, path, "cursor.vel=vx,vy", time_column="time_ms", behavior_time_unit="ms")
    with pytest.raises(RecordingError, match=r"one of its columns \(time_ms, vx, vy, word\)"):
        describe(spikes, path, "when")


@pytest.mark.slow
def test_all_of_them_are_listed_and_none_is_taken_unasked(spikes: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "j.csv")
    about = describe(spikes, path)
    assert [one["key"] for one in about["series"]] == ["vx.value", "vy.value"]
    assert [one["where"] for one in about["left_out"]] == ["j.csv: word"]
    with pytest.raises(RecordingError) as refused:
        convert(spikes, tmp_path / "o.h5", behavior_file=path)
    assert str(refused.value) == (
        f"{path}: names: expected arrays and columns GROUP.KEY or GROUP.KEY.NAME, got vx, vy; take "
        f"what is meant with --behavior cursor.vel=vx,vy, or name columns like "
        f"time,cursor.vel.x,cursor.vel.y and arrays like cursor.vel with cursor.timestamps"
    )
    done = run("convert", spikes, path, "--list")
    assert done.stdout.rstrip().endswith(f"convert {spikes} {path} --behavior cursor.vel=vx,vy")


def test_a_header_that_says_nothing_gets_a_sample(spikes: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "j.csv", "a,b,c,d")
    with pytest.raises(RecordingError) as refused:
        describe(spikes, path)
    assert "write a header line like time,cursor.vel.x,cursor.vel.y, or say" in refused.value.do
    assert "--time-column NAME, and which movement with --behavior" in refused.value.do


def test_two_columns_that_may_be_times_are_not_chosen_from(spikes: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "j.csv", "t,vx,timestamps,word")
    with pytest.raises(RecordingError, match="--time-column NAME"):
        describe(spikes, path)


@pytest.mark.parametrize("clock", ["t", "time", "times", "timestamps", "clock"])
def test_arrays_are_taken_by_their_names(spikes: Path, tmp_path: Path, clock: str) -> None:
    path = tmp_path / "k.npz"
    arrays: dict[str, Any] = {clock: TIMES, "hand_velocity": VELOCITY, "gain": np.ones(3)}
    np.savez(path, **arrays)
    if clock == "clock":
        with pytest.raises(RecordingError, match=r"got clock \(1000,\), hand_velocity \(1000, 2\)"):
            describe(spikes, path)
    velocity(
        spikes, path, "cursor.vel=hand_velocity", time_column="clock" if clock == "clock" else ""
    )
    about = describe(spikes, path, clock)
    assert [one["key"] for one in about["series"]] == ["hand_velocity.value"]
    assert about["left_out"] == [
        {"where": "gain", "why": f"shape (3,) for the 1000 times of {clock}"}
    ]


def test_an_npz_of_spikes_may_hold_them_too(tmp_path: Path) -> None:
    path = npz_file(tmp_path / "a.npz", t=TIMES, hand_velocity=VELOCITY)
    convert(path, tmp_path / "b.h5", ConvertOptions(behaviors=("hand.vel=hand_velocity",)))
    recording = Recording.open(tmp_path / "b.h5")
    assert recording.behaviors == ("hand.vel",)
    np.testing.assert_array_equal(recording.behavior("hand.vel").values, VELOCITY)
    assert len(recording.spike_times) == len(ALL_TIMES)
