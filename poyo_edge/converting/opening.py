"""Which reader a file wants, by its contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from poyo_edge.converting.source import Source
from poyo_edge.journal import is_journal
from poyo_edge.recording.rules import refuse


@contextmanager
def open_source(path: str | Path, behavior_file: str | Path | None = None) -> Iterator[Source]:
    """Open a file that holds spikes; its series can be read inside the block.

    Args:
        path: NWB, torch_brain HDF5, .npz, .csv, a journal of ``poyo-edge run``, or what neo reads.
        behavior_file: behaviour as .csv or .npz that belongs to these spikes, on their clock.

    Raises:
        RecordingError: absent, damaged, of an unknown kind, or without units and spikes.
        MissingExtraError: the library that reads this kind is not installed.
    """
    path = Path(path)
    if not path.exists():
        refuse(path, "file", "a file with spikes", "no such file", "check the path")
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
        from poyo_edge.converting.arrays import open_csv as opener
    else:
        from poyo_edge.converting.neo_file import open_neo as opener
    with opener(path) as source:
        yield source if behavior_file is None else _beside(source, Path(behavior_file))


def _beside(source: Source, behavior_file: Path) -> Source:
    """The source with the behaviour of another file too."""
    from poyo_edge.converting.arrays import read_behavior

    more = read_behavior(behavior_file)
    taken = {series.key for series in source.series} & {series.key for series in more}
    if taken:
        got, do = f"{min(taken)!r} in both", "rename it in the behaviour file"
        refuse(behavior_file, "names", f"names that {source.path.name} does not have", got, do)
    return dataclasses.replace(source, series=(*source.series, *more))
