"""The command line as people and scripts meet it: in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.arrays import written_again
from helpers.commands import run, run_json, run_python
from helpers.damage import flip_bit
from typer.testing import CliRunner

from poyo_edge.artifact import Session
from poyo_edge.cli import app
from poyo_edge.errors import pip_install
from poyo_edge.journal import JournalHeader, JournalWriter
from poyo_edge.recording import Recording
from poyo_edge.simulation.recordings import Simulation, simulate_study


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds whose session the tiny artifact does not know."""
    simulation = Simulation(duration_s=20.0, n_units=6)
    folder = tmp_path_factory.mktemp("recordings")
    return simulate_study(folder, n_sessions=1, simulation=simulation)[0]


def test_help_and_version_need_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from poyo_edge.cli import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert set(run_json("--version")) == {"poyo_edge", "python"}
    assert run("--version").stdout.startswith("poyo-edge ")


@pytest.mark.slow
def test_no_command_and_unknown_ones_are_usage_errors() -> None:
    alone = run()
    assert alone.returncode == 2
    assert "calibrate" in alone.stdout + alone.stderr
    for words, reason in (
        (("decode",), "No such command 'decode'"),
        (("verify",), "Missing argument"),
        (("run", "x", "--from", "udp://127.0.0.1:0", "--rate", 0), "--rate"),
        (("verify", "x", "--loud"), "No such option: --loud"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert reason in done.stderr
        assert " --help" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("replay",)])
def test_python_m_prints_the_help_that_the_script_prints(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    script = tmp_path / "poyo-edge"  # as pip writes it
    script.write_text("import sys\nfrom poyo_edge.cli import main\nsys.exit(main())\n")
    by_script, by_module = (
        subprocess.run(
            [sys.executable, *how, *words, "--help"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for how in ([str(script)], ["-m", "poyo_edge"])
    )  # fmt: skip
    assert by_module == by_script
    assert by_module.lstrip().startswith(" ".join(["Usage: poyo-edge", *words]))
    assert "[OPTIONS]" in by_module


@pytest.mark.slow
def test_errors_name_the_command_however_it_was_called() -> None:
    for how in (["-m", "poyo_edge"], ["-c", "from poyo_edge.cli import main; main()"]):
        done = subprocess.run(
            [sys.executable, *how, "verify"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.endswith("; see poyo-edge verify --help\n")


def test_doctor_says_what_is_ready(tmp_path: Path) -> None:
    values = run_json("doctor")
    assert values["best_backend"] == "ort-cpu"
    assert isinstance(values["ready"], dict)
    assert values["ready"]["ort"] is True
    assert "ready    ort-cpu" in run("doctor").stdout
    assert "openvino" not in values["missing_backends"]  # type: ignore[operator]


def test_simulate_and_inspect_speak_of_the_same_recording(tmp_path: Path) -> None:
    values = run_json("simulate", tmp_path, "--sessions", 1, "--seconds", 20, "--units", 5)
    assert values["recordings"] == [str(tmp_path / "sim_00.h5")]
    about = run_json("inspect", tmp_path / "sim_00.h5")
    assert (about["kind"], about["session_id"], about["n_units"]) == ("recording", "sim_00", 5)
    assert about["behaviors"] == ["cursor.pos", "cursor.vel"]
    assert about["subject_id"] == "simulated"
    words = ("--sessions", 1, "--seconds", 5, "--units", 2, "--subjects", "each")
    run_json("simulate", tmp_path / "each", *words)
    assert run_json("inspect", tmp_path / "each/sim_00.h5")["subject_id"] == "simulated_0_0"


def test_verify_bench_and_inspect_an_artifact(tiny: Path) -> None:
    verified = run_json("verify", tiny)
    assert verified["ok"] is True
    assert isinstance(verified["checks"], list)
    timed = run_json("bench", tiny, "--spikes", 0, "--spikes", 50, "--repeats", 3)
    assert isinstance(timed["latency_ms"], list)
    assert [line["n_spikes"] for line in timed["latency_ms"]] == [0, 50]
    assert run_json("inspect", tiny)["kind"] == "artifact"
    session = next((tiny / "sessions").iterdir())
    assert run_json("inspect", session)["kind"] == "session"


def test_names_in_files_do_not_command_the_terminal(tmp_path: Path) -> None:
    header = JournalHeader(
        session_id="day\x1b[2J\x9b31m\r", unit_ids=("a\x1b]0;x\x07",), tick_rate_hz=1.0
    )
    JournalWriter(tmp_path / "a.journal", header).close()
    for flags in ((), ("--json",)):
        done = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.journal"), *flags])
        assert done.exit_code == 0
        assert "day\\u001b[2J\\u009b31m" in done.output
        assert not {"\x1b", "\x9b", "\r", "\x07"} & set(done.output)
    assert json.loads(done.output)["session_id"] == header.session_id


def test_something_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are read with torch")
    os.mkfifo(tmp_path / "x.ckpt")
    for words in (["inspect"], ["export", "-o", str(tmp_path / "x.poyo")]):
        done = CliRunner().invoke(app, [words[0], str(tmp_path / "x.ckpt"), *words[1:]])
        assert done.exit_code == 5
        assert "x.ckpt" in done.output


@pytest.mark.slow
def test_a_damaged_artifact_is_exit_5_in_one_line(tiny_copy: Path) -> None:
    core = tiny_copy / "core.onnx"
    flip_bit(core)
    done = run("verify", tiny_copy)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {core}: sha256: expected ")
    assert "copy the whole artifact again" in done.stderr


@pytest.mark.slow
def test_verify_answers_in_json_even_when_a_file_is_damaged(tiny_copy: Path) -> None:
    (tiny_copy / "golden.safetensors").unlink()
    done = run("verify", tiny_copy, "--json")
    assert done.returncode == 5
    values = json.loads(done.stdout)
    assert values["ok"] is False
    assert "golden.safetensors" in values["checks"][0]["detail"]
    assert done.stderr.startswith("error: ")


@pytest.mark.slow
def test_json_before_the_command_is_refused_rather_than_ignored() -> None:
    done = run("--json", "doctor")
    assert done.returncode == 2
    assert "move it" in done.stderr


def test_replay_says_when_units_are_missing_and_draws_its_pictures(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    header = Session.open(tiny / "sessions" / "tiny_a.session").header
    units = [*header.unit_ids[:4], "stranger/1", "stranger/2"]
    path = written_again(recording, tmp_path / "known.h5", unit_ids=units)
    pytest.importorskip("matplotlib")
    done = run("replay", tiny, path, "--behavior", "cursor.vel", "--report", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert "2 of 6 units are not in the session" in done.stderr
    assert "unknown_unit" in done.stdout
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert pictures == ["decoded_trace.png", "latency.png"]


@pytest.mark.slow
def test_a_place_where_no_picture_can_be_drawn_is_refused_before_the_work(
    tiny: Path, recording: Path
) -> None:
    done = run("replay", tiny, recording, "--behavior", "cursor.vel", "--report", recording)
    assert done.returncode in (2, 4)  # 4 where matplotlib is not installed
    assert "R²" not in done.stdout


@pytest.mark.slow
def test_simulate_replaces_recordings_only_when_told(tmp_path: Path) -> None:
    words = ("simulate", tmp_path, "--sessions", 1, "--seconds", 20, "--units", 3)
    assert run(*words).returncode == 0
    again = run(*words)
    assert again.returncode == 2
    assert "expected no simulated recordings, got sim_00.h5" in again.stderr
    assert run(*words, "--overwrite").returncode == 0


@pytest.mark.slow
def test_a_recording_of_an_unknown_session_is_exit_2(tiny: Path, recording: Path) -> None:
    done = run("replay", tiny, recording, "--behavior", "cursor.vel")
    assert done.returncode == 2
    assert "expected one for the recording's own id 'sim_00'" in done.stderr
    assert "--session" in done.stderr


@pytest.mark.slow
def test_build_for_the_cpu_says_what_is_settled_and_reports_it(
    tiny_copy: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = run("build", tiny_copy, "--target", "cpu", "--report", report, "--json",
               PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))  # fmt: skip
    values = json.loads(done.stdout)
    assert values["target"] == "cpu"
    assert values["engines"] == []
    assert values["settled"]
    assert values["native"] is None  # nothing to compile its operators with
    assert "sudo apt install g++" in values["unsettled"][0]
    written = json.loads(report.read_text())
    assert set(written) == {"build", "doctor"}
    assert written["build"]["parity"]["worst"] < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "target: expected one of ['jetson'"),
        (("--target", "nano"), 2, "got 'nano'"),
        (("--target", "jetson", "--systemd", "model.poyo"), 2, "expected the artifact's absolute"),
        (("--target", "cpu", "--report", "/no/such/folder/r.json"), 2, "an existing folder"),
        (("--target", "cuda"), 4, "error: "),
    ],
)
def test_build_refuses_in_one_line(
    tiny: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = run("build", tiny, *words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_missing_files_are_exit_5(tmp_path: Path, tiny: Path) -> None:
    for words in (
        ("verify", tmp_path / "no.poyo"),
        ("inspect", tmp_path / "no.h5"),
        ("replay", tiny, tmp_path / "no.h5", "--behavior", "cursor.vel"),
    ):
        done = run(*words)
        assert done.returncode == 5, done.stderr
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    assert "Traceback" in run("inspect", tmp_path / "no.h5", POYO_EDGE_DEBUG="1").stderr


@pytest.mark.slow
def test_a_command_without_its_extra_names_the_pip_command(tmp_path: Path) -> None:
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys\nclass Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'lightning', 'torch_brain'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    for words, extra in ((("export", "x.pt"), "export"), (("demo",), "all")):
        done = run(*words, PYTHONPATH=str(tmp_path))
        assert done.returncode == 4, done.stderr
        assert pip_install(extra) in done.stderr


def test_the_demo_ends_with_r2_latency_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("torch_brain")
    pytest.importorskip("lightning")
    pytest.importorskip("onnx")
    done = run("demo", "--out", tmp_path / "demo", "--steps", 300)
    assert done.returncode == 0, done.stderr
    for word in ("R²", "p99.9", "report.html", "latency.png", "Next:"):
        assert word in done.stdout
    report = json.loads((tmp_path / "demo" / "demo.poyo" / "report.json").read_text())
    assert report["replay"]["r2"] > 0.7
    assert report["replay"]["split"] == "test"
    end = run_json("inspect", tmp_path / "demo" / "sim_04.session")
    assert end["method"] == "calibration"
    assert end["r2_heldout"] > 0.85  # type: ignore[operator]


@pytest.mark.slow
def test_convert_lists_converts_and_refuses_in_one_line(recording: Path, tmp_path: Path) -> None:
    listed = run_json("convert", recording, "--list")
    assert [one["key"] for one in listed["series"]] == ["cursor.pos", "cursor.vel"]  # type: ignore[attr-defined]
    out = tmp_path / "again.h5"
    words = ["convert", recording, "-o", out, "--behavior", "cursor.vel", "--split", "0.5,0.2,0.3"]
    values = run_json(*words)
    assert values["behaviors"] == ["cursor.vel"]
    end = Recording.open(out).intervals("train")[0, 1]  # no split cuts a reach
    assert end == pytest.approx(10.0, abs=1.4)
    again = run(*words)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("error: ")
    assert "--overwrite" in again.stderr
    nothing = run("convert", tmp_path / "none.nwb")
    assert nothing.returncode == 5
    assert "Traceback" not in nothing.stderr
