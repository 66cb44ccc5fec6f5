"""What is said of a session beside a Wiener filter, and where it is written."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, SOUND, Lesson, fitted, lesson, mixed
from helpers.paths import TINY

from poyo_edge.artifact import Session
from poyo_edge.calibration import CalibratedSession
from poyo_edge.calibration.calibrated import WienerQuality
from poyo_edge.calibration.in_loop import LoopCalibration
from poyo_edge.runtime import Decoder

RATE = 30_000


@functools.cache
def behind() -> CalibratedSession:
    """Good by itself, and behind a filter. Read only."""
    return mixed().calibrator(SOUND).fit(start=lesson().truth, max_seconds=1e-9)


@pytest.mark.slow
def test_a_session_that_decodes_clearly_better_is_to_be_used() -> None:
    quality = fitted().quality
    assert quality.wiener is not None
    assert quality.wiener.use == "session"
    assert quality.wiener.r2_heldout < quality.r2_heldout - 0.01
    assert quality.wiener.r2_heldout == pytest.approx(np.mean(quality.wiener.r2_per_dim), abs=1e-5)
    assert not quality.behind_wiener
    assert fitted().header.notes == ()
    assert quality.to_json()["wiener"] == quality.wiener.to_json()


def test_a_session_that_is_behind_is_saved_with_that_said(tmp_path: Path) -> None:
    quality = behind().quality
    assert quality.wiener is not None
    assert 0 < quality.r2_heldout < quality.wiener.r2_heldout - 0.01
    assert quality.behind_wiener
    assert quality.to_json()["behind_wiener"] is True
    behind().require_good()
    note = (
        f"behind a Wiener filter on the same 39 s of labels: R² {quality.r2_heldout:.3f} against "
        f"{quality.wiener.r2_heldout:.3f} on held-out blocks"
    )
    assert behind().header.notes == (note,)
    assert quality.notes[-1] == note
    behind().save(tmp_path / "day.session")
    assert Session.open(tmp_path / "day.session").header.notes == (note,)


def test_a_difference_within_chance_is_none() -> None:
    mean = dataclasses.replace(lesson(), values=lesson(7).values)
    quality = mean.calibrator(QUICK).fit(max_seconds=1e-9).quality
    assert quality.wiener is not None
    assert quality.wiener.use in ("either", "wiener")
    same = WienerQuality(
        r2_heldout=quality.r2_heldout, r2_per_dim=quality.r2_per_dim, angular_error_deg=None,
        wall_s=0.1, use="either",
    )  # fmt: skip
    assert dataclasses.replace(quality, wiener=same).lasting_notes == ()


def of_intention(given: Lesson, start: Session) -> CalibratedSession:
    made = lesson().calibrator(SOUND).anew(lesson().unit_ids, "day")
    given.intend(made)
    return made.fit(start=start)


@pytest.mark.slow
def test_labels_of_intention_are_judged_by_the_angle() -> None:
    """The better R² does not make a filter the better one to use."""
    turned = of_intention(mixed(6.0), lesson().truth).quality
    assert turned.wiener is not None and turned.control is not None
    assert turned.wiener.angular_error_deg is not None
    assert turned.control.angular_error_deg is not None
    assert turned.control.angular_error_deg > turned.wiener.angular_error_deg + 3
    assert turned.behind_wiener
    (note,) = turned.lasting_notes
    assert f"an angular error of {turned.control.angular_error_deg:.1f}° against " in note
    slow = dataclasses.replace(lesson(), values=0.2 * lesson().values)
    same = of_intention(slow, lesson().truth).quality
    assert same.wiener is not None
    assert same.r2_heldout < same.wiener.r2_heldout, "the session is five times too fast"
    assert same.wiener.use == "session", "and its direction is right"


@pytest.mark.slow
def test_the_loop_notes_it(caplog: pytest.LogCaptureFixture) -> None:
    given = mixed()
    decoder = Decoder.open(TINY, session=lesson().truth, tick_rate_hz=RATE)
    calibration = LoopCalibration(TINY, decoder, after_s=30.0, settings=SOUND)
    ticks = np.rint(given.spike_times * RATE).astype(np.int64)
    times = np.rint(given.times * RATE).astype(np.int64)
    with caplog.at_level(logging.WARNING):
        calibration.on_spikes(ticks, given.spike_rows.astype(np.int32))
        for some in np.array_split(np.arange(len(times)), 20):
            calibration.on_labels(times[some], given.values[some])
        calibration.stop()
    (fit,) = calibration.history
    assert fit["wiener"]["use"] == "wiener"
    assert "behind a Wiener filter on the same" in caplog.text
