"""Calls a function in a process of its own, within limits of memory and time.

For files that nobody vouches for, on which a library may ask for gigabytes, run on, or crash: that
ends the child and not the program.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Literal

from poyo_edge import errors

_WAIT = 10
"""Times the processor time: no longer is waited for a child that sleeps."""
_MOST_TOLD = 4000
"""Characters of what a child said that are passed on."""
_GRACE_S = 2
"""Seconds of a processor between the signal that says so and the end."""
_OF_MEMORY = 77
"""Exit code of a child that was given no more memory."""
_START = (
    "import sys; sys.path[:] = filter(None, sys.path); from importlib import import_module; "
    "import_module({module!r}).main()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def python_command(module: str, *arguments: str) -> list[str]:
    """What calls ``main`` of a module in a new interpreter, with ``arguments`` in ``sys.argv[1:]``.

    ``python -m`` would look into the current folder before anywhere else, and a stranger's
    ``json.py`` may have come into it beside his checkpoint.
    """
    return [sys.executable, "-c", _START.format(module=module), *arguments]


End = Literal["time", "memory", "crash", "waiting"]


class BeyondLimitsError(Exception):
    """The child took more than its limits, or died.

    Attributes:
        how: "time" of a processor, "memory", "crash" for any other signal, or "waiting": it used
            little of a processor and had not ended all the same, as on a busy machine.
    """

    def __init__(self, how: End) -> None:
        super().__init__(how)
        self.how: End = how


def call_confined(function: str, arguments: dict[str, Any], *, seconds: int, memory: int) -> Any:
    """What a function returns, as JSON values.

    Args:
        function: "module:name"; the child imports it.
        arguments: by name, JSON values.
        seconds: of a processor, beyond what the child has used when it has imported the module.
        memory: bytes, beyond what it has then.

    Raises:
        BeyondLimitsError: it took more, or died.
        PoyoEdgeError: what the function raised, with the same class, message and fields.
        RuntimeError: the function, or the start of the child, failed in a way that nobody meant;
            its traceback.
    """
    command = python_command(__name__, function, str(seconds), str(memory))
    try:
        done = subprocess.run(
            command,
            input=json.dumps(arguments).encode(),
            capture_output=True,
            timeout=_WAIT * seconds,
            env={**os.environ, **_ONE_THREAD},
        )
    except subprocess.TimeoutExpired:
        raise BeyondLimitsError("waiting") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise _end_of(done.returncode, done.stderr) from None
    if "result" in answer:
        return answer["result"]
    if "bug" in answer:
        raise RuntimeError(answer["bug"])
    cls = getattr(errors, answer["error"], errors.PoyoEdgeError)
    error = cls.__new__(cls, answer["message"])
    error.__dict__.update(answer["fields"])
    raise error


def _end_of(code: int, told: bytes) -> Exception:
    """What became of a child without an answer."""
    if code == _OF_MEMORY or b"MemoryError" in told:
        return BeyondLimitsError("memory")
    if code > 0 and b"Traceback" in told:
        return RuntimeError(told.decode(errors="replace")[-_MOST_TOLD:])
    # SIGKILL comes from a system that is out of memory; of processor time SIGXCPU tells before.
    ends: dict[int, End] = {signal.SIGXCPU: "time", signal.SIGKILL: "memory"}
    return BeyondLimitsError(ends.get(-code, "crash"))


def main() -> None:
    """The child: one call with what is on stdin, its answer on stdout."""
    function, seconds, memory = sys.argv[1:]
    arguments = json.load(sys.stdin)
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print do not get into the answer
    _limit(int(seconds), int(memory))
    try:
        answer = {"result": called(**arguments)}
    except errors.PoyoEdgeError as error:
        fields = {name: str(value) for name, value in vars(error).items()}
        answer = {"error": type(error).__name__, "message": str(error), "fields": fields}
    except MemoryError:
        os._exit(_OF_MEMORY)
    except Exception:
        answer = {"bug": traceback.format_exc()}
    out.write(json.dumps(answer))
    out.flush()


def _limit(seconds: int, memory: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    seconds += math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + _GRACE_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
