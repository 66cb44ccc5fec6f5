"""``run --page``, ``run --ring``, ``page`` and ``demo --live`` as they are typed."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest
from helpers.commands import run, start
from helpers.waiting import wait_until

from poyo_edge.runtime.page.ring import memory
from poyo_edge.runtime.page.ring.reader import FrameReader


def pages_of(ring: str) -> list[int]:
    """Processes that show a ring."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"page" in words and ring.encode() in words and b"-m" in words:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_run_with_a_ring_says_how_to_look_at_it(tiny: Path, tmp_path: Path) -> None:
    ring = str(tmp_path / "ring")
    process = start("run", tiny, "--session", "tiny_a", "--from", "udp://127.0.0.1:0", "--ring",
                    ring)  # fmt: skip
    try:
        wait_until(lambda: Path(ring).exists())
        reader = FrameReader(ring)
        wait_until(lambda: reader.state()[0])
        state = reader.state()[1]
        assert (state["calibration"], state["recalibration"]) == (None, None)
        assert state["session"]["session_id"] == "tiny_a"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert f"a page of it: poyo-edge page {ring}" in said
    assert not reader.alive
    assert reader.state()[1]["ended"] == "ended"


@pytest.mark.slow
def test_a_run_with_a_page_says_where_it_is_and_the_page_outlives_it(
    tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bokeh", reason="the page needs it")
    ring = str(tmp_path / "ring")
    process = start("run", tiny, "--session", "tiny_a", "--from", "udp://127.0.0.1:0", "--page",
                    "--ring", ring, "--quiet")  # fmt: skip
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "the page is at" in line)
        url = line.split()[-1]
        (page,) = pages_of(ring)
        assert os.getsid(page) == page, "a session of its own: Ctrl-C does not reach it"
        process.kill()
        process.wait()
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 200
    finally:
        process.kill()
        process.communicate()
        for one in pages_of(ring):
            os.kill(one, signal.SIGKILL)


@pytest.mark.slow
def test_words_that_belong_together_are_asked_for(tiny: Path, tmp_path: Path) -> None:
    base = ["run", tiny, "--session", "tiny_a", "--from", "udp://127.0.0.1:0"]
    done = run(*base, "--page-port", "0")
    assert (done.returncode, "--page-port: expected --page with it" in done.stderr) == (2, True)
    done = run("demo", "--out", tmp_path / "demo", "--seconds", "5")
    assert (done.returncode, "expected --live with them" in done.stderr) == (2, True)


def test_a_page_without_a_name_takes_the_only_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from poyo_edge.cli.commands.page import _only_one
    from poyo_edge.errors import UsageError

    monkeypatch.setattr(memory, "FOLDER", tmp_path)
    assert memory.running() == []
    assert _only_one(["a"]) == "a"
    with pytest.raises(UsageError, match=r"got 0 that run: none; start one with run --page"):
        _only_one([])
    with pytest.raises(UsageError, match=r"got 2 that run: a, b"):
        _only_one(["a", "b"])
