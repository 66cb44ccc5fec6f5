"""Bench: one line for each number of spikes, and no number that is never decoded from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from poyo_edge.errors import UsageError
from poyo_edge.runtime.checks.bench import MOST_REPEATS, bench

if TYPE_CHECKING:
    from conftest import Rig


def test_each_count_gets_a_line_of_as_many_windows_as_asked(rig: Rig) -> None:
    most = rig.core.artifact.manifest.max_spikes
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    lines = bench(rig.core, constants, spike_counts=(0, 7, most), repeats=1)
    assert [(line.n_spikes, line.n) for line in lines] == [(0, 1), (7, 1), (most, 1)]
    assert all(0 < line.p50 <= line.p90 <= line.p99 <= line.max for line in lines)


def test_without_counts_those_that_the_artifact_decodes_from_are_timed(rig: Rig) -> None:
    assert rig.core.artifact.manifest.max_spikes == 600
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    lines = bench(rig.core, constants, repeats=3)
    assert [(line.n_spikes, line.n) for line in lines] == [(0, 3), (250, 3)]


SPIKES = "spikes: expected 0 to {most}, the most that this artifact decodes a window from, got "
REPEATS = f"repeats: expected 1 to {MOST_REPEATS}, got "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spike_counts": ()}, SPIKES + "[]"),
        ({"spike_counts": (0, -1)}, SPIKES + "[0, -1]"),
        ({"spike_counts": (10**12, 5)}, SPIKES + "[1000000000000, 5]"),
        ({"repeats": 0}, REPEATS + "0"),
        ({"repeats": -3}, REPEATS + "-3"),
        ({"repeats": MOST_REPEATS + 1}, REPEATS + "1000001"),
    ],
)
def test_counts_out_of_range_are_refused(rig: Rig, arguments: dict[str, Any], message: str) -> None:
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    message = message.format(most=rig.core.artifact.manifest.max_spikes)
    with pytest.raises(UsageError, match="^" + re.escape(message) + "$"):
        bench(rig.core, constants, **arguments)


def test_one_spike_more_than_a_window_takes_is_refused(rig: Rig) -> None:
    most = rig.core.artifact.manifest.max_spikes
    constants = rig.core.constants(rig.a.unit_embedding, rig.a.session_embedding)
    with pytest.raises(UsageError, match=rf"^spikes: expected 0 to {most}, .* got \[{most + 1}\]$"):
        bench(rig.core, constants, spike_counts=(most + 1,), repeats=1)
