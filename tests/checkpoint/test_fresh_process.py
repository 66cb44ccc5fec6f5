"""What a new process loads of the reading of checkpoints: torch only where tensors are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from poyo_edge.files.confined import python_command

_SAY = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_of(*command: str, folder: Path) -> list[str]:
    """The modules that a process names at its end."""
    done = subprocess.run(command, cwd=folder, input=b"", capture_output=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "module",
    [
        "poyo_edge.checkpoint",
        "poyo_edge.checkpoint.layouts",
        "poyo_edge.checkpoint.renaming.perceiver_io",
        "poyo_edge.checkpoint.config",
    ],
)
def test_what_needs_no_tensors_loads_no_torch(module: str, tmp_path: Path) -> None:
    loaded = modules_of(sys.executable, "-c", f"import {module}; {_SAY}", folder=tmp_path)
    assert module in loaded
    assert "torch" not in loaded


def test_the_process_that_reads_pickles_loads_nothing_else_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are read with torch")
    python, option, code = python_command("poyo_edge.checkpoint.unpickling")
    loaded = modules_of(python, option, f"{code}; {_SAY}", folder=tmp_path)
    assert "torch" in loaded
    assert [name for name in loaded if name.partition(".")[0] == "poyo_edge"] == [
        "poyo_edge",
        "poyo_edge.checkpoint",
        "poyo_edge.checkpoint.unpickling",
        "poyo_edge.errors",
        "poyo_edge.tables",
    ]
