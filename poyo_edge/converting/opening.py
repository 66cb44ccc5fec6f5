"""Which reader a file wants, by its contents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from poyo_edge.converting.source import Source
from poyo_edge.journal import is_journal
from poyo_edge.recording_rules import refuse


@contextmanager
def open_source(path: str | Path, behavior_file: str | Path | None = None) -> Iterator[Source]:
    """Open a file that holds spikes; its series can be read inside the block.

    Args:
        path: NWB, torch_brain HDF5, .npz, .csv, a journal of ``poyo-edge run``, or what neo reads.
        behavior_file: behaviour as .csv, for spikes in a .csv.

    Raises:
        RecordingError: absent, damaged, of an unknown kind, or without units and spikes.
        MissingExtraError: the library that reads this kind is not installed.
    """
    path = Path(path)
    if not path.exists():
        refuse(path, "file", "a file with spikes", "no such file", "check the path")
    if behavior_file is not None and path.suffix.lower() != ".csv":
        do = "name the spikes' .csv first, or leave the second file out"
        refuse(path, "file", "spikes as .csv beside a behaviour file", path.suffix or "none", do)
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            nwb = "nwb_version" in file.attrs
        if nwb:
            from poyo_edge.converting.nwb import open_nwb as opener
        else:
            from poyo_edge.converting.torch_brain_file import open_torch_brain as opener
    elif path.is_file() and is_journal(path):
        from poyo_edge.converting.journal_file import open_journal as opener
    elif path.suffix.lower() == ".npz":
        from poyo_edge.converting.arrays import open_npz as opener
    elif path.suffix.lower() == ".csv":
        from poyo_edge.converting.arrays import open_csv

        yield open_csv(path, None if behavior_file is None else Path(behavior_file))
        return
    else:
        from poyo_edge.converting.neo_file import open_neo as opener
    with opener(path) as source:
        yield source
