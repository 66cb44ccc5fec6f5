"""The commands that messages name take what a model most likely decodes."""

from __future__ import annotations

from typing import Any

import pytest

from poyo_edge.recording.suggesting import is_position, suggested


def rows(*described: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [
        {"key": f"{name}.value", "where": f"behavior/{name}", "n_samples": 9, "n_dims": n,
         "unit": unit}
        for name, n, unit in described
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ([("cursor_pos", 2, "m"), ("cursor_vel", 2, "m/s"), ("eye", 1, "V")],
         "cursor.vel=cursor_vel.value"),
        ([("eval_mask", 1, "bool"), ("index_vel", 1, "AU"), ("mrs_vel", 1, "AU")],
         "finger.vel=index_vel,mrs_vel"),
        ([("curs_p", 2, ""), ("curs_v", 2, "")], "cursor.vel=curs_v.value"),
        ([("vx", 1, ""), ("vy", 1, "")], "cursor.vel=vx,vy"),
        ([("eye", 2, "V"), ("force", 2, "N")], "force.value"),
        ([("eye_velocity", 2, "deg/s"), ("hand", 2, "cm/s")], "cursor.vel=hand.value"),
        ([("pos_x", 1, "cm"), ("pos_y", 1, "cm"), ("speed", 1, "cm/s")], "cursor.vel=speed.value"),
        ([("hand_position", 2, "")], "hand_position.value"),
        ([("eye", 1, "V"), ("trial_mask", 1, "bool")], ""),
        ([("index_vel", 1, "AU"), ("mrs_vel", 1, "cm/s")], "cursor.vel=index_vel.value"),
    ],
)  # fmt: skip
def test_a_velocity_is_named_and_never_a_mask_or_an_eye(
    series: list[tuple[str, int, str]], words: str
) -> None:
    assert suggested(rows(*series)) == words


def test_a_position_is_known_by_unit_and_else_by_name() -> None:
    assert is_position("cursor.vel", "cm")
    assert not is_position("cursor.pos", "cm/s")
    assert is_position("cursor.pos", "")
    assert is_position("handPosition.value", "AU")
    assert not is_position("cursor.vel", "")
