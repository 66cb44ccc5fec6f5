"""Opens a file with the reader of its format."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from poyo_edge.converting.clocks import chosen
from poyo_edge.converting.formats import FORMATS, behavior_suffixes
from poyo_edge.converting.source import BehaviorReader, Reader, Series, Source, UnknownFormatError
from poyo_edge.errors import UsageError
from poyo_edge.recording.rules import refuse
from poyo_edge.tables import named

_LONGEST_HEAD = 65536


@contextmanager
def open_source(
    path: str | Path,
    behavior_file: str | Path | None = None,
    *,
    segment: int | None = None,
    time_column: str = "",
) -> Iterator[Source]:
    """Open a file that holds spikes of one clock; its series can be read inside the block.

    Args:
        path: in one of ``FORMATS``; the first that recognises it is taken.
        behavior_file: behaviour as .csv or .npz that belongs to these spikes, on their clock.
        segment: of a file whose clock begins anew, counted from 1.
        time_column: what holds the times in the behaviour file; "" finds it by its name.

    Raises:
        RecordingError: absent, damaged, of an unknown kind, or without units and spikes; or its
            clock begins anew, and no segment is named.
        UsageError: it has no such segment.
        MissingExtraError: the library that reads this kind is not installed.
    """
    require_order(Path(path), None if behavior_file is None else Path(behavior_file))
    with open_all(path) as source:
        one = chosen(source, segment)
        yield one if behavior_file is None else beside(one, Path(behavior_file), time_column)


@contextmanager
def open_all(path: str | Path) -> Iterator[Source]:
    """Open a file that holds spikes, of however many clocks; errors as of ``open_source``."""
    path = Path(path)
    if not path.exists():
        refuse(path, "file", "a file with spikes", "no such file", "check the path")
    reader = _reader(path)
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(reader(path))
        except UnknownFormatError as unknown:
            do = f"name a file in one of the formats {', '.join(FORMATS)}"
            refuse(path, "file", unknown.expected, unknown.got, do)
        yield source


def require_order(path: Path, behavior_file: Path | None) -> None:
    """Tell behaviour that was named before its spikes from a file of another kind.

    Raises:
        UsageError: the second holds spikes, and only the first may hold behaviour.
    """
    if behavior_file is None or not behavior_file.exists() or not path.is_file():
        return
    suffixes = behavior_suffixes().split(" or ")
    told_apart = path.suffix.lower() in suffixes and behavior_file.suffix.lower() not in suffixes
    if told_apart and not _may_hold_spikes(path):
        raise UsageError(
            f"files: expected the one with spikes first and behaviour ({behavior_suffixes()}) "
            f"behind it, got {path.name} before {behavior_file.name}; "
            f"run: {shlex.join(['poyo-edge', 'convert', str(behavior_file), str(path)])}"
        )


def _may_hold_spikes(path: Path) -> bool:
    """Whether a table or arrays have the names of spikes; what is damaged is left to readers."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return "spike_times" in file.files
        with path.open(encoding="utf-8-sig") as text:
            return "unit" in text.readline(_LONGEST_HEAD).lower()
    except (OSError, ValueError, zipfile.BadZipFile):
        return True


def _reader(path: Path) -> Reader:
    name, row = next((name, row) for name, row in FORMATS.items() if row.recognises(path))
    reader: Reader = row.loaded(f"reading {path} ({name})")
    return reader


def beside(source: Source, behavior_file: Path, time_column: str = "") -> Source:
    """The source with the behaviour of another file too.

    Raises:
        RecordingError: that file cannot be used, or holds a series of the same name.
    """
    more = _behavior(behavior_file, time_column)
    taken = {series.key for series in source.series} & {series.key for series in more}
    if taken:
        got, do = f"{min(taken)!r} in both", "rename it in the behaviour file"
        refuse(behavior_file, "names", f"names that {source.path.name} does not have", got, do)
    return dataclasses.replace(source, series=(*source.series, *more))


def _behavior(path: Path, time_column: str) -> list[Series]:
    expected = f"behaviour as {behavior_suffixes()}"
    if not path.is_file():
        refuse(path, "file", expected, "no such file", "check the path")
    rows = (row for row in FORMATS.values() if row.behavior)
    where = next((row.behavior for row in rows if row.recognises(path)), None)
    if where is None:
        got = path.suffix or "a name without an ending"
        refuse(path, "file", expected, got, "save it as one of these")
    read: BehaviorReader = named(where)
    return read(path, times=time_column) if time_column else read(path)
