"""``poyo-edge convert``: files that labs already have → recordings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from poyo_edge.cli.console import Console, program
from poyo_edge.cli.shared import DATA, Json, Quiet, command
from poyo_edge.cli.text import Values, pairs, table
from poyo_edge.converting.formats import FORMATS, behavior_suffixes
from poyo_edge.errors import UsageError

_FORMATS = "; ".join(f"{name}: {row.help}" for name, row in FORMATS.items())


@command(
    DATA, example="poyo-edge convert demo/recordings/sim_04.h5 -o day.h5 --behavior cursor.vel"
)
def convert(
    source: Annotated[Path, typer.Argument(help=f"{_FORMATS}.")],
    behavior_file: Annotated[
        Path | None, typer.Argument(help=f"Behaviour of its own, as {behavior_suffixes()}.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The recording; default SESSION.h5, here.")
    ] = None,
    list_series: Annotated[
        bool, typer.Option("--list", help="Say what the file holds, write nothing.")
    ] = False,
    behavior: Annotated[
        list[str] | None,
        typer.Option(
            help="Take this series only, as KEY, NEW=KEY or NEW=KEY,KEY; may be repeated."
        ),
    ] = None,
    segment: Annotated[
        int | None,
        typer.Option(help="Of a file whose clock begins anew, as --list counts: 1 is the first."),
    ] = None,
    time_unit: Annotated[
        str, typer.Option(help="Of spike times: s, ms, us or samples:RATE, like samples:30000.")
    ] = "s",
    time_column: Annotated[
        str,
        typer.Option(
            help="Column or array of the behaviour file that holds the times, where its name "
            "does not say it."
        ),
    ] = "",
    behavior_time_unit: Annotated[
        str, typer.Option(help="Of the times of behaviour, likewise.")
    ] = "s",
    shift_behavior: Annotated[
        float, typer.Option(help="Seconds to add to the times of behaviour.")
    ] = 0.0,
    behavior_scale: Annotated[
        list[str] | None,
        typer.Option(help="Multiply behaviour, as NAME=FACTOR or FACTOR; may be repeated."),
    ] = None,
    behavior_unit: Annotated[
        list[str] | None,
        typer.Option(
            help="Turn behaviour into this unit, as NAME=cm/s or cm/s; or name the unit of a "
            "source that has none. May be repeated."
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(help="Take what a message doubts as it is; may be repeated."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Shares of train, valid and test; default 0.7,0.1,0.2, or the file's."),
    ] = None,
    split_labelled: Annotated[
        bool, typer.Option(help="Take shares of the time that has behaviour, not of all.")
    ] = False,
    session_id: Annotated[str | None, typer.Option(help="Another id for the session.")] = None,
    subject_id: Annotated[str | None, typer.Option(help="Another id for the subject.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a recording of that name.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a file with spikes and behaviour into a recording."""
    from poyo_edge.converting.confined_convert import convert_confined, describe_confined
    from poyo_edge.converting.splitting import split_shares
    from poyo_edge.converting.to_recording import ConvertOptions

    console = Console(as_json=as_json, quiet=quiet)
    options = ConvertOptions(
        behaviors=tuple(behavior or ()),
        shares=None if split is None else split_shares(split),
        split_labelled=split_labelled,
        time_column=time_column,
        session_id=session_id,
        subject_id=subject_id,
        overwrite=overwrite,
        segment=segment,
        time_unit=time_unit,
        behavior_time_unit=behavior_time_unit,
        shift_behavior_s=shift_behavior,
        behavior_scales=tuple(behavior_scale or ()),
        behavior_units=tuple(behavior_unit or ()),
        accept=tuple(accept or ()),
    )
    if list_series:
        if out is not None or options != ConvertOptions(time_column=time_column):
            raise UsageError("--list: expected no other options, got some; it writes nothing")
        values = describe_confined(source, behavior_file, time_column)
        console.result(values, list_text(values, program(), behavior_file, time_column))
        return
    console.step(f"reading {source}")
    values = convert_confined(source, out, options, behavior_file)
    console.result(values, convert_text(values, program()))


def list_text(
    values: Values, program: str, behavior_file: Path | None = None, time_column: str = ""
) -> str:
    """What a file holds, and how to take it."""
    about = {
        "format": values["format"],
        "session": values["session_id"],
        "subject": values["subject_id"],
        "units": f"{values['n_units']}, like {', '.join(values['unit_ids'])}",
        "spikes": f"{values['n_spikes']} in {values['seconds']} s",
        "trials": values["n_trials"],
        "splits": ", ".join(values["splits"]) or "none",
    }
    segments = values["segments"]
    head = f"{pairs(about)}\n\n{_segments(segments)}\n" if segments else f"{pairs(about)}\n"
    series = values["series"]
    if not series:
        kinds = behavior_suffixes()
        none = f"no behaviour series; a {kinds} that holds some may be named behind the file"
        return _with_notes(f"{head}\n{none}", values)
    rows = [
        [one["key"], one["where"], one["n_samples"], one["n_dims"], one["unit"]] for one in series
    ]
    found = table(["series", "in the file", "samples", "dims", "unit"], rows)
    words = [program, "convert", str(values["path"])]
    if behavior_file is not None:
        words.append(str(behavior_file))
    words += ["--segment", "1"] * bool(segments)
    words += ["--time-column", time_column] * bool(time_column)
    likely = _suggested(series)
    choice = shlex.join(["--behavior", likely]) if likely else "--behavior NAME=SERIES"
    end = f"Next:\n  {shlex.join(words)} {choice}"
    return _with_notes(f"{head}\n{found}", values) + f"\n\n{end}"


def _segments(segments: Sequence[Values]) -> str:
    rows = [
        [one["segment"], one["first_spike_s"], one["seconds"], one["n_spikes"],
         ", ".join(one["series"]) or "none"]
        for one in segments
    ]  # fmt: skip
    return table(["segment", "first spike (s)", "seconds", "spikes", "series"], rows)


def convert_text(values: Values, program: str) -> str:
    """What was written, and what to type next."""
    splits = [f"{name} {seconds:g} s" for name, seconds in values["splits_s"].items()]
    about = {
        "session": values["session_id"],
        "units": values["n_units"],
        "spikes": f"{values['n_spikes']} in {values['seconds']} s",
        "behaviour": ", ".join(_with_units(values)) or "none",
        "trials": values["n_trials"],
        "splits": ", ".join(splits),
    }
    recording = shlex.quote(values["recording"])
    text = f"{_with_notes(pairs(about), values)}\n\nwrote {values['recording']}\n\nNext:\n"
    text += f"  {program} inspect {recording}  # and how to train on it"
    return text + _to_calibrate(values, program)


def _to_calibrate(values: Values, program: str) -> str:
    """How to go on with the likely behaviour, which may first have to be joined."""
    from poyo_edge.recording.given import is_given

    dims = values.get("behavior_dims") or dict.fromkeys(values["behaviors"], 1)
    units = values.get("behavior_units", {})
    measured = [
        {"key": key, "where": "", "n_samples": 0, "n_dims": n, "unit": units.get(key, "")}
        for key, n in dims.items()
        if not is_given(key)
    ]
    if not measured:
        return ""
    likely = _suggested(measured) if len(measured) > 1 else str(measured[0]["key"])
    keys, recording = likely.rpartition("=")[2], shlex.quote(values["recording"])
    if "," in keys:
        words = [program, "convert", values["source"], "-o", values["recording"], "--overwrite"]
        joined = likely.partition("=")[0]
        return (
            f"\n  {shlex.join([*words, '--behavior', likely])}"
            f"\n  {program} calibrate model.poyo {recording} --behavior {joined}"
        )
    return f"\n  {program} calibrate model.poyo {recording} --behavior {keys or 'NAME'}"


def _with_units(values: Values) -> list[str]:
    units = values.get("behavior_units", {})
    return [f"{key} ({units[key]})" if key in units else key for key in values["behaviors"]]


def _with_notes(text: str, values: Values) -> str:
    left_out = [f"left out {one['where']}: {one['why']}" for one in values.get("left_out", ())]
    notes = [*values["notes"], *(one for one in left_out if one not in values["notes"])]
    return text + "".join(f"\nnote: {note}" for note in notes)


def _suggested(series: Sequence[Values]) -> str:
    """The series that a model most likely decodes; loaded here, as its folder brings h5py."""
    from poyo_edge.recording.suggesting import suggested

    return suggested(series)
