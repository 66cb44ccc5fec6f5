"""Folders of Open Ephys' binary format, as its page documents them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RATE = 30_000.0


def open_ephys_folder(
    root: Path,
    electrodes: dict[str, tuple[Any, Any]],
    *,
    stream: str = "Rhythm Data",
    **arrays: Any,
) -> Path:
    """One recording, with one stream of raw data.

    Args:
        root: the folder of the session.
        electrodes: name → sample numbers (M,) and clusters (M,) of its spikes.
        stream: name of theirs.
        arrays: file → its values for every electrode.
    """
    recording = root / "Record Node 101" / "experiment1" / "recording1"
    described = []
    for name, (samples, clusters) in electrodes.items():
        inner = f"Detector-102.{stream}/{name.replace(' ', '_')}/"
        folder = recording / "spikes" / inner
        folder.mkdir(parents=True)
        files = {"sample_numbers": samples, "timestamps": samples / RATE + 2.0,
                 "clusters": np.asarray(clusters, "u2"), **arrays}  # fmt: skip
        for file, values in files.items():
            if values is not None:
                np.save(folder / f"{file}.npy", values)
        described.append(
            {"name": name, "folder_name": inner, "sample_rate": RATE, "stream_name": stream}
        )
    raw = {"folder_name": "Board-100.Rhythm Data/", "sample_rate": RATE, "num_channels": 4}
    recording.mkdir(parents=True, exist_ok=True)
    values = {"GUI version": "0.6.4", "continuous": [raw], "events": [], "spikes": described}
    (recording / "structure.oebin").write_text(json.dumps(values))
    return root
