"""The report of ``poyo-edge export``: what was exported, and how it was found to be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from poyo_edge.reports.chart import Chart, pictures
from poyo_edge.reports.page import (
    Mark,
    Section,
    bullets,
    heading,
    page,
    pairs,
    paragraph,
    rows,
    small,
)

Values = Mapping[str, Any]
_SPEC = {
    "dim": "numbers that a unit is known by",
    "depth": "layers",
    "dim_head": "numbers in each head of attention",
    "cross_heads": "heads that read the spikes",
    "self_heads": "heads between latents",
    "latents_per_step": "latents at each step of time",
    "dim_out": "outputs",
    "ffn_mult": "width of the feed-forward layers, times dim",
    "rotating_pairs": "pairs of numbers that carry time",
    "window_s": "window, seconds",
    "latent_step_s": "time between latents, seconds",
}


def export_page(report: Values, charts: Sequence[Chart], layout_help: str = "") -> str:
    """The whole page.

    Args:
        report: what ``ExportReport.to_json`` gives.
        charts: of the replay, if there was one.
        layout_help: who wrote files of the checkpoint's layout.
    """
    worst, limit = report["max_abs_error"], report["tolerance"]
    lead = (
        f"From {report['source']['file']}. Its outputs are at most {small(worst)} from those of "
        f"the checkpoint's own model; {small(limit)} was allowed."
    )
    parts = [
        _replay(report["replay"], charts) if report.get("replay") else None,
        _parity(report), _weights(report["health"]), _inside(report),
        _source(report, layout_help),
    ]  # fmt: skip
    return page(f"{report['name']}: export", lead, [part for part in parts if part is not None])


def _replay(found: Values, charts: Sequence[Chart]) -> Section:
    latency = ", ".join(
        f"{name.replace('p999', 'p99.9')} {value:.2f}"
        for name, value in found["latency_ms"].items()
    )
    happened = {name: n for name, n in (*found["counters"].items(),) if n}
    about: dict[str, object] = {
        "R² of each output": ", ".join(f"{r2:.4f}" for r2 in found["r2_per_dim"]),
        "recording": f"{found['recording']}, {found['split']} split, "
        f"{found['n_predictions']} values",
        "decoded by": found["backend"],
        "latency, ms": latency,
        "status of values": ", ".join(f"{name} {n}" for name, n in found["statuses"].items() if n),
        "spikes": ", ".join(f"{name} {n}" for name, n in happened.items()) or "none",
    }
    said = [name for name, n in found["statuses"].items() if n]
    return Section(
        question="How well does it decode?",
        answer=f"R² {found['r2']:.3f} on a recording that was streamed through the runtime, "
        f"strictly causally.",
        body=pictures(charts) + pairs(about),
        words=("R²", "causal", "latency", "p50, p99, p99.9", *said),
    )


def _parity(report: Values) -> Section:
    lines = [
        [f"{line['kind']} × {line['n_windows']}", f"{line['n_spikes']}",
         f"{small(line['max_abs_error'])}", f"{small(line['tolerance'])}",
         Mark("ok", True) if line["ok"] else Mark("failed", False)]
        for line in report["parity"]
    ]  # fmt: skip
    gradients = report["gradients"]
    about = {
        "output sd": f"{report['output_sd']:.4g}",
        "the model's own rounding": f"{small(report['rounding'])}: its float32 output against its "
        "float64 output",
        "float64 times": f"{small(report['float64_times'])}: what giving it times as torch_brain's "
        "datasets do moves it by",
        "gradients": f"{small(gradients['max_relative_error'])} apart, relative to the largest; "
        f"{small(gradients['tolerance'])} was allowed",
    }
    ok = all(line["ok"] for line in report["parity"])
    return Section(
        question="Does it compute what the checkpoint's own model computes?",
        answer=("Yes" if ok else "No")
        + ": all in the model's scale, the largest difference of all "
        "windows of a row.",
        body=rows(["windows", "spikes", "largest difference", "allowed", ""], lines) + pairs(about),
        words=("parity", "tolerance", "output sd", "gradient"),
    )


def _weights(health: Values) -> Section:
    sick = [*health["dead"], *health["degenerate"]]
    about = {
        "matrices": health["n_matrices"],
        "dead": health["dead"],
        "degenerate": health["degenerate"],
        "in FP16": f"{health['fp16_zero']} weights become zero, {health['fp16_subnormal']} lose "
        f"digits, {health['fp16_inf']} are infinite",
    }
    answer = (
        "Yes: no matrix has vanished or collapsed."
        if not sick
        else f"No: {len(sick)} of {health['n_matrices']} matrices have vanished or collapsed. "
        "Such a model loads and decodes badly; train it again."
    )
    return Section(
        question="Are the weights alive?", answer=answer, body=pairs(about),
        words=("dead", "degenerate", "FP16"),
    )  # fmt: skip


def _inside(report: Values) -> Section:
    spec = {f"{key}: {_SPEC.get(key, key)}": value for key, value in report["spec"].items()}
    output = report["output"]
    spec |= {
        "scale": ", ".join(f"{x:g}" for x in output["scale"]),
        "offset": ", ".join(f"{x:g}" for x in output["offset"]),
        "unit": output["unit"] or "not known",
        "decodes": report["behavior"] or "not said",
    }
    sessions = {name: f"{count} units" for name, count in report["sessions"].items()}
    known = pairs(sessions) if sessions else paragraph("None: no unit names its session.")
    return Section(
        question="What is inside?",
        body=heading("Model") + pairs(spec) + heading("Sessions") + known,
        words=("window", "latent", "depth", "scale", "session", "unit"),
    )


def _source(report: Values, layout_help: str) -> Section:
    source = report["source"]
    about = {
        "file": source["file"],
        "SHA-256": source["sha256"],
        "layout": f"{source['layout']}: {layout_help}" if layout_help else source["layout"],
        "container": source["container"] or "none",
        "prefix of its keys": source["prefix"] or "none",
        "omega": source["omega"],
        "output scale in the file": "yes" if source["scaled"] else "no",
        "task": source["task"] or "the only one",
    }
    return Section(
        question="Where does it come from?",
        body=pairs(about) + bullets(source["notes"]) + heading("Written with")
        + pairs(report["tools"]),
        words=("layout", "container", "omega"),
    )  # fmt: skip
