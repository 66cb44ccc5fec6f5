"""The state of a rig: told each second, and said to be old where it cannot be told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages.rings import SHAPE
from helpers.waiting import wait_until

from poyo_edge.runtime.page.ring import layout, telling
from poyo_edge.runtime.page.ring.reader import FrameReader
from poyo_edge.runtime.page.ring.telling import Events, StateTeller
from poyo_edge.runtime.page.ring.writer import FrameWriter

RUN = {"run": {"artifact": "a.poyo"}}


class Told:
    """A ring, what a rig would say of itself, and the state that a reader sees."""

    def __init__(self, path: Path) -> None:
        self.frames = FrameWriter(str(path / "ring"), SHAPE)
        self.reader = FrameReader(str(path / "ring"))
        self.ns, self.state, self.failure = 10, dict[str, Any](RUN), Exception()
        self.teller = StateTeller(self.frames.state, self.gather, lambda: self.ns)

    def gather(self) -> dict[str, Any]:
        """The state, or a failure where there is one."""
        if self.failure.args:
            raise self.failure
        return self.state

    def tell(self, ns: int, ended: str = "") -> dict[str, Any]:
        """Tell it at this time; what is read then."""
        self.ns = ns
        self.teller.tell(ended)
        return self.reader.state()[1]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.teller.stop()
    made.frames.close()


def test_a_state_that_cannot_be_gathered_is_the_one_before_with_why(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    first = told.tell(1)
    assert (first["host_ns"], first["untold"], first["events"]) == (1, "", [])
    told.failure = ValueError("no fit 3")
    for ns in (2, 3):
        found = told.tell(ns)
        assert (found["host_ns"], found["run"]) == (1, RUN["run"])
        assert found["untold"] == "ValueError: no fit 3"
    assert [one["text"] for one in found["events"]] == [
        "the state could not be told: ValueError: no fit 3"
    ]
    told.failure = KeyError("other")
    assert told.tell(4, "ended")["untold"] == "KeyError: 'other'"
    assert told.reader.state()[1]["ended"] == "ended"
    told.failure = Exception()
    again = told.tell(5)
    assert (again["host_ns"], again["untold"]) == (5, "")
    said = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(said) == 2, "once for each kind"
    assert said[0].exc_info is not None


def test_before_any_state_a_failure_stands_alone(told: Told) -> None:
    told.failure = OSError("no disk")
    found = told.tell(7)
    assert set(found) == {"ended", "untold", "events"}
    assert found["untold"] == "OSError: no disk"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"journal": "x" * layout.STATE_BYTES}, "UsageError: state: expected at most"),
        ({"fits": {1, 2}}, "TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_a_state_that_no_ring_holds_is_said(told: Told, state: dict[str, Any], why: str) -> None:
    told.tell(1)
    told.state = {**RUN, **state}
    found = told.tell(2)
    assert found["untold"].startswith(why)
    assert (found["host_ns"], found["run"]) == (1, RUN["run"])


def test_it_goes_on_trying(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EACH_S", 0.01)
    told.failure = RuntimeError("for a while")
    told.teller.start()
    wait_until(lambda: told.reader.state()[1].get("untold"))
    number = told.reader.state()[0]
    wait_until(lambda: told.reader.state()[0] > number + 3)
    told.failure = Exception()
    wait_until(lambda: told.reader.state()[1].get("untold") == "")
    told.failure = RuntimeError("at the end, too")
    told.teller.stop(ended="ended")
    found = told.reader.state()[1]
    assert (found["ended"], found["untold"]) == ("ended", "RuntimeError: at the end, too")


def test_a_fit_is_told_once_though_its_file_is_renamed_later() -> None:
    events = Events()
    first = {"swapped": True, "saved": "a.session"}
    events.look({"calibration": {"fits": [first]}}, 1)
    renamed = {**first, "saved": "a_1.session"}
    events.look({"calibration": {"fits": [renamed, {"swapped": False}]}}, 2)
    assert [(one["host_ns"], one["text"]) for one in events.kept] == [
        (1, "fit swapped in"), (2, "fit refused"),
    ]  # fmt: skip
