"""Where an NWB file keeps its units and what may be behaviour, and why the rest is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from poyo_edge.arrays import Float64
from poyo_edge.converting.source import LeftOut, not_behavior
from poyo_edge.recording.rules import refuse

_NO_BEHAVIOR = ("ElectricalSeries", "SpikeEventSeries", "ImageSeries", "OnePhotonSeries",
                "TwoPhotonSeries", "RoiResponseSeries", "AnnotationSeries", "IndexSeries",
                "FeatureExtraction")  # fmt: skip
_ELSEWHERE = ("stimulus", "analysis", "scratch")
"""What lies here may be anything: taken when it is asked for."""


EVAL, EVAL_MASK = "eval", "eval_mask"
"""FALCON's files say with this series which of their samples are judged."""


class Found(NamedTuple):
    """A time series: its path in the file, and why it is not offered; "" where it is."""

    parts: tuple[str, ...]
    series: Any
    why_not: str


def find_units(path: Path, nwb: Any) -> tuple[Any, str]:
    """The table of units, and where it lies if not where it should.

    Raises:
        RecordingError: there are several elsewhere, or spike times that belong to nobody.
    """
    units, where = nwb.units, ""
    if units is None:
        elsewhere = {
            f"processing/{module}/{name}": thing
            for module, one in nwb.processing.items()
            for name, thing in one.data_interfaces.items()
            if "spike_times" in (getattr(thing, "colnames", None) or ())
        }
        if len(elsewhere) > 1:
            do = "write the one that counts as units of the file, with pynwb"
            refuse(path, "units", "one table of units", f"{', '.join(elsewhere)}", do)
        for where, units in elsewhere.items():  # noqa: B007
            break
    if units is not None and "spike_times" in units.colnames:
        if not hasattr(units["spike_times"], "target"):
            got = "none, so that nobody knows which spikes are of which unit"
            do = "write the table again with pynwb's add_unit(spike_times=...)"
            refuse(path, "units/spike_times_index", "the ends of each unit's spikes", got, do)
    elif crossings := [one for one in find_series(nwb) if "SpikeEventSeries" in one.why_not]:
        got = f"no units, but {len(crossings)} SpikeEventSeries like {'/'.join(crossings[0].parts)}"
        do = "sort these, or write their times as units with pynwb's add_unit(spike_times=...)"
        refuse(path, "units", "a table with the column spike_times", got, do)
    return units, where


def find_series(nwb: Any) -> Iterator[Found]:
    """Every time series of a file, those in containers of any type too."""
    places: list[tuple[tuple[str, ...], Any]] = [(("acquisition",), nwb.acquisition)]
    places += [
        (("processing", name), module.data_interfaces) for name, module in nwb.processing.items()
    ]
    places += [((name,), getattr(nwb, name, None) or {}) for name in _ELSEWHERE]
    for path, objects in places:
        for name, thing in objects.items():
            for where, one in _inside((*path, name), thing):
                why = _why_not(one)
                if not why and path[0] in _ELSEWHERE:
                    why = f"in {path[0]}: take it with --behavior {'/'.join(where)}"
                yield Found(where, one, why)


def eval_split(found: Iterable[Found]) -> dict[str, Float64]:
    """The split "eval" of FALCON's files: (K, 2) seconds where the mask is true; or nothing."""
    mask = next((one.series for one in found if one.parts[-1] == EVAL_MASK), None)
    if mask is None or not _is_mask(mask, np.asarray(mask.data[:1]).dtype):
        return {}
    inside = np.asarray(mask.data[:]).reshape(-1) != 0
    if mask.timestamps is not None:
        times = np.asarray(mask.timestamps[:], np.float64)
    elif mask.rate:
        times = float(mask.starting_time or 0.0) + np.arange(len(inside)) / float(mask.rate)
    else:
        return {}
    if len(times) != len(inside) or len(times) < 2 or not (np.diff(times) > 0).all():
        return {}
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    ends = np.append(times, times[-1] + np.median(np.diff(times)))
    split = ends[edges].reshape(-1, 2)
    return {EVAL: split} if len(split) else {}


def _is_mask(series: Any, dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "b" or (str(series.name).endswith("mask") and series.unit == "bool")


def links_to_nowhere(path: Path) -> list[LeftOut]:
    """Links of an NWB file that lead to nothing: what reads it passes over them."""
    with h5py.File(path, "r") as file:
        return list(_broken(file, ("acquisition", "processing", *_ELSEWHERE)))


def _broken(group: Any, names: Any, depth: int = 4) -> Iterator[LeftOut]:
    for name in names:
        link = group.get(name, getlink=True)
        where = f"{group.name}/{name}".strip("/")
        if isinstance(link, h5py.HardLink):
            if depth and isinstance(group[name], h5py.Group):
                yield from _broken(group[name], list(group[name]), depth - 1)
        elif link is not None:
            try:
                _ = group[name]
            except (KeyError, OSError):
                file = f" in {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
                why = f"a link to {link.path}{file}, where nothing is; put that file beside this"
                yield LeftOut(where, why if file else f"a link to {link.path}, where nothing is")


def _inside(where: tuple[str, ...], thing: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A time series itself, or those that a container holds."""
    if hasattr(thing, "timestamps") and hasattr(thing, "data"):
        yield where, thing
        return
    for one in getattr(thing, "children", ()):
        if hasattr(one, "timestamps") and hasattr(one, "data"):
            yield (*where, one.name), one


def _why_not(series: Any) -> str:
    names = [kind.__name__ for kind in type(series).__mro__]
    kind = next((name for name in names if name in _NO_BEHAVIOR), "")
    if kind:
        return f"{kind}: no behaviour"
    shape = getattr(series.data, "shape", None) or np.shape(series.data)
    dtype = getattr(series.data, "dtype", None) or np.asarray(series.data).dtype
    if _is_mask(series, np.dtype(dtype)):
        own = f"; where it is true is the split {EVAL}" if series.name == EVAL_MASK else ""
        return f"a mask, which says when and not what{own}"
    if series.timestamps is None and not series.rate:
        return "neither timestamps nor a rate"
    return not_behavior(shape, np.dtype(dtype))
