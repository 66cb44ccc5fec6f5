"""Damage to a file."""

from __future__ import annotations

from pathlib import Path


def flip_bit(path: Path, place: int | None = None) -> None:
    """Change one bit of the byte at a place, counted from the end when negative; None: half-way."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)
