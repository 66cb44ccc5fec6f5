"""What is decoded, beside what was measured where labels come, on axes that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import Range1d

from poyo_edge.runtime.page.history import SHOWN_S
from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.watching import Watch

_NAMES = ("x", "y", "z", "w")


class Traces:
    """The last seconds of up to four dimensions.

    Args:
        dims: D.
        label: of the vertical axis, such as "cursor.vel, cm/s".
        low, high: range of calibration; the axis shows half as much again. Empty where not known.
    """

    def __init__(self, dims: int, label: str, low: list[float], high: list[float]) -> None:
        self._n = min(dims, len(_NAMES))
        most = max([abs(one) for one in [*low, *high]] or [0.0])
        self._half, self._fixed = 1.5 * most or 1.0, most > 0
        self.y = Range1d(-self._half, self._half)
        self.figure = made = style.panel("traces", x_range=Range1d(-SHOWN_S, 0), y_range=self.y)
        made.xaxis.axis_label, made.yaxis.axis_label = "seconds ago", label or None
        names = [f"v{i}" for i in range(self._n)]
        self._decoded = style.source(t=[], **{name: [] for name in names})
        self._truth = style.source(t=[], **{name: [] for name in names})
        for i, name in enumerate(names):
            which = f" {_NAMES[i]}" if dims > 1 else ""
            made.line(
                "t", name, source=self._truth, line_color=style.DIMS[i], line_width=2,
                line_alpha=0.55, line_dash=[5, 4], legend_label=f"measured{which}",
            )  # fmt: skip
            made.line(
                "t", name, source=self._decoded, line_color=style.DIMS[i], line_width=2.5,
                legend_label=f"decoded{which}",
            )  # fmt: skip
        style.legend(made)
        self._measured = [one for one in made.legend[0].items if "measured" in one.label.value]
        for one in self._measured:
            one.visible = False

    def update(self, watch: Watch) -> None:
        """Show the last seconds."""
        times, values = watch.history.trace()
        self._decoded.data = self._columns(times, values)
        times, truth = watch.history.truth()
        self._truth.data = self._columns(times, truth)
        if len(times) and not self._measured[0].visible:
            for one in self._measured:
                one.visible = True
        if len(values) and not self._fixed:
            self._grow(float(np.abs(values).max()))

    def _columns(self, times: Any, values: Any) -> dict[str, Any]:
        return {"t": times, **{f"v{i}": np.ascontiguousarray(values[:, i]) for i in range(self._n)}}

    def _grow(self, most: float) -> None:
        if 1.1 * most > self._half:
            self._half = 1.5 * most
            self.y.start, self.y.end = -self._half, self._half
