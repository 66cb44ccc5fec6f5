"""The page of JSON keys says what the commands print."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers.commands import run_json
from helpers.paths import ROOT

OLD = ROOT / "tests" / "data" / "0.1.0"
PAGE = ROOT / "docs" / "reference" / "json.md"


def keys_of(command: str) -> set[str]:
    """The keys that the page gives a command."""
    row = re.search(rf"^\| `{command}` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None, command
    return set(re.findall(r"`([^`]+)`", row[1]))


def test_every_command_that_prints_an_object_has_a_row() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"inspect", "verify", "replay", "run", "calibrate"} <= set(rows)
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("doctor", []),
        ("inspect", ["model.poyo"]),
        ("verify", ["model.poyo"]),
        ("bench", ["model.poyo", "--repeats", "1", "--spikes", "1"]),
        ("freeze", ["model.poyo", "--session", "tiny_a", "-o", "a.onnx"]),
        ("simulate", ["more", "--sessions", "1", "--seconds", "2"]),
        ("replay", [OLD / "tiny.poyo", OLD / "day.h5", "--session", OLD / "day.session"]),
    ],
)
def test_a_command_prints_the_keys_that_its_row_has(
    command: str,
    words: list[str | Path],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(tiny, tmp_path / "model.poyo")
    monkeypatch.chdir(tmp_path)
    printed = run_json(command, *words)
    assert keys_of(command) <= set(printed)
