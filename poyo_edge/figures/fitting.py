"""How well: a calibration, an evaluation, and models that were trained on more and more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.figures.style import DECODED, TRUE, marks, pyplot, save


def draw_calibration(path: str | Path, values: Mapping[str, Any]) -> None:
    """A calibration in three panels: its learning curve, R² by labelled seconds, units.

    Args:
        path: the PNG to write.
        values: ``Quality`` and ``Examination`` of ``poyo_edge.calibration`` as JSON values.
    """
    plt = pyplot("drawing a calibration")
    figure, (curve, seconds, units) = plt.subplots(1, 3, figsize=(13, 3.8))
    steps = [point["step"] for point in values["curve"]]
    r2s = [point["r2"] for point in values["curve"]]
    low, high = np.mean(values["r2_interval"], axis=0)
    curve.plot(steps, r2s, color=DECODED, marker="o", ms=3, lw=1.2)
    curve.axvline(values["steps"], color=TRUE, lw=1, ls="--", label=f"taken: {values['steps']}")
    curve.set(xlabel="optimiser step", ylabel="R² on held-out blocks", title="learning curve")
    learned, by_seconds = zip(*values["r2_by_seconds"], strict=True)
    seconds.plot(learned, by_seconds, color=DECODED, marker="o", ms=4, lw=1.2)
    seconds.set_xlim(left=0)
    seconds.set(xlabel="labelled seconds that a fold learned from", title="labels")
    for axis in (curve, seconds):
        axis.axhspan(low, high, color=TRUE, alpha=0.15, lw=0, label="95 % interval")
        axis.axhline(0, color=TRUE, lw=0.8)
        axis.set_ylim(max(min(0.0, low, *r2s) - 0.03, -0.5), max(high, *r2s, *by_seconds) + 0.03)
    curve.legend(frameon=False, fontsize=9, loc="lower right")
    parts = [unit["part"] for unit in values["units"]]
    units.bar(range(1, len(parts) + 1), parts, color=TRUE)
    best = [f"{unit['unit'].rpartition('/')[2]}  {unit['part']:.3f}" for unit in values["units"]]
    units.text(0.97, 0.95, "\n".join(best[:5]), transform=units.transAxes, ha="right", va="top")
    units.set(xlabel="units, by what they add", ylabel="R² lost without it", title="units")
    for axis in (curve, seconds, units):
        axis.spines[["top", "right"]].set_visible(False)
    r2 = f"held-out R² {values['r2_heldout']:.3f} from {values['labelled_s']:.0f} labelled s"
    save(plt, figure, path, f"{Path(values['session'] or 'refused').stem}: {r2}")


def draw_evaluation(path: str | Path, values: Mapping[str, Any]) -> None:
    """R² of each session, a panel for each protocol, a mark for each decoder.

    Args:
        path: the PNG to write.
        values: what ``poyo-edge evaluate --json`` prints.
    """
    plt = pyplot("drawing an evaluation")
    sessions = values["sessions"]
    protocols = list(sessions[0]["r2"])
    names = list(dict.fromkeys(n for s in sessions for p in protocols for n in s["r2"][p]))
    height = 1.4 + 0.3 * len(sessions)
    figure, axes = plt.subplots(
        1, len(protocols), figsize=(1.5 + 4.5 * len(protocols), height), squeeze=False, sharey=True
    )
    rows = np.arange(len(sessions))[::-1]
    lowest = [max(-0.2, r2) for s in sessions for p in protocols for r2 in s["r2"][p].values()]
    for axis, protocol in zip(axes[0], protocols, strict=True):
        for name, (color, marker) in zip(names, marks(), strict=False):
            r2 = [max(-0.2, s["r2"][protocol].get(name, np.nan)) for s in sessions]
            axis.plot(r2, rows, marker, color=color, ms=7, mew=1.6, label=name)
        axis.set_yticks(rows, [s["session"] for s in sessions])
        axis.set_ylim(-0.6, len(sessions) - 0.4)
        axis.set_xlim(min(0.0, *lowest) - 0.02, 1.02)  # a small difference looks small
        axis.set_title(protocol, loc="left", fontsize=10)
        axis.set_xlabel("R², mean of outputs")
        axis.grid(axis="x", lw=0.4, alpha=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    save(plt, figure, path, f"{Path(values['model']).name}: {values['behavior']}")


def draw_scaling(
    path: str | Path, cells: Sequence[Mapping[str, Any]], peers: Sequence[Mapping[str, Any]] = ()
) -> None:
    """R² of held-out sessions against sessions, a line for each size and each baseline.

    After one number of labelled seconds, against units and parameters too; after several, a panel
    for each.

    Args:
        path: the PNG to write.
        cells: ``cells`` of what ``poyo-edge scaling --json`` prints.
        peers: ``baselines`` of it.
    """
    plt = pyplot("drawing how a model scales")
    seconds = list(cells[0].get("r2_by_seconds", ()))
    if len(seconds) > 1:
        panels = [("n_sessions", "size", one) for one in seconds]
    else:
        panels = [("n_sessions", "size", ""), ("n_units", "size", ""),
                  ("parameters", "n_sessions", "")]  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(1 + 4 * len(panels), 3.8), sharey=True,
                                squeeze=False)  # fmt: skip
    for axis, (key, by, after) in zip(axes[0], panels, strict=True):
        for name, color, style, own in _lines(cells, peers if key == "n_sessions" else (), by):
            x = [one[key] for one in own]
            y = [_after(one, after) for one in own]
            axis.plot(x, y, style, marker="o", color=color, lw=1.6, ms=4, label=name)
            for one in own:
                dots = [_after(session, after) for session in one["heldout"]]
                axis.plot([one[key]] * len(dots), dots, ".", color=color, alpha=0.4, ms=4)
        axis.set_xscale("log")
        ticks = sorted({one[key] for one in cells})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel({"n_sessions": "sessions", "n_units": "units"}.get(key, key))
        if after:
            axis.set_title(f"{after} labelled seconds", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    if len(seconds) < 2:
        axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    axes[0, 0].set_ylabel("causal R² of held-out sessions")
    save(plt, figure, path, "held-out sessions after calibration")


def _lines(
    cells: Sequence[Mapping[str, Any]], peers: Sequence[Mapping[str, Any]], by: str
) -> Iterator[tuple[str, str, str, list[Mapping[str, Any]]]]:
    """Label, colour, style and cells of each line."""
    colors = itertools.cycle([DECODED, "#2563eb", "#059669", "#7c3aed"])
    for group in dict.fromkeys(cell[by] for cell in cells):
        name = f"{group} sessions" if by == "n_sessions" else f"{group}"
        own = [cell for cell in cells if cell[by] == group]
        key = "parameters" if by == "n_sessions" else "n_sessions"
        yield name, next(colors), "-", sorted(own, key=lambda one: float(one[key]))
    for name in dict.fromkeys(one["decoder"] for one in peers):
        own = [one for one in peers if one["decoder"] == name]
        yield name, TRUE, "--", sorted(own, key=lambda one: float(one["n_sessions"]))


def _after(one: Mapping[str, Any], seconds: str) -> float:
    return float(one["r2_by_seconds"][seconds] if seconds else one["r2"])
