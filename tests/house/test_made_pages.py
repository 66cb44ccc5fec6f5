"""Pages that are made of the source are what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.paths import ROOT

FOLDER = ROOT / "docs" / "reference"
PAGE = FOLDER / "recipe.md"


@pytest.mark.parametrize("name", ["recipe", "words"])
def test_the_page_is_what_its_command_writes(name: str) -> None:
    code = f"import {name}_page, sys; sys.stdout.write({name}_page.page())"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs" / "site", capture_output=True, text=True,
        check=True, env={"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    told = f"run: python docs/site/{name}_page.py"
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == made.stdout, told


def test_every_key_has_a_meaning() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "|  |" not in text
    assert "`unit_dropout`" in text
    assert "`data.NAME.seconds`" in text
    assert "`model.window_s`" in text
