"""A recording that a test can damage."""

from __future__ import annotations

from pathlib import Path

from poyo_edge.recording import write_recording


def small(path: Path) -> Path:
    """Three spikes of two units, and two samples of one behaviour."""
    return write_recording(
        path,
        session_id="s",
        subject_id="a",
        unit_ids=["u0", "u1"],
        spike_times=[0.1, 0.2, 0.3],
        spike_units=[0, 1, 0],
        behaviors={"cursor.vel": ([0.1, 0.2], [[1.0, 2.0], [3.0, 4.0]])},
        domains={"train": [[0.0, 0.2]], "test": [[0.2, 0.3]]},
    )
