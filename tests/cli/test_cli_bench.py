"""``poyo-edge bench`` as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import run, run_json, run_many


@pytest.mark.slow
def test_a_stream_is_decoded_and_says_what_the_system_granted(tiny: Path) -> None:
    words = ["bench", tiny, "--load", 200, "--rate", 20, "--seconds", 0.6]
    values = run_json(*words, "--gc-off", "--cpu", 4000)
    assert values["n_decodes"] + values["skipped"] == 12  # type: ignore[operator]
    granted = values["realtime"]
    assert granted["gc_off"] == "granted"  # type: ignore[index]
    assert granted["cpus"].startswith("refused")  # type: ignore[index]
    assert granted["priority"] == "not asked for"  # type: ignore[index]
    said = run(*words, "--gc-off").stdout
    assert "real time  gc_off granted" in said


@pytest.mark.slow
def test_a_stream_is_drawn(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    picture, drawn = tmp_path / "x.png", tmp_path / "latency.png"
    words = ["bench", tiny, "--load", 200, "--rate", 20]
    assert run_json(*words, "--seconds", 0.6, "--report", tmp_path)["picture"] == str(drawn)
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert run_json(*words, "--minutes", 0.01, "--png", picture)["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_options_that_would_do_nothing_are_mistakes(tiny: Path) -> None:
    wrong: list[list[object]] = [
        ["--rate", 20],
        ["--lock-memory"],
        ["--load", 100, "--spikes", 5],
        ["--load", -1],
        ["--load", 100, "--seconds", 1, "--minutes", 1],
        ["--seconds", 1],
    ]
    for words, done in zip(wrong, run_many([["bench", tiny, *w] for w in wrong]), strict=True):
        assert done.returncode == 2, words
        assert done.stderr.count("\n") == 1, words
        assert "expected" in done.stderr
