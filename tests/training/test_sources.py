"""Folders and torch_brain's dataset classes as sources of sessions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")

from helpers.training.tiny_run import TINY, tiny_study  # noqa: E402

from poyo_edge.errors import RecordingError, UsageError  # noqa: E402
from poyo_edge.recording import Recording, write_recording  # noqa: E402
from poyo_edge.training import Source, load_recipe, train  # noqa: E402
from poyo_edge.training.lazy import STRIDE, LazyRecording  # noqa: E402
from poyo_edge.training.sources import open_sessions  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402
from poyo_edge.training.survey import early_warnings, survey  # noqa: E402
from poyo_edge.training.windows import Draw  # noqa: E402

CENTER_OUT = "c_20131003_center_out_reaching"
RANDOM_TARGET = "m_20140114_random_target_reaching"


def write(
    path: Path,
    behavior: str = "cursor.vel",
    spread: float = 20.0,
    intervals: Any = (),
    **change: Any,
) -> Path:
    """A recording of two units named as brainsets names them: alike in all sessions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(1000) / 50.0
    arrays: dict[str, Any] = {
        "session_id": path.stem,
        "subject_id": path.stem[0],
        "unit_ids": ["group_1/unit_0", "group_1/unit_1"],
        "spike_times": np.arange(400) / 20.0,
        "spike_units": np.arange(400) % 2,
        "behaviors": {behavior: (times, spread * np.stack([np.sin(times), np.cos(times)], -1))},
        "domains": {"all": [(0.0, 20.0)], "train": [(0.0, 12.0)], "valid": [(12.0, 14.0)]},
    }  # fmt: skip
    write_recording(path, **{**arrays, **change})
    with h5py.File(path, "a") as file:
        for name, spans in dict(intervals).items():
            group = file.create_group(name.replace(".", "/"))
            for edge, column in zip(("start", "end"), np.array(spans, float).T, strict=True):
                group.create_dataset(edge, data=column)
            keys = {"_unicode_keys": np.array([], "S"), "timekeys": np.array(["start", "end"], "S")}
            group.attrs.update({"object": "Interval", **keys})
            if "." in name:
                _data_with_domain(group.parent)
    return path


def _data_with_domain(parent: Any) -> None:
    """What torch_brain wants of a group of intervals."""
    if "domain" in parent:
        return
    parent.attrs.update({"object": "Data", "absolute_start": 0.0})
    domain = parent.create_group("domain")
    domain.create_dataset("start", data=[0.0])
    domain.create_dataset("end", data=[20.0])
    keys = {"_unicode_keys": np.array([], "S"), "timekeys": np.array(["start", "end"], "S")}
    domain.attrs.update({"object": "Interval", **keys})


def phases(*names: str) -> dict[str, Any]:
    return {f"movement_phases.{name}": [(i, i + 1)] for i, name in enumerate(names)} | {
        "cursor_outlier_segments": [(9.0, 9.5)]
    }


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A file or two of each set of the paper, where torch_brain's classes look for them."""
    perich = tmp_path / "perich_miller_population_2018"
    reach = ("random_period", "hold_period", "reach_period", "return_period", "invalid")
    write(perich / f"{CENTER_OUT}.h5", intervals=phases(*reach))
    write(perich / f"{RANDOM_TARGET}.h5", intervals=phases("random_period", "hold_period"))
    write(tmp_path / "odoherty_sabes_nonhuman_2017" / "indy_1.h5", spread=200.0)
    church = phases("hold_period", "reach_period", "return_period")
    write(
        tmp_path / "churchland_shenoy_neural_2012" / "jenkins_1.h5", spread=800.0, intervals=church
    )
    write(tmp_path / "pei_pandarinath_nlb_2021" / "jenkins_maze_train.h5", "hand.vel", 100.0)
    return tmp_path


def test_the_sets_of_poyo_1_are_found_by_torch_brains_classes(paper: Path) -> None:
    sessions = open_sessions(paper, load_recipe("poyo-1"))
    assert {s.session_id: s.source for s in sessions} == {
        CENTER_OUT: "center_out",
        RANDOM_TARGET: "random_target",
        "indy_1": "odoherty",
        "jenkins_1": "churchland",
        "jenkins_maze_train": "nlb_maze",
    }
    scales = {s.source: s.scale.scale for s in sessions}
    assert (scales["center_out"], scales["churchland"]) == ((20.0,), (800.0,))
    reach = sessions[0].recording
    weights = reach.sample_weights(np.array([0.5, 1.5, 2.5, 3.5, 4.5, 9.2, 11.0]))
    np.testing.assert_allclose(weights, [1.0, 0.1, 5.0, 1.0, 0.1, 0.0, 1.0], rtol=1e-6)


def test_units_of_the_same_name_in_many_sessions_never_collide(paper: Path) -> None:
    sessions = open_sessions(paper, load_recipe("poyo-1"))
    units = [unit for s in sessions for unit in s.recording.unit_ids]
    assert len(set(units)) == len(units) == 10
    assert f"{CENTER_OUT}/group_1/unit_0" in units
    folder = paper / "perich_miller_population_2018"
    again = open_sessions(folder, TINY)
    assert {u for s in again for u in s.recording.unit_ids} < set(units)


def test_one_model_is_trained_on_sources_of_several_scales(paper: Path) -> None:
    sources = load_recipe("poyo-1").data
    recipe = dataclasses.replace(TINY, data=sources, steps=2, unit_dropout=None)
    path = train(paper, recipe, paper / "one.ckpt").checkpoint
    stated = torch.load(path, weights_only=True)["hyper_parameters"]["dataset"]
    readouts = [source["config"]["readout"] for source in stated]
    assert [r["normalize_std"] for r in readouts] == [20.0, 20.0, 200.0, 800.0, 100.0]
    assert readouts[-1]["value_key"] == "hand.vel"


def test_what_a_decoder_gave_is_nothing_to_learn(tmp_path: Path) -> None:
    path = write(tmp_path / "day.h5", "decoded.value")
    recipe = load_recipe("small", []).with_behavior("decoded.value")
    with pytest.raises(RecordingError, match="behaviour that was measured"):
        open_sessions([path], recipe)


def test_the_unit_that_all_recordings_state_is_the_models(tmp_path: Path) -> None:
    cms: dict[str, Any] = {"behavior_units": {"cursor.vel": "cm/s"}}
    names = {name: tmp_path / f"{name}.h5" for name in ("a", "b", "c", "d")}
    for name in ("a", "b"):
        write(names[name], **cms)
    write(names["c"])
    write(names["d"], behavior_units={"cursor.vel": "m/s"})

    def unit(*files: str) -> str:
        source = dataclasses.replace(TINY.data["recordings"], scale=(), unit="")
        recipe = dataclasses.replace(TINY, data={"recordings": source})
        found = {s.scale.unit for s in open_sessions([names[name] for name in files], recipe)}
        return found.pop()

    assert unit("a", "b") == "cm/s"
    assert unit("a", "c") == ""  # nobody knows of c
    source = dataclasses.replace(TINY.data["recordings"], unit="cm/s")
    with pytest.raises(RecordingError, match=r"values in cm/s, .* got m/s; run: poyo-edge convert"):
        open_sessions([names["d"]], dataclasses.replace(TINY, data={"recordings": source}))
    with pytest.raises(RecordingError, match=r"values in cm/s, .* got m/s; run: poyo-edge convert"):
        unit("a", "d")


def test_a_window_holds_what_the_whole_recording_does(tmp_path: Path) -> None:
    (path,) = tiny_study(tmp_path, n_sessions=1)
    whole = Recording.open(path)
    behavior = whole.behavior("cursor.vel")
    lazy = LazyRecording.open(path, "cursor.vel", {})
    assert len(whole.spike_times) > STRIDE
    for start in (-1.0, 0.0, 3.3, float(whole.spike_times[STRIDE]), 19.7, 25.0):
        cut = lazy.cut(start, start + 1.0)
        spikes = slice(*np.searchsorted(whole.spike_times, [start, start + 1.0]))
        samples = slice(*np.searchsorted(behavior.times, [start, start + 1.0]))
        np.testing.assert_array_equal(cut.spike_times, whole.spike_times[spikes])
        np.testing.assert_array_equal(cut.spike_units, whole.spike_units[spikes])
        np.testing.assert_array_equal(cut.times, behavior.times[samples])
        np.testing.assert_array_equal(cut.values, behavior.values[samples])


def test_windows_can_end_where_samples_are(tmp_path: Path) -> None:
    (path,) = tiny_study(tmp_path, n_sessions=1)
    recipe = dataclasses.replace(TINY, unit_dropout=None, end_at_samples=True)
    plan = prepare([path], recipe)
    dataset, behavior = plan.dataset(), Recording.open(path).behavior("cursor.vel")
    draw = Draw("sim_00", 3.301, 4.301, seed=0)
    found = dataset[draw]
    end = behavior.times[behavior.times < draw.end][-1]
    inside = behavior.times[(behavior.times >= draw.start) & (behavior.times <= end)]
    queries = found["output_timestamps"].obj
    np.testing.assert_allclose(queries, inside - (end - 1.0), atol=1e-6)
    assert queries[-1] == 1.0
    live = dataset.causal("sim_00", end)
    np.testing.assert_array_equal(found["input_timestamps"].obj, live["input_timestamps"].obj)
    np.testing.assert_array_equal(found["input_unit_index"].obj, live["input_unit_index"].obj)


def test_workers_cut_the_same_windows(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    losses = [
        train(tmp_path, dataclasses.replace(TINY, steps=3, workers=n), tmp_path / "a.ckpt").losses
        for n in (0, 2)
    ]
    assert losses[0] == losses[1]


def test_what_cannot_be_found_is_named(paper: Path, tmp_path: Path) -> None:
    def refused(message: str, root: Path = paper, **change: Any) -> None:
        recipe = dataclasses.replace(TINY, data={"a": Source(**change)})
        with pytest.raises((UsageError, RecordingError), match=message):
            open_sessions(root, recipe)

    refused("got 'PerichMiler'", dataset="PerichMiler")
    refused("did you mean 'PerichMillerPopulation2018'", dataset="PerichMillerPopulation")
    elsewhere = tmp_path / "churchland_shenoy_neural_2012"
    perich = "PerichMillerPopulation2018"
    refused(r"expected the folder .*perich.*, got none; prepare", elsewhere, dataset=perich)
    refused(
        "expected recordings x_\\*", folder="perich_miller_population_2018", recordings=("x_*",)
    )
    refused("expected a folder of recordings, got none", tmp_path / "absent")
    refused(
        r"weights\.movement_phases\.reach_period: expected an interval of the recording",
        folder="odoherty_sabes_nonhuman_2017",
        weights={"movement_phases.reach_period": 5.0},
    )
    refused("test", dataset="PerichMillerPopulation2018", split="test")


def test_the_same_session_in_two_sources_is_refused_unless_one_has_a_prefix(paper: Path) -> None:
    folder = Source(folder="odoherty_sabes_nonhuman_2017")
    twice = dataclasses.replace(TINY, data={"a": folder, "b": folder})
    with pytest.raises(RecordingError, match=r"session id: .* one of their sources a prefix"):
        open_sessions(paper, twice)
    apart = dataclasses.replace(folder, prefix="monkey_b/")
    sessions = open_sessions(paper, dataclasses.replace(TINY, data={"a": folder, "b": apart}))
    assert [s.session_id for s in sessions] == ["indy_1", "monkey_b/indy_1"]
    assert sessions[1].recording.unit_ids[0] == "monkey_b/indy_1/group_1/unit_0"


def test_spikes_of_units_that_the_header_lacks_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["spikes/unit_index"][7] = 2
    with pytest.raises(RecordingError, match=r"rows 0 to 1 of units/id, got 2"):
        open_sessions(tmp_path, TINY)


def test_the_dry_run_says_what_a_run_would_cost(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    found = survey(prepare(tmp_path, TINY))
    assert (found["n_sessions"], found["n_units"], found["n_windows"]) == (2, 16, 28)
    assert found["steps_per_epoch"] == 3
    assert found["parameters"] > 1000 and found["samples_per_s"] > 0
    assert found["most_tokens_per_window"] >= found["tokens_per_window"] > 2 * TINY.spec.dim_out
    assert found["warnings"] == []


def test_what_ruins_runs_is_said_before_them(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", spike_units=np.zeros(400, dtype=int), spread=0.1)
    silent, flat, dropout = early_warnings(prepare(tmp_path, TINY))
    assert "a: 1 of 2 units have no spike, first a/group_1/unit_1" in silent
    assert "cursor.vel varies by" in flat and "check its scale" in flat
    assert "unit_dropout keeps at least 4 units" in dropout
