"""Objects that have the members which ``runtime/backends/trt/api.py`` lists, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poyo_edge.runtime.backends.trt.api import ONLY_IN, USED


def listed_members(kind: str, version: str) -> dict[str, int]:
    """Member → number of arguments, or -1, of a class of a version of TensorRT."""
    allowed = dict(USED.get(kind, {}))
    for member, versions in ONLY_IN.get(kind, {}).items():
        if version.startswith(versions):
            allowed[member] = -1
    return allowed


class Listed:
    """Only listed members may be touched from outside."""

    KIND = ""
    VERSION = ""

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        kind = type(self).KIND
        if name.startswith("_") or not kind:
            return value
        allowed = listed_members(kind, type(self).VERSION)
        assert name in allowed, f"{kind}.{name} is not in trt.api.USED"
        return _counted(value, kind, name, allowed[name]) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).KIND
        listed = name.startswith("_") or name in listed_members(kind, type(self).VERSION)
        assert listed, f"{kind}.{name} is not in trt.api.USED"
        object.__setattr__(self, name, value)


def _counted(function: Callable[..., Any], kind: str, name: str, count: int) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        assert count in (-1, len(arguments)), f"{kind}.{name} is listed with {count} arguments"
        return function(*arguments)

    return call
