"""A session's filter, from the file that ``calibrate`` wrote to what is exported after tuning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("matplotlib", reason="exporting draws its report")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("torch_brain.models", reason="training needs torch_brain")

import numpy as np  # noqa: E402
from helpers.training.calibrated import calibrated_to  # noqa: E402
from helpers.training.tiny_run import LAMB, TINY, stopping_at, tiny_study  # noqa: E402

from poyo_edge.artifact import Artifact  # noqa: E402
from poyo_edge.checkpoint import load_checkpoint  # noqa: E402
from poyo_edge.errors import CheckpointError, UsageError  # noqa: E402
from poyo_edge.evaluation.evaluate import EvaluationSettings, evaluate  # noqa: E402
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint  # noqa: E402
from poyo_edge.filters.mixed import MixedFilter  # noqa: E402
from poyo_edge.filters.named import NamedFilter  # noqa: E402
from poyo_edge.training import train  # noqa: E402
from poyo_edge.training.start import prepare  # noqa: E402

SHORT = dataclasses.replace(TINY, steps=2)
JUDGED = EvaluationSettings(behavior="cursor.vel", protocols=("causal",), baselines=(), every=10)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder)
    return folder


@pytest.fixture(scope="module")
def base(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "base.ckpt"
    return train([study / "sim_00.h5"], SHORT, out).checkpoint


def some_filter(n_units: int) -> MixedFilter:
    rng = np.random.default_rng(3)
    return MixedFilter(
        share=0.25,
        weights=rng.standard_normal((n_units, 10, 2)).astype("f4"),
        bias=np.array([1.0, -2.0], "f4"),
    )


def session_file(base: Path, to: Path, mixed: MixedFilter | None, names: tuple[str, ...]) -> Path:
    """What ``calibrate`` could have found of sim_01 for a checkpoint."""
    calibrated_to(base, names, session_id="sim_01", wiener=mixed).save(to)
    return to


BACKWARDS = tuple(f"sim_01/unit_{i:03d}" for i in reversed(range(1, 8)))
"""All units but the first, in another order than the recording's."""


@pytest.fixture(scope="module")
def tuned(study: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    day = session_file(base, folder / "day.session", some_filter(7), BACKWARDS)
    said = list[str]()
    found = train(
        [study / "sim_01.h5"], SHORT, folder / "tuned.ckpt", start_from=base,
        start_sessions=[day], on_note=said.append,
    )  # fmt: skip
    assert "1 of 1 sessions mix a Wiener filter in" in " ".join(said)
    return found.checkpoint


def test_a_filter_reaches_the_exported_session(tuned: Path, study: Path, tmp_path: Path) -> None:
    held = load_checkpoint(tuned)
    assert "Session 'sim_01' mixes a Wiener filter in, 25% of each value." in held.notes
    artifact = tmp_path / "tuned.poyo"
    export_checkpoint(tuned, artifact, ExportOptions(behavior="cursor.vel"))
    session = Artifact.open(artifact).session("sim_01")
    assert session.header.wiener_share == 0.25
    assert session.wiener is not None
    row = {name: i for i, name in enumerate(session.header.unit_ids)}
    given = some_filter(7).weights
    assert np.array_equal(session.wiener.weights[[row[name] for name in BACKWARDS]], given)
    assert not session.wiener.weights[row["sim_01/unit_000"]].any(), "no filter knows this unit"

    def r2(model: Path) -> Any:
        found = evaluate(model, [study / "sim_01.h5"], JUDGED)
        return np.array(found["sessions"][0]["r2_per_dim"]["causal"]["model"])

    np.testing.assert_allclose(r2(artifact), r2(tuned), atol=1e-4)
    plain = torch.load(tuned, weights_only=True)
    del plain["hyper_parameters"]["filters"]
    torch.save(plain, tmp_path / "plain.ckpt")
    assert np.abs(r2(tmp_path / "plain.ckpt") - r2(tuned)).min() > 0.01, "it is mixed in"


def test_a_filter_is_kept_by_a_run_that_goes_on_and_lost_where_it_says_nothing(
    tuned: Path, study: Path, tmp_path: Path
) -> None:
    def begun(**given: Any) -> dict[str, NamedFilter]:
        return dict(prepare([study / "sim_01.h5"], TINY, start_from=tuned, **given).filters)

    held = load_checkpoint(tuned).filters["sim_01"]
    again = begun()["sim_01"]
    assert again.unit_ids == held.unit_ids
    assert np.array_equal(again.mixed.weights, held.mixed.weights)
    plain = session_file(tuned, tmp_path / "plain.session", None, BACKWARDS)
    assert begun(start_sessions=[plain]) == {}, "what was calibrated last mixes nothing"
    other = TINY.with_behavior("cursor.pos")
    assert prepare([study / "sim_01.h5"], other, start_from=tuned).filters == {}
    assert prepare([study / "sim_00.h5"], TINY, start_from=tuned).filters == {}


def test_a_run_that_was_killed_keeps_the_filter(base: Path, study: Path, tmp_path: Path) -> None:
    day = session_file(base, tmp_path / "day.session", some_filter(7), BACKWARDS)
    recipe = dataclasses.replace(LAMB, steps=6)
    state, out = tmp_path / "run.resume", tmp_path / "run.ckpt"
    given: dict[str, Any] = {"start_from": base, "start_sessions": [day], "state": state}
    with pytest.raises(RuntimeError, match="killed"):
        train([study / "sim_01.h5"], recipe, out, **given, on_progress=stopping_at(4))
    plain = session_file(base, tmp_path / "plain.session", None, BACKWARDS)
    other = {**given, "start_sessions": [plain]}
    with pytest.raises(CheckpointError, match="those of sim_01, as the run began, got those of no"):
        train([study / "sim_01.h5"], recipe, out, **other, resume=True)
    train([study / "sim_01.h5"], recipe, out, **given, resume=True)
    assert load_checkpoint(out).filters["sim_01"].unit_ids == tuple(sorted(BACKWARDS))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"share": 0.0}, "expected a share above 0"),
        ({"share": "x"}, "could not convert"),
        ({"unit_ids": ["a"]}, "expected 7 unit ids, each once, got 1"),
        ({"unit_ids": ["a"] * 7}, "got 7, 1 of them different"),
        ({"weights": None}, "NoneType in place of a tensor"),
        ({"bias": torch.zeros(3)}, "weights \\(units, bins, outputs\\) and a bias"),
        ({"bias": torch.zeros(3), "weights": torch.zeros(7, 10, 3)}, "got 3 outputs"),
        ({"bias": torch.tensor([0.0, torch.nan])}, "got NaN"),
    ],
)
def test_a_damaged_filter_is_refused(
    tuned: Path, tmp_path: Path, damage: dict[str, Any], said: str
) -> None:
    broken = torch.load(tuned, weights_only=True)
    broken["hyper_parameters"]["filters"]["sim_01"] |= damage
    torch.save(broken, tmp_path / "broken.ckpt")
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "broken.ckpt")


@pytest.mark.parametrize("held", [[], {"sim_01": None}, {"sim_01": {}}])
def test_filters_of_another_form_are_refused(tuned: Path, tmp_path: Path, held: Any) -> None:
    broken = torch.load(tuned, weights_only=True)
    broken["hyper_parameters"]["filters"] = held
    torch.save(broken, tmp_path / "broken.ckpt")
    with pytest.raises(CheckpointError, match="the filter that a session mixes with 2 outputs"):
        load_checkpoint(tmp_path / "broken.ckpt")


def test_names_are_asked_for_each_unit() -> None:
    with pytest.raises(UsageError, match="expected 3 unit ids"):
        NamedFilter(unit_ids=("a", "b"), mixed=some_filter(3))
