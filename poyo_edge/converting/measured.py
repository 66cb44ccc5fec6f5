"""Behaviour in the unit that a model wants: scaled, or named, by what somebody says.

The unit of the source stays with the values. ``--behavior-unit`` turns values into another unit of
the same kind, and names that of a source that has none; ``--behavior-scale`` multiplies.

Legend: S behaviour samples, D dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import UsageError
from poyo_edge.recording.suggesting import is_position
from poyo_edge.recording.units import dimension, factor_between, same_unit, scaled_unit
from poyo_edge.trials import Trials


class Samples(NamedTuple):
    """A behaviour that is taken: (S,) float64 seconds, (S,) or (S, D) values, and their unit."""

    times: Float64
    values: npt.NDArray[Any]
    unit: str = ""
    factor: float = 1.0
    """What the values were multiplied by because somebody asked for it."""

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """(S,) which samples are whole: no NaN in any column."""
        whole: npt.NDArray[np.bool_] = np.isfinite(self.values.reshape(len(self.values), -1)).all(1)
        return whole


@dataclasses.dataclass(frozen=True, slots=True)
class _Wish:
    scale: float | None = None
    unit: str | None = None


def in_units(
    behaviors: Mapping[str, Samples],
    scales: Sequence[str],
    units: Sequence[str],
    notes: list[str],
) -> dict[str, Samples]:
    """Behaviours multiplied and in the units that were asked for.

    Args:
        behaviors: what is taken, by its name in the recording.
        scales: "NAME=FACTOR", or "FACTOR" where one behaviour is taken.
        units: "NAME=UNIT", or "UNIT" likewise.
        notes: told where a name of a unit was taken on trust.

    Raises:
        UsageError: no such behaviour, no such number, or a unit that the source's cannot become.
    """
    by_scale = _by_name(behaviors, scales, "behavior-scale", "cursor.vel=100")
    by_unit = _by_name(behaviors, units, "behavior-unit", "cursor.vel=cm/s")
    factors = {name: _number(word) for name, word in by_scale.items()}
    return {
        name: _wished(name, one, _Wish(factors.get(name), by_unit.get(name)), notes)
        for name, one in behaviors.items()
    }


def targets_in_units(
    trials: Trials | None, behaviors: Mapping[str, Samples], notes: list[str]
) -> Trials | None:
    """Trials whose targets and radii were multiplied as the cursor was: they are in its unit.

    Args:
        trials: of the source; None for none.
        behaviors: what is taken, multiplied. Positions named cursor count, else all positions.
        notes: told what was multiplied.

    Raises:
        UsageError: positions were multiplied differently, and nobody knows whose the targets are.
    """
    if trials is None or not trials.target.size:
        return trials
    positions = {k: one for k, one in behaviors.items() if is_position(k, one.unit)}
    cursors = {k: one for k, one in positions.items() if k.startswith("cursor")} or positions
    factors = {one.factor for one in cursors.values()} - ({1.0} if len(cursors) == 1 else set())
    if not factors or factors == {1.0}:
        return trials
    if len(factors) > 1:
        raise UsageError(
            f"behavior-scale: expected one factor for {', '.join(cursors)}, as targets of trials "
            f"are in the cursor's unit, got {', '.join(f'{one:g}' for one in sorted(factors))}; "
            f"take the cursor's position alone with --behavior, or name it cursor.pos"
        )
    (factor,) = factors
    notes.append(f"targets of trials were multiplied by {factor:g}, as {min(cursors)} was")
    return dataclasses.replace(
        trials,
        target=trials.target * factor,
        radius=trials.radius * abs(factor),
    )


def _by_name(
    behaviors: Mapping[str, Samples], words: Sequence[str], option: str, example: str
) -> dict[str, str]:
    found = dict[str, str]()
    for word in words:
        name, _, value = word.rpartition("=")
        if not name and len(behaviors) == 1:
            name = next(iter(behaviors))
        if name not in behaviors or not value.strip():
            known = ", ".join(behaviors) or "none"
            raise UsageError(
                f"{option}: expected NAME=VALUE like {example}, with one of the behaviours that "
                f"are taken ({known}), got {word!r}"
            )
        if name in found:
            raise UsageError(f"{option}: expected one for each behaviour, got {name!r} twice")
        found[name] = value.strip()
    return found


def _number(word: str) -> float:
    try:
        factor = float(word)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor) or factor == 0:
        raise UsageError(f"behavior-scale: expected a number other than 0, got {word!r}")
    return factor


def _wished(name: str, given: Samples, wish: _Wish, notes: list[str]) -> Samples:
    if wish == _Wish():
        return given
    factor, unit = wish.scale, wish.unit
    if unit is None:
        scale = 1.0 if factor is None else factor
        named = scaled_unit(given.unit, scale)
        if given.unit and not named:
            notes.append(
                f"{name}: {given.unit} times {scale:g} has no name here; say it with "
                f"--behavior-unit"
            )
        return _times(given, scale, named)
    known = factor_between(given.unit, unit)
    if factor is None and known is None and _other_kind(given.unit, unit):
        raise UsageError(
            f"behavior-unit: expected a unit of {dimension(given.unit)} for {name}, which is in "
            f"{given.unit}, got {unit}; say with --behavior-scale what to multiply it by"
        )
    scale = factor if factor is not None else 1.0 if known is None else known
    if given.unit and not same_unit(given.unit, unit) and not math.isclose(scale, known or 0):
        notes.append(
            f"{name}: the source says {given.unit}; it was taken times {scale:g} as {unit}, as "
            f"was asked for"
        )
    return _times(given, scale, unit)


def _other_kind(unit: str, wanted: str) -> bool:
    one, other = dimension(unit), dimension(wanted)
    return bool(one and other and one != other)


def _times(given: Samples, scale: float, unit: str) -> Samples:
    values = given.values if scale == 1 else np.asarray(given.values, np.float64) * scale
    return Samples(given.times, values, unit, scale)
