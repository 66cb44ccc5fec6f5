"""Times and values that can hardly be meant, and recordings of neurons that pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.arrays import Float64
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording, write_recording
from poyo_edge.recording.plausible import DOUBTS, SpikeSummary, behavior_doubts, check_plausible

RNG = np.random.default_rng(0)
SPIKES: Float64 = np.sort(RNG.uniform(0, 60, 4000))
ROWS: npt.NDArray[np.int64] = RNG.integers(0, 5, 4000)
TIMES: Float64 = np.arange(3000) / 50


def summary(times: Any = SPIKES, rows: Any = ROWS, n_units: int = 5) -> SpikeSummary:
    return SpikeSummary.of(times, rows, n_units)


OTHER_UNITS: dict[str, tuple[Any, str]] = {
    "milliseconds": (SPIKES * 1e3, "at least 0.1 spikes/s .* got 0.013 Hz for 16.7 hours"),
    "microseconds": (SPIKES * 1e6, "at most 24 hours, got 16.* hours"),
    "samples": (np.rint(SPIKES * 30000), "seconds with fractions, got 4000 whole numbers"),
    "minutes": (SPIKES / 60, "at most 1000 spikes/s of a unit, got 4[0-9]{3} Hz in unit 0"),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_times_in_another_unit_are_doubted(name: str) -> None:
    times, message = OTHER_UNITS[name]
    rows = ROWS * (name != "minutes")
    with pytest.raises(RecordingError, match=f"{message}.*--time-unit ms, us or samples"):
        check_plausible(Path("a"), summary(times, rows).doubts(), ())
    check_plausible(Path("a"), summary(times, rows).doubts(), ("time-unit",))


def test_float32_is_doubted_where_it_is_coarser_than_a_millisecond() -> None:
    def stored(start: float) -> list[str]:
        times = (SPIKES + start).astype(np.float32).astype(np.float64)
        return [doubt.name for doubt in summary(times).doubts()]

    assert stored(20000.0) == ["float32"]
    assert stored(5000.0) == []
    assert [doubt.name for doubt in summary(SPIKES + 20000.0).doubts()] == []


SESSIONS: dict[str, tuple[Any, Any, int]] = {
    "since 1970": (SPIKES + 1.7e9, ROWS, 5),
    "before an event at 0": (SPIKES - 100.0, ROWS, 5),
    "one second": (SPIKES / 60, ROWS % 100, 100),
    "sparse for eight hours": (SPIKES * 480, ROWS, 1000),
    "few whole numbers": (np.arange(20.0), np.zeros(20, np.int64), 1),
    "at one moment": (np.zeros(40) + 0.5, np.zeros(40, np.int64), 1),
    "none": (np.empty(0), np.empty(0, np.int64), 3),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_unusual_sessions_are_not_doubted(name: str) -> None:
    times, rows, n_units = SESSIONS[name]
    if name == "sparse for eight hours":  # 0.14 Hz
        rows = np.zeros(len(times), np.int64)
    assert list(summary(times, rows, n_units).doubts()) == []


def test_pieces_say_what_the_whole_says() -> None:
    for times in (SPIKES, SPIKES * 1e3, np.rint(SPIKES * 30000)):
        pieces = SpikeSummary(5)
        for first in range(0, 4000, 700):
            pieces.add(times[first : first + 700], ROWS[first : first + 700])
        whole = summary(times)
        assert list(pieces.doubts()) == list(whole.doubts())
        assert (pieces.n, pieces.first, pieces.last) == (whole.n, whole.first, whole.last)


BEHAVIORS: dict[str, tuple[Any, list[str]]] = {
    "beside the spikes": (TIMES, []),
    "for a part of them": (TIMES[:200] + 50, []),
    "far longer than they": (np.arange(5900) / 1.0 - 10 + RNG.uniform(0, 0.5, 5900), []),
    "of trials, now and then": (np.sort(RNG.uniform(0, 60, 12)), []),
    "since 1970": (TIMES + 1.7e9, ["overlap"]),
    "since the computer was started": (TIMES + 59.0, ["overlap"]),
    "in milliseconds": (TIMES * 1e3, ["sampling-rate", "overlap"]),
    "in milliseconds that jitter": (np.sort(RNG.uniform(0, 60000, 3000)), ["overlap"]),
    "by a period, not a rate": (np.arange(3000) * 50.0, ["sampling-rate", "overlap"]),
}


@pytest.mark.parametrize("name", BEHAVIORS)
def test_behaviour_has_to_lie_beside_the_spikes(name: str) -> None:
    times, expected = BEHAVIORS[name]
    found = list(behavior_doubts("cursor.vel", summary(), times))
    assert [doubt.name for doubt in found] == expected
    for doubt in found:
        assert doubt.name in DOUBTS
        assert doubt.name == "overlap" or "--behavior-time-unit ms" in doubt.do
        assert doubt.name != "overlap" or "--shift-behavior SECONDS" in doubt.do


def test_an_offset_far_larger_than_the_data_is_doubted() -> None:
    values = np.sin(TIMES)[:, None]

    def doubts(offset: float, scale: float = 1.0) -> list[str]:
        given = values * scale + offset
        return [d.name for d in behavior_doubts("a.b", summary(), TIMES, given, offset)]

    assert doubts(137.4) == ["offset"]
    assert doubts(0.5) == doubts(-5.0) == doubts(273.15, 30.0) == doubts(1.0, 0.0) == []


def recording(path: Path, change: Callable[[Any], None], accepted: tuple[str, ...] = ()) -> Path:
    """A recording of which something was changed after it was written."""
    write_recording(
        path, session_id="s", subject_id="m", unit_ids=[f"s/{i}" for i in range(5)],
        spike_times=SPIKES, spike_units=ROWS, accepted=accepted,
        behaviors={"cursor.vel": (TIMES, np.stack([np.sin(TIMES), np.cos(TIMES)], -1))},
        domains={"train": [(0.0, 50.0)], "test": [(50.0, 60.0)]},
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def in_milliseconds(file: Any) -> None:
    file["spikes/timestamps"][:] = SPIKES * 1e3


def of_another_clock(file: Any) -> None:
    file["cursor/timestamps"][:] = TIMES + 1.7e9


CHANGES = {"time-unit": in_milliseconds, "overlap": of_another_clock}


@pytest.mark.parametrize("name", CHANGES)
def test_training_and_judging_refuse_what_is_doubted_unless_it_was_accepted(
    tmp_path: Path, name: str
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from poyo_edge.training.lazy import LazyRecording

    with pytest.raises(RecordingError, match=f"poyo-edge convert .*--accept {name}"):
        LazyRecording.open(recording(tmp_path / "a.h5", CHANGES[name]), "cursor.vel", {})
    path = recording(tmp_path / "a.h5", CHANGES[name], accepted=("float32", name))
    assert LazyRecording.open(path, "cursor.vel", {}).session_id == "s"


def test_what_was_accepted_is_kept_where_torch_brain_opens_it(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.h5", lambda file: None, accepted=("overlap", "offset"))
    assert Recording.open(path).accepted == ("overlap", "offset")
    plain = recording(tmp_path / "b.h5", lambda file: None)
    assert Recording.open(plain).accepted == ()
    datasets = pytest.importorskip("torch_brain.datasets", reason="torch_brain is not installed")
    theirs = datasets.Dataset(tmp_path, recording_ids=["a"]).get_recording("a")
    assert theirs.session.id == "s"
