"""A journal of a loop is decoded again, and says where it does not come out the same."""

from __future__ import annotations

import dataclasses
import json
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.calibrating.teacher import lesson, of_another_core
from helpers.commands import run, run_json
from helpers.damage import flip_bit
from helpers.paths import DATA, TINY
from helpers.waiting import PATIENCE_S

from poyo_edge.artifact import Artifact
from poyo_edge.converting import convert
from poyo_edge.errors import BackendError, UsageError
from poyo_edge.journal import (
    DECODED,
    MAGIC,
    NOTE,
    START,
    Decoded,
    Journal,
    JournalHeader,
    JournalWriter,
    Spikes,
    swap_of,
)
from poyo_edge.recording import Recording
from poyo_edge.runtime import Decoder
from poyo_edge.runtime.checks.again import Again, verify_journal
from poyo_edge.runtime.rig.device_clock import DeviceClock
from poyo_edge.runtime.rig.loop import DecodeLoop
from poyo_edge.runtime.rig.settings import LoopSettings

RATE, STEP = 32_000, 500
S = 1_000_000_000
LAST = 160
At = dict[int, Callable[[DecodeLoop], None]]


class HandClock:
    """A host's clock that moves when told."""

    ns = 100 * S

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, ns: int, stop: threading.Event) -> None:
        raise NotImplementedError


def recorded(path: Path, at: At | None = None, *, names: bool = False, **opened: Any) -> Path:
    """The journal of 2.5 s at 64 Hz; ``at`` says what happens before a packet.

    Every packet's spikes are of the session in use, by row or by name.
    """
    decoder = Decoder.open(TINY, **({"session": "tiny_a"} | opened), tick_rate_hz=RATE)
    header = JournalHeader(session_id="s", unit_ids=decoder.unit_ids, tick_rate_hz=RATE)
    writer, host, rng = JournalWriter(path, header), HandClock(), np.random.default_rng(0)
    loop = DecodeLoop(
        decoder, DeviceClock(RATE), settings=LoopSettings(rate_hz=64), journal=writer, host=host
    )
    for number in range(1, LAST):
        if at is not None and number in at:
            at[number](loop)
        host.ns = 100 * S + number * S // 64
        ticks = np.sort(rng.integers((number - 1) * STEP, number * STEP, 8))
        ticks[-1] = number * STEP - 1
        rows = rng.integers(0, len(decoder.unit_ids), 8).astype(np.int32)
        units: npt.NDArray[Any] = rows
        if names:
            ids = [*decoder.unit_ids, "zz", "yy"]
            units = np.array(ids)[rng.integers(0, len(ids), 8)]
        loop.feed(ticks, units, sync={"frame": number} if number % 2 else None)
        loop.step()
    writer.close()
    return path


def swap(session: Any) -> Callable[[DecodeLoop], None]:
    return lambda loop: loop.decoder.swap_session(session)


def revert(loop: DecodeLoop) -> None:
    loop.decoder.revert()


def there_and_back(loop: DecodeLoop) -> None:
    """Spikes of units that the session between has not are forgotten."""
    loop.decoder.swap_session("tiny_b")
    loop.decoder.swap_session("tiny_a")


def reset(loop: DecodeLoop) -> None:
    """As a clock that begins anew does."""
    loop._begin_epoch(loop.clock.device_now(loop._host.now_ns()))


def changed(path: Path, number: int, by: Callable[[bytes], bytes], kind: int = DECODED) -> None:
    """Another payload for one frame of a kind, with the checksum that belongs to it."""
    data, place, out, seen = path.read_bytes(), len(MAGIC), [MAGIC], 0
    while place < len(data):
        found, length, _ = struct.unpack_from("<BxxxII", data, place)
        payload = data[place + 12 : place + 12 + length]
        seen += found == kind
        if found == kind and seen == number:
            payload = by(payload)
        out.append(struct.pack("<BxxxII", found, len(payload), zlib.crc32(payload)) + payload)
        place += 12 + length
    path.write_bytes(b"".join(out))


def added(amount: float) -> Callable[[bytes], bytes]:
    """To the last dimension of a value."""
    return lambda payload: (
        payload[:-8] + struct.pack("<d", struct.unpack("<d", payload[-8:])[0] + amount)
    )


def of_core(name: str) -> Callable[[bytes], bytes]:
    return lambda payload: json.dumps({**json.loads(payload), "core": name}).encode()


def detail(again: Again, name: str = "values") -> str:
    return next(check.detail for check in again.checks if check.name == name)


def test_swaps_and_resets_are_decoded_again_to_the_same_bits(tmp_path: Path) -> None:
    """Also two swaps between two packets, and the way back."""
    path = recorded(
        tmp_path / "a.journal",
        {
            40: swap("tiny_b"),
            70: revert,
            100: there_and_back,
            120: reset,
        },
    )
    again = verify_journal(path, TINY)
    assert again.ok, again.checks
    assert again.exact
    assert again.backend == "ort-cpu"
    assert again.values == again.equal > 150
    assert (again.differ, again.within, again.not_decoded, again.swaps) == (0, 0, 0, 4)
    assert detail(again, "journal") == "every frame is whole"


def test_a_swap_stands_before_the_first_that_used_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped while a chunk is on its way to the journal, it comes behind that chunk."""

    def late(loop: DecodeLoop) -> None:
        push = loop.decoder.push

        def then_swap(ticks: Any, rows: Any) -> None:
            push(ticks, rows)
            loop.decoder.swap_session("tiny_b")
            monkeypatch.setattr(loop.decoder, "push", push)

        monkeypatch.setattr(loop.decoder, "push", then_swap)

    path = recorded(tmp_path / "a.journal", {30: late})
    entries = Journal(path).entries()
    seen = ["swap" if swap_of(entry) else type(entry).__name__ for entry in entries]
    place = seen.index("swap")
    assert seen[place - 1 : place + 2] == ["Spikes", "swap", "Decoded"]
    assert verify_journal(path, TINY).ok


def test_swaps_from_another_thread_stand_where_they_were_used(tmp_path: Path) -> None:
    """Whenever they come, between a push and its frame or in the middle of a decode."""
    stop, threads = threading.Event(), list[threading.Thread]()

    def swap_for_ever(loop: DecodeLoop) -> None:
        while not stop.wait(1e-4):
            loop.decoder.swap_session("tiny_b")
            stop.wait(1e-4)
            loop.decoder.revert()

    def begin(loop: DecodeLoop) -> None:
        threads.append(threading.Thread(target=swap_for_ever, args=(loop,), daemon=True))
        threads[0].start()

    def end(_: DecodeLoop) -> None:
        stop.set()
        threads[0].join(PATIENCE_S)

    again = verify_journal(recorded(tmp_path / "a.journal", {10: begin, LAST - 1: end}), TINY)
    assert again.ok, again.checks
    assert again.equal == again.values
    assert again.swaps > 5


def test_a_journal_says_what_it_was_decoded_with(tmp_path: Path) -> None:
    journal = Journal(recorded(tmp_path / "a.journal", {40: swap("tiny_b")}))
    artifact = Artifact.open(TINY)
    assert journal.start is not None
    assert journal.start["core"] == artifact.manifest.core_hash
    session = artifact.session("tiny_a")
    assert journal.start["session"] == {"session_id": "tiny_a", "sha256": session.digest}
    assert (journal.start["backend"], journal.start["precision"]) == ("ort-cpu", "fp32")
    (swapped,) = [one for entry in journal.entries() if (one := swap_of(entry))]
    assert swapped.session_id == "tiny_b"
    assert swapped.sha256 == artifact.session("tiny_b").digest != session.digest


def test_each_value_has_its_flags_and_its_sync(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    values = [one for one in Journal(path).entries() if isinstance(one, Decoded)]
    assert (values[0].flags, values[-1].flags) == (("warmup", "unverified"), ("unverified",))
    assert [one.sync["frame"] for one in values[2:6]] in ([3, 3, 5, 5], [3, 5, 5, 7])


def test_units_that_no_session_has_are_kept_by_their_names(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal", names=True)
    entries = list(Journal(path).entries())
    rows = {one["unknown_unit"]: one["row"] for one in entries
            if isinstance(one, dict) and "unknown_unit" in one}  # fmt: skip
    assert ({*rows}, {*rows.values()}) == ({"zz", "yy"}, {-2, -3})
    heard = np.concatenate([one.rows for one in entries if isinstance(one, Spikes)])
    assert {*heard[heard < 0].tolist()} == {-2, -3}
    assert verify_journal(path, TINY).ok


def test_a_session_that_is_not_in_the_artifact_is_asked_for(tmp_path: Path) -> None:
    truth = lesson().truth
    path = recorded(tmp_path / "a.journal", {40: swap(truth)})
    with pytest.raises(UsageError, match=r"session 'day': expected it .*--save-session NAME"):
        verify_journal(path, TINY)
    truth.save(tmp_path / "day.session")
    assert verify_journal(path, TINY, [tmp_path / "day.session"]).ok
    other = dataclasses.replace(truth, unit_embedding=truth.unit_embedding + np.float32(0.1))
    other.save(tmp_path / "other.session")
    with pytest.raises(UsageError, match="one of that name is another one"):
        verify_journal(path, TINY, [tmp_path / "other.session"])


def test_the_first_value_that_differs_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    for number in (31, 90):
        changed(path, number, added(1e-9))
    again = verify_journal(path, TINY)
    assert not again.ok
    assert (again.differ, again.equal) == (2, again.values - 2)
    assert "the first: value 31, tick " in detail(again)
    assert "session tiny_a: expected [" in detail(again)
    done = run("verify", path, "--artifact", TINY)
    assert done.returncode == 3
    assert "FAILED  values: " in done.stdout
    assert "this journal is not what it says" in done.stdout


def test_spikes_that_were_taken_out_are_noticed(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    changed(path, 70, lambda payload: payload[:20] + struct.pack("<I", 7) + payload[24:])
    again = verify_journal(path, TINY)
    assert not again.ok
    assert "value 70, " in detail(again)
    assert "expected " in detail(again)


def test_elsewhere_values_agree_within_the_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor may give other last bits; more is a difference."""
    path = recorded(tmp_path / "a.journal")
    changed(path, 31, added(1e-7))
    monkeypatch.setattr("poyo_edge.runtime.checks.again.same_bits", lambda: {"cpu": "another"})
    again = verify_journal(path, TINY)
    assert again.ok
    assert not again.exact
    assert (again.equal, again.within) == (again.values - 1, 1)
    assert "another machine than in the run" in detail(again)
    changed(path, 31, added(1e-1))
    assert not verify_journal(path, TINY).ok


def test_values_that_no_backend_decoded_are_counted_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(loop: DecodeLoop) -> None:
        def broken(*_: Any) -> Any:
            raise BackendError("gone")

        monkeypatch.setattr(type(loop.decoder._core), "predict", broken)

    path = recorded(tmp_path / "a.journal", {150: fail})
    monkeypatch.undo()
    again = verify_journal(path, TINY)
    assert again.ok, again.checks
    assert again.not_decoded == LAST - 150
    assert again.equal == again.values - again.not_decoded


def test_damage_fails_and_a_crash_does_not(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = verify_journal(path, TINY)
    assert again.ok, again.checks
    assert again.bytes_left_out > 0
    assert detail(again, "journal").startswith("cut off, ")
    path.write_bytes(whole)
    flip_bit(path, -40)
    again = verify_journal(path, TINY)
    assert not again.ok
    assert detail(again, "journal").startswith("damaged: ")


def test_a_note_that_says_no_flags_ends_the_journal(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    changed(path, 3, lambda _: b'{"flags": 5}', NOTE)
    journal = Journal(path)
    assert sum(isinstance(one, Decoded) for one in journal.entries()) < 5
    assert journal.damaged


def test_another_core_an_empty_journal_and_missing_options_are_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.journal")
    other = tmp_path / "other.journal"
    other.write_bytes(path.read_bytes())
    changed(other, 1, of_core("0" * 64), START)
    with pytest.raises(UsageError, match=r"expected an artifact with core .*--artifact"):
        verify_journal(other, TINY)
    of_another_core().save(tmp_path / "other.session")
    done = run("verify", path, "--artifact", TINY, "--session", tmp_path / "other.session")
    assert done.returncode == 5
    done = run("verify", path)
    assert done.returncode == 2
    assert "name it with --artifact" in done.stderr
    done = run("verify", TINY, "--session", tmp_path / "other.session")
    assert done.returncode == 2
    assert "expected a journal before --artifact and --session" in done.stderr
    header = JournalHeader(session_id="tiny_a-x", unit_ids=("a",), tick_rate_hz=1.0)
    JournalWriter(tmp_path / "empty.journal", header).close()
    with pytest.raises(UsageError, match="session 'tiny_a': expected it, as the journal names"):
        verify_journal(tmp_path / "empty.journal", TINY)
    ids = Artifact.open(TINY).session("tiny_a").header.unit_ids
    header = dataclasses.replace(header, unit_ids=ids)
    JournalWriter(tmp_path / "empty2.journal", header).close()
    again = verify_journal(tmp_path / "empty2.journal", TINY)
    assert not again.ok, "nothing was compared"


def test_what_0_1_0_wrote_is_decoded_again(tmp_path: Path) -> None:
    old = DATA / "0.1.0"
    values = run_json("verify", old / "run.journal", "--artifact", old / "tiny.poyo")
    assert values["ok"]
    assert (values["values"], values["differ"]) == (121, 0)
    assert not values["exact"]
    assert "the journal does not say which backend decoded it" in str(values["checks"])


def test_0_1_0_reads_all_that_it_knows_of(tmp_path: Path) -> None:
    """Without the kinds that came later it is a journal as 0.1.0 wrote it."""
    path = recorded(tmp_path / "a.journal", {40: swap("tiny_b")})
    data, place, kept = path.read_bytes(), len(MAGIC), [MAGIC]
    while place < len(data):
        kind, length, _ = struct.unpack_from("<BxxxII", data, place)
        if kind <= 4:
            kept.append(data[place : place + 12 + length])
        if kind == 0:
            header = json.loads(data[place + 12 : place + 12 + length])
        place += 12 + length
    assert set(header) == {
        "session_id", "unit_ids", "tick_rate_hz", "behavior", "subject_id", "created"
    }  # fmt: skip
    old = tmp_path / "old.journal"
    old.write_bytes(b"".join(kept))
    new_entries, old_entries = list(Journal(path).entries()), list(Journal(old).entries())
    assert Journal(old).start is None
    assert [type(one) for one in new_entries] == [type(one) for one in old_entries]
    for new, before in zip(new_entries, old_entries, strict=True):
        if isinstance(new, Decoded) and isinstance(before, Decoded):
            assert (new.tick, new.value.tolist()) == (before.tick, before.value.tolist())
            assert before.flags == ()


def test_a_recording_of_it_has_the_units_of_all_sessions(tmp_path: Path) -> None:
    """A row means another unit once another session was swapped in."""
    path = recorded(tmp_path / "a.journal", {80: swap("tiny_b")})
    convert(path, tmp_path / "a.h5")
    made = Recording.open(tmp_path / "a.h5")
    first, other = (Artifact.open(TINY).session(f"tiny_{name}").header.unit_ids for name in "ab")
    assert made.unit_ids == tuple(dict.fromkeys((*first, *other)))
    border = 79 * STEP / RATE
    later = {made.unit_ids[row] for row in made.spike_units[made.spike_times >= border].tolist()}
    assert set() < later <= {*other}
