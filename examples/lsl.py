"""Both ends of a rig that speaks Lab Streaming Layer: a sender of spikes, a reader of values.

In three terminals:

    python examples/lsl.py send day.h5
    poyo-edge run model.poyo --session day.session --from lsl://spikes --to lsl://velocity
    python examples/lsl.py read

Your acquisition system is in the place of ``send``: an irregular stream, a sample for each spike,
the unit's name in its first channel, stamped with LSL's clock. ``pip install pylsl`` brings LSL.
"""

from __future__ import annotations

import sys
import time

import pylsl

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.recording import Recording

PACKET_S = 0.005
STATUSES = ("VALID", "WARMUP", "DEGRADED", "HELD", "INVALID")
"""By their number, which is the last channel of a value."""


def send(path: str, name: str = "spikes", seconds: float = 3600.0) -> int:
    """Send the spikes of a recording as they were fired; how many were sent."""
    day = Recording.open(path)
    info = pylsl.StreamInfo(name, "spikes", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"{name}-1")
    outlet, first = pylsl.StreamOutlet(info), float(day.spike_times[0])
    start, sent = pylsl.local_clock(), 0
    while sent < len(day.spike_times) and pylsl.local_clock() < start + seconds:
        time.sleep(PACKET_S)
        now = pylsl.local_clock()
        while sent < len(day.spike_times) and start + day.spike_times[sent] - first <= now:
            unit = day.unit_ids[day.spike_units[sent]]
            outlet.push_sample([unit], start + float(day.spike_times[sent]) - first)
            sent += 1
    return sent


def read(name: str = "velocity", seconds: float = 3600.0) -> dict[str, int]:
    """Act on values while they stand; how often each status came."""
    found = pylsl.resolve_byprop("name", name, timeout=30.0)
    if not found:
        raise SystemExit(f"expected a stream called {name!r}, got none; is poyo-edge run there?")
    inlet, seen = pylsl.StreamInlet(found[0]), dict.fromkeys(STATUSES, 0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sample, _ = inlet.pull_sample(timeout=0.1)
        if sample is None:
            continue  # nothing new: let the cursor stand
        *velocity, status = sample
        seen[STATUSES[int(status)]] += 1
        if STATUSES[int(status)] in ("VALID", "HELD"):
            print(" ".join(f"{value:8.2f}" for value in velocity), flush=True)
    return seen


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["send"] and len(sys.argv) == 3:
            print(send(sys.argv[2]), "spikes sent")
        elif sys.argv[1:] == ["read"]:
            print(read())
        else:
            sys.exit("expected: lsl.py send RECORDING.h5, or lsl.py read")
    except PoyoEdgeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
