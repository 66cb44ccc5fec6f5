"""The report of ``poyo-edge calibrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.reports.axes import Axis, axis
from poyo_edge.reports.chart import Chart, Series, pictures
from poyo_edge.reports.page import Section, bullets, heading, page, pairs, rows

Values = Mapping[str, Any]
_FAR = 2.0
"""From this distance on a unit is called far."""
_USE = {
    "session": "The session decodes these labels better than a Wiener filter: use the session.",
    "wiener": "A Wiener filter decodes these labels better than the session: use the filter. More "
    "labels may help, or a model that was trained on such a subject and task.",
    "either": "A Wiener filter on the same labels decodes them about as well: the difference is "
    "within chance.",
}


def calibration_page(values: Values) -> str:
    """The whole page.

    Args:
        values: what ``poyo-edge calibrate --json`` prints, with ``units``, ``alike`` and
            ``r2_by_seconds`` of a report.
    """
    session = values["session"]
    name = "a session that was refused" if session is None else Path(session).stem
    lead = (
        f"Held-out R² {values['r2_heldout']:.3f} from {values['labelled_s']:.0f} labelled seconds "
        f"of {values['behavior']}. "
        + ("It was too bad to be saved." if session is None else f"Saved as {Path(session).name}.")
    )
    parts = [_how_good(values), _control(values), _enough(values), _units(values), _made(values)]
    return page(f"Calibration of {name}", lead, [part for part in parts if part is not None])


def _how_good(values: Values) -> Section:
    n_dims = len(values["r2_per_dim"])
    found: dict[str, Series] = {}
    decoders = [("this session", values["r2_per_dim"])]
    if values["wiener"] is not None:
        decoders.append(("Wiener filter", values["wiener"]["r2_per_dim"]))
    for style, (name, r2s) in enumerate(decoders):
        found[name] = Series(
            label=name, style=style, line=False, dots=True,
            points=[(dim + 1 + 0.12 * style, r2) for dim, r2 in enumerate(r2s)],
        )  # fmt: skip
    intervals = [
        Series(
            label="95 % interval" if dim == 0 else "", style=0,
            points=[(dim + 0.9, low), (dim + 0.9, high)],
        )
        for dim, (low, high) in enumerate(values["r2_interval"])
    ]  # fmt: skip
    every = [r2 for _, r2s in decoders for r2 in r2s] + [
        x for p in values["r2_interval"] for x in p
    ]
    chart = Chart(
        title="R² of each output",
        x=Axis(label="output", low=0.4, high=n_dims + 0.7,
               named={float(i): str(i) for i in range(1, n_dims + 1)}),
        y=axis("held-out R²", every, include=(min(0.0, *every), 1.0)),
        series=[*intervals, *found.values()],
        note=f"{values['n_judged']} samples that the fit did not learn from.",
    )  # fmt: skip
    table = {"all outputs together": f"{values['r2_heldout']:.4f}"}
    if values["r2_in_use"] is not None:
        table["session in use"] = f"{values['r2_in_use']:.4f} on the same samples"
    words = ["R²", "causal", "held out", "95 % interval"]
    answer = ""
    if values["wiener"] is not None:
        table["Wiener filter"] = f"{values['wiener']['r2_heldout']:.4f} on the same samples"
        answer, words = _USE[values["wiener"]["use"]], [*words, "Wiener filter"]
    if values.get("wiener_share"):
        table["of each value"] = f"{values['wiener_share']:.0%} are the Wiener filter's"
        table["the model alone"] = f"{values['r2_unmixed']:.4f} on the same samples"
    if values["r2_in_use"] is not None:
        words.append("in use")
    return Section(
        question="How well does it decode?", answer=answer, body=pictures([chart]) + pairs(table),
        words=words,
    )  # fmt: skip


def _control(values: Values) -> Section | None:
    control = values["control"]
    if control is None:
        return None
    in_use = (values["compared"] or {}).get("control_in_use") or {}
    names = {
        "angular_error_deg": ("angular error, degrees", ".1f"),
        "gain": ("gain while moving", ".2f"),
        "held_gain": ("gain of a command held for 1 s", ".2f"),
        "bias_at_rest": ("bias at rest, behaviour units", ".3g"),
        "noise_at_rest": ("noise at rest, behaviour units", ".3g"),
    }
    lines = [
        [name, f"{control[key]:{form}}", *([_said(in_use.get(key), form)] if in_use else [])]
        for key, (name, form) in names.items()
        if control[key] is not None
    ]
    head = ["what", "this session", *(["session in use"] if in_use else [])]
    return Section(
        question="What will it be like to control with?",
        answer="R² says how alike two traces are. These say whether the cursor goes where it is "
        "meant to, as fast as it is meant to, and stays when nothing is meant.",
        body=rows(head, lines),
        words=("R²", "angular error", "gain", "held command", "rest"),
    )


def _said(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _enough(values: Values) -> Section:
    learned = [(float(s), float(r2)) for s, r2 in values["r2_by_seconds"]]
    curve = [(float(one["step"]), float(one["r2"])) for one in values["curve"]]
    low = sum(pair[0] for pair in values["r2_interval"]) / len(values["r2_interval"])
    high = sum(pair[1] for pair in values["r2_interval"]) / len(values["r2_interval"])
    every = [r2 for _, r2 in (*learned, *curve)] + [low, high]
    floor = max(-0.5, min(0.0, *every))
    y = axis("held-out R²", [], include=(floor, max(1.0, *every)))
    seconds = Chart(
        title="With fewer labels", y=y,
        x=axis("labelled seconds learned from", [s for s, _ in learned], include=(0.0,)),
        series=[Series(label="R² on the same held-out blocks", points=learned, style=0, dots=True)],
        note="Still rising at its right end: more labels would help. Flat: they would not.",
    )  # fmt: skip
    fitted = Chart(
        title="While it was fitted", y=y,
        x=axis("step", [s for s, _ in curve], include=(0.0,)),
        series=[
            Series(label="R²", points=curve, style=0, dots=len(curve) < 30,
                   band=[(s, low, high) for s in (curve[0][0], curve[-1][0])])
        ],
        marks=[(float(values["steps"]), f"taken: step {values['steps']}")],
        note="Shaded: the 95 % interval of what was taken.",
    )  # fmt: skip
    return Section(
        question="Were there enough labels, and was the fit long enough?",
        answer=f"The fit ended after {values['steps']} steps and {values['wall_s']:.0f} s "
        f"(ended by: {values['stopped']}), from {values['labelled_s']:.0f} labelled seconds.",
        body=pictures([seconds, fitted]),
        words=("R²", "held out", "95 % interval", "labelled seconds", "step"),
    )


def _units(values: Values) -> Section:
    units = values["units"]
    parts = [(float(i + 1), float(unit["part"])) for i, unit in enumerate(units)]
    edges = [(x - 0.5, y) for x, y in parts] + [(len(parts) + 0.5, 0.0)]
    chart = Chart(
        title="What each unit adds",
        x=Axis(label="units, those that add most first", low=0.5, high=max(1, len(parts)) + 0.5),
        y=axis("R² lost without it", [0.0, *(y for _, y in parts)]),
        series=[Series(label="", points=edges, style=4, fill=True)],
    )  # fmt: skip
    table = rows(
        ["unit", "R² lost without it", "spikes per second", "distance"],
        [[one["unit"], f"{one['part']:.4f}", f"{one['rate_hz']:.1f}", f"{one['distance']:.2f}"]
         for one in units[:8]],
    )  # fmt: skip
    odd = _odd(values)
    told = heading("Worth a look") + bullets(odd) if odd else ""
    return Section(
        question="Which units carry it, and is any of them odd?",
        answer=f"{len(units)} units; the first {min(8, len(units))} by what they add are listed. "
        + ("Nothing odd was found." if not odd else ""),
        body=pictures([chart]) + table + told,
        words=("unit", "R²", "distance from trained units", "alike"),
    )


def _odd(values: Values) -> list[str]:
    silent = values["silent_units"]
    far = [one["unit"] for one in values["units"] if one["distance"] > _FAR]
    found = []
    if silent:
        found.append(f"without a spike in the labelled data: {_few(silent)}")
    if far:
        found.append(f"far from trained units: {_few(far)}")
    found += [
        f"alike: {one} and {other}, correlation {much}" for one, other, much in values["alike"]
    ]
    return found


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def _made(values: Values) -> Section:
    labels = values["labels"]
    about: dict[str, object] = {
        "behaviour": values["behavior"],
        "labels": "intentions, made from trials" if labels else "measured behaviour",
        "left out": f"{values['nan_samples']} samples that are not numbers",
        "began with": values["started"],
        "session file": values["session"] or "none was written",
        "memory": f"{values['peak_memory_mb']:.0f} MB at most",
    }
    return Section(
        question="How was it made?", body=pairs(about) + bullets(values["notes"]),
        words=("session", "labelled seconds"),
    )  # fmt: skip
