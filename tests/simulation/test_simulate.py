"""Simulated sessions: reproducible, plausible, and decodable by a causal linear decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.errors import UsageError
from poyo_edge.recording import Behavior, Recording
from poyo_edge.simulation.recordings import (
    Firing,
    Simulation,
    simulate_recording,
    simulate_study,
)

SHORT = Simulation(duration_s=20.0, n_units=8)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("simulated") / "day.h5"
    simulation = Simulation(duration_s=200.0, n_units=60)
    return Recording.open(simulate_recording(path, session_id="day", seed=3, simulation=simulation))


def test_the_same_seed_gives_the_same_session_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        Recording.open(
            simulate_recording(
                tmp_path / f"{name}.h5", session_id="day", seed=seed, simulation=SHORT
            )
        )
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    np.testing.assert_array_equal(first.spike_times, again.spike_times)
    np.testing.assert_array_equal(first.spike_units, again.spike_units)
    np.testing.assert_array_equal(
        first.behavior("cursor.vel").values, again.behavior("cursor.vel").values
    )
    assert not np.array_equal(first.spike_times, other.spike_times)


def test_sessions_of_a_study_share_neither_units_nor_movement(tmp_path: Path) -> None:
    paths = simulate_study(tmp_path / "study", n_sessions=3, seed=5, simulation=SHORT)
    recordings = [Recording.open(path) for path in paths]
    assert [r.session_id for r in recordings] == ["sim_00", "sim_01", "sim_02"]
    assert [path.name for path in paths] == ["sim_00.h5", "sim_01.h5", "sim_02.h5"]
    assert recordings[0].unit_ids[0] == "sim_00/unit_000"
    assert len({unit for r in recordings for unit in r.unit_ids}) == 3 * SHORT.n_units
    first, second = (r.behavior("cursor.vel").values for r in recordings[:2])
    assert not np.array_equal(first, second)


def test_sessions_are_of_one_animal_or_each_of_its_own(tmp_path: Path) -> None:
    of = {}
    for subjects in ("one", "each"):
        simulation = dataclasses.replace(SHORT, subjects=subjects)
        paths = simulate_study(tmp_path / subjects, n_sessions=2, seed=5, simulation=simulation)
        paths += simulate_study(
            tmp_path / f"{subjects}_6", n_sessions=1, seed=6, simulation=simulation
        )
        of[subjects] = [Recording.open(path) for path in paths]
    assert {one.subject_id for one in of["one"]} == {"simulated"}
    assert len({one.subject_id for one in of["each"]}) == 3, "of another seed too"
    for one, each in zip(*of.values(), strict=True):
        np.testing.assert_array_equal(one.spike_times, each.spike_times)
    with pytest.raises(UsageError, match=r"subjects: expected one of \['one', 'each'\], got 'two'"):
        Simulation(subjects="two")  # type: ignore[arg-type]


@pytest.mark.slow
def test_spikes_sit_on_the_clock_and_no_unit_fires_twice_in_a_tick(session: Recording) -> None:
    ticks = np.rint(session.spike_times * 10_000).astype(np.int64)
    np.testing.assert_array_equal(session.spike_times, ticks / 10_000)
    assert len({*zip(ticks.tolist(), session.spike_units.tolist(), strict=True)}) == len(ticks)
    assert session.within(session.spike_times, "all").all()


def test_velocity_is_the_derivative_of_position_with_rest_between_reaches(
    session: Recording,
) -> None:
    position, velocity = session.behavior("cursor.pos"), session.behavior("cursor.vel")
    derivative = np.gradient(position.values, position.times, axis=0)
    assert np.abs(derivative - velocity.values).max() < 0.05 * np.abs(velocity.values).max()
    resting = (velocity.values == 0).all(axis=1).mean()
    assert 0.1 < resting < 0.6
    assert np.abs(position.values).max() <= Simulation().workspace_cm


def test_splits_are_contiguous_and_share_70_10_20(session: Recording) -> None:
    edges = np.concatenate([session.intervals(split) for split in ("train", "valid", "test")])
    np.testing.assert_allclose(edges, [[0, 140], [140, 160], [160, 200]])
    assert edges[:-1, 1].tolist() == edges[1:, 0].tolist()


@pytest.mark.slow
def test_a_causal_linear_decoder_explains_most_but_not_all_of_the_velocity(
    session: Recording,
) -> None:
    r2 = wiener_r2(session, session.behavior("cursor.vel"))
    assert (r2 > 0.8).all()
    assert (r2 < 0.99).all()


def test_spikes_lead_the_movement(session: Recording) -> None:
    assert 0.05 <= lead_s(session) <= 0.15


def lead_s(recording: Recording) -> float:
    """How long before the speed all spikes together follow it best."""
    behavior = recording.behavior("cursor.vel")
    speed = np.hypot(*behavior.values.T)
    counts = np.histogram(recording.spike_times, np.append(behavior.times, 200.0))[0]
    lags = np.arange(-10, 11)
    similarity = [np.corrcoef(np.roll(counts, lag), speed)[0, 1] for lag in lags]
    return float(lags[np.argmax(similarity)] / 50.0)


def wiener_r2(
    recording: Recording, behavior: Behavior, n_bins: int = 10, bin_s: float = 0.05
) -> npt.NDArray[np.float64]:
    """Test R² per dimension of ridge regression on the spike counts before each sample."""
    edges = behavior.times[:, None] - bin_s * np.arange(n_bins, -1, -1)
    columns = [
        np.diff(np.searchsorted(recording.spike_times[recording.spike_units == unit], edges))
        for unit in range(len(recording.unit_ids))
    ]
    features = np.concatenate([*columns, np.ones((len(edges), 1))], axis=1).astype(np.float64)
    train, test = (recording.within(behavior.times, split) for split in ("train", "test"))
    gram = features[train].T @ features[train] + 300.0 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[train].T @ behavior.values[train])
    target = behavior.values[test]
    residual = ((target - features[test] @ weights) ** 2).sum(axis=0)
    r2: npt.NDArray[np.float64] = 1 - residual / ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    return r2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_s": 0.0}, "duration_s: expected a number > 0, got 0.0"),
        ({"n_units": 0}, "n_units: expected a number > 0, got 0"),
        ({"lead_s": (0.2, 0.1)}, r"lead_s: expected 0 <= low <= high, got \(0.2, 0.1\)"),
        ({"reach_s": (0.0, 0.1)}, "reach_s: expected seconds > 0"),
        ({"test_share": 0.95}, "valid_share, test_share: expected > 0, sum < 1"),
        ({"firing": "wild"}, r"firing: expected one of \['plain', 'rich'\], got 'wild'"),
    ],
)
def test_impossible_simulations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Simulation(**change)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("rich") / "day.h5"
    simulation = Simulation(duration_s=200.0, n_units=60, firing="rich")
    return Recording.open(simulate_recording(path, session_id="day", seed=3, simulation=simulation))


@pytest.mark.slow
def test_rich_units_lead_the_movement_and_keep_their_distance(rich: Recording) -> None:
    assert 0.05 <= lead_s(rich) <= 0.15
    for unit in range(len(rich.unit_ids)):
        own = rich.spike_times[rich.spike_units == unit]
        assert (np.diff(own) > 0.0019).all()
    assert rich.within(rich.spike_times, "all").all()
    assert (np.diff(rich.spike_times) >= 0).all()


@pytest.mark.slow
def test_rich_units_fluctuate_together_where_plain_ones_do_not(tmp_path: Path) -> None:
    def together(firing: Firing) -> float:
        """Mean square of the correlations of counts in 0.2 s at rest, between two units."""
        simulation = Simulation(
            duration_s=200.0, n_units=40, firing=firing, pause_s=(4.0, 5.0), base_hz=(14.0, 18.0)
        )
        path = simulate_recording(tmp_path / firing, session_id="s", seed=3, simulation=simulation)
        recording = Recording.open(path)
        behavior = recording.behavior("cursor.vel")
        still = (np.hypot(*behavior.values.T) == 0).reshape(-1, 10).all(1)
        edges = np.append(behavior.times[::10], 200.0)
        counts = np.array(
            [
                np.histogram(recording.spike_times[recording.spike_units == unit], edges)[0]
                for unit in range(len(recording.unit_ids))
            ]
        )
        found = np.corrcoef(counts[:, still])
        return float((found[np.triu_indices(len(found), 1)] ** 2).mean())

    assert together("rich") > 2 * together("plain")


@pytest.mark.slow
def test_rich_units_are_harder_to_decode_but_can_be(rich: Recording, session: Recording) -> None:
    harder = wiener_r2(rich, rich.behavior("cursor.vel"))
    assert (harder < wiener_r2(session, session.behavior("cursor.vel"))).all()
    assert (harder > 0.5).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rich_session(tmp_path: Path) -> None:
    simulation = Simulation(duration_s=20.0, n_units=8, firing="rich")
    first, again = (
        Recording.open(
            simulate_recording(
                tmp_path / f"{name}.h5", session_id="day", seed=1, simulation=simulation
            )
        )
        for name in ("first", "again")
    )
    np.testing.assert_array_equal(first.spike_times, again.spike_times)
    np.testing.assert_array_equal(first.spike_units, again.spike_units)
