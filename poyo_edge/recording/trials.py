"""The trials of a recording in its HDF5 file, as torch_brain keeps intervals.

``trials/{start,end}`` and, where they are known, ``go_time``, ``target``, ``success``, ``radius``
and ``judged`` (where nobody said of some trials whether they were a success).

Legend: K trials, D dimensions of the workspace.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.recording.access import child, values
from poyo_edge.recording.reading import reading
from poyo_edge.recording.rules import checked_intervals, refuse
from poyo_edge.trials import Trials, TrialsError

GROUP = "trials"
_OPTIONAL = ("go_time", "target", "success", "radius", "judged")
_DO = "correct or remove this trial"
_CURSOR = "cursor/pos"
"""What targets lie beside, where a recording has it."""


def read_trials(path: Path) -> Trials | None:
    """The trials of a file; None where it has none.

    Raises:
        RecordingError: they overlap, end before they begin, have targets of another width than
            ``cursor/pos``, or values that cannot be; field, row and value are named.
    """
    with reading(path) as file:
        group = child(path, file, GROUP)
        if not isinstance(group, h5py.Group):
            return None
        found = {name: _dataset(path, group, name) for name in ("start", "end", *_OPTIONAL)}
        if found["start"] is None or found["end"] is None:
            missing = "start" if found["start"] is None else "end"
            do = "write the group again"
            refuse(path, f"{GROUP}/{missing}", "a time for each trial", "none", do)
        if not found["start"].size and not found["end"].size:
            return None
        trials = _checked(path, found)
        _require_width(path, trials, child(path, file, _CURSOR))
        return trials


def checked_trials(path: Path, given: Trials | npt.ArrayLike) -> Trials:
    """Trials, or (K, 2) starts and ends, of a recording that is to be written.

    Raises:
        RecordingError: they cannot be.
    """
    if isinstance(given, Trials):
        return given
    edges = checked_intervals(path, GROUP, np.asarray(given))
    try:
        return Trials.of(edges[:, 0], edges[:, 1])
    except TrialsError as error:
        _refuse(path, error)


def trial_arrays(trials: Trials) -> dict[str, npt.NDArray[Any]]:
    """Name → array (K, …) of what is known of trials, as a file keeps it."""
    judged = np.asarray(trials.judged)
    arrays: dict[str, npt.NDArray[Any]] = {"start": trials.start, "end": trials.end}
    if np.isfinite(trials.go_time).any():
        arrays["go_time"] = trials.go_time
    if trials.has_target.any():
        arrays["target"] = trials.target
    if judged.any():
        arrays["success"] = trials.success
    if judged.any() and not judged.all():
        arrays["judged"] = judged
    if np.isfinite(trials.radius).any():
        arrays["radius"] = trials.radius
    return arrays


def _dataset(path: Path, group: Any, name: str) -> npt.NDArray[Any] | None:
    dataset = child(path, group, name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    array = values(path, dataset)
    if array.dtype.kind not in "biuf":
        do = "write it as numbers, or leave it out"
        refuse(path, f"{GROUP}/{name}", "numbers", f"dtype {array.dtype}", do)
    return array


def _checked(path: Path, found: dict[str, npt.NDArray[Any] | None]) -> Trials:
    for name in ("success", "judged"):
        one = found[name]
        wrong = np.empty(0) if one is None else one[(one != 0) & (one != 1)]
        if wrong.size:
            do = "write true and false"
            refuse(path, f"{GROUP}/{name}", "true or false", f"{wrong.flat[0]}", do)
    start, end = found.pop("start"), found.pop("end")
    assert start is not None
    assert end is not None
    try:
        return Trials.of(start, end, **found)
    except TrialsError as error:
        _refuse(path, error)


def _require_width(path: Path, trials: Trials, cursor: Any) -> None:
    width = trials.target.shape[1]
    if not width or not isinstance(cursor, h5py.Dataset) or cursor.ndim not in (1, 2):
        return
    expected = 1 if cursor.ndim == 1 else int(cursor.shape[1])
    if width != expected:
        got, do = f"{width}", "write the targets in the coordinates of the cursor"
        said = f"{expected} coordinates in each row, as {_CURSOR} has"
        refuse(path, f"{GROUP}/target", said, got, do)


def _refuse(path: Path, error: TrialsError) -> NoReturn:
    got = error.got if error.row is None else f"{error.got} in row {error.row}"
    do = "write the group again" if error.row is None else _DO
    refuse(path, f"{GROUP}/{error.field}", error.expected, got, do)
