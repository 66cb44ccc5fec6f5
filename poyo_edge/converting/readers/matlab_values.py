"""What variables of MATLAB files are, whichever version of the file holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
COMPLEX = "complex"
COMPLEX_NUMBERS = "complex numbers; save real and imaginary part as two columns"


@dataclass(frozen=True, slots=True)
class Value:
    """One variable. Shapes are MATLAB's, rows first; cells come column by column, as MATLAB counts.

    ``read`` gives an array for "number", a str for "text", a list of values for "cell", a dict of
    values for "struct", and nothing of use for "complex" and "other".
    """

    kind: str
    shape: Shape
    read: Callable[[], Any]
    about: str = ""
    """For listings of what cannot be used."""

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return self.about or f"{size} {'numbers' if self.kind == 'number' else self.kind}"


def is_vector(value: Value) -> bool:
    """Whether it is numbers in one row or column, or none at all."""
    long = sum(n != 1 for n in value.shape)
    return (value.kind == "number" and long <= 1) or 0 in value.shape
