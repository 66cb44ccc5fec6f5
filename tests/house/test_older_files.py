"""What version 0.1.0 wrote still opens, and decodes as it did then."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.paths import DATA

from poyo_edge.artifact import Artifact, Session
from poyo_edge.journal import Decoded, Journal, Labels, Spikes
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.backends.ov.precision import read_precision
from poyo_edge.runtime.checks.verify import verify

OLD = DATA / "0.1.0"
ARTIFACT = OLD / "tiny.poyo"
DAY_AT_5_S = [-13.91058564, 4.21183228]
KINDS = {Spikes: 506, Decoded: 121, Labels: 300}


def test_an_artifact_with_its_signature_is_verified_whole() -> None:
    pytest.importorskip("cryptography", reason="signatures need it")
    checks = {check.name: check for check in verify(ARTIFACT, public_key=OLD / "lab.key.pub")}
    for name in ("files", "signature", "session tiny_a.session", "golden windows on ort-cpu"):
        assert checks[name].ok, checks[name].detail


def test_a_session_that_was_calibrated_opens_with_its_activity() -> None:
    artifact = Artifact.open(ARTIFACT)
    session = Session.open(
        OLD / "day.session", dim=artifact.manifest.spec.dim, core_hash=artifact.manifest.core_hash
    )
    assert session.header.method == "calibration"
    assert session.header.schema_version == 2
    assert session.activity is not None
    assert len(session.activity.rate_hz) == len(session.header.unit_ids) == 6


def test_a_session_decodes_the_recording_that_it_was_calibrated_on() -> None:
    recording = Recording.open(OLD / "day.h5")
    decoder = Decoder.open(ARTIFACT, session=OLD / "day.session", backend="ort-cpu")
    decoder.push(recording.spike_times, decoder.rows(recording.unit_ids)[recording.spike_units])
    # float32 sums differ in their last bits between processors
    assert decoder.decode(5.0).value == pytest.approx(DAY_AT_5_S, abs=1e-4)


def test_a_journal_gives_its_spikes_labels_and_values() -> None:
    journal = Journal(OLD / "run.journal")
    entries = list(journal.entries())
    kinds = {
        kind: sum(isinstance(one, kind) for one in entries) for kind in (Spikes, Decoded, Labels)
    }
    assert journal.header.session_id.startswith("tiny_a-")
    assert journal.header.behavior == "cursor.vel"
    assert journal.bytes_left_out == 0
    assert kinds == KINDS


def test_a_journal_decoded_again_gives_the_values_that_it_holds() -> None:
    decoder = Decoder.open(ARTIFACT, session="tiny_a", backend="ort-cpu", tick_rate_hz=1e9)
    compared = 0
    for entry in Journal(OLD / "run.journal").entries():
        if isinstance(entry, Spikes):
            decoder.push(entry.ticks, entry.rows)
        elif isinstance(entry, Decoded):
            result = decoder.decode(entry.tick)
            assert result.n_spikes == entry.n_spikes
            assert np.abs(result.value - entry.value).max() <= 1e-4
            compared += 1
    assert compared == KINDS[Decoded]


def test_a_build_plan_is_read() -> None:
    pytest.importorskip("onnxruntime")
    from poyo_edge.export.engines.plan import read_plan

    plan = read_plan(ARTIFACT)
    assert plan is not None
    assert (plan.target, plan.precision, list(plan.graphs)) == ("jetson", "fp16", ["512", "1024"])


def test_an_approved_precision_is_read() -> None:
    record = read_precision(ARTIFACT)
    assert record is not None
    assert (record.precision, record.ranges) == ("int8", {"layer_0.weight": 3.25})
