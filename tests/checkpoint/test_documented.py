"""The table in docs/checkpoints.md is what happens: each row is made again and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

from helpers.checkpoints.files import State
from helpers.checkpoints.relatives import WRITERS

from poyo_edge.checkpoint import open_checkpoint
from poyo_edge.errors import CheckpointError

PAGE = ROOT / "docs" / "checkpoints.md"


def outcome(state: State, file: Path, layout: str) -> str:
    """A row of the table: layout, exported or refused, and the message."""
    WRITERS[layout](state, file)
    try:
        opened = open_checkpoint(file)
        task = opened.tasks[0] if opened.tasks else None
        message, verdict = opened.load(task=task).notes[0], "exported"
    except CheckpointError as refused:
        message, verdict = str(refused).removeprefix(f"{file}: "), "refused"
    if verdict == "exported" and task:
        verdict += " with `--task`"
    return f"| {layout} | {verdict} | {message} |"


@pytest.mark.parametrize("layout", WRITERS)
def test_a_row_of_the_table_is_what_happens(state: State, file: Path, layout: str) -> None:
    row = outcome(state, file, layout)
    assert row in PAGE.read_text().splitlines(), row
