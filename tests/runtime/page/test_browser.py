"""The page in a real browser: what it shows, by keyboard alone, and who outlives whom.

Skipped where there is no chromium.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages.browser import Browser, chromium
from helpers.pages.rings import ring_writer
from helpers.pages.serving import Served, Writer, served
from helpers.waiting import wait_until

from poyo_edge.runtime import Status
from poyo_edge.runtime.rig import Rig, RigSettings

pytest.importorskip("bokeh", reason="the page needs it")
pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {
    "artifact": "tiny.poyo", "source": "udp://127.0.0.1:5000", "targets": [], "backend":
    "ort-cpu", "control": None, "behavior": "cursor.vel", "unit": "cm/s"}  # fmt: skip
SESSION: dict[str, Any] = {
    "session_id": "tiny_a", "unit_ids": [f"u{i}" for i in range(12)], "notes": [],
           "r2_heldout": 0.9, "rate_hz": [80.0] * 12, "rate_sd_hz": [20.0] * 12,
           "output_low": [-12.0, -12.0], "output_high": [12.0, 12.0]}  # fmt: skip
CONTROL = {"angular_error_deg": 21.5, "gain": 0.97, "held_gain": 0.9, "bias_at_rest": 0.1,
           "noise_at_rest": 0.8}  # fmt: skip
FIT = {"r2_heldout": 0.81, "labelled_s": 60.0, "wall_s": 12.0, "r2_in_use": 0.62,
       "control": CONTROL, "labels": [], "wiener": None}  # fmt: skip
REFUSED = {**FIT, "swapped": False, "r2_heldout": 0.11, "reason": "expected a session that is "
           "better than the one in use, got held-out R² 0.11 beside 0.62"}  # fmt: skip
OFFER = {"session": "tiny_a+free-use-1", "targets": 18, "lead_s": 0.1, "labelled_s": 55.0,
         "wall_s": 9.0, "wiener": None, "passed": True, "new": CONTROL,
         "in_use": {**CONTROL, "angular_error_deg": 34.0}}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium()
    with Browser() as one:
        yield one


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "ring", {"run": RUN, "session": SESSION, "journal": None})
    yield made
    made.stop()


def figure(browser: Browser, name: str) -> str:
    return str(browser.evaluate(f"document.querySelector('#f-{name} .big').textContent"))


def shown(browser: Browser, page: Served, width: int = 1920) -> None:
    browser.open(page.url, width, 1000)
    browser.wait("document.querySelector('#f-status .big').textContent")


@pytest.mark.parametrize("width", [420, 1920])
def test_a_run_is_read_at_both_sizes_and_nothing_leaves_the_machine(
    browser: Browser, page: Served, width: int, tmp_path: Path
) -> None:
    shown(browser, page, width)
    browser.wait("document.querySelector('#f-latency .big').textContent.includes('ms')")
    assert figure(browser, "session") == "tiny_a"
    text = browser.text()
    for words in ("Workspace", "Decoded", "Spikes by unit", "Rates by unit", "Time line",
                  "Throughput", "Angular error", "Recording", "Nothing is recorded",
                  "Read-only: the run takes no commands"):  # fmt: skip
        assert words in text, words
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    overflowing = browser.evaluate(
        "[...document.querySelectorAll('main > *')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.className)"
    )
    assert overflowing == []
    assert browser.problems() == []
    hosts = {one.split("/")[2] for one in browser.requested() if one.startswith(("http", "ws"))}
    assert {host.split(":")[0] for host in hosts} == {"127.0.0.1"}
    browser.picture(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 20_000


def test_a_lost_stream_is_said_large(browser: Browser, page: Served, writer: Writer) -> None:
    writer.status, writer.flags, writer.silence_s = Status.HELD, ("stream_lost",), 2.5
    shown(browser, page)
    browser.wait("document.getElementById('headline').textContent.includes('The stream is lost')")
    assert browser.evaluate("document.getElementById('headline').dataset.tone") == "bad"
    assert browser.evaluate("document.getElementById('f-spike').dataset.tone") == "bad"
    assert "the stream of spikes is lost" in browser.text()


def test_fits_are_cards_with_figures_reasons_and_what_can_be_told(
    browser: Browser, page: Served, writer: Writer
) -> None:
    calibration = {"labelled_s": 60.0, "fitting": False, "fits": [REFUSED]}
    free = {"mode": "offer", "used_s": 200.0, "cursor": True, "fitting": False,
            "offered": OFFER["session"], "history": [OFFER]}  # fmt: skip
    writer.tell(calibration=calibration, recalibration=free)
    shown(browser, page)
    browser.wait("document.querySelectorAll('.card').length === 2")
    offer, refused = browser.evaluate(
        "[...document.querySelectorAll('.card')].map(e => [e.dataset.tone, e.innerText])"
    )
    assert refused[0] == "bad"
    assert "Fit 1: refused" in refused[1]
    assert "got held-out R² 0.11 beside 0.62" in refused[1]
    assert offer[0] == "wait"
    assert "on offer" in offer[1]
    assert "21.5°" in offer[1]
    assert "34.0°" in offer[1], "beside the session in use"
    assert "Approve" in offer[1]
    disabled = browser.evaluate(
        "[...document.querySelectorAll('[data-tell]')].every(b => b.disabled)"
    )
    assert disabled, "read-only"
    writer.tell(recalibration={**free, "offered": None, "history": [OFFER, {"taken":
                OFFER["session"]}]})  # fmt: skip
    browser.wait("document.querySelector('.card').innerText.includes('approved')")
    assert browser.evaluate("document.querySelector('.card').dataset.tone") == "good"


def test_names_of_a_rig_are_text_and_never_run(
    browser: Browser, page: Served, writer: Writer
) -> None:
    evil = '<img src=x onerror="window.evil=1"><script>window.evil=1</script>{{7*7}}'
    writer.tell(run={**RUN, "artifact": evil, "source": evil}, session={**SESSION, "notes": [evil],
                "unit_ids": [evil, *SESSION["unit_ids"][1:]]},
                events=[{"host_ns": time.monotonic_ns(), "kind": evil, "text": evil}],
                feed={"reason": evil})  # fmt: skip
    shown(browser, page)
    browser.wait("document.getElementById('title').textContent.includes('<img')")
    time.sleep(1.0)
    assert browser.evaluate("window.evil") is None
    assert browser.evaluate("document.querySelectorAll('main img, #title *').length") == 0
    assert "{{7*7}}" in browser.text()


def test_by_keyboard_alone_a_run_is_armed_zeroed_resumed_and_stopped(
    browser: Browser, tiny: Path, tmp_path: Path
) -> None:
    settings = RigSettings(
        session="tiny_a", ring=str(tmp_path / "ring"), control_address="udp://127.0.0.1:0"
    )
    with Rig.open(tiny, "udp://127.0.0.1:0", (), settings) as rig:
        assert rig.port is not None
        with served(tmp_path / "ring") as page:
            browser.open(page.url, 1280, 900)
            browser.wait("document.getElementById('headline').textContent.startsWith('Waiting')")
            browser.press("z")  # read-only: nothing happens
            browser.press("S", shift=True)
            browser.press("a")
            assert browser.evaluate("document.activeElement.id") == "token"
            browser.type(rig.port.token)
            browser.press("Enter")
            browser.wait("document.getElementById('mine').textContent.startsWith('Armed: ')")
            assert rig.stats()["commands"]["accepted"] == {"mark": 1}
            assert rig.port.token not in browser.evaluate("document.documentElement.outerHTML")
            assert browser.evaluate("document.getElementById('token').value") == ""
            assert rig.port.token not in str(
                browser.evaluate("JSON.stringify(Bokeh.documents[0].to_json())")
            )
            browser.press("Escape")
            browser.press("z")
            browser.wait("!document.getElementById('held').hidden")
            assert rig.stats()["commands"]["held"] == "zeroed"
            browser.press("r")
            wait_until(lambda: not rig.stats()["commands"]["held"])
            browser.press("m")
            browser.type("after a pause")
            browser.press("Enter")
            wait_until(lambda: rig.stats()["commands"]["accepted"].get("mark") == 2)
            assert tab_order(browser)[:3] == ["zero", "resume", "stop"]
            browser.press("Escape")
            browser.press("S", shift=True)
            wait_until(lambda: rig.stopped)
            assert rig.stopped


def tab_order(browser: Browser) -> list[str]:
    """What Tab leads to from the top of the page."""
    browser.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    browser.evaluate("document.querySelector('.skip').focus()")
    found = list[Any]()
    for _ in range(6):
        browser.press("Tab")
        found.append(browser.evaluate(
            "document.activeElement.dataset.tell || document.activeElement.id || ''"
        ))  # fmt: skip
    return [str(one) for one in found]


def test_a_client_in_the_page_cannot_tell_what_its_buttons_may_not(
    browser: Browser, tiny: Path, tmp_path: Path
) -> None:
    settings = RigSettings(
        session="tiny_a", ring=str(tmp_path / "ring"), control_address="udp://127.0.0.1:0"
    )
    with (
        Rig.open(tiny, "udp://127.0.0.1:0", (), settings) as rig,
        served(tmp_path / "ring") as page,
    ):
        browser.open(page.url)
        browser.wait("window.Bokeh && Bokeh.documents.length && document.getElementById('mine')"
                     ".textContent")  # fmt: skip
        browser.evaluate(
            "Bokeh.documents[0].get_model_by_name('ask').data ="
            " {json: [JSON.stringify({do: 'tell', command: 'stop'})]}"
        )
        browser.wait("document.getElementById('mine').textContent.startsWith('Read-only: arm')")
        assert not rig.stopped
        assert rig.stats()["commands"]["accepted"] == {}


AGES = "[...document.querySelectorAll('.{} h2')].map(e => getComputedStyle(e, '::after').content)"


@pytest.mark.parametrize("end", ["hang", "kill"])
def test_a_rig_that_hangs_or_is_killed_leaves_nothing_that_looks_new(
    browser: Browser, tmp_path: Path, end: str
) -> None:
    with ring_writer(tmp_path / "ring") as rig, served(tmp_path / "ring") as page:
        rig.put("state")
        rig.put()
        browser.open(page.url)
        browser.wait("document.querySelector('#f-status .big').textContent")
        getattr(rig, end)()
        for name in ("told", "live"):
            browser.wait(f"{AGES.format(name)}.every(text => text.includes(' · as of '))")
        if end == "kill":
            browser.wait("document.body.innerText.includes('its process died')")
        text = browser.text()
        assert ("The rig is gone: its process died" in text) == (end == "kill")
        assert ("the rig has told nothing since, as if it hung" in text) == (end == "hang")


def test_a_page_whose_server_hangs_says_that_it_is_old(browser: Browser, writer: Writer) -> None:
    with served(writer.frames.path) as page:
        shown(browser, page)
        browser.wait(f"{AGES.format('told')}.every(text => text === '\"\"')")
        page.process.send_signal(signal.SIGSTOP)
        browser.wait("document.getElementById('headline').textContent.includes('heard nothing')")
        assert "as of" in browser.evaluate(AGES.format("live"))[0]
        page.process.send_signal(signal.SIGCONT)
        browser.wait("!document.getElementById('headline').textContent.includes('heard nothing')")
        browser.wait(f"{AGES.format('live')}.every(text => text === '\"\"')")


def test_a_browser_that_is_killed_leaves_page_and_run(page: Served, writer: Writer) -> None:
    with Browser() as other:
        shown(other, page)
        before = int(writer.frames._head["written"])
        other.kill()
    wait_until(lambda: int(writer.frames._head["written"]) > before)
    assert page.get()[0] == 200
    assert page.process.poll() is None


def test_a_page_whose_server_is_killed_says_so(browser: Browser, writer: Writer) -> None:
    with served(writer.frames.path) as page:
        shown(browser, page)
        page.process.kill()
        page.process.wait()
        browser.wait("document.getElementById('headline').textContent.includes('lost its server')")
    assert browser.evaluate("document.getElementById('headline').dataset.tone") == "bad"
