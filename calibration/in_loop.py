"""Calibrate while decoding: labelled trials of a feed are collected, fitted beside, swapped in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Session
from poyo_edge.calibration.background import BackgroundFit
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.following import Followed, swap_for
from poyo_edge.errors import UsageError
from poyo_edge.runtime.decoder import Decoder

_log = logging.getLogger(__name__)
_PIECE_S = 1.0
_LONGEST_HOLE_S = 0.25
"""Between two labels; a longer one is a pause, which is not labelled time."""
_MOST_LABELLED_S = 1800.0


class LoopCalibration:
    """Give ``on_spikes`` and ``on_labels`` to a ``DecodeLoop``; fits start by themselves.

    Each fit is compared with the session in use (``calibration.gate``). One that passes is swapped
    in between two windows and, with ``save_to``, saved; one that does not leaves the session in
    use where it is, and the reason is noted. The model is opened once, here; what the loop calls
    opens nothing, saves nothing and waits for no fit.

    Args:
        artifact: the folder ``NAME.poyo``.
        decoder: what the loop decodes with, opened with ``tick_rate_hz``. The new session has the
            units of its session.
        after_s: labelled seconds to begin a fit with; the next one begins after as many more.
        save_to: where good sessions are saved.
        max_seconds: wall time of one fit.
        epoch: number of the device's clock; when it goes up, the labels so far are forgotten. So
            they are when the decoder gets a session of other units.
        settings: how to fit.
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
    ) -> None:
        if not after_s >= 5:
            raise UsageError(f"after_s: expected at least 5 labelled seconds, got {after_s!r}")
        if decoder.tick_rate_hz is None:
            raise UsageError("decoder: expected one opened with tick_rate_hz, got one in seconds")
        self.after_s, self.save_to, self.max_seconds = after_s, save_to, max_seconds
        self.labelled_s = 0.0
        self.history: list[dict[str, Any]] = []
        """What became of each fit: R², seconds, and whether it was swapped in."""
        self._decoder, self._followed = decoder, Followed(decoder, epoch)
        self._rate = decoder.tick_rate_hz
        self._calibrator = Calibrator.open(artifact, decoder.unit_ids, settings=settings)
        self._name, self._begun = self._calibrator.session_id, 0
        self._in_use: Session = decoder.session
        self._fit: BackgroundFit | None = None
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._spikes: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]] = []
        self._labels: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
        self._newest: int | None = None
        self._next_s = after_s
        self._begin()

    def on_spikes(self, ticks: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> None:
        """Keep spikes that were pushed: ticks (N,) and rows (N,).

        Rows that know their session are looked up by their ids, should it have been swapped.
        """
        self._follow()
        self._spikes.append((ticks, self._followed.as_rows(rows)))
        newest = int(ticks.max())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        if not self._labels:
            self._forget_old_spikes()

    def on_labels(self, ticks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """Keep behaviour, ticks (N,) and values (N, D); begin a fit when there is enough.

        Raises:
            UsageError: labels of another number of dimensions, or that do not fit the spikes.
        """
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
        if self.labelled_s >= self._next_s and not self.fitting:
            self._next_s = self.labelled_s + self.after_s
            self._settled.clear()
            self._in_use = self._decoder.session
            self._fit = self._calibrator.start(
                max_seconds=self.max_seconds, in_use=self._in_use, on_done=self._ended
            )

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
        self._spikes, self._labels, self._newest = [], [], None
        self._labelled_to = -np.inf
        self.labelled_s, self._next_s = 0.0, self.after_s

    def _forget_old_spikes(self) -> None:
        """Before a trial only the last window counts."""
        assert self._newest is not None
        earliest = self._newest - 2 * self._decoder.window_s * self._rate
        while self._spikes and int(self._spikes[0][0].max()) < earliest:
            del self._spikes[0]

    def _hand_over(self) -> None:
        """Labels and the spikes around them become one piece."""
        ticks = np.concatenate([one for one, _ in self._labels])
        values = np.concatenate([one for _, one in self._labels])
        self._labels = []
        times, first = np.unique(ticks, return_index=True)
        seconds = times / self._rate
        if not self._spikes:
            return
        spike_ticks = np.concatenate([one for one, _ in self._spikes])
        rows = np.concatenate([one for _, one in self._spikes])
        self._calibrator.add(spike_ticks / self._rate, rows, seconds, values[first])
        recent = int(times[-1] - 2 * self._decoder.window_s * self._rate)
        self._spikes = [one for one in self._spikes if int(one[0].max()) >= recent]
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
            }
            swap_for(session, self._decoder, self._in_use)
            entry["swapped"] = True
            if self.save_to is not None:
                session.save(self.save_to)
                entry["saved"] = str(self.save_to)
        except Exception as error:  # The decoder goes on with the session in use.
            entry["reason"] = str(error)
            _log.warning("a fitted session was not taken: %s", error)
        with self._lock:
            self.history.append(entry)
        self._settled.set()


def _rounded(r2: float | None) -> float | None:
    return None if r2 is None else round(r2, 4)
