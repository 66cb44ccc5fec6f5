"""A million broken packets for every parser: nothing raises, and memory stays flat.

Half of them are random bytes, half are good packets with bytes changed, cut off, repeated or
joined. Memory is the process's resident set after a tenth and at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import struct
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from parts.environment import describe, environment
from parts.script import markdown, run, say, write_json

from poyo_edge.errors import CheckFailedError
from poyo_edge.runtime.feeds.blackrock import parse_event
from poyo_edge.runtime.feeds.brand import parse_bin
from poyo_edge.runtime.feeds.intan import MAGIC, IntanParser
from poyo_edge.runtime.feeds.lsl import names_of
from poyo_edge.runtime.feeds.open_ephys import parse_spike
from poyo_edge.runtime.feeds.sockets import LineBuffer
from poyo_edge.runtime.feeds.task.redis_streams import cursor_of, trial_of
from poyo_edge.runtime.feeds.wire.parsing import Malformed, parse_json
from poyo_edge.runtime.feeds.wire.task import read_message

MOST_GROWTH_MB = 8.0
Parse = Callable[[bytes], Any]


def main() -> None:
    """Fuzz each parser, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="results file")
    options = parser.parse_args()
    rows = [fuzz(name, *one, options.cases, options.seed) for name, one in targets().items()]
    where = environment(1)
    head = ["parser", "cases", "understood", "raised", "grew by MB", "µs each"]
    keys = ("parser", "cases", "understood", "raised", "grew_mb", "us")
    table = markdown(head, [[row[k] for k in keys] for row in rows])
    print(f"{describe(where)}\n\n{table}")
    write_json(options.json, {**where, "parsers": rows})
    if any(row["raised"] or row["grew_mb"] > MOST_GROWTH_MB for row in rows):
        raise CheckFailedError("fuzz: expected no error and flat memory; see the table")


def targets() -> dict[str, tuple[list[bytes], Parse]]:
    """Parser → good packets and what to call."""
    lines, intan = LineBuffer(), IntanParser()
    spike = {"event_type": "spike", "electrode": "T1", "sample_number": 5, "sorted_id": 1}
    entry = (np.arange(96) % 3).astype("<i2").tobytes()
    return {
        "json": ([b'{"t": [1.5, 2.0], "units": ["a", "b"], "sync": {"x": 1}}',
                  b'{"ticks": 45, "units": "a"}', b'{"t": 1.0, "behavior": [1.0, 2.0]}'],
                 lambda data: parse_json(data, 30_000.0)),
        "trials": ([b'{"trial": {"number": 7, "start": 5, "end": "now", "target": [8.0, 0.0], '
                    b'"radius": 1.2, "success": true}}', b'{"trial": {"number": 7, "end_s": 1.5}}'],
                   _task),
        "cursor": ([b'{"cursor": {"t": [1.5, 2.0], "pos": [[1.0, 2.0], [3.0, 4.0]]}}',
                    b'{"cursor": {"pos": [1.0, 2.0]}}'], _task),
        "redis task": ([bytes(16), b'{"number": 7, "start": 5}'], _redis_task),
        "lines": ([b'{"t": 1}\n', b"\n\n"], lambda data: lines.add(data) or None),
        "intan": ([struct.pack("<I5sIB", MAGIC, b"A-001", 77, 1) * 3],
                  lambda data: len(intan.add(data)) or None),
        "open ephys": ([json.dumps(spike).encode()], parse_spike),
        "brand": ([entry], lambda data: parse_bin(
            {b"crossings": data, b"ts": data[:8], b"sync": data})),
        "lsl": ([np.array([3.0, 12.0]).tobytes()], _lsl),
        "blackrock": ([bytes(range(16))], _blackrock),
    }  # fmt: skip


def _task(data: bytes) -> Any:
    try:
        return read_message(data, 30_000.0)
    except Malformed:
        return None


def _redis_task(data: bytes) -> Any:
    found = None
    for read in (lambda: cursor_of({b"pos": data, b"ts": data[:8]}),
                 lambda: trial_of({b"trial": data}, 1e9)):  # fmt: skip
        with contextlib.suppress(Malformed):
            found = read()
    return found


def _lsl(data: bytes) -> Any:
    values = np.frombuffer(data[: len(data) // 8 * 8], "<f8").tolist()
    return names_of([[value] for value in values])


def _blackrock(data: bytes) -> Any:
    numbers = struct.unpack("<iiq", data[:16].ljust(16, b"\0"))
    header = types.SimpleNamespace(chid=numbers[0], type=numbers[1], time=numbers[2])
    return parse_event(header, True)


def fuzz(name: str, good: list[bytes], parse: Parse, cases: int, seed: int) -> dict[str, Any]:
    """One parser: what it understood, what it raised, how memory grew."""
    say(f"{name}: {cases} cases")
    rng = np.random.default_rng(seed)
    understood = raised = 0
    before, began = 0.0, time.monotonic()
    for i in range(cases):
        try:
            understood += parse(broken(rng, good)) is not None
        except Exception as error:  # What this script looks for.
            raised += 1
            if raised == 1:
                say(f"{name} raised {error!r}")
        if i == cases // 10:
            before = resident_mb()
    return {
        "parser": name,
        "cases": cases,
        "understood": understood,
        "raised": raised,
        "grew_mb": round(resident_mb() - before, 2),
        "us": round((time.monotonic() - began) / cases * 1e6, 1),
    }


def broken(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """Random bytes, or a good packet that something happened to."""
    kind = int(rng.integers(0, 8))
    if kind < 4:
        return rng.bytes(int(rng.integers(0, 64 if kind else 2048)))
    data = bytearray(good[int(rng.integers(len(good)))])
    if kind == 4:
        return bytes(data[: int(rng.integers(0, len(data) + 1))])
    if kind == 5:
        return bytes(data) * int(rng.integers(2, 40))
    if kind == 6:
        return bytes(data) + rng.bytes(int(rng.integers(1, 32)))
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data)


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    run(main)
