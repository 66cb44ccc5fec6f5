"""The newest value in shared memory: one writer, any number of readers, killed or not."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import struct
import threading
import time
from pathlib import Path

import pytest
from helpers.commands import WITH_HELPERS, run_python
from helpers.feeds import a_name, a_value, shared_writer
from helpers.waiting import wait_until

from poyo_edge.errors import UsageError
from poyo_edge.runtime.feeds.shared_memory import (
    SharedMemorySink,
    read_shared,
    read_shared_value,
)

HOUR_NS = 3_600_000_000_000


def test_a_value_stands_until_its_time_is_over() -> None:
    with a_name("age") as name:
        sink = SharedMemorySink(name, 2)
        assert not read_shared_value(name).stands, "there is none"
        now = time.monotonic_ns()
        fresh = dataclasses.replace(a_value(), host_ns=now, valid_until_ns=now + HOUR_NS)
        sink(fresh)
        found = read_shared_value(name)
        assert (found.stands, found.writer_alive, found.status) == (True, True, "VALID")
        assert (found.host_ns, found.valid_until_ns) == (now, now + HOUR_NS)
        assert 0 <= found.age_s < 60
        assert read_shared(name)[2] == "VALID"
        sink(dataclasses.replace(fresh, valid_until_ns=now))
        found = read_shared_value(name)
        assert (found.stands, found.writer_alive, found.status) == (False, True, "VALID")
        assert read_shared(name)[::2] == (2, "INVALID")
        sink(a_value())
        assert read_shared_value(name).stands, "nobody says until when"
        with (Path("/dev/shm") / name).open("rb") as kept:
            sink.close()
            assert struct.unpack_from("<I", kept.read(), 24) == (4,), "INVALID at a clean end"


@pytest.mark.parametrize("while_it_writes", [False, True])
def test_the_last_value_of_a_killed_process_does_not_stand(while_it_writes: bool) -> None:
    with a_name("dead") as name, shared_writer(name, valid_for_s=3600) as writer:
        writer.put(half=False)
        assert read_shared_value(name).stands
        assert read_shared(name)[2] == "VALID"
        if while_it_writes:
            writer.put(half=True)
        os.kill(writer.pid, signal.SIGKILL)
        wait_until(lambda: not read_shared_value(name).writer_alive)
        found = read_shared_value(name)
        assert (found.stands, found.count) == (False, 1)
        assert read_shared(name)[2] == "INVALID"


def test_readers_of_the_older_layout_and_files_of_older_versions_still_do() -> None:
    head = struct.Struct("<QqdII")
    with a_name("old") as name:
        path = Path("/dev/shm") / name
        path.write_bytes(head.pack(6, 5, 1.5, 0, 2) + struct.pack("<2d", 3.0, 4.0))
        found = read_shared_value(name)
        assert (found.count, found.valid_until_ns, found.stands) == (3, 0, False)
        assert found.value.tolist() == [3.0, 4.0]
        sink = SharedMemorySink(name, 2)
        assert read_shared(name)[::2] == (3, "VALID")
        sink(dataclasses.replace(a_value(), valid_until_ns=7))
        data = path.read_bytes()
        assert head.unpack_from(data) == (8, 20, 1.0, 0, 2)
        assert struct.unpack_from("<2dq", data, 32) == (1.5, -2.0, 7)
        sink.close()


def test_a_reader_that_looks_for_a_writer_does_not_keep_one_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_name("busy") as name, (Path("/dev/shm") / name).open("wb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(reader, fcntl.LOCK_UN))
        SharedMemorySink(name, 2).close()


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
        with pytest.raises(UsageError, match=r"expected a file of 64 bytes .* got one of 56; give"):
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
