"""What labs have that is no recording yet, named as what it is, with what to do about it.

Nothing here reads more than the beginning of a file: it is for messages, and for the choice of a
reader.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from poyo_edge.recording.first_bytes import first_bytes, misnamed
from poyo_edge.recording.glance import likely_behavior
from poyo_edge.recording.rules import refuse

_STARTS = {
    b"NEURALEV": "Blackrock's events (.nev)",
    b"BREVENTS": "Blackrock's events (.nev)",
    b"PLEX": "a Plexon file",
}
_ENDINGS = {".npz": "arrays of numpy (.npz)", ".csv": "a table (.csv)"}
_NO_SPIKES = {
    b"NEURALSG": "raw data of Blackrock",
    b"NEURALCD": "raw data of Blackrock",
    b"BRSMPGRP": "raw data of Blackrock",
    b"\x91\x19\x12\xc6": "raw data of Intan (.rhd)",
    b"\xac\x27\x91\xd6": "raw data of Intan (.rhs)",
}
_SLOW = (".ns1", ".ns2", ".ns3", ".ns4")
_RAW = (".dat", ".bin", ".raw")
_CHECKPOINTS = (b"PK\x03\x04", b"\x80")
"""Which have the ending .bin too."""
_SORT = "sort it, and convert the folder that the sorter leaves or the file with its units"
_SAVE = "save its spikes and behaviour as .npz or NWB"
_OF_PHY = {
    "spike_times.npy",
    "spike_clusters.npy",
    "spike_templates.npy",
    "amplitudes.npy",
    "params.py",
    "cluster_group.tsv",
    "cluster_info.tsv",
}
_PHY = "with spike_times.npy, spike_clusters.npy and params.py"
_ZARR = (".zgroup", ".zattrs", ".zarray", "zarr.json")


@dataclass(frozen=True, slots=True)
class OtherKind:
    """A kind of file that is no recording."""

    name: str
    """For "got ..."."""
    do: str
    """What makes a recording of it."""
    readable: bool
    """Whether ``poyo-edge convert`` reads it."""


def other_kind(path: Path) -> OtherKind | None:
    """What a path is; None for recordings, for nothing, and for what nobody knows."""
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        return None
    start = first_bytes(path)
    wrong = misnamed(path)
    if wrong is not None:
        return OtherKind(*wrong, False)
    if start.startswith(b"\x93NUMPY"):
        return OtherKind("one array of numpy (.npy)", _with_the_others(path), False)
    for magic, name in _STARTS.items():
        if start.startswith(magic):
            return _readable(path, name)
    suffix = path.suffix.lower()
    for magic, name in _NO_SPIKES.items():
        if start.startswith(magic):
            if suffix in _SLOW and path.with_suffix(".nev").is_file():
                return _readable(path, "slow signals of Blackrock beside a .nev")
            return OtherKind(f"{name}, which holds no spikes", _beside(path), False)
    if start.startswith(b"MATLAB 7.3 MAT-file"):
        return _readable(path, "a MATLAB file (7.3)")
    if start.startswith(b"MATLAB 5.0 MAT-file"):
        return _readable(path, "a MATLAB file (5)")
    if h5py.is_hdf5(path):
        return _kind_of_hdf5(path)
    if suffix in _ENDINGS:
        return _readable(path, _ENDINGS[suffix])
    if suffix in _RAW and not start.startswith(_CHECKPOINTS):
        return OtherKind(f"raw data ({suffix}), which holds no spikes", _SORT, False)
    return None


def refuse_other(path: Path, *, but_readable: bool = False) -> None:
    """Refuse what is no recording, by its name and with what to do; let all else pass.

    Args:
        path: a file or folder.
        but_readable: let pass what ``poyo-edge convert`` reads.

    Raises:
        RecordingError: it is of another kind.
    """
    kind = other_kind(path)
    if kind is not None and not (but_readable and kind.readable):
        expected = "a file with spikes" if but_readable else "a recording"
        refuse(path, "file", expected, kind.name, kind.do)


def convert_command(path: Path) -> str:
    """What makes a recording of a file or folder, to be pasted."""
    out = path.with_suffix(".h5") if path.suffix != ".h5" else path.with_suffix(".converted.h5")
    return f"poyo-edge convert {shlex.quote(str(path))} -o {shlex.quote(out.name)}"


def _readable(path: Path, name: str, behavior: str = "") -> OtherKind:
    if behavior:
        command = f"{convert_command(path)} --behavior {shlex.quote(behavior)}"
        return OtherKind(name, f"run: {command}", True)
    do = "see with --list what it holds, and choose with --behavior"
    return OtherKind(name, f"{do}; run: {convert_command(path)}", True)


def _with_the_others(path: Path) -> str:
    """What to do about one array of those that belong together."""
    if (path.parent / "spike_times.npy").is_file():
        folder = path.parent.resolve()
        return f"give the whole folder, {_PHY}; run: {convert_command(folder)}"
    return f"of sorted spikes give the whole folder, {_PHY}; else {_SAVE}"


def _beside(path: Path) -> str:
    nev = path.with_suffix(".nev")
    if not nev.is_file():
        return _SORT
    return f"the spikes that were detected are beside it; run: {convert_command(nev)}"


def _kind_of_hdf5(path: Path) -> OtherKind | None:
    try:
        with h5py.File(path, "r") as file:
            version = _version(file)
    except (OSError, RuntimeError, KeyError):
        return None
    if version is None:
        return None
    if version.removeprefix("NWB-").startswith("1"):
        do = "write it again as NWB 2, which pynwb and MatNWB read, or save its spikes as .npz"
        return OtherKind(f"an NWB 1 file ({version})", do, False)
    return _readable(path, "an NWB file", likely_behavior(path))


def _version(file: Any) -> str | None:
    """Of NWB: an attribute since 2, a dataset before."""
    found = file.attrs.get("nwb_version")
    if found is None and isinstance(file.get("nwb_version"), h5py.Dataset):
        found = file["nwb_version"][()]
        found = found.flat[0] if hasattr(found, "flat") and found.size else found
    if found is None:
        return None
    return (found.decode(errors="replace") if isinstance(found, bytes) else str(found))[:40]


def _kind_of_folder(path: Path) -> OtherKind | None:
    inside = {one.name for one in path.iterdir()}
    if inside & set(_ZARR):
        nwb = ".specloc" in inside or "nwb_version" in _text(path / ".zattrs")
        do = (
            "write it as HDF5: NWBZarrIO(PATH, 'r') of hdmf-zarr opens it and pynwb's "
            "NWBHDF5IO('a.nwb', 'w').export(src_io=...) writes it"
        )
        if nwb:
            return OtherKind("an NWB file in zarr", do, False)
        return OtherKind("a zarr store", _SAVE, False)
    if {"manifest.json", "core.onnx"} <= inside:
        do = (
            "it holds a model and no spikes: name a recording; where a command takes both, the "
            "artifact comes first and the recording behind it"
        )
        return OtherKind("an artifact (NAME.poyo)", do, False)
    if len(inside & _OF_PHY) > 1 and not (
        "spike_times.npy" in inside and inside & {"spike_clusters.npy", "spike_templates.npy"}
    ):
        lacks = "spike_clusters.npy" if "spike_times.npy" in inside else "spike_times.npy"
        name = f"a folder of Kilosort and Phy without {lacks}"
        return OtherKind(name, f"give the whole folder, {_PHY}", False)
    if "spike_times.npy" in inside:
        return _readable(path, "a folder of Kilosort and Phy")
    described = find_oebin(path)
    if any(_has_spikes(one) for one in described):
        return _readable(path, "a folder of Open Ephys with spikes")
    return OtherKind("a folder of Open Ephys without spikes", _SORT, False) if described else None


def _has_spikes(oebin: Path) -> bool:
    try:
        return bool(json.loads(oebin.read_text(encoding="utf-8"))["spikes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_oebin(path: Path) -> list[Path]:
    """The descriptions of Open Ephys' recordings in a folder, at most four folders down."""
    return sorted(one for depth in range(5) for one in path.glob("*/" * depth + "structure.oebin"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
