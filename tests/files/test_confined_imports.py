"""Processes that read a stranger's files import nothing that lies beside those files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.recordings import small

from poyo_edge.files.confined import python_command
from poyo_edge.recording.confined import require_readable


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules that leave a file when they are imported."""
    for name in ("json", "resource", "codecs", "h5py", "torch", "poyo_edge"):
        leave = f"open({str(tmp_path / 'canary')!r}, 'w').close()\n"
        (tmp_path / f"{name}.py").write_text(leave + "raise ImportError('a stranger')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recording_is_not_read_with_the_modules_beside_it(download: Path) -> None:
    require_readable(small(download / "s.h5"))
    assert not (download / "canary").exists()


@pytest.mark.slow
def test_a_checkpoint_is_not_read_with_the_modules_beside_it(download: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are read with torch")
    command = python_command("poyo_edge.checkpoint.unpickling")
    subprocess.run(command, input=b"", check=True)
    assert not (download / "canary").exists()


def test_python_would_have_taken_them(download: Path) -> None:
    subprocess.run([sys.executable, "-m", "poyo_edge.recording.confined"], capture_output=True)
    assert (download / "canary").exists()
