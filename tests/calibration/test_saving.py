"""A session that is bad is refused where it would be used, and a crash leaves a whole file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.calibrating.teacher import (
    QUICK,
    adapter,
    bits,
    drifted,
    fitted,
    lesson,
    misled,
    of_another_core,
    r2_of,
)
from helpers.paths import TINY

from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration import CalibratedSession
from poyo_edge.errors import CheckFailedError, SessionError, UsageError
from poyo_edge.runtime import Decoder


def require_refused(session: CalibratedSession, message: str, tmp_path: Path) -> None:
    """Neither saved nor swapped in, with its figures; and what was there stays."""
    quality = session.quality
    dims = ", ".join(f"{r2:.3f}" for r2 in quality.r2_per_dim)
    path = tmp_path / "day.session"
    lesson().truth.save(path)
    before = path.read_bytes()
    decoder = Decoder.open(TINY, "tiny_a")
    takes: list[Callable[[], None]] = [
        functools.partial(session.save, path),
        functools.partial(session.swap_into, decoder),
        session.require_good,
    ]
    for take in takes:
        with pytest.raises(CheckFailedError, match=f"^{re.escape(message)}") as refused:
            take()
        assert f"got {quality.r2_heldout:.3f} (per dimension {dims}) on held-out" in str(
            refused.value
        )
        assert f"{quality.labelled_s:.0f} labelled s" in str(refused.value)
        assert str(refused.value).endswith(
            "check that labels and spikes are of the same time and in the same order, give more "
            "labelled data, or force it (force=True, --force)"
        )
        assert refused.value.exit_code == 3
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["day.session"]
    assert decoder.session_id == "tiny_a"
    with pytest.raises(UsageError, match=r"^revert: "):
        decoder.revert()


@pytest.mark.slow
def test_a_session_worse_than_the_mean_is_refused_with_its_figures(tmp_path: Path) -> None:
    assert misled().quality.r2_heldout < 0
    message = (
        "session 'day': expected an R² above 0, which holding the mean has, got "
        f"{misled().quality.r2_heldout:.3f} (per dimension "
    )
    require_refused(misled(), message, tmp_path)


@pytest.mark.slow
def test_a_session_worse_than_the_one_in_use_is_refused_with_both_figures(tmp_path: Path) -> None:
    fit = lesson().calibrator(QUICK).fit
    session = fit(start=drifted(lesson().truth, 0.1), in_use=lesson().truth, max_seconds=1e-9)
    assert session.quality.r2_in_use == pytest.approx(1.0)
    assert 0 < session.quality.r2_heldout < 1
    message = (
        "session 'day': expected an R² of at least 1.000, which the session in use has on the "
        f"same samples, got {session.quality.r2_heldout:.3f} (per dimension "
    )
    require_refused(session, message, tmp_path)


@pytest.mark.slow
def test_as_good_as_the_session_in_use_is_good_enough(tmp_path: Path) -> None:
    fit = lesson().calibrator(QUICK).fit
    same = fit(start=lesson().truth, in_use=lesson().truth, max_seconds=1e-9)
    assert same.quality.r2_in_use == same.quality.r2_heldout
    same.save(tmp_path / "day.session")
    better = fit(start=lesson().truth, in_use=drifted(lesson().truth, 0.1), max_seconds=1e-9)
    assert better.quality.r2_in_use is not None
    assert better.quality.r2_in_use < better.quality.r2_heldout
    better.require_good()


@pytest.mark.slow
def test_the_session_in_use_is_judged_by_the_units_it_knows() -> None:
    """As the decoder would: spikes of others are left out."""
    truth = lesson().truth
    keep = [5, 0, 2]
    part = Session(
        header=dataclasses.replace(
            truth.header, unit_ids=tuple(truth.header.unit_ids[i] for i in keep)
        ),
        unit_embedding=truth.unit_embedding[keep],
        session_embedding=truth.session_embedding,
    )
    quality = lesson().calibrator(QUICK).fit(in_use=part, max_seconds=1e-9).quality
    assert quality.r2_in_use == pytest.approx(r2_of(part, lesson()), abs=0.15)
    assert quality.r2_in_use != pytest.approx(1.0, abs=0.2)


def test_a_session_in_use_without_any_of_the_units_is_no_rival() -> None:
    fit = lesson().calibrator(QUICK).fit
    other = adapter().artifact.session("tiny_b")
    session = fit(start=lesson().truth, in_use=other, max_seconds=1e-9)
    session.require_good()
    assert session.quality.r2_in_use is None
    notes = session.quality.notes
    assert notes[0] == "the session in use has none of these units: it is no rival"
    json.dumps(session.quality.to_json(), allow_nan=False)


def test_nan_is_not_good() -> None:
    quality = dataclasses.replace(fitted().quality, r2_heldout=math.nan)
    with pytest.raises(CheckFailedError, match="expected an R² above 0"):
        dataclasses.replace(fitted(), quality=quality).require_good()


def test_the_older_file_stays_beside_the_new_one(tmp_path: Path) -> None:
    path, previous = tmp_path / "day.session", tmp_path / "day.session.previous"
    fitted().save(path)
    assert not previous.exists()
    first = path.read_bytes()
    dataclasses.replace(
        fitted(), header=dataclasses.replace(fitted().header, created="later")
    ).save(path)
    assert previous.read_bytes() == first
    assert Session.open(path).header.created == "later"
    second = path.read_bytes()
    with pytest.raises(CheckFailedError):
        misled().save(path)
    assert (path.read_bytes(), previous.read_bytes()) == (second, first)
    misled().save(path, force=True)
    assert previous.read_bytes() == second
    assert len(list(tmp_path.iterdir())) == 2


def test_force_takes_what_is_bad(tmp_path: Path) -> None:
    path, decoder = tmp_path / "day.session", Decoder.open(TINY, "tiny_a")
    misled().save(path, force=True)
    assert bits(Session.open(path)) == bits(misled())
    assert Session.open(path).header.r2_heldout == round(misled().quality.r2_heldout, 6)
    misled().swap_into(decoder, force=True)
    assert decoder.session_id == "day"


def test_force_does_not_take_what_cannot_be_used(tmp_path: Path) -> None:
    broken = dataclasses.replace(fitted(), unit_embedding=fitted().unit_embedding * np.nan)
    decoder = Decoder.open(TINY, "tiny_a")
    with pytest.raises(UsageError, match="expected finite values"):
        broken.swap_into(decoder, force=True)
    foreign = dataclasses.replace(fitted(), header=of_another_core().header)
    with pytest.raises(UsageError, match="made for core"):
        foreign.swap_into(decoder, force=True)
    assert decoder.session_id == "tiny_a"
    with pytest.raises(UsageError, match="expected an existing folder to write into"):
        fitted().save(tmp_path / "none" / "day.session", force=True)


SAVER = """
import os, pickle, signal, sys, time
sessions, target = pickle.loads(open(sys.argv[1], "rb").read()), sys.argv[2]
for line in sys.stdin:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"!")
        while True:
            for session in sessions:
                session.save(target)
    os.read(reading, 1)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    print("killed", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_session(
    tiny_copy: Path, tmp_path: Path
) -> None:
    """One that was there, or the new one; what is half written is never taken for a session."""
    folder = tiny_copy / "sessions"
    path = folder / "day.session"
    new = dataclasses.replace(
        fitted(), header=dataclasses.replace(fitted().header, created="later")
    )
    old = dataclasses.replace(fitted(), unit_embedding=np.negative(fitted().unit_embedding))
    whole = {bits(old), bits(new)}
    (tmp_path / "sessions.pickle").write_bytes(pickle.dumps([new, old]))
    rng, seen, unfinished, absent = np.random.default_rng(0), set[bytes](), 0, 0
    command = [sys.executable, "-c", SAVER, str(tmp_path / "sessions.pickle"), str(path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as saver:
        assert saver.stdin is not None
        assert saver.stdout is not None
        began = time.monotonic()
        for one in (new, old):
            one.save(path)
        longest_s = max(4e-3, 2 * (time.monotonic() - began))  # a busy disk takes its time
        for kill in range(120):
            if kill >= 100:
                path.unlink()  # from here on there is no old session
            saver.stdin.write(f"{rng.uniform(0, longest_s)}\n")
            saver.stdin.flush()
            assert saver.stdout.readline() == "killed\n"
            if kill >= 100 and not path.exists():
                absent += 1
                old.save(path)
            session = Session.open(path, core_hash=fitted().header.core_hash)
            assert bits(session) in whole
            seen.add(bits(session))
            previous = path.with_name("day.session.previous")
            if previous.exists():
                assert bits(Session.open(previous)) in whole
            left = [file for file in folder.iterdir() if file.suffix == ".tmp"]
            unfinished += len(left)
            known = Artifact.open(tiny_copy).session_files()
            assert sorted(known) == ["day", "tiny_a", "tiny_b"]
            for file in left:
                with contextlib.suppress(SessionError):
                    assert bits(Session.open(file)) in whole
                file.unlink()
        saver.stdin.close()
    assert seen == whole
    assert unfinished > 10, "most kills struck while a file was being written"
