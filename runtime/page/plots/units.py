"""Units: their spikes of the last seconds, and their rates beside those of calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import HoverTool, LinearColorMapper, Range1d

from poyo_edge.runtime.page.history import RATE_S, SHOWN_S
from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.watching import Watch

_SHADES = (style.PANEL, "#39617e", "#5a9cc4", "#8fd0f2", "#d8f2ff", "#ffffff")


class Raster:
    """A row for each unit, the newest on the right.

    Args:
        n_units: U.
    """

    def __init__(self, n_units: int) -> None:
        self.figure = made = style.panel(
            "raster", x_range=Range1d(-SHOWN_S, 0), y_range=Range1d(0, n_units)
        )
        made.xaxis.axis_label, made.yaxis.axis_label = "seconds ago", "unit"
        made.grid.visible = False
        self._image = style.source(image=[])
        made.image(
            "image", x=-SHOWN_S, y=0, dw=SHOWN_S, dh=n_units, source=self._image,
            color_mapper=LinearColorMapper(palette=list(_SHADES), low=0, high=len(_SHADES)),
        )  # fmt: skip

    def update(self, watch: Watch) -> None:
        """Show the last seconds."""
        n_units = len(watch.state.get("session", {}).get("unit_ids", ())) or watch.history.n_units
        image = watch.history.raster()[:n_units]
        self._image.data = {"image": [image]}
        if self.figure.y_range.end != n_units:
            self.figure.y_range.end = n_units
            self.figure.renderers[0].glyph.dh = n_units


class Rates:
    """A dot for each unit's rate now, on a bar of its mean at calibration, plus and minus one sd
    of a window's rate."""

    def __init__(self, n_units: int) -> None:
        self.figure = made = style.panel(
            "rates", x_range=Range1d(0, 10), y_range=Range1d(0, n_units)
        )
        made.xaxis.axis_label, made.yaxis.axis_label = f"spikes/s, over {RATE_S:g} s", "unit"
        self._units = style.source(y=[], unit=[], now=[], low=[], high=[], mean=[], color=[])
        made.hbar(
            "y", left="low", right="high", height=0.8, source=self._units, fill_color=style.LINE,
            line_color=None, legend_label="calibration ± sd",
        )  # fmt: skip
        dots = made.scatter(
            "now", "y", source=self._units, size=7, fill_color="color", line_color=None,
        )  # fmt: skip
        style.explained(made, "now", style.DIMS[0], width=8)
        style.explained(made, "off by > 1 sd", style.WARN, width=8)
        tips = [("unit", "@unit"), ("now", "@now{0.0} spikes/s"), ("then", "@mean{0.0} spikes/s")]
        made.add_tools(HoverTool(renderers=[dots], tooltips=tips))
        style.legend(made)

    def update(self, watch: Watch) -> None:
        """Show the rates of now."""
        session = watch.state.get("session", {})
        units = session.get("unit_ids", [])
        now = watch.history.rates[: len(units)]
        n = len(now)
        if not n:
            return
        mean = np.asarray(session.get("rate_hz", [np.nan] * n), np.float64)[:n]
        sd = np.asarray(session.get("rate_sd_hz", [np.nan] * n), np.float64)[:n]
        off = np.abs(now - mean) > np.maximum(sd, 1e-9)
        self._units.data = {
            "y": np.arange(n) + 0.5, "unit": units[:n], "now": now.copy(),
            "low": np.maximum(mean - sd, 0.0), "high": mean + sd, "mean": mean,
            "color": [style.WARN if one else style.DIMS[0] for one in off],
        }  # fmt: skip
        self._fit(float(np.nanmax([*now, *(mean + sd), 1.0])), n)

    def _fit(self, most: float, n: int) -> None:
        figure: Any = self.figure
        if figure.y_range.end != n:
            figure.y_range.end = n
        if not 0.5 * figure.x_range.end < most < 0.98 * figure.x_range.end:
            figure.x_range.end = 1.25 * most
