"""Reaches what is in an HDF5 file, and nothing that is not.

A link can lead into another file, a dataset can keep its values in one, and a few bytes can declare
terabytes. None of that is followed: see ``child``, ``values`` and ``attribute``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from poyo_edge.recording.rules import refuse

MOST_BYTES = 4 << 30
"""Of the values of one dataset: half a billion spikes."""
_MOST_ATTRIBUTE_BYTES = 1 << 16
"""As many as HDF5 keeps beside a group by itself."""
_DEFLATE = 1032
"""Most that a byte of the file can become; https://zlib.net/zlib_tech.html."""
_FREE_BYTES = 1 << 20
_OPEN_FOR_WRITING = "already open for"
"""What the HDF5 library says of a file whose flags say that it is being written."""
_DO = "write the recording again, with all values in its own file"


def child(path: Path, group: Any, name: str) -> Any:
    """What a name like "units/id" leads to in a group; None when nothing is there.

    Raises:
        RecordingError: on the way is a link that leads somewhere else.
    """
    found = group
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or part not in found.keys():  # noqa: SIM118
            return None
        kind = found.id.links.get_info(part.encode()).type
        if kind != h5py.h5l.TYPE_HARD:
            refuse(path, f"{found.name.rstrip('/')}/{part}", "no link", "a link elsewhere", _DO)
        found = found[part]
    return found


def children(path: Path, group: Any) -> Iterator[tuple[str, Any]]:
    """Name and object of everything directly in a group.

    Raises:
        RecordingError: see ``child``.
    """
    for name in group:
        yield str(name), child(path, group, str(name))


def check_not_held(path: Path, error: Exception) -> None:
    """Tell a file that another program has open from one that is damaged.

    Args:
        path: the file that h5py could not open.
        error: what it raised; all others pass.

    Raises:
        RecordingError: the file is held open for writing, or its writer crashed.
    """
    if isinstance(error, BlockingIOError) or _OPEN_FOR_WRITING in str(error):
        expected = "an HDF5 file that no other program is writing"
        do = (
            "close it there, or copy it when that program is done; if nothing has it open, that "
            "program crashed: run h5clear -s on a copy"
        )
        refuse(path, "file", expected, "one that is held open by another program", do)


def values(path: Path, dataset: Any) -> npt.NDArray[Any]:
    """All values of a dataset.

    Raises:
        RecordingError: they are in another file, or far more than the file can hold.
    """
    if dataset.is_virtual or dataset.external:
        refuse(path, dataset.name, "values in the file", "a path to another file", _DO)
    most = min(MOST_BYTES, _FREE_BYTES + _DEFLATE * path.stat().st_size)
    if dataset.size is None or dataset.nbytes > most:
        got = "no values" if dataset.size is None else f"{dataset.nbytes} bytes"
        refuse(path, dataset.name, f"values of at most {most} bytes", got, _DO)
    return np.asarray(dataset[()])


def attribute(path: Path, group: Any, name: str) -> Any:
    """The value of an attribute; None when there is none of that name.

    Raises:
        RecordingError: it is far larger than any that a recording has.
    """
    if name not in group.attrs:
        return None
    about = group.attrs.get_id(name)
    n_bytes = max(1, math.prod(about.shape or ())) * about.dtype.itemsize
    if n_bytes > _MOST_ATTRIBUTE_BYTES:
        expected = f"at most {_MOST_ATTRIBUTE_BYTES} bytes"
        refuse(path, f"{group.name}, attribute {name}", expected, f"{n_bytes}", _DO)
    return group.attrs[name]
