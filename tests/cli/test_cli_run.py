"""``poyo-edge run`` as people type it."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import written_again
from helpers.commands import run, run_json, run_many, start

from poyo_edge.cli.live import LiveView
from poyo_edge.journal import Journal
from poyo_edge.recording import Recording
from poyo_edge.runtime.rig.ends import first_reason
from poyo_edge.simulation.recordings import Simulation, simulate_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds under the unit ids of session a of the tiny artifact."""
    folder = tmp_path_factory.mktemp("run")
    simulation = Simulation(duration_s=10.0, n_units=12)
    made = simulate_recording(folder / "sim.h5", session_id="s", seed=1, simulation=simulation)
    units = [f"tiny_a/unit_{i:02d}" for i in range(12)]
    return written_again(made, folder / "a.h5", unit_ids=units, domains={})


def test_a_file_streams_to_its_end_and_is_recorded(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "today.journal"
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=8", "--gc-off"]
    values = run_json(*words, "--record", journal)
    assert values["loop"]["decoded"] > 0  # type: ignore[index]
    assert values["realtime"]["gc_off"] == "granted"  # type: ignore[index]
    assert values["recording"] == str(tmp_path / "today.h5")
    made = Recording.open(tmp_path / "today.h5")
    received = values["decoder"]["counters"]["received"]  # type: ignore[index]
    assert len(made.spike_times) == received
    if not values["loop"]["packets_dropped"]:  # type: ignore[index]
        # At eight times the speed a busy machine may drop whole packets, and counts them.
        assert received == len(Recording.open(recording).spike_times)


@pytest.mark.slow
def test_trials_and_cursor_of_a_run_end_in_its_recording(tiny: Path, tmp_path: Path) -> None:
    simulation = Simulation(duration_s=10.0, n_units=12)
    source = simulate_recording(
        tmp_path / "sim.h5", session_id="tiny_a", seed=1, simulation=simulation
    )
    before = Recording.open(source)
    trials, shown = before.trials(), before.behavior("cursor.pos")
    assert trials is not None
    names = {f"tiny_a/unit_{i:03d}": f"tiny_a/unit_{i:02d}" for i in range(12)}
    (tmp_path / "units.json").write_text(json.dumps(names))
    values = run_json(
        "run", tiny, "--session", "tiny_a", "--units", tmp_path / "units.json",
        "--from", f"file:{source}?speed=8&trials=1&cursor=cursor.pos",
        "--record", tmp_path / "today.journal",
    )  # fmt: skip
    assert values["loop"]["bad_packets"] == 0  # type: ignore[index]
    assert values["loop"]["trials"] >= 3 * len(trials) - 2  # type: ignore[index]
    made = Recording.open(tmp_path / "today.h5")
    after = made.trials()
    assert after is not None
    np.testing.assert_allclose(after.intervals, trials.intervals, atol=1e-8)
    np.testing.assert_array_equal(after.target, trials.target)
    assert after.success_rate == 1.0
    again = made.behavior("cursor.pos")
    np.testing.assert_allclose(again.times, shown.times, atol=1e-8)
    np.testing.assert_array_equal(again.values, shown.values)
    about = run_json("inspect", tmp_path / "today.journal")
    assert about["trial_messages"] == values["loop"]["trials"]  # type: ignore[index]
    assert run_json("inspect", tmp_path / "today.h5")["trials"] == after.to_json()


@pytest.mark.slow
def test_a_second_address_for_trials_is_refused_like_the_first(tiny: Path, recording: Path) -> None:
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=8"]
    done = run(*words, "--trials", "ftp://x")
    assert done.returncode == 2
    assert "--trials: expected an address like" in done.stderr
    done = run(*words, "--trials", "udp://127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    assert "messages 0" in done.stdout


@pytest.mark.slow
def test_a_run_that_is_started_again_goes_on_in_the_next_journal(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    """A supervisor starts it with the same words; no journal is written over."""
    journal = tmp_path / "today.journal"
    journal.write_bytes(b"of the run before")
    (tmp_path / "today_2.journal").symlink_to("nowhere")
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=8"]
    done = run(*words, "--record", journal, "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    free = tmp_path / "today_3.journal"
    assert f"{journal} is there already and stays as it is: recording to {free}" in done.stderr
    assert json.loads(done.stdout)["journal"]["path"] == str(free)
    assert Journal(free).header.session_id.startswith("tiny_a-")
    assert journal.read_bytes() == b"of the run before"
    folder = run(*words, "--record", tmp_path)
    assert folder.returncode == 2
    assert "a journal is never written over" in folder.stderr


def test_what_a_run_recorded_is_decoded_again(tiny: Path, recording: Path, tmp_path: Path) -> None:
    journal = tmp_path / "today.journal"
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=8"]
    run_json(*words, "--record", journal, "--backend", "ort-cpu")
    values = run_json("verify", journal, "--artifact", tiny)
    assert values["ok"], values
    assert values["exact"]
    n_equal, n_held = values["equal"], values["not_decoded"]  # the file ends: nothing to decode
    assert values["values"] == n_equal + n_held  # type: ignore[operator]


@pytest.mark.slow
def test_the_end_says_what_went_wrong_in_the_rig(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    units = [f"ch{i}" for i in range(12)]
    other = written_again(recording, tmp_path / "other.h5", unit_ids=units, behaviors={})
    words = ["--session", "tiny_a", "--from", f"file:{other}?speed=8", "--calibrate", "20"]
    done = run("run", tiny, *words, "--record", tmp_path / "a.journal")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("cannot be decoded again after a swap; --save-session NAME") == 1
    said = "expected units of the session, like 'tiny_a/unit_00', got 'ch"
    assert f"spikes of an unknown unit are left out: {said}" in done.stderr
    assert done.stderr.count("unknown unit") == 1
    assert f"error: run: expected spikes of the session's units, but no spike was used: {said}" in (
        done.stderr
    )
    assert re.search(f"unknown units +{re.escape(said)}", done.stdout)
    assert re.search("no fit +0 labelled s came", done.stdout)


@pytest.mark.slow
def test_ctrl_c_is_a_clean_end_and_nothing_decoded_is_no_success(
    tiny: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "a.journal"
    words = ["--session", "tiny_a", "--from", "udp://127.0.0.1:0", "--record", journal, "--json"]
    child = start("run", tiny, *words)
    assert child.stderr is not None
    for line in child.stderr:
        if "Ctrl-C ends it" in line:
            break
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert child.returncode == 3
    assert "no spike was used: 0 messages came; check the address" in error
    values = json.loads(out)
    assert values["recording"] is None
    assert "at least one spike" in values["recording_problem"]
    assert list(Journal(journal).entries()) == []


@pytest.mark.slow
def test_words_that_cannot_be_meant_are_one_line(tiny: Path) -> None:
    wrong = [
        (["--from", "ftp://x"], "--from: expected an address like udp://"),
        (["--from", "udp://127.0.0.1:0", "--to", "udp://x"], "expected HOST:PORT"),
        (["--from", "udp://127.0.0.1:0", "--save-session", "a"], "expected --calibrate or --recal"),
        (
            ["--from", "udp://127.0.0.1:0", "--labels", "intention:refit"],
            "--labels: expected --calibrate with it",
        ),
        (["--from", "udp://127.0.0.1:0", "--units", "none.json"], "none that can be read (No"),
        (["--from", "udp://127.0.0.1:0", "--units", __file__], 'write one like {"ch1": '),
        (["--from", "udp://127.0.0.1:0", "--record", "no/where.j"], "an existing folder"),
    ]
    ends = run_many([["run", tiny, "--session", "tiny_a", *words] for words, _ in wrong])
    for (_, message), done in zip(wrong, ends, strict=True):
        assert done.returncode == 2, message
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_live_view_shows_rates_latency_status_and_trace() -> None:
    stats = {
        "loop": {"decoded": 5, "skipped": 1, "deadline_misses": 0, "packets": 9},
        "in_to_out_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0},
        "stalled": True,
        "feed": {"malformed": 2, "failures": 0},
        "clock": {"discontinuities": 0},
        "decoder": {
            "counters": {"received": 7, "unknown_unit": 3, "late": 0, "future": 0},
            "health": {"session_check": {"reason": "session 'a' expects unit 'b' at 9 spikes/s"}},
        },
        "calibration": {"labelled_s": 12.0, "fitting": True,
                        "fits": [{"swapped": True, "r2_heldout": 0.5}]},
    }  # fmt: skip
    view = LiveView("t", quiet=True)
    with view:
        view.update(stats, None)
    text = "\n".join(view.lines(stats, None))
    for words in (r"waiting for spikes\s+STALLED", "p50 1.00", "5 decoded, 1 skipped",
                  "malformed 2, unknown_unit 3", "12 s, fitting, last fit swapped",
                  "session  session 'a' expects unit 'b' at 9 spikes/s"):  # fmt: skip
        assert re.search(words, text), words
    assert "first" not in text
    assert "sink" not in text
    sinks = [a_sink(), a_sink(address="redis://h:1/s", superseded=40, failures=9, behind_ms=4200.0,
                              last_failure="TimeoutError: [/x]\x07")]  # fmt: skip
    behind = "redis://h:1/s: 5 sent, behind by 4.2 s, 40 superseded by newer values, 9 failed, "
    assert f"sink     {behind}the last with TimeoutError: [/x]\\u0007" in view.lines(
        {**stats, "sinks": sinks}, None
    )
    told = {**stats, "feed": {**stats["feed"], "first_problem": "expected, got\x07"}}  # type: ignore[dict-item]
    assert "first    expected, got\\u0007" in view.lines(told, None)


def a_sink(**values: object) -> dict[str, object]:
    return {"address": "udp://h:1", "sent": 5, "superseded": 0, "failures": 0, "behind_ms": 3.0,
            "last_failure": "", **values}  # fmt: skip


def test_without_a_terminal_a_sink_that_is_behind_is_said_in_each_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poyo_edge.cli.live._LINE_EACH_S", 0.0)
    stats = {
        "loop": {"decoded": 0, "skipped": 0, "deadline_misses": 0, "packets": 0},
        "in_to_out_ms": {"p50": 0.0, "p99": 0.0, "max": 0.0},
        "stalled": False,
        "feed": {},
        "clock": {},
        "decoder": {"counters": {"received": 0, "unknown_unit": 0, "late": 0, "future": 0}},
        "sinks": [a_sink(), a_sink(address="lsl://s", behind_ms=800.0)],
    }
    with LiveView("t") as view:
        view.update(stats, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; sink     lsl://s: 5 sent, behind by 0.8 s")


@pytest.mark.slow
def test_a_run_says_what_became_of_the_values_of_each_sink(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    """Port 0 is nobody's: nothing can be sent there."""
    words = ["run", tiny, "--session", "tiny_a", "--from", f"file:{recording}?speed=8"]
    words += ["--to", "udp://127.0.0.1:0", "--to", f"shm:poyo_edge_sinks_{time.monotonic_ns()}"]
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    failing, writing = values["sinks"]
    decoded = values["loop"]["decoded"]
    assert (failing["address"], failing["sent"]) == ("udp://127.0.0.1:0", 0)
    assert failing["failures"] + failing["superseded"] == decoded
    assert values["loop"]["sink_failures"] == failing["failures"]
    assert failing["behind_ms"] > 0
    assert failing["last_failure"].startswith("OSError: ")
    assert writing == a_sink(address=words[-1], sent=decoded, behind_ms=0.0)
    done = run(*words[:-2])
    assert re.search(
        r"(?m)^sink 1 +udp://127.0.0.1:0: 0 sent, .*the last with OSError", done.stdout
    )


def test_without_a_terminal_what_is_ignored_is_said_once_while_nothing_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poyo_edge.cli.live._LINE_EACH_S", 0.0)
    stats = {
        "loop": {"decoded": 0, "skipped": 0, "deadline_misses": 0, "packets": 0},
        "in_to_out_ms": {"p50": 0.0, "p99": 0.0, "max": 0.0},
        "stalled": False,
        "feed": {"first_ignored": "expected spikes, got noise"},
        "clock": {},
        "decoder": {"counters": {"received": 0, "unknown_unit": 0, "late": 0, "future": 0}},
    }
    with LiveView("t") as view:
        for _ in range(3):
            view.update(stats, None)
    assert capsys.readouterr().err.count("the feed: expected spikes, got noise\n") == 1


@pytest.mark.parametrize(
    ("feed", "accepted", "said"),
    [
        ({"first_problem": "p", "first_ignored": "i"}, 0, "p"),
        ({"first_problem": "p"}, 5, "p"),
        ({"first_ignored": "i"}, 5, ""),
        ({"first_ignored": "i"}, 0, "i"),
        ({"last_failure": "f", "first_ignored": "i"}, 0, "f"),
    ],
)
def test_the_first_reason_is_what_keeps_spikes_from_being_used(
    feed: dict[str, str], accepted: int, said: str
) -> None:
    assert first_reason({"feed": feed, "decoder": {"counters": {"accepted": accepted}}}) == said
