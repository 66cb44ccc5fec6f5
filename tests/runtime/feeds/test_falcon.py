"""Counts of 20 ms, bin by bin, and FALCON's own evaluator on a file that is written here."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from poyo_edge.errors import MissingExtraError, UsageError
from poyo_edge.runtime.feeds.falcon import BinDecoder, falcon_decoder
from poyo_edge.runtime.feeds.wire.parsing import spread_counts

if TYPE_CHECKING:
    from conftest import Rig

BIN = 20_000_000


def test_bins_decode_as_their_spread_spikes_do(rig: Rig, tiny: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.3, (80, 2, rig.n_units))
    decoder = BinDecoder(tiny, sessions={"monday": "tiny_a"}, batch_size=2)
    decoder.reset(["monday", "tiny_a"])
    values = np.stack([decoder.predict(one) for one in counts])
    assert values.shape == (80, 2, 2)
    for slot in range(2):
        parts = [spread_counts(c[slot], (i + 1) * BIN, BIN) for i, c in enumerate(counts)]
        ticks = np.concatenate([ticks for ticks, _ in parts])
        rows = np.concatenate([rows for _, rows in parts]).astype(np.int32)
        for step in (0, 30, 79):
            other = rig.decoder(tick_rate_hz=1e9)
            past = ticks < (step + 1) * BIN
            other.push(ticks[past], rows[past])
            assert np.array_equal(other.decode((step + 1) * BIN).value, values[step, slot])
    assert 0 < decoder.normalized_latency < 1


def test_bins_that_are_only_observed_count_for_later_ones(rig: Rig, tiny: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.3, (20, 1, rig.n_units))
    seen, asked = (BinDecoder(tiny, sessions={"": "tiny_a"}) for _ in range(2))
    for one in (seen, asked):
        one.reset()
    for row in counts[:-1]:
        seen.observe(row)
        asked.predict(row)
    assert np.array_equal(seen.predict(counts[-1]), asked.predict(counts[-1]))


def test_a_reset_forgets_what_was_heard(rig: Rig, tiny: Path) -> None:
    decoder = BinDecoder(tiny)
    silent, busy = np.zeros((1, rig.n_units)), np.full((1, rig.n_units), 2)
    decoder.reset(["tiny_a"])
    first = decoder.predict(silent)
    decoder.predict(busy)
    decoder.on_done(np.array([True]))
    decoder.reset(["tiny_a"])
    assert np.array_equal(decoder.predict(silent), first)


def test_what_cannot_be_is_refused(tiny: Path) -> None:
    decoder = BinDecoder(tiny)
    with pytest.raises(UsageError, match="the 0 datasets that reset"):
        decoder.predict(np.zeros((1, 12)))
    with pytest.raises(UsageError, match="expected a session for 'sunday'"):
        decoder.reset(["sunday"])
    decoder.reset(["tiny_a"])
    with pytest.raises(UsageError, match=r"counts of 12 channels, .* or units named ch0, ch1 …"):
        decoder.predict(np.ones((1, 7)))
    for wrong in (0.5, -1.0, 2000.0):
        with pytest.raises(UsageError, match="expected whole counts of 0 to 1000, got"):
            decoder.predict(np.full((1, 12), wrong))
    with pytest.raises(UsageError, match="batch_size"):
        BinDecoder(tiny, batch_size=0)


def test_without_the_package_its_pip_command_is_named(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "falcon_challenge", None)
    monkeypatch.setitem(__import__("sys").modules, "falcon_challenge.interface", None)
    with pytest.raises(MissingExtraError, match="pip install falcon-challenge"):
        falcon_decoder(None, tiny)


def m2_file(folder: Path) -> Path:
    """Two seconds of FALCON's M2 layout: twelve units, finger velocities, an evaluation mask."""
    pynwb = pytest.importorskip("pynwb")
    nwb = pynwb.NWBFile(
        session_description="m2",
        identifier="m2",
        session_start_time=datetime.datetime(2020, 10, 19, tzinfo=datetime.timezone.utc),
    )
    rng = np.random.default_rng(1)
    times = np.arange(100) * 0.02
    for _ in range(12):
        nwb.add_unit(spike_times=np.sort(rng.uniform(0, 2, 60)))
    series = [
        pynwb.TimeSeries(name=name, data=rng.normal(size=100), timestamps=times, unit="au")
        for name in ("index_vel", "mrs_vel")
    ]
    nwb.add_acquisition(pynwb.behavior.BehavioralTimeSeries(name="finger_vel", time_series=series))
    mask = pynwb.TimeSeries(
        name="eval_mask", data=np.ones(100, bool), timestamps=times, unit="bool"
    )
    nwb.add_acquisition(mask)
    nwb.add_trial(start_time=0.0, stop_time=2.0)
    path = folder / "sub-MonkeyN-held-in-minival_ses-2020-10-19-Run1_behavior+ecephys.nwb"
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


@pytest.mark.filterwarnings("ignore")
def test_falcons_own_evaluator_drives_the_decoder(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("falcon_challenge", reason="falcon-challenge is not installed")
    from falcon_challenge.evaluator import FalconEvaluator

    evaluator: Any = FalconEvaluator(split="m2", dataloader_workers=0)
    path = m2_file(tmp_path)
    tag = evaluator.cfg.hash_dataset(path.stem)
    decoder = falcon_decoder(evaluator.cfg, tiny, sessions={tag: "tiny_a"})
    predicted, targets, mask, compute_s, neural_s = evaluator.predict_files(decoder, [path])
    assert predicted[tag].shape == targets[tag].shape == (100, 2)
    assert mask[tag].all()
    assert np.isfinite(predicted[tag]).all()
    assert np.ptp(predicted[tag], axis=0).min() > 0
    assert len(compute_s) == 100
    assert sum(neural_s) == pytest.approx(2.0)
    assert decoder.normalized_latency > 0
