"""What ``poyo-edge convert`` tells people to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.lab_files import csv_files, nwb_file

from poyo_edge.cli.commands.convert import convert_text, list_text
from poyo_edge.converting import describe


def test_list_ends_with_a_command_that_takes_the_velocity_and_both_tables(tmp_path: Path) -> None:
    values = describe(nwb_file(tmp_path / "a.nwb"))
    last = list_text(values, "poyo-edge").splitlines()[-1].strip()
    assert last == f"poyo-edge convert {tmp_path}/a.nwb --behavior cursor.vel=cursor_vel.value"
    spikes, behavior = csv_files(tmp_path)
    text = list_text(describe(spikes, behavior), "poyo-edge", behavior)
    assert f"poyo-edge convert {spikes} {behavior} --behavior cursor.vel" in text.splitlines()[-1]
    values["series"] = [{**values["series"][0], "key": "position.xy"}]
    assert list_text(values, "poyo-edge").endswith("--behavior position.xy")


def test_nobody_is_told_to_calibrate_on_what_was_decoded() -> None:
    values: dict[str, Any] = {
        "session_id": "s", "n_units": 1, "n_spikes": 1, "seconds": 1.0, "n_trials": 0,
        "splits_s": {}, "recording": "a.h5", "notes": [],
        "behaviors": ["decoded.status", "decoded.value", "hand.vel"],
    }  # fmt: skip
    assert convert_text(values, "poyo-edge").endswith("a.h5 --behavior hand.vel")
    values["behaviors"] = ["controlled.value", "decoded.value"]
    assert "calibrate" not in convert_text(values, "poyo-edge")


def values_of(*behaviors: tuple[str, int, str]) -> dict[str, Any]:
    return {
        "session_id": "s", "n_units": 1, "n_spikes": 1, "seconds": 1.0, "n_trials": 0,
        "splits_s": {}, "recording": "a.h5", "source": "a.nwb", "notes": [],
        "behaviors": [key for key, *_ in behaviors],
        "behavior_dims": {key: n for key, n, _ in behaviors},
        "behavior_units": {key: unit for key, _, unit in behaviors if unit},
    }  # fmt: skip


def test_people_are_told_to_calibrate_on_the_velocity() -> None:
    values = values_of(
        ("cursor_pos.value", 2, "m"), ("cursor_vel.value", 2, "m/s"), ("eye.v", 1, "V")
    )
    text = convert_text(values, "poyo-edge")
    assert text.endswith("calibrate model.poyo a.h5 --behavior cursor_vel.value")
    assert "cursor_vel.value (m/s)" in text


def test_a_velocity_in_two_series_is_to_be_joined_first() -> None:
    values = values_of(("index_vel.value", 1, "AU"), ("mrs_vel.value", 1, "AU"))
    lines = convert_text(values, "poyo-edge").splitlines()
    assert lines[-2].strip() == (
        "poyo-edge convert a.nwb -o a.h5 --overwrite --behavior finger.vel=index_vel,mrs_vel"
    )
    assert lines[-1].endswith("calibrate model.poyo a.h5 --behavior finger.vel")


def test_nobody_is_told_to_decode_an_eye() -> None:
    values = values_of(("eye.value", 2, "V"), ("trial_mask.value", 1, ""))
    assert convert_text(values, "poyo-edge").endswith("a.h5 --behavior NAME")
