"""Which series of a file is most likely what a model decodes: for the commands that messages name.

Models of this kind decode a velocity of two dimensions more often than anything else. A suggestion
is no choice: nothing is taken because of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from poyo_edge.recording.units import LENGTH, PER_SECOND, dimension

_VELOCITY = re.compile(r"vel(oc|$|[^a-z])|speed|(^|_)v([xyz]|_|$)|_v$")
_POSITION = re.compile(r"pos(ition|$|[^a-z])|(^|_)p$|_p_|coord")
_NEVER = re.compile(r"mask|eye|gaze|pupil|lick|trial|event|stim|status|target|valid|reward")
_AXIS = re.compile(r"(^|[^a-z])v?(x|y|z)([^a-z]|$)")
_NAME = "cursor.vel"


def is_position(name: str, unit: str) -> bool:
    """Whether a behaviour looks like a position, by its unit or else its name."""
    kind = dimension(unit)
    if kind:
        return kind == LENGTH
    return bool(_POSITION.search(_words(name))) and not _VELOCITY.search(_words(name))


def is_velocity(name: str, unit: str) -> bool:
    """Whether a behaviour looks like a velocity, by its unit or else its name."""
    kind = dimension(unit)
    return kind.endswith(PER_SECOND) if kind else bool(_VELOCITY.search(_words(name)))


def suggested(series: Sequence[Mapping[str, Any]]) -> str:
    """What to say to ``--behavior``, or "" where nothing is likely.

    Args:
        series: rows with ``key``, ``where``, ``n_samples``, ``n_dims`` and ``unit``.
    """
    moving = [one for one in series if _may_be(one)]
    fast = [one for one in moving if is_velocity(_short(one), one["unit"])]
    flat = [one for one in fast if one["n_dims"] == 2]
    if flat:
        return f"{_NAME}={flat[0]['key']}"
    axes = _axes([one for one in fast if one["n_dims"] == 1])
    if axes:
        keys = ",".join(_plain(one["key"]) for one in axes)
        return f"{_NAME if _of_axes(axes) else 'finger.vel'}={keys}"
    others = [one for one in moving if not is_position(_short(one), one["unit"])]
    likely = next(iter(fast or others or moving), None)
    if likely is None:
        return ""
    return f"{_NAME}={likely['key']}" if likely in fast else str(likely["key"])


def _axes(series: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first few that lie beside each other, with as many samples and one unit."""
    if len(series) < 2:
        return []
    first = series[0]
    alike = [one for one in series if _beside(one) == _beside(first)]
    return alike[:2] if len(alike) >= 2 else []


def _beside(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["where"].rpartition("/")[0], one["n_samples"], one["unit"]


def _of_axes(series: Sequence[Mapping[str, Any]]) -> bool:
    return all(_AXIS.search(_words(_short(one))) for one in series)


def _may_be(one: Mapping[str, Any]) -> bool:
    return one["unit"] != "bool" and not _NEVER.search(_words(f"{one['where']} {one['key']}"))


def _short(one: Mapping[str, Any]) -> str:
    return _plain(str(one["key"]))


def _plain(key: str) -> str:
    return key.removesuffix(".value")


def _words(name: str) -> str:
    """In lower case, with an underscore where a capital begins or a sign stands."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")
