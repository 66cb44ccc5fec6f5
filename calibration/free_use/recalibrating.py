"""Recalibration while a person uses the cursor freely: no trial, no label, no pause.

What was heard, shown and decoded is kept for some minutes. Now and then the targets of that time
are inferred (``inferred_targets``), become labels (``inferred_labels``), and a session is fitted to
them in the background, beginning with the one in use. One that passes the rule of
``inferred_labels.judge`` is offered, and a person or program takes or rejects it; or it is taken at
once where that was chosen. All others leave the session in use where it is, with the reason.

Legend: N samples or spikes; two dimensions.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from poyo_edge.arrays import Float64, Int64, Rows
from poyo_edge.artifact import Artifact, Session
from poyo_edge.calibration.background import BackgroundFit
from poyo_edge.calibration.calibrated import CalibratedSession
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.fit.labels import LabelCollector
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.search import OnProgress
from poyo_edge.calibration.following import Followed, require_in_use, swap_for
from poyo_edge.calibration.free_use.inferred_labels import (
    MOST_LEAD_S,
    InferredLabels,
    Verdict,
    judge,
    labels_from,
)
from poyo_edge.calibration.free_use.inferred_targets import InferenceSettings, infer_targets
from poyo_edge.calibration.free_use.kept import STALE_S, Kept
from poyo_edge.errors import CheckFailedError, PoyoEdgeError, UsageError
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.control.outcome import CONTROL
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.runtime.failsafe import Status
from poyo_edge.runtime.feeds.values import LoopResult
from poyo_edge.runtime.health import COVERAGE, DRIFT, OUTPUT_RANGE
from poyo_edge.runtime.result import Result
from poyo_edge.runtime.session_check import UNVERIFIED

_log = logging.getLogger(__name__)
Mode = Literal["offer", "take"]
MODES: tuple[str, ...] = get_args(Mode)
_OF_THE_ARRAY = frozenset({DRIFT, COVERAGE, OUTPUT_RANGE, UNVERIFIED, CONTROL})
"""Flags of values that are what the session makes of all spikes that came."""
_MOST_JUDGED = 400
_MOST_HISTORY = 100
_UNIT_DROPOUT = 0.6
"""Of the fits: nobody looks after units that fall silent meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FreeUseSettings(JsonRecord):
    """When and how to recalibrate."""

    mode: Mode = "offer"
    """What becomes of a session that passes: "offer" waits for ``take``, "take" does not."""
    after_s: float = 180.0
    """Seconds of use between fits; only those with a cursor and a value that is VALID, or DEGRADED
    by drift alone, count."""
    most_s: float = 600.0
    """What is older is forgotten."""
    least_confidence: float = 0.7
    """Of targets that are used."""
    max_seconds: float = 120.0
    """Wall time of one fit."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"mode: expected one of {list(MODES)}, got {self.mode!r}")
        if not 30 <= self.after_s <= self.most_s <= 3600:
            raise UsageError(
                f"after_s, most_s: expected 30 <= after_s <= most_s <= 3600 s, got "
                f"{self.after_s!r} and {self.most_s!r}"
            )
        if not 0 < self.least_confidence < 1:
            raise UsageError(
                f"least_confidence: expected between 0 and 1, got {self.least_confidence!r}"
            )
        if not self.max_seconds > 0:
            raise UsageError(f"max_seconds: expected seconds > 0, got {self.max_seconds!r}")


class FreeUseCalibration:
    """Give ``on_spikes``, ``on_cursor`` and ``on_value`` to a ``DecodeLoop``.

    The cursor has to come from the task: it alone knows walls, assist and what was shown. While
    none comes nothing is inferred, and ``to_json`` says so. The model is opened once, here; what
    the loop calls opens nothing and waits for no fit.

    Args:
        artifact: the folder ``NAME.poyo``, of a decoder of two dimensions.
        decoder: what the loop decodes with, opened with ``tick_rate_hz``.
        settings: when and how.
        inference: what is believed about targets.
        fit: how to fit.
        save_to: where sessions that were taken are saved.
        epoch: number of the device's clock; when it goes up, what was kept is forgotten.
        on_event: told of each fit, offer and taking as JSON values, from other threads than the
            loop's.
    """

    def __init__(
        self,
        artifact: str | Path,
        decoder: Decoder,
        *,
        settings: FreeUseSettings | None = None,
        inference: InferenceSettings | None = None,
        fit: FitSettings | None = None,
        save_to: str | Path | None = None,
        epoch: Callable[[], int] = lambda: 0,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        if decoder.tick_rate_hz is None:
            raise UsageError("decoder: expected one opened with tick_rate_hz, got one in seconds")
        self._adapter = Adapter(Artifact.open(artifact))
        if self._adapter.spec.dim_out != 2:
            raise UsageError(
                f"{artifact}: expected a decoder of two dimensions, whose targets can be inferred, "
                f"got {self._adapter.spec.dim_out}"
            )
        self.settings, self.save_to = settings or FreeUseSettings(), save_to
        self.history: list[dict[str, Any]] = []
        """What became of each fit and offer, the newest ones."""
        self._prior = Prior.open(self._adapter.artifact)
        self._inference = inference or InferenceSettings()
        # Folds only say when to stop: both sessions are judged on targets of their own.
        self._fit_settings = fit or FitSettings(n_folds=2, unit_dropout=_UNIT_DROPOUT)
        self._decoder, self._rate = decoder, decoder.tick_rate_hz
        self._followed, self._on_event = Followed(decoder, epoch), on_event
        self._lock = threading.Lock()
        self._fit: BackgroundFit | None = None
        self._settled = threading.Event()
        self._offered: tuple[CalibratedSession, Session] | None = None
        self._rounds = 0
        self._lead_s = MOST_LEAD_S
        """The shortest so far: a decoder that is off makes it look longer, and each session would
        be later than the one before."""
        self._figures: dict[str, Any] = {}
        """Of the fit that ended last."""
        self._begin()

    def on_spikes(self, ticks: Int64, rows: Rows) -> None:
        """Keep spikes that were pushed: ticks (N,) and rows (N,), which may know their session."""
        self._follow()
        self._kept.spikes.add(tick=ticks, row=self._followed.as_rows(rows))
        if len(ticks):  # also while no value is used
            self._kept.forget(int(ticks.max()) - int(self.settings.most_s * self._rate))

    def on_cursor(self, ticks: Int64, positions: Float64) -> None:
        """Keep where the cursor was: ticks (N,) and positions (N, 2).

        Raises:
            UsageError: a cursor of another number of dimensions.
        """
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise UsageError(f"cursor: expected positions (N, 2), got {positions.shape}")
        self._follow()
        finite = np.isfinite(positions).all(1)
        self._kept.cursor.add(tick=ticks[finite], at=positions[finite])
        if finite.any():
            self._kept.cursor_tick = max(self._kept.cursor_tick, int(ticks[finite].max()))
            self._kept.forget(self._kept.cursor_tick - int(self.settings.most_s * self._rate))

    def on_value(self, value: LoopResult) -> None:
        """Keep a decoded value that lacks no data; begin a fit when there is enough."""
        self._follow()
        kept, tick = self._kept, int(value.result.t)
        fresh = tick - kept.cursor_tick <= STALE_S * self._rate
        if not _usable(value.result) or not fresh:
            return
        # Before gain, smoothing and assist: what this session made of the spikes.
        decoded = value.result.value if value.control is None else value.control.decoded
        kept.values.add(tick=np.array([tick]), at=np.asarray(decoded)[None])
        gap = (tick - kept.value_tick) / self._rate
        kept.value_tick = tick
        if 0 < gap <= STALE_S:
            kept.used_s += gap
        kept.forget(tick - int(self.settings.most_s * self._rate))
        if kept.used_s >= kept.next_s and not self.fitting:
            kept.next_s = kept.used_s + self.settings.after_s
            self._settled.clear()
            part, in_use = kept.copy(), self._decoder.session
            units = self._followed.unit_ids
            self._fit = BackgroundFit(
                lambda stop, note: self._fitted(part, units, in_use, stop, note),
                lambda done: self._ended(done, in_use),
            )

    @property
    def fitting(self) -> bool:
        """Whether a fit runs."""
        return self._fit is not None and not self._settled.is_set()

    @property
    def offered(self) -> CalibratedSession | None:
        """A session that passed and waits for ``take`` or ``reject``."""
        offer = self._offered
        return None if offer is None else offer[0]

    def take(self) -> str:
        """Decode with the offered session from the next window on; its id.

        Raises:
            UsageError: nothing is offered, or another session is in use than it was compared with.
        """
        with self._lock:
            offer, self._offered = self._offered, None
        if offer is None:
            raise UsageError("take: expected a session on offer, got none; wait for one")
        session, in_use = offer
        swap_for(session, self._decoder, in_use)
        self._kept.stale = True
        entry: dict[str, Any] = {"taken": session.header.session_id}
        if self.save_to is not None:
            try:
                session.save(self.save_to)
                entry["saved"] = str(self.save_to)
            except (PoyoEdgeError, OSError) as problem:  # It decodes all the same.
                entry["not_saved"] = str(problem)
                _log.warning("a session that was taken was not saved: %s", problem)
        self._note(entry)
        return session.header.session_id

    def reject(self) -> str:
        """Forget the offered session; its id.

        Raises:
            UsageError: nothing is offered.
        """
        with self._lock:
            offer, self._offered = self._offered, None
        if offer is None:
            raise UsageError("reject: expected a session on offer, got none")
        self._note({"rejected": offer[0].header.session_id})
        return offer[0].header.session_id

    def stop(self) -> None:
        """End a fit that runs with the best so far, and wait for it."""
        if self._fit is not None:
            self._fit.stop()
            self._settled.wait()

    def to_json(self) -> dict[str, Any]:
        """Seconds of use so far, what is on offer, and what became of each fit."""
        offered = self.offered
        with self._lock:
            return {
                "mode": self.settings.mode,
                "used_s": round(self._kept.used_s, 2),
                "cursor": self._kept.cursor_tick >= 0,
                "fitting": self.fitting,
                "offered": None if offered is None else offered.header.session_id,
                "history": [dict(entry) for entry in self.history],
            }

    def _follow(self) -> None:
        """Begin anew where what was kept means nothing, or came through another session."""
        if self._followed.changed() or self._kept.stale:
            self._begin()

    def _begin(self) -> None:
        self._followed.begin()
        self._kept = Kept(next_s=self.settings.after_s)

    def _fitted(
        self,
        kept: Kept,
        units: tuple[str, ...],
        in_use: Session,
        stop: threading.Event,
        note: OnProgress,
    ) -> CalibratedSession:
        """In the fit's thread: infer, fit, judge; refused with the reason."""
        times, cursor, decoded = kept.used(self._rate)
        inferred = infer_targets(times, cursor, decoded, settings=self._inference)
        labels = labels_from(
            inferred, times, cursor, decoded, least_confidence=self.settings.least_confidence,
            most_lead_s=self._lead_s,
        )  # fmt: skip
        self._lead_s = labels.lead_s
        self._rounds += 1
        name = f"{in_use.header.session_id.partition('+free-use')[0]}+free-use-{self._rounds}"
        calibrator = Calibrator(
            self._adapter, units, session_id=name, settings=self._fit_settings, prior=self._prior
        )
        spikes = kept.heard(self._rate)
        calibrator.add(*spikes, *labels.of(~labels.held_out))
        session = calibrator.fit(
            max_seconds=self.settings.max_seconds, start=in_use, stop=stop, on_progress=note
        )
        verdict = self._judged(session, in_use, spikes, labels)
        self._figures = {
            "session": name,
            "targets": labels.targets,
            "lead_s": labels.lead_s,
            "labelled_s": round(session.quality.labelled_s, 2),
            "wall_s": round(session.quality.wall_s, 2),
            "wiener": session.quality.wiener and session.quality.wiener.to_json(),
            **verdict.to_json(),
        }
        session.require_good()
        if verdict.reason:
            raise CheckFailedError(f"session {name!r}: {verdict.reason}")
        return session

    def _judged(
        self,
        new: Session,
        in_use: Session,
        spikes: tuple[Float64, Rows],
        labels: InferredLabels,
    ) -> Verdict:
        """Both on held-out labels; no window of which reaches into what was learned."""
        units = new.header.unit_ids
        collector = LabelCollector(units, 2, self._adapter.window_s)
        times, values = labels.of(labels.held_out)
        later = times >= labels.times[~labels.held_out][-1] + self._adapter.window_s
        collector.add(*spikes, times[later], values[later])
        held = collector.labels()
        some = np.arange(0, len(held.times), max(1, -(-len(held.times) // _MOST_JUDGED)))
        row = {unit: i for i, unit in enumerate(in_use.header.unit_ids)}
        known, all_new = np.array([row[unit] for unit in units]), np.arange(len(units))
        decoded = [
            self._adapter.predict(
                held, some, session.unit_embedding[rows], session.session_embedding,
                session.encoder, session.wiener and session.wiener.of_units(rows),
            )
            for rows, session in ((all_new, new), (known, in_use))
        ]  # fmt: skip
        return judge(
            held.values[some], *decoded, targets=labels.targets_held_out,
            period_s=held.seconds / max(1, len(some)),
        )  # fmt: skip

    def _ended(self, fit: BackgroundFit, in_use: Session) -> None:
        """In the fit's thread: offer or take what is good, and note the reason of what is not."""
        entry, self._figures = self._figures, {}
        try:
            session = fit.result(0)
            require_in_use(session, self._decoder, in_use)
            with self._lock:
                self._offered = (session, in_use)
            self._note({**entry, "passed": True})
            if self.settings.mode == "take":
                self.take()
        except Exception as error:  # The decoder goes on with the session in use.
            entry.setdefault("passed", False)
            entry["reason"] = str(error)
            self._note(entry)
            _log.warning("a recalibrated session was not taken: %s", error)
        finally:
            self._settled.set()

    def _note(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self.history.append(entry)
            del self.history[:-_MOST_HISTORY]
        self._on_event(dict(entry))


def _usable(result: Result) -> bool:
    """VALID, or DEGRADED for the very drift that is to be mended and for nothing else."""
    if result.status is Status.DEGRADED:
        return _OF_THE_ARRAY.issuperset(result.flags)
    return result.status is Status.VALID
