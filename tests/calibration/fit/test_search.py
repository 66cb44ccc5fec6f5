"""How long to fit: what is kept, what ends it, and that held-out blocks stay unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    LEARN,
    QUICK,
    adapter,
    at_mean,
    lesson,
    prior,
    quiet,
    run,
    search,
)

from poyo_edge.calibration import FitSettings, Progress
from poyo_edge.calibration.fit import search as searching
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.schedule import short_schedule
from poyo_edge.calibration.fit.search import ALL_STEPS, INTERRUPTED, PAST_BEST, Search
from poyo_edge.errors import CheckFailedError, UsageError

N_FITS = QUICK.n_folds + 1


def tables_of(session: Any) -> Tables:
    return Tables(units=session.unit_embedding, session=session.session_embedding)


def bits(tables: Tables) -> bytes:
    return tables.units.tobytes() + tables.session.tobytes()


def outcome(searched: Search) -> tuple[Any, ...]:
    return (
        searched.stopped,
        searched.curve,
        [[bits(tables) for tables in moment.tables] for moment in searched.moments],
        [moment.judged.decoded.tobytes() for moment in searched.moments],
    )


FALLING = dataclasses.replace(QUICK, steps=40, lr_units=1.0, patience=3)
"""From the truth every step leads away."""


def test_a_seed_decides_all_bits() -> None:
    first, again = run(search(lesson())), run(search(lesson()))
    assert outcome(first) == outcome(again)
    other = run(search(lesson(), seed=1))
    assert bits(other.chosen.tables[-1]) != bits(first.chosen.tables[-1])
    assert other.curve[0] == first.curve[0], "before the first step seeds do not matter"


def test_each_fit_learns_something_of_its_own() -> None:
    searched = run(search(lesson()))
    assert len({bits(tables) for tables in searched.chosen.tables}) == N_FITS


def test_all_steps_are_taken_and_judged_at_equal_steps() -> None:
    searching, seen = search(lesson()), list[list[int]]()
    searching.run(
        1e9, threading.Event(), quiet, lambda: seen.append([fit.steps for fit in searching.fits])
    )
    assert seen == [[step] * N_FITS for step in (0, 2, 4, 6)]
    assert [point.step for point in searching.curve] == [0, 2, 4, 6]
    assert searching.stopped == ALL_STEPS
    assert [point.loss is None for point in searching.curve] == [True, False, False, False]


def test_the_curve_shows_the_folds_mean_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit on all labels has seen what the others are judged on."""
    losses, opened = list[float](), adapter()

    def noted(*arguments: Any) -> Any:
        found = type(opened).gradients(opened, *arguments)
        losses.append(found[0])
        return found

    monkeypatch.setattr(opened, "gradients", noted)
    curve = run(search(lesson())).curve
    by_step = np.array(losses).reshape(6, N_FITS)[:, :-1]
    expected = by_step.reshape(3, -1).mean(1)
    assert [point.loss for point in curve[1:]] == pytest.approx(expected.tolist())


def test_short_schedules_see_all_labels_about_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of 16 parts of the labelled time, by the fit on all labels."""
    monkeypatch.setattr(
        searching, "schedule_for", lambda seconds, *_, **__: short_schedule(seconds)
    )
    seen, opened = list[np.ndarray[Any, Any]](), adapter()

    def noted(labels: Any, ends: Any, weighting: Any) -> Any:
        seen.append(ends)
        return type(opened).batch(opened, labels, ends, weighting)

    monkeypatch.setattr(opened, "batch", noted)
    searched = run(search(lesson(), dataclasses.replace(QUICK, steps=20, batch_size=4)))
    ends = np.concatenate(seen[N_FITS - 1 :: N_FITS])
    n_samples = len(searched.labels.times)
    counts = np.bincount(ends * 16 // n_samples, minlength=16)
    assert counts.sum() == 80
    assert counts.min() >= 4
    assert counts.max() <= 6
    assert len(set(ends.tolist())) > 70, "hardly any window is seen twice"


def test_steps_get_smaller_towards_the_end() -> None:
    settings = dataclasses.replace(QUICK, steps=10, judge_every=1, patience=99)
    moments = run(search(lesson(), settings)).moments
    units = np.stack([moment.tables[-1].units for moment in moments])
    way = np.abs(np.diff(units, axis=0)).mean((1, 2))
    assert len(way) == 10
    assert way[-1] < 0.05 * way[0]


def test_the_last_judgement_may_come_early() -> None:
    searched = run(search(lesson(), dataclasses.replace(QUICK, steps=5, judge_every=3)))
    assert [point.step for point in searched.curve] == [0, 3, 5]


def test_learning_raises_what_is_judged() -> None:
    searched = run(search(lesson(), dataclasses.replace(LEARN, steps=30)))
    r2s = [point.r2 for point in searched.curve]
    assert r2s[0] < -1.0
    assert r2s[-1] > 0.7
    losses = [point.loss for point in searched.curve if point.loss is not None]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("begin", ["mean", "truth"])
def test_what_is_chosen_is_what_was_judged(begin: str) -> None:
    given = lesson()
    start = tables_of(given.truth) if begin == "truth" else None
    settings = FALLING if begin == "truth" else QUICK
    searching = search(given, settings, start=start)
    states = list[list[bytes]]()
    searching.run(
        1e9,
        threading.Event(),
        quiet,
        lambda: states.append([bits(fit.tables()) for fit in searching.fits]),
    )
    chosen = searching.chosen
    at = [point.step for point in searching.curve].index(chosen.point.step)
    assert [bits(tables) for tables in chosen.tables] == states[at]
    assert len(set(map(tuple, states))) == len(states), "each moment keeps a copy of its own"
    for fit, tables in zip(searching.fits[:-1], chosen.tables, strict=False):
        again = adapter().predict(searching.labels, fit.judged(), tables.units, tables.session)
        rows = np.isin(chosen.judged.block, np.unique(fit.judged_blocks()))
        assert np.array_equal(again, chosen.judged.decoded[rows])
        assert np.array_equal(chosen.judged.truth[rows], searching.labels.values[fit.judged()])
    assert chosen.point.r2 == pytest.approx(chosen.judged.r2().mean())
    assert chosen.point.r2_per_dim == pytest.approx(tuple(chosen.judged.r2()))


@pytest.mark.slow
def test_a_fit_that_gets_worse_is_left_where_it_was_best() -> None:
    given = lesson()
    searched = run(search(given, FALLING, start=tables_of(given.truth)))
    assert searched.stopped == PAST_BEST
    assert len(searched.curve) == 1 + FALLING.patience, "it does not go on for long"
    assert searched.chosen.point.step == 0
    assert searched.chosen.point.r2 == pytest.approx(1.0)
    assert bits(searched.chosen.tables[-1]) == bits(tables_of(given.truth))
    longer = run(
        search(given, dataclasses.replace(FALLING, patience=5), start=tables_of(given.truth))
    )
    assert len(longer.curve) == 6


def test_of_moments_as_good_as_the_best_the_latest_is_chosen() -> None:
    """Steps too small to matter: the truth stays the truth."""
    given = lesson()
    still = dataclasses.replace(QUICK, lr_units=1e-5, lr_session=1e-5)
    searched = run(search(given, still, start=tables_of(given.truth)))
    assert searched.curve[0].r2 > searched.curve[-1].r2 > 0.999
    assert searched.stopped == ALL_STEPS
    assert searched.chosen.point.step == still.steps


def test_held_out_blocks_are_never_learned_from() -> None:
    """Whatever happens in the blocks that judge a fit, the fit takes the same steps."""
    given = lesson()
    labels = given.labels()
    plain = run(search(given))
    held = plain.fits[0].judged_blocks()
    number = np.arange(len(labels.times)) * QUICK.n_blocks // len(labels.times)
    inside = np.isin(number, held)
    values = np.where(inside[:, None], labels.values + 50.0, labels.values)
    heard = np.ones(len(labels.spike_times), bool)
    for block in np.unique(held):
        edges = labels.times[number == block][[0, -1]]
        heard &= (labels.spike_times < edges[0]) | (labels.spike_times >= edges[1])
    assert 0.3 < heard.mean() < 0.7
    spoiled = dataclasses.replace(
        labels,
        values=values,
        spike_times=labels.spike_times[heard],
        spike_rows=labels.spike_rows[heard],
    )
    other = Search(adapter(), prior(), spoiled, QUICK, at_mean(6), 0)
    run(other)
    assert bits(other.fits[0].tables()) == bits(plain.fits[0].tables())
    assert bits(other.fits[1].tables()) != bits(plain.fits[1].tables())
    assert bits(other.fits[-1].tables()) != bits(plain.fits[-1].tables())


def test_what_judges_is_thinned_evenly() -> None:
    whole = search(lesson())
    thin = search(lesson(), dataclasses.replace(QUICK, judged_on_the_way=40))
    for all_of, some in zip(whole.fits[:-1], thin.fits[:-1], strict=True):
        all_of.most_judged = 10**6
        assert len(all_of.judged()) > 120
        assert 20 < len(some.judged()) <= 40
        stride = -(-len(all_of.judged()) // 40)
        assert np.array_equal(some.judged(), all_of.judged()[::stride])
        assert np.array_equal(some.judged_blocks(), all_of.judged_blocks()[::stride])


def test_the_result_is_judged_by_more_samples_than_the_way() -> None:
    given, still = lesson(), dataclasses.replace(QUICK, lr_units=1e-5, lr_session=1e-5)

    def judged(on_the_way: int) -> Search:
        settings = dataclasses.replace(still, judged_on_the_way=on_the_way, most_judged=60)
        return run(search(given, settings, start=tables_of(given.truth)))

    few, many = judged(10), judged(60)
    sizes = [len(moment.judged.truth) for moment in few.moments]
    assert sizes[:-1] == [sizes[0]] * 3
    assert 10 < sizes[0] <= 20, "of two folds"
    assert few.chosen is few.moments[-1]
    assert 80 < sizes[-1] <= 120
    assert few.chosen.point.loss == few.curve[-1].loss is not None
    assert few.chosen.judged.decoded.tobytes() == many.chosen.judged.decoded.tobytes()
    assert few.curve[0].r2 != many.curve[0].r2


def test_fits_that_run_side_by_side_end_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, opened, seen = run(search(lesson())), adapter(), list[Progress]()
    for workers in (2, 3, 8):
        monkeypatch.setattr(opened, "workers", workers)
        together = search(lesson())
        seen.clear()
        together.run(1e9, threading.Event(), seen.append)
        assert outcome(together) == outcome(alone)
        assert [progress.done for progress in seen] == list(range(1, 6 * N_FITS + 1))


def stopped_after(n_steps: int, end: Callable[[threading.Event], None]) -> Search:
    """Ended by ``end`` when that many steps were taken, over all fits."""
    searching, stop = search(lesson()), threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.done == n_steps:
            end(stop)

    searching.run(1e9, stop, on_progress)
    return searching


def ctrl_c(_: threading.Event) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", [threading.Event.set, ctrl_c], ids=["stop", "Ctrl-C"])
@pytest.mark.parametrize("n_steps", [1, 5, 7, 2 * N_FITS, 4 * N_FITS + 2])
def test_whoever_ends_it_gets_the_best_so_far(
    end: Callable[[threading.Event], None], n_steps: int
) -> None:
    searched, whole = stopped_after(n_steps, end), run(search(lesson()))
    assert searched.stopped == INTERRUPTED
    # A stop is seen before the next step; the one after a judgement's last step, behind it.
    judgements = 1 + n_steps // (2 * N_FITS)
    if end is ctrl_c and n_steps % (2 * N_FITS) == 0:
        judgements -= 1
    assert outcome(searched)[1:] == (
        outcome(whole)[1][:judgements],
        outcome(whole)[2][:judgements],
        outcome(whole)[3][:judgements],
    )
    assert searched.chosen in searched.moments


def test_a_stop_before_the_first_step_leaves_the_start() -> None:
    searching, stop, start = search(lesson()), threading.Event(), at_mean(6)
    stop.set()
    searching.run(1e9, stop, quiet)
    assert (searching.stopped, len(searching.curve)) == (INTERRUPTED, 1)
    assert bits(searching.chosen.tables[-1]) == bits(start)


def test_ctrl_c_right_after_the_first_judgement_leaves_the_start() -> None:
    searching = search(lesson())
    with contextlib.suppress(KeyboardInterrupt):
        searching.run(1e9, threading.Event(), quiet, lambda: ctrl_c(threading.Event()))
    assert (searching.stopped, len(searching.curve)) == (INTERRUPTED, 1)


def test_progress_counts_every_step_of_every_fit() -> None:
    seen, given = list[Progress](), lesson()
    searching = search(given, FALLING, start=tables_of(given.truth))
    searching.run(1e9, threading.Event(), seen.append)
    assert [progress.done for progress in seen] == list(range(1, 6 * N_FITS + 1))
    assert {progress.total for progress in seen} == {40 * N_FITS}
    per_judgement = 2 * N_FITS
    expected = [searching.curve[i // per_judgement].r2 for i in range(6 * N_FITS)]
    assert [progress.r2 for progress in seen] == pytest.approx(expected, abs=1e-9)
    left = [progress.left_s for progress in seen]
    assert all(seconds is not None and seconds > 0 for seconds in left)


@pytest.mark.parametrize("value", [1e30, float("nan")], ids=["absurd", "NaN"])
def test_a_loss_that_is_not_finite_ends_the_search(value: float) -> None:
    labels = lesson().labels()
    values = labels.values.copy()
    values[::3, 0] = value
    spoiled = dataclasses.replace(labels, values=values)
    message = "calibration: expected finite loss and gradients, got loss "
    with pytest.raises(CheckFailedError, match=rf"^{message}(inf|nan) at step 1; check the label"):
        run(Search(adapter(), prior(), spoiled, QUICK, at_mean(6), 0))


def test_gradients_that_are_not_finite_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = adapter()

    def broken(*arguments: Any) -> Any:
        loss, units, session = type(opened).gradients(opened, *arguments)
        return loss, units, np.full_like(session, np.inf)

    monkeypatch.setattr(opened, "gradients", broken)
    with pytest.raises(CheckFailedError, match=r"got loss \d+\.\d+ at step 1;"):
        run(search(lesson()))


def test_units_stay_within_their_bound() -> None:
    settings = dataclasses.replace(QUICK, lr_units=3.0, most_z=2.5)
    searched = run(search(lesson(), settings))
    for fit in searched.fits:
        assert np.abs(fit.moved["z"]).max() == pytest.approx(2.5)
    start = at_mean(6)
    tables = searched.fits[-1].tables()
    z = np.linalg.solve(prior().unit_root.astype(float), (tables.units - start.units).T)
    assert np.abs(z).max() == pytest.approx(2.5, rel=1e-3)


def test_the_pull_keeps_units_near_their_start() -> None:
    def moved(pull: float) -> float:
        settings = dataclasses.replace(QUICK, steps=8, judge_every=8, pull=pull)
        return float(np.abs(run(search(lesson(), settings)).fits[-1].moved["z"]).mean())

    assert moved(1e4) < 0.7 * moved(0.0)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("judge_every", 0, "an integer >= 1 or None"),
        ("batch_size", 0, "an integer >= 1 or None"),
        ("patience", 0, "an integer >= 1"),
        ("most_judged", 0, "an integer >= 1"),
        ("steps", 0, "an integer >= 1 or None"),
        ("judged_on_the_way", 0, "an integer >= 1 or None"),
        ("lr_units", 0.0, "a number > 0 or None"),
        ("lr_session", float("nan"), "a number > 0 or None"),
        ("clip_norm", -1.0, "a number > 0"),
        ("most_z", 0.0, "a number > 0"),
        ("tail_s", 0.0, "a number > 0"),
        ("pull", -0.1, "a number >= 0"),
        ("early_weight", float("inf"), "a number >= 0"),
        ("n_folds", 1, r"from 2 to n_blocks \(4\)"),
        ("n_folds", 5, r"from 2 to n_blocks \(4\)"),
    ],
)
def test_settings_without_sense_are_refused(field: str, value: float, expected: str) -> None:
    change: dict[str, Any] = {field: value}
    message = f"^{field}: expected {expected}, got {re.escape(repr(value))}$"
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(QUICK, **change)


@pytest.mark.parametrize(("seconds", "n_blocks"), [(6.0, 3), (9.0, 4), (12.0, 6), (300.0, 6)])
def test_few_labels_are_cut_into_fewer_blocks(seconds: float, n_blocks: int) -> None:
    assert FitSettings().blocks_for(seconds, 1.0) == n_blocks
