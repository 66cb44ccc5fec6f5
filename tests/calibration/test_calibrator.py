"""From labelled data to a session that decodes, and everything that is refused on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.artifact import Artifact
from poyo_edge.calibration import CalibratedSession, Calibrator, Progress
from poyo_edge.calibration.examining import alike
from poyo_edge.calibration.labels import Labels
from poyo_edge.errors import CheckFailedError, PoyoEdgeError, SessionError, UsageError
from poyo_edge.metrics import r2_per_dim
from poyo_edge.runtime import Decoder
from poyo_edge.session import Session

sys.path.append(str(Path(__file__).parent))
from teacher import (
    LEARN,
    QUICK,
    TINY,
    Lesson,
    T,
    adapter,
    drifted,
    lesson,
    new_session,
    prior,
    run,
    search,
    session_of,
)

Float64 = npt.NDArray[np.float64]
MINUTE_S = 60.0
THOROUGH = dataclasses.replace(LEARN, steps=80)


@functools.cache
def fitted() -> CalibratedSession:
    """Six new units, learned from a minute of labels. Read only."""
    return lesson(duration_s=MINUTE_S).calibrator(THOROUGH).fit()


@functools.cache
def misled() -> CalibratedSession:
    """Fitted to the movements of another minute. Read only."""
    return wrong_labels().calibrator(QUICK).fit()


def wrong_labels() -> Lesson:
    return dataclasses.replace(lesson(), values=lesson(5).values)


def bits(session: Session) -> bytes:
    return session.unit_embedding.tobytes() + session.session_embedding.tobytes()


def streamed(session: Session | Path, given: Lesson) -> Float64:
    """What a decoder makes of a lesson's spikes at each of its samples."""
    decoder, pushed, out = Decoder.open(TINY, session), 0, []
    rows = decoder.rows(given.unit_ids)[given.spike_rows]
    for t in given.times:
        heard = int(np.searchsorted(given.spike_times, t))
        decoder.push(given.spike_times[pushed:heard], rows[pushed:heard])
        pushed = heard
        out.append(decoder.decode(float(t)).value)
    return np.array(out)


def r2_of(session: Session | Path, given: Lesson) -> float:
    whole = given.times >= T
    return float(r2_per_dim(given.values[whole], streamed(session, given)[whole]).mean())


def test_new_units_are_learned_from_a_minute() -> None:
    quality = fitted().quality
    assert quality.curve[0].r2 < -1.0
    assert quality.r2_heldout > 0.9
    assert min(quality.r2_per_dim) > 0.85
    assert r2_of(fitted(), lesson(duration_s=MINUTE_S)) > 0.93, "what it was fitted to"


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
    assert (quality.r2_in_use, quality.silent_units, quality.notes) == (None, (), ())
    values = json.loads(json.dumps(quality.to_json()))
    assert set(values) == {field.name for field in dataclasses.fields(quality)}
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


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    sessions = [lesson().calibrator(QUICK).fit(seed=seed) for seed in (3, 3, 4)]
    assert bits(sessions[0]) == bits(sessions[1]) != bits(sessions[2])
    assert sessions[0].quality.curve == sessions[1].quality.curve


def test_the_session_is_what_all_labels_gave_at_the_moment_chosen() -> None:
    """Not what a fold learned: it saw less."""
    given = lesson()
    searched = run(search(given, QUICK))
    session = given.calibrator(QUICK).fit()
    assert np.array_equal(session.unit_embedding, searched.chosen.tables[-1].units)
    assert np.array_equal(session.session_embedding, searched.chosen.tables[-1].session)
    assert session.quality.curve == tuple(searched.curve)
    assert session.quality.steps == searched.chosen.point.step


def test_a_fit_that_gets_worse_gives_what_was_best() -> None:
    falling = dataclasses.replace(QUICK, steps=40, lr_units=1.0)
    session = lesson().calibrator(falling).fit(start=lesson().truth)
    assert (session.quality.stopped, session.quality.steps) == ("past the best", 0)
    assert session.quality.curve[-1].r2 < 0.9
    assert session.quality.r2_heldout == pytest.approx(1.0)
    assert bits(session) == bits(lesson().truth)


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


def test_a_damaged_neighbour_is_no_reason_not_to_calibrate(tiny_copy: Path) -> None:
    (tiny_copy / "sessions" / "old.session").write_bytes(b"half a ses")
    given = lesson()
    calibrator = Calibrator.open(tiny_copy, given.unit_ids, settings=QUICK)
    given.give(calibrator)
    assert calibrator.fit(max_seconds=1e-9).quality.stopped == "time"


def test_from_yesterdays_session_it_takes_fewer_steps() -> None:
    settings = dataclasses.replace(LEARN, steps=20, lr_units=0.05, lr_session=0.005)
    quality = lesson().calibrator(settings).fit(start=drifted(lesson().truth, 0.2)).quality
    assert quality.curve[0].r2 < 0.7
    assert quality.r2_heldout > 0.9


def of_another_core() -> Session:
    truth = lesson().truth
    return dataclasses.replace(truth, header=dataclasses.replace(truth.header, core_hash="0" * 64))


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


def require_refused(session: CalibratedSession, message: str, tmp_path: Path) -> None:
    """Neither saved nor swapped in, with its figures; and what was there stays."""
    quality = session.quality
    dims = ", ".join(f"{r2:.3f}" for r2 in quality.r2_per_dim)
    path = tmp_path / "day.session"
    lesson().truth.save(path)
    before = path.read_bytes()
    decoder = Decoder.open(TINY, "tiny_a")
    takes: list[Callable[[], None]] = [
        functools.partial(session.save, path),
        functools.partial(session.swap_into, decoder),
        session.require_good,
    ]
    for take in takes:
        with pytest.raises(CheckFailedError, match=f"^{re.escape(message)}") as refused:
            take()
        assert f"got {quality.r2_heldout:.3f} (per dimension {dims}) on held-out" in str(
            refused.value
        )
        assert f"{quality.labelled_s:.0f} labelled s" in str(refused.value)
        assert str(refused.value).endswith(
            "check that labels and spikes are of the same time and in the same order, give more "
            "labelled data, or force it (force=True, --force)"
        )
        assert refused.value.exit_code == 3
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["day.session"]
    assert decoder.session_id == "tiny_a"
    with pytest.raises(UsageError, match=r"^revert: "):
        decoder.revert()


def test_a_session_worse_than_the_mean_is_refused_with_its_figures(tmp_path: Path) -> None:
    assert misled().quality.r2_heldout < 0
    message = (
        "session 'day': expected an R² above 0, which holding the mean has, got "
        f"{misled().quality.r2_heldout:.3f} (per dimension "
    )
    require_refused(misled(), message, tmp_path)


def test_a_session_worse_than_the_one_in_use_is_refused_with_both_figures(tmp_path: Path) -> None:
    fit = lesson().calibrator(QUICK).fit
    session = fit(start=drifted(lesson().truth, 0.1), in_use=lesson().truth, max_seconds=1e-9)
    assert session.quality.r2_in_use == pytest.approx(1.0)
    assert 0 < session.quality.r2_heldout < 1
    message = (
        "session 'day': expected an R² of at least 1.000, which the session in use has on the "
        f"same samples, got {session.quality.r2_heldout:.3f} (per dimension "
    )
    require_refused(session, message, tmp_path)


def test_as_good_as_the_session_in_use_is_good_enough(tmp_path: Path) -> None:
    fit = lesson().calibrator(QUICK).fit
    same = fit(start=lesson().truth, in_use=lesson().truth, max_seconds=1e-9)
    assert same.quality.r2_in_use == same.quality.r2_heldout
    same.save(tmp_path / "day.session")
    better = fit(start=lesson().truth, in_use=drifted(lesson().truth, 0.1), max_seconds=1e-9)
    assert better.quality.r2_in_use is not None
    assert better.quality.r2_in_use < better.quality.r2_heldout
    better.require_good()


def test_the_session_in_use_is_judged_by_the_units_it_knows() -> None:
    """As the decoder would: spikes of others are left out."""
    truth = lesson().truth
    keep = [5, 0, 2]
    part = Session(
        header=dataclasses.replace(
            truth.header, unit_ids=tuple(truth.header.unit_ids[i] for i in keep)
        ),
        unit_embedding=truth.unit_embedding[keep],
        session_embedding=truth.session_embedding,
    )
    quality = lesson().calibrator(QUICK).fit(in_use=part, max_seconds=1e-9).quality
    assert quality.r2_in_use == pytest.approx(r2_of(part, lesson()), abs=0.15)
    assert quality.r2_in_use != pytest.approx(1.0, abs=0.2)


def test_a_session_in_use_without_any_of_the_units_is_no_rival() -> None:
    fit = lesson().calibrator(QUICK).fit
    other = adapter().artifact.session("tiny_b")
    session = fit(start=lesson().truth, in_use=other, max_seconds=1e-9)
    session.require_good()
    assert session.quality.r2_in_use is None
    notes = session.quality.notes
    assert notes[0] == "the session in use has none of these units: it is no rival"
    json.dumps(session.quality.to_json(), allow_nan=False)


def test_nan_is_not_good() -> None:
    quality = dataclasses.replace(fitted().quality, r2_heldout=math.nan)
    with pytest.raises(CheckFailedError, match="expected an R² above 0"):
        dataclasses.replace(fitted(), quality=quality).require_good()


def test_the_older_file_stays_beside_the_new_one(tmp_path: Path) -> None:
    path, previous = tmp_path / "day.session", tmp_path / "day.session.previous"
    fitted().save(path)
    assert not previous.exists()
    first = path.read_bytes()
    dataclasses.replace(
        fitted(), header=dataclasses.replace(fitted().header, created="later")
    ).save(path)
    assert previous.read_bytes() == first
    assert Session.open(path).header.created == "later"
    second = path.read_bytes()
    with pytest.raises(CheckFailedError):
        misled().save(path)
    assert (path.read_bytes(), previous.read_bytes()) == (second, first)
    misled().save(path, force=True)
    assert previous.read_bytes() == second
    assert len(list(tmp_path.iterdir())) == 2


def test_force_takes_what_is_bad(tmp_path: Path) -> None:
    path, decoder = tmp_path / "day.session", Decoder.open(TINY, "tiny_a")
    misled().save(path, force=True)
    assert bits(Session.open(path)) == bits(misled())
    assert Session.open(path).header.r2_heldout == round(misled().quality.r2_heldout, 6)
    misled().swap_into(decoder, force=True)
    assert decoder.session_id == "day"


def test_force_does_not_take_what_cannot_be_used(tmp_path: Path) -> None:
    broken = dataclasses.replace(fitted(), unit_embedding=fitted().unit_embedding * np.nan)
    decoder = Decoder.open(TINY, "tiny_a")
    with pytest.raises(UsageError, match="expected finite values"):
        broken.swap_into(decoder, force=True)
    foreign = dataclasses.replace(fitted(), header=of_another_core().header)
    with pytest.raises(UsageError, match="made for core"):
        foreign.swap_into(decoder, force=True)
    assert decoder.session_id == "tiny_a"
    with pytest.raises(UsageError, match="expected an existing folder to write into"):
        fitted().save(tmp_path / "none" / "day.session", force=True)


def still(given: Lesson) -> Lesson:
    return dataclasses.replace(given, values=given.values * [1.0, 0.0])


def shuffled(given: Lesson) -> Lesson:
    order = np.random.default_rng(0).permutation(len(given.times))
    return dataclasses.replace(given, values=given.values[order])


def silent(given: Lesson) -> Lesson:
    return dataclasses.replace(given, spike_times=np.empty(0), spike_rows=np.empty(0, np.int64))


BAD: dict[str, tuple[Callable[[], Lesson], str]] = {
    "too little": (
        lambda: lesson(duration_s=5.0),
        r"labels: expected at least 8 labelled s .*, got 4\.0; ",
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
    left_out, nothing, *_ = quality.notes
    assert left_out == "2 spikes of units that are not in unit_ids were left out"
    assert nothing == "nothing was learned: this is the first guess; give it more time"


SAVER = """
import os, pickle, signal, sys, time
sessions, target = pickle.loads(open(sys.argv[1], "rb").read()), sys.argv[2]
for line in sys.stdin:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"!")
        while True:
            for session in sessions:
                session.save(target)
    os.read(reading, 1)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    print("killed", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_session(
    tiny_copy: Path, tmp_path: Path
) -> None:
    """One that was there, or the new one; what is half written is never taken for a session."""
    folder = tiny_copy / "sessions"
    path = folder / "day.session"
    new = dataclasses.replace(
        fitted(), header=dataclasses.replace(fitted().header, created="later")
    )
    old = dataclasses.replace(fitted(), unit_embedding=np.negative(fitted().unit_embedding))
    whole = {bits(old), bits(new)}
    (tmp_path / "sessions.pickle").write_bytes(pickle.dumps([new, old]))
    rng, seen, unfinished, absent = np.random.default_rng(0), set[bytes](), 0, 0
    command = [sys.executable, "-c", SAVER, str(tmp_path / "sessions.pickle"), str(path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as saver:
        assert saver.stdin is not None
        assert saver.stdout is not None
        old.save(path)
        for kill in range(240):
            if kill >= 200:
                path.unlink()  # from here on there is no old session
            saver.stdin.write(f"{rng.uniform(0, 4e-3)}\n")
            saver.stdin.flush()
            assert saver.stdout.readline() == "killed\n"
            if kill >= 200 and not path.exists():
                absent += 1
                old.save(path)
            session = Session.open(path, core_hash=fitted().header.core_hash)
            assert bits(session) in whole
            seen.add(bits(session))
            previous = path.with_name("day.session.previous")
            if previous.exists():
                assert bits(Session.open(previous)) in whole
            left = [file for file in folder.iterdir() if file.suffix == ".tmp"]
            unfinished += len(left)
            known = Artifact.open(tiny_copy).session_files()
            assert sorted(known) == ["day", "tiny_a", "tiny_b"]
            for file in left:
                with contextlib.suppress(SessionError):
                    assert bits(Session.open(file)) in whole
                file.unlink()
        saver.stdin.close()
    assert seen == whole
    assert unfinished > 20, "most kills struck while a file was being written"


def with_a_silent_and_a_doubled_unit() -> Lesson:
    given = lesson()
    truth = new_session(8)
    copied = given.spike_rows == 0
    order = np.argsort(np.concatenate([given.spike_times, given.spike_times[copied]]))
    times = np.concatenate([given.spike_times, given.spike_times[copied]])[order]
    rows = np.concatenate([given.spike_rows, np.full(copied.sum(), 7)])[order]
    return dataclasses.replace(given, truth=truth, spike_times=times, spike_rows=rows)


def test_examining_comes_after_a_fit() -> None:
    with pytest.raises(UsageError, match=r"^examine: expected a fit before it, got none; "):
        lesson().calibrator(QUICK).examine()


def test_each_unit_is_examined() -> None:
    given = with_a_silent_and_a_doubled_unit()
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    assert session.quality.silent_units == ("day/new_6",)
    examined = calibrator.examine(shares=())
    assert examined.alike == (("day/new_0", "day/new_7", 1.0),)
    by_name = {unit.unit: unit for unit in examined.units}
    assert set(by_name) == set(given.unit_ids)
    parts = [unit.part for unit in examined.units]
    assert parts == sorted(parts, reverse=True)
    counts = np.bincount(given.spike_rows, minlength=8)
    distances = prior().distance(session.unit_embedding)
    heard_s = given.spike_times[-1] - given.times[0]
    for i, name in enumerate(given.unit_ids):
        assert by_name[name].rate_hz == pytest.approx(counts[i] / heard_s, rel=1e-2)
        assert by_name[name].distance == pytest.approx(float(distances[i]), abs=1e-3)
    assert by_name["day/new_6"].rate_hz == 0.0
    values = examined.to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values) == {"units", "alike", "r2_by_seconds"}
    assert set(values["units"][0]) == {"unit", "rate_hz", "part", "distance"}


def fast_units(hole_s: float) -> Labels:
    """Two units of 500 spikes/s that have nothing in common, in pieces of ten seconds."""
    rng = np.random.default_rng(0)
    starts = np.arange(4, dtype=np.float64) * (10.0 + hole_s)
    times = np.concatenate([start + 10 * rng.random(10_000) for start in starts])
    return Labels(
        n_units=2,
        spike_times=np.sort(times),
        spike_rows=rng.integers(0, 2, len(times)).astype(np.int32),
        times=starts,
        values=np.zeros((len(starts), 2)),
        stretches=np.stack([starts, starts + 10.0], axis=1),
    )


def test_units_are_alike_by_spikes_at_the_same_time() -> None:
    given = fast_units(0.0)
    assert alike(given, ("a", "b")) == ()
    both = np.sort(np.concatenate([given.spike_times, given.spike_times + 1e-4]))
    rows = np.tile([0, 1], len(given.spike_times)).astype(np.int32)
    doubled = dataclasses.replace(given, spike_times=both, spike_rows=rows)
    ((one, other, correlation),) = alike(doubled, ("a", "b"))
    assert (one, other) == ("a", "b")
    assert correlation > 0.9


def test_holes_make_no_units_alike() -> None:
    assert alike(fast_units(60.0), ("a", "b")) == ()


def test_a_units_part_is_what_is_lost_without_it() -> None:
    given = lesson()
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    assert session.quality.r2_heldout == pytest.approx(1.0)
    for unit in calibrator.examine(shares=()).units:
        row = given.unit_ids.index(unit.unit)
        kept = np.delete(np.arange(6), row)
        part = session_of(given.truth.unit_embedding[kept], given.truth.session_embedding)
        named = dataclasses.replace(
            part,
            header=dataclasses.replace(
                part.header, unit_ids=tuple(np.array(given.unit_ids)[kept].tolist())
            ),
        )
        assert unit.part == pytest.approx(1 - r2_of(named, given), abs=0.35)
        assert unit.part > 0.1


def test_a_unit_far_from_the_trained_ones_is_seen() -> None:
    given = lesson()
    far = given.truth.unit_embedding.copy()
    far[2] = prior().unit_mean + 3 * prior().unit_root.sum(1)
    start = dataclasses.replace(given.truth, unit_embedding=far)
    calibrator = given.calibrator(QUICK)
    calibrator.fit(start=start, max_seconds=1e-9)
    distances = {unit.unit: unit.distance for unit in calibrator.examine(shares=()).units}
    assert distances["day/new_2"] == pytest.approx(3.0, rel=1e-3)
    assert max(d for name, d in distances.items() if name != "day/new_2") < 1.0


def test_r2_by_seconds_ends_with_the_whole() -> None:
    calibrator = lesson().calibrator(QUICK)
    quality = calibrator.fit().quality
    points = calibrator.examine(shares=(0.3, 0.6)).r2_by_seconds
    seconds = [point[0] for point in points]
    assert len(seconds) == 3
    assert seconds == sorted(seconds)
    assert seconds[-1] < quality.labelled_s, "a fold learns from a part of the labels"
    assert seconds[0] == pytest.approx(0.3 * seconds[-1], abs=0.2)
    assert points[-1][1] == quality.r2_heldout
    assert len({r2 for _, r2 in points}) == 3
    for share in (0.0, 1.0, 1.5, math.nan):
        with pytest.raises(UsageError, match=r"^shares: expected numbers between 0 and 1, got "):
            calibrator.examine(shares=(0.5, share))


def test_a_single_unit_can_be_calibrated_and_examined() -> None:
    given = lesson(n_units=1)
    calibrator = given.calibrator(QUICK)
    session = calibrator.fit(start=given.truth, max_seconds=1e-9)
    (unit,) = calibrator.examine(shares=()).units
    assert unit.part == pytest.approx(session.quality.r2_heldout, abs=0.01)


def test_every_refusal_is_one_of_ours() -> None:
    """Callers that never heard of poyo-edge catch ValueError; the command line its own class."""
    for make, _ in BAD.values():
        with pytest.raises(PoyoEdgeError) as refused:
            make().calibrator(QUICK).fit()
        assert isinstance(refused.value, ValueError)
        assert refused.value.exit_code == 2


def test_a_session_fitted_to_this_very_session_is_not_compared() -> None:
    first = lesson().calibrator(QUICK).fit(max_seconds=1e-9)
    again = lesson().calibrator(QUICK).fit(start=first, in_use=first, max_seconds=1e-9)
    assert again.quality.r2_in_use is None
    assert again.quality.notes[:2] == (
        "the session in use was fitted to this session too: it is not compared",
        "the start was fitted to this session: R² counts what it had learned",
    )
