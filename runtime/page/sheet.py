"""All that a page says in words and figures, as one JSON object: the browser only puts it there."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from poyo_edge.runtime.page.cards import fit_cards
from poyo_edge.runtime.page.recorded import Recorded
from poyo_edge.runtime.page.ring.layout import STATUSES, flags_of
from poyo_edge.runtime.page.watching import Watch
from poyo_edge.runtime.page.words import FLAG_WORDS, STATUS_WORDS, age_text, ms_text

_MOST_EVENTS = 30
_OLD_SPIKE_S = 0.1
_OLD_S = 3.0
"""What is older is marked with its age: values, and what the rig tells once a second."""
Figure = tuple[str, str, str]
"""Text, tone ("" for none) and what stands below it."""


class Sheet:
    """Makes the sheet of one watch for all browsers; each adds what it may do."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._recorded = watch, Recorded()

    def values(self, now_s: float) -> dict[str, Any]:
        """The sheet, as JSON values.

        Args:
            now_s: seconds of the host's clock.
        """
        watch, state = self._watch, self._watch.state
        headline, tone = watch.headline()
        run = state.get("run", {})
        return {
            "title": f"{run.get('artifact', watch.run)}",
            "subtitle": self._subtitle(run),
            "headline": headline,
            "tone": tone,
            "figures": {name: list(one) for name, one in self._figures().items()},
            "flags": self._flags(),
            "old": self._old(),
            "cards": fit_cards(state),
            "recorded": self._recorded.look(state, now_s),
            "events": self._events(),
            "commands": self._commands(state),
            "notes": self._notes(state),
        }

    def _old(self) -> dict[str, str]:
        """Ages, in words, of values ("live") and of the state ("told"); "" while they are new."""
        ages = {"live": self._watch.value_age_s(), "told": self._watch.state_age_s()}
        return {
            name: age_text(age) if age is not None and age > _OLD_S else ""
            for name, age in ages.items()
        }

    def _untold(self) -> list[str]:
        """Why the state is old, where it is: a rig that hangs, or cannot tell it."""
        watch, old = self._watch, self._old()["told"]
        what = "Session, trials, fits, commands and recording"
        known = f"are as of {age_text(watch.state_age_s())} ago"
        if not watch.state.get("host_ns"):
            known = "are not known"
        if reason := watch.state.get("untold"):
            return [f"{what} {known}: the rig cannot tell them ({reason})"]
        if old and watch.alive:
            return [f"{what} {known}: the rig has told nothing since, as if it hung"]
        return []

    def _subtitle(self, run: Mapping[str, Any]) -> str:
        if not run:
            return self._watch.run
        to = ", ".join(run["targets"]) or "nowhere"
        return f"{run['source']} → {to}, {self._watch.rate_hz:g} values a second, {run['backend']}"

    def _figures(self) -> dict[str, Figure]:
        watch, history, last = self._watch, self._watch.history, self._watch.history.last
        period_ms = 1e3 / watch.rate_hz
        p50, p99 = history.percentile_ms(50), history.percentile_ms(99)
        slow = p99 > period_ms
        figures: dict[str, Figure] = {
            "latency": (
                f"{ms_text(p50)} ms", "warn" if slow else "",
                f"in the middle; 99 of 100 within {ms_text(p99)} ms, deadline {period_ms:g} ms",
            ),
            "frames": (str(watch.lost), "warn" if watch.lost else "",
                       f"frames that this page missed of {history.n_frames + watch.lost}"),
        }  # fmt: skip
        age = watch.spike_age_s()
        old = age is not None and age > _OLD_SPIKE_S
        figures["spike"] = (age_text(age), "bad" if old else "", "since the newest spike")
        if last is None:
            none = "no value yet"
            return {**figures, "status": ("–", "wait", none), "skipped": ("–", "", none),
                    "session": ("–", "", ""), "trial": ("–", "", "")}  # fmt: skip
        status = STATUSES[int(last["status"])] if watch.stands else "INVALID"
        tones = {"VALID": "good", "WARMUP": "wait", "DEGRADED": "warn"}
        skipped, late = int(last["skipped"]), int(last["deadline_misses"])
        return {
            **figures,
            "status": (status, tones.get(status, "bad"), STATUS_WORDS[status]),
            "skipped": (str(skipped), "warn" if skipped else "",
                        f"windows of {int(last['decoded']) + skipped}; {late} were late"),
            "session": (last["session"].decode(errors="replace"), "", self._session_words()),
            "trial": self._trial(last),
        }  # fmt: skip

    def _session_words(self) -> str:
        session = self._watch.state.get("session", {})
        words = [f"{len(session.get('unit_ids', ()))} units"]
        if session.get("r2_heldout") is not None:
            words.append(f"held-out R² {session['r2_heldout']:.2f}")
        return ", ".join(words)

    def _trial(self, last: Any) -> Figure:
        outcome = self._watch.state.get("outcome", {})
        block = outcome.get("block") or outcome.get("reference")
        n = outcome.get("trials", 0)
        if block is None or block["success"] is None:
            running = int(last["trial"])
            return "–", "", f"{n} trials have ended" + f"; trial {running} runs" * (running >= 0)
        words = [f"of the last {block['trials']} trials reached"]
        if block["bits_per_s"] is not None:
            words.append(f"{block['bits_per_s']:.2f} bit/s")
        bad = outcome.get("status") == "degraded"
        return f"{100 * block['success']:.0f} %", "bad" if bad else "", ", ".join(words)

    def _flags(self) -> list[list[str]]:
        last = self._watch.history.last
        if last is None:
            return []
        return [[flag, FLAG_WORDS[flag]] for flag in flags_of(int(last["flags"]))]

    def _events(self) -> list[list[str]]:
        found = []
        for one in self._watch.state.get("events", [])[-_MOST_EVENTS:]:
            unix_s = one["host_ns"] / 1e9 + self._watch.unix_less_monotonic_s
            at = datetime.datetime.fromtimestamp(unix_s).strftime("%H:%M:%S")
            found.append([at, one["kind"], one["text"]])
        return found[::-1]

    def _commands(self, state: Mapping[str, Any]) -> dict[str, Any]:
        commands = state.get("commands", {})
        return {
            "address": state.get("run", {}).get("control"),
            "sessions": commands.get("sessions", []),
            "held": commands.get("held", ""),
            "waiting": commands.get("waiting"),
            "alive": self._watch.alive,
        }

    def _notes(self, state: Mapping[str, Any]) -> list[str]:
        """Sentences that somebody should read: of the session, sinks and health."""
        notes = self._untold() + list(state.get("session", {}).get("notes", ()))
        if state.get("simulated"):
            notes.append("Person, array and task are simulated; the decoder and its loop are real")
        health = state.get("health", {})
        if share := health.get("drifted_share"):
            notes.append(f"{share:.0%} of the units fire otherwise than at calibration")
        if silent := health.get("silent_units"):
            notes.append(f"{len(silent)} units are silent: {', '.join(silent[:6])}")
        if reason := health.get("session_check", {}).get("reason"):
            notes.append(reason)
        if reason := state.get("outcome", {}).get("reason"):
            notes.append(reason)
        for sink in state.get("sinks", ()):
            if sink["failures"] or sink["superseded"]:
                notes.append(
                    f"{sink['address']}: {sink['failures']} values failed, {sink['superseded']} "
                    f"were replaced by newer ones; {sink['last_failure']}".rstrip("; ")
                )
        if reason := state.get("feed", {}).get("reason"):
            notes.append(f"the feed: {reason}")
        return notes


def as_text(values: Mapping[str, Any]) -> str:
    """The sheet as the browser gets it."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
