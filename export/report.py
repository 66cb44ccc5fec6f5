"""``report.json`` and ``report.html``: what was exported, and how it was found to be right."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPORT_JSON, REPORT_HTML = "report.json", "report.html"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1f2328; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #d8dce1; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } h2 { margin-top: 2rem; } .bad { color: #b42318; font-weight: 600; }
"""


def write_report(folder: str | Path, report: Mapping[str, Any], figures: Sequence[str]) -> None:
    """Write both reports into the artifact's folder.

    Args:
        folder: the artifact's folder.
        report: what ``ExportReport.to_json`` gives.
        figures: names of PNG files in the folder.
    """
    folder = Path(folder)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / REPORT_HTML).write_text(_page(report, figures), encoding="utf-8")


def _page(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    title = html.escape(f"{report['name']}: export report")
    images = "".join(
        f'<p><img src="{html.escape(name)}" alt="{html.escape(name)}"></p>' for name in figures
    )
    sections = [images]
    if report.get("replay"):
        sections.append(_section("Replay, strictly causal", _pairs(_figures_of(report["replay"]))))
    sections += [
        _section("Checkpoint", _pairs(report["source"])),
        _section("Model", _pairs({**report["spec"], **report["output"]})),
        _section("Parity with the checkpoint's own model", _parity(report)),
        _section("Weights", _pairs(report["health"])),
        _section("Sessions", _sessions(report["sessions"])),
        _section("Written with", _pairs(report["tools"])),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(sections)}</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}"


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{_cell(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "<br>".join(html.escape(str(item)) for item in value) or "none"
    return html.escape(str(value))


def _parity(report: Mapping[str, Any]) -> str:
    head = "<tr><th>windows</th><th>spikes</th><th>max error</th><th>tolerance</th><th></th></tr>"
    rows = "".join(
        f"<tr><td>{html.escape(line['kind'])} × {line['n_windows']}</td>"
        f"<td class=n>{line['n_spikes']}</td><td class=n>{line['max_abs_error']:.2e}</td>"
        f"<td class=n>{line['tolerance']:.2e}</td>"
        f"<td>{'ok' if line['ok'] else '<span class=bad>failed</span>'}</td></tr>"
        for line in report["parity"]
    )
    about = (
        f"<p>All in the model's scale, whose output has sd {report['output_sd']:.4g}. The model's "
        f"own float32 output is {report['rounding']:.1e} from its float64 output, and giving it "
        f"float64 times, as torch_brain's datasets do, moves it by {report['float64_times']:.1e}."
        "</p>"
    )
    return f"{about}<table>{head}{rows}</table>"


def _sessions(sessions: Mapping[str, int]) -> str:
    if not sessions:
        return "<p>None: no unit of the checkpoint names its session.</p>"
    return _pairs({name: f"{count} units" for name, count in sessions.items()})


def _figures_of(replayed: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in replayed.items() if not isinstance(value, Mapping)}
    latency = {f"latency {key} (ms)": value for key, value in replayed["latency_ms"].items()}
    happened = {**replayed["statuses"], **replayed["counters"]}
    return flat | latency | {name: count for name, count in happened.items() if count}
