"""Which of neo's readers opens a path: by what the path is, not by which one happens to open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poyo_edge.converting.readers.nev_file import nev_doubts
from poyo_edge.converting.source import LeftOut
from poyo_edge.recording.plausible import Doubt
from poyo_edge.recording.rules import refuse

_OF_ANYTHING = ("AsciiSignalIO", "AsciiSpikeTrainIO", "PickleIO", "RawBinarySignalIO")
"""Readers that find signals in any text or bytes, or run them: not for whole folders."""
_NO_SPIKES = (".ns5", ".ns6")
_SLOW = (".ns1", ".ns2", ".ns3", ".ns4")


def opened(path: Path, io: Any) -> tuple[Any, list[LeftOut], tuple[Doubt, ...]]:
    """A reader that has opened a path, the files beside it that it leaves alone, and doubts.

    Args:
        path: what to open.
        io: the module ``neo.io``.

    Raises:
        RecordingError: raw data that holds no spikes, or a .nev without its header.
        OSError: no reader could open it; the reason of the one that fits best.
    """
    suffix = path.suffix.lower()
    if suffix == ".nev":
        doubts = nev_doubts(path)
        return *_nev_alone(path, io), doubts
    if suffix in _SLOW:
        return _signals(path, io), [], nev_doubts(path.with_suffix(".nev"))
    reasons = list[str]()
    for reader in io.list_candidate_ios(str(path)):
        if reader.__name__ in _OF_ANYTHING[0 if path.is_dir() else 2 :]:
            continue
        try:
            return reader(str(path)), [], ()
        except Exception as error:  # Each of neo's readers fails in its own way.
            reasons.append(f"{reader.__name__}: {type(error).__name__}: {error}")
    raise OSError(reasons[0] if reasons else "no reader is for files like these")


def _nev_alone(path: Path, io: Any) -> tuple[Any, list[LeftOut]]:
    """The spikes of a .nev without the .nsX beside it, whatever these are."""
    beside = sorted(
        one for one in path.parent.iterdir()
        if one.stem == path.stem and one.suffix.lower() in (*_SLOW, *_NO_SPIKES)
    )  # fmt: skip
    left_out = [
        LeftOut(
            one.name,
            f"raw data beside the spikes{f'; convert {one.name} to take it' * (s in _SLOW)}",
        )
        for one in beside
        if (s := one.suffix.lower())
    ]
    whole = str(path.with_suffix(""))
    none = str(path / "none")  # under a file there is nothing
    reader = io.BlackrockIO(filename=whole, nev_override=whole, nsx_override=none)
    return reader, left_out


def _signals(path: Path, io: Any) -> Any:
    """Slow signals of a .nsX with the spikes of the .nev beside it."""
    if not path.with_suffix(".nev").is_file():
        got = "raw data of Blackrock, which holds no spikes"
        do = "put the .nev of the same name beside it, which holds those that were detected"
        refuse(path, "file", "a file with spikes", got, do)
    return io.BlackrockIO(filename=str(path.with_suffix("")), nsx_to_load=int(path.suffix[-1]))
