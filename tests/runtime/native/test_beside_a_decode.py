"""What other threads may do while one decodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.native import building
from helpers.native.calling import BUSY, NativeDecoder, NativeError

from poyo_edge.artifact import Session


class Slow:
    """A decoder in the midst of a window that takes a second."""

    def __init__(self, decoder: NativeDecoder) -> None:
        self.decoder = decoder
        self.n_spikes = -1
        self.thread = threading.Thread(target=self._decode)

    def _decode(self) -> None:
        self.n_spikes = self.decoder.decode(11.0).n_spikes

    @property
    def decoding(self) -> bool:
        return bool(self.decoder.state().decoding_since_ns)


@pytest.fixture
def slow(libpoyoedge: Path, native_file: Path, tmp_path: Path) -> Iterator[Slow]:
    """Started; what follows it happens while the stand-in for ONNX Runtime computes."""
    sleepy = building.build_stand_in(
        tmp_path / "libonnxruntime.so", "-DSTAND_IN_SLEEP_US=900000", "-DSTAND_IN_GOOD"
    )
    never_lost = {"missed_spikes": float("inf")}
    with NativeDecoder(libpoyoedge, native_file, sleepy, **never_lost) as decoder:
        decoder.push(np.array([10.5]), np.zeros(1, np.int32))
        found = Slow(decoder)
        found.thread.start()
        while not found.decoding:
            assert found.thread.is_alive()
            time.sleep(0.001)
        yield found
        found.thread.join()


def test_push_returns_and_counts_while_a_window_is_decoded(slow: Slow) -> None:
    slow.decoder.push(np.array([10.6, 10.7, 10.6]), np.ones(3, np.int32))
    assert slow.decoder.counters()["duplicate"] == 1
    assert slow.decoding
    slow.thread.join()
    assert slow.n_spikes == 1
    assert slow.decoder.counters()["delayed"] == 2  # its window had been taken already


def test_a_second_decode_is_told_so_and_changes_nothing(slow: Slow) -> None:
    with pytest.raises(NativeError, match="expected one thread that decodes") as caught:
        slow.decoder.decode(12.0)
    assert caught.value.code == BUSY
    assert slow.decoding
    slow.thread.join()
    assert slow.decoder.state().n_decodes == 1
    assert slow.decoder.counters()["clock_resets"] == 0


def test_close_waits_for_what_is_under_way(slow: Slow) -> None:
    slow.decoder.close()
    slow.thread.join(0.1)
    assert slow.n_spikes == 1
    with pytest.raises(NativeError, match="being closed"):
        slow.decoder.push(np.zeros(0), np.zeros(0, np.int32))


def test_a_swap_waits_until_the_old_session_is_not_used(
    slow: Slow, native_sessions: dict[Path, Session]
) -> None:
    slow.decoder.swap([*native_sessions][1])
    assert not slow.decoding
    assert slow.decoder.state().session_id.decode() == "tiny_b"
