"""stdout and stderr that are closed, full, left by their reader, or lack a character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.arrays import written_again
from helpers.streams import never_read

from poyo_edge.journal import Journal
from poyo_edge.simulation.recordings import Simulation, simulate_recording

GONE = "{ sleep 0.1; exec true; }"
"""A reader that ends before it has read anything."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds under the unit ids of session a of the tiny artifact."""
    folder = tmp_path_factory.mktemp("streams")
    simulation = Simulation(duration_s=4.0, n_units=12)
    made = simulate_recording(folder / "sim.h5", session_id="s", seed=1, simulation=simulation)
    units = [f"tiny_a/unit_{i:02d}" for i in range(12)]
    return written_again(made, folder / "a.h5", unit_ids=units, domains={})


def in_shell(
    redirected: str, *words: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command whose streams a shell redirected; its own exit code, not that of a reader."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirected}; exit ${{PIPESTATUS[0]}}', "bash", sys.executable,
         "-m", "poyo_edge", *map(str, words)],
        capture_output=True, encoding="utf-8", timeout=300, check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("to", ["2>&-", f"2> >({GONE})", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_does_not_end_decoding(
    tiny: Path, recording: Path, tmp_path: Path, to: str
) -> None:
    journal = tmp_path / "a.journal"
    feed = f"file:{recording}?speed=4"
    done = in_shell(to, "run", tiny, "--session", "tiny_a", "--from", feed, "--record", journal,
                    "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["loop"]["decoded"] > 0
    assert values["recording"] == str(tmp_path / "a.h5")
    assert list(Journal(journal).entries())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_stderr_that_nobody_reads_does_not_hold_decoding_up(
    tiny: Path, recording: Path, kind: str
) -> None:
    words = ["run", str(tiny), "--session", "tiny_a", "--from", f"file:{recording}?speed=4"]
    with never_read(kind) as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "poyo_edge", *words, "--json"], stdout=subprocess.PIPE,
            stderr=stderr, timeout=60, check=False,
        )  # fmt: skip
        assert os.get_blocking(stderr), "others that write there wait as before"
    assert done.returncode == 0
    values = json.loads(done.stdout)
    assert values["loop"]["decoded"] > 100
    assert values["loop"]["skipped"] < 100


@pytest.mark.slow
@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(tmp_path: Path, to: str) -> None:
    done = in_shell(to, "inspect", tmp_path / "none.poyo")
    assert done.returncode == 5
    assert done.stdout == ""


@pytest.mark.slow
def test_a_character_that_stdout_lacks_is_escaped(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "für 🧠.journal"
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=4"]
    done = in_shell("", *words, "--record", journal, "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["journal"]["path"] == str(journal)
    done = in_shell("", *words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "spike in \\u2192 value out" in done.stdout


@pytest.mark.slow
def test_a_stdout_without_a_reader_ends_quietly() -> None:
    for words in (["doctor"], ["doctor", "--json"], ["--help"], ["--version"]):
        done = in_shell(f"| {GONE}", *words)
        assert (done.returncode, done.stderr) == (0, ""), words


@pytest.mark.slow
def test_a_stdout_that_is_full_is_one_line_and_an_exit_code() -> None:
    for words in (["doctor"], ["--version"]):
        done = in_shell(">/dev/full", *words)
        assert (done.returncode, done.stderr) == (5, "error: [Errno 28] No space left on device\n")


def test_nothing_is_opened_where_stderr_was_closed() -> None:
    """Else what libraries say on number 2 would land in a journal."""
    code = "import os; from poyo_edge.files.streams import guard_streams as g; g(); os.fstat(2); " \
           "import sys; print('lost', file=sys.stderr); print('kept')"  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&- <&-', "bash", sys.executable, "-c", code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "kept\n")
