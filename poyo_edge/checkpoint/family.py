"""Which layout a ``state_dict`` has, and how its keys become those of today's POYO."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from poyo_edge.checkpoint.container import Container
from poyo_edge.checkpoint.layouts import Evidence, recognise, what_is_read
from poyo_edge.checkpoint.poyo_plus import tasks_of
from poyo_edge.errors import CheckpointError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A relative of POYO, recognised."""

    layout: str
    """Its name in the table of layouts."""
    because: str
    """What decided, in words that follow "by"."""
    state: dict[str, Any]
    """Today's key → tensor or vocabulary."""
    tasks: dict[str, int]
    """Task → row of the task table, in the order of the readouts; empty for a POYO."""


def family_of(path: Path, container: Container) -> Family:
    """Recognise the layout of what a file holds, and give its keys the names that they have today.

    Raises:
        CheckpointError: a layout that cannot be exported, or keys that make no sense together.
    """
    evidence = Evidence(keys=container.state, container=container.kind, hyper=container.hyper)
    found = recognise(evidence)
    state, counted = container.state, True
    for name, layout, because in found:
        if layout.refused:
            raise CheckpointError(
                path,
                "layout",
                expected=what_is_read(),
                got=f"{layout.refused}, by {because}",
                do=layout.do,
            )
        if layout.load:
            state = layout.loaded(f"reading layout {name}")(path, state)
        counted &= layout.counts_tasks
    return Family(
        layout=found[0].name,
        because=" and ".join(each.because for each in found),
        state=state,
        tasks=tasks_of(path, state, counted=counted),
    )
