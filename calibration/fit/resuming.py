"""A search that was killed goes on where it was judged last: its state in a file beside.

The file belongs to one search: same labels, settings, seed, start and core. Any other one begins
anew, and so does one that had so little time that it took another schedule or fewer folds. A fit
that was resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.calibration.fit.fitting import Fit, Tables
from poyo_edge.calibration.fit.judging import Judged, Moment, Point
from poyo_edge.calibration.fit.search import Search
from poyo_edge.core_inputs import ENCODER, ENCODER_WEIGHTS
from poyo_edge.errors import SessionError
from poyo_edge.files import tensors
from poyo_edge.files.writing import write_bytes

_KEY = "poyo_edge_search"
_JUDGED_BY = "judged_by"
_MAX_BYTES = 1 << 30


class ResumeFile:
    """Where a search keeps its state. See ``load``, ``save`` and ``remove``."""

    def __init__(self, path: str | Path, search: Search, core_hash: str) -> None:
        self.path = Path(path)
        self._search = search
        self._core_hash = core_hash

    def load(self) -> bool:
        """Go on from the file; False when there is none that fits. A damaged one counts as none."""
        try:
            data = tensors.read_file(self.path, SessionError, _MAX_BYTES)
            arrays, metadata = tensors.from_bytes(data, self.path, SessionError)
            values = json.loads(metadata[_KEY])
            if values["fingerprint"] != _fingerprint(self._search, self._core_hash):
                return False
            if values["checksum"] != _checksum(arrays, values["curve"]):
                return False
            self._restore(arrays, values["curve"])
        except (SessionError, KeyError, ValueError, TypeError, RecursionError):
            return False
        return True

    def save(self) -> None:
        """Write the state; a crash leaves the old state or the whole new one."""
        search = self._search
        arrays: tensors.Tensors = {_JUDGED_BY: np.array([search.fits[0].most_judged])}
        for i, fit in enumerate(search.fits):
            arrays[f"{i}.steps"] = np.array([fit.optimizer.steps])
            for table, values in _state(fit).items():
                arrays |= {f"{i}.{table}.{name}": array for name, array in values.items()}
        for i, moment in enumerate(search.moments):
            for field in dataclasses.fields(Judged):
                arrays[f"moment{i}.{field.name}"] = getattr(moment.judged, field.name)
            for k, tables in enumerate(moment.tables):
                arrays[f"moment{i}.{k}.units"] = tables.units
                arrays[f"moment{i}.{k}.session"] = tables.session
                for name, array in (tables.encoder or {}).items():
                    arrays[f"moment{i}.{k}.{ENCODER}{name}"] = array
        curve = [point.to_json() for point in search.curve]
        header = {
            "fingerprint": _fingerprint(search, self._core_hash),
            "checksum": _checksum(arrays, curve),
            "curve": curve,
        }
        write_bytes(self.path, tensors.to_bytes(arrays, {_KEY: json.dumps(header)}))

    def remove(self) -> None:
        """The search is over: forget its state."""
        self.path.unlink(missing_ok=True)

    def _restore(self, arrays: tensors.Tensors, curve: list[dict[str, Any]]) -> None:
        search = self._search
        moments = [_moment(arrays, i, point, len(search.fits)) for i, point in enumerate(curve)]
        states = [
            {
                table: {
                    name: arrays[f"{i}.{table}.{name}"]
                    for name in fit.moved
                    if f"{i}.{table}.{name}" in arrays
                }
                for table in _state(fit)
            }
            for i, fit in enumerate(search.fits)
        ]
        judged_by = int(arrays[_JUDGED_BY][0])
        for i, fit in enumerate(search.fits):
            fit.most_judged = judged_by
            fit.optimizer.steps = int(arrays[f"{i}.steps"][0])
            for table, values in _state(fit).items():
                values.update(states[i][table])
        search.moments = moments


def _state(fit: Fit) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """What a fit's next step depends on, beside its number."""
    return {"moved": fit.moved, "mean": fit.optimizer.mean, "square": fit.optimizer.square}


def _moment(arrays: tensors.Tensors, i: int, point: dict[str, Any], n_fits: int) -> Moment:
    names = [field.name for field in dataclasses.fields(Judged)]
    return Moment(
        point=Point.from_json(point),
        judged=Judged(**{name: arrays[f"moment{i}.{name}"] for name in names}),
        tables=tuple(_tables(arrays, f"moment{i}.{k}.") for k in range(n_fits)),
    )


def _tables(arrays: tensors.Tensors, begins: str) -> Tables:
    encoder = None
    if begins + ENCODER + ENCODER_WEIGHTS[0] in arrays:
        encoder = {name: arrays[begins + ENCODER + name] for name in ENCODER_WEIGHTS}
    return Tables(
        units=arrays[begins + "units"], session=arrays[begins + "session"], encoder=encoder
    )


def _checksum(arrays: tensors.Tensors, curve: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256(json.dumps(curve, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _fingerprint(search: Search, core_hash: str) -> str:
    """What makes a search the same one."""
    labels, start = search.labels, search.start
    digest = hashlib.sha256(core_hash.encode())
    digest.update(json.dumps(dataclasses.asdict(search.settings), sort_keys=True).encode())
    digest.update(json.dumps(dataclasses.asdict(search.schedule), sort_keys=True).encode())
    digest.update(f"{search.seed} {labels.n_units} {len(search.fits)}".encode())
    for array in (
        labels.spike_times,
        labels.spike_rows,
        labels.times,
        labels.values,
        start.units,
        start.session,
        *(start.encoder or {}).values(),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
