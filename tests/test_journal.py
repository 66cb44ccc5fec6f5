"""A journal loses nothing that was written, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.damage import flip_bit
from helpers.waiting import wait_until

from poyo_edge.cli.commands.inspect import inspect_text
from poyo_edge.converting import convert
from poyo_edge.errors import RecordingError, UsageError
from poyo_edge.inspecting import inspect_path
from poyo_edge.journal import (
    Controlled,
    Cursor,
    Decoded,
    Journal,
    JournalHeader,
    JournalWriter,
    Labels,
    Spikes,
    TrialTold,
)
from poyo_edge.journal.frames import TRIAL, framed
from poyo_edge.recording import Recording
from poyo_edge.trials import Trial

HEADER = JournalHeader(
    session_id="s", unit_ids=("s/a", "s/b"), tick_rate_hz=1000.0, behavior="cursor.vel"
)


def write(path: Path, n_chunks: int = 5, epochs: int = 1) -> Path:
    writer = JournalWriter(path, HEADER)
    for epoch in range(epochs):
        for i in range(n_chunks):
            ticks = np.arange(20 * i, 20 * i + 20, 4, dtype=np.int64)
            writer.spikes(i, epoch, ticks, np.array([0, 1, 0, -1, 1], np.int32))
            writer.decoded(20 * i + 20, i, "VALID", 5, np.array([i, -i], np.float64))
            writer.labels(epoch, np.array([20 * i + 20]), np.array([[1.0, 2.0]]))
    writer.event(clock="done")
    writer.close()
    return path


def test_entries_come_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(write(tmp_path / "a.journal"))
    entries = list(journal.entries())
    assert journal.header == HEADER
    kinds = [type(entry) for entry in entries]
    assert kinds == [Spikes, Decoded, Labels] * 5 + [dict]
    spikes, decoded, labels = entries[3:6]
    assert isinstance(spikes, Spikes)
    assert isinstance(decoded, Decoded)
    assert isinstance(labels, Labels)
    assert spikes.ticks.tolist() == [20, 24, 28, 32, 36]
    assert spikes.rows.tolist() == [0, 1, 0, -1, 1]
    assert (decoded.tick, decoded.status, decoded.value.tolist()) == (40, "VALID", [1.0, -1.0])
    assert labels.values.tolist() == [[1.0, 2.0]]
    assert journal.bytes_left_out == 0


def test_a_journal_that_ends_anywhere_keeps_every_whole_frame(tmp_path: Path) -> None:
    data = write(tmp_path / "a.journal", 2).read_bytes()
    whole = list(Journal(tmp_path / "a.journal").entries())
    cut, counts = tmp_path / "cut.journal", []
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            counts.append(len(list(Journal(cut).entries())))
        except RecordingError as error:
            assert "expected a journal" in str(error)
            assert counts == []
    assert counts == sorted(counts)
    assert counts[-1] == len(whole) - 1


def test_a_flipped_bit_ends_the_journal_before_its_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.journal", 3)
    n_before = len(list(Journal(path).entries()))
    flip_bit(path, -40)
    journal = Journal(path)
    assert 0 < len(list(journal.entries())) < n_before
    assert journal.bytes_left_out > 0


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = JournalWriter(tmp_path / "a.journal", HEADER)
    with pytest.raises(UsageError, match="never written over"):
        JournalWriter(tmp_path / "a.journal", HEADER)
    first.close()
    first.close()


@pytest.mark.parametrize("taken", [0, 7])
def test_a_full_disk_keeps_what_was_written_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.spikes(0, 0, np.array([1]), np.array([0], np.int32))
    real = os.write

    def full(file: int, data: bytes) -> int:
        if taken:
            return real(file, data[:taken])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("poyo_edge.journal.writing.os.write", full)
    for _ in range(3):
        writer.spikes(0, 0, np.array([2]), np.array([0], np.int32))
    monkeypatch.undo()
    writer.spikes(0, 0, np.array([3]), np.array([0], np.int32))
    writer.close()
    assert writer.lost_frames == 4
    assert writer.error is not None
    journal = Journal(tmp_path / "a.journal")
    assert [entry.ticks.tolist() for entry in journal.entries() if isinstance(entry, Spikes)] == [
        [1]
    ]
    assert journal.bytes_left_out == 0


def deleted(path: Path) -> None:
    path.unlink()


def moved_and_replaced(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())


def truncated(path: Path) -> None:
    os.truncate(path, 12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (deleted, "its file was deleted or moved"),
        (moved_and_replaced, "its file was replaced by another"),
        (truncated, "its file was truncated: expected "),
    ],
)
def test_a_file_that_is_taken_away_is_noticed_at_a_flush_and_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], None],
    said: str,
) -> None:
    monkeypatch.setattr("poyo_edge.journal.writing._FLUSH_S", 0.01)
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.spikes(0, 0, np.array([1]), np.array([0], np.int32))
    assert writer.error is None
    change(writer.path)
    wait_until(lambda: writer.error)
    writer.spikes(0, 0, np.array([2]), np.array([0], np.int32))
    writer.close()
    assert said in str(writer.error)
    assert writer.lost_frames == 1
    assert [said in record.message for record in caplog.records] == [True]
    assert "nothing is recorded from here on" in caplog.text


@pytest.mark.parametrize(
    "payload",
    [
        b"?",
        b"[]",
        b'{"trial": {"number": 1, "start": 5}}',
        b'{"epoch": 0}',
        b'{"epoch": 0, "trial": 3}',
        b'{"epoch": 0, "trial": {"number": 1, "start": 5, "end": 4}}',
    ],
)
def test_a_trial_that_no_writer_writes_is_damage(tmp_path: Path, payload: bytes) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.trial(0, Trial(number=1, start=5, end=9))
    writer.cursor(0, np.array([5]), np.array([[1.0, 2.0]]))
    writer.close()
    with writer.path.open("ab") as file:
        file.write(framed(TRIAL, payload))
    journal = Journal(writer.path)
    assert [type(one) for one in journal.entries()] == [TrialTold, Cursor]
    assert journal.damaged


def test_a_killed_process_loses_no_frame_that_it_wrote(tmp_path: Path) -> None:
    code = (
        "import numpy as np, sys\n"
        "from poyo_edge.journal import JournalHeader, JournalWriter\n"
        f"writer = JournalWriter({str(tmp_path / 'a.journal')!r}, "
        "JournalHeader(session_id='s', unit_ids=('a',), tick_rate_hz=1.0))\n"
        "for i in range(100):\n"
        "    writer.spikes(0, 0, np.array([i]), np.array([0], np.int32))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
    assert len(list(Journal(tmp_path / "a.journal").entries())) == 100


def test_a_journal_opens_as_a_recording(tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    values = convert(write(tmp_path / "a.journal"), out)
    recording = Recording.open(out)
    assert recording.unit_ids == ("s/a", "s/b")
    assert len(recording.spike_times) == 20
    assert recording.spike_times[0] == 0.0
    assert set(recording.behaviors) == {"cursor.vel", "decoded.status", "decoded.value"}
    decoded = recording.behavior("decoded.value")
    assert decoded.times.tolist() == [0.02, 0.04, 0.06, 0.08, 0.1]
    assert decoded.values[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert values["session_id"] == "s"


@pytest.mark.parametrize("with_values", [False, True])
def test_labels_of_another_width_do_not_cost_the_journal(tmp_path: Path, with_values: bool) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.spikes(0, 0, np.arange(0, 100, 4, dtype=np.int64), np.zeros(25, np.int32))
    if with_values:
        writer.decoded(50, 0, "VALID", 5, np.array([1.0]))
    writer.labels(0, np.array([4, 6]), np.array([[9.0], [9.0]]))
    for i in range(1, 20):
        writer.labels(0, np.array([5 * i]), np.array([[1.0, 2.0]]))
    writer.close()
    made = convert(tmp_path / "a.journal", tmp_path / "a.h5")
    left_out, kept = ((19, 1), (2, 1)) if with_values else ((2, 2), (19, 2))
    assert f"{left_out[0]} labels do not have {left_out[1]} dimensions: left out" in made["notes"]
    labels = Recording.open(tmp_path / "a.h5").behavior("cursor.vel")
    assert labels.values.reshape(len(labels.times), -1).shape == kept


def test_inspect_knows_a_journal(tmp_path: Path) -> None:
    values = inspect_path(write(tmp_path / "a.journal", 3))
    kept = ("kind", "session_id", "n_units", "spike_chunks", "values", "label_chunks", "events")
    assert [values[name] for name in kept] == ["journal", "s", 2, 3, 3, 3, 1]


def test_inspect_tells_what_was_done_while_it_ran(tmp_path: Path) -> None:
    """Every frame that a rig writes is known, those of commands too."""
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.event(clock="begun")
    for i in range(3):
        # the device's clock begins anew with the third
        writer.decoded(
            500 * (i % 2), i * 500_000_000, "DEGRADED", 5, np.zeros(2), flags=["drift"] if i else []
        )
        writer.controlled(Controlled(
            tick=500 * i, status="VALID", value=np.zeros(2), ramp=1.0, assist=0.0, click=False,
            held="paused",
        ))  # fmt: skip
    writer.event(command="mark", text="new electrode\x1b[2J")
    writer.close()
    values = inspect_path(tmp_path / "a.journal")
    assert (values["values"], values["controlled_values"], values["events"]) == (3, 3, 2)
    assert values["values_with_flag"] == {"drift": 2}
    assert [event["after_s"] for event in values["told"]] == [None, 1.0]
    assert values["told"][1]["text"] == "new electrode\x1b[2J"
    text = inspect_text(values)
    assert "1.0 s" in text
    assert "new electrode" in text
    assert "\x1b" not in text


def test_of_many_events_the_last_are_shown(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    for i in range(1002):
        writer.event(feed="problem", said=f"number {i}")
    writer.close()
    values = inspect_path(tmp_path / "a.journal")
    assert values["events"] == 1002
    assert len(values["told"]) == 1000
    text = inspect_text(values)
    assert "number 1001" in text
    assert len(text.splitlines()) < 50


def test_two_clocks_of_one_journal_follow_each_other(tmp_path: Path) -> None:
    values = convert(write(tmp_path / "a.journal", epochs=2), tmp_path / "a.h5")
    recording = Recording.open(tmp_path / "a.h5")
    assert np.diff(recording.spike_times).max() == pytest.approx(2.0, abs=0.01)
    assert any("began anew 1 times" in note for note in values["notes"])


FRAMES = {
    "spikes cut short": (1, b"ab"),
    "fewer spikes than said": (1, struct.pack("<qII", 0, 0, 9)),
    "a value cut short": (2, b""),
    "an unknown status": (2, struct.pack("<qqIIH6x", 0, 0, 77, 1, 0)),
    "fewer labels than said": (3, struct.pack("<IIHxx", 0, 1 << 31, 2)),
    "a controlled value cut short": (9, b"ab"),
    "an unknown reason to hold": (9, struct.pack("<qIffBBH", 0, 0, 1.0, 0.0, 0, 9, 0)),
    "an event that is no JSON": (4, b"{"),
    "an event that is no object": (4, b"[]"),
    "an event without an end": (4, b"[" * 200_000),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_whole_frame_that_is_none_of_ours_ends_the_journal(tmp_path: Path, name: str) -> None:
    kind, payload = FRAMES[name]
    path = write(tmp_path / "a.journal", 3)
    size = path.stat().st_size
    frame = struct.pack("<BxxxII", kind, len(payload), zlib.crc32(payload)) + payload
    path.write_bytes(path.read_bytes() + frame * 2)
    values = inspect_path(path)
    assert (values["spike_chunks"], values["bytes_left_out"]) == (3, 2 * len(frame))
    assert path.stat().st_size == size + values["bytes_left_out"]
    assert convert(path, tmp_path / "a.h5")["notes"]


HEADERS: dict[str, list[object]] = {
    "unit_ids": [5, "ab", [1], ["a", "a"], {"a": 1}, ["\ud800"], ["a\0"]],
    "tick_rate_hz": [0, -5.0, None, "x", 10**400, float("nan"), float("inf"), True],
    "session_id": [5, None, [1], "\ud800"],
    "behavior": [5, "\ud800.x"],
}


@pytest.mark.parametrize("field", HEADERS)
def test_a_journal_that_says_what_cannot_be_is_refused(tmp_path: Path, field: str) -> None:
    for value in HEADERS[field]:
        payload = json.dumps({**HEADER.to_json(), field: value}).encode()
        frame = struct.pack("<BxxxII", 0, len(payload), zlib.crc32(payload)) + payload
        (tmp_path / "a.journal").write_bytes(b"POYOJRN1" + frame)
        with pytest.raises(RecordingError, match=f"header: .*{field}: expected"):
            Journal(tmp_path / "a.journal")


def test_values_of_another_width_are_left_out_and_said(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.spikes(0, 0, np.array([0, 500, 5000]), np.array([0, 1, 0], np.int32))
    writer.spikes(0, 0, np.empty(0, np.int64), np.empty(0, np.int32))
    for i, width in enumerate((2, 2, 3)):
        writer.decoded(100 * i, 0, "VALID", 5, np.ones(width))
    writer.close()
    values = convert(tmp_path / "a.journal", tmp_path / "a.h5")
    assert Recording.open(tmp_path / "a.h5").behavior("decoded.value").values.shape == (2, 2)
    assert "1 values do not have 2 dimensions: left out" in values["notes"]


def test_times_that_cannot_be_meant_are_refused_before_an_index_of_them(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", HEADER)
    writer.spikes(0, 0, np.array([0, 1 << 61]), np.array([0, 1], np.int32))
    writer.close()
    with pytest.raises(RecordingError, match="at most 10000000 s from first to last"):
        convert(tmp_path / "a.journal", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("data", [b"", b"POYOJRN1", b"POYOJRN1" + b"\xff" * 40, b"something"])
def test_other_files_are_no_journals(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.journal").write_bytes(data)
    with pytest.raises(RecordingError, match="expected a journal"):
        Journal(tmp_path / "a.journal")
