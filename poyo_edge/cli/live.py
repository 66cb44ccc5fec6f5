"""What a running rig shows: rates, latencies, status and the decoded trace."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from poyo_edge.cli.console import printable
from poyo_edge.cli.recalibrating import live_line
from poyo_edge.cli.text import behind_text, outcome_line, sink_line
from poyo_edge.runtime.rig.ends import first_reason

Values = Mapping[str, Any]
_BARS = "▁▂▃▄▅▆▇█"
_TRACE = 60
_LINE_EACH_S = 5.0
_ODD = ("malformed", "artifacts", "lost", "failures")


class LiveView:
    """A panel on a terminal that is redrawn; on another stream, a line each five seconds.

    It is drawn by ``update`` and at no other time, so that whoever calls it chooses the moment.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        self._began = self._last_line = time.monotonic()
        self._before: tuple[float, Values] | None = None
        self._rates: dict[str, float] = {}
        self._trace: deque[Sequence[float]] = deque(maxlen=_TRACE)
        self._live: Any = None
        self._said = False

    def __enter__(self) -> LiveView:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            screen = Console(stderr=True)
            self._live = Live(console=screen, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, stats: Values, last: Any) -> None:
        """Show the newest figures; ``last`` is the newest ``LoopResult`` or None."""
        now = time.monotonic()
        self._note_rates(now, stats)
        if last is not None:
            self._trace.append(last.result.value.tolist())
        if self.quiet:
            return
        if self._live is not None:
            from rich.panel import Panel
            from rich.text import Text

            text = Text("\n".join(self.lines(stats, last)))
            self._live.update(Panel(text, title=self.title), refresh=True)
        elif now - self._last_line >= _LINE_EACH_S:
            self._last_line = now
            line = [*self.lines(stats, last)[:3], *_sink_lines(stats)]
            print("  " + "; ".join(line), file=sys.stderr, flush=True)
            self._say_once(stats)

    def _say_once(self, stats: Values) -> None:
        """While nothing can be used: why. What is a problem was logged when it came."""
        feed, reason = stats["feed"], first_reason(stats)
        logged = (feed.get("first_problem"), stats.get("unknown_units"), feed.get("last_failure"))
        if reason and not self._said and reason not in logged:
            self._said = True
            print(f"  the feed: {printable(reason)}", file=sys.stderr, flush=True)

    def lines(self, stats: Values, last: Any) -> list[str]:
        """The panel's lines."""
        loop, latency = stats["loop"], stats["in_to_out_ms"]
        rates = ", ".join(f"{rate:.0f} {name}/s" for name, rate in self._rates.items())
        status = "waiting for spikes" if last is None else str(last.result.status)
        flags = " " + ", ".join(last.result.flags) if last is not None and last.result.flags else ""
        lines = [
            f"{time.monotonic() - self._began:6.0f} s  {status}{flags}"
            + "  STALLED" * bool(stats["stalled"]),
            f"rates    {rates or 'none yet'}",
            f"spike in → value out, ms  p50 {latency['p50']:.2f}  p99 {latency['p99']:.2f}  "
            f"max {latency['max']:.2f}",
            f"windows  {loop['decoded']} decoded, {loop['skipped']} skipped, "
            f"{loop['deadline_misses']} late",
        ]
        odd = {
            **{k: v for k, v in stats["feed"].items() if k in _ODD and v},
            **{k: v for k, v in stats["clock"].items() if k in ("discontinuities",) and v},
        }
        counters = stats["decoder"]["counters"]
        odd |= {k: counters[k] for k in ("unknown_unit", "late", "future") if counters[k]}
        if odd:
            lines.append("beware   " + ", ".join(f"{name} {count}" for name, count in odd.items()))
        lines += _sink_lines(stats)
        if reason := first_reason(stats):
            lines.append(f"first    {printable(reason)}")
        if reason := stats["decoder"].get("health", {}).get("session_check", {}).get("reason"):
            lines.append(f"session  {printable(reason)}")
        if said := outcome_line(stats["outcome"]) if stats.get("outcome") else "":
            lines.append(f"trials   {printable(said)}")
        if (journal := stats.get("journal")) and journal["error"]:
            lines.append(f"journal  lost {journal['lost_frames']}: {printable(journal['error'])}")
        if held := (stats.get("commands") or {}).get("held"):
            lines.append(f"control  values are zero: {held}")
        if stats.get("calibration"):
            lines.append(_calibration_line(stats["calibration"]))
        if stats.get("recalibration"):
            lines.append(printable(live_line(stats["recalibration"])))
        lines += [f"value {i}  {row}" for i, row in enumerate(self._sparks())]
        return lines

    def _note_rates(self, now: float, stats: Values) -> None:
        current = {
            "packets": stats["loop"]["packets"],
            "spikes": stats["decoder"]["counters"]["received"],
            "values": stats["loop"]["decoded"],
        }
        if self._before is None:
            self._before = (now, current)
        elif now - self._before[0] >= 1.0:
            span = now - self._before[0]
            self._rates = {k: (v - self._before[1][k]) / span for k, v in current.items()}
            self._before = (now, current)

    def _sparks(self) -> list[str]:
        rows = []
        for column in list(zip(*self._trace, strict=False))[:4]:
            most = max(map(abs, column)) or 1.0
            marks = [_BARS[min(7, int((value / most + 1) / 2 * 8))] for value in column]
            rows.append(f"{''.join(marks)}  {column[-1]:+.2f}")
        return rows


def _sink_lines(stats: Values) -> list[str]:
    return [f"sink     {printable(line)}" for one in stats.get("sinks", ())
            if (line := sink_line(one))]  # fmt: skip


def _calibration_line(values: Values) -> str:
    text = f"labels   {values['labelled_s']:.0f} s"
    if values["fitting"]:
        text += ", fitting"
    if values["fits"]:
        last = values["fits"][-1]
        text += ", last fit " + ("swapped in" if last["swapped"] else "refused")
        if "r2_heldout" in last:
            text += f" (held-out R² {last['r2_heldout']:.3f})"
        if behind := behind_text(last):
            text += f", {behind}"
    return text
