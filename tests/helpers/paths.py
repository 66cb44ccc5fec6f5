"""Where things are."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DATA = TESTS / "data"
TINY = DATA / "tiny.poyo"
"""The artifact that ``tests/make_tiny.py`` made."""
SHARED = ROOT.parent / "shared"
"""Real recordings and checkpoints, where there are any: never part of the project."""
