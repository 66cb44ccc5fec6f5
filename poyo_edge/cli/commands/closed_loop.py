"""``poyo-edge closed-loop``: a simulated person controls a cursor through an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poyo_edge.cli.console import Console
from poyo_edge.cli.shared import (
    LOOK,
    ArtifactPath,
    BackendName,
    Json,
    Quiet,
    Threads,
    behavior_to,
    command,
    require_drawing,
    seed_of,
)
from poyo_edge.cli.text import Values, markdown
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import write_bytes

if TYPE_CHECKING:
    from poyo_edge.recording import Recording
    from poyo_edge.simulation.study import Study, Subject

TABLE_MD, TABLE_JSON = "closed_loop.md", "closed_loop.json"
PATHS_PNG, THROUGHPUT_PNG = "paths.png", "throughput.png"
_LATENCIES_MS, _RADII_CM = (0.0, 60.0, 100.0, 200.0), (1.2, 0.8)


@command(
    LOOK,
    example="poyo-edge closed-loop demo/demo.poyo --latency 0 --latency 100 --trials 32",
    old={
        "--observe-s": "--seconds",
        "--recalibrate-s": "--recalibrate-after",
        "--out": "--report",
        "-o": "--report",
    },
)
def closed_loop(
    artifact: ArtifactPath,
    recording: Annotated[
        Path | None,
        typer.Option(help="Control an array fitted to this recording; default a simulated one."),
    ] = None,
    behavior: Annotated[str, behavior_to("fit the array to")] = "",
    session: Annotated[
        str | None,
        typer.Option(help="Session of the recording's units; default one that is calibrated here."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Seconds of observation that decoders are calibrated on.")
    ] = 60.0,
    recalibrate_after: Annotated[
        float | None,
        typer.Option(help="Then control for so many seconds, and calibrate each decoder again."),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Of that: proportional, constant, refit or observation.")
    ] = "proportional",
    latency: Annotated[
        list[float] | None,
        typer.Option(help="Added latency in ms; may be repeated; default 0, 60, 100, 200."),
    ] = None,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Radius of targets in cm; may be repeated; default 1.2, 0.8."),
    ] = None,
    smoothing: Annotated[
        list[float] | None,
        typer.Option(help="Time constant of smoothing in ms; may be repeated; default 0."),
    ] = None,
    gain: Annotated[
        list[float] | None, typer.Option(help="Factor of values; may be repeated; default 1.")
    ] = None,
    tuned: Annotated[
        bool,
        typer.Option(
            "--tune", help="Tune each decoder for each latency first, as poyo-edge tune does."
        ),
    ] = False,
    task: Annotated[str, typer.Option(help="center-out, random or grid.")] = "center-out",
    distance: Annotated[float, typer.Option(help="Of targets from the middle, in cm.")] = 7.0,
    hold: Annotated[float, typer.Option(help="Seconds that a target is held.")] = 0.3,
    timeout: Annotated[float, typer.Option(help="Seconds after which a trial has failed.")] = 5.0,
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, help="For each decoder, condition and seed.")
    ] = 64,
    seed: Annotated[int, seed_of("Of array, spikes, person and targets.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="How many seeds, from --seed on.")
    ] = 1,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.html, table, JSON, two pictures.")
    ] = None,
    backend: BackendName = "auto",
    threads: Threads = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a simulated person control a cursor, beside a Wiener and a Kalman filter."""
    from poyo_edge.simulation.calibrating import Calibration, require_plane
    from poyo_edge.simulation.observing import ObservationSettings
    from poyo_edge.simulation.study import conditions, run_study
    from poyo_edge.simulation.tasks import TaskSettings
    from poyo_edge.simulation.tune import TuneSettings

    console = Console(as_json=as_json, quiet=quiet)
    if session is not None and recording is None:
        raise UsageError(
            f"session {session!r}: expected the recording of its units too, to fit the array to, "
            f"got none; name it with --recording"
        )
    if report is not None:
        require_drawing(report)
    tried = conditions(
        latency or _LATENCIES_MS, radius or _RADII_CM, smoothing or (0.0,), gain or (1.0,)
    )
    settings = TaskSettings(
        kind=task,  # type: ignore[arg-type]  # it is checked there
        distance_cm=distance, hold_s=hold, timeout_s=timeout,
    )  # fmt: skip
    for condition in tried:
        condition.require_possible(settings)
    require_plane(artifact)
    calibration = Calibration(
        artifact=artifact,
        session=session,
        observation=ObservationSettings(seconds=seconds),
        task=settings,
        backend=backend,
        threads=threads,
    )
    again = _recalibration(recalibrate_after, labels)
    shares = list[float]()
    subject = _subject(console, calibration, recording, behavior, again, shares)
    found = run_study(
        subject,
        tried,
        task=settings,
        n_trials=trials,
        seeds=range(seed, seed + seeds),
        tuned=TuneSettings(radii_cm=tuple(radius or _RADII_CM)) if tuned else None,
        on_progress=console.progress,
    )
    values = {
        "artifact": str(artifact),
        "recording": None if recording is None else str(recording),
        "session": session,
        "observe_s": seconds,
        "recalibrate_s": recalibrate_after,
        "labels": None if again is None else labels,
        "wiener_share": shares,
        "recalibrated": [] if again is None else again.told,
        "task": task,
        "trials": trials,
        "seeds": list(range(seed, seed + seeds)),
        **found.to_json(),
    }
    if report is not None:
        values["files"] = _write(report, values, found)
    console.result(values, closed_loop_text(values))


def closed_loop_text(values: Values) -> str:
    """The conditions, POYO beside the better of the others, and the step test, in Markdown."""
    parts = [_conditions_table(values["conditions"])]
    if values["against"]:
        parts.append(_against_table(values["against"]))
    parts.append(_step_table(values["step"]))
    if values["recalibrated"]:
        parts.append(_again_table(values["recalibrated"]))
    parts.append(
        f"Simulated: person, array and task; seeds {len(values['seeds'])}, trials "
        f"{values['trials']} each. No person or animal was in this loop."
    )
    if values.get("files"):
        parts.append("\n".join(values["files"]))
    return "\n\n".join(parts)


class _Again:
    """Recalibrates the decoders of each seed, and keeps what became of them."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self.told: list[dict[str, Any]] = []

    def __call__(self, array: Any, decoders: Any, calibration: Any, seed: int) -> Any:
        from poyo_edge.simulation.mornings.recalibrating import recalibrated

        decoders, told = recalibrated(array, decoders, calibration, self._settings, seed=seed)
        self.told += [{"seed": seed, **one.to_json()} for one in told]
        return decoders


def _recalibration(seconds: float | None, labels: str) -> _Again | None:
    if seconds is None:
        return None
    from poyo_edge.calibration.intention import IntentionSettings
    from poyo_edge.simulation.mornings.recalibrating import Recalibration

    kind = IntentionSettings(kind=labels)  # type: ignore[arg-type]  # it is checked there
    return _Again(Recalibration(seconds=seconds, labels=kind))


def _subject(
    console: Console,
    calibration: Any,
    recording: Path | None,
    behavior: str,
    again: _Again | None,
    shares: list[float],
) -> Subject:
    """The array and its decoders by seed: fitted to the recording, or drawn. ``shares`` takes how
    much of POYO's values are a filter's, seed by seed."""
    from poyo_edge.simulation.array import SimulatedArray
    from poyo_edge.simulation.calibrating import calibrated
    from poyo_edge.simulation.decoding import LoopDecoding
    from poyo_edge.simulation.fitted.from_recording import array_from_recording, describe

    fitted = None
    if recording is not None:
        from poyo_edge.recording.confined import open_confined

        source = open_confined(recording)
        wanted = behavior or _own_behavior(calibration.artifact, source)
        fitted = array_from_recording(source, wanted)
        told = ", ".join(f"{name} {value:g}" for name, value in describe(fitted).items())
        console.step(f"an array fitted to {source.session_id}: {told}")

    def subject(seed: int) -> Any:
        array = fitted or SimulatedArray.draw(seed=seed, name=f"array_{seed}")
        console.step(
            f"seed {seed}: observing {calibration.observation.seconds:g} s, then calibrating"
        )
        decoders = calibrated(array, calibration, seed=seed, on_progress=console.progress)
        if again is not None:
            console.step("controlling, then calibrating again")
            decoders = again(array, decoders, calibration, seed)
        poyo = next(one for one in decoders if isinstance(one, LoopDecoding))
        share = poyo.decoder.session.header.wiener_share
        shares.append(share)
        if share:
            console.step(f"{share:.0%} of each of POYO's values is a Wiener filter's, mixed in")
        return array, decoders

    return subject


def _own_behavior(artifact: Path, recording: Recording) -> str:
    """What the artifact says that it decodes."""
    from poyo_edge.artifact import Artifact

    behavior: str = Artifact.open(artifact).manifest.behavior
    if not behavior:
        raise UsageError(
            f"behavior: expected one of {list(recording.behaviors)}, got none, and the artifact "
            f"does not say what it decodes; name it with --behavior"
        )
    return behavior


def _conditions_table(rows: list[Values]) -> str:
    varied = [
        (key, head)
        for key, head in (("smoothing_ms", "smoothing ms"), ("gain", "gain"))
        if len({row[key] for row in rows}) > 1
    ]
    head = ["decoder", "latency ms", "radius cm", *(name for _, name in varied), "success %",
            "time s", "path efficiency", "bit/s", "95 %", "dial-in s", "angle °",
            "decoder gain"]  # fmt: skip
    lines = [
        [
            row["decoder"], f"{row['latency_ms']:g}", f"{row['radius_cm']:g}",
            *(f"{row[key]:g}" for key, _ in varied),
            f"{100 * row['success']:.0f}", _number(row["time_s"]), _number(row["path_efficiency"]),
            _number(row["bits_per_s"]), "–".join(_number(x) for x in row["bits_per_s_95"]),
            _number(row["dial_in_s"]), _number(row["angular_error_deg"], 0),
            _number(row["decoder_gain"]),
        ]
        for row in rows
    ]  # fmt: skip
    return markdown(head, lines)


def _against_table(rows: list[Values]) -> str:
    head = ["POYO's bit/s over", "latency ms", "radius cm", "smoothing ms", "gain", "ratio", "95 %"]
    lines = [
        [row["better"], f"{row['latency_ms']:g}", f"{row['radius_cm']:g}",
         f"{row['smoothing_ms']:g}", f"{row['gain']:g}", _number(row["ratio"]),
         "–" if row["ratio_95"] is None else "–".join(_number(x) for x in row["ratio_95"])]
        for row in rows
    ]  # fmt: skip
    return markdown(head, lines)


def _step_table(step: Values) -> str:
    head = ["held command", "rise ms", "peak gain", "gain after 1 s", "rest sd cm/s",
            "rest bias cm/s"]  # fmt: skip
    lines = [
        [name, f"{one['rise_ms']:.0f}", *(
            _number(one[key]) for key in ("peak_gain", "held_gain_1s", "rest_sd", "rest_bias"))]
        for name, one in step.items()
    ]  # fmt: skip
    return markdown(head, lines)


def _again_table(rows: list[Values]) -> str:
    head = ["recalibrated", "seed", "success % before", "labelled s", "lead s", "taken", "why not"]
    lines = [
        [row["decoder"], str(row["seed"]), f"{100 * row['success']:.0f}",
         _number(row["labelled_s"], 0), _number(row["lead_s"]), "yes" if row["taken"] else "no",
         row["reason"]]
        for row in rows
    ]  # fmt: skip
    return markdown(head, lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _write(folder: Path, values: Values, found: Study) -> list[str]:
    """Table, JSON, pictures of paths and throughput, and the page that explains them."""
    from poyo_edge.figures import draw_paths, draw_throughput
    from poyo_edge.reports.closed_loop import closed_loop_page
    from poyo_edge.reports.page import REPORT_HTML

    write_bytes(folder / TABLE_MD, closed_loop_text(values).encode())
    write_bytes(folder / TABLE_JSON, json.dumps(values, indent=1).encode())
    first = values["conditions"][0]
    name = Path(values["artifact"]).name
    draw_paths(
        folder / PATHS_PNG,
        found.paths,
        title=f"{name}: +{first['latency_ms']:g} ms, radius {first['radius_cm']:g} cm, simulated",
    )
    draw_throughput(
        folder / THROUGHPUT_PNG, values["conditions"], title=f"{name}: throughput, simulated"
    )
    paths = {
        name: [
            (one.position.tolist(), one.target.tolist(), float(one.radius), bool(one.success))
            for one in trials
        ]
        for name, trials in found.paths.items()
    }
    write_bytes(folder / REPORT_HTML, closed_loop_page(values, paths).encode())
    names = (TABLE_MD, TABLE_JSON, PATHS_PNG, THROUGHPUT_PNG, REPORT_HTML)
    return [str(folder / one) for one in names]
