"""Pictures that a person looks at."""

from poyo_edge.figures.decoding import draw_latency, draw_peers, draw_shares, draw_trace
from poyo_edge.figures.fitting import draw_calibration, draw_evaluation, draw_scaling
from poyo_edge.figures.looping import draw_hours, draw_paths, draw_throughput

__all__ = [
    "draw_calibration",
    "draw_evaluation",
    "draw_hours",
    "draw_latency",
    "draw_paths",
    "draw_peers",
    "draw_scaling",
    "draw_shares",
    "draw_throughput",
    "draw_trace",
]
