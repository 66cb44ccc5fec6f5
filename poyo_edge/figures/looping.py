"""Closed loops: ways of a cursor, throughput, and hours of drift."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.figures.style import DECODED, FAILED, TRUE, marks, pyplot, save


def draw_paths(path: str | Path, paths: Mapping[str, Sequence[Any]], *, title: str) -> None:
    """Ways of a cursor to its targets, a panel for each decoder.

    Args:
        path: the PNG to write.
        paths: decoder → trials (``poyo_edge.simulation.study.Path``).
        title: above the picture.
    """
    plt = pyplot("drawing paths of the cursor")
    figure, axes = plt.subplots(
        1,
        len(paths),
        figsize=(0.5 + 3.6 * len(paths), 4.6),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axis, (name, trials) in zip(axes[0], paths.items(), strict=True):
        for one in trials:
            axis.add_patch(plt.Circle(one.target, one.radius, fill=False, color=TRUE, lw=0.8))
            color = DECODED if one.success else FAILED
            axis.plot(*one.position.T, color=color, lw=1, alpha=0.8)
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_aspect("equal")
        axis.set_xlabel("cm")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("cm")
    save(plt, figure, path, title)


def draw_throughput(path: str | Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Throughput against added latency, a panel for each radius and a line for each decoder.

    Args:
        path: the PNG to write.
        rows: ``conditions`` of what ``poyo-edge closed-loop --json`` prints; those of the first
            smoothing and gain are drawn.
        title: above the picture.
    """
    plt = pyplot("drawing throughput")
    first = {key: rows[0][key] for key in ("smoothing_ms", "gain")}
    rows = [row for row in rows if all(row[key] == first[key] for key in first)]
    radii = list(dict.fromkeys(row["radius_cm"] for row in rows))
    names = list(dict.fromkeys(row["decoder"] for row in rows))
    figure, axes = plt.subplots(
        1, len(radii), figsize=(1.5 + 3.8 * len(radii), 3.8), squeeze=False, sharey=True
    )
    for axis, radius in zip(axes[0], radii, strict=True):
        for name, (color, marker) in zip(names, marks(), strict=False):
            own = [row for row in rows if (row["decoder"], row["radius_cm"]) == (name, radius)]
            own.sort(key=lambda row: float(row["latency_ms"]))
            latency, bits = ([row[key] for row in own] for key in ("latency_ms", "bits_per_s"))
            low, high = zip(*(row["bits_per_s_95"] for row in own), strict=True)
            axis.plot(latency, bits, color=color, marker=marker, ms=6, lw=1.4, label=name)
            axis.fill_between(latency, low, high, color=color, alpha=0.15, lw=0)
        axis.set_title(f"radius {radius:g} cm", loc="left", fontsize=10)
        axis.set_xlabel("added latency (ms)")
        axis.grid(axis="y", lw=0.4, alpha=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylim(bottom=0)  # of all, once all are drawn
    axes[0, 0].set_ylabel("bit/s")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    save(plt, figure, path, title)


def draw_hours(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Success and throughput over an hour of drift, without and with recalibration.

    Args:
        path: the PNG to write.
        rows: with ``drift``, ``recalibrated``, ``seed``, ``until_min``, ``success`` (0 to 1) and
            ``bits_per_s``.
    """
    plt = pyplot("drawing hours")
    drifts = list(dict.fromkeys(row["drift"] for row in rows))
    figure, axes = plt.subplots(
        2, len(drifts), figsize=(3 * len(drifts), 5), sharex=True, sharey="row", squeeze=False
    )
    measured = (("success", 100, "success, %"), ("bits_per_s", 1, "throughput, bit/s"))
    for (i, (name, unit, label)), (k, drift) in itertools.product(
        enumerate(measured), enumerate(drifts)
    ):
        axis = axes[i][k]
        for recalibrated, color in ((False, "#9ca3af"), (True, "#1d4ed8")):
            of = [r for r in rows if (r["drift"], r["recalibrated"]) == (drift, recalibrated)]
            minutes = sorted({row["until_min"] for row in of})
            means = [np.mean([unit * r[name] for r in of if r["until_min"] == m]) for m in minutes]
            with_ = "with" if recalibrated else "without"
            axis.plot(minutes, means, color=color, lw=2, marker="o", ms=4, label=with_)
            axis.plot([r["until_min"] for r in of], [unit * r[name] for r in of], ".", color=color)
        axis.set_ylim(0, None)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(title="" if i else drift, xlabel="minutes" if i else "", ylabel="" if k else label)
    axes[0][-1].legend(frameon=False, fontsize=8)
    save(plt, figure, path, "an hour of drift, simulated: recalibration by inferred targets")
