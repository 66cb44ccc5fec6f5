"""Parts of the benchmarks of a simulated morning: throughput of decoders, and rows that stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parts.script import say
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
