"""``poyo-edge calibrate`` given what it cannot use: one line, and the old session stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from helpers.calibrating.desk import (
    TEST_S,
    TRAIN_S,
    Desk,
    Done,
    furnished,
    require_one_line,
    write,
)
from helpers.calibrating.teacher import lesson
from helpers.commands import run_many
from helpers.paths import TINY

from poyo_edge.artifact import Session


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return furnished(tmp_path)


@pytest.mark.slow
def test_what_is_not_enough_is_said_with_what_would_be(desk: Desk) -> None:
    done = desk.run("--seconds", 5, "--quiet")
    require_one_line(done, 2, "error: labels: expected at least 6 labelled s")
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


def position(path: Path) -> Path:
    """What has nothing to do with the spikes."""
    given = lesson(duration_s=TRAIN_S + TEST_S)
    slow = np.stack([np.sin(given.times * 0.7), np.cos(given.times * 0.9)], axis=1) * 9
    return write(path, behaviors={"cursor.pos": (given.times, slow)})


@pytest.mark.slow
def test_a_position_that_cannot_be_decoded_is_said_to_be_one(desk: Desk) -> None:
    recording = position(desk.folder / "p.h5")
    done = desk.run("--behavior", "cursor.pos", "--quiet", recording=recording)
    assert done.code == 3
    assert done.untouched
    assert "cursor.pos looks like a position" in done.stderr
    assert "name the velocity with --behavior" in done.stderr


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
    ends = run_many([["calibrate", TINY, *words] for words in commands], cwd=desk.folder)
    untouched = desk.out.read_bytes() == b"the old session"
    assert desk.files() == ["today.session"]
    found = [Done(one.returncode, one.stdout, one.stderr, untouched) for one in ends]
    return dict(zip(BAD, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_done_is_one_line(bad_ends: dict[str, Done], what: str) -> None:
    require_one_line(bad_ends[what], BAD[what].code, BAD[what].message)


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_is_refused_before_the_work(desk: Desk) -> None:
    done = desk.run("--report", desk.recording)
    assert done.code in (2, 4)  # 4 where matplotlib is not installed
    assert done.untouched
    assert "· fitting" not in done.stderr


def test_a_report_s_folder_goes_again_where_nothing_was_written(desk: Desk) -> None:
    """And folders around it that were not there; what is in the way of that stays."""
    folder = desk.folder / "reports"
    done = desk.run("--behavior", "no.such", "--report", folder / "of" / "today")
    assert done.code != 0 and done.untouched
    assert not folder.exists()
    folder.mkdir()
    assert desk.run("--behavior", "no.such", "--report", folder / "today").code != 0
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--labels", "intention:wish"], 2, "labels: expected one of ['behavior', "),
        (["--cursor", "cursor.pos"], 2, "--cursor: expected --labels intention:KIND with it"),
        (["--labels", "intention:refit"], 5, "trials: expected trials with targets"),
    ],
)
def test_labels_of_intention_that_cannot_be_made_are_one_sentence(
    desk: Desk, words: list[str], code: int, message: str
) -> None:
    require_one_line(desk.run(*words, "--quiet"), code, message)
