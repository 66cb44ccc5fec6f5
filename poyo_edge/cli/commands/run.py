"""``poyo-edge run``: a feed in, values out, live."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.control import (
    AlsoSessions,
    ControlAddress,
    ControlFile,
    Gain,
    SmoothingMs,
    SpeedCap,
    TokenFile,
    control_lines,
    control_settings,
)
from poyo_edge.cli.journals import as_recording, journal_name
from poyo_edge.cli.next_commands import engine_notes
from poyo_edge.cli.paging import PagePort, RingName, ShowPage, ring_of, show
from poyo_edge.cli.recalibrating import (
    FITS,
    CalibrateAfter,
    RecalibrateAfter,
    RecalibrateHow,
    Recalibration,
    SaveSession,
    require_alone,
    text_lines,
)
from poyo_edge.cli.rig_file import PrintConfig, RigCommand, RigPath
from poyo_edge.cli.shared import (
    RIG,
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
    labels_to,
    realtime_settings,
)
from poyo_edge.cli.text import (
    Values,
    behind_text,
    control_text,
    granted_text,
    health_line,
    latency_table,
    outcome_line,
    pairs,
    sink_line,
)
from poyo_edge.cli.unlabelled import session_notes
from poyo_edge.errors import UsageError
from poyo_edge.files.writing import require_folder
from poyo_edge.runtime.feeds import FEEDS, SINKS

_LOOK_EACH_S = 0.1
_APART = ("last_failure", "first_problem", "first_ignored", "receive_buffer_bytes")
_SENTENCES = _APART[:3]
_UNITS = '{"ch1": "day_3/unit_001"}'


def _schemes(known: Iterable[str]) -> str:
    """Names of a table as the help lists them, like "udp:, tcp: or shm:"."""
    *others, last = (f"{scheme}:" for scheme in known)
    return f"{', '.join(others)} or {last}"


@command(
    RIG,
    example="poyo-edge run demo/demo.poyo --from file:demo/recordings/sim_04.h5 --to shm:decoded "
    "--session demo/sim_04.session",
    kind=RigCommand,
)
def run(
    artifact: RigPath,
    source: Annotated[str, typer.Option("--from", help=_schemes(FEEDS))],
    target: Annotated[
        list[str] | None, typer.Option("--to", help=f"{_schemes(SINKS)}; may be repeated.")
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(help="A second address, as of --from, for trials and the cursor alone."),
    ] = None,
    session: SessionName = None,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Values per second.")] = 50.0,
    settle_ms: Annotated[
        float, typer.Option(min=0, max=999, help="Wait so long for spikes after a window's end.")
    ] = 0.0,
    units: Annotated[
        Path | None, typer.Option(help="JSON: what the feed calls a unit → its id in the session.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Journal to append everything to, numbered where the name is taken."),
    ] = None,
    calibrate: CalibrateAfter = None,
    labels: Annotated[str, labels_to("calibrate to", group=FITS)] = "behavior",
    recalibrate: RecalibrateHow = None,
    recalibrate_after: RecalibrateAfter = 180.0,
    save_session: SaveSession = None,
    require_signature: Annotated[
        Path | None, typer.Option(help="Refuse an artifact that this key (KEY.pub) did not sign.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.")] = None,
    control_file: ControlFile = None,
    gain: Gain = None,
    smoothing: SmoothingMs = None,
    speed_cap: SpeedCap = None,
    control: ControlAddress = None,
    control_token_file: TokenFile = None,
    also_session: AlsoSessions = None,
    page: ShowPage = False,
    page_port: PagePort = None,
    ring: RingName = None,
    cpu: Cpus = None,
    priority: Priority = None,
    lock_memory: LockMemory = False,
    gc_off: GcOff = False,
    backend: BackendName = "auto",
    threads: Threads = 1,
    print_config: PrintConfig = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode a live feed until Ctrl-C, its own end, or a time."""
    from poyo_edge.cli.live import LiveView
    from poyo_edge.runtime.rig import Rig, RigSettings
    from poyo_edge.runtime.rig.ends import require_decoded, until_asked

    console = Console(as_json=as_json, quiet=quiet)
    if save_session is not None:
        require_folder(save_session)
        if calibrate is None and recalibrate is None:
            raise UsageError("--save-session: expected --calibrate or --recalibrate, got none")
    if labels != "behavior" and calibrate is None:
        raise UsageError("--labels: expected --calibrate with it, got none")
    require_alone(calibrate, recalibrate)
    ring = ring_of(page, page_port, ring)
    learner, free = _Learner(labels), Recalibration(recalibrate, recalibrate_after)
    if record is not None:
        record = journal_name(record, console)
        if calibrate is not None and save_session is None:
            console.step(
                "sessions that are fitted are not kept, so this journal cannot be decoded again "
                "after a swap; --save-session NAME.session keeps them"
            )
    settings = RigSettings(
        session=session,
        units=None if units is None else _unit_map(units),
        rate_hz=rate,
        settle_ms=settle_ms,
        backend=backend,
        threads=threads,
        journal=record,
        trials=trials,
        require_signature=require_signature,
        realtime=realtime_settings(cpu, priority, lock_memory, gc_off),
        control=control_settings(control_file, gain, smoothing, speed_cap),
        also_sessions=_sessions_to_swap(control, also_session, control_token_file),
        control_address=control,
        control_token_file=control_token_file,
        ring=ring,
    )
    callbacks = learner.callbacks() if calibrate else free.callbacks()
    rig = Rig.open(artifact, source, target or (), settings, **callbacks)
    try:
        if calibrate:
            learner.open(artifact, rig, calibrate, save_session)
        free.open(artifact, rig, save_session)
        rig.told_beside |= {"calibration": learner.value, "recalibration": free.value}
        title = f"{artifact.name}  {source} → {', '.join(target or ()) or 'nowhere'}"
        with until_asked() as stop, LiveView(title, quiet=quiet) as view, rig:
            console.step(
                f"decoding session {rig.decoder.session_id} with {rig.decoder.backend} at "
                f"{rate:g} Hz; Ctrl-C ends it"
            )
            notes = session_notes(rig.decoder.session.header)
            for note in (*notes, *engine_notes(artifact, rig.decoder.backend)):
                console.step(f"note: {note}")
            _say_port(rig, console, control_token_file)
            show(ring, console, page=page, port=page_port)
            _watch(rig, (learner, free), view, stop, seconds)
    finally:
        rig.stop()
        learner.stop()
        free.stop()
    values = {**rig.stats(), **learner.to_json(), **free.to_json()}
    if record is not None:
        values |= as_recording(record)
    console.result(values, run_text(values, artifact, program()))
    require_decoded("run", values)


def _sessions_to_swap(
    control: str | None, also: list[str] | None, token_file: Path | None
) -> tuple[str, ...]:
    for option, given in (("--also-session", also), ("--control-token-file", token_file)):
        if given and control is None:
            raise UsageError(f"{option}: expected --control with it, got none")
    return tuple(also or ())


def _say_port(rig: Any, console: Console, token_file: Path | None) -> None:
    """Where commands arrive, and the token: it is told though nothing else may be."""
    if rig.port is None:
        return
    if token_file is not None:
        token = f"the token is in {token_file}"
    else:
        token = f"its token is {rig.port.token}"
        console = Console(as_json=console.as_json)
    console.step(f"commands arrive at {rig.port.address}; {token}")


class _Learner:
    """Calibration beside the loop, or nothing; the rig is opened before it."""

    def __init__(self, labels: str) -> None:
        from poyo_edge.calibration.intention import settings_for

        self._calibration: Any = None
        self._intention = settings_for(labels)

    def callbacks(self) -> dict[str, Any]:
        """What ``Rig.open`` is to call: behaviour, or trials and cursor."""
        if self._intention is None:
            return {"on_spikes": self.on_spikes, "on_labels": self.on_labels}
        return {
            "on_spikes": self.on_spikes,
            "on_trial": self.on_trial,
            "on_cursor": self.on_cursor,
        }

    def open(self, artifact: Path, rig: Any, after_s: float, save_to: Path | None) -> None:
        from poyo_edge.calibration.in_loop import LoopCalibration

        self._calibration = LoopCalibration(
            artifact,
            rig.decoder,
            after_s=after_s,
            save_to=save_to,
            epoch=lambda: rig.loop.clock.epoch,
            intention=self._intention,
        )

    def on_spikes(self, ticks: Any, rows: Any) -> None:
        self._calibration.on_spikes(ticks, rows)

    def on_labels(self, ticks: Any, values: Any) -> None:
        self._calibration.on_labels(ticks, values)

    def on_trial(self, trial: Any) -> None:
        self._calibration.on_trial(trial)

    def on_cursor(self, ticks: Any, positions: Any) -> None:
        self._calibration.on_cursor(ticks, positions)

    def stop(self) -> None:
        if self._calibration is not None:
            self._calibration.stop()

    def value(self) -> dict[str, Any] | None:
        return None if self._calibration is None else self._calibration.to_json()

    def to_json(self) -> dict[str, Any]:
        return {"calibration": self.value()}


def _watch(
    rig: Any,
    beside: Sequence[_Learner | Recalibration],
    view: Any,
    stop: threading.Event,
    seconds: float | None,
) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    while not stop.wait(_LOOK_EACH_S):
        if rig.stopped:
            return
        rig.require_alive()
        rig.loop.wait_for_value(_LOOK_EACH_S)  # Figures and panel keep no window waiting.
        values = rig.stats()
        for one in beside:
            values |= one.to_json()
        view.update(values, rig.loop.last)
        if end is not None and time.monotonic() >= end:
            return
        if rig.feed.finished.is_set() and not values["waiting_packets"]:
            rig.require_alive()
            return


def _unit_map(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: expected a JSON file, got none that can be read ({error.strerror}); check "
            f"the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: expected a JSON file, got another kind ({error}); write one like {_UNITS}"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise UsageError(f"{path}: expected names to unit ids, got other values, not like {_UNITS}")
    return found


def run_text(values: Values, artifact: Path, program: str) -> str:
    """Counters, latencies, and what to type next."""
    loop, feed, clock = values["loop"], values["feed"], values["clock"]
    counters = {name: n for name, n in values["decoder"]["counters"].items() if n}
    granted = granted_text(values["realtime"])
    lines = {
        "decoded": f"{loop['decoded']} windows, {loop['skipped']} skipped, "
        f"{loop['deadline_misses']} late",
        "values given": ", ".join(f"{name} {n}" for name, n in values["given"].items() if n)
        or "none",
        "feed": ", ".join(f"{name} {n}" for name, n in feed.items() if n and name not in _APART)
        or "nothing came",
        "spikes": ", ".join(f"{name} {n}" for name, n in counters.items()) or "none",
        "clock": f"{clock['rate_ppm']:+.1f} ppm, uncertain by {clock['uncertainty_us']:.0f} µs, "
        f"{clock['discontinuities']} discontinuities, {clock['wraps']} wraps",
    }
    if seen := clock["wrong_rate_hz"]:
        lines["clock"] += f"; expected {clock['rate_hz']:g} ticks/s, got about {seen:.4g}"
    lines |= {said.replace("_", " "): feed[said] for said in _SENTENCES if feed[said]}
    lines["health"] = health_line(values["decoder"]["health"])
    if said := outcome_line(values["outcome"]):
        lines["trials"] = said
    if loop["trials"] or loop["cursor"]:
        lines["task"] = f"{loop['trials']} messages of trials, {loop['cursor']} positions"
    for i, one in enumerate(values["task_feeds"]):
        said = one["first_problem"] or one["last_failure"]
        lines[f"feed of trials {i + 1}"] = said or f"messages {one['messages']}"
    if feed.get("receive_buffer_bytes"):
        lines["receive buffer"] = f"{feed['receive_buffer_bytes']} bytes granted"
    if granted:
        lines["real time"] = granted
    if loop["sink_failures"]:
        lines["not sent"] = loop["sink_failures"]
    for i, sink in enumerate(values["sinks"]):
        if said := sink_line(sink):
            lines[f"sink {i + 1}"] = said
    lines |= control_lines(values)
    if values["unknown_units"]:
        lines["unknown units"] = values["unknown_units"]
    lost = {name: loop[name] for name in ("packets_dropped", "bad_packets") if loop[name]}
    if lost:
        lines["lost"] = ", ".join(f"{name} {n}" for name, n in lost.items())
    if values["watchdog"]["stalls"]:
        lines["hung"] = (
            f"{values['watchdog']['stalls']} times, {values['watchdog']['longest_s']} s at most"
        )
    if values["calibration"] and not values["calibration"]["fits"]:
        lines["no fit"] = f"{values['calibration']['labelled_s']:g} labelled s came"
    for i, fit in enumerate((values["calibration"] or {}).get("fits", [])):
        said = "swapped in" if fit["swapped"] else f"refused: {fit['reason']}"
        lines[f"fit {i + 1}"] = f"held-out R² {fit.get('r2_heldout', float('nan')):.3f}, {said}"
        if behind := behind_text(fit):
            lines[f"fit {i + 1}, note"] = behind
        control = fit.get("control") or {}
        if control.get("angular_error_deg") is not None:
            lines[f"fit {i + 1}, control"] = control_text(control)
    lines |= text_lines(values.get("recalibration"))
    end = ""
    if values["journal"]:
        lines["journal"] = f"{values['journal']['path']}, {values['journal']['bytes']} bytes"
        if values["journal"]["error"]:
            lines["journal lost"] = (
                f"{values['journal']['lost_frames']} frames: {values['journal']['error']}"
            )
        if values.get("recording"):
            end = f"\n\nNext:\n  {program} inspect {values['journal']['path']}"
            end += f"\n  {program} inspect {values['recording']}"
        else:
            lines["no recording"] = values.get("recording_problem", "")
    table = latency_table(values["in_to_out_ms"])
    return f"{pairs(lines)}\n\nspike in → value out\n{table}{end}"
