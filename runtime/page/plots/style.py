"""How all pictures look: for a dark room, one colour for one thing everywhere."""

from __future__ import annotations

import math
from typing import Any

from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

BACK, PANEL, LINE = "#0d1117", "#151b23", "#2a323d"
TEXT, MUTED = "#e6edf3", "#93a1b0"
DIMS = ("#4cc2ff", "#ffb454", "#7ee787", "#d2a8ff")
"""Dimensions of what is decoded."""
TARGET, INTENDED, PATH = "#7ee787", "#d2a8ff", "#3d6f8f"
GOOD, WAIT, WARN, BAD = "#3fb950", "#58a6ff", "#d9a441", "#f85149"
STATUS = {"VALID": GOOD, "WARMUP": WAIT, "DEGRADED": WARN, "HELD": "#f0883e", "INVALID": BAD}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def panel(name: str, **arguments: Any) -> Any:
    """An empty figure of the page's style that fills its place; ``name`` is that of the place."""
    arguments.setdefault("tools", "")
    made = figure(
        name=name,
        sizing_mode="stretch_both",
        toolbar_location=None,
        min_border=4,
        output_backend="canvas",
        background_fill_color=PANEL,
        border_fill_color=PANEL,
        outline_line_color=None,
        **arguments,
    )
    made.xgrid.grid_line_color = made.ygrid.grid_line_color = LINE
    made.xgrid.grid_line_alpha = made.ygrid.grid_line_alpha = 0.6
    for axis in made.axis:
        axis.axis_line_color = axis.major_tick_line_color = LINE
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = MUTED
        axis.major_label_text_font = axis.axis_label_text_font = FONT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_standoff = 4
    return made


def legend(made: Any, location: str = "top_left") -> None:
    """The figure's legend in one row on the panel's colour, above what it explains."""
    box = made.legend[0]
    made.add_layout(box, "above")
    box.orientation, box.location = "horizontal", location
    box.background_fill_color, box.border_line_color = PANEL, None
    box.label_text_color, box.label_text_font = TEXT, FONT
    box.label_text_font_size = "12px"
    box.glyph_width, box.spacing, box.padding, box.margin = 16, 12, 2, 0


def explained(made: Any, words: str, color: str, *, width: float = 4) -> None:
    """A line in the legend for what has another glyph for each of its parts."""
    nothing = [math.nan, math.nan]
    made.line(nothing, nothing, line_color=color, line_width=width, legend_label=words)


def source(**columns: Any) -> Any:
    """Columns of a picture, empty unless given."""
    return ColumnDataSource(data={name: list(value) for name, value in columns.items()})
