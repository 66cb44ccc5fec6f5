"""The page of a recipe's keys is what the classes say."""

from __future__ import annotations

import subprocess
import sys

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "recipe.md"


def test_the_page_is_what_its_command_writes() -> None:
    code = "import recipe_page, sys; sys.stdout.write(recipe_page.page())"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs" / "site", capture_output=True, text=True,
        check=True, env={"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert PAGE.read_text(encoding="utf-8") == made.stdout, "run: python docs/site/recipe_page.py"


def test_every_key_has_a_meaning() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "|  |" not in text
    assert "`unit_dropout`" in text
    assert "`data.NAME.seconds`" in text
    assert "`model.window_s`" in text
