"""Asks the process in ``unpickling`` what a torch file holds; no pickle is read here."""

from __future__ import annotations

import atexit
import contextlib
import json
import struct
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

from poyo_edge.checkpoint.foreign import Foreign
from poyo_edge.files.confined import python_command

Kind = str
"""Why there is no content: "pickle", "limits" or "damaged"."""


class UnreadableError(Exception):
    """The file has no content that may be read; ``kind`` and ``reason`` say why."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def read_confined(data: bytes) -> object:
    """What a torch file holds: plain values, CPU tensors, and ``Foreign`` for all else.

    Raises:
        UnreadableError: damaged, beyond the limits, or its pickle asks for what is not allowed.
    """
    with _LOCK:
        values, tensors = _ask(data)
    if "error" in values:
        raise UnreadableError(values["error"], values.get("reason", ""))
    return _value(values["content"], safetensors.torch.load(tensors))


_LOCK = threading.Lock()
_running: list[subprocess.Popen[bytes]] = []


def _ask(data: bytes) -> tuple[dict[str, Any], bytes]:
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(struct.pack("<Q", len(data)) + data)
        process.stdin.flush()
        n_text, n_tensors = struct.unpack("<QQ", process.stdout.read(16))
        text, tensors = process.stdout.read(n_text), process.stdout.read(n_tensors)
    except (OSError, struct.error):
        _close()
        return {"error": "limits"}, b""
    return json.loads(text), tensors


def _process() -> subprocess.Popen[bytes]:
    """The process, started when it is first needed: it takes a second or two to load torch."""
    if _running and _running[0].poll() is not None:
        _close()
    if not _running:
        command = python_command("poyo_edge.checkpoint.unpickling")
        pipe = subprocess.PIPE
        _running.append(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        )
    return _running[0]


@atexit.register
def _close() -> None:
    for process in _running:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
    _running.clear()


def _value(item: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(item, dict):
        return item
    if "t" in item:
        return tensors[item["t"]]
    if "l" in item:
        return [_value(part, tensors) for part in item["l"]]
    if "o" in item:
        values = _value(item["v"], tensors) if "v" in item else {}
        return Foreign(name=item["o"], values=values)
    pairs = [(_value(k, tensors), _value(v, tensors)) for k, v in item["d"]]
    return {k if _hashable(k) else str(k): v for k, v in pairs}


def _hashable(key: object) -> bool:
    return key is None or isinstance(key, (str, int, float))
