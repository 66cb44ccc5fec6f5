"""Calibrate while decoding: labelled trials of a feed are collected, fitted beside, swapped in.

Labels are the behaviour that the feed brings, or intentions that are made of its trials and cursor.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Session
from poyo_edge.calibration.background import BackgroundFit
from poyo_edge.calibration.calibrated import CalibratedSession
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.fit.search import OnProgress
from poyo_edge.calibration.following import Followed, swap_for
from poyo_edge.calibration.intention import IntentionSettings
from poyo_edge.calibration.lead import with_lead
from poyo_edge.calibration.task_log import TaskLog
from poyo_edge.columns import Columns
from poyo_edge.errors import PoyoEdgeError, UsageError
from poyo_edge.files.writing import write_bytes
from poyo_edge.records import JsonRecord
from poyo_edge.runtime.decoder import Decoder
from poyo_edge.trials import Trial

_log = logging.getLogger(__name__)
_SPIKE = np.dtype([("tick", "<i8"), ("row", "<i4")])
_PIECE_S = 1.0
_LONGEST_HOLE_S = 0.25
"""Between two labels; a longer one is a pause, which is not labelled time."""
_MOST_LABELLED_S = 1800.0
_MOST_KEPT_S = 3600.0
"""Spikes that may be labelled later, when their trial is known."""


class LoopCalibration:
    """Give ``on_spikes`` and ``on_labels`` to a ``DecodeLoop``; fits start by themselves.

    With ``intention`` give ``on_spikes``, ``on_trial`` and ``on_cursor`` instead.

    Each fit is compared with the session in use (``calibration.gate``). One that passes is swapped
    in between two windows and, with ``save_to``, saved; one that does not leaves the session in
    use where it is, and the reason is noted. The model is opened once, here; what the loop calls
    opens nothing, saves nothing and waits for no fit.

    Args:
        artifact: the folder ``NAME.poyo``.
        decoder: what the loop decodes with, opened with ``tick_rate_hz``. The new session has the
            units of its session.
        after_s: labelled seconds to begin a fit with; the next one begins after as many more.
        save_to: where the newest good session is saved; one that this run saved there before stays
            beside it as ``NAME_1.session`` and so on, as a journal may name each.
        max_seconds: wall time of one fit.
        epoch: number of the device's clock; when it goes up, the labels so far are forgotten. So
            they are when the decoder gets a session of other units.
        settings: how to fit.
        intention: make labels of intention from trials and cursor; None takes measured behaviour.
    """

    def __init__(
        self,
        artifact: str | Path,
        decoder: Decoder,
        *,
        after_s: float,
        save_to: str | Path | None = None,
        max_seconds: float = 120.0,
        epoch: Callable[[], int] = lambda: 0,
        settings: FitSettings | None = None,
        intention: IntentionSettings | None = None,
    ) -> None:
        if not after_s >= 5:
            raise UsageError(f"after_s: expected at least 5 labelled seconds, got {after_s!r}")
        if decoder.tick_rate_hz is None:
            raise UsageError("decoder: expected one opened with tick_rate_hz, got one in seconds")
        self.after_s, self.save_to, self.max_seconds = after_s, save_to, max_seconds
        self.labelled_s = 0.0
        self.history: list[dict[str, Any]] = []
        """What became of each fit: R², seconds, control, and whether it was swapped in."""
        self._intention = intention
        self._decoder, self._followed = decoder, Followed(decoder, epoch)
        self._rate = decoder.tick_rate_hz
        self._calibrator = Calibrator.open(artifact, decoder.unit_ids, settings=settings)
        self._name, self._begun = self._calibrator.session_id, 0
        self._in_use: Session = decoder.session
        self._fit: BackgroundFit | None = None
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._spikes = Columns(_SPIKE)
        self._labels: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
        self._newest: int | None = None
        self._next_s = after_s
        self._begin()

    def on_spikes(self, ticks: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> None:
        """Keep spikes that were pushed: ticks (N,) and rows (N,).

        Rows that know their session are looked up by their ids, should it have been swapped.
        """
        self._follow()
        self._spikes.add(tick=ticks, row=self._followed.as_rows(rows))
        newest = int(ticks.max())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        if self._task is not None:
            self._forget_old_spikes(_MOST_KEPT_S)
        elif not self._labels:
            self._forget_old_spikes(2 * self._decoder.window_s)

    def on_labels(self, ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """Keep behaviour, ticks (N,) and values (N, D); begin a fit when there is enough.

        Raises:
            UsageError: labels of another number of dimensions, or that do not fit the spikes.
        """
        if self._intention is not None:
            raise UsageError("labels: expected trials and cursor of a task, got behaviour")
        self._follow()
        if values.shape[1] != self._calibrator.dim_out:
            raise UsageError(
                f"labels: expected {self._calibrator.dim_out} dimensions, got {values.shape[1]}"
            )
        if self.labelled_s >= _MOST_LABELLED_S:
            return
        self._labels.append((ticks, values))
        span = (int(ticks[-1]) - int(self._labels[0][0][0])) / self._rate
        if span >= _PIECE_S:
            self._hand_over()
        self._begin_fit()

    def on_trial(self, trial: Trial) -> None:
        """Keep what is known of a trial by now; begin a fit when enough of them have ended."""
        self._follow()
        if self._task is None:
            raise UsageError("trials: expected labels of intention to be asked for, got none")
        if self._task.labelled_s < _MOST_LABELLED_S and self._task.on_trial(trial):
            self.labelled_s = self._task.labelled_s
            self._begin_fit()

    def on_cursor(self, ticks: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> None:
        """Keep where the cursor was shown, ticks (N,) and positions (N, D).

        Raises:
            UsageError: positions of another number of dimensions.
        """
        self._follow()
        if self._task is None:
            raise UsageError("cursor: expected labels of intention to be asked for, got none")
        if positions.shape[1:] != (self._calibrator.dim_out,):
            raise UsageError(
                f"cursor: expected {self._calibrator.dim_out} coordinates, as the model decodes, "
                f"got an array of shape {positions.shape}"
            )
        self._task.on_cursor(ticks, positions)

    def _begin_fit(self) -> None:
        if self.labelled_s < self._next_s or self.fitting:
            return
        self._next_s = self.labelled_s + self.after_s
        self._settled.clear()
        self._in_use = self._decoder.session
        if self._task is None:
            self._fit = self._calibrator.start(
                max_seconds=self.max_seconds, in_use=self._in_use, on_done=self._ended
            )
            return
        self._fit = BackgroundFit(self._to_intentions(self._task.so_far()), self._ended)

    def _to_intentions(
        self, task: TaskLog
    ) -> Callable[[threading.Event, OnProgress], CalibratedSession]:
        """A fit to the labels that a task gives, with the spikes so far.

        They are made in its thread. Each fit makes all labels anew, since with more of them the
        neural lead is found better.
        """
        spikes, units, rate = self._spikes.copy(), self._followed.unit_ids, self._rate
        calibrator, in_use = self._calibrator.anew(units, self._calibrator.session_id), self._in_use

        def fit(stop: threading.Event, note: OnProgress) -> CalibratedSession:
            made = task.labels()
            heard = spikes.rows()
            heard = heard[heard["tick"].argsort(kind="stable")]
            ticks, rows = heard["tick"], heard["row"]
            rows, seconds = rows[rows >= 0], ticks[rows >= 0] / rate
            made = with_lead(made, task.settings, seconds, rows, len(units))
            calibrator.add_intentions(seconds, rows, made)
            return calibrator.fit(
                max_seconds=self.max_seconds, in_use=in_use, stop=stop, on_progress=note
            )

        return fit

    @property
    def fitting(self) -> bool:
        """Whether a fit runs."""
        return self._fit is not None and not self._settled.is_set()

    def stop(self) -> None:
        """End a fit that runs with the best so far, and wait for it."""
        if self._fit is not None:
            self._fit.stop()
            self._settled.wait()

    def to_json(self) -> dict[str, Any]:
        """Labelled seconds so far, and what became of each fit."""
        with self._lock:
            return {
                "labelled_s": round(self.labelled_s, 2),
                "fitting": self.fitting,
                "fits": [dict(entry) for entry in self.history],
            }

    def _follow(self) -> None:
        """Begin anew where the labels so far mean nothing any more."""
        if self._followed.changed():
            self._begin()

    def _begin(self) -> None:
        self._begun += 1
        name = self._name if self._begun == 1 else f"{self._name}-{self._begun}"
        self._calibrator = self._calibrator.anew(self._followed.begin(), name)
        self._spikes, self._labels, self._newest = Columns(_SPIKE), [], None
        self._labelled_to = -np.inf
        self._task = None if self._intention is None else TaskLog(self._intention, self._rate)
        self.labelled_s, self._next_s = 0.0, self.after_s

    def _forget_old_spikes(self, seconds: float) -> None:
        """Before a trial only the last windows count."""
        assert self._newest is not None
        self._spikes.forget(self._newest - int(seconds * self._rate))

    def _hand_over(self) -> None:
        """Labels and the spikes around them become one piece."""
        ticks = np.concatenate([one for one, _ in self._labels])
        values = np.concatenate([one for _, one in self._labels])
        self._labels = []
        times, first = np.unique(ticks, return_index=True)
        seconds = times / self._rate
        spikes = self._spikes.rows()
        if not len(spikes):
            return
        self._calibrator.add(spikes["tick"] / self._rate, spikes["row"], seconds, values[first])
        self._spikes.forget(int(times[-1] - 2 * self._decoder.window_s * self._rate))
        gaps = np.diff(seconds, prepend=self._labelled_to)
        self._labelled_to = float(seconds[-1])
        self.labelled_s += float(gaps[(gaps > 0) & (gaps <= _LONGEST_HOLE_S)].sum())

    def _ended(self, fit: BackgroundFit) -> None:
        """In the fit's thread: swap in what is good."""
        entry: dict[str, Any] = {"swapped": False}
        try:
            session = fit.result(0)
            entry |= {
                "r2_heldout": round(session.quality.r2_heldout, 4),
                "labelled_s": round(session.quality.labelled_s, 2),
                "wall_s": round(session.quality.wall_s, 2),
                "r2_in_use": _rounded(session.quality.r2_in_use),
                "control": _as_json(session.quality.control),
                "labels": [one.to_json() for one in session.quality.labels],
                "wiener": _as_json(session.quality.wiener),
            }
            for note in session.quality.lasting_notes:
                _log.warning("session %r: %s", session.header.session_id, note)
            swap_for(session, self._decoder, self._in_use)
            entry["swapped"] = True
            if self.save_to is not None:
                entry |= self._saved(session, Path(self.save_to))
        except Exception as error:  # The decoder goes on with the session in use.
            entry["reason"] = str(error)
            _log.warning("a fitted session was not taken: %s", error)
        with self._lock:
            self.history.append(entry)
        self._settled.set()

    def _saved(self, session: CalibratedSession, path: Path) -> dict[str, str]:
        """Save a session that is in use already, or say why it could not be."""
        try:
            self._keep_saved(path)
            session.save(path)
        except (OSError, PoyoEdgeError) as error:
            _log.warning("a fitted session is in use and could not be saved: %s", error)
            return {"not_saved": str(error)}
        return {"saved": str(path)}

    def _keep_saved(self, path: Path) -> None:
        """What this run saved there before gets a number of its own."""
        before = next((one for one in self.history if one.get("saved") == str(path)), None)
        if before is None or not path.exists():
            return
        names = (path.with_stem(f"{path.stem}_{i}") for i in itertools.count(1))
        kept = next(name for name in names if not os.path.lexists(name))
        write_bytes(kept, path.read_bytes())
        with self._lock:
            before["saved"] = str(kept)


def _as_json(found: JsonRecord | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()


def _rounded(r2: float | None) -> float | None:
    return None if r2 is None else round(r2, 4)
