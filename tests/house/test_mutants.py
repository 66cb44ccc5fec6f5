"""The guards that ``mutants.py`` takes away are still there, one for each promise."""

from __future__ import annotations

import re

import pytest
from helpers.paths import TESTS
from mutants import MUTANTS, ROOT, Mutant

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def promised() -> dict[str, list[str]]:
    """Number → cells of its row on the page."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in re.findall(r"^\| R\d.*", page, re.M)]
    numbers = [f"R{int(cells[0].strip()[1:]):02}" for cells in rows]
    assert len(set(numbers)) == len(numbers) > 0
    return dict(zip(numbers, rows, strict=True))


def test_every_promise_has_one_row_one_test_and_one_guard_to_take_away() -> None:
    page = promised()
    assert list(page) == sorted(page)
    assert {len(cells) for cells in page.values()} == {4}
    sources = [path.read_text() for path in (TESTS / "promises").glob("test_*.py")]
    tests = [name for source in sources for name in re.findall(r"^def test_(R\d\d)_", source, re.M)]
    assert sorted(tests) == list(page)
    assert [mutant.promise for mutant in MUTANTS] == list(page)


def test_no_page_says_how_many_promises_there_are() -> None:
    counted = re.compile(r"\b(\d+|twenty\S*|thirty) (promises|results)\b", re.I)
    assert counted.search("all 24 promises")
    assert [path.name for path in PAGES if counted.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise)
def test_the_guard_is_in_the_source_once(mutant: Mutant) -> None:
    path = mutant.path(ROOT)
    changed = path.read_text().replace(mutant.old, mutant.new)
    compile(changed, path, "exec")
