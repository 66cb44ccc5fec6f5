"""The second stage of a fit: the encoder's weights, taken where they decode held-out blocks."""

from __future__ import annotations

import dataclasses
import math
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("matplotlib", reason="exporting draws its report")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("torch_brain.models", reason="training needs torch_brain")

import numpy as np
from helpers.training.tiny_run import TINY, tiny_study

from poyo_edge.artifact import Session
from poyo_edge.calibration import FitSettings
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.resuming import ResumeFile
from poyo_edge.calibration.fit.search import ALL_STEPS, Search
from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.core_inputs import ENCODER_WEIGHTS
from poyo_edge.export.freeze import freeze_session
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.replay import replay
from poyo_edge.training import train

BOTH = FitSettings(
    steps=4, encoder_steps=4, judge_every=3, batch_size=8, lr_units=1e-3, lr_session=1e-3,
    lr_encoder=0.02, n_folds=2, n_blocks=4, mix=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder, n_sessions=2)
    return folder


@pytest.fixture(scope="module")
def artifact(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    trained = train([study / "sim_00.h5"], TINY, folder / "model.ckpt").checkpoint
    export_checkpoint(trained, folder / "model.poyo", ExportOptions(behavior="cursor.vel"))
    return folder / "model.poyo"


def calibrator(artifact: Path, study: Path, settings: FitSettings) -> Calibrator:
    recording = Recording.open(study / "sim_01.h5")
    made = Calibrator.open(artifact, recording.unit_ids, session_id="day", settings=settings)
    add_recording(made, recording, "cursor.vel")
    return made


def search(artifact: Path, study: Path, settings: FitSettings) -> Search:
    fitted = calibrator(artifact, study, settings)
    fitted.fit()
    assert fitted._last is not None
    return fitted._last


def test_it_begins_where_the_first_stage_ends_and_moves_the_encoder_alone(
    artifact: Path, study: Path
) -> None:
    found = search(artifact, study, BOTH)
    assert [point.step for point in found.curve] == [0, 3, 4, 7, 8]
    assert found.stopped == ALL_STEPS
    own = [moment.tables[-1].encoder for moment in found.moments]
    assert [one is None for one in own] == [True, True, True, False, False]
    trained = Adapter(found._adapter.artifact).encoder_weights()
    assert own[-1] is not None and sorted(own[-1]) == sorted(ENCODER_WEIGHTS)
    for name, weights in trained.items():
        moved = np.abs(own[-1][name] - weights).max()
        assert 0 < moved < 4 * BOTH.lr_encoder * 1.5, name  # type: ignore[operator]


def test_it_is_taken_where_it_decodes_better(artifact: Path, study: Path) -> None:
    found = search(artifact, study, BOTH)
    last, first = found.moments[-1], found.moments[2]
    judged = dataclasses.replace(last.judged, decoded=last.judged.truth)
    for gain, taken in ((0.01, last), (-0.01, first)):
        point = dataclasses.replace(last.point, r2=first.point.r2 + gain)
        found.moments = [first, dataclasses.replace(last, point=point, judged=judged)]
        found._settled = None
        assert found.chosen.point.step == taken.point.step
        assert (found.chosen.tables[-1].encoder is None) == (taken is first)


@pytest.mark.slow
def test_a_session_that_has_it_decodes_as_its_fit_did(
    artifact: Path, study: Path, tmp_path: Path
) -> None:
    fitted = calibrator(artifact, study, BOTH)
    session, last = fitted.fit(), fitted._last
    assert last is not None
    tables = last.moments[-1].tables[-1]
    session = dataclasses.replace(
        session, unit_embedding=tables.units, session_embedding=tables.session,
        encoder=tables.encoder,
    )  # fmt: skip
    session.save(tmp_path / "day.session", force=True)
    opened = Session.open(tmp_path / "day.session")
    assert opened.header.schema_version == 5 and opened.digest == session.digest
    assert opened.digest != dataclasses.replace(session, encoder=None).digest
    recording = Recording.open(study / "sim_01.h5")
    values = [
        replay(Decoder.open(artifact, session=one), recording, "cursor.vel", split="valid").r2
        for one in (tmp_path / "day.session", dataclasses.replace(session, encoder=None))
    ]
    assert not math.isclose(values[0], values[1], abs_tol=1e-4)
    labels = fitted._collector.labels()
    some = np.arange(0, len(labels.times), 50)
    expected = fitted._adapter.predict(labels, some, tables.units, tables.session, tables.encoder)
    decoder = Decoder.open(artifact, session=opened)
    for want, end in zip(expected, labels.times[some], strict=True):
        decoder.reset()
        inside = (labels.spike_times >= end - 1.0) & (labels.spike_times < end)
        decoder.push(labels.spike_times[inside], labels.spike_rows[inside])
        np.testing.assert_allclose(decoder.decode(float(end)).value, want, atol=1e-4)
    report = freeze_session(artifact, opened, tmp_path / "day.onnx")
    assert report.max_abs_error <= report.tolerance


def test_what_does_not_decode_better_is_not_taken(artifact: Path, study: Path) -> None:
    found = search(artifact, study, dataclasses.replace(BOTH, lr_encoder=5.0))
    assert found.curve[-1].step == 8 and found.curve[-1].r2 < found.curve[2].r2
    assert found.chosen.point.step <= 4 and found.chosen.tables[-1].encoder is None


def test_no_time_for_it_leaves_it_out(artifact: Path, study: Path) -> None:
    session = calibrator(artifact, study, BOTH).fit(max_seconds=1e-6)
    assert session.encoder is None and session.quality.steps == 0


@pytest.mark.slow
def test_a_fit_that_was_killed_in_it_ends_with_the_same_bits(
    artifact: Path, study: Path, tmp_path: Path
) -> None:
    whole = search(artifact, study, BOTH)
    first, again = (
        Search(whole._adapter, calibrator(artifact, study, BOTH)._prior, whole.labels, BOTH,
               whole.start, whole.seed) for _ in range(2)
    )  # fmt: skip
    kept = ResumeFile(tmp_path / "fit", first, "core")
    stop = threading.Event()

    def judged() -> None:
        kept.save()
        if first.curve[-1].step == 7:
            stop.set()

    first.run(math.inf, stop, lambda _: None, judged)
    assert first.curve[-1].step == 7
    assert ResumeFile(tmp_path / "fit", again, "core").load()
    again.run(math.inf, threading.Event(), lambda _: None)
    for one, other in zip(whole.moments[-1].tables, again.moments[-1].tables, strict=True):
        assert one.units.tobytes() == other.units.tobytes()
        assert one.encoder is not None and other.encoder is not None
        for name in ENCODER_WEIGHTS:
            assert one.encoder[name].tobytes() == other.encoder[name].tobytes(), name
