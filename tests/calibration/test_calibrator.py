"""From labelled data to a session that decodes, and everything that is refused on the way."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    LEARN,
    MINUTE_S,
    QUICK,
    Lesson,
    T,
    adapter,
    beside_spread,
    bits,
    drifted,
    fitted,
    lesson,
    of_another_core,
    prior,
    r2_of,
    run,
    search,
)
from helpers.paths import TINY

from poyo_edge.arrays import Float64
from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration import Calibrator, Progress
from poyo_edge.errors import PoyoEdgeError, UsageError


def test_new_units_are_learned_from_a_minute() -> None:
    quality = fitted().quality
    assert quality.curve[0].r2 < -1.0
    assert quality.r2_heldout > 0.9
    assert min(quality.r2_per_dim) > 0.85
    assert r2_of(fitted(), lesson(duration_s=MINUTE_S)) > 0.93, "what it was fitted to"


@pytest.mark.slow
def test_fresh_spikes_are_decoded_as_well_as_held_out_ones(tmp_path: Path) -> None:
    path = tmp_path / "day.session"
    fitted().save(path)
    fresh = lesson(1)
    replayed = r2_of(path, fresh)
    assert replayed == pytest.approx(fitted().quality.r2_heldout, abs=0.05)
    assert r2_of(fitted(), fresh) == replayed


def test_the_quality_says_where_its_figures_come_from() -> None:
    quality = fitted().quality
    assert quality.labelled_s == pytest.approx(MINUTE_S - T)
    assert quality.stopped == "all steps"
    chosen = next(point for point in quality.curve if point.step == quality.steps)
    assert (chosen.r2, chosen.r2_per_dim) == (quality.r2_heldout, quality.r2_per_dim)
    assert quality.r2_heldout == pytest.approx(np.mean(quality.r2_per_dim))
    for (low, high), r2 in zip(quality.r2_interval, quality.r2_per_dim, strict=True):
        assert low <= r2 <= high <= 1.0
    # In each of four blocks the first window is not whole; every other sample is judged.
    assert quality.n_judged == pytest.approx((MINUTE_S - T - 4 * T) * 10 / 2, abs=4)
    assert quality.wall_s > 0
    assert (quality.r2_in_use, quality.silent_units) == (None, ())
    assert beside_spread(quality.notes) == ()
    assert len(quality.notes) == 1 and "--behavior-scale 6.69" in quality.notes[0]
    values = json.loads(json.dumps(quality.to_json()))
    assert set(values) == {field.name for field in dataclasses.fields(quality)} | {"behind_wiener"}
    assert values["r2_heldout"] == pytest.approx(quality.r2_heldout, abs=1e-6)
    assert [point["step"] for point in values["curve"]] == list(range(0, 90, 10))


def test_the_session_file_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "day.session"
    fitted().save(path)
    manifest = adapter().artifact.manifest
    opened = Session.open(path, dim=manifest.spec.dim, core_hash=manifest.core_hash)
    assert bits(opened) == bits(fitted())
    header = opened.header
    assert header.session_id == "day"
    assert header.unit_ids == lesson().unit_ids
    assert header.core_hash == manifest.core_hash
    assert header.method == "calibration"
    assert header.labelled_s == pytest.approx(MINUTE_S - T)
    assert header.steps == fitted().quality.steps > 0
    assert header.r2_heldout == pytest.approx(fitted().quality.r2_heldout, abs=1e-6)
    made = datetime.datetime.fromisoformat(header.created)
    assert datetime.timedelta() <= datetime.datetime.now(datetime.timezone.utc) - made
    assert Artifact.open(TINY).session(path).header == header


@pytest.mark.slow
def test_a_calibrator_opens_an_artifact_by_its_path() -> None:
    given = lesson()
    calibrator = Calibrator.open(TINY, given.unit_ids, settings=QUICK)
    assert calibrator.unit_ids == given.unit_ids
    assert calibrator.dim_out == 2
    assert calibrator.labelled_s == 0.0
    given.give(calibrator)
    assert calibrator.labelled_s == pytest.approx(39.0)
    name = calibrator.fit().header.session_id
    assert re.fullmatch(r"calibrated-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    sessions = [lesson().calibrator(QUICK).fit(seed=seed) for seed in (3, 3, 4)]
    assert bits(sessions[0]) == bits(sessions[1]) != bits(sessions[2])
    assert sessions[0].quality.curve == sessions[1].quality.curve


@pytest.mark.slow
def test_the_session_is_what_all_labels_gave_at_the_moment_chosen() -> None:
    """Not what a fold learned: it saw less."""
    given = lesson()
    searched = run(search(given, QUICK))
    session = given.calibrator(QUICK).fit()
    assert np.array_equal(session.unit_embedding, searched.chosen.tables[-1].units)
    assert np.array_equal(session.session_embedding, searched.chosen.tables[-1].session)
    assert session.quality.curve == tuple(searched.curve)
    assert session.quality.steps == searched.chosen.point.step


@pytest.mark.slow
def test_a_fit_that_gets_worse_gives_what_was_best() -> None:
    falling = dataclasses.replace(QUICK, steps=40, lr_units=1.0)
    session = lesson().calibrator(falling).fit(start=lesson().truth)
    assert (session.quality.stopped, session.quality.steps) == ("past the best", 0)
    assert session.quality.curve[-1].r2 < 0.9
    assert session.quality.r2_heldout == pytest.approx(1.0)
    assert bits(session) == bits(lesson().truth)


@pytest.mark.slow
def test_trials_as_they_arrive_give_the_same_session() -> None:
    whole, given = lesson().calibrator(QUICK), lesson()
    piecewise = Calibrator(adapter(), given.unit_ids, session_id="day", settings=QUICK)
    for start in np.arange(0, 40, 2.5)[::-1]:
        spikes = slice(*np.searchsorted(given.spike_times, [start, start + 2.5]))
        samples = slice(*np.searchsorted(given.times, [start, start + 2.5]))
        names = np.array(given.unit_ids)[given.spike_rows[spikes]]
        piecewise.add(given.spike_times[spikes], names, given.times[samples], given.values[samples])
    assert piecewise.labelled_s == whole.labelled_s
    assert bits(piecewise.fit()) == bits(whole.fit())


@pytest.mark.slow
def test_what_is_added_during_a_fit_is_for_the_next_one() -> None:
    given = lesson()
    later = given.times[-1] + 0.1
    calibrator = given.calibrator(QUICK)

    def on_progress(progress: Progress) -> None:
        if progress.done == 1:
            calibrator.add(
                given.spike_times + later, given.spike_rows, given.times + later, given.values
            )

    first = calibrator.fit(on_progress=on_progress)
    assert bits(first) == bits(given.calibrator(QUICK).fit())
    assert first.quality.labelled_s == pytest.approx(39.0)
    assert calibrator.labelled_s == pytest.approx(79.0, abs=1.0)
    assert calibrator.fit().quality.labelled_s == calibrator.labelled_s


@pytest.mark.slow
def test_an_early_end_is_still_a_session() -> None:
    calibrator, stop = lesson().calibrator(QUICK), threading.Event()
    stop.set()
    stopped = calibrator.fit(stop=stop)
    assert (stopped.quality.stopped, stopped.quality.steps) == ("interrupted", 0)
    out_of_time = calibrator.fit(max_seconds=1e-9)
    assert (out_of_time.quality.stopped, out_of_time.quality.steps) == ("time", 0)

    def ctrl_c(progress: Progress) -> None:
        if progress.done == 7:
            raise KeyboardInterrupt

    interrupted = calibrator.fit(on_progress=ctrl_c)
    assert interrupted.quality.stopped == "interrupted"
    assert [point.step for point in interrupted.quality.curve] == [0, 2]


@pytest.mark.slow
def test_an_earlier_session_is_begun_with_where_unit_ids_agree() -> None:
    truth = lesson().truth
    calibrator = lesson().calibrator(QUICK)
    begun = calibrator.fit(start=truth, max_seconds=1e-9)
    assert bits(begun) == bits(truth)
    assert begun.quality.r2_heldout == pytest.approx(1.0)
    keep = [4, 1]
    part = Session(
        header=dataclasses.replace(
            truth.header, unit_ids=("day/gone", *(truth.header.unit_ids[i] for i in keep))
        ),
        unit_embedding=truth.unit_embedding[[0, *keep]],
        session_embedding=truth.session_embedding,
    )
    mixed = calibrator.fit(start=part, max_seconds=1e-9)
    fresh = calibrator.fit(max_seconds=1e-9)
    for row in range(6):
        expected = truth if row in keep else fresh
        assert np.array_equal(mixed.unit_embedding[row], expected.unit_embedding[row])
    assert np.array_equal(mixed.session_embedding, truth.session_embedding)


def test_units_begin_where_their_electrode_was_before() -> None:
    """What follows the last "/" of an id names the electrode; others begin at the mean."""
    given = lesson()
    ids = ["day/unit_00", "day/unit_11", "elsewhere", "day/x", "day/y", "day/z"]
    calibrator = Calibrator(adapter(), ids, session_id="day", settings=QUICK)
    given.give(calibrator)
    begun = calibrator.fit(max_seconds=1e-9).unit_embedding
    embeddings = dict[str, list[Float64]]()
    for name in ("tiny_a", "tiny_b"):
        session = adapter().artifact.session(name)
        for unit, row in zip(session.header.unit_ids, session.unit_embedding, strict=True):
            embeddings.setdefault(unit.rpartition("/")[2], []).append(row)
    assert [len(embeddings[electrode]) for electrode in ("unit_00", "unit_11")] == [2, 2]
    for row, electrode in enumerate(("unit_00", "unit_11")):
        assert begun[row] == pytest.approx(np.mean(embeddings[electrode], axis=0), rel=1e-5)
    assert np.array_equal(begun[2:], np.tile(prior().unit_mean, (4, 1)))


@pytest.mark.slow
def test_a_damaged_neighbour_is_no_reason_not_to_calibrate(tiny_copy: Path) -> None:
    (tiny_copy / "sessions" / "old.session").write_bytes(b"half a ses")
    given = lesson()
    calibrator = Calibrator.open(tiny_copy, given.unit_ids, settings=QUICK)
    given.give(calibrator)
    assert calibrator.fit(max_seconds=1e-9).quality.stopped == "time"


@pytest.mark.slow
def test_from_yesterdays_session_it_takes_fewer_steps() -> None:
    settings = dataclasses.replace(LEARN, steps=20, lr_units=0.05, lr_session=0.005)
    quality = lesson().calibrator(settings).fit(start=drifted(lesson().truth, 0.2)).quality
    assert quality.curve[0].r2 < 0.7
    assert quality.r2_heldout > 0.9


@pytest.mark.parametrize("name", ["start", "in_use"])
def test_a_session_for_another_core_is_refused_before_the_fit(name: str) -> None:
    steps, core = list[Progress](), adapter().artifact.manifest.core_hash
    session: dict[str, Any] = {name: of_another_core()}
    message = (
        f"{name}: expected a session made for core {core[:12]}, got 'day' for 000000000000; name "
        f"one of this artifact"
    )
    with pytest.raises(UsageError, match=f"^{message}$"):
        lesson().calibrator(QUICK).fit(on_progress=steps.append, **session)
    assert not steps


def still(given: Lesson) -> Lesson:
    return dataclasses.replace(given, values=given.values * [1.0, 0.0])


def shuffled(given: Lesson) -> Lesson:
    order = np.random.default_rng(0).permutation(len(given.times))
    return dataclasses.replace(given, values=given.values[order])


def silent(given: Lesson) -> Lesson:
    return dataclasses.replace(given, spike_times=np.empty(0), spike_rows=np.empty(0, np.int64))


BAD: dict[str, tuple[Callable[[], Lesson], str]] = {
    "too little": (
        lambda: lesson(duration_s=3.0),
        r"labels: expected at least 4 labelled s .*, got 2\.0; ",
    ),
    "no movement": (
        lambda: still(lesson()),
        r"behavior: expected movement in every dimension, .* in dimension 1; calibrate on ",
    ),
    "shuffled": (
        lambda: shuffled(lesson()),
        r"behavior: expected samples in order of time .*; check that times and values belong ",
    ),
    "no spikes": (
        lambda: silent(lesson()),
        r"labels: expected spikes in the window before most labels, got none before 100% ",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_labels_that_cannot_be_learned_are_refused_before_the_fit(what: str) -> None:
    make, message = BAD[what]
    steps = list[Progress]()
    with pytest.raises(UsageError, match=f"^{message}"):
        make().calibrator(QUICK).fit(on_progress=steps.append)
    assert not steps


def test_nothing_to_fit_is_refused() -> None:
    calibrator = Calibrator(adapter(), ["u"], session_id="day")
    with pytest.raises(UsageError, match=r"^labels: expected labelled data, got none; call add "):
        calibrator.fit()


def test_labels_without_a_whole_window_are_refused() -> None:
    calibrator = Calibrator(adapter(), ["u"], session_id="day")
    calibrator.add([0.0, 0.1], [0, 0], [0.05, 0.15], [[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(UsageError, match=r"^labels: expected at least .* got 0\.0; "):
        calibrator.fit()


@pytest.mark.slow
def test_bad_data_leaves_what_was_good() -> None:
    given, calibrator = lesson(), lesson().calibrator(QUICK)
    values = given.values.copy()
    values[7, 1] = np.nan
    with pytest.raises(UsageError, match=r"^behavior: expected finite values, got 1 samples"):
        calibrator.add(given.spike_times, given.spike_rows, given.times, values)
    with pytest.raises(UsageError, match=r"^labels: expected spikes and behaviour of the same"):
        calibrator.add(given.spike_times, given.spike_rows, given.times + 1e4, given.values)
    assert bits(calibrator.fit()) == bits(given.calibrator(QUICK).fit())


@pytest.mark.parametrize(
    ("unit_ids", "session_id", "message"),
    [
        ([], "day", "unit_ids: expected at least one unit, got none"),
        (["a", "b", "a"], "day", "unit_ids: expected unique ids, got 'a' more than once; "),
        (["a"], "", "session_id: expected a name for the new session, got none"),
    ],
)
def test_a_session_without_names_is_refused(
    unit_ids: list[str], session_id: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        Calibrator.open(TINY, unit_ids, session_id=session_id)


@pytest.mark.parametrize("max_seconds", [0.0, -1.0, math.nan])
def test_no_time_at_all_is_refused(max_seconds: float) -> None:
    with pytest.raises(UsageError, match=r"^max_seconds: expected seconds > 0, got "):
        lesson().calibrator(QUICK).fit(max_seconds=max_seconds)


def test_remarks_are_kept_with_the_quality() -> None:
    given = lesson()
    calibrator = given.calibrator(QUICK)
    calibrator.add([0.5, 0.6], [77, 78], [0.55], [[0.0, 0.0]])
    quality = calibrator.fit(max_seconds=1e-9).quality
    left_out, short, nothing, *_ = beside_spread(quality.notes)
    assert left_out == "2 spikes of units that are not in unit_ids were left out"
    assert short == "time was short: judged on 1 of 2 folds"
    assert nothing == "nothing was learned: this is the first guess; give it more time"


def test_every_refusal_is_one_of_ours() -> None:
    """Callers that never heard of poyo-edge catch ValueError; the command line its own class."""
    for make, _ in BAD.values():
        with pytest.raises(PoyoEdgeError) as refused:
            make().calibrator(QUICK).fit()
        assert isinstance(refused.value, ValueError)
        assert refused.value.exit_code == 2


@pytest.mark.slow
def test_a_session_fitted_to_this_very_session_is_not_compared() -> None:
    first = lesson().calibrator(QUICK).fit(max_seconds=1e-9)
    again = lesson().calibrator(QUICK).fit(start=first, in_use=first, max_seconds=1e-9)
    assert again.quality.r2_in_use is None
    assert beside_spread(again.quality.notes)[:2] == (
        "the session in use was fitted to this session too: it is not compared",
        "the start was fitted to this session: R² counts what it had learned",
    )
