"""``poyo-edge tune``: what it refuses before any work, and what its text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run
from helpers.paths import TINY

from poyo_edge.cli.commands.tune import tune_text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--latency", "-5"), "latency_ms: expected 0 to 5000 ms"),
        (("--trials", "2"), "n_trials: expected 8"),
        (("--distance", "80"), "distance_cm: expected targets in the workspace"),
        ((), "expected one that knows how its units fired"),
        (("--recording", "none.h5"), "none.h5"),
    ],
)
def test_what_cannot_be_tuned_is_one_sentence(words: tuple[str, ...], said: str) -> None:
    done = run("tune", TINY, "--session", "tiny_a", *words)
    assert done.returncode in (2, 5), done.stderr
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_file_that_is_there_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    there = tmp_path / "control.json"
    there.write_text("{}")
    done = run("tune", TINY, "--session", "tiny_a", "-o", there)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert there.read_text() == "{}"


def test_the_best_candidates_stand_first_and_the_next_command_last() -> None:
    one: dict[str, Any] = {"gain": 1.2, "lead_ms": 30.0, "smoothing_ms": 0.0, "speed_exponent": 0.8}
    tried = [
        {**one, "bits_per_s": bits, "success": 1.0, "n_trials": n}
        for bits, n in ((2.5, 16), (2.1, 80), (2.4, 80))
    ]
    values = {
        "tried": tried, "control": one, "bits_per_s": 2.3, "bits_per_s_before": 1.6,
        "array": "session", "out": "control.json",
    }  # fmt: skip
    text = tune_text(values)
    rows = [line for line in text.splitlines() if line.startswith("| 1.2")]
    assert ["2.40" in row for row in rows] == [True, False, False]
    assert "2.30 bit/s, 1.60 without" in text
    assert text.endswith("Next: poyo-edge run … --control-settings control.json")
