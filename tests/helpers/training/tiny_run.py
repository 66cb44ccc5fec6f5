"""A model and recordings that train in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from poyo_edge.simulation.recordings import Simulation, simulate_study
from poyo_edge.spec import ModelSpec
from poyo_edge.training.recipe import Recipe, Source

TINY = Recipe(
    spec=ModelSpec(
        dim=16,
        depth=1,
        dim_head=16,
        cross_heads=1,
        self_heads=2,
        latents_per_step=4,
        dim_out=2,
        rotating_pairs=4,
    ),
    data={"recordings": Source(scale=(10.0,), unit="cm/s")},
    steps=12,
    batch_size=8,
    lr=1e-2,
    ffn_dropout=0.2,
    lin_dropout=0.2,
    unit_dropout=(4, 7, 8),
    threads=1,
)
LAMB = dataclasses.replace(TINY, optimizer="sparse-lamb", checkpoint_every=2, average=0.9)


def tiny_study(folder: Path, n_sessions: int = 2) -> list[Path]:
    """Sessions of 8 units and 20 s, 14 windows each in the train split."""
    simulation = Simulation(duration_s=20.0, n_units=8, gain_hz=(20.0, 30.0))
    return simulate_study(folder, n_sessions=n_sessions, simulation=simulation)


def stopping_at(last: int) -> Callable[..., None]:
    """A run's ``on_progress`` that ends it in its step ``last``, as a kill would."""

    def stop(step: int, *_: object) -> None:
        if step == last:
            raise RuntimeError("killed")

    return stop
