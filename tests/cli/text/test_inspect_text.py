"""What ``inspect`` prints of what it found."""

from __future__ import annotations

from typing import Any

from poyo_edge.cli.commands.inspect import inspect_text


def journal(told: list[dict[str, Any]]) -> str:
    return inspect_text({"kind": "journal", "told": told, "next": []})


def test_events_that_differ_in_numbers_alone_are_told_once() -> None:
    lost = [{"after_s": float(i), "feed": "lost", "n": 20 + i} for i in range(50)]
    told = journal([{"after_s": None, "begin": "run"}, *lost, {"after_s": 60.0, "command": "stop"}])
    assert told.splitlines()[2:] == [
        "Events, by seconds after the first value:",
        '      before  {"begin": "run"}',
        '       0.0 s  {"feed": "lost", "n": 20}',
        "              and 49 more like it, until 49.0 s",
        '      60.0 s  {"command": "stop"}',
        "",
        "Next:",
    ]


def test_a_long_event_ends_with_an_ellipsis() -> None:
    line = journal([{"after_s": 1.0, "settings": "word " * 40}]).splitlines()[3]
    assert line.endswith(" …")
    assert len(line) <= 100


def test_units_that_are_not_named_are_hinted_at() -> None:
    names = [f"u{i}" for i in range(4)]
    text = inspect_text({"n_units": 60, "unit_ids": names, "next": []})
    assert "u0, u1, u2, u3, …" in text
    assert "…" not in inspect_text({"n_units": 4, "unit_ids": names, "next": []})
