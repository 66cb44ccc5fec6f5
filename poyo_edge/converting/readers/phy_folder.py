"""The folder that Kilosort and Phy leave of sorted data, and the labels of Phy."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.arrays import Float64
from poyo_edge.converting.clocks import with_rows
from poyo_edge.converting.readers.npy import read_npy
from poyo_edge.converting.source import NO_INTERVALS, NO_ROWS, NO_SPIKES, Source
from poyo_edge.recording.rules import refuse

_RATE = re.compile(r"^\s*sample_rate\s*=\s*([0-9][0-9_.eE+-]*)", re.MULTILINE)
_GROUPS = ("cluster_group.tsv", "cluster_groups.csv", "cluster_info.tsv")
"""Where labels are, the first that is there: ``cluster_info.tsv`` may be of an earlier save."""
_NOISE = "noise"


def is_phy(path: Path) -> bool:
    """Whether a path is a folder of sorted spikes; other files in it do not matter."""
    return path.is_dir() and (path / "spike_times.npy").is_file() and _clusters(path).is_file()


@contextmanager
def open_phy(path: Path) -> Iterator[Source]:
    """Open a folder of Kilosort and Phy. Units are clusters, those labelled noise left out.

    Raises:
        RecordingError: damaged arrays, no sampling rate, or no spikes.
    """
    rate, notes = _rate(path), list[str]()
    ticks, clusters = _array(path / "spike_times.npy"), _array(_clusters(path))
    if len(ticks) != len(clusters):
        got = f"{len(clusters)} for {len(ticks)} spikes"
        refuse(_clusters(path), "array", "a cluster for each spike", got, "export the folder again")
    ids = np.unique(clusters)
    noise = {number for number, group in _groups(path, notes).items() if group == _NOISE}
    kept = [int(one) for one in ids if int(one) not in noise]
    if len(kept) < len(ids):
        notes.insert(0, f"left out as noise: {len(ids) - len(kept)} of {len(ids)} units")
    if not kept:
        got = f"none in {len(ids)} clusters"
        refuse(path, "spikes", "at least one spike that is no noise", got, "label them in Phy")
    keep = np.isin(clusters, kept)
    seconds = ticks[keep] / rate
    session_id = path.resolve().name
    source = Source(
        path=path,
        format="Phy",
        session_id=session_id,
        subject_id="unknown",
        unit_ids=tuple(f"{session_id}/unit_{number}" for number in kept),
        prefixed=True,
        spike_times=NO_SPIKES,
        spike_units=NO_ROWS,
        series=(),
        observed=_observed(ticks / rate),
        trials=NO_INTERVALS,
        notes=tuple(notes),
    )
    yield with_rows(source, seconds, np.searchsorted(kept, clusters[keep]))


def _clusters(path: Path) -> Path:
    """What Phy has sorted by hand; as the sorter left it where nobody has."""
    sorted_by_hand = path / "spike_clusters.npy"
    return sorted_by_hand if sorted_by_hand.is_file() else path / "spike_templates.npy"


def _observed(seconds: Float64) -> Float64:
    """From the start of the raw data to the last spike."""
    return np.array([[0.0, seconds.max()]]) if len(seconds) and seconds.max() > 0 else NO_INTERVALS


def _array(path: Path) -> npt.NDArray[Any]:
    found = read_npy(path, "export the folder again", expected="an array of whole numbers")
    if found.dtype.kind not in "iu":
        got = f"dtype {found.dtype}"
        refuse(path, "array", "whole numbers: samples, or clusters", got, "export the folder again")
    return found


def _rate(path: Path) -> float:
    """Of the samples that spike times count, in Hz."""
    params = path / "params.py"
    do = "write the line sample_rate = 30000, or what the rate was, into it"
    if not params.is_file():
        refuse(params, "file", "Phy's parameters", "no such file", do)
    found = _RATE.search(params.read_text(encoding="utf-8", errors="replace"))
    try:
        rate = float(found.group(1)) if found else 0.0
    except ValueError:
        rate = 0.0
    if not 0 < rate < np.inf:
        got = repr(found.group(0).strip()) if found else "none"
        refuse(params, "sample_rate", "a line with the rate in Hz", got, do)
    return rate


def _groups(path: Path, notes: list[str]) -> dict[int, str]:
    """Cluster → what it was labelled, in lower case."""
    there = [path / name for name in _GROUPS if (path / name).is_file()]
    tables = [_labels(one, notes if one == there[0] else []) for one in there]
    if len(tables) > 1:
        other = sum((tables[1][one] == _NOISE) != (tables[0][one] == _NOISE)
                    for one in tables[0].keys() & tables[1].keys())  # fmt: skip
        if other:
            notes.append(
                f"{there[1].name} calls {other} clusters otherwise; {there[0].name} was taken"
            )
    return tables[0] if tables else {}


def _labels(path: Path, notes: list[str]) -> dict[int, str]:
    """Cluster → label of one table; without a column ``group`` it labels nothing."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t") if row]
    if rows and len(rows[0]) == 1:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    names = [name.strip().lower() for name in rows[0]] if rows else []
    at = next((names.index(one) for one in ("cluster_id", "id") if one in names), None)
    if at is None or "group" not in names:
        return {}
    group, found, blank = names.index("group"), dict[int, str](), 0
    for row in rows[1:]:
        number = row[at].strip() if at < len(row) else ""
        if number.lstrip("-").isdigit():
            found[int(number)] = row[group].strip().lower() if group < len(row) else ""
        else:
            blank += 1
    if blank:
        notes.append(f"{path.name}: {blank} rows without a cluster's number label nothing")
    return found
