"""A fit beside decoding: the decoder goes on, and takes the new session when it is there."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, SOUND, lesson
from helpers.commands import WITH_HELPERS, run_python
from helpers.paths import TINY
from helpers.waiting import PATIENCE_S

from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration import BackgroundFit, CalibratedSession, Calibrator, Progress
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.workers import one_blas_thread
from poyo_edge.errors import CheckFailedError, UsageError
from poyo_edge.runtime import Decoder, Status

PRIORITY = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform.startswith("linux") else 0
"""Of the main thread, before any fit."""


class Gate:
    """An adapter whose steps wait until the gate is open."""

    def __init__(self) -> None:
        self.adapter = Adapter(Artifact.open(TINY))
        self.reached, self.opened = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        self._gradients = self.adapter.gradients
        setattr(self.adapter, "gradients", self._waiting)  # noqa: B010

    def _waiting(self, *arguments: Any) -> Any:
        self.thread = threading.current_thread()
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)
        return self._gradients(*arguments)

    def calibrator(self, settings: Any = SOUND) -> Calibrator:
        given = lesson()
        made = Calibrator(self.adapter, given.unit_ids, session_id="day", settings=settings)
        given.give(made)
        return made


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


@pytest.fixture
def decoder() -> Decoder:
    """Of the session before, with a minute of its spikes pushed."""
    opened = Decoder.open(TINY, "tiny_a")
    opened.push(lesson().spike_times, lesson().spike_rows)
    return opened


@functools.cache
def sound() -> CalibratedSession:
    """What a sound fit gives in the foreground."""
    return lesson().calibrator(SOUND).fit(start=lesson().truth)


def bits(session: Session) -> bytes:
    return session.unit_embedding.tobytes() + session.session_embedding.tobytes()


def times(count: int) -> list[float]:
    return [1.5 + i / 50 for i in range(count)]


def test_decoding_goes_on_during_a_fit(gate: Gate, decoder: Decoder) -> None:
    undisturbed = Decoder.open(TINY, "tiny_a")
    undisturbed.push(lesson().spike_times, lesson().spike_rows)
    fit = gate.calibrator().start(start=lesson().truth)
    assert gate.reached.wait(PATIENCE_S)
    results = []
    for i, t in enumerate(times(400)):
        if i == 100:
            assert not fit.done, "the first hundred were decoded in the middle of a step"
            gate.opened.set()
        results.append(decoder.decode(t))
        if fit.done:
            break
    assert len(results) > 100
    session = fit.result(PATIENCE_S)
    for result in results:
        assert result.session_id == "tiny_a"
        assert result.status is Status.VALID
        assert np.array_equal(result.value, undisturbed.decode(float(result.t)).value)
    assert bits(session) == bits(sound())


def test_a_fit_in_the_background_is_the_same_fit(decoder: Decoder) -> None:
    calibrator = lesson().calibrator(QUICK)
    background = calibrator.start(seed=3).result(PATIENCE_S)
    assert bits(background) == bits(calibrator.fit(seed=3))
    assert background.quality.curve == calibrator.fit(seed=3).quality.curve
    assert bits(background) != bits(calibrator.fit(seed=4))


def test_start_takes_what_fit_takes(decoder: Decoder) -> None:
    truth = lesson().truth
    fit = lesson().calibrator(SOUND).start(max_seconds=1e-9, start=truth, in_use=truth)
    quality = fit.result(PATIENCE_S).quality
    assert (quality.stopped, quality.steps) == ("time", 0)
    assert quality.r2_heldout == quality.r2_in_use == pytest.approx(1.0)


def test_waiting_has_an_end(gate: Gate) -> None:
    fit = gate.calibrator().start()
    assert gate.reached.wait(PATIENCE_S)
    assert not fit.done
    with pytest.raises(TimeoutError, match=r"^the fit still runs after 0\.01 s; wait longer or s"):
        fit.result(timeout=0.01)
    gate.opened.set()
    first, again = fit.result(PATIENCE_S), fit.result()
    assert first is again
    assert fit.done


def test_progress_is_there_from_the_first_step_on(gate: Gate) -> None:
    fit = gate.calibrator().start()
    assert gate.reached.wait(PATIENCE_S)
    assert fit.progress is None
    gate.opened.set()
    fit.result(PATIENCE_S)
    progress = fit.progress
    assert isinstance(progress, Progress)
    assert progress.done == progress.total == 12


def test_stopped_it_hands_over_the_best_so_far(gate: Gate) -> None:
    fit = gate.calibrator().start(start=lesson().truth)
    assert gate.reached.wait(PATIENCE_S)
    fit.stop()
    gate.opened.set()
    session = fit.result(PATIENCE_S)
    assert session.quality.stopped == "interrupted"
    assert fit.progress is not None
    assert fit.progress.done == 1, "within a step"
    assert bits(session) == bits(lesson().truth)
    session.require_good()


def test_data_may_arrive_during_a_fit(gate: Gate) -> None:
    calibrator, given = gate.calibrator(), lesson()
    fit = calibrator.start(start=given.truth)
    assert gate.reached.wait(PATIENCE_S)
    later = given.times[-1] + 0.1
    calibrator.add(given.spike_times + later, given.spike_rows, given.times + later, given.values)
    assert calibrator.labelled_s > 70
    gate.opened.set()
    assert bits(fit.result(PATIENCE_S)) == bits(sound())


def test_an_error_is_handed_to_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    seen, called = list[BackgroundFit](), threading.Event()

    def on_done(fit: BackgroundFit) -> None:
        seen.append(fit)
        called.set()

    calibrator = lesson(duration_s=3.0).calibrator(QUICK)
    fit = calibrator.start(on_done=on_done)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"^labels: expected at least 4 labelled s"):
            fit.result(PATIENCE_S)
    assert fit.done
    assert called.wait(PATIENCE_S)
    assert seen == [fit]
    assert "the fit ended with an error: labels: expected at least 4" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_ends_the_thread_nobody_waits_for_ever(error: type[BaseException]) -> None:
    def broken(stop: threading.Event, note: Callable[[Progress], None]) -> CalibratedSession:
        raise error("no more")

    fit = BackgroundFit(broken)
    with pytest.raises(error, match="no more"):
        fit.result(PATIENCE_S)
    assert fit.done


def test_when_it_is_done_the_session_can_be_swapped_in(decoder: Decoder) -> None:
    """From the fit's own thread, which may ask for the result, while another one decodes."""
    swapped = threading.Event()

    def on_done(fit: BackgroundFit) -> None:
        fit.result(timeout=0.0).swap_into(decoder)
        swapped.set()

    before = decoder.decode(2.0)
    fit = lesson().calibrator(SOUND).start(start=lesson().truth, on_done=on_done)
    assert swapped.wait(PATIENCE_S)
    assert decoder.session_id == "day"
    assert decoder.unit_ids == lesson().unit_ids
    assert decoder.decode(2.0).n_spikes == 0, "no unit is known to both sessions"
    fresh = Decoder.open(TINY, fit.result())
    for one in (decoder, fresh):
        later = lesson().spike_times >= 2.0
        rows = one.rows(lesson().unit_ids)[lesson().spike_rows[later]]
        one.push(lesson().spike_times[later], rows)
    swapped_value = decoder.decode(3.5).value
    assert np.array_equal(swapped_value, fresh.decode(3.5).value)
    expected = lesson().values[lesson().times == 3.5][0]
    assert swapped_value == pytest.approx(expected, abs=0.2)
    decoder.revert()
    assert decoder.session_id == before.session_id == "tiny_a"
    assert decoder.decode(3.6).session_id == "tiny_a"


def test_going_back_decodes_as_before_and_once_only(decoder: Decoder) -> None:
    """The spikes of units that both sessions have are kept both times."""
    given = lesson().truth
    shared = dataclasses.replace(
        given,
        header=dataclasses.replace(given.header, unit_ids=decoder.unit_ids[:6]),
    )
    before = decoder.decode(2.0)
    assert before.n_spikes > 0
    decoder.swap_session(shared)
    swapped = decoder.decode(2.0)
    assert swapped.n_spikes == before.n_spikes
    assert not np.array_equal(swapped.value, before.value)
    decoder.revert()
    after = decoder.decode(2.0)
    assert (after.session_id, after.status) == ("tiny_a", Status.VALID)
    assert np.array_equal(after.value, before.value)
    message = (
        r"^revert: expected a session before 'tiny_a', got none; swap_session takes any session$"
    )
    with pytest.raises(UsageError, match=message):
        decoder.revert()


def test_going_back_is_to_the_session_before_the_last_swap(decoder: Decoder) -> None:
    sound().swap_into(decoder)
    decoder.swap_session("tiny_b")
    decoder.revert()
    assert decoder.session_id == "day"
    with pytest.raises(UsageError, match=r"^revert: expected a session before 'day'"):
        decoder.revert()
    assert decoder.session_id == "day"


def test_a_bad_session_leaves_the_one_in_use(decoder: Decoder) -> None:
    caught, tried = list[Exception](), threading.Event()

    def on_done(fit: BackgroundFit) -> None:
        try:
            fit.result().swap_into(decoder)
        except CheckFailedError as problem:
            caught.append(problem)
        tried.set()

    given = dataclasses.replace(lesson(), values=lesson(5).values)
    fit = given.calibrator(QUICK).start(on_done=on_done)
    assert tried.wait(PATIENCE_S)
    assert "expected an R² above 0" in str(caught[0])
    assert decoder.session_id == "tiny_a"
    assert decoder.decode(2.0).status is Status.VALID
    fit.result().swap_into(decoder, force=True)
    assert decoder.session_id == "day"


def test_a_swap_between_windows_mixes_no_two_sessions(decoder: Decoder) -> None:
    """Each value is that of one session or of the other, whenever the swap comes."""
    shared = dataclasses.replace(
        sound(), header=dataclasses.replace(sound().header, unit_ids=decoder.unit_ids[:6])
    )
    one, other = Decoder.open(TINY, "tiny_a"), Decoder.open(TINY, shared)
    for opened in (one, other):
        opened.push(lesson().spike_times, lesson().spike_rows)
    stop = threading.Event()

    def swap_for_ever() -> None:
        while not stop.wait(1e-4):
            decoder.swap_session(shared)
            stop.wait(1e-4)  # Else the session between swap and revert is hardly ever decoded with.
            decoder.revert()

    thread = threading.Thread(target=swap_for_ever, daemon=True)
    thread.start()
    seen = collections.Counter[str]()
    until = time.monotonic() + PATIENCE_S
    try:
        for t in itertools.chain(times(150), itertools.repeat(times(150)[-1])):
            result = decoder.decode(t)
            source = one if result.session_id == "tiny_a" else other
            assert np.array_equal(result.value, source.decode(t).value)
            seen[result.session_id] += 1
            if seen.total() >= 150 and min(seen["tiny_a"], seen["day"]) >= 20:
                break
            assert time.monotonic() < until, f"both sessions should be decoded with, got {seen}"
    finally:
        stop.set()
        thread.join(PATIENCE_S)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have no priority")
def test_only_the_fit_gives_way(gate: Gate) -> None:
    before = PRIORITY
    fit = gate.calibrator().start()
    assert gate.reached.wait(PATIENCE_S)
    assert gate.thread is not None
    assert gate.thread is not threading.main_thread()
    assert gate.thread.native_id is not None
    assert os.getpriority(os.PRIO_PROCESS, gate.thread.native_id) == max(before, 10)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    later = list[int]()
    other = threading.Thread(
        target=lambda: later.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    )
    other.start()
    other.join(PATIENCE_S)
    assert later == [before], "threads that come later do not give way either"
    gate.opened.set()
    fit.result(PATIENCE_S)


def test_where_priorities_cannot_be_set_it_fits_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: Any) -> None:
        raise PermissionError("not allowed")

    monkeypatch.setattr(os, "setpriority", refused, raising=False)
    session = lesson().calibrator(SOUND).start(start=lesson().truth).result(PATIENCE_S)
    assert bits(session) == bits(sound())


def test_python_hands_its_lock_over_sooner_while_a_fit_runs(gate: Gate) -> None:
    before = sys.getswitchinterval()
    done = threading.Event()
    fit = gate.calibrator().start(on_done=lambda _: done.set())
    assert gate.reached.wait(PATIENCE_S)
    assert sys.getswitchinterval() == pytest.approx(5e-4)
    assert one_blas_thread._inside == 1
    gate.opened.set()
    fit.result(PATIENCE_S)
    assert done.wait(PATIENCE_S)
    assert sys.getswitchinterval() == before
    assert one_blas_thread._inside == 0


def test_two_fits_at_once_leave_pythons_lock_as_it_was() -> None:
    before = sys.getswitchinterval()
    gates = [Gate(), Gate()]
    try:
        fits = []
        for gate in gates:
            fits.append(gate.calibrator().start())
            assert gate.reached.wait(PATIENCE_S)
        for gate, fit in zip(gates, fits, strict=True):
            gate.opened.set()
            fit.result(PATIENCE_S)
        assert sys.getswitchinterval() == before
    finally:
        sys.setswitchinterval(before)


LEAVING = """
import atexit
from helpers.calibrating.teacher import LEARN, lesson
atexit.register(lambda: print(fit.result(0.0).quality.stopped))
fit = lesson().calibrator(LEARN).start()
while fit.progress is None:
    pass
"""


@pytest.mark.slow
def test_a_program_may_end_before_the_fit_does() -> None:
    """The fit ends within a step, so that its thread never finds Python taken down around it."""
    for _ in range(2):
        done = run_python(LEAVING, environment=WITH_HELPERS)
        assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
