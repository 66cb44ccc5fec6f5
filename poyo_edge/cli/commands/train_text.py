"""What training and evaluation say to people, from the values that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.cli.console import pairs, table

Values = Mapping[str, Any]
_SHOWN = 40


def dry_run_text(values: Values) -> str:
    """Sessions, sizes, costs and early warnings."""
    rows = [
        [
            s["session"],
            s["subject"] or "–",
            s["units"],
            f"{s['split_s'] / 60:.1f}",
            f"{s['spikes_per_s']:.0f}",
            " ".join(f"{x:g}" for x in s["sd"]),
        ]
        for s in values["sessions"][:_SHOWN]
    ]
    more = len(values["sessions"]) - _SHOWN
    head = ["session", "subject", "units", "minutes", "spikes/s", "behaviour sd"]
    lines = {
        "sessions": f"{values['n_sessions']}" + f", {more} of them not shown" * (more > 0),
        "subjects": values["n_subjects"],
        "units": values["n_units"],
        "hours": f"{values['hours']:.2f} in the split",
        "windows": f"{values['n_windows']} in an epoch of {values['steps_per_epoch']} steps",
        "tokens per window": f"{values['tokens_per_window']:.0f}, at most "
        f"{values['most_tokens_per_window']} in the batches that were measured",
        "parameters": f"{values['parameters']:,} and {values['table_parameters']:,} in the tables",
        "memory": f"{values['peak_memory_mb']:.0f} MB at most while measuring on "
        f"{values['device']}; weights, gradients and moments take {values['state_mb']:.0f} MB",
        "step": f"{values['step_s']:.3f} s, {values['samples_per_s']:.0f} samples/s",
        "epoch": _time(values["epoch_s"]),
        "run": f"{_time(values['run_s'])} for {values['steps']} steps",
    }
    notes = "".join(f"\nwarning: {sentence}" for sentence in values["warnings"])
    return f"{table(head, rows)}\n\n{pairs(lines)}{notes}\n\ndry run: nothing was written"


def train_text(values: Values, data: Path, program: str) -> str:
    """What was trained, and what to type next."""
    r2 = values["valid_r2"]
    lines = {
        "checkpoint": values["checkpoint"],
        "sessions": f"{len(values['sessions'])}, {values['n_units']} units",
        "parameters": f"{values['parameters']:,} without the tables",
        "steps": f"{values['steps']}, {_time(values['wall_s'])}, last loss {values['loss']:.4f}"
        if values["loss"] is not None
        else values["steps"],
        "valid R²": f"{sum(r2.values()) / len(r2):.3f} (causal, {len(r2)} sessions)"
        if r2
        else "not measured (validate_every)",
        "log": values["logs"],
    }
    checkpoint = values["checkpoint"]
    return (
        f"{pairs(lines)}\n\nNext:\n  {program} evaluate {checkpoint} --data {data}\n"
        f"  {program} export {checkpoint}"
    )


def evaluation_markdown(values: Values) -> str:
    """A table for each protocol, with a row for each session and each animal."""
    tables = []
    for protocol in values["sessions"][0]["r2"]:
        rows = [(s["session"], s["r2"][protocol]) for s in values["sessions"]]
        if len(values["sessions"]) > 1:
            rows += [
                (f"mean of {s['subject'] or 'all'} ({s['n_sessions']})", s["r2"][protocol])
                for s in values["subjects"]
            ]
        names = list(dict.fromkeys(name for _, r2 in rows for name in r2))
        body = [
            [label, *(f"{r2[name]:.3f}" if name in r2 else "–" for name in names)]
            for label, r2 in rows
        ]
        tables.append(f"{protocol} R²\n\n{markdown([protocol, *names], body)}")
    return "\n\n".join(tables)


def evaluation_text(values: Values) -> str:
    """The tables, and what was written."""
    left = values["left_out"]
    notes = f"\nnot in the model, left out: {', '.join(left[:6])}" if left else ""
    files = f"\n\nwrote {'  '.join(values['files'])}" if values.get("files") else ""
    return f"{evaluation_markdown(values)}{notes}{files}"


def scaling_markdown(cells: Sequence[Values]) -> str:
    """A row for each model."""
    head = ["sessions", "size", "units", "parameters", "train s", "R² held out", "lowest, highest"]
    rows = []
    for cell in cells:
        r2 = [h["r2"] for h in cell["heldout"]]
        rows.append(
            [
                cell["n_sessions"],
                cell["size"],
                cell["n_units"],
                f"{cell['parameters']:,}",
                f"{cell['train_s']:.0f}",
                f"{cell['r2']:.3f}",
                f"{min(r2):.3f}, {max(r2):.3f}",
            ]
        )
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, all others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
