"""Layout A: the keys of 2024, which lay under ``perceiver_io.``, become those of today's POYO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poyo_edge.checkpoint.keys import OMEGA
from poyo_edge.errors import CheckpointError

_RENAMED = (
    (re.compile(r"^perceiver_io\."), ""),
    (re.compile(r"^spike_type_emb\."), "token_type_emb."),
    (re.compile(r"^rotary_emb\.inv_freq$"), OMEGA),
)


def renamed(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The same tensors and vocabularies under today's keys.

    Raises:
        CheckpointError: two keys would have the same name.
    """
    today = dict[str, Any]()
    for key, value in state.items():
        name = key
        for pattern, to in _RENAMED:
            name = pattern.sub(to, name)
        if name in today:
            raise CheckpointError(
                path,
                name,
                expected="one key of that name",
                got=f"it and {key!r}",
                do="save the checkpoint again",
            )
        today[name] = value
    return today
