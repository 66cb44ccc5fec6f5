"""A whole rig: feed, clock, decode loop, sinks and journal."""

from poyo_edge.runtime.rig.rig import Rig, RigSettings

__all__ = [
    "Rig",
    "RigSettings",
]
