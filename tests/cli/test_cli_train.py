"""``train``, ``evaluate`` and ``scaling`` as people type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torch_brain")
pytest.importorskip("onnx_ir")

from helpers.reports.page import Page
from helpers.training.tiny_run import tiny_study
from typer.testing import CliRunner

from poyo_edge.cli import app
from poyo_edge.simulation.recordings import Simulation, simulate_study

RECIPE = """
about = "tiny"
steps = 6
batch_size = 8
lr = 1e-2
threads = 1
validate_every = 3
validate_samples = 20
[model]
dim = 16
depth = 1
dim_head = 16
cross_heads = 1
self_heads = 2
latents_per_step = 4
[data.recordings]
scale = [10.0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tiny_study(folder / "recordings")
    (folder / "tiny.toml").write_text(RECIPE)
    done = run("train", folder / "tiny.toml", "--data", folder / "recordings", "-o",
               folder / "tiny.ckpt", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in arguments])


def test_train_prints_what_it_did(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.ckpt"
    recordings = folder / "recordings"
    done = run("train", folder / "tiny.toml", "--data", recordings, "-o", out, "--json", "-q")
    found = json.loads(done.stdout)
    assert found["sessions"] == ["sim_00", "sim_01"]
    assert (found["steps"], found["n_units"]) == (6, 16)
    assert set(found["valid_r2"]) == {"sim_00", "sim_01"}
    assert out.is_file() and not (tmp_path / "a.ckpt.resume").exists()
    assert (tmp_path / "a.ckpt.logs" / "from_step_0000000" / "metrics.csv").is_file()


def test_people_see_progress_with_rates_and_what_to_type_next(folder: Path, tmp_path: Path) -> None:
    done = run("train", folder / "tiny.toml", "--data", folder / "recordings", "-o",
               tmp_path / "a.ckpt")  # fmt: skip
    assert "samples/s" in done.stderr and "left" in done.stderr
    assert "causal R²" in done.stderr
    assert f"evaluate {tmp_path / 'a.ckpt'}" in done.stdout


def test_people_see_how_far_from_its_start_a_tuned_model_is(folder: Path, tmp_path: Path) -> None:
    words = ("train", "finetune", "--data", folder / "recordings" / "sim_01.h5",
             "--from", folder / "tiny.ckpt", "--set", "epochs=1", "--set", "threads=1")  # fmt: skip
    done = run(*words, "-o", tmp_path / "a.ckpt", "--set", "identify_epochs=0")
    assert done.exit_code == 0, done.output
    assert "of the way from what tuning began with" in done.stdout
    whole = run(*words, "-o", tmp_path / "b.ckpt", "--set", "start_worth_s=0",
                "--set", "identify_epochs=0", "--json", "-q")  # fmt: skip
    early = run(*words, "-o", tmp_path / "c.ckpt", "--json", "-q")  # ten rounds of embeddings first
    assert [json.loads(done.stdout)["start_share"] for done in (whole, early)] == [0, 0]


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    done = run("train", "demo", "--data", folder / "recordings", "-o", tmp_path / "a.ckpt",
               "--dry-run")  # fmt: skip
    assert done.exit_code == 0, done.output
    for word in ("tokens per window", "parameters", "memory", "samples/s", "epoch"):
        assert word in done.stdout
    assert "unit_dropout keeps at least 30 units" in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_a_run_has_left_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    words = ("train", folder / "tiny.toml", "--data", folder / "recordings")
    before = (folder / "tiny.ckpt").read_bytes()
    done = run(*words, "-o", folder / "tiny.ckpt")
    assert (done.exit_code, "expected a name that is free" in done.stderr) == (2, True)
    assert (folder / "tiny.ckpt").read_bytes() == before
    (tmp_path / "b.ckpt.resume").write_bytes(b"state")
    done = run(*words, "-o", tmp_path / "b.ckpt")
    assert (done.exit_code, "continue it with --resume" in done.stderr) == (2, True)
    assert (tmp_path / "b.ckpt.resume").read_bytes() == b"state"
    done = run(*words, "-o", tmp_path / "b.ckpt", "--resume")
    assert done.exit_code == 5 and done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tiny",), 2, "got 'tiny'"),
        (("demo", "--set", "steps=abc"), 2, "steps: expected an integer, got 'abc'"),
        (("demo", "--set", "data.recordings.behavior=eye.pos"), 5, "eye.pos: expected one of the"),
        (("demo", "--set", "data.recordings.split=none"), 5, "none_domain: expected one of"),
        (("demo", "--set", "model.window_s=30.0"), 5, "expected an interval of at least one wind"),
        (("demo", "--from", "absent.ckpt"), 5, "absent.ckpt"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run("train", *arguments, "--data", folder / "recordings", "-o", tmp_path / "a.ckpt")
    assert done.exit_code == code, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_and_its_artifact_are_judged_alike(folder: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "tiny.poyo"
    assert run("export", folder / "tiny.ckpt", "-o", artifact, "-q").exit_code == 0
    found = []
    for model in (folder / "tiny.ckpt", artifact):
        done = run("evaluate", model, "--data", folder / "recordings", "--baselines", "none",
                   "--behavior", "cursor.vel", "--json", "-q")  # fmt: skip
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout)["sessions"])
    for one, other in zip(*found, strict=True):
        for protocol in ("causal", "acausal"):
            assert one["r2_per_dim"][protocol]["model"] == pytest.approx(
                other["r2_per_dim"][protocol]["model"], abs=1e-4
            )
    done = run("replay", artifact, folder / "recordings" / "sim_00.h5", "--behavior", "cursor.vel",
               "--json", "-q")  # fmt: skip
    causal = found[0][0]["r2"]["causal"]["model"]
    assert json.loads(done.stdout)["r2"] == pytest.approx(causal, abs=1e-4)


def test_an_evaluation_writes_tables_and_a_picture(folder: Path, tmp_path: Path) -> None:
    done = run("evaluate", folder / "tiny.ckpt", "--data", folder / "recordings", "--against",
               folder / "tiny.ckpt", "--every", "4", "--report", tmp_path / "report", "-q",
               "--baselines", "wiener,mlp,gru", "--protocol", "causal")  # fmt: skip
    assert done.exit_code == 0, done.output
    table = (tmp_path / "report" / "evaluation.md").read_text()
    assert "| causal | model | against | wiener | mlp | gru |" in table
    assert "mean of simulated (2)" in table
    values = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    r2 = values["sessions"][0]["r2"]["causal"]
    assert r2["model"] == r2["against"]
    assert set(r2) == {"model", "against", "wiener", "mlp", "gru"}
    assert (tmp_path / "report" / "evaluation.png").stat().st_size > 5000
    page = Page((tmp_path / "report" / "report.html").read_text()).text
    assert f"{r2['model']:.3f}" in page
    assert "mean of simulated (2)" in page


def test_sessions_that_the_model_does_not_know_are_left_out_or_refused(
    folder: Path, tmp_path: Path
) -> None:
    (other,) = simulate_study(tmp_path, n_sessions=1, simulation=Simulation(duration_s=20.0))
    strange = other.rename(tmp_path / "x.h5")
    import h5py

    with h5py.File(strange, "a") as file:
        file["session"].attrs["id"] = "x"
    done = run("evaluate", folder / "tiny.ckpt", "--data", strange)
    assert done.exit_code == 2
    assert "expected recordings of sessions that it was trained on, got x" in done.stderr
    done = run("evaluate", folder / "tiny.ckpt", "--data", tmp_path / "none")
    assert done.exit_code == 2 and "expected recordings (*.h5), got none" in done.stderr
    done = run("evaluate", folder / "tiny.ckpt", "--data", strange, "--baselines", "lstm")
    assert done.exit_code == 2 and "expected some of wiener, mlp, gru" in done.stderr


def test_units_that_are_named_alike_in_all_sessions_work_to_the_end(tmp_path: Path) -> None:
    import h5py

    for path in tiny_study(tmp_path / "recordings"):
        with h5py.File(path, "a") as file:
            names = [name.decode().partition("/")[2] for name in file["units/id"][()]]
            del file["units/id"]
            file["units"].create_dataset("id", data=[name.encode() for name in names])
    (tmp_path / "tiny.toml").write_text(RECIPE)
    for words in (
        ("train", tmp_path / "tiny.toml", "--data", tmp_path / "recordings", "-o", tmp_path / "a"),
        ("export", tmp_path / "a", "-o", tmp_path / "a.poyo", "--behavior", "cursor.vel"),
        ("replay", tmp_path / "a.poyo", tmp_path / "recordings" / "sim_01.h5"),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
    assert "units are not in the session" not in done.stderr


@pytest.mark.slow
def test_scaling_goes_on_where_it_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = tmp_path / "recordings"
    simulate_study(recordings, n_sessions=3, simulation=Simulation(duration_s=40.0, n_units=8))
    words = ("scaling", folder / "tiny.toml", "--data", recordings, "-o", tmp_path / "out",
             "--held-out", "1", "--seconds", "20", "--json", "--sessions", "1")  # fmt: skip
    first = run(*words)
    assert first.exit_code == 0, first.output
    trained = list[int]()
    from poyo_edge.evaluation import scaling

    original = vars(scaling)["train"]

    def counting(data: Any, *arguments: Any, **more: Any) -> Any:
        trained.append(len(data))
        return original(data, *arguments, **more)

    monkeypatch.setattr(scaling, "train", counting)
    second = run(*words, "--sessions", "2")
    assert trained == [2]
    cells = json.loads(second.stdout)["cells"]
    assert [cell["n_sessions"] for cell in cells] == [1, 2]
    assert cells[0] == json.loads(first.stdout)["cells"][0]
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 5000
    assert (tmp_path / "out" / "scaling.md").read_text().count("\n") == 4
    done = run(*words, "--seconds", "10")
    assert done.exit_code == 2 and "expected the cells of this study" in done.stderr
    done = run(*words, "--sessions", "3")
    assert done.exit_code == 2 and "expected at most 2 (3 recordings, 1 held out)" in done.stderr


@pytest.mark.slow
def test_scaling_judges_after_several_seconds_beside_a_gru(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poyo_edge.evaluation import pretrained_gru, scaling

    monkeypatch.setattr(pretrained_gru, "FEWEST_STEPS", 10)
    monkeypatch.setattr(pretrained_gru, "STEPS_PER_SESSION", 1)
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    simulate_study(recordings, n_sessions=2, simulation=Simulation(duration_s=60.0, n_units=8))
    words = ("scaling", folder / "tiny.toml", "--data", recordings, "-o", out, "--held-out", "1",
             "--sessions", "1", "--seconds", "20", "--seconds", "0", "--json",
             "--baselines", "gru-pretrained")  # fmt: skip
    few = run(*words, "--seconds", "0.5")
    assert few.exit_code == 2 and "or 1 and more, got 0.5" in few.stderr
    refused = run(*words)
    assert refused.exit_code == 2 and "--set share_units=electrode" in refused.stderr
    assert not list(out.glob("*"))
    shared = ("--set", "share_units=electrode")
    original = vars(scaling)["replay"]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "replay", killed)
    run(*words, *shared)
    monkeypatch.setattr(scaling, "replay", original)
    monkeypatch.setattr(scaling, "train", killed)  # which it has behind it
    done = run(*words, *shared)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for one in (*found["cells"], *found["baselines"]):
        (session,) = one["heldout"]
        assert list(one["r2_by_seconds"]) == list(session["r2_by_seconds"]) == ["0", "20"]
        assert one["r2"] == one["r2_by_seconds"]["20"] == session["r2"]
        assert len(set(one["r2_by_seconds"].values())) == 2
    assert [one["decoder"] for one in found["baselines"]] == ["gru-pretrained"]
    table = (out / "scaling.md").read_text()
    assert "R², 0 s | R², 20 s" in table and "| 1 | gru-pretrained | – | – |" in table
    assert (out / "scaling.png").stat().st_size > 5000
    done = run(*words, *shared, "--baselines", "lstm")
    assert done.exit_code == 2 and "expected gru-pretrained or none, got lstm" in done.stderr
