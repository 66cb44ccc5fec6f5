"""What ``test_confined.py`` calls in a process of its own."""

from __future__ import annotations

import os
import time

from poyo_edge.errors import MissingExtraError, RecordingError


def returns(n: int) -> list[int]:
    print("what libraries print")
    return [n, n + 1]


def refuses() -> None:
    raise RecordingError("a.h5", "units/id", expected="one", got="two", do="mend it")


def lacks() -> None:
    raise MissingExtraError("pynwb", "nwb", "this")


def fails() -> None:
    raise KeyError("nobody meant this")


def runs_on() -> None:
    while True:
        time.monotonic()


def takes_all() -> int:
    return len(bytearray(1 << 31))


def crashes() -> None:
    os.abort()
