"""What ``build`` says to people, from the values that ``--json`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from poyo_edge.cli.text import Values, pairs, table
from poyo_edge.export.engines.kernel_plan import plan_line

TEXT = "report.txt"
"""In the folder ``build/`` of an artifact: everything that ``build_text`` says."""
WIDTH = 98
"""Columns of sentences where nobody says how many there are."""


def build_screen(values: Values, program: str, width: int = WIDTH) -> str:
    """The same in one screen: without the tables of compiling, rounding and operators."""
    parts = [
        _about(values, width),
        _engines(values["engines"]),
        _parity(values["parity"]),
        _sentences(values, width),
        "\n".join(_steps(values, program)),
    ]
    if _has_engines(values):
        parts.append(
            f"Tables of rounding, islands and operators: {values['artifact']}/build/{TEXT}"
        )
    return "\n\n".join(part for part in parts if part)


def _sentences(values: Values, width: int) -> str:
    """What is settled, what is not, notes and warnings, wrapped."""
    titles = {"settled": "settled", "unsettled": "not settled", "notes": "notes",
              "warnings": "warning"}  # fmt: skip
    return "\n".join(
        _wrap(f"{title}: {sentence}", width, "", "  ")
        for name, title in titles.items()
        for sentence in values[name]
    )


def _has_engines(values: Values) -> bool:
    return values["target"] not in ("cuda", "cpu")


def _about(values: Values, width: int = WIDTH) -> str:
    about = {
        "target": f"{values['target']}: {values['title']}",
        "artifact": values["artifact"],
        "precision": _precision(values),
    }
    engines = _has_engines(values)
    if engines:
        sizes = ", ".join(map(str, values["buckets"]))
        about["token buckets"] = f"{sizes} spikes, up to {values['n_units']} units"
    about["tried on"] = f"windows of every size, units of session {values['session']}"
    if values["recording"] is not None:
        about["tried on"] += f", and the test split of {values['recording']}"
    kernels = plan_line(values["kernel_plan"], values["expected_attentions"])
    if kernels:
        about["kernels"] = kernels
    text = pairs(about)
    if engines and values["target"].startswith("jetson") and not values["on_device"]:
        told = (
            "No Jetson engine exists yet: TensorRT builds engines only on the machine that runs "
            "them. This is everything that could be done without one."
        )
        text += f"\n\n{_wrap(told, width)}"
    return text


def build_text(values: Values, program: str) -> str:
    """What was built, what is settled, what is not, and what to type next."""
    parts = [
        _about(values),
        _engines(values["engines"]),
        _gate(values["gate"]),
        _rounding(values["rounding"]),
        _parity(values["parity"]),
        _list("settled", values["settled"]),
        _list("not settled", values["unsettled"]),
        _list("notes", values["notes"]),
        _list("warning", values["warnings"]),
        _next(values, program),
    ]
    return "\n\n".join(part for part in parts if part)


def _precision(values: Values) -> str:
    if values["precision"] == "fp32":
        return "fp32"
    islands = [island["name"] for island in (values["rounding"] or {}).get("islands", [])]
    kept = f", with {', '.join(islands)} in FP32" if islands else ", with islands in FP32"
    return f"{values['precision']}{kept}"


def _engines(lines: Sequence[Values]) -> str:
    rows = [
        [
            f"{line['n_spikes']} spikes",
            f"{line['size'] / 1e6:.1f} MB",
            "kept" if line["kept"] else f"{line['build_s']:.1f} s",
            line["file"],
        ]
        for line in lines
    ]
    text = table(["engine", "size", "built in", "file"], rows) if rows else ""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if not line["kept"]:
            reasons.setdefault(line["why"], []).append(str(line["n_spikes"]))
    told = [f"built {', '.join(sizes)}: {why}" for why, sizes in reasons.items()]
    return "\n".join([text, *(["", *told] if told else [])])


def _gate(lines: Sequence[Values]) -> str:
    rows = [
        [f"{line['n_spikes']} spikes", f"{line['build_s']:.1f} s", f"{line['n_layers']}"]
        for line in lines
    ]
    head = ["compiled by TensorRT-RTX, as a test", "in", "layers"]
    return table(head, rows) if rows else ""


def _rounding(values: Values | None) -> str:
    if values is None or not values["layers"]:
        return ""
    bound = {} if values["accumulated"] is None else values["accumulated"]
    sums = {layer["layer"]: layer["error"] for layer in bound.get("layers", [])}
    rows = [
        [
            layer["layer"],
            _number(layer["error"]),
            *([_number(sums[layer["layer"]])] if sums else []),
            _number(layer["worst_error"]),
            layer["worst_node"],
            layer["overflows"],
            layer["zeros"],
        ]
        for layer in _few(values["layers"])
    ]
    head = ["rounding, emulated", "error", *(["sums in FP16"] if sums else []), "worst"]
    head += ["worst node", "overflow", "to zero"]
    return f"{table(head, rows)}\n\n{_islands(values)}"


def _islands(values: Values) -> str:
    """What stays in FP32, what it would cost alone to give it up, and why it stays."""
    total = (values["accumulated"] or values)["error"]
    rows = [
        [
            island["name"],
            island["n_nodes"],
            _number(island["error_without"]),
            _times(island["error_without"], total),
        ]
        for island in values["islands"]
    ]
    low = values["precision"].upper()
    head = ["kept in FP32", "nodes", f"error if it were in {low} too", "so many times as much"]
    sums = ", sums in FP16 as well" if values["accumulated"] else ""
    told = (
        f"The error with all of these in FP32 is {_number(total)}, in sd of the output{sums}. "
        "Where the last column is near 1 this model gives no reason to keep them: larger models "
        "do, or what emulation cannot see:"
    )
    reasons = [f"{island['name']}: {island['why']}" for island in values["islands"]]
    lines = [_wrap(told), *(_wrap(reason, WIDTH, "  ", "    ") for reason in reasons)]
    return "\n".join([table(head, rows), *lines])


def _times(value: float | None, total: float | None) -> str:
    return f"{value / total:.2f}" if value is not None and total else "infinite"


def _wrap(text: str, width: int = WIDTH, first: str = "", later: str = "") -> str:
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _few(layers: Sequence[Values]) -> list[Values]:
    """All of a shallow model; of a deep one the ends, every sixth layer, and the worst."""
    if len(layers) <= 20:
        return list(layers)
    worst = max(layers, key=lambda layer: layer["error"] or 0.0)
    ends = {*range(6), *range(len(layers) - 6, len(layers)), *range(0, len(layers), 6)}
    return [layer for i, layer in enumerate(layers) if i in ends or layer is worst]


def _parity(values: Values | None) -> str:
    if values is None:
        return ""
    lines = {
        "against the FP32 core": f"{values['n_windows']} windows on this machine",
        "error rms, p99, worst": ", ".join(f"{values[n]:.1e}" for n in ("rms", "p99", "worst"))
        + f" (output sd {values['output_sd']:.2g})",
    }
    if values["r2_core"] is not None:
        lines["R² core, engine"] = f"{values['r2_core']:.5f}, {values['r2_engine']:.5f}"
    return pairs(lines)


def _steps(values: Values, program: str) -> list[str]:
    """What to type next, and what to install before that."""
    lines = [line.replace("poyo-edge ", f"{program} ", 1) if values["on_device"] else line
             for line in values["next"]]  # fmt: skip
    text = ["Next:", *(f"  {line}" for line in lines)]
    if values["target"].startswith("jetson") and not values["on_device"]:
        text += ["", "On a Jetson without poyo-edge, before that:"]
        text += [f"  {line}" for line in values["install"]]
    return text


def _next(values: Values, program: str) -> str:
    text = "\n".join(_steps(values, program))
    if values["target"].startswith("jetson") and not values["on_device"]:
        text += "\n\nIt may run\n" + "\n".join(f"  {line}" for line in values["releases"])
        tables = [
            f"  TensorRT {source['tensorrt']}: table {source['table']}"
            + ("" if source["settles"] else ", which does not settle it")
            + f"; {source['why']}"
            for source in values["operator_tables"]
        ]
        text += "\n\nIts operators were checked by\n" + "\n".join(tables)
    return text


def _list(title: str, sentences: Sequence[str]) -> str:
    return "\n".join(f"{title}: {sentence}" for sentence in sentences)


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1e}"
