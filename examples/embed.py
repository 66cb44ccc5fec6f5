"""What implant-side software needs: open, push from the acquisition thread, decode on a timer.

Run: python examples/embed.py model.poyo [SESSION]
"""

import sys
import threading
import time

import numpy as np

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime import Decoder, Status

PERIOD_S = 0.02


def acquire(decoder: Decoder, stop: threading.Event) -> None:
    """Stands in for your acquisition system: 1 ms packets of (time, unit) events."""
    rng = np.random.default_rng(0)
    rows = decoder.rows(decoder.unit_ids)
    while not stop.wait(0.001):
        now = time.monotonic()
        times = np.sort(rng.uniform(now - 0.001, now, rng.poisson(0.2)))
        decoder.push(times, rng.choice(rows, len(times)))


def main(artifact: str, session: str | None = None, seconds: float = 3.0) -> dict[str, int]:
    """Decode for a while; returns how often each status was seen."""
    decoder = Decoder.open(artifact, session=session, threads=1)
    stop, seen = threading.Event(), {status.value: 0 for status in Status}
    thread = threading.Thread(target=acquire, args=(decoder, stop), daemon=True)
    thread.start()
    due = time.monotonic() + PERIOD_S
    for _ in range(round(seconds / PERIOD_S)):
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + PERIOD_S, time.monotonic())  # never queue windows that are late
        result = decoder.decode(time.monotonic())
        seen[result.status.value] += 1
        if result.status is Status.VALID:
            pass  # move the cursor: result.value is (dim_out,) in behaviour units
    stop.set()
    thread.join()
    print(seen, decoder.stats()["latency_ms"])
    return seen


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    except PoyoEdgeError as error:
        sys.exit(f"error: {error}")
