"""Sorted and raw data as acquisition and sorting leave them in a folder."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

RATE = 30_000
GROUPS = {0: "good", 3: "noise", 7: "mua"}
"""Cluster 9 was looked at by nobody."""


def phy_folder(folder: Path) -> dict[int, Any]:
    """What Kilosort and Phy leave behind; returns the seconds of each cluster's spikes."""
    rng = np.random.default_rng(0)
    samples = np.sort(rng.integers(0, 60 * RATE, 2000))
    clusters = rng.choice([0, 3, 7, 9], 2000).astype(np.int32)
    folder.mkdir()
    np.save(folder / "spike_times.npy", samples[:, None])
    for name in ("spike_clusters", "spike_templates"):
        np.save(folder / f"{name}.npy", clusters[:, None])
    (folder / "params.py").write_text(f"dat_path = r'/data/g0_t0.ap.bin'\nsample_rate = {RATE}.0\n")
    lines = [f"{cluster}\t{group}" for cluster, group in GROUPS.items()]
    (folder / "cluster_group.tsv").write_text("\n".join(["cluster_id\tgroup", *lines, ""]))
    return {cluster: samples[clusters == cluster] / RATE for cluster in (0, 3, 7, 9)}


def nsx_file(path: Path, *, rate: int = RATE, n_channels: int = 2, n_samples: int = 60_000) -> Path:
    """Blackrock's raw data: zeros of that many channels, sampled every 30000 / rate ticks."""
    channels = b"".join(
        struct.pack("<2sH16sBBhhhh16sIIHIIH", b"CC", i + 1, b"elec", 1, i % 32, -32764, 32764,
                    -8191, 8191, b"uV", 300, 4, 1, 7_500_000, 3, 1)
        for i in range(n_channels)
    )  # fmt: skip
    head = struct.pack(
        "<8sBBI16s256sII8HI", b"NEURALCD", 2, 3, 314 + len(channels), b"", b"", RATE // rate, RATE,
        2025, 1, 3, 1, 0, 0, 0, 0, n_channels,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(head + channels + struct.pack("<BII", 1, 0, n_samples))
        file.truncate(file.tell() + 2 * n_samples * n_channels)
    return path
