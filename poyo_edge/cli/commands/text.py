"""What each command's result says to people, from the values that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poyo_edge.cli.commands.doctor_text import accelerator_lines
from poyo_edge.cli.console import latency_table, pairs, table

Values = Mapping[str, Any]
_FAR = 2.0
"""Root mean square of a unit's z from which on it is called far."""


def demo_text(values: Values, program: str) -> str:
    """The demo's end: R², latency, where everything is, and what to type next."""
    artifact, recording = values["artifact"], values["recording"]
    session, fit = values["session"], values["calibration"]
    lines = {
        "R² of the new session": _r2(values),
        "decoded": f"{values['n_predictions']} samples of {Path(recording).name}'s test split, "
        "causally, streamed through the runtime (which does not use torch)",
        "calibrated": f"on {fit['labelled_s']:.0f} labelled s in {fit['wall_s']:.0f} s; "
        f"held-out R² {fit['r2_heldout']:.4f}",
        "R² of a known session": f"{values['r2_pretrained']:.4f}, on a stretch not trained on",
        "parity with the model": f"{values['max_abs_error']:.1e} (limit {values['tolerance']:.1e})",
        "verified": "yes" if values["verified"] else "NO",
        "training": f"{values['train_s']} s",
        "artifact": artifact,
        "session": session,
        "report": f"{values['report']}  (open it in a browser)",
    }
    lines |= {f"picture {i + 1}": path for i, path in enumerate(values["pictures"])}
    return (
        f"\n{pairs(lines)}\n\n{latency_table(values['latency_ms'])}\n\n"
        f"Next:\n  {program} inspect {artifact}\n"
        f"  {program} calibrate {artifact} {recording} --seconds 30 --report {session}.report\n"
        f"  {program} replay {artifact} {recording} --session {session}\n"
        f"  {program} bench {artifact}"
    )


def verify_text(values: Values) -> str:
    """One line for each check."""
    lines = [
        f"{'ok    ' if check['ok'] else 'FAILED'}  {check['name']}: {check['detail']}"
        for check in values["checks"]
    ]
    end = "all checks hold" if values["ok"] else "do not use this artifact on this machine"
    return "\n".join([*lines, end])


def bench_text(values: Values) -> str:
    """A row for each number of spikes."""
    names = ("p50", "p90", "p99", "max")
    rows = [
        [f"{line['n_spikes']} spikes", *(f"{line[name]:.2f}" for name in names)]
        for line in values["latency_ms"]
    ]
    title = f"{values['backend']}, threads {values['threads']}, units {values['n_units']}"
    return f"{title}; milliseconds\n{table(['window', *names], rows)}"


def load_text(values: Values) -> str:
    """Latencies of a stream, what was late, and memory."""
    load, rss = values["load"], values["rss_mb"]
    names = ("p50", "p90", "p99", "p999", "max")
    rows = [
        [label, *(f"{values[key][name]:.2f}" for name in names)]
        for label, key in (("due to there", "latency_ms"), ("decode alone", "decode_ms"))
    ]
    period_ms = 1e3 / load["rate_hz"]
    counted = {name: count for name, count in values["counters"].items() if count}
    lines = [
        f"{values['backend']}, threads {values['threads']}, units {values['n_units']}; "
        f"{load['spikes_per_s']:g} spikes/s, {load['rate_hz']:g} values/s, "
        f"{load['seconds']:g} s; milliseconds",
        table(["", *names], rows),
        f"deadlines  {values['missed']} of {values['n_decodes'] + values['skipped']} missed "
        f"({period_ms:g} ms), {values['skipped']} of them never decoded",
        f"windows    {values['spikes_per_window']:g} spikes in the mean",
        f"memory     {rss['start']:g} MB at the start, {rss['end']:g} MB at the end",
        f"statuses   {', '.join(f'{k} {v}' for k, v in values['statuses'].items() if v)}",
        f"counters   {', '.join(f'{name} {count}' for name, count in counted.items())}",
    ]
    if granted := granted_text(values["realtime"]):
        lines.append(f"real time  {granted}")
    return "\n".join(lines)


def granted_text(realtime: Mapping[str, str]) -> str:
    """What the system said to the settings that it was asked for."""
    return ", ".join(f"{name} {said}" for name, said in realtime.items() if said != "not asked for")


def calibrate_text(values: Values, artifact: Path, recording: Path, program: str) -> str:
    """The learning curve, R² with its interval, what was noticed, and what to type next."""
    best = values["steps"]
    rows = [
        [
            point["step"],
            "" if point["loss"] is None else f"{point['loss']:.4f}",
            f"{point['r2']:.3f}",
            "  ".join(f"{r2:.3f}" for r2 in point["r2_per_dim"]),
            _taken(values) if point["step"] == best else "",
        ]
        for point in values["curve"]
    ]
    dims = [
        f"{r2:.3f} ({low:.2f} to {high:.2f})"
        for r2, (low, high) in zip(values["r2_per_dim"], values["r2_interval"], strict=True)
    ]
    silent = values["silent_units"]
    lines = {
        "held-out R²": f"{values['r2_heldout']:.4f}, causal, on {values['n_judged']} samples in "
        "blocks that were not learned from",
        "per dimension": ", ".join(dims) + ", 95 % intervals",
        "labels": f"{values['labelled_s']:.1f} s",
        "steps": f"{best} ({values['stopped']}), {values['wall_s']:.1f} s in all",
        "memory": f"{values['peak_memory_mb']:.0f} MB at most",
    }
    if values["r2_in_use"] is not None:
        lines["session in use"] = f"R² {values['r2_in_use']:.4f} on the same samples"
    if silent:
        lines["silent units"] = f"{len(silent)}: {', '.join(silent[:6])}" + " …" * (len(silent) > 6)
    for unit, other, alike in values.get("alike", ())[:6]:
        lines[f"alike: {unit}"] = f"{other}, correlation {alike}: one unit twice?"
    far = [unit["unit"] for unit in values.get("units", ()) if unit["distance"] > _FAR]
    if far:
        lines["far from trained units"] = ", ".join(far[:6]) + " …" * (len(far) > 6)
    if values.get("report"):
        lines["report"] = "  ".join(values["report"])
    notes = "".join(f"\nnote: {note}" for note in values["notes"])
    curve = table(["step", "loss", "R²", "per dimension", ""], rows)
    session = values["session"]
    end = "nothing was written" if session is None else f"wrote {session}\n\nNext:\n"
    if session is not None:
        end += f"  {program} replay {artifact} {recording} --behavior {values['behavior']} "
        end += f"--session {session}"
    return f"{curve}\n\n{pairs(lines)}{notes}\n\n{end}"


def _taken(values: Values) -> str:
    """Why a point of the curve was taken."""
    highest = max(point["r2"] for point in values["curve"])
    best = highest <= values["r2_heldout"] + 1e-6
    return "taken" if best else "taken: the latest not clearly worse than the best"


def replay_text(values: Values) -> str:
    """R², protocol, counters that are not 0, and latencies."""
    odd = {name: count for name, count in values["counters"].items() if count}
    lines = {
        "R²": _r2(values),
        "protocol": "causal: window [t - T, t), nothing at or after t is read",
        "predictions": values["n_predictions"],
        "backend": f"{values['backend']}, session {values['session_id']}",
        "statuses": ", ".join(f"{k} {v}" for k, v in values["statuses"].items() if v),
        "spikes": ", ".join(f"{name} {count}" for name, count in odd.items()),
        "health": health_line(values["health"]),
    }
    if values.get("pictures"):
        lines["pictures"] = "  ".join(values["pictures"])
    return f"{pairs(lines)}\n\n{latency_table(values['latency_ms'])}"


def health_line(health: Values) -> str:
    """Whether the stream was what the session was calibrated on."""
    if health["status"] == "unknown":
        return "too short to judge"
    words = [health["status"]]
    if not health["reference"]:
        words.append("the session does not say how its units fired")
    if health["drifted_share"]:
        words.append(f"{health['drifted_share']:.0%} of the units have drifted")
    if health["silent_units"]:
        words.append(f"{len(health['silent_units'])} units silent")
    if health["coverage"] is not None and health["coverage"] < 1:
        words.append(f"{health['coverage']:.0%} of the spikes are of units of the session")
    if health["outside_share"]:
        words.append(f"values out of range in {health['outside_share']:.0%} of the windows")
    if "slow" in health["flags"]:
        words.append("decoding takes longer than its budget")
    return ", ".join(words)


def export_text(values: Values, target: Path, program: str, recording: Path | None) -> str:
    """What was found, the parity lines, and what to type next."""
    lines = [
        [
            f"{line['kind']} × {line['n_windows']}",
            line["n_spikes"],
            f"{line['max_abs_error']:.1e}",
            f"{line['tolerance']:.1e}",
            "ok" if line["ok"] else "FAILED",
        ]
        for line in values["parity"]
    ]
    health = values["health"]
    spec, sessions = values["spec"], values["sessions"]
    about = {
        "layout": f"{values['layout']}, {values['source']['file']}",
        "model": f"dim {spec['dim']}, depth {spec['depth']}, window {spec['window_s']} s, "
        f"{spec['latents_per_step']} latents each {spec['latent_step_s']} s",
        "sessions": f"{len(sessions)}, {sum(sessions.values())} units",
        "output": f"scale {values['output']['scale']}, offset {values['output']['offset']}",
        "weights": f"{health['n_matrices']} matrices, {len(health['dead'])} dead, "
        f"{len(health['degenerate'])} degenerate; FP16 would turn {health['fp16_zero']} weights "
        f"to 0 and {health['fp16_inf']} to Inf",
    }
    if values["replay"]:
        about["replay R²"] = _r2(values["replay"])
    about["float64 times"] = (
        f"would move the model's own output by {values['float64_times']:.1e} (see docs/design.md)"
    )
    notes = "\n".join(f"note: {note}" for note in values["source"]["notes"])
    parity = table(["parity: windows", "spikes", "max error", "tolerance", ""], lines)
    source = recording or "RECORDING.h5"
    behavior = "" if values["behavior"] else " --behavior GROUP.KEY"
    end = (
        "dry run: nothing was written"
        if values["artifact"] is None
        else f"wrote {target}\n\nNext:\n  {program} verify {target}\n"
        f"  {program} replay {target} {source}{behavior}\n"
        f"  {program} calibrate {target} NEW.h5{behavior} -o new.session  # units it has not seen\n"
        f"  {program} build {target} --target jetson  # or rtx, cuda; see docs/jetson.md"
    )
    if not values["source"]["scaled"]:
        end += (
            "\n\nwarning: no output scale is known, so decoded values stay in the model's scale; "
            "export again with --output-scale to get behaviour units"
        )
    return f"{pairs(about)}\n{notes}\n\n{parity}\n\n{end}"


def inspect_text(values: Values) -> str:
    """Name and value, long lists cut short."""

    def short(value: Any) -> str:
        if isinstance(value, dict):
            value = [f"{name} {short(item)}" for name, item in value.items()]
        if isinstance(value, list):
            shown = ", ".join(str(item) for item in value[:12])
            return shown + (f", … ({len(value)} in all)" if len(value) > 12 else "") or "none"
        return "–" if value in ("", None) else str(value)

    flat = dict(values)
    source = flat.pop("source", {})
    notes = [*source.pop("notes", []), *flat.pop("notes", [])]
    flat |= {f"source {name}": value for name, value in source.items()}
    flat |= {f"note {i + 1}": note for i, note in enumerate(notes)}
    return pairs({name: short(value) for name, value in flat.items()})


def doctor_text(values: Values) -> str:
    """Machine, packages, backends, and what to install."""
    packages = {name: version or "not installed" for name, version in values["packages"].items()}
    backends = [
        f"{'ready  ' if info['present'] else 'missing'}  {info['name']}: {info['reason']}"
        for info in values["backends"]
    ]
    about = {
        "poyo-edge": values["poyo_edge"],
        "python": values["python"],
        "machine": f"{values['machine']}, {values['cores']} cores",
        "jetson": values["jetson"] or "no",
    }
    install = values["install"] or ["nothing more that this machine could use"]
    if values["missing_backends"]:
        install = [*install, f"note: {values['missing_backends']}"]
    machine = [pairs(about), *accelerator_lines(values)]
    return "\n".join(
        [*machine, "", pairs(packages), "", "backends", *backends, "", "to install", *install]
    )


def _r2(values: Values) -> str:
    dims = ", ".join(f"{r2:.3f}" for r2 in values["r2_per_dim"])
    return f"{values['r2']:.4f}  (per dimension {dims})"
