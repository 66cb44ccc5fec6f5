"""What people read after ``poyo-edge calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poyo_edge.cli.commands.calibrate import calibrate_text
from poyo_edge.cli.text import behind_text


def values_of(**changes: Any) -> dict[str, Any]:
    point = {"step": 10, "loss": 0.25, "r2": 0.5, "r2_per_dim": [0.4, 0.6]}
    first = {"step": 0, "loss": None, "r2": 0.1, "r2_per_dim": [0.1, 0.1]}
    return {
        "session": "today.session",
        "r2_heldout": 0.5,
        "r2_per_dim": [0.4, 0.6],
        "r2_interval": [[0.3, 0.5], [0.5, 0.7]],
        "n_judged": 90,
        "r2_in_use": None,
        "labelled_s": 60.0,
        "steps": 10,
        "wall_s": 3.0,
        "stopped": "all steps",
        "curve": [first, point],
        "silent_units": [],
        "notes": [],
        "peak_memory_mb": 100.0,
        "control": None,
        "compared": None,
        "labels": [],
        "wiener": None,
        "behind_wiener": False,
        "started": "first guess",
        "behavior": "cursor.vel",
        **changes,
    }


def text_of(**changes: Any) -> str:
    return calibrate_text(values_of(**changes), Path("m.poyo"), Path("d.h5"), "poyo-edge")


def test_text_marks_the_step_taken() -> None:
    rows = text_of().splitlines()
    assert [row.split()[0] for row in rows if row.endswith("taken")] == ["10"]
    assert "0.400 (0.30 to 0.50), 0.600 (0.50 to 0.70), 95 % intervals" in text_of()
    assert text_of().endswith("d.h5 --behavior cursor.vel --session today.session")
    assert text_of(session=None).endswith("nothing was written")


def test_text_names_what_is_odd() -> None:
    assert "silent" not in text_of()
    many = [f"u{i}" for i in range(8)]
    assert "8: u0, u1, u2, u3, u4, u5 …" in text_of(silent_units=many)
    assert "note: careful" in text_of(notes=["careful"])
    assert "R² 0.7000 on the same samples" in text_of(r2_in_use=0.7)
    units = [
        {"unit": "near", "rate_hz": 1.0, "part": 0.1, "distance": 1.9},
        {"unit": "strange", "rate_hz": 1.0, "part": 0.1, "distance": 2.1},
    ]
    odd = text_of(units=units, alike=[("a", "b", 0.93)], report=["x.json", "x.png"])
    assert "alike: a" in odd
    assert "b, correlation 0.93: one unit twice?" in odd
    (far,) = [line for line in odd.splitlines() if line.startswith("far from trained units")]
    assert far.split()[-1] == "strange"
    assert "near" not in far
    assert "x.json  x.png" in odd


def test_text_says_what_it_is_like_to_control_with() -> None:
    control = {
        "angular_error_deg": 14.35, "gain": 0.85, "held_gain": None, "bias_at_rest": 0.951,
        "noise_at_rest": 1.84,
    }  # fmt: skip
    in_use = {**control, "angular_error_deg": 24.3}
    relation = {"correlation": 0.92, "lag_s": -0.02, "turned_deg": 2.0, "speed_ratio": 0.85}
    made = {
        "kind": "refit", "trials_used": 9, "lead_s": 0.148, "spike_lag_s": 0.048,
        "trials_left_out": 2, "first_reason": "it has no target",
    }  # fmt: skip
    text = text_of(
        control=control,
        compared={"control_in_use": in_use, "relation": relation},
        labels=[made],
        started="session in use",
    )
    assert "14.3°, session in use 24.3°" in text
    assert "held for 1 s" not in text
    assert "turned by 2°, -0.02 s, correlation 0.92, decoded speed × 0.85" in text
    assert "from 9 trials, moved by +148 ms (spikes +48 ms from the shown cursor)" in text
    assert "2 trials left out, the first because it has no target" in text
    assert text.endswith("wrote today.session"), "replay would judge by measured behaviour"
    assert "angular error" not in text_of()


WIENER = {
    "r2_heldout": 0.612, "r2_per_dim": [0.6, 0.624], "angular_error_deg": 12.34, "wall_s": 0.81,
    "use": "wiener",
}  # fmt: skip


def test_text_says_what_to_use_instead() -> None:
    text = text_of(wiener=WIENER)
    assert "R² 0.6120 on the same labels and blocks (per dimension 0.600, 0.624), 0.8 s" in text
    assert "the filter: it decodes these labels better than the session; more labels may" in text
    assert "angular" not in text
    assert "the session: it decodes these" in text_of(wiener={**WIENER, "use": "session"})
    assert "either: the difference is within" in text_of(wiener={**WIENER, "use": "either"})
    made = {
        "kind": "refit", "trials_used": 9, "lead_s": 0.148, "spike_lag_s": 0.048,
        "trials_left_out": 0, "first_reason": "",
    }  # fmt: skip
    assert ", angular error 12.3°, 0.8 s" in text_of(wiener=WIENER, labels=[made])
    assert "to use" not in text_of()


def test_fits_beside_a_loop_say_it_too() -> None:
    fit = {"wiener": WIENER}
    assert behind_text(fit) == (
        "a Wiener filter on the same labels decodes them better (held-out R² 0.612)"
    )
    assert behind_text({"wiener": {**WIENER, "use": "either"}}) == ""
    assert behind_text({"wiener": None}) == ""
    assert behind_text({}) == "", "a fit that failed"
