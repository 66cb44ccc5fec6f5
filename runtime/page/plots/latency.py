"""Spike in → value out: how often how long, with the deadline."""

from __future__ import annotations

import numpy as np
from bokeh.models import BoxAnnotation, Range1d, Span

from poyo_edge.runtime.page.history import LATENCY_S
from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.watching import Watch

_LOW_MS, _HIGH_MS, _BINS = 0.1, 1000.0, 64


class Latency:
    """A histogram of the last minute on a logarithmic axis.

    Args:
        period_ms: a value that takes longer is late.
    """

    def __init__(self, period_ms: float) -> None:
        self._edges = np.geomspace(_LOW_MS, _HIGH_MS, _BINS + 1)
        self.figure = made = style.panel(
            "latency", x_axis_type="log", x_range=Range1d(_LOW_MS, _HIGH_MS),
            y_range=Range1d(0, 1),
        )  # fmt: skip
        made.xaxis.axis_label = f"ms, last {LATENCY_S:g} s (logarithmic)"
        made.yaxis.axis_label = "% of values"
        made.xaxis.ticker = [0.1, 1, 10, 100, 1000]
        made.xaxis.major_label_overrides = {0.1: "0.1", 1: "1", 10: "10", 100: "100", 1000: "1000"}
        self._bars = style.source(left=[], right=[], top=[], color=[])
        late = BoxAnnotation(left=period_ms, fill_color=style.BAD, fill_alpha=0.08)
        made.add_layout(late)
        made.quad(
            left="left", right="right", bottom=0, top="top", source=self._bars,
            fill_color="color", line_color=style.PANEL,
        )  # fmt: skip
        made.add_layout(
            Span(location=period_ms, dimension="height", line_color=style.BAD, line_width=2)
        )
        style.explained(made, "values", style.DIMS[0], width=8)
        style.explained(made, f"deadline, {period_ms:g} ms", style.BAD, width=2)
        style.legend(made)
        self._period_ms = period_ms

    def update(self, watch: Watch) -> None:
        """Show the last minute."""
        values = np.clip(watch.history.latency_ms, _LOW_MS, _HIGH_MS)
        counts, _ = np.histogram(values, self._edges)
        share = 100 * counts / max(1, len(values))
        color = [style.BAD if e >= self._period_ms else style.DIMS[0] for e in self._edges[:-1]]
        self._bars.data = {
            "left": self._edges[:-1], "right": self._edges[1:], "top": share, "color": color,
        }  # fmt: skip
        most = max(1.0, float(share.max()))
        if not 0.5 * self.figure.y_range.end < most < 0.95 * self.figure.y_range.end:
            self.figure.y_range.end = 1.25 * most
