"""``poyo-edge calibrate`` in its own process: what it prints, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from poyo_edge.calibration.from_recording import add_recording
from poyo_edge.console_text import calibrate_text
from poyo_edge.recording import Recording, write_recording
from poyo_edge.session import Session

sys.path.append(str(Path(__file__).parent))
from teacher import TINY, drifted, lesson

QUALITY = {
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
}
TRAIN_S, TEST_S = 20.0, 6.0
PROGRAM = """
import signal
from poyo_edge.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Ctrl-C counts even where the tests run in the background of a shell, which ignores it."""
WORDS = [sys.executable, "-c", PROGRAM]
ENVIRONMENT = {**os.environ, "COLUMNS": "200"}
PATIENCE_S = 300.0


class Desk(NamedTuple):
    """A folder with a recording of new units and what is there before the command runs."""

    folder: Path
    recording: Path
    truth: Path
    """The session that made the behaviour."""
    near: Path
    """One that has drifted from it."""
    out: Path
    """Where the new session goes; an old one is there."""

    def run(self, *arguments: object, recording: Path | None = None) -> Done:
        """The command on this desk, ended."""
        code, out, err = finished(self.started(*arguments, recording=recording))
        return Done(code, out, err, self.out.read_bytes() == b"the old session")

    def started(self, *arguments: object, recording: Path | None = None) -> subprocess.Popen[str]:
        words = ["calibrate", TINY, recording or self.recording, "-o", self.out, *arguments]
        return subprocess.Popen(
            [*WORDS, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=self.folder,
        )

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    untouched: bool
    """Whether the old session is still there."""

    def json(self) -> dict[str, Any]:
        assert self.stdout.count("\n") == 1, self.stderr

        def no_json(constant: str) -> Any:
            raise AssertionError(f"{constant} is no JSON")

        values: dict[str, Any] = json.loads(self.stdout, parse_constant=no_json)
        return values


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def write(path: Path, *, duration_s: float = TRAIN_S + TEST_S, **changes: Any) -> Path:
    given = lesson(duration_s=duration_s)
    end = given.times[-1] + 0.05
    arrays: dict[str, Any] = {
        "session_id": "day",
        "subject_id": "nobody",
        "unit_ids": given.unit_ids,
        "spike_times": given.spike_times[given.spike_times < end],
        "spike_units": given.spike_rows[given.spike_times < end],
        "behaviors": {"cursor.vel": (given.times, given.values)},
        "domains": {"train": [(0.0, end - TEST_S)], "test": [(end - TEST_S, end)]},
    }
    return write_recording(path, **(arrays | changes))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return furnished(tmp_path)


def furnished(folder: Path) -> Desk:
    made = Desk(
        folder=folder / "desk",
        recording=write(folder / "day.h5"),
        truth=folder / "truth.session",
        near=folder / "near.session",
        out=folder / "desk" / "today.session",
    )
    made.folder.mkdir()
    lesson().truth.save(made.truth)
    drifted(lesson().truth, 0.1).save(made.near)
    made.out.write_bytes(b"the old session")
    return made


def bits(path: Path) -> bytes:
    session = Session.open(path)
    return session.unit_embedding.tobytes() + session.session_embedding.tobytes()


def test_one_object_says_all_and_a_report_shows_it(desk: Desk) -> None:
    pytest.importorskip("matplotlib")
    done = desk.run("--start", desk.near, "--json", "--report", desk.folder / "report")
    assert done.code == 0, done.stderr
    values = done.json()
    examined = {"units", "alike", "r2_by_seconds"}
    rest = {"session", "behavior", "nan_samples", "peak_memory_mb", "report"}
    assert set(values) == QUALITY | examined | rest
    assert values["nan_samples"] == 0
    assert values["session"] == str(desk.out)
    assert 0.8 < values["r2_heldout"] <= 1.0
    assert values["labelled_s"] == pytest.approx(TRAIN_S - 1.0, abs=0.15)
    assert [point["step"] for point in values["curve"]][:2] == [0, 10]
    assert values["steps"] in [point["step"] for point in values["curve"]]
    assert values["peak_memory_mb"] > 10
    assert {unit["unit"] for unit in values["units"]} == set(lesson().unit_ids)
    table, picture = map(Path, values["report"])
    assert (table.name, picture.name) == ("calibration.json", "calibration.png")
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


def test_people_read_the_curve_and_what_to_type_next(desk: Desk) -> None:
    done = desk.run("--start", desk.truth, "--in-use", desk.near, "--quiet")
    assert done.code == 0
    assert done.stderr == ""
    for words in ("step", "taken", "95 % intervals", "session in use", "memory", "wrote "):
        assert words in done.stdout
    line = done.stdout.rstrip().splitlines()[-1].split()
    assert line[1] == "replay"
    replay = [str(word) for word in line[1:]]
    again = subprocess.run(
        [*WORDS, *replay, "--json"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=desk.folder,
        timeout=PATIENCE_S,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["r2"] > 0.9


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


def test_worse_than_the_session_in_use_is_refused(desk: Desk) -> None:
    done = desk.run("--start", desk.near, "--in-use", desk.truth, "--quiet", "--max-wall", 1e-6)
    assert done.code == 3
    assert done.untouched
    assert done.stderr.count("\n") == 1
    assert "expected an R² of at least 1.000, which the session in use has" in done.stderr
    assert "nothing was written" in done.stdout


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
    deadline = time.monotonic() + PATIENCE_S
    while len(states) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it was disturbed"
        try:
            states.add((desk.folder / ".today.session.fit").stat().st_ino)
        except FileNotFoundError:
            time.sleep(1e-3)
    assert len(states) == 2


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


def test_what_is_not_enough_is_said_with_what_would_be(desk: Desk) -> None:
    done = desk.run("--seconds", 5, "--quiet")
    require_one_line(done, 2, "error: labels: expected at least 12 labelled s")
    assert "got 4.0" in done.stderr


def velocity(change: Callable[[npt.NDArray[np.float64]], Any]) -> dict[str, Any]:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    return {"behaviors": {"cursor.vel": (given.times, change(given.values))}}


def shuffled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.random.default_rng(0).permutation(values)


def still(path: Path) -> Path:
    return write(path, **velocity(lambda values: values * [0.0, 1.0]))


def unordered(path: Path) -> Path:
    return write(path, **velocity(shuffled))


def all_nan(path: Path) -> Path:
    return write(path, **velocity(lambda values: values * np.nan))


def another_time(path: Path) -> Path:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    return write(
        path,
        behaviors={"cursor.vel": (given.times + 100.0, given.values)},
        domains={"train": [(100.0, 120.0)], "test": [(120.0, 126.0)]},
    )


def three_dimensions(path: Path) -> Path:
    return write(path, **velocity(lambda values: np.repeat(values[:, :1], 3, axis=1)))


def with_ids(path: Path, ids: list[str]) -> Path:
    """As no writer of ours would write it."""
    write(path)
    with h5py.File(path, "r+") as file:
        del file["units/id"]
        file["units"].create_dataset("id", data=np.array(ids, dtype="S"))
    return path


def doubled(path: Path) -> Path:
    return with_ids(path, [*lesson().unit_ids[:5], lesson().unit_ids[0]])


def no_units(path: Path) -> Path:
    with_ids(path, [])
    with h5py.File(path, "r+") as file:
        for name in ("timestamps", "unit_index"):
            dtype = file["spikes"][name].dtype
            del file["spikes"][name]
            file["spikes"].create_dataset(name, data=np.empty(0, dtype))
    return path


def absent(path: Path) -> Path:
    return path


def plain(path: Path) -> Path:
    return write(path)


class Bad(NamedTuple):
    """A recording, more arguments, and how the command has to end."""

    make: Callable[[Path], Path]
    arguments: tuple[str, ...]
    code: int
    message: str


BAD = {
    "no movement": Bad(still, (), 2, "behavior: expected movement in every dimension, a standard"),
    "shuffled labels": Bad(unordered, (), 2, "behavior: expected samples in order of time"),
    "another clock": Bad(another_time, (), 2, "labels: expected spikes in the window before most"),
    "NaN": Bad(all_nan, (), 5, "train_domain: expected samples of cursor.vel that are no NaN, got"),
    "three dimensions": Bad(three_dimensions, (), 5, "expected 2 dimensions, as the model decodes"),
    "an id twice": Bad(doubled, (), 5, "units/id: expected "),
    "zero units": Bad(no_units, (), 5, "units/id: expected "),
    "no file": Bad(absent, (), 5, "expected an HDF5 recording, got no such file"),
    "no such start": Bad(plain, ("--start", "me"), 2, "or one of the 2 ids [tiny_a, tiny_b], got"),
    "start of another core": Bad(plain, ("--start", "F"), 5, "F: core_hash: expected "),
    "in use of another core": Bad(plain, ("--in-use", "F"), 5, "F: core_hash: expected "),
    "no such behavior": Bad(plain, ("--behavior", "a.b"), 5, "a.b: expected one of the behaviours"),
    "no such split": Bad(plain, ("--split", "x"), 5, "x_domain: expected one of the splits all, "),
    "no seconds": Bad(plain, ("--seconds", "0"), 2, "seconds: expected a number > 0, got 0.0"),
    "no time": Bad(plain, ("--max-wall", "0"), 2, "max_seconds: expected seconds > 0, got 0.0"),
    "a folder": Bad(plain, ("-o", "."), 2, ".: expected a file to write, got a folder; name it w"),
    "no folder": Bad(plain, ("-o", "no/x"), 2, "no/x: expected an existing folder to write into"),
}
MANY = """
import contextlib, io, json, sys
from poyo_edge.cli import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["poyo-edge", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""One process for commands that end soon: most of their time is Python's start."""


def run_many(desk: Desk, commands: list[list[str]]) -> list[Done]:
    process = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps([["calibrate", str(TINY), *words] for words in commands]),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=desk.folder,
        timeout=PATIENCE_S,
        check=True,
    )
    untouched = desk.out.read_bytes() == b"the old session"
    ends = [json.loads(line) for line in process.stdout.splitlines()]
    return [Done(code, out, err, untouched) for code, out, err in ends]


@pytest.fixture(scope="module")
def bad_ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """How each of ``BAD`` ended."""
    desk = furnished(tmp_path_factory.mktemp("bad"))
    truth = Session.open(desk.truth)
    header = dataclasses.replace(truth.header, core_hash="0" * 64)
    foreign = desk.truth.with_name("F")
    dataclasses.replace(truth, header=header).save(foreign)
    commands = []
    for i, bad in enumerate(BAD.values()):
        words = [str(foreign) if word == "F" else word for word in bad.arguments]
        recording = bad.make(desk.recording.with_name(f"bad_{i}.h5"))
        commands.append([str(recording), "-o", str(desk.out), "--quiet", *words])
    ends = run_many(desk, commands)
    assert desk.files() == ["today.session"]
    return dict(zip(BAD, ends, strict=True))


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_done_is_one_line(bad_ends: dict[str, Done], what: str) -> None:
    require_one_line(bad_ends[what], BAD[what].code, BAD[what].message)


def require_one_line(done: Done, code: int, message: str) -> None:
    """The reason alone, the old session where it was."""
    assert done.code == code, done.stderr
    assert done.untouched
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_report_that_cannot_be_drawn_is_refused_before_the_work(desk: Desk) -> None:
    done = desk.run("--report", desk.recording)
    assert done.code in (2, 4)  # 4 where matplotlib is not installed
    assert done.untouched
    assert "· fitting" not in done.stderr


def test_a_session_in_use_of_other_units_is_no_rival(desk: Desk) -> None:
    done = desk.run("--in-use", "tiny_b", "--start", desk.truth, "--json", "--max-wall", 1e-6)
    assert done.code == 0
    assert done.json()["session"] == str(desk.out)


def handed_over(path: Path, **arguments: Any) -> list[tuple[Any, ...]]:
    """What is added to a calibrator of a recording's train split."""
    opened, pieces = Recording.open(path), list[tuple[Any, ...]]()
    calibrator = lesson().calibrator()
    calibrator.add = lambda *piece: pieces.append(piece)  # type: ignore[method-assign]
    add_recording(calibrator, opened, "cursor.vel", **arguments)
    return pieces


def test_only_the_split_is_handed_over_interval_by_interval(tmp_path: Path) -> None:
    domains = {"train": [(2.0, 5.0), (7.0, 11.5)], "test": [(5.0, 7.0)]}
    given = lesson(duration_s=TRAIN_S + TEST_S)
    pieces = handed_over(write(tmp_path / "day.h5", domains=domains))
    for (start, end), piece in zip(domains["train"], pieces, strict=True):
        for found, of in ((piece[0], given.spike_times), (piece[2], given.times)):
            assert np.array_equal(found, of[(of >= start) & (of < end)])
        assert len(piece[0]) == len(piece[1])
        assert len(piece[2]) == len(piece[3])


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [(1.5, [3.5]), (3.0, [5.0]), (4.5, [5.0, 8.5]), (7.5, [5.0, 11.5]), (99.0, [5.0, 11.5])],
)
def test_the_first_seconds_are_of_the_split(
    tmp_path: Path, seconds: float, ends: list[float]
) -> None:
    path = write(tmp_path / "day.h5", domains={"train": [(2.0, 5.0), (7.0, 11.5)]})
    pieces = handed_over(path, seconds=seconds)
    assert [piece[2][-1] for piece in pieces] == pytest.approx([end - 0.1 for end in ends])
    assert all(piece[0][-1] < end for piece, end in zip(pieces, ends, strict=True))


def test_samples_that_are_nan_are_left_out_and_counted(desk: Desk, tmp_path: Path) -> None:
    given = lesson(duration_s=TRAIN_S + TEST_S)
    values = given.values.copy()
    values[30:40, 1] = np.nan
    path = write(tmp_path / "day.h5", behaviors={"cursor.vel": (given.times, values)})
    (piece,) = handed_over(path, seconds=10.0)
    assert np.array_equal(piece[2], np.delete(given.times[:100], np.arange(30, 40)))
    assert np.isfinite(piece[3]).all()
    done = desk.run("--start", desk.truth, "--json", "--max-wall", 1e-6, recording=path)
    assert done.json()["nan_samples"] == 10
    assert "· 10 samples of cursor.vel are NaN and were left out\n" in done.stderr


def values_of(**changes: Any) -> dict[str, Any]:
    point = {"step": 10, "loss": 0.25, "r2": 0.5, "r2_per_dim": [0.4, 0.6]}
    first = {"step": 0, "loss": None, "r2": 0.1, "r2_per_dim": [0.1, 0.1]}
    return {
        "session": "today.session",
        "r2_heldout": 0.5,
        "r2_per_dim": [0.4, 0.6],
        "r2_interval": [[0.3, 0.5], [0.5, 0.7]],
        "n_judged": 90,
        "r2_in_use": None,
        "labelled_s": 60.0,
        "steps": 10,
        "wall_s": 3.0,
        "stopped": "all steps",
        "curve": [first, point],
        "silent_units": [],
        "notes": [],
        "peak_memory_mb": 100.0,
        "behavior": "cursor.vel",
        **changes,
    }


def text_of(**changes: Any) -> str:
    return calibrate_text(values_of(**changes), Path("m.poyo"), Path("d.h5"), "poyo-edge")


def test_text_marks_the_step_taken() -> None:
    rows = text_of().splitlines()
    assert [row.split()[0] for row in rows if row.endswith("taken")] == ["10"]
    assert "0.400 (0.30 to 0.50), 0.600 (0.50 to 0.70), 95 % intervals" in text_of()
    assert text_of().endswith("d.h5 --behavior cursor.vel --session today.session")
    assert text_of(session=None).endswith("nothing was written")


def test_text_names_what_is_odd() -> None:
    assert "silent" not in text_of()
    many = [f"u{i}" for i in range(8)]
    assert "8: u0, u1, u2, u3, u4, u5 …" in text_of(silent_units=many)
    assert "note: careful" in text_of(notes=["careful"])
    assert "R² 0.7000 on the same samples" in text_of(r2_in_use=0.7)
    units = [
        {"unit": "near", "rate_hz": 1.0, "part": 0.1, "distance": 1.9},
        {"unit": "strange", "rate_hz": 1.0, "part": 0.1, "distance": 2.1},
    ]
    odd = text_of(units=units, alike=[("a", "b", 0.93)], report=["x.json", "x.png"])
    assert "alike: a" in odd
    assert "b, correlation 0.93: one unit twice?" in odd
    (far,) = [line for line in odd.splitlines() if line.startswith("far from trained units")]
    assert far.split()[-1] == "strange"
    assert "near" not in far
    assert "x.json  x.png" in odd
