"""What a page keeps of frames, and what it says of them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.feeds import a_value
from helpers.pages.rings import SHAPE

from poyo_edge.runtime import Status
from poyo_edge.runtime.page.cards import fit_cards
from poyo_edge.runtime.page.history import Newest
from poyo_edge.runtime.page.recorded import Recorded
from poyo_edge.runtime.page.ring.aim import Aim, point
from poyo_edge.runtime.page.ring.layout import FLAGS
from poyo_edge.runtime.page.ring.writer import FrameWriter
from poyo_edge.runtime.page.sheet import Sheet
from poyo_edge.runtime.page.watching import Watch
from poyo_edge.runtime.page.words import FLAG_WORDS, STATUS_WORDS, age_text, bytes_text, ms_text
from poyo_edge.runtime.rig.settings import LoopCounters

NS = 1_000_000_000


class Run:
    """A ring whose time only the test moves, and a watch of it."""

    def __init__(self, path: Path) -> None:
        self.ns = 1000 * NS
        self.frames = FrameWriter(str(path / "ring"), SHAPE)
        self.counters = LoopCounters()
        self.watch = Watch(str(path / "ring"), now_ns=lambda: self.ns)

    def step(self, n: int = 1, *, spikes: bool = True, **changes: Any) -> None:
        """So many windows of 20 ms, each with spikes of unit 0 and 4."""
        for _ in range(n):
            self.ns += NS // 50
            self.counters.decoded += 1
            self.frames.note_spikes(np.array([1]), np.array([0, 0, 4], np.int32))
            value = a_value()
            result = dataclasses.replace(
                value.result,
                t=self.ns,
                t_last_spike=self.ns - 5_000_000 if spikes else None,
                **changes,
            )
            value = dataclasses.replace(
                value, result=result, t_s=self.ns / 1e9, host_ns=self.ns,
                newest_in_ns=self.ns - 2_000_000, valid_until_ns=self.ns + 60_000_000,
            )  # fmt: skip
            self.frames.write(value, due_ns=self.ns, newest=True, counters=self.counters)
            if self.counters.decoded % 20 == 0:
                self.watch.look()
        self.watch.look()


@pytest.fixture
def run(tmp_path: Path) -> Any:
    made = Run(tmp_path)
    yield made
    made.frames.close()


def test_the_newest_rows_are_one_piece_and_bounded() -> None:
    kept = Newest(5, np.int64)
    for first in range(0, 100, 3):
        kept.add(np.arange(first, first + 3))
        assert kept.rows.tolist() == [*range(max(0, first - 2), first + 3)]
    kept.add(np.arange(50))
    assert kept.rows.tolist() == [45, 46, 47, 48, 49]
    kept.clear()
    assert len(kept) == 0


def test_rates_latencies_raster_and_traces_are_those_of_the_frames(run: Run) -> None:
    run.step(1500)
    history = run.watch.history
    assert history.rates.tolist() == pytest.approx([100.0, 0, 0, 0, 50.0])
    assert history.percentile_ms(50) == pytest.approx(2.0)
    assert len(history.frames) <= 600
    raster = history.raster()
    assert raster.shape == (5, 400)
    assert raster[0].sum() == pytest.approx(2 * 50 * 10, rel=0.02)
    assert raster[1:4].sum() == 0
    times, values = history.trace()
    assert (times[-1], values[-1].tolist()) == (0.0, [1.5, -2.0])
    assert times[0] == pytest.approx(-10.0, abs=0.05)
    assert len(history.truth()[0]) == 0
    run.frames.note_labels(np.array([run.ns]), np.array([[3.0, 4.0]]))
    run.step(2)
    assert history.truth()[1].tolist() == [[3.0, 4.0]]


def test_rates_begin_anew_with_another_session_and_frames_with_another_clock(run: Run) -> None:
    run.step(100)
    run.step(1, session_id="another")
    assert run.watch.history.rates.tolist() == pytest.approx([100.0, 0, 0, 0, 50.0])
    assert run.watch.history._weight < 0.01
    assert len(run.watch.history.frames) == 101


def test_the_time_line_joins_what_belongs_together(run: Run) -> None:
    run.step(50)
    run.step(25, status=Status.DEGRADED, flags=("gap",))
    run.step(5)
    run.step(25, status=Status.DEGRADED, flags=("gap",))
    run.step(50)
    line = run.watch.timeline
    assert [one.name for one in line.statuses] == ["VALID", "DEGRADED", "VALID", "DEGRADED",
                                                   "VALID"]  # fmt: skip
    assert [round(one.end_s - one.begin_s, 2) for one in line.statuses] == [1, 0.5, 0.1, 0.5, 1]
    (gap,) = line.flags["gap"]  # the hole of a tenth of a second is none
    assert gap.end_s - gap.begin_s == pytest.approx(1.1)
    line.forget(gap.end_s + 3700)
    assert (line.statuses, line.flags) == ([], {})


def test_the_headline_says_what_matters_most(run: Run) -> None:
    assert run.watch.headline() == ("Waiting for spikes: nothing has come yet", "wait")
    run.step(1)
    assert run.watch.headline() == ("Decoding", "good")
    run.step(1, status=Status.DEGRADED, flags=("drift",))
    assert run.watch.headline() == ("Many units fire otherwise than at calibration", "warn")
    run.step(1, status=Status.HELD, flags=("stream_lost",))
    said, tone = run.watch.headline()
    assert (said.partition(" ago")[0], tone) == ("The stream is lost: last spike 5 ms", "bad")
    run.step(100, status=Status.INVALID, flags=("stream_lost",), spikes=False)
    assert run.watch.headline()[0] == "The stream is lost: last spike 2.0 s ago"
    run.ns += NS // 10
    assert run.watch.headline() == ("No new value for 100 ms: too old to act on", "bad")
    run.ns += 3 * NS
    assert run.watch.headline() == ("No new value for 3.1 s: the loop hangs", "bad")
    run.frames.close()
    run.watch.look()
    assert run.watch.headline()[0].startswith("The rig is gone: its process died; last value 3.1 s")


def test_what_is_old_is_marked_with_its_age(run: Run) -> None:
    sheet = Sheet(run.watch)
    state = {"host_ns": run.ns, "ended": "", "events": [], "untold": ""}

    def seen() -> tuple[dict[str, str], list[str]]:
        run.ns += 1  # the watch looks
        run.watch._state_looked = 0.0
        run.watch.look()
        values = sheet.values(0.0)
        return values["old"], values["notes"]

    assert seen() == ({"live": "", "told": ""}, []), "none was told, but the ring is new"
    run.frames.state.put(state)
    run.step(1)
    run.ns += 2 * NS
    assert seen() == ({"live": "", "told": ""}, [])
    run.ns += 2 * NS
    what = "Session, trials, fits, commands and recording"
    hung = f"{what} are as of 4.0 s ago: the rig has told nothing since, as if it hung"
    assert seen() == ({"live": "4.0 s", "told": "4.0 s"}, [hung])
    run.frames.state.put({**state, "untold": "ValueError: no fit 3"})
    said = f"{what} are as of 4.0 s ago: the rig cannot tell them (ValueError: no fit 3)"
    assert seen()[1] == [said]
    run.frames.state.put({"ended": "", "events": [], "untold": "ValueError: no fit 3"})
    assert seen()[1] == [f"{what} are not known: the rig cannot tell them (ValueError: no fit 3)"]
    run.frames.state.put(state)
    run.frames.close()
    assert seen() == ({"live": "4.0 s", "told": "4.0 s"}, []), "the headline says that it is gone"


def test_the_sheet_counts_what_was_skipped_and_missed(run: Run) -> None:
    sheet = Sheet(run.watch)
    assert sheet.values(0.0)["figures"]["status"][0] == "–"
    run.counters.skipped = 3
    run.step(2)
    figures = sheet.values(0.0)["figures"]
    assert figures["status"][:2] == ["VALID", "good"]
    assert figures["skipped"][:2] == ["3", "warn"]
    assert figures["latency"][0] == "2.00 ms"
    assert figures["spike"][0] == "5 ms"
    assert figures["frames"][0] == "0"
    for _ in range(10):  # the watch does not look meanwhile
        run.counters.decoded += 1
        run.step(0)
    watch_look, run.watch.look = run.watch.look, lambda: None  # type: ignore[method-assign]
    run.step(400)
    run.watch.look = watch_look  # type: ignore[method-assign]
    run.watch.look()
    assert run.watch.lost == 402 + 0 - 255 - 2
    assert sheet.values(0.0)["figures"]["frames"][1] == "warn"


def test_every_status_and_flag_has_words() -> None:
    assert {*FLAG_WORDS} == {*FLAGS, "other"}
    assert {*STATUS_WORDS} == {status.value for status in Status}


def test_figures_are_said_in_units_that_people_know() -> None:
    assert [ms_text(x) for x in (0.345, 12.34, 123.4, float("nan"), None)] == [
        "0.34", "12.3", "123", "–", "–"
    ]  # fmt: skip
    assert [age_text(x) for x in (0.04, 2.5, 300.0, 9000.0, 1e6, None)] == [
        "40 ms", "2.5 s", "5 min", "2.5 h", "12 days", "–"
    ]  # fmt: skip
    assert [bytes_text(x) for x in (12, 1234, 12_345_678, 2e12)] == [
        "12 B", "1.23 kB", "12.3 MB", "2 TB"
    ]  # fmt: skip


def test_a_taken_offer_may_be_reverted_and_an_older_one_not() -> None:
    offer = {"session": "a+1", "passed": True, "labelled_s": 50.0, "wall_s": 5.0, "new": {},
             "in_use": {}, "wiener": None}  # fmt: skip
    free = {"used_s": 100.0, "fitting": False, "cursor": True, "offered": "a+1",
            "history": [offer]}  # fmt: skip
    (card,) = fit_cards({"recalibration": free})
    assert [command for command, _ in card["actions"]] == ["take", "reject"]
    free = {**free, "offered": None, "history": [offer, {"taken": "a+1"}]}
    (card,) = fit_cards({"recalibration": free})
    assert ([command for command, _ in card["actions"]], card["tone"]) == (["revert"], "good")
    refused = {**offer, "session": "a+2", "passed": False, "reason": "worse"}
    free = {**free, "history": [offer, {"taken": "a+1"}, refused]}
    newest, older = fit_cards({"recalibration": free})
    assert (newest["tone"], newest["reason"], older["actions"]) == ("bad", "worse", [])
    free = {**free, "history": [], "cursor": False}
    (card,) = fit_cards({"recalibration": free})
    assert ["cursor", "none came: nothing can be inferred", ""] in card["lines"]


def test_a_journal_says_how_long_the_disk_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded()
    assert recorded.look({}, 0.0)["tone"] == "warn"
    journal = {"path": str(tmp_path / "a.journal"), "bytes": 0, "error": None, "lost_frames": 0}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    for second in range(20):
        found = recorded.look({"journal": {**journal, "bytes": 1000 * second}}, float(second))
    assert ["grows by", "60 kB a minute"] in found["lines"]
    assert ["disk left", "1 MB"] in found["lines"]
    assert ["full in", "17 min"] in found["lines"]
    assert found["tone"] == "warn"
    broken = {**journal, "error": "No space left", "lost_frames": 7}
    found = recorded.look({"journal": broken}, 21.0)
    assert (found["tone"], found["text"]) == ("bad", "Recording failed: No space left")


def test_a_mouse_steers_while_it_is_heard_of(tmp_path: Path) -> None:
    aim = Aim(tmp_path / "aim")
    assert aim.read() is None
    point(aim.path, 1.5, -2.0)
    assert aim.read() == (1.5, -2.0)
    point(aim.path, float("nan"), 0.0)
    assert aim.read() is None
    aim.close()
    with pytest.raises(FileNotFoundError):
        point(aim.path, 0.0, 0.0)
