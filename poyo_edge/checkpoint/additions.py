"""What training here adds to a checkpoint's hyper-parameters.

It says something of units that it has not seen, by the parts that its tables are sums of, and it
holds the filters that sessions mix with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poyo_edge.errors import CheckpointError, UsageError
from poyo_edge.filters.mixed import MixedFilter
from poyo_edge.filters.named import NamedFilter
from poyo_edge.unit_guess import GUESS_HELD, GUESS_NAMES, GUESS_TENSORS, UnitGuess

SHARING = "sharing"
"""The hyper-parameter that holds what units share."""
FILTERS = "filters"
"""The one that holds session → share, unit_ids, weights and bias of its filter."""


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


def filters_of(path: Path, hyper: Mapping[str, Any], dim_out: int) -> dict[str, NamedFilter]:
    """Session id → the filter that it mixes with a model of ``dim_out`` outputs.

    Raises:
        CheckpointError: one is there and cannot be used.
    """
    found, place, got = dict[str, NamedFilter](), f"hyper_parameters.{FILTERS}", ""
    held = hyper.get(FILTERS, {})
    try:
        for session_id, one in held.items():
            place, got = f"hyper_parameters.{FILTERS}[{session_id!r}]", ""
            mixed = MixedFilter(
                share=float(one["share"]), weights=_array(one["weights"]), bias=_array(one["bias"])
            )
            units = tuple(map(str, one["unit_ids"]))
            found[str(session_id)] = NamedFilter(unit_ids=units, mixed=mixed)
            if len(mixed.bias) != dim_out:
                got = f"{len(mixed.bias)} outputs"
                break
    except (AttributeError, KeyError, TypeError, ValueError, UsageError) as error:
        got = str(error) or type(error).__name__
    if not got:
        return found
    raise CheckpointError(
        path, place, expected=f"the filter that a session mixes with {dim_out} outputs", got=got,
        do="tune it again from the session file, or take the key away",
    )  # fmt: skip


def filter_values(filters: Mapping[str, NamedFilter]) -> dict[str, Any]:
    """What ``filters_of`` reads."""
    return {
        session_id: {
            "share": float(one.mixed.share),
            "unit_ids": list(one.unit_ids),
            "weights": torch.from_numpy(np.ascontiguousarray(one.mixed.weights)),
            "bias": torch.from_numpy(np.ascontiguousarray(one.mixed.bias)),
        }
        for session_id, one in filters.items()
    }


def _array(value: object) -> Any:
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} in place of a tensor")
    return np.asarray(value.detach().float().cpu().numpy(), dtype=np.float32)
