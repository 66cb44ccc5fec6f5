"""Which schedule a fit gets: by labels and model, never by the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import QUICK, adapter, at_mean, lesson, prior, run, search

from poyo_edge.calibration import FitSettings
from poyo_edge.calibration.fit import search as searching
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.schedule import (
    Schedule,
    long_schedule,
    schedule_for,
    short_schedule,
    with_encoder,
)
from poyo_edge.calibration.fit.search import Search
from poyo_edge.calibration.fit.start import nothing_known
from poyo_edge.spec import POYO_1_3M, POYO_11_8M, ModelSpec

SMALL = dataclasses.replace(POYO_1_3M, depth=2, self_heads=4, latents_per_step=8)
MODELS = (SMALL, POYO_1_3M, POYO_11_8M)
SECONDS = (0.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 1e6)


def test_products_are_counted() -> None:
    """By hand: 16 latents of 2 dimensions, one head of 2, no layer, 3 spikes and one query."""
    spec = ModelSpec(
        dim=2, depth=0, dim_head=2, cross_heads=1, self_heads=1, latents_per_step=2, dim_out=1,
        ffn_mult=1, rotating_pairs=1,
    )  # fmt: skip
    scores_and_values, projection, feed_forward, decoder = 2 * (3 + 1) * 2, 4, 12, 8
    assert spec.products_flop(3) == 2 * 16 * (
        scores_and_values + projection + feed_forward + decoder
    )
    # One layer: queries, keys, values, projection; scores and values over 16 latents.
    layer = 4 * 4 + 2 * 16 * 2 + 12
    one = dataclasses.replace(spec, depth=1)
    assert one.products_flop(3) - spec.products_flop(3) == 2 * 16 * layer


def test_a_small_model_keeps_the_long_schedule() -> None:
    for seconds in SECONDS:
        assert schedule_for(seconds, SMALL) == with_encoder(long_schedule(seconds), seconds)
    at_two_minutes = schedule_for(120.0, SMALL)
    assert (at_two_minutes.steps, at_two_minutes.batch_size) == (80, 32)
    assert at_two_minutes.judged_on_the_way == FitSettings().most_judged


def test_a_small_model_gets_a_second_stage_from_a_minute_on_or_where_nothing_is_known() -> None:
    steps = [schedule_for(seconds, SMALL).encoder_steps for seconds in SECONDS]
    assert steps[:4] == [0, 0, 0, 0] and steps[4:] == sorted(steps[4:]) and steps[5] == 60
    rates = [schedule_for(s, SMALL).lr_encoder for s in (60.0, 120.0, 300.0, 1e6)]
    assert rates == pytest.approx([1.5e-4, 3e-4, 7.5e-4, 1e-3])
    stranger = schedule_for(30.0, SMALL, from_prior=True)
    assert (stranger.encoder_steps, stranger.lr_encoder) == (36, 2e-3)
    among_others = schedule_for(120.0, SMALL, from_prior=True, from_afar=True)
    assert (among_others.encoder_steps, among_others.lr_encoder) == (180, 2e-3)
    for spec in (POYO_1_3M, POYO_11_8M):
        large = [schedule_for(s, spec, from_prior=p) for s in SECONDS for p in (False, True)]
        assert not any(schedule.encoder_steps for schedule in large)


@pytest.mark.parametrize("spec", [POYO_1_3M, POYO_11_8M], ids=["1.3M", "11.8M"])
def test_a_large_model_takes_few_windows_of_many_labels(spec: ModelSpec) -> None:
    share = 0.25 if spec == POYO_11_8M else 0.5
    for seconds in (5.0, 15.0, 30.0):
        few = dataclasses.replace(long_schedule(seconds), share_of_folds=share)
        assert schedule_for(seconds, spec) == few
    for seconds in (32.0, 60.0, 120.0, 600.0):
        many = dataclasses.replace(short_schedule(seconds), share_of_folds=share)
        assert schedule_for(seconds, spec) == many
    whole = schedule_for(120.0, spec)
    assert (whole.steps, whole.batch_size) == (240, 4)


@pytest.mark.parametrize(
    ("schedule", "fewest", "most"), [(long_schedule, 20, 240), (short_schedule, 60, 720)]
)
def test_more_labels_get_no_fewer_steps(
    schedule: Callable[[float], Schedule], fewest: int, most: int
) -> None:
    steps = [schedule(seconds).steps for seconds in SECONDS]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (fewest, most)


def test_no_large_model_pays_more_than_at_two_minutes_for_fewer_labels() -> None:
    most = schedule_for(120.0, POYO_11_8M).windows
    assert all(schedule_for(s, POYO_11_8M).windows <= most for s in np.arange(0.0, 120.0, 0.5))


@pytest.mark.parametrize("spec", [SMALL, POYO_11_8M], ids=["small", "11.8M"])
def test_the_way_from_the_prior_takes_more_steps_where_labels_are_few(spec: ModelSpec) -> None:
    for seconds in (5.0, 15.0, 30.0):
        usual, begun = (
            schedule_for(seconds, spec, from_prior=from_prior) for from_prior in (False, True)
        )
        assert usual.steps < begun.steps == 40
        assert dataclasses.replace(first_stage(begun), steps=usual.steps) == usual
    for seconds in (60.0, 120.0, 300.0):
        begun, usual = schedule_for(seconds, spec, from_prior=True), schedule_for(seconds, spec)
        assert first_stage(begun) == first_stage(usual)


def first_stage(schedule: Schedule) -> Schedule:
    usual = long_schedule(1.0)
    return dataclasses.replace(
        schedule, encoder_steps=usual.encoder_steps, lr_encoder=usual.lr_encoder
    )


def search_from(begin: Tables, settings: FitSettings) -> Search:
    return Search(adapter(), prior(), lesson(duration_s=8.0).labels(), settings, begin, 0)


def test_a_search_knows_whether_it_begins_with_the_prior() -> None:
    known = Tables(units=at_mean(6).units + np.float32(0.1), session=at_mean(6).session)
    assert nothing_known(at_mean(6), prior())
    assert not nothing_known(known, prior())
    settings = FitSettings(n_folds=2)
    assert search_from(at_mean(6), settings).schedule.steps == 40
    assert search_from(known, settings).schedule.steps == 20
    assert [fit.total for fit in search_from(known, settings).fits] == [20] * 3


def test_what_settings_give_wins() -> None:
    given = FitSettings(n_folds=2, steps=7, batch_size=3, lr_units=0.5)
    schedule = search_from(at_mean(6), given).schedule
    assert (schedule.steps, schedule.batch_size, schedule.lr_units) == (7, 3, 0.5)
    usual = long_schedule(8.0)
    assert (schedule.judge_every, schedule.lr_session) == (usual.judge_every, usual.lr_session)
    quick = first_stage(search_from(at_mean(6), QUICK).schedule)
    assert quick == QUICK.over(long_schedule(1.0))
    assert dataclasses.replace(quick, walking=True) == QUICK.over(short_schedule(1.0))


def test_steps_for_counts_steps_of_the_long_schedule_unless_they_are_given() -> None:
    assert FitSettings().steps_for(120.0) == 80
    assert FitSettings(steps=7).steps_for(3600.0) == 7


def test_folds_of_a_large_model_take_fewer_windows_and_all_labels_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sharing(*arguments: Any, **known: Any) -> Schedule:
        return dataclasses.replace(schedule_for(*arguments, **known), share_of_folds=0.5)

    assert [schedule_for(120.0, spec).of_a_fold().batch_size for spec in MODELS] == [32, 2, 1]
    assert [schedule_for(120.0, spec).batch_size for spec in MODELS] == [32, 4, 4]
    settings = dataclasses.replace(QUICK, patience=99)
    given = lesson()
    whole = run(search(given, settings))
    monkeypatch.setattr(searching, "schedule_for", sharing)
    half = run(search(given, settings))
    assert len(half.fits) == len(whole.fits) == settings.n_folds + 1
    assert np.array_equal(half.moments[-1].tables[-1].units, whole.moments[-1].tables[-1].units)
    for fold in range(settings.n_folds):
        ours, theirs = half.moments[-1].tables[fold], whole.moments[-1].tables[fold]
        assert not np.array_equal(ours.units, theirs.units)
        assert half.fits[fold].steps == whole.fits[fold].steps
    assert np.array_equal(half.chosen.judged.truth, whole.chosen.judged.truth)
