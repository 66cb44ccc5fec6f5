"""Success, throughput and angular error, block by block of trials."""

from __future__ import annotations

from typing import Any

from bokeh.models import Range1d, SingleIntervalTicker

from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.watching import Watch


class Blocks:
    """One figure of a block: its mean, with a bar of two standard errors where it is known.

    Args:
        name: of its place in the page.
        key: of ``Block``.
        se: of its standard error, or "".
        label: of the axis.
        scale: multiplies it.
        most: end of the axis; None grows with what there is.
    """

    def __init__(
        self, name: str, key: str, se: str, label: str, *, scale: float = 1.0,
        most: float | None = None, color: str = style.DIMS[0],
    ) -> None:  # fmt: skip
        self._key, self._se, self._scale, self._most = key, se, scale, most
        self.figure = made = style.panel(
            name, x_range=Range1d(0.5, 10.5), y_range=Range1d(0, (most or 1.0) * 1.05)
        )
        made.xaxis.axis_label, made.yaxis.axis_label = "block of 16 trials", label
        made.xaxis.ticker = SingleIntervalTicker(interval=2)
        self._points = style.source(x=[], y=[], low=[], high=[])
        made.segment("x", "low", "x", "high", source=self._points, line_color=color, line_width=2)
        made.line("x", "y", source=self._points, line_color=color, line_width=2, line_alpha=0.6)
        made.scatter("x", "y", source=self._points, size=9, fill_color=color, line_color=None)

    def update(self, watch: Watch) -> None:
        """Show all blocks so far."""
        blocks: list[dict[str, Any]] = watch.state.get("outcome", {}).get("blocks", [])
        known = [one for one in blocks if one[self._key] is not None]
        x = [one["until"] // one["trials"] for one in known]
        y = [self._scale * one[self._key] for one in known]
        se = [self._scale * ((one.get(self._se) or 0.0) if self._se else 0.0) for one in known]
        self._points.data = {
            "x": x, "y": y,
            "low": [a - 2 * b for a, b in zip(y, se, strict=True)],
            "high": [a + 2 * b for a, b in zip(y, se, strict=True)],
        }  # fmt: skip
        newest = max([10, *x])
        if self.figure.x_range.end != newest + 0.5:
            self.figure.x_range.end = newest + 0.5
            self.figure.xaxis[0].ticker.interval = max(1, newest // 5)
        if self._most is None and y:
            most = max(a + 2 * b for a, b in zip(y, se, strict=True))
            if not 0.4 * self.figure.y_range.end < most < 0.98 * self.figure.y_range.end:
                self.figure.y_range.end = 1.25 * most or 1.0


def blocks() -> list[Blocks]:
    """Success, throughput, angular error."""
    return [
        Blocks("success", "success", "", "targets reached, %", scale=100.0, most=100.0,
               color=style.GOOD),
        Blocks("throughput", "bits_per_s", "bits_se", "throughput, bit/s", color=style.DIMS[0]),
        Blocks("angle", "angle_deg", "angle_se", "angular error, °", color=style.DIMS[1]),
    ]  # fmt: skip
