"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

import h5py

N_BYTES = 128
_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file (5)"),
    (b"MATLAB 7.3 MAT-file", "a MATLAB file (7.3)"),
    (b"\x93NUMPY", "an array of numpy (.npy)"),
    (b"NEURALEV", "Blackrock's events (.nev)"),
    (b"BREVENTS", "Blackrock's events (.nev)"),
    (b"\x1f\x8b", "something packed with gzip"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a database of SQLite"),
)
_MUST_BE = {
    ".nwb": "an HDF5/NWB file",
    ".nev": "Blackrock's events (.nev)",
    ".mat": "a MATLAB file of version 5 or 7.3",
    ".npz": "arrays of numpy (.npz)",
}
"""Endings that say what a file is."""


def first_bytes(path: Path) -> bytes:
    """The first ``N_BYTES`` of a file."""
    with path.open("rb") as file:
        return file.read(N_BYTES)


def kind_of_bytes(path: Path) -> str:
    """What a file holds, in words, from its first bytes."""
    start = first_bytes(path)
    if not start:
        return "an empty file"
    if h5py.is_hdf5(path) and not start.startswith(b"MATLAB"):
        return "HDF5"
    for magic, name in _KINDS:
        if start.startswith(magic):
            return name
    if start.startswith(b"PK\x03\x04"):
        member = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        return "arrays of numpy (.npz)" if member.endswith(b".npy") else "a zip archive"
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "bytes of an unknown kind"
    return "text" if all(one.isprintable() or one.isspace() for one in text) else (
        "bytes of an unknown kind"
    )  # fmt: skip


def misnamed(path: Path) -> tuple[str, str] | None:
    """What a file is that its ending does not say, and what to do; None where the two agree or
    nobody can know."""
    suffix = path.suffix.lower()
    expected = _MUST_BE.get(suffix)
    if expected is None:
        return None
    found = kind_of_bytes(path)
    if found in expected or (suffix == ".mat" and found.startswith(("a MATLAB", "HDF5"))):
        return None
    if found.startswith("a MATLAB"):
        return None  # readers go by what is in these
    if suffix == ".nev" and _begins_a_nev(path):
        return None  # cut in its header, which its reader says
    do = "give the file itself, or copy it again from its source"
    if "Git LFS" in found:
        do = "run git lfs pull where it came from, and copy it again"
    elif found in ("arrays of numpy (.npz)", "an array of numpy (.npy)"):
        do = f"give it its own ending: {path.stem}.{found[-4:-1]}"
    return f"{found}, not {expected} as its ending {suffix} says", do


def _begins_a_nev(path: Path) -> bool:
    start = first_bytes(path)[:8]
    return bool(start) and any(one.startswith(start) for one in (b"NEURALEV", b"BREVENTS"))
