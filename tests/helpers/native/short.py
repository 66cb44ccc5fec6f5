"""Golden windows, 20 windows of a stream and the C library, in one process.

``python tests/helpers/native/short.py libpoyoedge.so`` is what ``tests/arm.sh short`` runs under
emulation, where starting Python and pytest costs more than decoding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TESTS))

from helpers.native.calling import NativeDecoder, onnxruntime_library  # noqa: E402
from helpers.paths import TINY  # noqa: E402
from poyo_edge.export import freeze_session  # noqa: E402
from poyo_edge.runtime import Decoder, DecoderSettings  # noqa: E402
from poyo_edge.runtime.checks.verify import verify  # noqa: E402
from poyo_edge.runtime.health import HealthSettings  # noqa: E402

WINDOWS, ALLOWED_SD = 20, 1e-4
"""Freezing promises 1e-4; it is the only difference between the two."""


def main(library: Path) -> bool:
    """Print what was found; whether all of it is right."""
    good = True
    for check in verify(TINY):
        print(f"{'ok   ' if check.ok else 'WRONG'} {check.name}: {check.detail}", flush=True)
        good &= check.ok
    off = DecoderSettings(health=HealthSettings(verify_s=None, horizon_s=1e9))
    python = Decoder.open(TINY, session="tiny_a", backend="ort-cpu", settings=off)
    rng, values = np.random.default_rng(0), np.empty((2, WINDOWS, 2))
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "frozen.onnx"
        freeze_session(TINY, "tiny_a", frozen)
        with NativeDecoder(library, frozen, onnxruntime_library()) as native:
            for i in range(WINDOWS):
                now = 1.0 + i / 10
                times = np.sort(rng.uniform(now - 0.1, now, 30))
                rows = rng.integers(0, 12, 30).astype(np.int32)
                python.push(times, rows)
                native.push(times, rows)
                ours, theirs = python.decode(now), native.decode(now)
                same = (ours.status.value, ours.n_spikes) == (theirs.status, theirs.n_spikes)
                values[:, i] = ours.value, theirs.value
                good &= same
            good &= native.counters() == python.stats()["counters"]
    worst = float((np.abs(values[0] - values[1]) / values[0].std(0)).max())
    good = good and worst <= ALLOWED_SD
    print(
        f"{'ok   ' if good else 'WRONG'} {WINDOWS} windows, C beside Python: {worst:.1e} sd apart"
    )
    return good


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1])))
