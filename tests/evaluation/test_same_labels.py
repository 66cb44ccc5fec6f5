"""A Wiener filter and a GRU on the labels of a session, and the same of them on a stream."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="baselines are trained with torch")

from poyo_edge.cli.commands.demo import beside_text
from poyo_edge.errors import RecordingError
from poyo_edge.evaluation.baselines import GRU_BINS
from poyo_edge.evaluation.beside import fit_beside, labelled_seconds
from poyo_edge.recording import Recording
from poyo_edge.simulation.array import TICK_HZ
from poyo_edge.simulation.decoding import BinnedDecoding
from poyo_edge.simulation.recordings import Simulation, simulate_recording


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("beside") / "day.h5"
    simulation = Simulation(duration_s=80.0, n_units=20)
    return Recording.open(simulate_recording(path, session_id="day", seed=1, simulation=simulation))


def test_both_learn_from_the_first_labelled_seconds_and_from_nothing_else(day: Recording) -> None:
    found = fit_beside(day, "cursor.vel", seconds=30.0)
    assert found.labelled.times[0] == 0.0
    assert found.labelled.times[-1] == pytest.approx(30.0 - 0.02)
    assert set(found.r2) == {"wiener", "gru"}
    assert min(found.r2.values()) > 0.3
    test = labelled_seconds(day, "cursor.vel", split="test")
    assert test.times[0] >= day.domains["test"][0, 0]


def test_too_few_labels_are_refused(day: Recording) -> None:
    with pytest.raises(RecordingError, match=r"expected ten samples of cursor.vel in 0.1 s, got 5"):
        fit_beside(day, "cursor.vel", seconds=0.1)


def test_a_network_on_a_stream_decodes_what_it_decodes_of_a_recording(day: Recording) -> None:
    found = fit_beside(day, "cursor.vel", seconds=20.0)
    test = labelled_seconds(day, "cursor.vel", split="test")
    stream = BinnedDecoding(
        "gru", lambda counts: found.gru(counts[None].astype(np.float32))[0], 20, GRU_BINS
    )
    ticks = np.round(day.spike_times * TICK_HZ).astype(np.int64)
    wanted = found.gru(test.counts(GRU_BINS, acausal=False))
    for row, time in list(enumerate(test.times))[100:400:60]:
        stream.restart()
        end = round(time * TICK_HZ)
        heard = ticks < end
        value = stream.step(end, ticks[heard], day.spike_units[heard].astype(np.int32))
        np.testing.assert_allclose(value, wanted[row], rtol=0, atol=1e-5)


def test_where_poyo_is_behind_is_said() -> None:
    def row(decoder: str, latency: float, bits: float) -> dict[str, object]:
        return {"decoder": decoder, "latency_ms": latency, "radius_cm": 1.2, "success": 1.0,
                "bits_per_s": bits, "bits_per_s_95": [bits - 0.1, bits + 0.1]}  # fmt: skip

    against = [
        {"latency_ms": 0.0, "better": "gru", "ratio": 0.8, "ratio_95": [0.7, 0.9]},
        {"latency_ms": 100.0, "better": "wiener", "ratio": 1.2, "ratio_95": [1.1, 1.3]},
    ]
    text = beside_text({
        "labelled_s": 60.0, "trials": 32, "r2": {"poyo": 0.9, "wiener": 0.93, "gru": 0.8},
        "closed_loop": [row(n, ms, 2.0) for n in ("poyo", "wiener", "gru") for ms in (0.0, 100.0)],
        "against": against,
    })  # fmt: skip
    assert "R²: POYO is behind the better of them (wiener)" in text
    assert "+0 ms: behind the better (gru, 0.80 of it)" in text
    assert "+100 ms: ahead of the better (wiener, 1.20 of it)" in text
    assert "simulated" in text
