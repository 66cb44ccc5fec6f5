"""``poyo-edge run --recalibrate``: what it takes, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.arrays import written_again
from helpers.commands import run_json, run_many

from poyo_edge.cli.live import LiveView
from poyo_edge.cli.recalibrating import Recalibration, live_line, outcome, text_lines
from poyo_edge.errors import UsageError
from poyo_edge.simulation.recordings import Simulation, simulate_recording

WORDS = ["--session", "tiny_a", "--from", "udp://127.0.0.1:0"]
PASSED = {
    "session": "a+free-use-1",
    "passed": True,
    "new": {"angular_error_deg": 12.04, "gain": 0.9},
    "in_use": {"angular_error_deg": 31.0, "gain": 0.41},
}
IDLE: dict[str, Any] = {
    "mode": "offer", "used_s": 12.4, "cursor": True, "fitting": False, "offered": None,
    "history": [],
}  # fmt: skip


@pytest.mark.slow
def test_a_run_with_values_and_no_cursor_says_why_nothing_is_inferred(
    tiny: Path, tmp_path: Path
) -> None:
    made = simulate_recording(
        tmp_path / "sim.h5", session_id="s", seed=1,
        simulation=Simulation(duration_s=4.0, n_units=12),
    )  # fmt: skip
    units = [f"tiny_a/unit_{i:02d}" for i in range(12)]
    path = written_again(made, tmp_path / "a.h5", unit_ids=units, domains={}, behaviors={})
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{path}?speed=4"]
    values: Any = run_json(*words, "--recalibrate", "take", "--recalibrate-after", "40")
    assert values["calibration"] is None
    said = values["recalibration"]
    assert (said["mode"], said["used_s"], said["history"]) == ("take", 0.0, [])
    assert said["cursor"] is False
    assert "no cursor came" in live_line(said)


@pytest.mark.slow
def test_words_that_cannot_be_meant_are_refused(tiny: Path) -> None:
    wrong = [
        (["--recalibrate", "always"], "mode: expected one of ['offer', 'take'], got 'always'"),
        (["--recalibrate", "offer", "--calibrate", "20"], "expected it without --calibrate"),
        (["--recalibrate", "offer", "--recalibrate-after", "1"], "--recalibrate-after"),
        (["--save-session", "a"], "expected --calibrate or --recalibrate, got none"),
    ]
    ends = run_many([["run", tiny, *WORDS, *words] for words, _ in wrong])
    for (_, message), done in zip(wrong, ends, strict=True):
        assert done.returncode == 2, message
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_without_the_option_nothing_is_called() -> None:
    nothing = Recalibration(None, 180.0)
    assert nothing.callbacks() == {}
    assert nothing.to_json() == {"recalibration": None}
    assert text_lines(None) == {}
    with pytest.raises(UsageError, match="mode"):
        Recalibration("never", 180.0)


def test_what_became_of_it_is_said_in_words() -> None:
    refused = {"passed": False, "reason": "too few targets"}
    taken, rejected = {"taken": "a+free-use-1"}, {"rejected": "a+free-use-1"}
    passed = "a+free-use-1 passed: angular error 12.0° (31.0° in use), gain 0.90 (0.41)"
    assert outcome(PASSED) == passed
    assert outcome(refused) == "refused: too few targets"
    behind = {**PASSED, "wiener": {"use": "wiener", "r2_heldout": 0.5}}
    said = "a Wiener filter on the same labels decodes them better (held-out R² 0.500)"
    assert outcome(behind) == f"{passed}; {said}"
    assert (outcome(taken), outcome(rejected)) == ("a+free-use-1 taken", "a+free-use-1 rejected")
    lines = text_lines({**IDLE, "history": [PASSED, taken]})
    assert lines == {
        "free use": "12 s", "recalibration 1": passed, "recalibration 2": "a+free-use-1 taken",
    }  # fmt: skip


def test_the_live_view_names_what_is_on_offer() -> None:
    stats = {
        "loop": {"decoded": 5, "skipped": 0, "deadline_misses": 0, "packets": 9},
        "in_to_out_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0},
        "stalled": False,
        "feed": {},
        "clock": {"discontinuities": 0},
        "decoder": {"counters": {"received": 7, "unknown_unit": 0, "late": 0, "future": 0}},
        "recalibration": {**IDLE, "offered": "a+free-use-1", "history": [PASSED]},
    }
    with LiveView("t", quiet=True) as view:
        text = "\n".join(view.lines(stats, None))
    assert "free use 12 s, on offer: a+free-use-1, last a+free-use-1 passed" in text
