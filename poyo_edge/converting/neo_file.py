"""Everything that neo reads: Blackrock NEV, Open Ephys, Spike2, Plexon, sorted output …"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import together, with_spikes
from poyo_edge.converting.readers.neo_reader import opened
from poyo_edge.converting.source import (
    LATE_S,
    MOST_DIMS,
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    LeftOut,
    Series,
    Source,
    UnknownFormatError,
    merged,
    plain,
    unique_keys,
)
from poyo_edge.errors import RecordingError
from poyo_edge.recording.first_bytes import kind_of_bytes
from poyo_edge.recording.other_files import refuse_other
from poyo_edge.recording.plausible import Doubt
from poyo_edge.recording.rules import refuse

_MOST_HZ = 5000.0
"""Signals that are sampled faster are raw voltage."""
_HDF5 = (".h5", ".hdf5")
"""What is HDF5 has been recognised by other rows before."""
_PICKLES = (".pkl", ".pickle")
_NOISE = "255"
"""Blackrock's sorting class for what is no spike."""
_SORTED_NOISE = "noise"
"""What Phy's ``cluster_group`` says of it."""


def is_no_pickle(path: Path) -> bool:
    """Whether neo may be asked about a path: always, but for pickles, which it would load.

    Raises:
        RecordingError: a pickle, or of a kind that holds no spikes.
    """
    if path.suffix.lower() in _PICKLES:
        got = "a pickle, which can run any code"
        refuse(path, "file", "a file of data", got, "save it as NWB from where it was made")
    refuse_other(path, but_readable=True)
    if path.suffix.lower() in _HDF5 and path.is_file():
        got = f"{kind_of_bytes(path)}, not an HDF5 file as its ending {path.suffix} says"
        refuse(path, "file", "a file with spikes", got, "copy it again from its source")
    return True


@contextmanager
def open_neo(path: Path) -> Iterator[Source]:
    """Open a file or folder with neo.

    Raises:
        UnknownFormatError: neo does not know it or cannot read it.
        RecordingError: it holds no spikes.
    """
    import neo

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of neo about files of other versions
            io, left_out, doubts = opened(path, neo.io)
            blocks = io.read(lazy=io.support_lazy)
    except RecordingError:
        raise
    except Exception as error:  # Each of neo's readers fails in its own way.
        got = f"one that it does not ({type(error).__name__}: {error})"
        raise UnknownFormatError("a file that neo reads", f"{got:.300}") from error
    segments = [segment for block in blocks for segment in block.segments]
    yield _source(path, segments, left_out, doubts)


def _source(
    path: Path, segments: list[Any], left_out: list[LeftOut], doubts: tuple[Doubt, ...]
) -> Source:
    clocks, again = _by_clock(segments)
    found = [_of_one_clock(path, one, left_out, doubts) for one in clocks]
    if not any(len(one.spike_times) for one in found):
        got = f"none in {len(segments)} segments"
        refuse(path, "spike trains", "at least one spike", got, "convert the sorted or .nev file")
    if not again:
        return found[0]
    return together([piece for one in found for piece in one.segments or (one,)], again)


def _by_clock(segments: list[Any]) -> tuple[list[list[Any]], str]:
    """Segments that follow each other on one clock, and where another begins; "" for one."""
    clocks, again, end = [segments[:1]], "", -np.inf
    for i, segment in enumerate(segments):
        start, stop = _span(segment)
        if i and start < end - LATE_S:
            again = (
                again or f"segment {i + 1} at {start:.6f} s, the one before ended at {end:.6f} s"
            )
            clocks.append([])
            end = stop
        if i:
            clocks[-1].append(segment)
        end = max(end, stop)
    return clocks, again


def _span(segment: Any) -> tuple[float, float]:
    return float(segment.t_start.rescale("s")), float(segment.t_stop.rescale("s"))


def _of_one_clock(
    path: Path, segments: list[Any], beside: Sequence[LeftOut], doubts: tuple[Doubt, ...]
) -> Source:
    left_out = list(beside)
    trains: dict[str, list[npt.NDArray[Any]]] = {}
    noise = set[str]()
    for segment in segments:
        for i, train in enumerate(map(_loaded, segment.spiketrains)):
            name = _unit_name(train, i)
            if _is_noise(train, name):
                noise.add(name)
            else:
                trains.setdefault(name, []).append(train.rescale("s").magnitude)
    spans = [_span(segment) for segment in segments]
    epochs = [_loaded(epoch) for segment in segments for epoch in segment.epochs]
    session_id = path.resolve().name if path.is_dir() else path.stem
    notes = []
    if noise:
        notes.append(f"left out as noise: {len(noise)} of {len(noise) + len(trains)} units")
    if len(segments) > 1:
        notes.append(f"{len(segments)} segments were put on one clock as the file says")
    source = Source(
        path=path,
        format="neo",
        session_id=session_id,
        subject_id="unknown",
        unit_ids=tuple(f"{session_id}/{name}" for name in trains),
        prefixed=True,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=tuple(_series(segments, left_out)),
        observed=merged(np.array([span for span in spans if span[1] > span[0]])),
        trials=_in_order(np.concatenate([_interval(one) for one in epochs]))
        if epochs
        else NO_INTERVALS,
        notes=tuple(notes),
        left_out=tuple(left_out),
        doubts=doubts,
    )
    return with_spikes(source, [np.concatenate(pieces) for pieces in trains.values()])


def _loaded(lazy: Any) -> Any:
    """What neo has only opened so far, read from the file."""
    return lazy.load() if hasattr(lazy, "load") else lazy


def _is_noise(train: Any, name: str) -> bool:
    group = str(train.annotations.get("group", "")).lower()
    return name.rpartition("#")[2] == _NOISE or group == _SORTED_NOISE


def _unit_name(train: Any, i: int) -> str:
    """The train's own name; the number in the segment where it has none."""
    name = train.name or train.annotations.get("id") or f"unit_{i:03d}"
    return str(name).replace(" ", "_")


def _interval(epoch: Any) -> Float64:
    starts = epoch.times.rescale("s").magnitude
    ends = starts + epoch.durations.rescale("s").magnitude
    both = np.stack([starts, ends], axis=-1).astype(np.float64)
    return both[both[:, 1] > both[:, 0]]


def _in_order(trials: Float64) -> Float64:
    """By their starts. Trials that touch stay what they are; ``as_trials`` sorts out overlaps."""
    return np.asarray(trials[np.argsort(trials[:, 0], kind="stable")])


def _series(segments: list[Any], left_out: list[LeftOut]) -> list[Series]:
    """Analog signals that can be behaviour, each one series over all segments that hold it."""
    found: dict[str, list[Any]] = {}
    reasons: dict[str, str] = {}
    for segment in segments:
        for i, signal in enumerate([*segment.analogsignals, *segment.irregularlysampledsignals]):
            name = plain(signal.name or f"signal_{i}")
            why = _why_not(signal)
            if why:
                reasons[name] = why
            else:
                found.setdefault(name, []).append(signal)
    left_out += [LeftOut(name, why) for name, why in reasons.items()]
    keys = unique_keys([(name,) for name in found])
    return [
        Series(
            key=key,
            where=name,
            n_samples=sum(int(signal.shape[0]) for signal in signals),
            n_dims=int(signals[0].shape[1]),
            unit=str(signals[0].units.dimensionality.string),
            read=functools.partial(_read, signals),
        )
        for key, (name, signals) in zip(keys, found.items(), strict=True)
    ]


def _why_not(signal: Any) -> str:
    """Why a signal is no behaviour; "" where it may be one."""
    if len(signal.shape) != 2 or not signal.shape[0] or not signal.shape[1]:
        return f"shape {tuple(signal.shape)}: behaviour has samples and columns"
    if signal.shape[1] > MOST_DIMS:
        return f"{signal.shape[1]} channels: behaviour has at most {MOST_DIMS}"
    rate = getattr(signal, "sampling_rate", None)
    if rate is not None and float(rate.rescale("Hz")) > _MOST_HZ:
        return f"{float(rate.rescale('Hz')):g} Hz: raw voltage is no behaviour"
    return ""


def _read(lazy: list[Any]) -> tuple[Float64, npt.NDArray[np.generic]]:
    signals = [_loaded(one) for one in lazy]
    times = [one.times.rescale("s").magnitude for one in signals]
    return np.concatenate(times), np.concatenate([one.magnitude for one in signals])
