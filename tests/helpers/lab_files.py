"""Files as labs have them: the same spikes and behaviour in one format or another."""

from __future__ import annotations

import datetime
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poyo_edge.recording import write_recording

RNG = np.random.default_rng(0)
TIMES = np.arange(1000) / 50.0
VELOCITY = RNG.normal(size=(1000, 2))
UNITS = [np.sort(RNG.uniform(0, 20, n)) for n in (300, 0, 40)]
ALL_TIMES = np.sort(np.concatenate(UNITS))


def nwb_file(path: Path, **changes: Any) -> Path:
    """Ragged units, a silent one among them; behaviour in two places; trials; a hole."""
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    nwb = pynwb.NWBFile(
        session_description="test",
        identifier="abc",
        session_start_time=datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc),
        session_id="day_1",
    )
    nwb.subject = pynwb.file.Subject(subject_id="monkey", species="Macaca mulatta", sex="U",
                                     age="P5Y")  # fmt: skip
    for number, times in enumerate(UNITS):
        nwb.add_unit(spike_times=times, obs_intervals=[[0.0, 8.0], [10.0, 20.0]], id=number + 10)
    for start in range(0, 20, 2):
        nwb.add_trial(start_time=float(start), stop_time=start + 1.9)
    module = nwb.create_processing_module("behavior", "behaviour")
    scale = changes.get("conversion", 1.0)
    velocity = pynwb.TimeSeries(name="cursor_vel", data=VELOCITY, timestamps=TIMES, unit="cm/s",
                                conversion=scale)  # fmt: skip
    module.add(velocity)
    place = pynwb.behavior.SpatialSeries(
        name="hand", data=VELOCITY[:, :1], rate=50.0, starting_time=0.5, unit="m",
        reference_frame="screen")  # fmt: skip
    module.add(pynwb.behavior.Position(spatial_series=place))
    nwb.add_acquisition(pynwb.TimeSeries(name="hand", data=VELOCITY[:, 0], rate=50.0, unit="V"))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def npz_file(path: Path, **changes: Any) -> Path:
    """Numbered units and one behaviour; an array that is None is left out."""
    arrays: dict[str, Any] = {
        "spike_times": ALL_TIMES,
        "spike_units": np.arange(len(ALL_TIMES)) % 3,
        "cursor.timestamps": TIMES,
        "cursor.vel": VELOCITY,
        **changes,
    }
    np.savez(path, **{name: one for name, one in arrays.items() if one is not None})
    return path


def csv_files(folder: Path) -> tuple[Path, Path]:
    """Spikes, and a behaviour of which sample 3 is empty."""
    spikes, behavior = folder / "spikes.csv", folder / "behavior.csv"
    lines = [f"{t!r},u{i % 3}" for i, t in enumerate(ALL_TIMES.tolist())]
    spikes.write_text("\n".join(["time,unit", *lines]))
    table = np.column_stack([TIMES, VELOCITY]).tolist()
    rows = [",".join(map(repr, row)) for row in table]
    rows[3] = f"{table[3][0]!r},,"
    behavior.write_text("\n".join(["time,cursor.vel.x,cursor.vel.y", *rows]))
    return spikes, behavior


def nev_file(path: Path, starts: int = 1) -> Path:
    """A Blackrock NEV 2.3 file as its format is documented: 30 kHz, two channels, three units.

    Args:
        path: the file.
        starts: how often the clock begins at 0, with the same spikes each time.
    """
    extended = [
        b"NEUEVWAV"
        + struct.pack("<HBBHhhhBBHff", chan, 1, 1, 250, 0, 0, 0, 2, 2, 48, 0.0, 0.0)[:24]
        for chan in (1, 2)
    ]
    packet_bytes = 8 + 96
    head = struct.pack("<8sBBHIIII", b"NEURALEV", 2, 3, 1, 336 + 64, packet_bytes, 30000, 30000)
    head += struct.pack("<8H", 2025, 1, 3, 1, 0, 0, 0, 0) + b"test".ljust(32, b"\0")
    head += b"\0" * 256 + struct.pack("<I", len(extended))
    packets = [
        struct.pack("<IHBB", 3000 * i + 30, 1 + i % 2, (0, 1, 255)[i % 3], 0) + b"\0" * 96
        for i in range(1, 60)
    ]
    path.write_bytes(head + b"".join(extended) + b"".join(packets) * starts)
    return path


def torch_brain_recording(path: Path) -> Path:
    """A recording of today's layout, with splits of its own and trials."""
    return write_recording(
        path,
        session_id="s",
        subject_id="m",
        unit_ids=["s/a", "s/b", "s/c"],
        spike_times=ALL_TIMES,
        spike_units=np.arange(len(ALL_TIMES)) % 3,
        behaviors={"cursor.vel": (TIMES, VELOCITY), "cursor.pos": (TIMES, VELOCITY[:, 0])},
        domains={"train": [(0.0, 3.0), (4.0, 7.0)], "valid": [(7.0, 8.0)], "test": [(8.0, 20.0)]},
        trials=[(0.0, 3.0), (4.0, 7.0), (8.0, 20.0)],
    )
