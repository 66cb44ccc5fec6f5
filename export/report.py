"""``report.json`` and ``report.html``: what was exported, and how it was found to be right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.checkpoint.layouts import LAYOUTS
from poyo_edge.reports.axes import axis, log_axis
from poyo_edge.reports.chart import Chart, Series
from poyo_edge.reports.exported import export_page
from poyo_edge.reports.page import REPORT_HTML
from poyo_edge.runtime.checks.replay import Replay

REPORT_JSON = "report.json"
_SHOWN_S = 10.0


def write_report(
    folder: str | Path, report: Mapping[str, Any], replayed: Replay | None = None
) -> None:
    """Write both reports into the artifact's folder.

    Args:
        folder: the artifact's folder.
        report: what ``ExportReport.to_json`` gives.
        replayed: what was decoded of a recording, for the pictures.
    """
    folder = Path(folder)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    layout = LAYOUTS.get(report["layout"])
    charts = [] if replayed is None else _charts(replayed, report["output"]["unit"])
    html = export_page(report, charts, "" if layout is None else layout.help)
    (folder / REPORT_HTML).write_text(html, encoding="utf-8")


def _charts(replayed: Replay, unit: str) -> list[Chart]:
    """The trace of each output, and how long values took."""
    shown = replayed.times < replayed.times[0] + _SHOWN_S
    times = replayed.times[shown]
    charts = []
    for dim, r2 in enumerate(replayed.r2_per_dim.tolist()):
        truth, decoded = (one[shown, dim].tolist() for one in (replayed.truth, replayed.decoded))
        charts.append(
            Chart(
                title=f"Output {dim + 1}: R² {r2:.3f} over the whole split",
                x=axis("time, s", [], include=(float(times[0]), float(times[-1]))),
                y=axis(f"output {dim + 1}" + f", {unit}" * bool(unit), [*truth, *decoded]),
                series=[
                    Series(label="true", style=4, points=_thinned(times.tolist(), truth)),
                    Series(label="decoded", style=0, points=_thinned(times.tolist(), decoded)),
                ],
                note=f"The first {_SHOWN_S:g} seconds.",
            )
        )  # fmt: skip
    return [*charts, _latency(replayed)]


def _thinned(times: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """At most about a thousand points."""
    step = max(1, len(times) // 1000)
    return list(zip(times[::step], values[::step], strict=True))


def _latency(replayed: Replay) -> Chart:
    counts, edges = replayed.latency.counts, replayed.latency.edges_ms()
    used = np.flatnonzero(counts)
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    steps = range(first, last + 1, max(1, (last - first) // 60))
    points = [
        (float(edges[at]), float(counts[at : at + steps.step].sum())) for at in steps
    ] + [(float(edges[min(steps[-1] + steps.step, len(edges) - 1)]), 0.0)]  # fmt: skip
    summary = replayed.latency.summary_ms()
    return Chart(
        title="How long values took",
        x=log_axis("ms from the call of decode to its result", [x for x, _ in points]),
        y=axis("values", [y for _, y in points], include=(0.0,)),
        series=[Series(label="", style=4, fill=True, points=points)],
        marks=[
            (value, f"{name.replace('p999', 'p99.9')} {value:.2f} ms")
            for name, value in summary.items()
            if value > 0 and name != "p90"
        ],
    )
