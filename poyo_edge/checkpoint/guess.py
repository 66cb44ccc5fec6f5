"""What a checkpoint says of units that it has not seen: the parts that its tables are sums of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.unit_guess import GUESS_HELD, GUESS_NAMES, GUESS_TENSORS, UnitGuess

SHARING = "sharing"
"""The hyper-parameter that holds them."""


def guess_of(path: Path, hyper: Mapping[str, Any], dim: int) -> UnitGuess | None:
    """The parts that a model of width ``dim`` was trained with; None where there are none.

    Raises:
        CheckpointError: they are there and cannot be used.
    """
    held = hyper.get(SHARING)
    if held is None:
        return None
    try:
        names: dict[str, Any] = {name: tuple(map(str, held[name])) for name in GUESS_NAMES}
        there = (*GUESS_TENSORS, *([GUESS_HELD] if GUESS_HELD in held else []))
        arrays: dict[str, Any] = {name: _array(held[name]) for name in there}
        found = UnitGuess(**names, **arrays)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        got = str(error)
    else:
        if found.shared.shape[1] == dim:
            return found
        got = f"a width of {found.shared.shape[1]}"
    raise CheckpointError(
        path,
        f"hyper_parameters.{SHARING}",
        expected=f"what units of several sessions share, {dim} wide",
        got=got,
        do="train it again with this version of poyo-edge, or take the key away",
    )


def _array(value: object) -> Any:
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} in place of a tensor")
    return np.asarray(value.detach().float().cpu().numpy(), dtype=np.float32)
