"""Between decoder and cursor: shaping of a velocity, and commands while a rig runs."""

from poyo_edge.runtime.control.client import tell
from poyo_edge.runtime.control.controller import Controller
from poyo_edge.runtime.control.settings import ControlSettings

__all__ = [
    "ControlSettings",
    "Controller",
    "tell",
]
