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
