"""How a live run ends: by a signal, a terminal that is closed, a disk that is full."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.arrays import written_again
from helpers.waiting import wait_until

from poyo_edge.recording import Recording
from poyo_edge.simulation.recordings import Simulation, simulate_recording

SHARED = Path("/dev/shm")
ON_ITS_TERMINAL = "import fcntl, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0)\n"
PROGRAM = "from poyo_edge.cli import main; main()"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute under the unit ids of session a of the tiny artifact."""
    folder = tmp_path_factory.mktemp("ends")
    simulation = Simulation(duration_s=60.0, n_units=12)
    made = simulate_recording(folder / "sim.h5", session_id="s", seed=1, simulation=simulation)
    units = [f"tiny_a/unit_{i:02d}" for i in range(12)]
    return written_again(made, folder / "a.h5", unit_ids=units, domains={})


class Running:
    """``poyo-edge run`` with a journal and shared memory, when it has decoded a while."""

    def __init__(
        self, tiny: Path, recording: Path, folder: Path, *more: str,
        before: str = "", through: Sequence[str] = (), n_bytes: int = 8000, **streams: Any,
    ) -> None:  # fmt: skip
        self.journal, self.name = folder / "a.journal", f"poyo-test-{uuid.uuid4().hex}"
        self.child = subprocess.Popen(
            [*through, sys.executable, "-c", before + PROGRAM, "run", str(tiny), "--session",
             "tiny_a", "--from", f"file:{recording}", "--to", f"shm:{self.name}", "--record",
             str(self.journal), "--json", *more],
            text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
        )  # fmt: skip
        wait_until(
            lambda: (
                self.child.poll() is not None
                or (self.journal.exists() and self.journal.stat().st_size > n_bytes)
            )
        )

    def end(self) -> tuple[dict[str, Any], str]:
        """What it printed; with its shared memory gone and the recording written."""
        out, said = self.child.communicate(timeout=60)
        assert self.child.returncode == 0, said
        assert not (SHARED / self.name).exists()
        values = json.loads(out)
        assert len(Recording.open(values["recording"]).spike_times)
        return values, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_clean_end(
    tiny: Path, recording: Path, tmp_path: Path, number: signal.Signals
) -> None:
    running = Running(tiny, recording, tmp_path)
    assert (SHARED / running.name).exists()
    running.child.send_signal(number)
    running.child.send_signal(signal.SIGHUP)  # shells say it after the system did
    values, _ = running.end()
    assert values["loop"]["decoded"] > 0


@pytest.mark.slow
def test_a_closed_terminal_is_a_clean_end(tiny: Path, recording: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    running = Running(
        tiny, recording, tmp_path, before=ON_ITS_TERMINAL,
        stdin=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    values, _ = running.end()
    assert values["loop"]["decoded"] > 0


@pytest.mark.slow
def test_behind_nohup_a_closed_terminal_ends_nothing(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    through = ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash"]
    running = Running(tiny, recording, tmp_path, through=through)
    running.child.send_signal(signal.SIGHUP)
    reached = running.journal.stat().st_size + 8000
    wait_until(lambda: running.child.poll() is not None or running.journal.stat().st_size > reached)
    assert running.child.poll() is None
    running.child.send_signal(signal.SIGTERM)
    running.end()


@pytest.mark.slow
def test_a_full_disk_is_said_when_it_begins_and_the_run_ends_with_its_result(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    through = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash"]
    running = Running(tiny, recording, tmp_path, through=through, n_bytes=7500)
    assert running.child.stderr is not None
    for line in running.child.stderr:
        if "the disk took part of a frame only: it is full; nothing is recorded" in line:
            break
    assert running.child.poll() is None
    running.child.send_signal(signal.SIGTERM)
    out, said = running.child.communicate(timeout=60)
    assert running.child.returncode == 0, said
    assert "it is full" not in said
    values = json.loads(out)
    assert values["journal"]["lost_frames"] > 0
    assert "it is full" in values["journal"]["error"]
    assert values["recording"] is None
    assert "File too large" in values["recording_problem"]
    assert not (SHARED / running.name).exists()


@pytest.mark.slow
def test_a_journal_that_is_deleted_is_said_live_and_at_the_end(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    running = Running(tiny, recording, tmp_path)
    running.journal.unlink()
    assert running.child.stderr is not None
    for line in running.child.stderr:
        if "its file was deleted or moved; start the run again" in line:
            break
    running.child.send_signal(signal.SIGTERM)
    out, said = running.child.communicate(timeout=60)
    assert running.child.returncode == 0, said
    values = json.loads(out)
    assert "deleted or moved" in values["journal"]["error"]
    assert values["recording"] is None
