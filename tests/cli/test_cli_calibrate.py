"""``poyo-edge calibrate`` in its own process: what it prints and writes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.calibrating.desk import TEST_S, TRAIN_S, Desk, finished, furnished, write, write_task
from helpers.calibrating.teacher import lesson, mixed
from helpers.commands import run_python, start
from helpers.paths import TINY
from helpers.reports.page import Page
from helpers.waiting import wait_until

from poyo_edge.artifact import Session

QUALITY = {
    "wiener_share",
    "r2_unmixed",
    "r2_heldout",
    "r2_per_dim",
    "r2_interval",
    "n_judged",
    "r2_in_use",
    "labelled_s",
    "steps",
    "wall_s",
    "stopped",
    "curve",
    "silent_units",
    "notes",
    "compared",
    "control",
    "label_speed",
    "labels",
    "started",
    "wiener",
    "behind_wiener",
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return furnished(tmp_path)


def bits(path: Path) -> bytes:
    session = Session.open(path)
    return session.unit_embedding.tobytes() + session.session_embedding.tobytes()


@pytest.mark.slow
def test_one_object_says_all_and_a_report_shows_it(desk: Desk) -> None:
    pytest.importorskip("matplotlib")
    done = desk.run("--start", desk.near, "--json", "--report", desk.folder / "report")
    assert done.code == 0, done.stderr
    values = done.json()
    examined = {"units", "alike", "r2_by_seconds"}
    rest = {"session", "behavior", "nan_samples", "peak_memory_mb", "report", "encoder"}
    assert set(values) == QUALITY | examined | rest
    assert values["nan_samples"] == 0
    assert values["session"] == str(desk.out)
    assert 0.8 < values["r2_heldout"] <= 1.0
    assert values["labelled_s"] == pytest.approx(TRAIN_S - 1.0, abs=0.15)
    assert [point["step"] for point in values["curve"]][:2] == [0, 10]
    assert values["steps"] in [point["step"] for point in values["curve"]]
    assert values["peak_memory_mb"] > 10
    assert {unit["unit"] for unit in values["units"]} == set(lesson().unit_ids)
    table, page, picture = map(Path, values["report"])
    assert (table.name, page.name) == ("calibration.json", "report.html")
    assert picture.name == "calibration.png"
    assert f"Held-out R² {values['r2_heldout']:.3f}" in Page(page.read_text()).text
    reported = json.loads(table.read_text())
    assert {**reported, "report": values["report"]} == values
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "held-out R²" in done.stderr
    assert "  8/8\n" in done.stderr, "two shares of the labels and six units"
    assert done.stderr.startswith("· fitting 6 units to 19.")
    header = Session.open(desk.out).header
    assert (header.session_id, header.method) == ("day", "calibration")
    assert header.r2_heldout == values["r2_heldout"]
    assert desk.files() == ["report", "today.session", "today.session.previous"]
    assert (desk.folder / "today.session.previous").read_bytes() == b"the old session"


WITHOUT_MATPLOTLIB = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "matplotlib" else find(name, *more)
sys.modules["matplotlib"] = None
from poyo_edge.cli import main
main()
"""


@pytest.mark.slow
def test_a_device_without_matplotlib_has_its_report_too(desk: Desk) -> None:
    done = run_python(
        WITHOUT_MATPLOTLIB, "calibrate", TINY, desk.recording, "-o", desk.out, "--start",
        desk.near, "--json", "-q", "--report", desk.folder / "report", cwd=desk.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = [Path(path).name for path in json.loads(done.stdout)["report"]]
    assert names == ["calibration.json", "report.html"]
    page = Page((desk.folder / "report" / "report.html").read_text())
    assert "Were there enough labels" in page.text
    assert len([one for one in page.of("svg") if one.get("role") == "img"]) == 4


@pytest.mark.slow
def test_people_read_the_curve_and_what_to_type_next(desk: Desk) -> None:
    done = desk.run("--start", desk.truth, "--in-use", desk.near, "--quiet")
    assert done.code == 0
    assert done.stderr == ""
    for words in ("step", "taken", "95 % intervals", "session in use", "memory", "wrote "):
        assert words in done.stdout
    line = done.stdout.rstrip().splitlines()[-1].split()
    assert line[1] == "replay"
    code, out, err = finished(start(*line[1:], "--json", cwd=desk.folder))
    assert code == 0, err
    assert json.loads(out)["r2"] > 0.9


@pytest.mark.slow
def test_a_bad_session_is_refused_with_its_figures_and_the_old_one_stays(desk: Desk) -> None:
    done = desk.run("--json")
    assert done.code == 3
    assert done.untouched
    values = done.json()
    assert values["session"] is None
    assert values["r2_heldout"] < 0
    message = done.stderr.splitlines()[-1]
    assert message.startswith(
        "error: session 'day': expected an R² above 0, which holding the mean"
    )
    assert f"got {values['r2_heldout']:.3f} (per dimension " in message
    assert message.endswith("or force it (force=True, --force)")
    assert desk.files() == ["today.session"]


@pytest.mark.slow
def test_worse_than_the_session_in_use_is_refused(desk: Desk) -> None:
    done = desk.run("--start", desk.near, "--in-use", desk.truth, "--quiet", "--max-wall", 1e-6)
    assert done.code == 3
    assert done.untouched
    assert done.stderr.count("\n") == 1
    assert "expected an R² of at least 1.000, which the session in use has" in done.stderr
    assert "nothing was written" in done.stdout


@pytest.mark.slow
def test_seeds_force_and_a_kill_in_the_middle(desk: Desk) -> None:
    """Forced, so that what was learned is saved; killed and begun again it is the same."""
    done = desk.run("--force", "--json", "--seed", 0)
    assert done.code == 0, done.stderr
    first, curve = bits(desk.out), done.json()["curve"]
    assert done.json()["r2_heldout"] < 0
    other = desk.run("--force", "--json", "--seed", 1)
    assert bits(desk.out) != first
    assert other.json()["curve"][0] == curve[0]
    assert other.json()["curve"] != curve
    before = desk.out.read_bytes()
    process = desk.started("--force", "--json", "--seed", 0)
    require_second_state(desk, process)
    process.kill()
    finished(process)
    assert desk.out.read_bytes() == before
    assert ".today.session.fit" in desk.files()
    again = desk.run("--force", "--json", "--seed", 0)
    assert again.code == 0, again.stderr
    assert bits(desk.out) == first
    assert again.json()["curve"] == curve
    assert "went on from step " in str(again.json()["notes"])
    left = [name for name in desk.files() if not name.endswith(".tmp")]
    assert left == ["today.session", "today.session.previous"]


def require_second_state(desk: Desk, process: subprocess.Popen[str]) -> None:
    """Wait until what is kept of the search is of the judgement behind the first steps."""
    states = set[int]()

    def second() -> bool:
        assert process.poll() is None, "it ended before it was disturbed"
        with contextlib.suppress(FileNotFoundError):
            states.add((desk.folder / ".today.session.fit").stat().st_ino)
        return len(states) == 2

    wait_until(second, every_s=1e-3)
    assert len(states) == 2


@pytest.mark.slow
def test_ctrl_c_saves_the_best_so_far(desk: Desk, tmp_path: Path) -> None:
    longer = write(tmp_path / "longer.h5", duration_s=60.0 + TEST_S)
    process = desk.started("--start", desk.near, "--json", recording=longer)
    require_second_state(desk, process)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert code == 0, err
    values = json.loads(out)
    assert values["stopped"] == "interrupted"
    assert values["session"] == str(desk.out)
    assert values["curve"][-1]["step"] >= 10
    assert Session.open(desk.out).header.method == "calibration"


@pytest.mark.slow
def test_ctrl_c_while_the_report_is_made_leaves_the_report_out(desk: Desk, tmp_path: Path) -> None:
    longer = write(tmp_path / "longer.h5", duration_s=60.0 + TEST_S)
    folder = desk.folder / "report"
    process = desk.started(
        "--start", desk.near, "--json", "--max-wall", 5, "--report", folder, recording=longer
    )
    assert process.stderr is not None
    while "taking each unit away" not in (line := process.stderr.readline()):
        assert line, "it ended before it was disturbed"
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert code == 0, err
    values = json.loads(out)
    assert (values["report"], values["session"]) == ([], str(desk.out))
    assert "units" not in values
    assert "no report" in err


@pytest.mark.slow
def test_a_session_in_use_of_other_units_is_no_rival(desk: Desk) -> None:
    done = desk.run("--in-use", "tiny_b", "--start", desk.truth, "--json", "--max-wall", 1e-6)
    assert done.code == 0
    assert done.json()["session"] == str(desk.out)


@pytest.mark.slow
def test_samples_that_are_nan_are_counted(desk: Desk, tmp_path: Path) -> None:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    values = given.values.copy()
    values[30:40, 1] = np.nan
    path = write(tmp_path / "day.h5", behaviors={"cursor.vel": (given.times, values)})
    done = desk.run("--start", desk.truth, "--json", "--max-wall", 1e-6, recording=path)
    assert done.json()["nan_samples"] == 10
    assert "· 10 samples of cursor.vel are NaN and were left out\n" in done.stderr


def test_labels_of_intention_become_a_session(desk: Desk) -> None:
    task = write_task(desk.folder.parent / "task.h5")
    done = desk.run(
        "--labels", "intention:observation", "--start", desk.near, "--json", recording=task
    )
    assert done.code == 0, done.stderr
    (made,) = done.json()["labels"]
    assert made["kind"] == "observation"
    assert made["trials_used"] == 10
    assert len(made["lead_curve"]) == 31
    assert set(done.json()["control"]) == {
        "angular_error_deg", "gain", "held_gain", "bias_at_rest", "noise_at_rest",
    }  # fmt: skip
    assert "labels of intention (observation) from 10 trials, moved by" in done.stderr
    (kept,) = Session.open(desk.out).header.labels
    assert kept.kind == "intention:observation"
    assert kept.lead_s == made["lead_s"]


@pytest.mark.slow
def test_a_session_behind_a_wiener_filter_is_saved_with_that_said(desk: Desk) -> None:
    given = mixed(1.5, duration_s=TRAIN_S + TEST_S)
    path = write(
        desk.folder.parent / "mixed.h5", behaviors={"cursor.vel": (given.times, given.values)}
    )
    words = ("--start", desk.truth)
    done = desk.run(*words, "--json", recording=path)
    assert done.code == 0, done.stderr
    values = done.json()
    wiener = values["wiener"]
    assert set(wiener) == {"r2_heldout", "r2_per_dim", "angular_error_deg", "wall_s", "use"}
    assert (values["behind_wiener"], wiener["use"]) == (True, "wiener")
    assert values["r2_heldout"] < wiener["r2_heldout"] <= 1.0
    (note,) = Session.open(desk.out).header.notes
    assert note == values["notes"][-1]
    done = desk.run(*words, recording=path)
    assert f"R² {wiener['r2_heldout']:.4f} on the same labels and blocks" in done.stdout
    assert "to use" in done.stdout
    assert "the filter: it decodes" in done.stdout
    assert f"note: {note}" in done.stdout
    code, out, err = finished(start("inspect", desk.out, cwd=desk.folder))
    assert code == 0, err
    assert note in out
    feed = f"file:{path}?speed=8"
    code, out, err = finished(
        start("run", TINY, "--session", desk.out, "--from", feed, cwd=desk.folder)
    )
    assert code == 0, err
    assert f"· note: this session is {note}\n" in err
