"""A file that another program is writing is told from one that is damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.commands import run
from helpers.lab_files import torch_brain_recording

from poyo_edge.converting import describe
from poyo_edge.errors import RecordingError
from poyo_edge.recording import Recording

_HOLD = "import sys, h5py; f = h5py.File(sys.argv[1], 'r+'); print('held', flush=True); input()"
_CRASH = "import sys, os, h5py; f = h5py.File(sys.argv[1], 'r+', libver='latest'); os._exit(1)"


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """As acquisition software or MATLAB hold a file."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("\n")


@pytest.mark.slow
def test_a_file_that_is_held_open_is_said_to_be(tmp_path: Path) -> None:
    path = torch_brain_recording(tmp_path / "s.h5")
    with held_open(path):
        for read in (Recording.open, describe):
            with pytest.raises(RecordingError, match="held open by another program; close it"):
                read(path)
        for command in (("inspect", path), ("convert", path), ("calibrate", "none.poyo", path)):
            done = run(*command)
            assert done.returncode == 5
            assert "held open by another program; close it there" in done.stderr, command
    assert Recording.open(path).session_id == "s"


def test_a_file_whose_writer_crashed_says_how_it_is_opened_again(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "s.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = 1
    subprocess.run([sys.executable, "-c", _CRASH, str(path)], check=False)
    with pytest.raises(RecordingError, match="h5clear -s"):
        Recording.open(path)
