"""What this machine can run, and what to install for the rest."""

from poyo_edge.doctor.examine import examine

__all__ = [
    "examine",
]
