"""The page as one browser has it: pictures, the sheet of words and figures, what it asks for."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bokeh.events import MouseLeave, MouseMove, Pan
from bokeh.models import ColumnDataSource, CustomJS
from jinja2 import Environment, FileSystemLoader

from poyo_edge.runtime.page.commanding import Commander
from poyo_edge.runtime.page.plots.blocks import blocks
from poyo_edge.runtime.page.plots.latency import Latency
from poyo_edge.runtime.page.plots.times import Times
from poyo_edge.runtime.page.plots.traces import Traces
from poyo_edge.runtime.page.plots.units import Raster, Rates
from poyo_edge.runtime.page.plots.workspace import Workspace
from poyo_edge.runtime.page.ring.aim import point
from poyo_edge.runtime.page.sheet import Sheet, as_text
from poyo_edge.runtime.page.watching import Watch

_log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
_QUICK_MS, _SLOW_MS = 100, 500
_POINTS_EACH_S = 0.04
_MOST_BEHIND = 2
"""Updates that a browser may not have drawn yet: a slow one gets fewer, a hidden one hardly any."""
_ANYWAY_S = 5.0


class Page:
    """One document.

    Args:
        document: of Bokeh, empty.
        watch: shared by all browsers.
        sheet: of that watch, shared too.
    """

    def __init__(self, document: Any, watch: Watch, sheet: Sheet) -> None:
        self._document, self._watch, self._sheet = document, watch, sheet
        self._followed = watch.reader
        self._commander = Commander(self._address, self._answered)
        self._steers, self._pointed_s = False, 0.0
        state, reader = watch.state, watch.reader
        session, run = state.get("session", {}), state.get("run", {})
        dims, n_units = int(reader.head["dims"]), int(reader.head["units"])
        unit = str(run.get("unit", ""))
        label = ", ".join(one for one in (run.get("behavior", ""), unit) if one)
        self._workspace = Workspace(unit.removesuffix("/s"))
        self._traces = Traces(
            dims, label, session.get("output_low", []), session.get("output_high", [])
        )
        self._raster, self._rates = Raster(n_units), Rates(n_units)
        self._latency, self._times = Latency(1e3 / watch.rate_hz), Times()
        self._blocks = blocks()
        self._sent = self._drawn = 0
        self._sent_s = 0.0
        self._say = ColumnDataSource(data={"json": [""]}, name="say")
        self._ack = ColumnDataSource(data={"drawn": [0]}, name="ack")
        self._ask = ColumnDataSource(data={"json": [""]}, name="ask")
        self._lay_out(document)
        self._quick()
        self._slow()

    def _lay_out(self, document: Any) -> None:
        pictures: list[Any] = [
            self._workspace, self._traces, self._raster, self._rates, self._latency, self._times,
            *self._blocks,
        ]  # fmt: skip
        self._workspace.figure.tags = [
            self._say,
            self._ask,
            self._ack,
        ]  # roots alone are found by browsers
        self._say.js_on_change("data", CustomJS(code="window.poyo.show(cb_obj.data.json[0])"))
        self._ask.on_change("data", self._asked)
        self._ack.on_change("data", self._acknowledged)
        if self._watch.state.get("aim"):
            for event in (MouseMove, Pan):
                self._workspace.figure.on_event(event, self._pointed)
            self._workspace.figure.on_event(MouseLeave, lambda _: None)
        with document.models.freeze():  # what hangs on roots is looked for once
            for one in pictures:
                document.add_root(one.figure)
        document.title = f"poyo-edge {self._watch.run}"
        document.template = _template()
        document.add_periodic_callback(self._quick, _QUICK_MS)
        document.add_periodic_callback(self._slow, _SLOW_MS)

    def _keeps_up(self) -> bool:
        """Whether the browser has drawn what it got; if not, it gets something now and then."""
        late = time.monotonic() - self._sent_s > _ANYWAY_S
        return late or self._sent - self._drawn < _MOST_BEHIND

    def _acknowledged(self, _attribute: str, _old: Any, new: Mapping[str, Any]) -> None:
        with contextlib.suppress(LookupError, TypeError, ValueError):
            self._drawn = min(self._sent, int(new["drawn"][0]))

    def _quick(self) -> None:
        if not self._keeps_up():
            return
        with self._together():
            self._workspace.update(self._watch)
            self._traces.update(self._watch)
            self._tell()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Sent when all is there, the sheet last: who has drawn that has drawn all."""
        self._document.hold("combine")
        try:
            yield
        finally:
            self._document.unhold()

    def _slow(self) -> None:
        if self._watch.reader is not self._followed:  # another run: its shape may be another
            self._followed = self._watch.reader
            self._tell(reload=True)
            return
        if not self._keeps_up():
            return
        pictures: list[Any] = [self._raster, self._rates, self._latency, *self._blocks]
        with self._together():
            for one in pictures:
                one.update(self._watch)
            self._times.update(self._watch, time.monotonic())

    def _tell(self, *, reload: bool = False) -> None:
        now = self._sent_s = time.monotonic()
        self._sent += 1
        values = self._sheet.values(now)
        values |= {
            "number": self._sent, "mine": self._commander.values(), "reload": reload,
            "steers": self._steers, "simulated": bool(self._aim()),
        }  # fmt: skip
        self._say.data = {"json": [as_text(values)]}

    def _asked(self, _attribute: str, _old: Any, new: Mapping[str, Any]) -> None:
        """What the browser asks for; it is forgotten at once, as a token may be in it."""
        try:
            asked = json.loads(new["json"][0]) if new["json"][0] else None
        except (LookupError, TypeError, ValueError):
            asked = {}
        if asked is None:
            return
        self._ask.data = {"json": [""]}
        if not isinstance(asked, dict):
            asked = {}
        if asked.get("do") == "steer":
            self._steers = bool(asked.get("on")) and bool(self._aim())
        else:
            self._commander.ask(asked)

    def _answered(self) -> None:
        """From the commander's thread."""
        with contextlib.suppress(RuntimeError):  # the browser is gone
            self._document.add_next_tick_callback(self._tell)

    def _pointed(self, event: Any) -> None:
        aim, now = self._aim(), time.monotonic()
        if not self._steers or not aim or now - self._pointed_s < _POINTS_EACH_S:
            return
        self._pointed_s = now
        with contextlib.suppress(OSError, TypeError, ValueError):
            point(aim, float(event.x), float(event.y))

    def _address(self) -> str | None:
        found = self._watch.state.get("run", {}).get("control")
        return found if self._watch.alive and isinstance(found, str) else None

    def _aim(self) -> str | None:
        found = self._watch.state.get("aim")
        return found if self._watch.alive and isinstance(found, str) else None


def _template() -> Any:
    """The page's own HTML, with its style and its script in it."""
    environment = Environment(loader=FileSystemLoader(WEB), autoescape=False)
    environment.globals.update(
        style=(WEB / "page.css").read_text(encoding="utf-8"),
        script=(WEB / "page.js").read_text(encoding="utf-8"),
    )
    return environment.get_template("page.html")
