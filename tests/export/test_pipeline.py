"""From a checkpoint file to an artifact, and everything that must stop it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import SHARED
from helpers.reports.page import Page

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

from helpers.models.cores import SMALL  # noqa: E402

from poyo_edge.artifact import Artifact  # noqa: E402
from poyo_edge.checkpoint.layouts import LAYOUTS  # noqa: E402
from poyo_edge.errors import CheckFailedError, UsageError  # noqa: E402
from poyo_edge.export import pipeline  # noqa: E402
from poyo_edge.export.graph.fold import FoldedWeights, fold  # noqa: E402
from poyo_edge.export.pipeline import ExportOptions, export_checkpoint  # noqa: E402
from poyo_edge.model import POYO  # noqa: E402
from poyo_edge.runtime.checks.verify import verify  # noqa: E402
from poyo_edge.simulation.recordings import Simulation, simulate_study  # noqa: E402
from poyo_edge.spec import ModelSpec  # noqa: E402

SPEC = dataclasses.replace(SMALL, depth=1, latent_step_s=0.125)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    simulation = Simulation(duration_s=30.0, n_units=8)
    return simulate_study(
        tmp_path_factory.mktemp("recordings"), n_sessions=2, simulation=simulation
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sessions = ["sim_00", "sim_01"]
    units = [f"{session}/unit_{i:03d}" for session in sessions for i in range(8)]
    model = POYO(SPEC, units, sessions, emb_init_std=1.0)
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    torch.save(model.state_dict(), path)
    return path


def test_export_writes_an_artifact_that_verifies(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.poyo"
    report = export_checkpoint(checkpoint, out).to_json()
    assert report["max_abs_error"] <= report["tolerance"]
    assert report["sessions"] == {"sim_00": 8, "sim_01": 8}
    assert {line["n_spikes"] for line in report["parity"] if line["kind"] == "synthetic"} == {
        0, 1, 7, 8, 9, 100, 1000, 8000
    }  # fmt: skip
    assert all(check.ok for check in verify(out))
    assert json.loads((out / "report.json").read_text())["layout"] == "B3"
    assert "the checkpoint&#x27;s own model computes?" in (out / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["small.poyo"]


def test_long_steps_tell_how_far_they_are(checkpoint: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, list[tuple[int, int]]]] = []
    export_checkpoint(
        checkpoint,
        tmp_path / "x.poyo",
        ExportOptions(dry_run=True),
        on_step=lambda step: steps.append((step, [])),
        on_progress=lambda done, total: steps[-1][1].append((done, total)),
    )
    long = [(step, counts) for step, counts in steps if counts]
    assert all(step.startswith("comparing") for step, _ in long)
    assert len(long) == 3
    for _, counts in long:
        total = counts[0][1]
        assert counts == [(done, total) for done in range(1, total + 1)]


def test_export_with_a_recording_replays_it_and_draws_pictures(
    checkpoint: Path, recordings: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "small.poyo"
    options = ExportOptions(recording=recordings[1], behavior="cursor.vel")
    report = export_checkpoint(checkpoint, out, options).to_json()
    assert report["replay"]["protocol"] == "causal"
    assert any(line["kind"] == "recorded" for line in report["parity"])
    page = Page((out / "report.html").read_text())
    pictures = [one for one in page.of("svg") if one.get("role") == "img"]
    assert len(pictures) == 3, "two outputs and the latencies, within the page"
    assert not page.of("img")
    for word in ("Output 2: R²", "How long values took", f"B3: {LAYOUTS['B3'].help}"):
        assert word in page.text
    for name in ("decoded_trace.png", "latency.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert set(Artifact.open(out).manifest.files) >= {"latency.png", "report.json", "core.onnx"}


def test_failed_parity_is_exit_3_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slightly_wrong(weights: Any, spec: ModelSpec) -> FoldedWeights:
        folded = fold(weights, spec)
        bias = folded.readout[1] + np.float32(1e-3)
        return dataclasses.replace(folded, readout=(folded.readout[0], bias))

    monkeypatch.setattr(pipeline, "fold", slightly_wrong)
    with pytest.raises(CheckFailedError, match=r"parity: expected an error of at most .* got 1\.0"):
        export_checkpoint(checkpoint, tmp_path / "small.poyo")
    assert CheckFailedError.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_leaves_the_older_artifact(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small.poyo"
    export_checkpoint(checkpoint, out)
    before = (out / "manifest.json").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "write_report", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export_checkpoint(checkpoint, out, ExportOptions(overwrite=True))
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["small.poyo"]


def test_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    report = export_checkpoint(checkpoint, tmp_path / "x.poyo", ExportOptions(dry_run=True))
    assert report.artifact is None
    assert list(tmp_path.iterdir()) == []


def test_an_existing_artifact_is_kept_unless_told(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.poyo").mkdir()
    (tmp_path / "x.poyo" / "manifest.json").write_text("old")
    with pytest.raises(UsageError, match=r"expected a name that is free, .* or pass --overwrite$"):
        export_checkpoint(checkpoint, tmp_path / "x.poyo")
    assert (tmp_path / "x.poyo" / "manifest.json").read_text() == "old"
    with pytest.raises(UsageError, match=r"expected an existing folder to write into, got '.*/no'"):
        export_checkpoint(checkpoint, tmp_path / "no" / "x.poyo")
    export_checkpoint(checkpoint, tmp_path / "x.poyo", ExportOptions(overwrite=True))
    Artifact.open(tmp_path / "x.poyo")


def test_overwriting_never_replaces_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.pt"
    path.write_bytes(checkpoint.read_bytes())
    message = "expected a name that is free, got one where something else exists; choose another"
    with pytest.raises(UsageError, match=message):
        export_checkpoint(path, path, ExportOptions(overwrite=True))
    assert path.read_bytes() == checkpoint.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_overwriting_replaces_no_folder_of_something_else(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(UsageError, match="got one where something else exists"):
        export_checkpoint(checkpoint, tmp_path / "thesis", ExportOptions(overwrite=True))
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_keep_session_keeps_only_that_one(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.poyo"
    export_checkpoint(checkpoint, out, ExportOptions(keep_sessions=("sim_01",)))
    assert list(Artifact.open(out).session_files()) == ["sim_01"]
    with pytest.raises(UsageError, match=r"keep_sessions: expected some of .* got \['nobody'\]"):
        export_checkpoint(checkpoint, tmp_path / "x", ExportOptions(keep_sessions=("nobody",)))


def test_a_recording_of_another_session_is_refused(
    checkpoint: Path, recordings: list[Path], tmp_path: Path
) -> None:
    options = ExportOptions(
        recording=recordings[0], behavior="cursor.vel", keep_sessions=("sim_01",)
    )
    with pytest.raises(UsageError, match="got 'sim_00'; leave --recording out"):
        export_checkpoint(checkpoint, tmp_path / "x.poyo", options)
    with pytest.raises(UsageError, match=r"behavior: expected GROUP\.KEY beside a recording"):
        ExportOptions(recording=recordings[0])


def test_sessions_outlive_a_second_export_of_the_same_weights(
    checkpoint: Path, tmp_path: Path
) -> None:
    for name, scale in (("a.poyo", None), ("b.poyo", (3.0,))):
        export_checkpoint(checkpoint, tmp_path / name, ExportOptions(output_scale=scale))
    session = tmp_path / "a.poyo" / "sessions" / "sim_00.session"
    assert Artifact.open(tmp_path / "b.poyo").session(session).header.session_id == "sim_00"


def test_the_unit_is_the_argument_s_and_a_note_says_what_it_overruled(
    checkpoint: Path, tmp_path: Path
) -> None:
    stated = export_checkpoint(checkpoint, tmp_path / "a.poyo", ExportOptions())
    report = export_checkpoint(checkpoint, tmp_path / "b.poyo", ExportOptions(behavior_unit="mm/s"))
    output = Artifact.open(tmp_path / "b.poyo").manifest.output
    assert output == dataclasses.replace(stated.checkpoint.output, unit="mm/s")
    (note,) = set(report.checkpoint.notes) - set(stated.checkpoint.notes)
    assert "'mm/s'" in note
    for wrong in ("x" * 41, "cm\x1b[2J"):
        with pytest.raises(UsageError, match="behavior_unit: expected at most 40 characters"):
            ExportOptions(behavior_unit=wrong)


@pytest.mark.parametrize("name", ["wf5_bare.pt", "wf5_v0.1.0.ckpt", "wf5_v0.1.2.ckpt"])
def test_checkpoints_that_torch_brain_wrote_export(name: str, tmp_path: Path) -> None:
    path = SHARED / "checkpoints" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: checkpoints of others are not part of the project")
    scale = None if name == "wf5_v0.1.0.ckpt" else (10.0,)
    report = export_checkpoint(path, tmp_path / "wf5.poyo", ExportOptions(output_scale=scale))
    values = report.to_json()
    assert values["max_abs_error"] <= 1e-5 * values["output_sd"]
    assert values["output"]["scale"] == [10.0]
    assert len(values["sessions"]) == 5
