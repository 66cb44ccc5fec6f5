"""``poyo-edge bench``: how long single windows take, or what decoding against the clock gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import (
    DEVICE,
    ArtifactPath,
    BackendName,
    Cpus,
    GcOff,
    Json,
    LockMemory,
    Priority,
    Quiet,
    SessionName,
    Threads,
    command,
    needs,
    realtime_settings,
    require_drawing,
)
from poyo_edge.cli.text import Values, granted_text, table
from poyo_edge.errors import UsageError

_RATE_HZ, _SECONDS, _REPEATS = 100.0, 60.0, 50
PICTURE = "latency.png"


@command(DEVICE, example="poyo-edge bench demo/demo.poyo --load 5000 --rate 100 --seconds 60")
def bench(
    artifact: ArtifactPath,
    session: SessionName = None,
    spikes: Annotated[
        list[int] | None, typer.Option(min=0, help="Spikes in a window; may be repeated.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Windows of each kind; default 50.")
    ] = None,
    load: Annotated[
        float | None, typer.Option(help="Spikes per second of a stream to decode in real time.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Values per second of the stream; default 100.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Of the stream; default 60.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder to draw the stream's latencies into.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(hidden=True)] = None,  # until 0.1.0
    png: Annotated[Path | None, typer.Option(hidden=True)] = None,  # until 0.1.0
    cpu: Cpus = None,
    priority: Priority = None,
    lock_memory: LockMemory = False,
    gc_off: GcOff = False,
    backend: BackendName = "auto",
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time one window against its number of spikes, or a stream in real time."""
    if load is None:
        stream = {"--rate": rate, "--seconds": seconds, "--report": report}
        stream |= {"--minutes": minutes, "--png": png}
        asked = {"--cpu": cpu, "--priority": priority}
        asked |= {"--lock-memory": lock_memory or None, "--gc-off": gc_off or None}
        _refuse(stream | asked, "only beside --load")
        values = _windows(artifact, session, spikes, repeats or _REPEATS, backend, threads)
        Console(as_json=as_json, quiet=quiet).result(values, bench_text(values))
        return
    _refuse({"--spikes": spikes, "--repeats": repeats}, "not beside --load")
    from poyo_edge.runtime.checks.load import LoadSettings

    _refuse({"--minutes": minutes} if seconds is not None else {}, "not beside --seconds")
    _refuse({"--png": png} if report is not None else {}, "not beside --report")
    if minutes is not None:
        seconds = 60.0 * minutes
    if report is not None:
        png = report / PICTURE
    settings = LoadSettings(
        spikes_per_s=load,
        rate_hz=_RATE_HZ if rate is None else rate,
        seconds=_SECONDS if seconds is None else seconds,
    )
    wanted = realtime_settings(cpu, priority, lock_memory, gc_off)
    console = Console(as_json=as_json, quiet=quiet)
    values = _stream(artifact, session, settings, wanted, png, backend, threads, console)
    console.result(values, load_text(values))


def _windows(
    artifact: Path,
    session: str | None,
    spikes: list[int] | None,
    repeats: int,
    backend: str,
    threads: int,
) -> dict[str, Any]:
    from poyo_edge.artifact import Artifact
    from poyo_edge.runtime.checks.bench import bench as run_bench
    from poyo_edge.runtime.core import Core

    opened = Artifact.open(artifact)
    core = Core.open(opened, backend=backend, threads=threads)
    chosen = opened.session(session or next(iter(opened.session_files()), None))
    constants = core.constants_of(chosen)
    timed = run_bench(
        core, constants, spike_counts=spikes or None, repeats=repeats, wiener=chosen.wiener
    )
    return {
        "backend": core.backend.name,
        "threads": threads,
        "n_units": len(constants.unit_kv),
        "latency_ms": [line.to_json() for line in timed],
    }


def _stream(
    artifact: Path,
    session: str | None,
    settings: Any,
    wanted: Any,
    png: Path | None,
    backend: str,
    threads: int,
    console: Console,
) -> dict[str, Any]:
    from poyo_edge.artifact import Artifact
    from poyo_edge.runtime.checks.load import run_load
    from poyo_edge.runtime.decoder import Decoder
    from poyo_edge.runtime.rig.realtime import realtime

    if png is not None:
        require_drawing(png.absolute().parent)
    chosen = session or next(iter(Artifact.open(artifact).session_files()), None)
    decoder = Decoder.open(artifact, session=chosen, backend=backend, threads=threads)

    def on_second(done: int, total: int) -> None:
        console.progress(done, total, "seconds")

    with realtime(wanted) as granted:
        report = run_load(decoder, settings, on_second=on_second)
    values = {
        "backend": decoder.backend,
        "threads": threads,
        "n_units": len(decoder.unit_ids),
        **report.to_json(),
        "realtime": dict(granted),
    }
    if png is not None:
        figures = needs("plot", "poyo_edge.figures")
        title = (
            f"{settings.spikes_per_s:g} spikes/s, {settings.rate_hz:g} values/s, "
            f"{settings.seconds:g} s, {decoder.backend}"
        )
        figures.draw_latency(
            png,
            report.latency.edges_ms(),
            report.latency.counts,
            report.latency.summary_ms(),
            title=title,
            what="milliseconds from when a value was due to when it was there",
        )
        values["picture"] = str(png)
    return values


def _refuse(options: dict[str, Any], why: str) -> None:
    """Options that would do nothing are mistakes."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: expected {why}, got {value}; leave it out")


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
        table(["", *names], rows) if values["n_decodes"] else "latency    nothing was decoded",
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
