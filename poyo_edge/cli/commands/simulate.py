"""``poyo-edge simulate``: recordings of simulated motor cortex."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import DATA, Json, command, seed_of
from poyo_edge.errors import UsageError


@command(DATA, example="poyo-edge simulate recordings --sessions 2")
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where the recordings go.")],
    sessions: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Length of each.")] = 300.0,
    units: Annotated[int, typer.Option(min=1, help="Units in each.")] = 60,
    motion: Annotated[
        str,
        typer.Option(
            help="reaches, or mixed: beside them velocities that are held, drift, jump and wander."
        ),
    ] = "reaches",
    firing: Annotated[
        str,
        typer.Option(
            help="plain, or rich: rates that bend or saturate, shared fluctuations, drift."
        ),
    ] = "plain",
    subjects: Annotated[
        str,
        typer.Option(
            help="one: all are of one animal; or each: every session is of an animal of its own."
        ),
    ] = "one",
    seed: Annotated[int, seed_of("The same seed gives the same spikes.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace recordings of these names.")] = False,
    as_json: Json = False,
) -> None:
    """Write simulated recordings that torch_brain opens too."""
    from poyo_edge.simulation.recordings import Simulation, simulate_study

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder, got a file; name another folder")
    there = [path.name for path in sorted(folder.glob("sim_*.h5"))]
    if there and not overwrite:
        raise UsageError(
            f"{folder}: expected no simulated recordings, got {', '.join(there[:4])}; "
            f"name another folder or pass --overwrite"
        )
    simulation = Simulation(
        duration_s=seconds,
        n_units=units,
        motion=motion,  # type: ignore[arg-type]  # all three are checked there
        firing=firing,  # type: ignore[arg-type]
        subjects=subjects,  # type: ignore[arg-type]
    )
    paths = simulate_study(folder, n_sessions=sessions, seed=seed, simulation=simulation)
    names = [str(path) for path in paths]
    Console(as_json=as_json).result({"recordings": names}, "\n".join(names))
