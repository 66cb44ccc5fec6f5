"""The decoded trace over the true one, latencies, and what takes how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.figures.style import DECODED, TRUE, pyplot, save

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
    plt = pyplot("drawing the decoded trace")
    shown = times < times[0] + seconds
    n_dims = truth.shape[1]
    figure, axes = plt.subplots(
        n_dims, 1, figsize=(10, 1.2 + 2.1 * n_dims), sharex=True, squeeze=False
    )
    for dim, axis in enumerate(axes[:, 0]):
        axis.plot(times[shown], truth[shown, dim], color=TRUE, lw=1.6, label="true")
        axis.plot(times[shown], decoded[shown, dim], color=DECODED, lw=1.2, label="decoded")
        axis.set_ylabel(f"output {dim}" + (f" ({unit})" if unit else ""))
        axis.set_title(f"R² {r2_per_dim[dim]:.3f} over the whole split", loc="right", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0
    )
    axes[-1, 0].set_xlabel("time (s)")
    save(plt, figure, path, title)


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
    plt = pyplot("drawing the latency histogram")
    used = np.flatnonzero(counts)
    first, last = (used[0], used[-1] + 1) if len(used) else (0, 1)
    figure, axis = plt.subplots(figsize=(10, 3.4))
    axis.stairs(counts[first:last], edges_ms[first : last + 1], fill=True, color=TRUE)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for (name, value), style in zip(summary_ms.items(), _LINE_STYLES, strict=False):
        if value > 0:
            label = f"{name.replace('p999', 'p99.9')}  {value:.2f} ms"
            axis.axvline(value, color=DECODED, lw=1.2, ls=style, label=label)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axis.xaxis.set_major_formatter(plt.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(plt.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.tick_params(axis="x", which="both", labelsize=9)
    axis.set_xlabel(what)
    axis.set_ylabel("decodes")
    axis.spines[["top", "right"]].set_visible(False)
    save(plt, figure, path, title)


def draw_shares(
    path: str | Path, measured: Mapping[str, Mapping[str, float]], *, title: str
) -> None:
    """What share of the time each part takes, one bar for each side.

    Args:
        path: the PNG to write.
        measured: side → part → milliseconds; all sides have the same parts.
        title: above the picture.
    """
    plt = pyplot("drawing shares")
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
    save(plt, figure, path, title)


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
    plt = pyplot("drawing latencies")
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
    save(plt, figure, path, title)
