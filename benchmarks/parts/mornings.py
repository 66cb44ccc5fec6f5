"""Parts of the benchmarks of a simulated morning: throughput of decoders, and rows that stay."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parts.environment import describe, environment
from parts.script import say, write_json
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes
from poyo_edge.simulation.array import SimulatedArray
from poyo_edge.simulation.decoding import Decoding
from poyo_edge.simulation.study import conditions, run_study

Rows = list[dict[str, Any]]


class Kept:
    """Rows of parts that were measured, in a file that a run that was stopped goes on from.

    Args:
        path: JSON; None keeps nothing.
        options: those that the figures depend on. A file of others is refused.
    """

    def __init__(self, path: Path | None, options: dict[str, Any]) -> None:
        self._path, self._options = path, options
        self.parts: dict[str, Rows] = {}
        if path is None or not path.exists():
            return
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["options"] != options:
            raise UsageError(
                f"{path}: expected a file of these options, got one of {known['options']}; name "
                f"another file"
            )
        self.parts = known["parts"]

    def part(self, name: str, measured: Callable[[], Rows]) -> Rows:
        """The rows of a part, measured unless they are known."""
        if name not in self.parts:
            say(name)
            self.parts[name] = measured()
            if self._path is not None:
                values = {"options": self._options, "parts": self.parts}
                write_bytes(self._path, json.dumps(values, indent=1).encode())
        return self.parts[name]

    @property
    def rows(self) -> Rows:
        """Of all parts."""
        return [row for part in self.parts.values() for row in part]


def controlled(
    array: SimulatedArray,
    decoders: Sequence[Decoding],
    *,
    latencies_ms: Sequence[float],
    n_trials: int,
    seed: int,
) -> Rows:
    """Figures of each decoder at each latency, with its step test."""
    tried = conditions(latencies_ms, [1.2], [0.0], [1.0])
    found = run_study(lambda _: (array, decoders), tried, n_trials=n_trials, seeds=[seed])
    values = found.to_json()
    return [row | {"step": values["step"][row["decoder"]]} for row in values["conditions"]]


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that benchmarks of a morning have in common."""
    add = parser.add_argument
    add("artifact", type=Path, help="of a model of cursor velocity")
    add("--seed", type=int, nargs="+", default=[2], help="of arrays (default: 2)")
    add("--trials", type=int, default=32, help="for each thing that is tried, and each seed")
    add("--kept", type=Path, help="keep each part here, and go on from what is there")
    add("--json", type=Path, help="also write the results to this file")


def measure_and_report(
    options: argparse.Namespace,
    depends: Sequence[str],
    of_seed: Callable[[Kept, argparse.Namespace, int], None],
    table: Callable[[Rows], str],
) -> None:
    """Measure what is not known yet, print the table.

    Args:
        options: with those of ``add_common``.
        depends: names of the others that the figures depend on.
        of_seed: measures the parts of one seed.
        table: of all rows.
    """
    given = {name: getattr(options, name) for name in depends}
    kept = Kept(options.kept, {"artifact": str(options.artifact), **given})
    for seed in options.seed:
        of_seed(kept, options, seed)
    rows = [row for row in kept.rows if row["seed"] in options.seed]
    where = environment(1)
    print(describe(where))
    print(f"\n{table(rows)}")
    write_json(options.json, {**where, "rows": rows})
