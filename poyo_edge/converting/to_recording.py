"""A source becomes a recording: behaviours chosen and named, splits made, everything checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.converting.choosing import asked_for, require_names
from poyo_edge.converting.measured import Samples, in_units, targets_in_units
from poyo_edge.converting.opening import beside, open_all, open_source, require_order
from poyo_edge.converting.plausible import (
    checked_doubts,
    in_seconds,
    series_doubts,
    source_doubts,
    without_other_trials,
)
from poyo_edge.converting.source import LeftOut, Series, Source, about, merged, not_behavior
from poyo_edge.converting.splitting import (
    SPLITS,
    labelled_part,
    require_labelled,
    split_domains,
)
from poyo_edge.converting.trial_table import as_trials
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.files.writing import require_folder, safe_name
from poyo_edge.recording import Recording, write_recording
from poyo_edge.recording.plausible import (
    LEAST_SPIKES,
    Doubt,
    SpikeSummary,
    check_plausible,
    overlap_notes,
)
from poyo_edge.recording.rules import check_ascending, check_spikes, refuse
from poyo_edge.trials import Trials

SHARES = (0.7, 0.1, 0.2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What to take and how to name it."""

    behaviors: tuple[str, ...] = ()
    """"KEY", "NEW=KEY" to rename, or "NEW=KEY,KEY" to join; empty takes all that can be used."""
    shares: tuple[float, float, float] | None = None
    """Of train, valid and test; None keeps the file's own splits, or takes 0.7, 0.1 and 0.2."""
    session_id: str | None = None
    subject_id: str | None = None
    overwrite: bool = False
    segment: int | None = None
    """Of a file whose clock begins anew, counted from 1."""
    time_unit: str = "s"
    """Of spikes, the observed time and splits: s, ms, us or samples:RATE."""
    behavior_time_unit: str = "s"
    """Of the times of series."""
    shift_behavior_s: float = 0.0
    """Added to the times of series."""
    time_column: str = ""
    """Column or array of the behaviour file that holds the times; "" finds it by its name."""
    split_labelled: bool = False
    """Splits are shares of the observed time that has behaviour."""
    behavior_scales: tuple[str, ...] = ()
    """"NAME=FACTOR", or "FACTOR" where one behaviour is taken."""
    behavior_units: tuple[str, ...] = ()
    """"NAME=UNIT" or "UNIT": what values are turned into, or said to be in."""
    accept: tuple[str, ...] = ()
    """Names of ``DOUBTS`` that were looked into; the recording keeps them."""


def describe(
    path: str | Path, behavior_file: str | Path | None = None, time_column: str = ""
) -> dict[str, Any]:
    """What a file holds, as JSON values, without writing anything.

    Raises:
        RecordingError, MissingExtraError: see ``open_source``.
    """
    beside_it = None if behavior_file is None else Path(behavior_file)
    require_order(Path(path), beside_it)
    with open_all(path) as opened:
        source = opened if beside_it is None else beside(opened, beside_it, time_column)
        notes = [*source.notes, *_spike_notes(source)]
        return {
            "path": str(path),
            "format": source.format,
            "session_id": source.session_id,
            "subject_id": source.subject_id,
            "n_units": len(source.unit_ids),
            "unit_ids": list(source.unit_ids[:4]),
            "n_spikes": len(source.spike_times),
            "seconds": round(sum(map(_length, source.segments or (source,))), 3),
            "n_trials": sum(len(one.trials) for one in source.segments or (source,)),
            "splits": sorted(set(source.domains) - {"all"}),
            "series": [about(one) for one in source.series if one.column_of or not one.left_out],
            "segments": [_segment(n, one) for n, one in enumerate(opened.segments, start=1)],
            "notes": notes,
            "left_out": [dataclasses.asdict(one) for one in _left_out(source)],
        }


def _spike_notes(source: Source) -> list[str]:
    """Why the spikes cannot be converted as they are, one sentence each."""
    if source.again:
        return [f"its clock begins anew ({source.again}): convert one segment of it"]
    try:
        check_spikes(source.path, source.spike_times, source.spike_units, len(source.unit_ids))
    except RecordingError as error:
        return [f"{error.field}: expected {error.expected}, got {error.got}; {error.do}"]
    return [
        f"{one.field}: expected {one.expected}, got {one.got}; {one.do}"
        for one in source_doubts(source, _summary(source))
    ]


def _segment(number: int, source: Source) -> dict[str, Any]:
    times = source.spike_times
    return {
        "segment": number,
        "first_spike_s": round(float(times[0]), 3) if len(times) else None,
        "seconds": round(_length(source), 3),
        "n_spikes": len(times),
        "series": [series.key for series in source.series if _usable(series)],
    }


def _usable(series: Series) -> bool:
    if series.left_out:
        return False
    try:
        series.read()
    except RecordingError:
        return False
    return True


def convert(
    path: str | Path,
    out: str | Path | None,
    options: ConvertOptions | None = None,
    *,
    behavior_file: str | Path | None = None,
) -> dict[str, Any]:
    """Write the recording of a file; what was written, as JSON values.

    Args:
        path: what ``open_source`` opens.
        out: the recording to write, whole or not at all; None names it after the session, here.
        options: what to take.
        behavior_file: behaviour as .csv or .npz that belongs to these spikes.

    Raises:
        RecordingError: the file cannot be used; nothing is written.
        UsageError: an option does not fit the file, or ``out`` is there and not to be replaced.
        MissingExtraError: the library that reads this kind is not installed.
    """
    options = options or ConvertOptions()
    accepted = checked_doubts(options.accept)
    with open_source(
        path, behavior_file, segment=options.segment, time_column=options.time_column
    ) as opened:
        units = (options.time_unit, options.behavior_time_unit)
        source = in_seconds(opened, *units, options.shift_behavior_s)
        check_spikes(source.path, source.spike_times, source.spike_units, len(source.unit_ids))
        target = _target(source, out, options, behavior_file)
        spikes = _summary(source)
        check_plausible(source.path, source_doubts(source, spikes), accepted)
        source = without_other_trials(source, spikes)
        notes, left_out = list(source.notes), _left_out(source)
        if options.behaviors:
            behaviors = _chosen(source, options.behaviors, spikes, accepted)
        else:
            behaviors = _all_usable(source, notes, left_out, spikes, accepted)
        for name, one in behaviors.items():
            notes += overlap_notes(name, spikes, one.times)
        behaviors = in_units(behaviors, options.behavior_scales, options.behavior_units, notes)
    domains = _domains(source, behaviors, options, notes)
    labels = {name: one.times[one.finite] for name, one in behaviors.items()}
    notes += require_labelled(
        source.path,
        domains,
        labels,
        asked=bool(options.behaviors),
        accepted="overlap" in accepted or spikes.n < LEAST_SPIKES,
    )
    trials, said = as_trials(source)
    trials = targets_in_units(trials, behaviors, notes)
    notes += said
    with _naming(source.path, target):
        write_recording(
            target,
            session_id=options.session_id or source.session_id,
            subject_id=options.subject_id or source.subject_id,
            unit_ids=_unit_ids(source, options),
            spike_times=source.spike_times,
            spike_units=source.spike_units,
            behaviors={name: (one.times, one.values) for name, one in behaviors.items()},
            behavior_units={name: one.unit for name, one in behaviors.items()},
            domains=domains,
            trials=trials,
            accepted=accepted,
        )
    return _written(target, source, trials, notes, left_out)


@contextlib.contextmanager
def _naming(path: Path, target: Path) -> Iterator[None]:
    """What cannot be written is the fault of the file that was read: refusals name that one."""
    try:
        yield
    except RecordingError as error:
        at = path if error.path == str(target) else Path(error.path)
        refuse(at, error.field, str(error.expected), error.got, error.do)


def _written(
    target: Path,
    source: Source,
    trials: Trials | None,
    notes: list[str],
    left_out: list[LeftOut],
) -> dict[str, Any]:
    recording = Recording.open(target)
    series = {key: recording.behavior(key, allow_nan=True) for key in recording.behaviors}
    nan = {key: int((~np.isfinite(one.values)).any(1).sum()) for key, one in series.items()}
    dims = {key: int(one.values.shape[1]) for key, one in series.items()}
    left = "calibrate and replay leave them out, train and evaluate refuse them"
    notes += [f"{key}: {n} samples are NaN: {left}" for key, n in nan.items() if n]
    if not recording.behaviors:
        notes.append("no behaviour was found: the recording can be decoded but not scored")
    return {
        "recording": str(target),
        "source": str(source.path),
        "format": source.format,
        "session_id": recording.session_id,
        "n_units": len(recording.unit_ids),
        "n_spikes": len(recording.spike_times),
        "seconds": round(_length(source), 3),
        "behaviors": list(recording.behaviors),
        "behavior_units": recording.behavior_units,
        "behavior_dims": dims,
        "n_trials": 0 if trials is None else len(trials),
        "trials": None if trials is None else trials.to_json(),
        "splits_s": {
            name: round(float((one[:, 1] - one[:, 0]).sum()), 3)
            for name, one in recording.domains.items()
        },
        "notes": notes,
        "left_out": [dataclasses.asdict(one) for one in left_out],
    }


def _summary(source: Source) -> SpikeSummary:
    return SpikeSummary.of(source.spike_times, source.spike_units, len(source.unit_ids))


def _left_out(source: Source) -> list[LeftOut]:
    own = [
        LeftOut(one.where, one.left_out)
        for one in source.series
        if one.left_out and one.column_of is None
    ]
    return own + list(source.left_out)


def _unit_ids(source: Source, options: ConvertOptions) -> tuple[str, ...]:
    """Names that hold for one session alone move with its id: units of two days stay two."""
    if options.session_id is None or not source.prefixed:
        return source.unit_ids
    names = (unit_id.removeprefix(f"{source.session_id}/") for unit_id in source.unit_ids)
    return tuple(f"{options.session_id}/{name}" for name in names)


def _target(
    source: Source, out: str | Path | None, options: ConvertOptions, beside: str | Path | None
) -> Path:
    name = safe_name(options.session_id or source.session_id)
    target = Path(out) if out is not None else Path(f"{name}.h5")
    require_folder(target)
    if target.is_dir():
        raise UsageError(f"{target}: expected a file to write, got a folder; name it with -o")
    read = [source.path] if beside is None else [source.path, Path(beside)]
    own = target.exists() and any(target.samefile(one) for one in read)
    if target.exists() and (own or not options.overwrite):
        hint = "another name with -o" + ", or --overwrite" * (not own)
        raise UsageError(f"{target}: expected a name that is free, got a file there; give {hint}")
    return target


def _chosen(
    source: Source, wanted: Sequence[str], spikes: SpikeSummary, accepted: tuple[str, ...]
) -> dict[str, Samples]:
    behaviors: dict[str, Samples] = {}
    for words in wanted:
        name, series = asked_for(source, words)
        if name in behaviors:
            raise UsageError(f"behavior: expected different names, got {name!r} twice")
        behaviors[name] = _checked(source.path, name, series)
        doubts = series_doubts(name, series, behaviors[name][:2], spikes)
        check_plausible(source.path, doubts, accepted)
    return behaviors


def _all_usable(
    source: Source,
    notes: list[str],
    left_out: list[LeftOut],
    spikes: SpikeSummary,
    accepted: tuple[str, ...],
) -> dict[str, Samples]:
    """Series that can be used; refused where doubts are all that keeps every one of them out."""
    require_names(source.series)
    behaviors: dict[str, Samples] = {}
    doubted = list[Doubt]()
    for series in source.series:
        if series.left_out:
            continue
        try:
            samples = _checked(source.path, series.key, series)
        except RecordingError as error:
            why = f"expected {error.expected}, got {error.got}"
            notes.append(f"left out {series.where}: {why}")
            left_out.append(LeftOut(series.where, why))
            continue
        doubts = series_doubts(series.key, series, samples[:2], spikes)
        new = [doubt for doubt in doubts if doubt.name not in accepted]
        if new:
            why = f"expected {new[0].expected}, got {new[0].got}; {new[0].do}"
            notes.append(f"left out {series.where}: {why}")
            left_out.append(LeftOut(series.where, why))
            doubted += new
        else:
            behaviors[series.key] = samples
    if not behaviors:
        check_plausible(source.path, doubted, accepted)
    return behaviors


def _checked(path: Path, name: str, series: Series) -> Samples:
    times, values = series.read()
    why_not = not_behavior(values.shape, values.dtype)
    if why_not:
        refuse(path, series.where, "behaviour", why_not, "leave it out")
    check_ascending(path, f"{name} timestamps", times)
    n_infinite = int(np.isinf(values).sum()) if values.dtype.kind == "f" else 0
    if n_infinite:
        refuse(
            path,
            series.where,
            "finite values, or NaN where there is none",
            f"{n_infinite} that are infinite",
            "correct them in the source, or leave this behaviour out",
        )
    return Samples(times, values, series.unit)


def _domains(
    source: Source, behaviors: dict[str, Samples], options: ConvertOptions, notes: list[str]
) -> dict[str, Float64]:
    """The file's own splits, or shares of the time that was observed."""
    own = {name: one for name, one in source.domains.items() if name != "all"}
    whole = _whole(source, behaviors)
    domains: dict[str, Float64] = {"all": whole}
    if set(own) & set(SPLITS) and options.shares is None and not options.split_labelled:
        return domains | own
    observed = merged(source.observed) if len(source.observed) else whole
    if options.split_labelled:
        observed = labelled_part(observed, [one.times for one in behaviors.values()])
    others = {name: one for name, one in own.items() if name not in SPLITS}
    notes.append(
        "splits are consecutive shares of the observed time"
        + " that has behaviour" * options.split_labelled
        + ", cut between trials" * bool(len(source.trials))
    )
    return domains | others | split_domains(observed, source.trials, options.shares or SHARES)


def _whole(source: Source, behaviors: dict[str, Samples]) -> Float64:
    """One interval that holds everything that is written."""
    edges = [source.spike_times[[0, -1]]] if len(source.spike_times) else []
    edges += [one.times[[0, -1]] for one in behaviors.values() if len(one.times)]
    edges += [np.ravel(one) for one in (source.observed, source.trials, *source.domains.values())]
    flat = np.concatenate([np.ravel(one) for one in edges] or [np.zeros(2)])
    return np.array([[flat.min(), np.nextafter(flat.max(), np.inf)]])


def _length(source: Source) -> float:
    if len(source.observed):
        pieces = merged(source.observed)
        return float((pieces[:, 1] - pieces[:, 0]).sum())
    return float(np.ptp(source.spike_times)) if len(source.spike_times) else 0.0
