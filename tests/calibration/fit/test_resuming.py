"""A search that was killed and goes on ends with the bits of one that was not."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    QUICK,
    adapter,
    at_mean,
    beside_spread,
    lesson,
    prior,
    quiet,
    run,
    search,
)

from poyo_edge.calibration import Progress
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.resuming import ResumeFile
from poyo_edge.calibration.fit.search import ALL_STEPS, PAST_BEST, Search
from poyo_edge.errors import SessionError
from poyo_edge.files import tensors

CORE = "c0" * 32
N_FITS = QUICK.n_folds + 1
N_JUDGED = 4
FALLING = dataclasses.replace(QUICK, steps=40, lr_units=1.0)
"""From the truth every step leads away, so the search ends before its schedule does."""


class Killed(BaseException):
    """What ends a search here; nothing catches it."""


@functools.cache
def truth() -> Tables:
    session = lesson().truth
    return Tables(units=session.unit_embedding, session=session.session_embedding)


@functools.cache
def uninterrupted(*, falling: bool) -> Search:
    return run(begun(falling=falling))


def begun(*, falling: bool = False) -> Search:
    return search(lesson(), FALLING if falling else QUICK, start=truth() if falling else None)


def outcome(searched: Search) -> tuple[Any, ...]:
    return (
        searched.stopped,
        searched.curve,
        [fit.steps for fit in searched.fits],
        [fit.tables().units.tobytes() for fit in searched.fits],
        [
            [tables.units.tobytes() + tables.session.tobytes() for tables in moment.tables]
            for moment in searched.moments
        ],
        [
            (moment.judged.truth.tobytes(), moment.judged.decoded.tobytes())
            for moment in searched.moments
        ],
        [moment.judged.block.tolist() for moment in searched.moments],
    )


def killed(path: Path, *, judgements: int, steps: int = 0, falling: bool = False) -> None:
    """A search that dies so many steps after so many judgements."""
    searching = begun(falling=falling)
    kept = ResumeFile(path, searching, CORE)

    def on_judged() -> None:
        kept.save()
        if len(searching.curve) == judgements and not steps:
            raise Killed

    def on_progress(progress: Progress) -> None:
        if len(searching.curve) == judgements and progress.done % (2 * N_FITS) == steps:
            raise Killed

    with pytest.raises(Killed):
        searching.run(1e9, threading.Event(), on_progress, on_judged)


def resumed(path: Path, *, falling: bool = False) -> Search:
    searching = begun(falling=falling)
    kept = ResumeFile(path, searching, CORE)
    assert kept.load()
    searching.run(1e9, threading.Event(), quiet, kept.save)
    return searching


@pytest.mark.slow
@pytest.mark.parametrize("judgements", range(1, N_JUDGED))
@pytest.mark.parametrize("steps", [0, 1, N_FITS + 1])
def test_a_resumed_search_ends_with_the_same_bits(
    tmp_path: Path, judgements: int, steps: int
) -> None:
    path = tmp_path / "day.fit"
    killed(path, judgements=judgements, steps=steps)
    assert outcome(resumed(path)) == outcome(uninterrupted(falling=False))
    assert uninterrupted(falling=False).stopped == ALL_STEPS


@pytest.mark.slow
def test_being_killed_again_and_again_changes_no_bit(tmp_path: Path) -> None:
    path = tmp_path / "day.fit"
    killed(path, judgements=1, steps=2)
    for judgements in (2, 3):
        searching = begun()
        kept = ResumeFile(path, searching, CORE)
        assert kept.load()
        assert len(searching.curve) == judgements - 1
        die = functools.partial(die_after, kept)
        with pytest.raises(Killed):
            searching.run(1e9, threading.Event(), quiet, die)
    assert outcome(resumed(path)) == outcome(uninterrupted(falling=False))


def die_after(kept: ResumeFile) -> None:
    kept.save()
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("judgements", [1, 2, 3])
def test_a_search_past_its_best_ends_there_after_a_kill_too(
    tmp_path: Path, judgements: int
) -> None:
    path = tmp_path / "day.fit"
    assert uninterrupted(falling=True).stopped == PAST_BEST
    killed(path, judgements=judgements, falling=True)
    assert outcome(resumed(path, falling=True)) == outcome(uninterrupted(falling=True))


@pytest.mark.slow
@pytest.mark.parametrize("falling", [False, True])
def test_a_kill_after_the_last_judgement_changes_nothing(tmp_path: Path, falling: bool) -> None:
    path = tmp_path / "day.fit"
    judgements = len(uninterrupted(falling=falling).curve)
    killed(path, judgements=judgements, falling=falling)
    assert outcome(resumed(path, falling=falling)) == outcome(uninterrupted(falling=falling))


@pytest.mark.slow
def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    path = tmp_path / "day.fit"
    killed(path, judgements=2)
    searching = begun()
    kept = ResumeFile(path, searching, CORE)
    assert kept.load()
    assert searching.curve == uninterrupted(falling=False).curve[:2]
    assert [fit.steps for fit in searching.fits] == [2] * N_FITS
    seen = list[int]()
    searching.run(1e9, threading.Event(), lambda progress: seen.append(progress.done))
    assert seen[0] == 2 * N_FITS + 1, "steps before the kill count as done"


def require_ignored(path: Path, searching: Search | None = None, core_hash: str = CORE) -> None:
    """Neither loaded nor half loaded: the search begins anew and ends as if there were no file."""
    fresh = searching or begun()
    assert not ResumeFile(path, fresh, core_hash).load()
    assert fresh.curve == []
    for fit in fresh.fits:
        assert fit.steps == 0
        assert not fit.optimizer.mean
        assert all((moved == 0).all() for moved in fit.moved.values())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "day.fit"
    killed(path, judgements=2)
    return path


def test_no_file_is_no_state(tmp_path: Path) -> None:
    require_ignored(tmp_path / "none.fit")
    require_ignored(tmp_path)


def test_a_file_cut_off_anywhere_is_ignored(file: Path) -> None:
    data = file.read_bytes()
    searching = begun()
    kept = ResumeFile(file, searching, CORE)
    for length in [0, 1, 7, 8, 9, 100, *range(0, len(data), len(data) // 60), len(data) - 1]:
        file.write_bytes(data[:length])
        assert not kept.load()
    require_ignored(file, searching)
    file.write_bytes(data + b"\0")
    require_ignored(file, searching)


@pytest.mark.slow
def test_a_flipped_bit_in_the_numbers_is_ignored(file: Path) -> None:
    data = file.read_bytes()
    first = 8 + int.from_bytes(data[:8], "little")
    searching = begun()
    kept = ResumeFile(file, searching, CORE)
    for place in np.linspace(first, len(data) - 1, 80).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        assert not kept.load(), f"byte {place}"
    require_ignored(file, searching)


def test_a_flipped_bit_in_the_curve_is_ignored(file: Path) -> None:
    data = file.read_bytes()
    damaged = bytearray(data)
    damaged[data.index(b'r2\\": -1') + 7] ^= 1
    file.write_bytes(damaged)
    require_ignored(file)


def rewritten(path: Path, change: Any) -> None:
    """The file as another program would have written it: its own checksum is right."""
    arrays, metadata = tensors.from_bytes(path.read_bytes(), path, SessionError)
    (key,) = metadata
    values = json.loads(metadata[key])
    change(values, arrays)
    path.write_bytes(tensors.to_bytes(arrays, {key: json.dumps(values)}))


@pytest.mark.parametrize("what", ["fingerprint", "checksum", "curve"])
def test_a_header_without_what_is_needed_is_ignored(file: Path, what: str) -> None:
    rewritten(file, lambda values, arrays: values.pop(what))
    require_ignored(file)


def test_a_header_of_other_things_is_ignored(file: Path) -> None:
    rewritten(file, lambda values, arrays: values.update(curve=[{"step": 0}]))
    require_ignored(file)
    file.write_bytes(tensors.to_bytes({}, {"poyo_edge_search": "[1]"}))
    require_ignored(file)
    file.write_bytes(tensors.to_bytes({}, {"poyo_edge_search": "{oops"}))
    require_ignored(file)
    file.write_bytes(tensors.to_bytes({"x": np.zeros(2, np.float32)}, {"made_by": "someone"}))
    require_ignored(file)


def test_a_header_too_deep_to_read_is_ignored(file: Path) -> None:
    file.write_bytes(tensors.to_bytes({}, {"poyo_edge_search": "[" * 100_000}))
    require_ignored(file)


def test_a_session_file_in_its_place_is_ignored(file: Path) -> None:
    lesson().truth.save(file)
    require_ignored(file)


def test_the_state_of_another_search_is_ignored(file: Path) -> None:
    given = lesson()
    labels = given.labels()
    start = at_mean(6)
    nudged = Tables(units=start.units, session=start.session + np.float32(1e-6))
    one_less = dataclasses.replace(labels, times=labels.times[:-1], values=labels.values[:-1])
    one_time = labels.times.copy()
    one_time[5] += 1e-6
    one_value = labels.values.copy()
    one_value[5, 0] += 1e-9
    others = {
        "seed": search(given, seed=1),
        "settings": search(given, dataclasses.replace(QUICK, lr_units=0.11)),
        "start": search(given, start=nudged),
        "units": Search(
            adapter(),
            prior(),
            dataclasses.replace(labels, n_units=7),
            QUICK,
            at_mean(7),
            0,
        ),
        "labels": Search(adapter(), prior(), one_less, QUICK, start, 0),
        "a time": Search(
            adapter(), prior(), dataclasses.replace(labels, times=one_time), QUICK, start, 0
        ),
        "a value": Search(
            adapter(), prior(), dataclasses.replace(labels, values=one_value), QUICK, start, 0
        ),
        "spikes": Search(
            adapter(), prior(), labels.of_units(np.array([1, 0, 2, 3, 4, 5])), QUICK, start, 0
        ),
    }
    for other in others.values():
        require_ignored(file, other)
    require_ignored(file, core_hash="d1" * 32)
    assert ResumeFile(file, begun(), CORE).load(), "it is still good for its own search"


def test_saving_leaves_one_file_and_removing_none(file: Path) -> None:
    assert [found.name for found in file.parent.iterdir()] == ["day.fit"]
    kept = ResumeFile(file, begun(), CORE)
    kept.remove()
    assert list(file.parent.iterdir()) == []
    kept.remove()


@pytest.mark.slow
def test_a_calibration_forgets_its_state_once_it_ends_by_itself(tmp_path: Path) -> None:
    path, stop = tmp_path / "day.fit", threading.Event()
    calibrator = lesson().calibrator(QUICK)
    whole = calibrator.fit()

    def on_progress(progress: Progress) -> None:
        if progress.done == 3 * N_FITS:
            stop.set()

    early = calibrator.fit(resume_file=path, stop=stop, on_progress=on_progress)
    assert early.quality.stopped == "interrupted"
    assert [point.step for point in early.quality.curve] == [0, 2]
    assert path.exists(), "an interrupted one may go on later"
    done = list[int]()
    later = calibrator.fit(resume_file=path, on_progress=lambda p: done.append(p.done))
    assert done[0] == 2 * N_FITS + 1
    assert later.unit_embedding.tobytes() == whole.unit_embedding.tobytes()
    assert later.session_embedding.tobytes() == whole.session_embedding.tobytes()
    assert later.quality.curve == whole.quality.curve
    assert beside_spread(later.quality.notes) == ("went on from step 2 of an earlier run",)
    assert beside_spread(whole.quality.notes) == ()
    assert not path.exists()


@pytest.mark.slow
def test_a_calibration_out_of_time_may_go_on_later(tmp_path: Path) -> None:
    path = tmp_path / "day.fit"
    calibrator = lesson().calibrator(QUICK)
    early = calibrator.fit(max_seconds=1e-9, resume_file=path)
    assert early.quality.stopped == "time"
    assert path.exists()
    later = calibrator.fit(resume_file=path)
    assert later.quality.curve == calibrator.fit().quality.curve
    assert not path.exists()


@pytest.mark.slow
def test_a_damaged_state_costs_only_time(tmp_path: Path) -> None:
    path = tmp_path / "day.fit"
    path.write_bytes(b"no state at all")
    calibrator = lesson().calibrator(QUICK)
    fitted = calibrator.fit(resume_file=path)
    assert fitted.unit_embedding.tobytes() == calibrator.fit().unit_embedding.tobytes()
    assert not path.exists()
