"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.feeds import a_value
from helpers.paths import ROOT

from poyo_edge.runtime import Decoder

EMBED = ROOT / "examples" / "embed.py"


def the_example() -> Any:
    """The module."""
    spec = importlib.util.spec_from_file_location("embed", EMBED)
    assert spec is not None
    assert spec.loader is not None
    embed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(embed)
    return embed


def test_embedding_example_decodes_a_live_stream(tiny: Path) -> None:
    embed = the_example()
    session = Decoder.open(tiny, session="tiny_a").session_id
    seen = embed.main(str(tiny), session, seconds=1.6)
    assert seen["VALID"] > 0
    assert seen["WARMUP"] > 0
    assert sum(seen.values()) == round(1.6 / embed.PERIOD_S)


def test_embedding_example_moves_by_no_value_that_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    embed, now = the_example(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    newest = embed.Newest()
    assert newest.velocity() is None
    newest.put(a_value().result)
    assert newest.velocity() == [1.5, -2.0]
    now += embed.VALID_FOR_S * 1.01
    assert newest.velocity() is None
