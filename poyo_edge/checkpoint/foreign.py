"""What stands in the content of a file for an object of a class that was not loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The object's class by its name, with the plain values it held."""

    name: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
