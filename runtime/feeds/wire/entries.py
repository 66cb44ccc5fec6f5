"""Which entries of a Redis stream were read, and which were trimmed away before."""

from __future__ import annotations

from typing import Any

BEGINNING = "0-0"


class Entries:
    """Where reading goes on in a stream: from its newest entry, or where it begins anew.

    Args:
        stream: its name.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.last = ""
        """Id of the last entry read; "" before the first look."""
        self._read_of_all: int | None = None

    def look(self, client: Any) -> tuple[int, bool]:
        """Compare with the stream.

        Returns:
            How many entries were lost since the last look, and whether all so far were read or
            lost (False while some wait).
        """
        newest, added = self._newest(client)
        if not self.last:
            self.last, self._read_of_all = newest, added
        elif newest != self.last:
            return 0, False
        elif added is not None:
            lost = added - (added if self._read_of_all is None else self._read_of_all)
            self._read_of_all = added
            return max(0, lost), True
        return 0, True

    def began_anew(self, client: Any) -> bool:
        """Whether the stream is another one than was read; reading goes on at its beginning."""
        newest, added = self._newest(client)
        if not self.last or _key(newest) >= _key(self.last):
            return False
        self.last, self._read_of_all = BEGINNING, None if added is None else 0
        return True

    def read(self, entries: list[Any]) -> None:
        """Note entries that were read."""
        self.last = _text(entries[-1][0])
        if self._read_of_all is not None:
            self._read_of_all += len(entries)

    def _newest(self, client: Any) -> tuple[str, int | None]:
        """Id of the newest entry ever added, and how many were; Redis before 7 counts none."""
        try:
            info = client.xinfo_stream(self.stream)
        except Exception as error:  # redis.ResponseError, which this file does not import.
            if "no such key" not in str(error):
                raise
            return BEGINNING, 0
        added = info.get("entries-added")
        return _text(info["last-generated-id"]), None if added is None else int(added)


def _text(identifier: Any) -> str:
    return identifier.decode() if isinstance(identifier, bytes) else str(identifier)


def _key(identifier: str) -> tuple[int, int]:
    time_ms, _, number = identifier.partition("-")
    return int(time_ms), int(number or 0)
