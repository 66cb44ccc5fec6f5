"""The tables in docs/checkpoints.md are what happens: each row is made again and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import ROOT

pytest.importorskip("torch_brain.models", reason="torch_brain writes the files")

from helpers.checkpoints.files import State
from helpers.checkpoints.relatives import WRITERS

from poyo_edge.checkpoint import open_checkpoint
from poyo_edge.checkpoint.layouts import LAYOUTS
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


def test_the_page_has_the_layouts_of_the_table_and_no_others() -> None:
    lines = PAGE.read_text().replace("`", "").splitlines()
    start = lines.index("| layout | who wrote it |") + 2
    rows = lines[start : lines.index("", start)]
    assert rows == [f"| {name} | {LAYOUTS[name].help} |" for name in sorted(LAYOUTS)]


def test_files_of_the_layouts_that_are_known_are_in_the_table_of_messages() -> None:
    written = {part for name in WRITERS for part in name.split(", ")}
    assert {"A1", "A2", "B0", "B1", "B2", "B3", "C", "D", "E", "F", "LoRA"} <= written
