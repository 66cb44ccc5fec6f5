"""Pictures that a person looks at: the decoded trace over the true one, and latencies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.errors import MissingExtraError

_TRUE, _DECODED = "#8a8f98", "#c2410c"
_FAILED = "#2563eb"
_LINE_STYLES = ("-", "--", "-.", ":", (0, (1, 4)))


def draw_trace(
    path: str | Path,
    times: Float64,
    truth: Float64,
    decoded: Float64,
    *,
    title: str,
    r2_per_dim: Sequence[float],
    unit: str = "",
    seconds: float = 20.0,
) -> None:
    """The first ``seconds`` of true and decoded behaviour, one panel for each dimension.

    Args:
        path: the PNG to write.
        times: (S,) seconds.
        truth, decoded: (S, O) in behaviour units.
        title: above the picture.
        r2_per_dim: (O,) over the whole stretch, not only what is shown.
        unit: label of the behaviour's unit.
        seconds: how much to show.
    """
    plt = _pyplot("drawing the decoded trace")
    shown = times < times[0] + seconds
    n_dims = truth.shape[1]
    figure, axes = plt.subplots(
        n_dims, 1, figsize=(10, 1.2 + 2.1 * n_dims), sharex=True, squeeze=False
    )
    for dim, axis in enumerate(axes[:, 0]):
        axis.plot(times[shown], truth[shown, dim], color=_TRUE, lw=1.6, label="true")
        axis.plot(times[shown], decoded[shown, dim], color=_DECODED, lw=1.2, label="decoded")
        axis.set_ylabel(f"output {dim}" + (f" ({unit})" if unit else ""))
        axis.set_title(f"R² {r2_per_dim[dim]:.3f} over the whole split", loc="right", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0
    )
    axes[-1, 0].set_xlabel("time (s)")
    _save(plt, figure, path, title)


def draw_latency(
    path: str | Path,
    edges_ms: Float64,
    counts: npt.NDArray[np.int64],
    summary_ms: dict[str, float],
    *,
    title: str,
    what: str = "milliseconds from the call of decode to its result",
) -> None:
    """Histogram of latencies with its percentiles.

    Args:
        path: the PNG to write.
        edges_ms: (K + 1,) edges of the bins in milliseconds.
        counts: (K,) decodes in each bin.
        summary_ms: percentile name → milliseconds.
        title: above the picture.
        what: below it.
    """
    plt = _pyplot("drawing the latency histogram")
    used = np.flatnonzero(counts)
    first, last = (used[0], used[-1] + 1) if len(used) else (0, 1)
    figure, axis = plt.subplots(figsize=(10, 3.4))
    axis.stairs(counts[first:last], edges_ms[first : last + 1], fill=True, color=_TRUE)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for (name, value), style in zip(summary_ms.items(), _LINE_STYLES, strict=False):
        if value > 0:
            label = f"{name.replace('p999', 'p99.9')}  {value:.2f} ms"
            axis.axvline(value, color=_DECODED, lw=1.2, ls=style, label=label)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axis.xaxis.set_major_formatter(plt.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(plt.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.tick_params(axis="x", which="both", labelsize=9)
    axis.set_xlabel(what)
    axis.set_ylabel("decodes")
    axis.spines[["top", "right"]].set_visible(False)
    _save(plt, figure, path, title)


def draw_calibration(path: str | Path, values: Mapping[str, Any]) -> None:
    """A calibration in three panels: its learning curve, R² by labelled seconds, units.

    Args:
        path: the PNG to write.
        values: ``Quality`` and ``Examination`` of ``poyo_edge.calibration`` as JSON values.
    """
    plt = _pyplot("drawing a calibration")
    figure, (curve, seconds, units) = plt.subplots(1, 3, figsize=(13, 3.8))
    steps = [point["step"] for point in values["curve"]]
    r2s = [point["r2"] for point in values["curve"]]
    low, high = np.mean(values["r2_interval"], axis=0)
    curve.plot(steps, r2s, color=_DECODED, marker="o", ms=3, lw=1.2)
    curve.axvline(values["steps"], color=_TRUE, lw=1, ls="--", label=f"taken: {values['steps']}")
    curve.set(xlabel="optimiser step", ylabel="R² on held-out blocks", title="learning curve")
    learned, by_seconds = zip(*values["r2_by_seconds"], strict=True)
    seconds.plot(learned, by_seconds, color=_DECODED, marker="o", ms=4, lw=1.2)
    seconds.set_xlim(left=0)
    seconds.set(xlabel="labelled seconds that a fold learned from", title="labels")
    for axis in (curve, seconds):
        axis.axhspan(low, high, color=_TRUE, alpha=0.15, lw=0, label="95 % interval")
        axis.axhline(0, color=_TRUE, lw=0.8)
        axis.set_ylim(max(min(0.0, low, *r2s) - 0.03, -0.5), max(high, *r2s, *by_seconds) + 0.03)
    curve.legend(frameon=False, fontsize=9, loc="lower right")
    parts = [unit["part"] for unit in values["units"]]
    units.bar(range(1, len(parts) + 1), parts, color=_TRUE)
    best = [f"{unit['unit'].rpartition('/')[2]}  {unit['part']:.3f}" for unit in values["units"]]
    units.text(0.97, 0.95, "\n".join(best[:5]), transform=units.transAxes, ha="right", va="top")
    units.set(xlabel="units, by what they add", ylabel="R² lost without it", title="units")
    for axis in (curve, seconds, units):
        axis.spines[["top", "right"]].set_visible(False)
    r2 = f"held-out R² {values['r2_heldout']:.3f} from {values['labelled_s']:.0f} labelled s"
    _save(plt, figure, path, f"{Path(values['session'] or 'refused').stem}: {r2}")


def _save(plt: Any, figure: Any, path: str | Path, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_evaluation(path: str | Path, values: Mapping[str, Any]) -> None:
    """R² of each session, a panel for each protocol, a mark for each decoder.

    Args:
        path: the PNG to write.
        values: what ``poyo-edge evaluate --json`` prints.
    """
    plt = _pyplot("drawing an evaluation")
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
        for name, (color, marker) in zip(names, _marks(), strict=False):
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
    _save(plt, figure, path, f"{Path(values['model']).name}: {values['behavior']}")


def _marks() -> list[tuple[str, str]]:
    return [(_DECODED, "o"), ("#7c3aed", "D"), ("#2563eb", "+"), ("#059669", "x"), (_TRUE, "_"),
            ("#be185d", "1")]  # fmt: skip


def draw_scaling(path: str | Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """R² of held-out sessions against sessions, units and parameters, a line for each size.

    Args:
        path: the PNG to write.
        cells: what ``poyo-edge scaling --json`` prints of each model.
    """
    plt = _pyplot("drawing how a model scales")
    axes_of = {"n_sessions": "sessions", "n_units": "units", "parameters": "parameters"}
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True)
    colors = [_DECODED, "#2563eb", "#059669", "#7c3aed", _TRUE]
    groups = {
        key: list(dict.fromkeys(cell[key] for cell in cells)) for key in ("size", "n_sessions")
    }
    for axis, (key, label) in zip(axes, axes_of.items(), strict=True):
        by = "n_sessions" if key == "parameters" else "size"
        for color, group in zip(colors * 4, groups[by], strict=False):
            own = sorted((c for c in cells if c[by] == group), key=lambda c: float(c[key]))
            name = f"{group} sessions" if by == "n_sessions" else f"{group}"
            x = [c[key] for c in own]
            axis.plot(x, [c["r2"] for c in own], "o-", color=color, lw=1.6, ms=4, label=name)
            for cell in own:
                dots = [h["r2"] for h in cell["heldout"]]
                axis.plot([cell[key]] * len(dots), dots, ".", color=color, alpha=0.4, ms=4)
        axis.set_xscale("log")
        ticks = sorted({c[key] for c in cells})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        if by == "size":
            axis.legend(frameon=False, fontsize=8)
        else:
            axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    axes[0].set_ylabel("causal R² of held-out sessions")
    _save(plt, figure, path, "held-out sessions after calibration")


def draw_paths(path: str | Path, paths: Mapping[str, Sequence[Any]], *, title: str) -> None:
    """Ways of a cursor to its targets, a panel for each decoder.

    Args:
        path: the PNG to write.
        paths: decoder → trials (``poyo_edge.simulation.study.Path``).
        title: above the picture.
    """
    plt = _pyplot("drawing paths of the cursor")
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
            axis.add_patch(plt.Circle(one.target, one.radius, fill=False, color=_TRUE, lw=0.8))
            color = _DECODED if one.success else _FAILED
            axis.plot(*one.position.T, color=color, lw=1, alpha=0.8)
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_aspect("equal")
        axis.set_xlabel("cm")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("cm")
    _save(plt, figure, path, title)


def draw_throughput(path: str | Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Throughput against added latency, a panel for each radius and a line for each decoder.

    Args:
        path: the PNG to write.
        rows: ``conditions`` of what ``poyo-edge closed-loop --json`` prints; those of the first
            smoothing and gain are drawn.
        title: above the picture.
    """
    plt = _pyplot("drawing throughput")
    first = {key: rows[0][key] for key in ("smoothing_ms", "gain")}
    rows = [row for row in rows if all(row[key] == first[key] for key in first)]
    radii = list(dict.fromkeys(row["radius_cm"] for row in rows))
    names = list(dict.fromkeys(row["decoder"] for row in rows))
    figure, axes = plt.subplots(
        1, len(radii), figsize=(1.5 + 3.8 * len(radii), 3.8), squeeze=False, sharey=True
    )
    for axis, radius in zip(axes[0], radii, strict=True):
        for name, (color, marker) in zip(names, _marks(), strict=False):
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
    _save(plt, figure, path, title)


def draw_shares(
    path: str | Path, measured: Mapping[str, Mapping[str, float]], *, title: str
) -> None:
    """What share of the time each part takes, one bar for each side.

    Args:
        path: the PNG to write.
        measured: side → part → milliseconds; all sides have the same parts.
        title: above the picture.
    """
    plt = _pyplot("drawing shares")
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.42 * len(measured)))
    parts = list(next(iter(measured.values())))
    colors = plt.get_cmap("tab10").colors
    rows = range(len(measured), 0, -1)
    left = np.zeros(len(measured))
    totals = np.array([sum(one.values()) for one in measured.values()])
    for part, color in zip(parts, colors, strict=False):
        share = 100 * np.array([one[part] for one in measured.values()]) / totals
        axis.barh(rows, share, left=left, color=color, height=0.7, label=part)
        left += share
    labels = [f"{side}\n{total:.1f} ms" for side, total in zip(measured, totals, strict=True)]
    axis.set_yticks(rows, labels, fontsize=8)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of the time in nodes")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8, borderaxespad=0
    )
    _save(plt, figure, path, title)


def draw_peers(
    path: str | Path, spikes: Sequence[int], taken_ms: Mapping[str, Sequence[float]], *, title: str
) -> None:
    """Milliseconds of a window against its spikes, one line for each peer, on log scales.

    Args:
        path: the PNG to write.
        spikes: (N,) spikes in the window.
        taken_ms: peer → (N,) median milliseconds; those of poyo-edge are drawn thick.
        title: above the picture.
    """
    plt = _pyplot("drawing latencies")
    figure, axis = plt.subplots(figsize=(9, 5))
    colors = plt.get_cmap("tab10").colors
    for i, (peer, values) in enumerate(taken_ms.items()):
        ours = peer.startswith("poyo-edge")
        axis.plot(
            spikes,
            values,
            color=colors[i % len(colors)],
            ls="-" if ours else "--",
            lw=2.2 if ours else 1.3,
            marker="o",
            ms=4,
            label=peer,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(spikes, [str(n) for n in spikes])
    axis.minorticks_off()
    ticks = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500]
    low, high = axis.get_ylim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_yticks(shown, [str(tick) for tick in shown])
    axis.set_xlabel("spikes in the window")
    axis.set_ylabel("median milliseconds")
    axis.grid(axis="y", color="#e5e7eb", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    _save(plt, figure, path, title)


def draw_hours(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Success and throughput over an hour of drift, without and with recalibration.

    Args:
        path: the PNG to write.
        rows: with ``drift``, ``recalibrated``, ``seed``, ``until_min``, ``success`` (0 to 1) and
            ``bits_per_s``.
    """
    plt = _pyplot("drawing hours")
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
    _save(plt, figure, path, "an hour of drift, simulated: recalibration by inferred targets")


def _pyplot(purpose: str) -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", purpose) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
