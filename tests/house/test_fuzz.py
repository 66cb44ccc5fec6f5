"""The fuzz targets: their seeds are sound, and random damage to them is taken or refused."""

from __future__ import annotations

import pytest
import targets
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = [name for name in targets.TARGETS if name != "checkpoint"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_damage_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from(targets.seeds(name))))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(seed) - 1))
        seed[place : place + data.draw(st.integers(1, 8))] = data.draw(st.binary(max_size=8))
        seed = seed or bytearray(b"\0")
    targets.TARGETS[name](bytes(seed))


def test_small_checkpoints_are_sound_and_their_halves_are_refused() -> None:
    pytest.importorskip("torch")
    for seed in targets.seeds("checkpoint"):
        targets.checkpoint(seed)
        targets.checkpoint(seed[: len(seed) // 2])
