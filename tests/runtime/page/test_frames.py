"""Frames in shared memory: whole or not given at all, and what is missed is counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import run_python
from helpers.feeds import a_value
from helpers.pages.rings import SHAPE, ring_writer, write
from helpers.waiting import wait_until

from poyo_edge.errors import UsageError
from poyo_edge.runtime import Status
from poyo_edge.runtime.page.ring import layout, memory
from poyo_edge.runtime.page.ring.reader import FrameReader, RingError
from poyo_edge.runtime.page.ring.writer import FrameWriter, RingShape
from poyo_edge.runtime.result import Controlled, Result
from poyo_edge.runtime.rig.settings import LoopCounters
from poyo_edge.trials import Trial


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[FrameWriter]:
    """256 frames of two dimensions and five units."""
    made = FrameWriter(str(tmp_path / "run"), SHAPE)
    yield made
    made.close()


def reader_of(ring: FrameWriter, **arguments: float) -> FrameReader:
    return FrameReader(str(ring.path), **arguments)


def test_a_frame_holds_all_that_was_said(ring: FrameWriter) -> None:
    reader = reader_of(ring)
    ring.note_spikes(np.array([1, 2, 3, 4]), np.array([0, 4, 4, -1], np.int32))
    ring.note_spikes(np.array([5, 6]), np.array([4, 9], np.int32))  # a row that it has no room for
    ring.note_labels(np.array([int(5e8), int(6e8)]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    ring.note_cursor(np.array([int(7e8)]), np.array([[5.0, 6.0, 7.0]]))
    ring.note_trial(Trial(number=3, start=int(4e8), target=(8.0, 9.0), radius=1.2))
    value, counters = a_value(7), LoopCounters(decoded=7, skipped=2, deadline_misses=1)
    own = Controlled(decoded=np.array([9.0, 9.5]), status=Status.WARMUP, ramp=1, assist=0,
                     click=False, held="zeroed")  # fmt: skip
    result = dataclasses.replace(value.result, flags=("zeroed", "of tomorrow"), status=Status.HELD)
    value = dataclasses.replace(value, result=result, control=own)
    ring.write(value, due_ns=15, newest=True, counters=counters)
    (frame,) = reader.read()
    assert frame["value"].tolist() == [1.5, -2.0]
    assert frame["own_value"].tolist() == [9.0, 9.5]
    assert layout.STATUSES[frame["status"]] == "HELD"
    assert layout.STATUSES[frame["decoded_status"]] == "WARMUP"
    assert layout.flags_of(int(frame["flags"])) == ("zeroed", "other")
    assert (frame["seq"], frame["tick"], frame["t_s"], frame["epoch"]) == (7, 10**9, 1.0, 0)
    assert (frame["host_ns"], frame["due_ns"], frame["newest_in_ns"]) == (20, 15, 10)
    assert (frame["in_to_out_ns"], frame["decode_ns"], frame["n_spikes"]) == (10, 5, 7)
    assert frame["silence_s"] == pytest.approx(1 - 999e-9)
    assert (frame["decoded"], frame["skipped"], frame["deadline_misses"]) == (7, 2, 1)
    assert frame["counts"].tolist() == [1, 0, 0, 0, 3]
    assert frame["unknown_spikes"] == 2
    assert (frame["label"].tolist(), frame["label_t_s"]) == ([3.0, 4.0], 0.6)
    assert (frame["cursor"][:3].tolist(), frame["cursor_dims"]) == ([5.0, 6.0, 7.0], 3)
    assert (frame["target"][:2].tolist(), frame["target_dims"]) == ([8.0, 9.0], 2)
    assert (frame["trial"], frame["trial_t_s"], frame["radius"]) == (3, 0.4, 1.2)
    assert (frame["session"], frame["swaps"]) == (b"s", 0)


def test_counts_begin_anew_with_each_frame_and_a_trial_ends(ring: FrameWriter) -> None:
    reader = reader_of(ring)
    ring.note_spikes(np.array([1]), np.array([2], np.int32))
    ring.note_trial(Trial(number=3, start=0, target=(1.0,)))
    write(ring, 1)
    ring.note_trial(Trial(number=2, start=0, end=5))  # of one before: this one goes on
    write(ring, 1)
    ring.note_trial(Trial(number=3, start=0, end=9, target=(1.0,)))
    write(ring, 1, session_id="another")
    frames = reader.read()
    assert frames["counts"].sum(1).tolist() == [1, 0, 0]
    assert frames["trial"].tolist() == [3, 3, -1]
    assert np.isnan(frames["target"][2]).all()
    assert frames["swaps"].tolist() == [0, 0, 1]


def test_more_spikes_than_a_piece_holds_are_all_counted(ring: FrameWriter) -> None:
    reader = reader_of(ring)
    ring.note_spikes(np.arange(10_000), np.full(10_000, 3, np.int32))
    write(ring, 1)
    assert reader.read()["counts"][0].tolist() == [0, 0, 0, 10_000, 0]


def test_a_reader_that_keeps_up_misses_nothing_across_the_wrap(ring: FrameWriter) -> None:
    reader, seen = reader_of(ring), list[int]()
    for first in range(0, 1000, 100):
        write(ring, 100, first=first)
        seen += reader.read(60)["seq"].tolist()
        seen += reader.read()["seq"].tolist()
    assert seen == [*range(1000)]
    assert (reader.lost, reader.torn) == (0, 0)


def test_what_was_written_over_is_counted_and_left_out(ring: FrameWriter) -> None:
    slow, quick = reader_of(ring), reader_of(ring)
    write(ring, 200)
    assert quick.read()["seq"].tolist() == [*range(200)]
    write(ring, 200, first=200)
    found = slow.read()["seq"].tolist()
    assert found == [*range(145, 400)]  # the oldest of 256 slots may be written over any moment
    assert slow.lost == 400 - len(found)
    assert (quick.read()["seq"].tolist(), quick.lost) == ([*range(200, 400)], 0)


def test_a_reader_that_comes_late_sees_what_there_is_of_before(ring: FrameWriter) -> None:
    write(ring, 100)
    assert reader_of(ring).read()["seq"].tolist() == []
    assert reader_of(ring, back_s=0.5).read()["seq"].tolist() == [*range(75, 100)]
    assert reader_of(ring, back_s=60.0).read()["seq"].tolist() == [*range(100)]
    write(ring, 300, first=100)
    late = reader_of(ring, back_s=60.0)
    assert late.read()["seq"].tolist() == [*range(145, 400)]


def test_half_a_frame_is_never_given(ring: FrameWriter) -> None:
    write(ring, 3)
    reader = reader_of(ring, back_s=1.0)
    ring._frames["sequence"][1] = 2 * 1 + 1  # as while it is written
    assert reader.read()["seq"].tolist() == [0]
    assert reader.read()["seq"].tolist() == []
    ring._frames["sequence"][1] = 2 * 1 + 2
    assert reader.read()["seq"].tolist() == [1, 2]
    assert (reader.lost, reader.torn) == (0, 0)


def test_a_frame_whose_bytes_are_of_two_is_noticed_by_its_check(ring: FrameWriter) -> None:
    write(ring, 2)
    reader = reader_of(ring, back_s=1.0)
    ring._frames["value"][1] = 7.0  # with the sequence of a whole one, as stores seen out of order
    assert reader.read()["seq"].tolist() == [0]
    write(ring, 256, first=2)
    assert 1 not in reader.read()["seq"].tolist()
    assert reader.lost >= 1


@pytest.mark.slow
def test_a_busy_writer_gives_no_reader_a_frame_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with ring_writer(path) as writer:
        readers = [FrameReader(str(path)), FrameReader(str(path))]
        writer.put("busy")
        seen, until = 0, time.monotonic() + 1.0
        while time.monotonic() < until:
            for reader in readers:
                frames = reader.read()
                numbers = frames["value"][:, 0]
                assert (numbers == -frames["value"][:, 1]).all()
                assert (numbers == frames["seq"]).all()
                assert (np.diff(frames["seq"]) > 0).all()
                seen += len(frames)
        assert seen
        for reader in readers:
            reader.read()
            assert reader.next <= reader.written


@pytest.mark.slow
@pytest.mark.parametrize("within_a_frame", [False, True])
def test_a_writer_that_is_killed_is_noticed(tmp_path: Path, within_a_frame: bool) -> None:
    path = tmp_path / "run"
    with ring_writer(path) as writer:
        reader = FrameReader(str(path))
        writer.put()
        assert reader.alive
        assert reader.read()["seq"].tolist() == [0]
        if within_a_frame:
            writer.put("half")
        assert reader.read()["seq"].tolist() == []
        assert reader.torn == 0, "it may go on"
        writer.kill()
        wait_until(lambda: not reader.alive)
        assert not reader.alive
        assert reader.read()["seq"].tolist() == []
        assert reader.torn == within_a_frame
        assert path.exists(), "what was written stays to be read"
        again = FrameWriter(str(path), SHAPE)  # the name is free for the next run
        assert reader.replaced
        again.close()


def test_a_clean_end_takes_the_name_away_and_leaves_what_was_read(ring: FrameWriter) -> None:
    reader = reader_of(ring)
    write(ring, 2)
    ring.close()
    ring.close()
    assert not ring.path.exists()
    assert not reader.alive
    assert not reader.replaced
    assert reader.read()["seq"].tolist() == [0, 1]
    with pytest.raises(UsageError, match="expected the ring of a run, got none that can be opened"):
        reader_of(ring)


def test_names_of_others_are_refused(ring: FrameWriter, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a name that nobody writes to"):
        FrameWriter(str(ring.path), SHAPE)
    other = tmp_path / "other"
    other.write_text("a letter")
    with pytest.raises(UsageError, match="which is no ring"):
        FrameWriter(str(other), SHAPE)
    assert other.read_text() == "a letter"
    with pytest.raises(UsageError, match="cannot be written"):
        FrameWriter(str(tmp_path / "no" / "folder"), SHAPE)
    with pytest.raises(UsageError, match="expected a name like poyo-edge-1"):
        memory.path_of(".hidden")
    assert ring.path.stat().st_mode & 0o777 == 0o600


def test_names_count_up_past_those_that_are_written(monkeypatch: pytest.MonkeyPatch,
                                                    tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr(memory, "FOLDER", tmp_path)
    first = FrameWriter(memory.free_name(), SHAPE)
    second = FrameWriter(memory.free_name(), SHAPE)
    assert memory.running() == ["poyo-edge-1", "poyo-edge-2"]
    first.close()
    assert (memory.running(), memory.free_name()) == (["poyo-edge-2"], "poyo-edge-1")
    second.close()


def test_another_version_is_refused_with_both(ring: FrameWriter) -> None:
    ring._head["version"] = 9
    with pytest.raises(RingError, match="version: expected 1, got 9"):
        reader_of(ring)


@pytest.mark.parametrize("field", ["magic", "slots", "frame_bytes", "dims", "state_at"])
def test_a_head_that_contradicts_itself_is_refused(ring: FrameWriter, field: str) -> None:
    ring._head[field] = 1
    with pytest.raises(RingError, match="expected"):
        reader_of(ring)


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"POYORING")
    with pytest.raises(RingError, match="size: expected >= 4096 bytes, got 8"):
        FrameReader(str(tmp_path / "short"))


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="dimensions"):
        RingShape(dims=0, units=1, rate_hz=50, tick_rate_hz=1, window_s=1)
    with pytest.raises(UsageError, match="windows per second"):
        RingShape(dims=1, units=1, rate_hz=0, tick_rate_hz=1, window_s=1)


def test_the_state_is_the_newest_whole_one(ring: FrameWriter) -> None:
    reader = reader_of(ring)
    assert reader.state() == (0, {})
    ring.state.put({"a": 1, "b": ["é"]})
    ring.state.put({"a": 2})
    assert reader.state() == (2, {"a": 2})
    at = int(reader.head["state_at"])
    ring.state._memory[at + 16] ^= 1  # the second was being written when its writer died
    assert reader.state() == (1, {"a": 1, "b": ["é"]})
    with pytest.raises(UsageError, match=r"bytes of JSON, got .* of which 'long' takes"):
        ring.state.put({"short": 1, "long": "x" * layout.STATE_BYTES})
    assert reader.state()[0] == 1


def test_every_flag_that_a_value_may_carry_has_a_bit() -> None:
    assert Result.__doc__
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(layout.__file__).parents[2].rglob("result.py")
    )
    for name in layout.FLAGS:
        assert layout.flags_of(layout.bits_of([name])) == (name,)
    named = source.partition("warmup, silent")[2].partition('"""')[0]
    words = {word.strip("`.,;\n ") for word in named.replace("``", " ").split()}
    assert {"fallback", "zeroed", "clock_rate"} <= words
    assert {word for word in words if "_" in word} <= {*layout.FLAGS}


@pytest.mark.slow
def test_who_reads_needs_nothing_that_decodes(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from poyo_edge.runtime.page.ring.reader import FrameReader\n"
        "print([m for m in ('onnxruntime', 'torch', 'onnx', 'typer', 'bokeh', 'poyo_edge.model')"
        " if m in sys.modules])"
    )
    done = run_python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
