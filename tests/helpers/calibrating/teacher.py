"""Labelled data that can be learned without error, because a model made it.

The weights of the tiny artifact are random, so they suit no behaviour from outside. Here new units
get embeddings (the truth) and spikes whose rates rise and fall; what these decode to is the
behaviour. Who finds the embeddings decodes it exactly.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers.paths import TINY
from poyo_edge.arrays import Float32, Float64
from poyo_edge.artifact import Artifact, Session, SessionHeader
from poyo_edge.calibration import CalibratedSession, Calibrator, FitSettings
from poyo_edge.calibration.fit.adapter import Adapter
from poyo_edge.calibration.fit.fitting import Tables
from poyo_edge.calibration.fit.labels import LabelCollector, Labels
from poyo_edge.calibration.fit.pace import Progress
from poyo_edge.calibration.fit.prior import Prior
from poyo_edge.calibration.fit.search import Search
from poyo_edge.calibration.intention import IntentionLabels, IntentionReport
from poyo_edge.filters.wiener import bin_counts
from poyo_edge.metrics import r2_per_dim
from poyo_edge.runtime import Decoder

Rows = npt.NDArray[np.int64]

T = 1.0
DIM = 16
LEARN = FitSettings(
    steps=60,
    judge_every=10,
    batch_size=32,
    lr_units=0.1,
    lr_session=0.05,
    pull=0.0,
    tail_s=1e-3,
    early_weight=0.0,
    n_folds=2,
    n_blocks=4,
    judged_on_the_way=200,
)
"""Only the last sample of a window counts: the teacher decoded each from a window of its own."""
QUICK = dataclasses.replace(LEARN, steps=6, judge_every=2, batch_size=8)
"""Too short to learn anything, long enough for four judgements."""
SOUND = dataclasses.replace(QUICK, steps=4, judge_every=4, lr_units=1e-4, lr_session=1e-4)
"""Begun with the truth it ends near the truth."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Spikes of new units, and the behaviour that their true embeddings decode from them."""

    truth: Session
    spike_times: Float64
    spike_rows: Rows
    times: Float64
    values: Float64

    @property
    def unit_ids(self) -> tuple[str, ...]:
        return self.truth.header.unit_ids

    def labels(self) -> Labels:
        collector = LabelCollector(self.unit_ids, self.values.shape[1], T)
        collector.add(self.spike_times, self.spike_rows, self.times, self.values)
        return collector.labels()

    def calibrator(self, settings: FitSettings = LEARN) -> Calibrator:
        """One that has been given the lesson."""
        made = Calibrator(
            adapter(), self.unit_ids, session_id=self.truth.header.session_id, settings=settings
        )
        self.give(made)
        return made

    def give(self, calibrator: Calibrator) -> None:
        calibrator.add(self.spike_times, self.spike_rows, self.times, self.values)

    def intend(self, calibrator: Calibrator, *, from_s: float = -np.inf) -> None:
        """The lesson as what somebody intended, with labels of what is later than a time."""
        labels = IntentionLabels(
            times=self.times, values=self.values, labelled=self.times > from_s, report=REPORT
        )
        calibrator.add_intentions(self.spike_times, self.spike_rows, labels)


REPORT = IntentionReport(
    kind="proportional", reaction_s=0.2, speed=20.0, per_s=4.0, labelled_s=40.0, trials_used=20,
    trials_left_out=0,
)  # fmt: skip


@functools.cache
def adapter() -> Adapter:
    """The tiny artifact's."""
    return Adapter(Artifact.open(TINY))


@functools.cache
def prior() -> Prior:
    return Prior.open(adapter().artifact)


@functools.cache
def lesson(seed: int = 0, *, duration_s: float = 40.0, n_units: int = 6) -> Lesson:
    """Labelled at 10 Hz from 0 on; the same new units for any seed."""
    spikes, rows = spike_trains(seed, duration_s, n_units)
    times = np.arange(round(duration_s * 10)) / 10
    truth = new_session(n_units)
    return Lesson(
        truth=truth,
        spike_times=spikes,
        spike_rows=rows,
        times=times,
        values=decoded(truth, spikes, rows, times),
    )


def new_session(n_units: int, *, away: float = 0.3) -> Session:
    """Unit ids that no session has, embedded between the prior's mean and trained units."""
    trained, share = adapter().artifact.session("tiny_a"), np.float32(away)
    mean = at_mean(n_units)
    return session_of(
        mean.units + share * (trained.unit_embedding[:n_units] - mean.units),
        mean.session + share * (trained.session_embedding - mean.session),
    )


def drifted(session: Session, by: float, seed: int = 0) -> Session:
    """The same units, moved by so many of the trained units' standard deviations."""
    z = np.random.default_rng(seed).standard_normal(session.unit_embedding.shape)
    moved = session.unit_embedding + by * z @ prior().unit_root.T
    return session_of(moved.astype(np.float32), session.session_embedding)


def session_of(units: Float32, session: Float32) -> Session:
    header = SessionHeader(
        session_id="day",
        unit_ids=tuple(f"day/new_{i}" for i in range(len(units))),
        core_hash=adapter().artifact.manifest.core_hash,
    )
    return Session(header=header, unit_embedding=units, session_embedding=session)


def spike_trains(seed: int, duration_s: float, n_units: int) -> tuple[Float64, Rows]:
    """Spikes in time's order, some 10 a second of each unit, and their rows."""
    rng = np.random.default_rng(seed)
    grid = np.arange(0, duration_s, 1e-3)
    phase, period = rng.uniform(0, 2 * np.pi, (n_units, 3)), rng.uniform(2, 6, (n_units, 3))
    swing = np.sin(2 * np.pi * grid[:, None, None] / period + phase).sum(-1)
    fired = rng.random(swing.shape) < np.minimum(6 * np.exp(0.8 * swing), 60) * 1e-3
    at, rows = np.nonzero(fired)
    times = grid[at] + rng.uniform(0, 1e-3, len(at))
    order = np.argsort(times)
    return times[order], rows[order]


def decoded(session: Session, spikes: Float64, rows: Rows, times: Float64) -> Float64:
    """What a session decodes causally at the times."""
    labels = Labels(
        n_units=len(session.unit_embedding),
        spike_times=spikes,
        spike_rows=rows.astype(np.int32),
        times=times,
        values=np.zeros((len(times), 2)),
        stretches=np.array([[times[0], times[-1]]]),
    )
    samples = np.arange(len(times))
    return adapter().predict(labels, samples, session.unit_embedding, session.session_embedding)


def at_mean(n_units: int) -> Tables:
    """Where units begin that nothing is known about."""
    return Tables(
        units=np.tile(prior().unit_mean, (n_units, 1)), session=prior().session_mean.copy()
    )


def search(
    given: Lesson,
    settings: FitSettings = QUICK,
    *,
    seed: int = 0,
    start: Tables | None = None,
    all_folds: bool = False,
) -> Search:
    """One that has not begun."""
    begin = start or at_mean(len(given.unit_ids))
    labels = given.labels()
    return Search(adapter(), prior(), labels, settings, begin, seed, all_folds=all_folds)


def run(searching: Search, *, max_seconds: float = 1e9) -> Search:
    """Search to the end, and say nothing."""
    searching.run(max_seconds, threading.Event(), quiet)
    return searching


def quiet(_: Progress) -> None:
    """No progress."""


MINUTE_S = 60.0
THOROUGH = dataclasses.replace(LEARN, steps=80)


@functools.cache
def fitted() -> CalibratedSession:
    """Six new units, learned from a minute of labels. Read only."""
    return lesson(duration_s=MINUTE_S).calibrator(THOROUGH).fit()


@functools.cache
def misled() -> CalibratedSession:
    """Fitted to the movements of another minute. Read only."""
    return wrong_labels().calibrator(QUICK).fit()


def wrong_labels() -> Lesson:
    return dataclasses.replace(lesson(), values=lesson(5).values)


def linear(given: Lesson, *, seed: int = 0, size: float = 1.0) -> Lesson:
    """The same spikes with another behaviour: a weighted sum of their counts in half a second."""
    n_units = len(given.unit_ids)
    counts = bin_counts(
        given.spike_times, given.spike_rows, n_units, given.times, before=1, bin_s=0.5
    )[..., 0]
    weights = np.random.default_rng(seed).normal(0, size / np.sqrt(n_units), (n_units, 2))
    return dataclasses.replace(given, values=(counts - counts.mean(0)) @ weights)


def mixed(size: float = 0.8, *, duration_s: float = 40.0) -> Lesson:
    """Behaviour of which the truth says one part, and a linear filter the other, and more."""
    given = lesson(duration_s=duration_s)
    return dataclasses.replace(given, values=given.values + linear(given, size=size).values)


def bits(session: Session) -> bytes:
    return session.unit_embedding.tobytes() + session.session_embedding.tobytes()


def streamed(session: Session | Path, given: Lesson) -> Float64:
    """What a decoder makes of a lesson's spikes at each of its samples."""
    decoder, pushed, out = Decoder.open(TINY, session), 0, []
    rows = decoder.rows(given.unit_ids)[given.spike_rows]
    for t in given.times:
        heard = int(np.searchsorted(given.spike_times, t))
        decoder.push(given.spike_times[pushed:heard], rows[pushed:heard])
        pushed = heard
        out.append(decoder.decode(float(t)).value)
    return np.array(out)


def r2_of(session: Session | Path, given: Lesson) -> float:
    whole = given.times >= T
    return float(r2_per_dim(given.values[whole], streamed(session, given)[whole]).mean())


def of_another_core() -> Session:
    truth = lesson().truth
    return dataclasses.replace(truth, header=dataclasses.replace(truth.header, core_hash="0" * 64))


def beside_spread(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes but for the one on the spread of the teacher's behaviour, which is small on purpose."""
    return tuple(note for note in notes if "standard deviation" not in note)
