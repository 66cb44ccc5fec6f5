"""The report of ``poyo-edge evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poyo_edge.reports.axes import Axis, axis
from poyo_edge.reports.chart import Chart, Series, pictures
from poyo_edge.reports.page import Section, bullets, page, pairs, paragraph, rows

Values = Mapping[str, Any]
_WORDS = {"wiener": "Wiener filter", "mlp": "MLP", "gru": "GRU", "gru-pretrained": "GRU"}
_LOWEST = -0.2
"""R² below this is drawn there; the table has the figure."""


def evaluation_page(values: Values) -> str:
    """The whole page.

    Args:
        values: what ``poyo-edge evaluate --json`` prints.
    """
    sessions = values["sessions"]
    name = Path(values["model"]).name
    parts = [
        *(_protocol(values, protocol) for protocol in sessions[0]["r2"]),
        _made(values),
    ]
    lead = f"{len(sessions)} session{'s' * (len(sessions) > 1)} of {values['behavior']}. "
    return page(f"{name}: evaluation", lead + _verdict(values), parts)


def _verdict(values: Values) -> str:
    protocol = next(iter(values["sessions"][0]["r2"]))
    means = _means(values["sessions"], protocol)
    return f"Mean {protocol} R²: " + ", ".join(f"{n} {r2:.3f}" for n, r2 in means.items()) + "."


def _means(sessions: Sequence[Values], protocol: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in sessions:
        for name, r2 in one["r2"][protocol].items():
            found.setdefault(name, []).append(float(r2))
    return {name: sum(r2s) / len(r2s) for name, r2s in found.items()}


def _protocol(values: Values, protocol: str) -> Section:
    sessions = values["sessions"]
    names = list(_means(sessions, protocol))
    lines = [
        _line(f"{i}. {one['session']}", one["r2"][protocol], names)
        for i, one in enumerate(sessions, 1)
    ]
    if len(sessions) > 1:
        lines += [
            _line(f"mean of {one['subject'] or 'all'} ({one['n_sessions']})", one["r2"][protocol],
                  names)
            for one in values["subjects"]
        ]  # fmt: skip
    question = {
        "causal": "How well would it have decoded live?",
        "acausal": "How does it compare with the papers?",
    }.get(protocol, f"R², {protocol}")
    baselines = [_WORDS[name] for name in names if name in _WORDS]
    return Section(
        question=question,
        body=pictures([_dots(sessions, protocol, names)]) + rows(["session", *names], lines),
        words=list(dict.fromkeys(["R²", protocol, *baselines])),
    )


def _line(label: str, r2: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [label, *(f"{r2[name]:.3f}" if name in r2 else "–" for name in names)]


def _dots(sessions: Sequence[Values], protocol: str, names: Sequence[str]) -> Chart:
    """A row for each session, numbered as in the table: names are long."""
    found = [
        Series(
            label=name, style=style, line=False, dots=True,
            points=[
                (max(_LOWEST, float(one["r2"][protocol].get(name, float("nan")))), float(-i - 1))
                for i, one in enumerate(sessions)
                if name in one["r2"][protocol]
            ],
        )
        for style, name in enumerate(names)
    ]  # fmt: skip
    every = [x for one in found for x, _ in one.points]
    n = len(sessions)
    return Chart(
        title=f"{protocol} R² of each session", series=found,
        x=axis(f"{protocol} R²", every, include=(min([0.0, *every]), 1.0)),
        y=Axis(label="row of the table", low=-n - 0.6, high=-0.4,
               named={float(-i): str(i) for i in range(1, n + 1)}),
        height=max(190.0, 70.0 + 22.0 * n),
        note="Of several outputs the mean."
        + f" What is below −{-_LOWEST} is drawn there." * any(x <= _LOWEST for x in every),
    )  # fmt: skip


def _made(values: Values) -> Section:
    about = {
        "model": values["model"],
        "behaviour": values["behavior"],
        **{
            name: values[key]
            for name, key in (("split", "split"), ("judged within", "within"), ("every", "every"))
            if values.get(key) not in (None, "", 1)
        },
    }
    left = values["left_out"]
    told = paragraph("Recordings that the model does not know were left out:") + bullets(left)
    return Section(
        question="How was it made?", body=pairs(about) + (told if left else ""),
        words=("session", "unit"),
    )  # fmt: skip
