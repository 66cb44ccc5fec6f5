"""Fit a new session on the device: labelled data in, a checked session out."""

from __future__ import annotations

import dataclasses
import datetime
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poyo_edge.artifact import Artifact, Session, SessionHeader, activity_of
from poyo_edge.calibration.background import BackgroundFit
from poyo_edge.calibration.calibrated import CalibratedSession, Quality
from poyo_edge.calibration.examining import Examination, examined
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.checks import remarks, require_usable
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.fit.labels import LabelCollector, Labels
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.search import OnProgress, Search
from poyo_edge.calibration.fit.start import from_session, guess_from
from poyo_edge.calibration.fit.workers import one_blas_thread
from poyo_edge.calibration.gate import learned_until
from poyo_edge.calibration.intention import IntentionLabels, IntentionReport
from poyo_edge.calibration.starts import FIRST_GUESS, IN_USE, START, Judge, Turns, best_of
from poyo_edge.errors import UsageError
from poyo_edge.spec import OutputScale


class Calibrator:
    """Collects labelled data of one new session and fits it. Made by ``Calibrator.open``.

    ``add`` may be called while a fit runs (``start``); the fit works on what was there before.
    """

    def __init__(
        self,
        adapter: Adapter,
        unit_ids: Sequence[str],
        *,
        session_id: str,
        settings: FitSettings | None = None,
        prior: Prior | None = None,
    ) -> None:
        if not session_id:
            raise UsageError("session_id: expected a name for the new session, got none")
        self.session_id = session_id
        self.settings = settings or FitSettings()
        self._adapter = adapter
        self._artifact = adapter.artifact
        self._prior = prior or Prior.open(adapter.artifact)
        self._collector = LabelCollector(unit_ids, self.dim_out, adapter.window_s)
        self._lock = threading.Lock()
        self._last: Search | None = None
        self._reports: tuple[IntentionReport, ...] = ()

    @classmethod
    def open(
        cls,
        artifact: str | Path,
        unit_ids: Sequence[str],
        *,
        session_id: str | None = None,
        threads: int = 1,
        settings: FitSettings | None = None,
        subject: str | None = None,
    ) -> Calibrator:
        """Open an artifact to calibrate a session of these units.

        Args:
            artifact: the folder ``NAME.poyo``.
            unit_ids: ids of the session's units; rows count along them.
            session_id: name of the new session; None takes the current time.
            threads: windows worked on at once. More than one may disturb a decoder beside it.
            settings: how to fit.
            subject: the animal, if known: others' electrodes of the same names then say nothing.

        Raises:
            ArtifactError: damaged, or exported without what calibration needs.
            UsageError: no units, or an id twice.
            MissingExtraError, BackendError: ONNX Runtime is absent or fails.
        """
        name = session_id if session_id is not None else f"calibrated-{_now()}"
        adapter = Adapter(Artifact.open(artifact), threads=threads)
        prior = Prior.open(adapter.artifact, subject)
        return cls(adapter, unit_ids, session_id=name, settings=settings, prior=prior)

    def anew(self, unit_ids: Sequence[str], session_id: str) -> Calibrator:
        """One without labels that opens nothing: the same model and settings, another session.

        Raises:
            UsageError: no units, an id twice, or no name.
        """
        settings, prior = self.settings, self._prior
        return Calibrator(
            self._adapter, unit_ids, session_id=session_id, settings=settings, prior=prior
        )

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Ids of the session's units."""
        return self._collector.unit_ids

    @property
    def dim_out(self) -> int:
        """Dimensions of the behaviour."""
        return self._adapter.spec.dim_out

    @property
    def output(self) -> OutputScale:
        """Scale and unit of the model."""
        return self._adapter.artifact.manifest.output

    @property
    def labelled_s(self) -> float:
        """Labelled seconds so far; samples whose window is not whole do not count."""
        with self._lock:
            collected = self._collector.so_far()
        return collected.labels().seconds if collected.n_pieces else 0.0

    def add(
        self,
        spike_times: npt.ArrayLike,
        spike_units: npt.ArrayLike,
        behavior_times: npt.ArrayLike,
        behavior: npt.ArrayLike,
    ) -> None:
        """Hand over labelled data, as trials arrive. What is refused changes nothing.

        A label at t needs the spikes of the window before it: begin a piece one window before
        its first label, or where the last one ended.

        Args:
            spike_times: (M,) seconds.
            spike_units: (M,) rows of ``unit_ids``, or ids. Spikes of others are left out.
            behavior_times: (S,) ascending seconds on the same clock.
            behavior: (S, O) in behaviour units.

        Raises:
            UsageError: shapes, NaN, order, or times that do not overlap.
        """
        with self._lock:
            self._collector.add(spike_times, spike_units, behavior_times, behavior)

    def add_intentions(
        self,
        spike_times: npt.ArrayLike,
        spike_units: npt.ArrayLike,
        labels: IntentionLabels,
        *,
        heard: npt.ArrayLike | None = None,
    ) -> None:
        """Hand over labels of intention (``lead.with_lead``); the gate then judges by its rules.

        Args:
            spike_times, spike_units: see ``add``.
            labels: those of them that are labelled count.
            heard: (K, 2) seconds within which spikes were heard; None says throughout.

        Raises:
            UsageError: see ``add``.
        """
        times, units = np.asarray(spike_times, np.float64), np.asarray(spike_units)
        spans = [(-math.inf, math.inf)] if heard is None else np.asarray(heard).tolist()
        for start, end in spans:
            spikes = (times >= start) & (times < end)
            of = labels.labelled & (labels.times >= start) & (labels.times < end)
            if of.any():
                self.add(times[spikes], units[spikes], labels.times[of], labels.values[of])
        with self._lock:
            self._reports = (*self._reports, labels.report)

    def fit(
        self,
        *,
        max_seconds: float = math.inf,
        seed: int = 0,
        start: Session | str | Path | None = None,
        in_use: Session | str | Path | None = None,
        stop: threading.Event | None = None,
        on_progress: OnProgress | None = None,
        resume_file: str | Path | None = None,
    ) -> CalibratedSession:
        """Fit the session to everything added so far.

        The same fit runs on folds held out in time and on all labels; the latter is taken where
        the former were not clearly worse than at their best. Deterministic for a seed, unless
        time or a stop ends it.

        Args:
            max_seconds: wall time that it may take.
            seed: of the choice of windows.
            start: begin with this session (a ``Session``, a file or an id) where unit ids agree.
            in_use: judge this session too; a new one that is worse is refused later on. One that
                was fitted to part of these labels is judged on later ones, and stays while there
                are too few of them (``calibration.gate``). Without ``start`` a second fit begins
                with it, where time allows, and the better one by the gate is taken.
            stop: set it to end early with the best so far; so does Ctrl-C in the main thread.
            on_progress: called after each step.
            resume_file: keep the state here after each judgement, and begin with what is there
                from the same labels, settings, seed and start. Removed when the fit has ended
                by itself.

        Raises:
            UsageError: labels that no decoder can be fitted to, or no time.
            CheckFailedError: the loss became NaN or infinite.
        """
        began = time.monotonic()
        if not max_seconds > 0:
            raise UsageError(f"max_seconds: expected seconds > 0, got {max_seconds!r}")
        start, in_use = self._own("start", start), self._own("in_use", in_use)
        with self._lock:  # only to look: who adds never waits while labels are put in order
            collected, reports = self._collector.so_far(), self._reports
        labels, unknown = collected.labels(), collected.unknown_spikes
        output = self._artifact.manifest.output
        require_usable(labels, self._adapter.window_s, self.settings.n_folds, output)
        notes = remarks(labels, output, unknown)
        notes += [one.note for one in reports if one.note]
        judge = Judge(
            session_id=self.session_id,
            adapter=self._adapter,
            unit_ids=self.unit_ids,
            in_use=in_use,
            learned_until=None if in_use is None else self._learned_until(in_use, labels),
            reports=reports,
            notes=tuple(notes),
            began=began,
        )
        # What a person intended is learned to be used in a loop, where movements are held.
        prior = self._prior.in_control() if reports else self._prior
        guess = guess_from(self._artifact, prior, self.unit_ids, labels)
        begins = {FIRST_GUESS: guess}
        if start is not None:
            begins = {START: from_session(self.unit_ids, start, guess)}
        elif in_use is not None and not {*in_use.header.unit_ids}.isdisjoint(self.unit_ids):
            begins[IN_USE] = from_session(self.unit_ids, in_use, guess)
        names_count = start is None and not guess.from_afar and prior.guess is not None
        search = partial(
            Search, self._adapter, settings=self.settings, seed=seed,
            all_folds=judge.learned_until is not None,
        )  # fmt: skip
        searches = {name: search(prior, labels, start=begin) for name, begin in begins.items()}
        turns = Turns(
            deadline=began + max_seconds,
            stop=stop or threading.Event(),
            on_progress=on_progress or (lambda _: None),
            steps=sum(search.steps * len(search.fits) for search in searches.values()),
        )
        other = start or in_use
        with one_blas_thread:
            taken = best_of(
                searches,
                judge,
                turns,
                knows=other is not None and _fitted_here(other, self.session_id),
                resume_file=resume_file,
                otherwise=partial(self._unknown, search, prior, labels) if names_count else None,
            )
        self._last = taken.search
        wall_s = time.monotonic() - began
        return self._session(taken.search, dataclasses.replace(taken.quality, wall_s=wall_s))

    def start(
        self,
        *,
        max_seconds: float = math.inf,
        seed: int = 0,
        start: Session | str | Path | None = None,
        in_use: Session | str | Path | None = None,
        on_done: Callable[[BackgroundFit], None] | None = None,
    ) -> BackgroundFit:
        """``fit`` in a background thread of low priority, while a decoder keeps decoding.

        Args:
            max_seconds, seed, start, in_use: see ``fit``.
            on_done: called in that thread when it has ended, for example to swap the session in.
        """

        def run(stop: threading.Event, note: OnProgress) -> CalibratedSession:
            return self.fit(
                max_seconds=max_seconds,
                seed=seed,
                start=start,
                in_use=in_use,
                stop=stop,
                on_progress=note,
            )

        return BackgroundFit(run, on_done)

    def examine(
        self,
        *,
        shares: Sequence[float] = (0.25, 0.5),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Examination:
        """Look behind the last fit: each unit's part, units alike, R² against labelled seconds.

        Takes some times as long as the fit: all units are taken away in turn, and the fit is
        repeated on each share of the labels that is long enough.

        Args:
            shares: of the labels that a fold learns from, judged on the same blocks; the whole
                is known.
            on_progress: called after each part with how many are done and how many there are.

        Raises:
            UsageError: nothing was fitted yet, or a share is not between 0 and 1.
        """
        search = self._last
        if search is None:
            raise UsageError("examine: expected a fit before it, got none; call fit first")
        if not all(0 < share < 1 for share in shares):
            raise UsageError(f"shares: expected numbers between 0 and 1, got {list(shares)}")
        with one_blas_thread:
            return examined(
                self._adapter, search, self.settings, self.unit_ids, shares, on_progress
            )

    def _unknown(self, search: Callable[..., Search], prior: Prior, labels: Labels) -> Search:
        """A search that begins with what is true of any unit, whatever the units are called."""
        prior = prior.of_nobody()
        begin = guess_from(self._artifact, prior, self.unit_ids, labels)
        return search(prior, labels, start=begin)

    def _session(self, search: Search, quality: Quality) -> CalibratedSession:
        best, labels = search.chosen.tables[-1], search.labels
        header = SessionHeader(
            session_id=self.session_id,
            unit_ids=self.unit_ids,
            core_hash=self._artifact.manifest.core_hash,
            method="calibration",
            labelled_s=round(quality.labelled_s, 3),
            steps=quality.steps,
            r2_heldout=round(quality.r2_heldout, 6),
            created=_now(),
            labels=tuple(report.made() for report in quality.labels),
            notes=quality.lasting_notes,
            wiener_share=quality.wiener_share,
        )
        return CalibratedSession(
            header=header,
            unit_embedding=best.units,
            session_embedding=best.session,
            encoder=best.encoder,
            wiener=best.wiener,
            activity=activity_of(
                labels.spike_times,
                labels.spike_rows,
                labels.values,
                n_units=labels.n_units,
                stretches=labels.stretches,
                window_s=self._adapter.window_s,
            ),
            quality=quality,
            learned_until=float(labels.times[-1]),
        )

    def _own(self, name: str, session: Session | str | Path | None) -> Session | None:
        """A session of this artifact's core, opened if it is named by file or id."""
        if session is None or isinstance(session, Session):
            own = self._artifact.manifest.core_hash
            if session is not None and session.header.core_hash != own:
                raise UsageError(
                    f"{name}: expected a session made for core {own[:12]}, got "
                    f"{session.header.session_id!r} for {session.header.core_hash[:12]}; name one "
                    f"of this artifact"
                )
            return session
        return self._artifact.session(session)

    def _learned_until(self, in_use: Session, labels: Labels) -> float | None:
        known = in_use.learned_until if isinstance(in_use, CalibratedSession) else None
        return learned_until(in_use, self.session_id, labels, known)


def _fitted_here(session: Session, session_id: str) -> bool:
    """Whether an earlier calibration of the same recording session made it."""
    header = session.header
    return header.method == "calibration" and header.session_id == session_id


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
