"""``poyo-edge demo``: the whole road on simulated recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.paging import PagePort
from poyo_edge.cli.shared import START, Json, Quiet, command, needs, seed_of
from poyo_edge.cli.text import Values, latency_table, pairs, r2_text, table
from poyo_edge.errors import CheckFailedError, UsageError


@command(START, example="poyo-edge demo --out demo")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything that the demo writes.")
    ] = Path("demo"),
    seed: Annotated[int, seed_of("Of simulation and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Then decode a simulated person on a page, until Ctrl-C; with what an "
            "earlier demo left in the folder, if it did.",
        ),
    ] = False,
    page_port: PagePort = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End the live part after so long.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain, export, verify and stream a small model on simulated data."""
    console = Console(as_json=as_json, quiet=quiet)
    if live:
        from poyo_edge.cli.demo_live import demo_of, run_live

        run_live(
            demo_of(out, seed=seed, steps=steps, console=console),
            console, port=page_port, seconds=seconds, seed=seed,
        )  # fmt: skip
        return
    if page_port is not None or seconds is not None:
        raise UsageError("--page-port, --seconds: expected --live with them, got none")
    for package in ("torch", "lightning", "torch_brain"):
        needs("all", package)
    road = needs("all", "poyo_edge.cli.demo")
    values = road.run_demo(out, seed=seed, steps=steps, say=console.step, bar=console.progress)
    console.result(values, demo_text(values, program()))
    if not values["verified"]:
        raise CheckFailedError(
            f"verify: expected all checks to hold, got one that failed; "
            f"run {program()} verify {values['artifact']}"
        )


def demo_text(values: Values, program: str) -> str:
    """The demo's end: R², latency, where everything is, and what to type next."""
    artifact, recording = values["artifact"], values["recording"]
    session, fit = values["session"], values["calibration"]
    lines = {
        "R² of the new session": r2_text(values),
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
        f"{beside_text(values['beside'])}\n\n"
        f"Next:\n  {program} inspect {artifact}\n"
        f"  {program} calibrate {artifact} {recording} --seconds 30 --report {session}.report\n"
        f"  {program} replay {artifact} {recording} --session {session}\n"
        f"  {program} bench {artifact}\n"
        f"  {program} demo --out {Path(artifact).parent} --live"
    )


_LEVEL = 0.01
"""R² that differ by less are called level."""


def beside_text(beside: Values) -> str:
    """The new session beside the others on the same labels, and where it is behind."""
    latencies = list(dict.fromkeys(row["latency_ms"] for row in beside["closed_loop"]))
    rows = []
    for name, r2 in beside["r2"].items():
        bits = [row for row in beside["closed_loop"] if row["decoder"] == name]
        cells = [
            f"{one['bits_per_s']:.2f} ({'–'.join(f'{x:.2f}' for x in one['bits_per_s_95'])})"
            for one in bits
        ]
        rows.append([name, f"{r2:.3f}", *cells])
    head = ["same labels", "R²", *(f"bit/s, +{latency:g} ms" for latency in latencies)]
    others = {name: r2 for name, r2 in beside["r2"].items() if name != "poyo"}
    best = max(others, key=lambda name: others[name])
    ahead = beside["r2"]["poyo"] - others[best]
    told = [f"R²: POYO is {_standing(ahead, -_LEVEL, _LEVEL)} the better of them ({best})"]
    for row in beside["against"]:
        low, high = row["ratio_95"] or (0.0, float("inf"))
        ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} of it"
        told.append(
            f"closed loop, +{row['latency_ms']:g} ms: "
            f"{'ahead of' if low > 1 else 'behind' if high < 1 else 'level with'} the better "
            f"({row['better']}{ratio})"
        )
    return (
        f"{table(head, rows)}\n" + ";\n".join(told) + ".\n"
        f"{beside['labelled_s']:g} labelled s for each; {beside['trials']} trials, 95 % intervals; "
        "person, array and task are simulated.\nRates here bend or saturate, fluctuate together "
        "and drift; docs/few_shot.md has recordings of animals."
    )


def _standing(difference: float, low: float, high: float) -> str:
    return "ahead of" if difference > high else "behind" if difference < low else "level with"
