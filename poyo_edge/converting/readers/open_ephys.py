"""Folders of Open Ephys' binary format: the spikes that its detectors and sorters found.

After https://open-ephys.github.io/gui-docs/User-Manual/Data-formats/Binary-format.html, as written
since 0.6 (``sample_numbers.npy``) and before (``spike_times.npy``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import with_spikes
from poyo_edge.converting.readers.npy import read_npy
from poyo_edge.converting.source import (
    NO_INTERVALS,
    NO_ROWS,
    NO_SPIKES,
    LeftOut,
    Source,
    plain,
)
from poyo_edge.recording.other_files import find_oebin
from poyo_edge.recording.rules import refuse

_SAMPLES = ("sample_numbers.npy", "spike_times.npy")
_CLUSTERS = ("clusters.npy", "spike_clusters.npy")
_AGAIN = "copy the folder again from its source"


class _Electrode(NamedTuple):
    name: str
    stream: str
    seconds: Float64
    """(M,) since the stream began to count its samples."""
    synchronized: Float64 | None
    """(M,) on the clock of all streams, where the file has it."""
    clusters: npt.NDArray[Any]
    """(M,), 0 for what is not sorted."""


def is_open_ephys(path: Path) -> bool:
    """Whether a path is a folder with recordings in Open Ephys' binary format."""
    return path.is_dir() and bool(find_oebin(path))


@contextmanager
def open_open_ephys(path: Path) -> Iterator[Source]:
    """Open the one recording of a folder that has detected spikes.

    Raises:
        RecordingError: none has, several have, or files are damaged.
    """
    described = {one.parent: _json(one) for one in find_oebin(path)}
    spiking = [folder for folder, about in described.items() if about.get("spikes")]
    if len(spiking) != 1:
        found = ", ".join(str(one.relative_to(path)) for one in spiking)
        if not spiking:
            got = f"a folder of Open Ephys without spikes ({len(described)} recordings)"
            do = "sort it, and convert the folder that the sorter leaves"
            refuse(path, "spikes", "spikes that were detected", got, do)
        do = "name one of these folders, each has a clock of its own"
        refuse(path, "recordings", "one recording with spikes", f"{found:.400}", do)
    yield _source(path, spiking[0], described[spiking[0]])


def _source(path: Path, folder: Path, about: dict[str, Any]) -> Source:
    electrodes = [_electrode(folder, one) for one in about["spikes"]]
    times, notes = _one_clock(folder, electrodes)
    session_id, named = path.resolve().name, dict[str, Float64]()
    for one, seconds in zip(electrodes, times, strict=True):
        for cluster in np.unique(one.clusters):
            name = f"{one.name}_{cluster}"
            if name in named:
                name = f"{plain(one.stream)}_{name}"
            named[name] = seconds[one.clusters == cluster]
    if not named:
        refuse(folder, "spikes", "at least one spike", "none", "check that spikes were recorded")
    source = Source(
        path=path,
        format="Open Ephys",
        session_id=session_id,
        subject_id="unknown",
        unit_ids=tuple(f"{session_id}/{name}" for name in named),
        prefixed=True,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=(),
        observed=NO_INTERVALS,
        trials=NO_INTERVALS,
        notes=tuple(notes),
        left_out=tuple(_raw(one) for one in about.get("continuous") or ()),
    )
    return with_spikes(source, list(named.values()))


def _electrode(folder: Path, about: dict[str, Any]) -> _Electrode:
    where = folder / "spikes" / str(about.get("folder_name") or about.get("folder", ""))
    rate = about.get("sample_rate")
    if not isinstance(rate, (int, float)) or not 0 < rate < np.inf:
        refuse(folder / "structure.oebin", "sample_rate", "a rate in Hz", repr(rate), _AGAIN)
    samples, clusters = _first(where, _SAMPLES), _first(where, _CLUSTERS)
    if samples.dtype.kind not in "iu" or len(samples) != len(clusters):
        got = f"{len(clusters)} for {len(samples)} samples of {samples.dtype}"
        refuse(
            where, "clusters", "one for each spike, whose samples are whole numbers", got, _AGAIN
        )
    clock = where / "timestamps.npy"
    synchronized = read_npy(clock, _AGAIN) if clock.is_file() else np.empty(0, np.int64)
    known = synchronized.dtype.kind == "f" and len(synchronized) == len(samples)
    return _Electrode(
        name=plain(str(about.get("name") or where.name)),
        stream=str(about.get("stream_name") or about.get("source_processor") or ""),
        seconds=samples.astype(np.float64) / float(rate),
        synchronized=synchronized.astype(np.float64) if known else None,
        clusters=clusters,
    )


def _one_clock(folder: Path, electrodes: list[_Electrode]) -> tuple[list[Float64], list[str]]:
    """Seconds of each electrode's spikes, and what to say of them."""
    given = [one.synchronized for one in electrodes if one.synchronized is not None]
    if len(given) == len(electrodes) and all(_is_clock(one) for one in given):
        return given, []
    streams = sorted({one.stream for one in electrodes})
    if len(streams) > 1:
        got = f"{', '.join(streams)} without synchronized timestamps"
        do = "record the streams synchronized, or sort and convert each by itself"
        refuse(folder, "timestamps.npy", "one clock of all streams", got, do)
    return [one.seconds for one in electrodes], ["times are sample numbers by their rate"]


def _is_clock(times: Float64) -> bool:
    """Whether times go on: those before streams are synchronized are -1."""
    return bool(np.isfinite(times).all() and (times >= 0).all() and (np.diff(times) >= 0).all())


def _raw(about: dict[str, Any]) -> LeftOut:
    name = str(about.get("folder_name", "")).strip("/")
    why = f"{about.get('num_channels')} channels at {about.get('sample_rate')} Hz: raw voltage"
    return LeftOut(f"continuous/{name}", why)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(one, dict) for one in found["spikes"]):
            return found
        return {}
    except KeyError:
        return {}
    except ValueError as error:
        refuse(path, "file", "a description in JSON", f"one that is not ({error})", _AGAIN)


def _first(folder: Path, names: tuple[str, ...]) -> npt.NDArray[Any]:
    there = [folder / name for name in names if (folder / name).is_file()]
    if not there:
        refuse(folder, names[0], "an array", "no such file", _AGAIN)
    return read_npy(there[0], _AGAIN)
