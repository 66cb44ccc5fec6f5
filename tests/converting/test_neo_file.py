"""What neo reads: spikes by themselves, raw data never, and the true reason when it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.lab_files import nev_file
from helpers.labs.sorted_files import nsx_file

from poyo_edge.converting import describe
from poyo_edge.converting.neo_file import _of_one_clock
from poyo_edge.converting.trial_table import as_trials
from poyo_edge.errors import RecordingError

pytest.importorskip("neo", reason="neo is not installed")


def test_a_nev_is_read_alone_whatever_lies_beside_it(tmp_path: Path) -> None:
    nev_file(tmp_path / "day.nev")
    alone = describe(tmp_path / "day.nev")
    nsx_file(tmp_path / "day.ns6", n_channels=96, n_samples=10**9)  # more than any memory
    (tmp_path / "day.ns5").write_bytes(b"NEURALCD, and cut off")
    nsx_file(tmp_path / "day.ns2", rate=1000, n_samples=2000)
    about = describe(tmp_path / "day.nev")
    assert about["left_out"] == [
        {"where": "day.ns2", "why": "raw data beside the spikes; convert day.ns2 to take it"},
        {"where": "day.ns5", "why": "raw data beside the spikes"},
        {"where": "day.ns6", "why": "raw data beside the spikes"},
    ]
    assert {**about, "left_out": []} == alone


def test_slow_signals_are_taken_when_they_are_named(tmp_path: Path) -> None:
    nev_file(tmp_path / "day.nev")
    nsx_file(tmp_path / "day.ns2", rate=1000, n_samples=6000)
    about = describe(tmp_path / "day.ns2")
    assert [(one["n_samples"], one["n_dims"]) for one in about["series"]] == [(6000, 2)]
    assert about["n_spikes"] == describe(tmp_path / "day.nev")["n_spikes"]


def test_fast_signals_are_raw_voltage_and_no_behavior(tmp_path: Path) -> None:
    nev_file(tmp_path / "day.nev")
    nsx_file(tmp_path / "day.ns3", rate=10_000, n_samples=60_000)
    about = describe(tmp_path / "day.ns3")
    assert about["series"] == []
    assert about["left_out"][0]["why"] == "10000 Hz: raw voltage is no behaviour"


def test_the_reason_is_the_readers_own(tmp_path: Path) -> None:
    whole = nev_file(tmp_path / "a.nev").read_bytes()
    (tmp_path / "a.nev").write_bytes(whole[:8] + b"\xff\xff" + whole[10:])  # of another version
    with pytest.raises(RecordingError, match=r"got one that it does not \((?!OSError: Could not)"):
        describe(tmp_path / "a.nev")
    (tmp_path / "a.plx").write_bytes(b"?" * 20)
    with pytest.raises(RecordingError, match="PlexonIO: "):
        describe(tmp_path / "a.plx")


def test_trials_that_touch_stay_trials() -> None:
    neo, quantities = pytest.importorskip("neo"), pytest.importorskip("quantities")
    s = quantities.s
    segment = neo.Segment()
    segment.spiketrains.append(
        neo.SpikeTrain(np.arange(1, 40) / 10 * s, t_start=0 * s, t_stop=4 * s)
    )
    for starts in ([1.0, 2.0, 3.0], [0.0]):
        epoch = neo.Epoch(np.array(starts) * s, durations=np.ones(len(starts)) * s)
        segment.epochs.append(epoch)
    source = _of_one_clock(Path("a.nev"), [segment], (), ())
    assert source.trials.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    trials, notes = as_trials(source)
    assert trials is not None
    assert (len(trials), notes) == (4, ())
