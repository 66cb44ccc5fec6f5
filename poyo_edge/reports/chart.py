"""Line, dot and bar charts as inline SVG: they scale, print, and follow light and dark.

A chart is drawn 400 units wide and meant for 300 to 580 px, so that its text is never small. What
belongs to a mark stands below the picture, where it collides with nothing.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
import zlib
from collections.abc import Sequence

from poyo_edge.reports.axes import Axis, Place

_WIDTH, _HEIGHT = 400.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 10.0, 40.0
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "1 5")
_N_STYLES = len(_DASHES)
Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together."""

    label: str
    """In the key; "" is not there."""
    points: Points
    style: int
    """Which of six colours, marks and dashes."""
    line: bool = True
    dots: bool = False
    fill: bool = False
    """Bars from zero up to each point, as wide as the way to the next."""
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high) of what it may be."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """A target, in the units of the axes."""

    x: float
    y: float
    radius: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One picture."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    """Below it, in plain text."""
    circles: Sequence[Circle] = ()
    levels: Sequence[tuple[float, str]] = ()
    """Horizontal lines at y, with their words in the key."""
    marks: Sequence[tuple[float, str]] = ()
    """Vertical lines at x, with their words in the key."""
    height: float = _HEIGHT

    def to_html(self) -> str:
        """A figure with its title, picture, key and note."""
        note = f"<figcaption>{html.escape(self.note)}</figcaption>" if self.note else ""
        return (
            f"<figure><strong>{html.escape(self.title)}</strong>{self._svg()}{self._key()}"
            f"{note}</figure>"
        )

    def _svg(self) -> str:
        box = (_LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM)
        x, y = self.x.placed(box[0], box[0] + box[2]), self.y.placed(box[1] + box[3], box[1])
        said = html.escape(f"{self.title}: {self.y.label} against {self.x.label}", quote=True)
        clip = f"c{zlib.crc32(f'{said}{self.series}'.encode()):x}"
        parts = [
            f'<svg viewBox="0 0 {_WIDTH:g} {self.height:g}" role="img" aria-label="{said}">',
            f'<clipPath id="{clip}"><rect x="{box[0] - 5:g}" y="{box[1] - 5:g}" '
            f'width="{box[2] + 10:g}" height="{box[3] + 10:g}"/></clipPath>',
            _frame(self.x, self.y, x, y, box),
            f'<g clip-path="url(#{clip})">',
        ]
        for at, _ in self.levels:
            parts.append(_line([(box[0], y(at)), (box[0] + box[2], y(at))], "var(--quiet)", "3 3"))
        for i, (at, _) in enumerate(self.marks):
            ends = [(x(at), box[1]), (x(at), box[1] + box[3])]
            parts.append(_line(ends, "var(--ink)", _DASHES[i % _N_STYLES]))
        for one in self.circles:
            rx, ry = abs(x(one.x + one.radius) - x(one.x)), abs(y(one.y + one.radius) - y(one.y))
            parts.append(
                f'<ellipse cx="{x(one.x):.1f}" cy="{y(one.y):.1f}" rx="{rx:.1f}" ry="{ry:.1f}" '
                f'fill="none" stroke="var(--quiet)"/>'
            )
        parts += [_drawn(one, x, y, self.y) for one in self.series]
        return "".join([*parts, "</g></svg>"])

    def _key(self) -> str:
        entries: dict[str, str] = {}
        for one in self.series:
            if one.label:
                entries.setdefault(one.label, _sample(one))
        dashes = {words: _DASHES[i % _N_STYLES] for i, (_, words) in enumerate(self.marks)}
        for words, dash in dashes.items():
            entries[words] = _line([(1, 6), (29, 6)], "var(--ink)", dash)
        for _, words in self.levels:
            if words:
                entries[words] = _line([(1, 6), (29, 6)], "var(--quiet)", "3 3")
        if not entries:
            return ""
        items = "".join(
            f'<li><svg viewBox="0 0 30 12" aria-hidden="true">{mark}</svg>{html.escape(words)}</li>'
            for words, mark in entries.items()
        )
        return f'<ul class="key">{items}</ul>'


def pictures(charts: Sequence[Chart]) -> str:
    """Charts side by side where there is room, else below each other."""
    return f'<div class="pictures">{"".join(chart.to_html() for chart in charts)}</div>'


def _frame(x: Axis, y: Axis, at_x: Place, at_y: Place, box: tuple[float, ...]) -> str:
    left, top, width, height = box
    bottom = top + height
    parts = []
    for tick in y.ticks():
        row = at_y(tick)
        parts.append(
            f'<line x1="{left:g}" x2="{left + width:g}" y1="{row:.1f}" y2="{row:.1f}" '
            f'stroke="var(--line)" stroke-width=".7"/>'
            f'<text x="{left - 6:g}" y="{row + 4.5:.1f}" text-anchor="end" fill="var(--ink)">'
            f"{html.escape(y.said(tick))}</text>"
        )
    for tick in x.ticks():
        column = at_x(tick)
        parts.append(
            f'<line x1="{column:.1f}" x2="{column:.1f}" y1="{bottom:g}" y2="{bottom + 4:g}" '
            f'stroke="var(--quiet)"/>'
            f'<text x="{column:.1f}" y="{bottom + 17:g}" text-anchor="middle" fill="var(--ink)">'
            f"{html.escape(x.said(tick))}</text>"
        )
    parts.append(
        f'<line x1="{left:g}" x2="{left + width:g}" y1="{bottom:g}" y2="{bottom:g}" '
        f'stroke="var(--quiet)"/>'
        f'<text x="{left + width / 2:g}" y="{bottom + 35:g}" text-anchor="middle" '
        f'fill="var(--quiet)">{html.escape(x.label)}</text>'
        f'<text transform="translate(13 {top + height / 2:g}) rotate(-90)" text-anchor="middle" '
        f'fill="var(--quiet)">{html.escape(y.label)}</text>'
    )
    return "".join(parts)


def _drawn(one: Series, x: Place, y: Place, axis: Axis) -> str:
    color, parts = f"var(--s{one.style % _N_STYLES})", []
    known = [(x(a), y(b)) for a, b in one.points if math.isfinite(a) and math.isfinite(b)]
    if one.band:
        edge = [(x(a), y(low)) for a, low, _ in one.band]
        edge += [(x(a), y(high)) for a, _, high in reversed(one.band)]
        parts.append(f'<polygon points="{_joined(edge)}" fill="{color}" opacity=".18"/>')
    if one.fill:
        floor = y(axis.floor)
        for (left, top), (right, _) in itertools.pairwise(known):
            parts.append(
                f'<rect x="{left:.1f}" y="{min(top, floor):.1f}" '
                f'width="{max(0.5, right - left - 0.3):.1f}" height="{abs(floor - top):.1f}" '
                f'fill="{color}" opacity=".75"/>'
            )
    elif one.line:
        for piece in _pieces(one.points):
            placed = [(x(a), y(b)) for a, b in piece]
            parts.append(_line(placed, color, _DASHES[one.style % _N_STYLES], 1.7))
    if one.dots:
        parts += [_mark(a, b, one.style) for a, b in known]
    return "".join(parts)


def _pieces(points: Points) -> list[list[tuple[float, float]]]:
    """Points without a gap; one that is not finite is one."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for a, b in points:
        if math.isfinite(a) and math.isfinite(b):
            pieces[-1].append((a, b))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]


def _sample(one: Series) -> str:
    color = f"var(--s{one.style % _N_STYLES})"
    if one.fill:
        return f'<rect x="1" y="2" width="28" height="8" fill="{color}" opacity=".75"/>'
    line = one.line or one.band
    dash = _DASHES[one.style % _N_STYLES]
    mark = _line([(1, 6), (29, 6)], color, dash, 1.7) if line else ""
    return mark + (_mark(15, 6, one.style) if one.dots else "")


def _mark(a: float, b: float, style: int) -> str:
    """A dot whose shape says which it is, too."""
    color, kind = f"var(--s{style % _N_STYLES})", style % _N_STYLES
    if kind in (2, 5):  # a cross, upright or not
        ends = [((0, -4.5), (0, 4.5)), ((-4.5, 0), (4.5, 0))]
        ends = ends if kind == 5 else [((-3.5, -3.5), (3.5, 3.5)), ((-3.5, 3.5), (3.5, -3.5))]
        return "".join(
            _line([(a + p[0], b + p[1]), (a + q[0], b + q[1])], color, "", 1.8) for p, q in ends
        )
    if kind == 0:
        return f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.6" fill="{color}"/>'
    shapes = {
        1: [(-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)],
        3: [(0, -4.8), (4.8, 0), (0, 4.8), (-4.8, 0)],
        4: [(0, -4.4), (4.4, 3.6), (-4.4, 3.6)],
    }
    corners = [(a + p, b + q) for p, q in shapes[kind]]
    return f'<polygon points="{_joined(corners)}" fill="{color}"/>'


def _line(points: Points, color: str, dash: str = "", width: float = 1.0) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{_joined(points)}" fill="none" stroke="{color}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _joined(points: Points) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
