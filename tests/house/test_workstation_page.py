"""The page on Python at the workstation runs as it stands, on simulated recordings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.paths import ROOT

from poyo_edge.simulation import Simulation, simulate_study

pytest.importorskip("torch_brain", reason="training needs it")
pytest.importorskip("lightning", reason="training needs it")
PAGE = ROOT / "docs" / "how-to" / "python_on_the_workstation.md"


@pytest.mark.slow
def test_a_model_is_trained_exported_built_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulate_study(
        tmp_path / "recordings",
        n_sessions=1,
        simulation=Simulation(duration_s=30.0, n_units=8),
    )
    export, train, evaluate, read = re.findall(
        r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    names: dict[str, object] = {}
    exec(read, names)
    exec(train.replace("steps=20", "steps=2"), names)
    exec(evaluate, names)
    exec(export.replace("model.ckpt", "small.ckpt"), names)
    assert names["found"]["sessions"][0]["r2"]["causal"].keys() == {"model", "wiener"}  # type: ignore[index]
    assert names["plan"]["target"] == "cpu"  # type: ignore[index]
    assert names["report"].sessions == {"sim_00": 8}  # type: ignore[attr-defined]
