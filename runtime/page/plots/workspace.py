"""The workspace: cursor, its path, the target, where the value moves it and where it should go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from bokeh.models import Range1d

from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.ring.layout import STATUSES
from poyo_edge.runtime.page.watching import Watch

_PATH_S = 3.0
_AHEAD_S = 0.25
"""An arrow shows how far the cursor goes in so long at the decoded velocity."""
_REACH = 0.18
"""Length of the intended direction, as a share of the half side."""


class Workspace:
    """Square, with fixed axes that only ever grow; cm where the task says cm.

    Args:
        unit: of positions, for the axes; "" where nobody knows.
    """

    def __init__(self, unit: str = "") -> None:
        self._half = 0.0
        self.x, self.y = Range1d(-1, 1), Range1d(-1, 1)
        self.figure = made = style.panel(
            "workspace", x_range=self.x, y_range=self.y, aspect_ratio=None, match_aspect=False
        )
        made.axis.axis_label = unit or None
        self._target = style.source(x=[], y=[], r=[])
        self._path = style.source(x=[], y=[])
        self._arrows = style.source(x0=[], y0=[], x1=[], y1=[], angle=[], color=[])
        self._cursor = style.source(x=[], y=[], color=[])
        made.circle(
            "x", "y", radius="r", source=self._target, fill_color=style.TARGET, fill_alpha=0.18,
            line_color=style.TARGET, line_width=3, legend_label="target",
        )  # fmt: skip
        made.line(
            "x", "y", source=self._path, line_color=style.PATH, line_width=3, line_join="round",
            legend_label="path",
        )  # fmt: skip
        made.segment(
            "x0", "y0", "x1", "y1", source=self._arrows, line_color="color", line_width=4,
            line_cap="round",
        )  # fmt: skip
        made.scatter(
            "x1", "y1", source=self._arrows, marker="triangle", angle="angle", size=14,
            fill_color="color", line_color=None,
        )  # fmt: skip
        made.scatter(
            "x", "y", source=self._cursor, size=18, fill_color="color", line_color=style.BACK,
            line_width=2,
        )  # fmt: skip
        style.explained(made, "decoded", style.DIMS[0])
        style.explained(made, "intended", style.INTENDED)
        style.legend(made)

    def update(self, watch: Watch) -> None:
        """Show the newest frame."""
        history, last = watch.history, watch.history.last
        self._grow(history.extent)
        if last is None or len(last["value"]) < 2:
            return
        here = last["cursor"][:2]
        known = int(last["cursor_dims"]) >= 2 and bool(np.isfinite(here).all())
        here = here if known else np.zeros(2)
        path = history.path(_PATH_S)
        self._path.data = {"x": path[:, 0], "y": path[:, 1]}
        trusted = watch.stands and STATUSES[int(last["status"])] != "INVALID"
        color = style.TEXT if trusted else style.BAD
        at = [float(one) for one in here] if known else []
        self._cursor.data = {"x": at[:1], "y": at[1:2], "color": [color] * known}
        target, radius = last["target"][:2], float(last["radius"])
        shown = int(last["target_dims"]) >= 2
        self._target.data = {
            "x": target[:1] if shown else [], "y": target[1:2] if shown else [],
            "r": [radius if math.isfinite(radius) else 0.03 * self._half] if shown else [],
        }  # fmt: skip
        arrows = [(_AHEAD_S * last["value"][:2], style.DIMS[0])]
        way = target - here
        far = float(np.linalg.norm(way))
        if shown and known and far > (radius if math.isfinite(radius) else 0.0):
            arrows.append((way / far * min(far, _REACH * self._half), style.INTENDED))
        self._show_arrows(here, arrows)

    def _show_arrows(self, here: Any, arrows: list[tuple[Any, str]]) -> None:
        ends = [here + way for way, _ in arrows]
        self._arrows.data = {
            "x0": [here[0]] * len(arrows), "y0": [here[1]] * len(arrows),
            "x1": [end[0] for end in ends], "y1": [end[1] for end in ends],
            "angle": [math.atan2(way[1], way[0]) - math.pi / 2 for way, _ in arrows],
            "color": [color for _, color in arrows],
        }  # fmt: skip

    def _grow(self, extent: float) -> None:
        """To a round number that holds all that was seen, and a little more."""
        wanted = 1.15 * extent
        if wanted <= self._half:
            return
        step = 10.0 ** math.floor(math.log10(wanted))
        self._half = next(
            step * m for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * m >= wanted
        )
        for axis in (self.x, self.y):
            axis.start, axis.end = -self._half, self._half
