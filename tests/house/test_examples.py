"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from helpers.paths import ROOT

from poyo_edge.runtime import Decoder

EMBED = ROOT / "examples" / "embed.py"


def test_embedding_example_decodes_a_live_stream(tiny: Path) -> None:
    spec = importlib.util.spec_from_file_location("embed", EMBED)
    assert spec is not None
    assert spec.loader is not None
    embed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(embed)
    session = Decoder.open(tiny, session="tiny_a").session_id
    seen = embed.main(str(tiny), session, seconds=1.6)
    assert seen["VALID"] > 0
    assert seen["WARMUP"] > 0
    assert sum(seen.values()) == round(1.6 / embed.PERIOD_S)
