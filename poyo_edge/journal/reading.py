"""Reads a journal, whole or cut off."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from poyo_edge.errors import RecordingError
from poyo_edge.journal.frames import (
    FRAME,
    HEADER,
    MAGIC,
    MOST_BYTES,
    NOTE,
    Decoded,
    Entry,
    JournalHeader,
    entry_of,
    note_of,
    start_of,
)


class Journal:
    """A journal that is read. ``entries`` stop where the file was cut off or damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise RecordingError(self.path, "file", expected="a journal", got="no such file",
                                 do="check the path")  # fmt: skip
        self.bytes_left_out = 0
        """Bytes behind the last whole frame; known when ``entries`` has ended."""
        self.appended = False
        """These bytes begin another journal; known when ``entries`` has ended."""
        self.damaged = False
        """Whether it is damaged there, not only cut off; known when ``entries`` has ended."""
        with self.path.open("rb") as file:
            ours = file.read(len(MAGIC)) == MAGIC
            frames = list(itertools.islice(self._frames(file), 2)) if ours else []
        frame = frames[0] if frames else None
        self.start = start_of(*frames[1]) if len(frames) > 1 else None
        """What it was decoded with: ``core``, ``session`` (id and sha256), ``backend``,
        ``precision``, ``machine``; None in journals of 0.1.0."""
        try:
            if frame is None or frame[0] != HEADER:
                raise ValueError("no header")
            self.header = JournalHeader.from_json(json.loads(frame[1]))
        except (ValueError, RecursionError) as error:
            raise RecordingError(
                self.path,
                "header",
                expected="a journal that poyo-edge run wrote",
                got=f"another file, or one that ends in its header ({error})",
                do="name another file",
            ) from None

    def entries(self) -> Iterator[Entry]:
        """All entries in the order in which they were written."""
        note = dict[str, Any]()
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for number, (kind, payload) in enumerate(self._frames(file)):
                if kind == HEADER and number:
                    self.appended = True
                    return  # of another start, whose units and ticks are its own
                try:
                    if kind == NOTE:
                        note = note_of(payload)
                        continue
                    entry = entry_of(kind, payload)
                except (struct.error, ValueError, IndexError, RecursionError):
                    self.damaged = True
                    return  # whole, but not what a writer of ours puts into a frame
                if isinstance(entry, Decoded) and note:
                    entry, note = dataclasses.replace(entry, **note), {}
                if entry is not None:
                    yield entry

    def _frames(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        size = os.fstat(file.fileno()).st_size
        while True:
            start = file.tell()
            self.bytes_left_out = size - start
            head = file.read(FRAME.size)
            self.appended = head.startswith(MAGIC)
            if len(head) < FRAME.size:
                return
            kind, length, checksum = FRAME.unpack(head)
            payload = file.read(length) if length <= MOST_BYTES else b""
            if len(payload) != length or zlib.crc32(payload) != checksum:
                self.damaged = length > MOST_BYTES or len(payload) == length
                return
            yield kind, payload


def is_journal(path: Path) -> bool:
    """Whether a path is a file that begins like a journal."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
