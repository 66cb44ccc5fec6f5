"""The guards that ``mutants.py`` takes away are still there, one for each promise."""

from __future__ import annotations

import re

import pytest
from helpers.paths import TESTS
from mutants import MUTANTS, ROOT, Mutant

NUMBERS = [*(f"R{number:02}" for number in range(1, 25)), "R28"]


def test_every_promise_has_one_test_and_one_guard_to_take_away() -> None:
    sources = [path.read_text() for path in (TESTS / "promises").glob("test_*.py")]
    tests = [name for source in sources for name in re.findall(r"^def test_(R\d\d)_", source, re.M)]
    assert sorted(tests) == NUMBERS
    assert [mutant.promise for mutant in MUTANTS] == NUMBERS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise)
def test_the_guard_is_in_the_source_once(mutant: Mutant) -> None:
    path = mutant.path(ROOT)
    changed = path.read_text().replace(mutant.old, mutant.new)
    compile(changed, path, "exec")
