"""The time line: status, flags, swaps and what else happened, by the time of day."""

from __future__ import annotations

from typing import Any

from bokeh.models import DatetimeTickFormatter, FactorRange, HoverTool, Range1d

from poyo_edge.runtime.page.plots import style
from poyo_edge.runtime.page.watching import Watch

_SHOWN_S = (120.0, 600.0, 3600.0)
"""The axis holds the smallest of these that the run fills."""
_MOST_FLAGS = 8
_KINDS = {
    "swap": style.INTENDED, "fit": style.GOOD, "command": style.WAIT, "refused": style.WARN,
    "end": style.TEXT,
}  # fmt: skip
_MARKS = {"swap": "diamond", "fit": "star", "command": "inverted_triangle", "end": "square"}


class Times:
    """Status and flags as stretches of time, events as marks."""

    def __init__(self) -> None:
        self._rows = FactorRange(factors=["status", "events"])
        self.figure = made = style.panel("times", x_range=Range1d(0, 1), y_range=self._rows)
        made.xaxis.formatter = DatetimeTickFormatter(
            seconds="%H:%M:%S", minsec="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%H:%M"
        )
        made.xaxis.ticker.desired_num_ticks = 4  # they have room on a telephone too
        made.ygrid.grid_line_color = None
        self._stretches = style.source(y=[], left=[], right=[], color=[], name=[])
        self._marks = style.source(x=[], y=[], color=[], marker=[], text=[])
        bars = made.hbar(
            "y", left="left", right="right", height=0.72, source=self._stretches,
            fill_color="color", line_color=None,
        )  # fmt: skip
        marks = made.scatter(
            "x", "y", source=self._marks, marker="marker", size=13, fill_color="color",
            line_color=style.BACK,
        )  # fmt: skip
        made.add_tools(
            HoverTool(renderers=[bars], tooltips=[("", "@name")]),
            HoverTool(renderers=[marks], tooltips=[("", "@text")]),
        )

    def update(self, watch: Watch, now_s: float) -> None:
        """Show what there was until now (seconds of the host's clock)."""
        line, shift = watch.timeline, watch.unix_less_monotonic_s
        flags = sorted(line.flags, key=lambda flag: line.flags[flag][-1].end_s)[-_MOST_FLAGS:]
        factors = [*flags, "events", "status"]
        if list(self._rows.factors) != factors:
            self._rows.factors = factors
        begin_s = line.statuses[0].begin_s if line.statuses else now_s
        shown_s = next((s for s in _SHOWN_S if now_s - begin_s <= s), _SHOWN_S[-1])
        x = self.figure.x_range
        x.start, x.end = (
            _ms(max(begin_s, now_s - shown_s) + shift),
            _ms(max(now_s, begin_s + min(shown_s, _SHOWN_S[0])) + shift),
        )
        rows = [("status", one, style.STATUS[one.name]) for one in line.statuses]
        rows += [(flag, one, style.WARN) for flag in flags for one in line.flags[flag]]
        rows = [row for row in rows if row[1].end_s > now_s - shown_s]
        self._stretches.data = {
            "y": [row for row, _, _ in rows],
            "left": [_ms(one.begin_s + shift) for _, one, _ in rows],
            "right": [_ms(one.end_s + shift) for _, one, _ in rows],
            "color": [color for _, _, color in rows],
            "name": [one.name for _, one, _ in rows],
        }
        self._show_events(watch.state.get("events", []), shift)

    def _show_events(self, events: list[dict[str, Any]], shift: float) -> None:
        self._marks.data = {
            "x": [_ms(one["host_ns"] / 1e9 + shift) for one in events],
            "y": ["events"] * len(events),
            "color": [_KINDS.get(one["kind"], style.BAD) for one in events],
            "marker": [_MARKS.get(one["kind"], "circle") for one in events],
            "text": [f"{one['kind']}: {one['text']}" for one in events],
        }


def _ms(unix_s: float) -> float:
    """Milliseconds as a time axis takes them: of the local time of day."""
    import datetime

    local = datetime.datetime.fromtimestamp(unix_s).astimezone()
    offset = local.utcoffset()
    return 1e3 * (unix_s + (0.0 if offset is None else offset.total_seconds()))
