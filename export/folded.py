"""The checkpoint that is exported: folded, with those of its sessions that are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from poyo_edge.arrays import Float32
from poyo_edge.checkpoint import Checkpoint
from poyo_edge.errors import UsageError
from poyo_edge.export.graph.fold import FoldedWeights


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldedCheckpoint:
    """A checkpoint beside what folding made of its weights."""

    checkpoint: Checkpoint
    weights: dict[str, Float32]
    """Its own, under the names of torch_brain's ``POYO``."""
    folded: FoldedWeights
    core_hash: str
    sessions: dict[str, tuple[str, ...]]
    """Session id → unit ids, of the sessions that the artifact will have."""

    def embeddings(self, session_id: str | None, units: Sequence[str]) -> tuple[Float32, Float32]:
        """Rows of the two tables: (U, D) and (D,); without a session, that of padding."""
        unit_rows = [self.checkpoint.unit_vocab[unit] for unit in units]
        return (
            self.weights["unit_emb.weight"][unit_rows],
            self.weights["session_emb.weight"][self.session_row(session_id)],
        )

    def session_row(self, session_id: str | None) -> int:
        """Row of the table of sessions; 0, that of padding, without a session."""
        return 0 if session_id is None else self.checkpoint.session_vocab[session_id]


def kept_sessions(checkpoint: Checkpoint, keep: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Session id → unit ids, of the sessions named, or of all that have units.

    Raises:
        UsageError: the checkpoint has no session of a name.
    """
    found = {name: units for name, units in checkpoint.session_units().items() if units}
    unknown = [name for name in keep if name not in found]
    if unknown:
        raise UsageError(
            f"keep_sessions: expected some of {list(found)[:8]}, got {unknown}; "
            f"'poyo-edge inspect' lists the sessions of a checkpoint"
        )
    return {name: found[name] for name in keep} if keep else found
