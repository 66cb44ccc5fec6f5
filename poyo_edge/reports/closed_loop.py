"""The report of ``poyo-edge closed-loop``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.reports.axes import axis
from poyo_edge.reports.chart import Chart, Circle, Series, pictures
from poyo_edge.reports.page import Section, heading, page, pairs, paragraph, rows

Values = Mapping[str, Any]
Trial = tuple[Sequence[tuple[float, float]], tuple[float, float], float, bool]
"""The cursor's way, the target, its radius, and whether it was reached; cm."""
_ALIKE = ("smoothing_ms", "gain")


def closed_loop_page(values: Values, paths: Mapping[str, Sequence[Trial]]) -> str:
    """The whole page.

    Args:
        values: what ``poyo-edge closed-loop --json`` prints.
        paths: decoder → trials of the first condition and seed.
    """
    name = Path(values["artifact"]).name
    lead = (
        f"A simulated person controlled a cursor with {name} and with filters calibrated on the "
        f"same {values['observe_s']:g} s. {_verdict(values['against'])}"
    )
    parts = [
        _how_good(values), _ways(values, paths), _holding(values), _again(values), _made(values)
    ]  # fmt: skip
    return page(f"{name}: closed loop", lead, [part for part in parts if part is not None])


def _verdict(against: Sequence[Values]) -> str:
    ratios = [one["ratio"] for one in against if one["ratio"] is not None]
    if not ratios:
        return ""
    if len(ratios) == 1:
        return f"Its throughput is {ratios[0]:.2f} times that of the better filter."
    return (
        f"Its throughput is {min(ratios):.2f} to {max(ratios):.2f} times that of the better "
        f"filter, over {len(ratios)} conditions."
    )


def _how_good(values: Values) -> Section:
    lines = values["conditions"]
    head = ["decoder", "latency, ms", "radius, cm", *_varied(lines), "success, %", "bits/s",
            "95 % interval", "time, s", "path efficiency", "dial-in, s",
            "angular error, °", "decoder gain"]  # fmt: skip
    table = rows(
        head,
        [
            [one["decoder"], f"{one['latency_ms']:g}", f"{one['radius_cm']:g}",
             *(f"{one[key]:g}" for key in _varied(lines).values()), f"{100 * one['success']:.0f}",
             _number(one["bits_per_s"]), " to ".join(_number(x) for x in one["bits_per_s_95"]),
             _number(one["time_s"]), _number(one["path_efficiency"]), _number(one["dial_in_s"]),
             _number(one["angular_error_deg"], 0), _number(one["decoder_gain"])]
            for one in lines
        ],
    )  # fmt: skip
    words = ["bits per second", "success", "added latency", "radius", "95 % interval",
             "path efficiency", "dial-in", "angular error", "gain", "Wiener filter",
             "Kalman filter"]  # fmt: skip
    return Section(
        question="How well can the cursor be controlled?",
        answer="Higher is better. Where the shaded bands overlap, chance may have made the "
        "difference.",
        body=pictures(_throughput(lines)) + heading("All figures") + table + _against(values),
        words=[*words, *(["smoothing"] if "smoothing, ms" in _varied(lines) else [])],
    )


def _varied(lines: Sequence[Values]) -> dict[str, str]:
    """Head of the column → its key, of settings that differ."""
    heads = {"smoothing, ms": "smoothing_ms", "gain": "gain"}
    return {head: key for head, key in heads.items() if len({one[key] for one in lines}) > 1}


def _throughput(lines: Sequence[Values]) -> list[Chart]:
    """A chart for each radius, on the same axes; of the first smoothing and gain."""
    first = {key: lines[0][key] for key in _ALIKE}
    drawn = [one for one in lines if all(one[key] == first[key] for key in first)]
    names = list(dict.fromkeys(one["decoder"] for one in drawn))
    highs = [float(x) for one in drawn for x in (*one["bits_per_s_95"], one["bits_per_s"] or 0.0)]
    latencies = [float(one["latency_ms"]) for one in drawn]
    charts = []
    for radius in dict.fromkeys(one["radius_cm"] for one in drawn):
        series = []
        for style, name in enumerate(names):
            own = [one for one in drawn if (one["decoder"], one["radius_cm"]) == (name, radius)]
            own.sort(key=lambda one: float(one["latency_ms"]))
            series.append(
                Series(
                    label=name, style=style, dots=True,
                    points=[(one["latency_ms"], _float(one["bits_per_s"])) for one in own],
                    band=[(one["latency_ms"], *one["bits_per_s_95"]) for one in own],
                )
            )  # fmt: skip
        charts.append(
            Chart(
                title=f"Targets of {radius:g} cm radius", series=series,
                x=axis("added latency, ms", latencies, include=(0.0,), least=20.0),
                y=axis("bits per second", highs, include=(0.0,)),
            )
        )  # fmt: skip
    return charts


def _against(values: Values) -> str:
    if not values["against"]:
        return ""
    lines = [
        [f"over {one['better']}", f"{one['latency_ms']:g}", f"{one['radius_cm']:g}",
         _number(one["ratio"]),
         "–" if one["ratio_95"] is None else " to ".join(_number(x) for x in one["ratio_95"])]
        for one in values["against"]
    ]  # fmt: skip
    head = ["POYO's bits per second", "latency, ms", "radius, cm", "ratio", "95 % interval"]
    return heading("Over the better of the filters") + rows(head, lines)


def _ways(values: Values, paths: Mapping[str, Sequence[Trial]]) -> Section | None:
    if not any(paths.values()):
        return None
    first = values["conditions"][0]
    trials = [trial for many in paths.values() for trial in many]
    reach = max(
        [abs(x) for way, _, _, _ in trials for point in way for x in point]
        + [max(map(abs, target)) + radius for _, target, radius, _ in trials]
    )
    side = axis("cm", [], include=(-reach, reach))
    charts = [
        Chart(
            title=name, x=side, y=side, height=386.0,
            circles=[Circle(x=target[0], y=target[1], radius=radius)
                     for _, target, radius, _ in many],
            series=[
                Series(label="target reached" if success else "not reached", points=way,
                       style=0 if success else 1)
                for way, _, _, success in many
            ],
        )
        for name, many in paths.items()
    ]  # fmt: skip
    return Section(
        question="Which way did the cursor go?",
        answer=f"Trials of the first seed with {first['latency_ms']:g} ms of added latency and "
        f"targets of {first['radius_cm']:g} cm radius. Circles are targets. Straight lines that "
        f"end in circles are good ones.",
        body=pictures(charts),
        words=("added latency",),
    )


def _holding(values: Values) -> Section:
    lines = [
        [name, _number(one["held_gain_1s"]), _number(one["peak_gain"]), f"{one['rise_ms']:.0f}",
         _number(one["rest_sd"]), _number(one["rest_bias"])]
        for name, one in values["step"].items()
    ]  # fmt: skip
    head = ["decoder", "gain after 1 s", "largest gain", "rise, ms", "noise at rest, cm/s",
            "bias at rest, cm/s"]  # fmt: skip
    return Section(
        question="Does it hold what is held, and rest where nothing is meant?",
        answer="A decoder that has only learned reaches lets go of a command that goes on: its "
        "gain after a second is far below 1.",
        body=rows(head, lines),
        words=("held command", "gain", "rise", "rest"),
    )


def _again(values: Values) -> Section | None:
    if not values["recalibrated"]:
        return None
    lines = [
        [one["decoder"], one["seed"], f"{100 * one['success']:.0f}", _number(one["labelled_s"], 0),
         _number(one["lead_s"]), "yes" if one["taken"] else f"no: {one['reason']}"]
        for one in values["recalibrated"]
    ]  # fmt: skip
    head = ["decoder", "seed", "success before, %", "labelled s", "lead, s", "taken"]
    return Section(
        question="What did calibrating again from control do?",
        answer=f"Each decoder was controlled for {values['recalibrate_s']:g} s and calibrated to "
        f"labels of the kind {values['labels']}.",
        body=rows(head, lines),
        words=("labelled seconds", "lead"),
    )


def _made(values: Values) -> Section:
    about = {
        "artifact": values["artifact"],
        "array": values["recording"] or "drawn at random for each seed",
        "observation": f"{values['observe_s']:g} s",
        "task": values["task"],
        "trials": f"{values['trials']} for each decoder, condition and seed",
        "seeds": ", ".join(map(str, values["seeds"])),
    }
    return Section(
        question="How was it made?", words=("simulated",),
        body=pairs(about) + paragraph("No person or animal was in this loop.", "quiet"),
    )  # fmt: skip


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
