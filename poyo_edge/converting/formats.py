"""The formats of files that hold spikes, in the order in which they are asked about a file.

To add one: a file of its own with a ``Reader``, and a row here. ``open_source``, the help and the
messages of ``poyo-edge convert``, and the test of docs/convert.md go by the rows. What a row names
is loaded when a file is opened.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from poyo_edge.tables import Row, named


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Format(Row):
    """A format: ``load`` names its ``Reader``, whose sources have the row's name as ``format``."""

    suffixes: tuple[str, ...] = ()
    """Endings, in lower case, by which its files are recognised."""
    contents: str = ""
    """``MODULE:NAME`` of the ``Recogniser`` that looks into a file; "" where endings say enough."""
    behavior: str = ""
    """``MODULE:NAME`` of the ``BehaviorReader``; "" where no file holds behaviour by itself."""

    def recognises(self, path: Path) -> bool:
        """Whether something that exists is in this format.

        Raises:
            RecordingError: it is, and must not be read.
        """
        return path.suffix.lower() in self.suffixes or (
            self.contents != "" and bool(named(self.contents)(path))
        )


FORMATS: dict[str, Format] = {
    "NWB": Format(
        help="sorted units, behaviour and trials of an NWB 2 file",
        load="poyo_edge.converting.nwb:open_nwb",
        extra="nwb",
        package="pynwb",
        contents="poyo_edge.converting.nwb:is_nwb",
    ),
    "MATLAB": Format(
        help="a cell of spike times and samples of behaviour, of version 5 or 7.3, as in xds files",
        load="poyo_edge.converting.readers.matlab:open_mat",
        contents="poyo_edge.converting.readers.matlab:is_mat",
    ),
    "torch_brain HDF5": Format(
        help="what torch_brain, temporaldata or brainsets wrote, in any version",
        load="poyo_edge.converting.torch_brain_file:open_torch_brain",
        contents="poyo_edge.converting.torch_brain_file:is_torch_brain",
    ),
    "journal": Format(
        help="what poyo-edge run recorded",
        load="poyo_edge.converting.journal_file:open_journal",
        contents="poyo_edge.journal:is_journal",
    ),
    "csv": Format(
        help="a table of spikes with the columns time,unit",
        load="poyo_edge.converting.readers.arrays:open_csv",
        suffixes=(".csv",),
        behavior="poyo_edge.converting.readers.arrays:csv_behavior",
    ),
    "npz": Format(
        help="numpy's arrays of spikes and behaviour",
        load="poyo_edge.converting.readers.arrays:open_npz",
        suffixes=(".npz",),
        behavior="poyo_edge.converting.readers.arrays:npz_behavior",
    ),
    "Phy": Format(
        help="the folder that Kilosort and Phy leave of sorted data",
        load="poyo_edge.converting.readers.phy_folder:open_phy",
        contents="poyo_edge.converting.readers.phy_folder:is_phy",
    ),
    "Open Ephys": Format(
        help="the folder of its binary format, with spikes that were detected",
        load="poyo_edge.converting.readers.open_ephys:open_open_ephys",
        contents="poyo_edge.converting.readers.open_ephys:is_open_ephys",
    ),
    # Takes what no other row has recognised, so it stays the last.
    "neo": Format(
        help="what neo reads, like Blackrock NEV or Plexon",
        load="poyo_edge.converting.neo_file:open_neo",
        extra="neo",
        package="neo",
        contents="poyo_edge.converting.neo_file:is_no_pickle",
    ),
}
"""Name → format, in the order in which they are asked; the last takes what no other recognised."""


def behavior_suffixes() -> str:
    """Endings of files that may hold behaviour by itself, as words: ".csv or .npz"."""
    return " or ".join(
        suffix for row in FORMATS.values() if row.behavior for suffix in row.suffixes
    )
