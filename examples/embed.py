"""What implant-side software needs: open, push from the acquisition thread, decode on a timer.

Run: python examples/embed.py model.poyo [SESSION]
"""

import sys
import threading
import time

import numpy as np

from poyo_edge.errors import PoyoEdgeError
from poyo_edge.runtime import Decoder, Result, Status

PERIOD_S = 0.02
VALID_FOR_S = 3 * PERIOD_S
"""Nothing newer for so long: the decoding thread hangs or has ended."""


class Newest:
    """The newest value, for the thread that moves the cursor; it trusts nothing that is old."""

    def __init__(self) -> None:
        self._made: tuple[float, Result] | None = None

    def put(self, result: Result) -> None:
        """Called by the decoding thread."""
        self._made = time.monotonic(), result

    def velocity(self) -> list[float] | None:
        """What to move by now; None stops the cursor."""
        made = self._made
        if made is None or time.monotonic() - made[0] > VALID_FOR_S:
            return None
        usable = made[1].status in (Status.VALID, Status.HELD)
        return made[1].value.tolist() if usable else None


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
    newest = Newest()  # hand it to the thread that moves the cursor
    thread = threading.Thread(target=acquire, args=(decoder, stop), daemon=True)
    thread.start()
    due = time.monotonic() + PERIOD_S
    for _ in range(round(seconds / PERIOD_S)):
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + PERIOD_S, time.monotonic())  # never queue windows that are late
        result = decoder.decode(time.monotonic())
        seen[result.status.value] += 1
        newest.put(result)
        newest.velocity()  # (dim_out,) in behaviour units, or None
    stop.set()
    thread.join()
    print(seen, decoder.stats()["latency_ms"])
    return seen


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    except PoyoEdgeError as error:
        sys.exit(f"error: {error}")
