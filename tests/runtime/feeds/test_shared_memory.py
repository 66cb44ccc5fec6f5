"""The newest value in shared memory: one writer, any number of readers, killed or not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from helpers.commands import WITH_HELPERS, run_python
from helpers.feeds import a_value

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.shared_memory import SharedMemorySink, read_shared


def test_shared_memory_holds_the_newest_value() -> None:
    name = f"poyo_edge_test_{threading.get_native_id()}"
    sink = SharedMemorySink(name, 2)
    try:
        assert read_shared(name)[0] == 0
        sink(a_value())
        sink(a_value(2))
        count, t, status, value = read_shared(name)
        assert (count, t, status, value.tolist()) == (2, 1.0, "VALID", [1.5, -2.0])
        with pytest.raises(UsageError, match="a name that nobody writes to"):
            SharedMemorySink(name, 2)
        with pytest.raises(UsageError, match="a name for a file in /dev/shm"):
            SharedMemorySink("no_such_folder/x", 2)
    finally:
        sink.close()
    with pytest.raises(FileNotFoundError):
        read_shared(name)


def test_shared_memory_of_a_killed_run_is_taken_over() -> None:
    name = f"poyo_edge_killed_{threading.get_native_id()}"
    path = Path("/dev/shm") / name
    code = (
        "import os, sys; from helpers.feeds import a_value\n"
        "from poyo_edge.runtime.feeds.shared_memory import SharedMemorySink\n"
        "sink = SharedMemorySink(sys.argv[1], 2); sink(a_value()); os.kill(os.getpid(), 9)"
    )
    try:
        done = run_python(code, name, environment=WITH_HELPERS)
        assert done.returncode == -9
        assert read_shared(name)[0] == 1
        with pytest.raises(UsageError, match=r"expected a file of 56 bytes .* got one of 48; give"):
            SharedMemorySink(name, 3)
        sink = SharedMemorySink(name, 2)
        assert read_shared(name)[0] == 1, "readers go on"
        sink(a_value())
        assert read_shared(name)[0] == 2
        sink.close()
        path.write_bytes(b"of somebody else")
        with pytest.raises(UsageError, match="got one of 16"):
            SharedMemorySink(name, 2)
        assert path.read_bytes() == b"of somebody else"
    finally:
        path.unlink(missing_ok=True)
