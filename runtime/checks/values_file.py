"""What a replay decoded, as a file: time, truth, decoded value and status of each sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from poyo_edge.errors import UsageError
from poyo_edge.files.writing import require_folder, write_bytes
from poyo_edge.runtime.checks.replay import Replay


def require_writable(path: Path, *, overwrite: bool, reads: Sequence[Path]) -> None:
    """Find out before any work that values can be written to a path.

    Args:
        path: where to.
        overwrite: whether a file there may be replaced.
        reads: what is read, and never replaced.

    Raises:
        UsageError: its ending is none of ours, its folder is absent, or something is there.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(
            f"{path}: expected a name that ends in {', '.join(_WRITERS)}, got "
            f"{path.suffix or 'none'}; the ending says how values are written"
        )
    require_folder(path)
    if path.is_dir():
        raise UsageError(f"{path}: expected a file to write, got a folder; name it with --out")
    own = any(one.exists() and path.exists() and path.samefile(one) for one in reads)
    if path.exists() and (own or not overwrite):
        hint = "another name with --out" + ", or --overwrite" * (not own)
        raise UsageError(f"{path}: expected a name that is free, got a file there; give {hint}")


def write_values(path: Path, replayed: Replay, *, unit: str = "") -> Path:
    """Write (S,) seconds ``t``, (S, O) ``truth`` and ``decoded``, and (S,) ``status``, whole or not
    at all.

    A table has a column for each output; arrays and HDF5 keep their shapes.

    Args:
        path: see ``require_writable``.
        replayed: what was decoded.
        unit: of truth and decoded values; HDF5 and arrays keep it.
    """
    write_bytes(path, _WRITERS[path.suffix.lower()](replayed, unit))
    return path


def _as_csv(replayed: Replay, _: str) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    outputs = range(replayed.decoded.shape[1])
    table.writerow(["t", *(f"truth.{i}" for i in outputs), *(f"decoded.{i}" for i in outputs),
                    "status"])  # fmt: skip
    rows = zip(replayed.times, replayed.truth, replayed.decoded, replayed.statuses, strict=True)
    for t, truth, decoded, status in rows:
        table.writerow([repr(float(t)), *map(repr, truth.tolist()), *map(repr, decoded.tolist()),
                        status])  # fmt: skip
    return text.getvalue().encode()


def _as_npz(replayed: Replay, unit: str) -> bytes:
    data = io.BytesIO()
    np.savez(
        data,
        t=replayed.times,
        truth=replayed.truth,
        decoded=replayed.decoded,
        status=np.array(replayed.statuses, dtype="U"),
        unit=np.array(unit),
    )
    return data.getvalue()


def _as_hdf5(replayed: Replay, unit: str) -> bytes:
    with h5py.File("values.h5", "w", driver="core", backing_store=False) as file:
        file["t"] = replayed.times
        for name in ("truth", "decoded"):
            file[name] = getattr(replayed, name)
            file[name].attrs["unit"] = unit
        file["status"] = np.array(replayed.statuses, dtype="S")
        file.flush()
        return bytes(file.id.get_file_image())


_WRITERS: dict[str, Callable[[Replay, str], bytes]] = {
    ".csv": _as_csv,
    ".npz": _as_npz,
    ".h5": _as_hdf5,
}
