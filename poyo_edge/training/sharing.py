"""Embeddings that units of several sessions share, and how they become rows of the tables.

``unit_emb[unit] = shared[key of the unit] + statistics[unit] @ weight + own[unit]``, and
``session_emb[session] = shared[subject] + own[session]``. The model has the sums alone: gradients
of its tables are passed on to the parts, and checkpoints keep their layout.

Statistics of random stretches of a session take turns, so that what is learned of them holds for
the minute or two that a new session has.

Legend: U rows of the unit table, S rows of the session table, C keys, F statistics, D model dim,
V variants of the statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poyo_edge.arrays import Bool, Float64
from poyo_edge.model import POYO
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.sources import TrainingSession
from poyo_edge.unit_guess import (
    Heard,
    Smoothed,
    UnitGuess,
    all_statistics,
    electrode_of,
    fit_axes,
    scaled,
    statistic_names,
)

_PARTS = ("shared", "weight", "own", "session_shared", "session_own")
_SD_FLOOR = 0.02
"""Statistics that hardly differ in training say little of a session where they do."""
_STRETCHES, _STRETCH_S = 6, (30.0, 400.0)
"""Random stretches of a session, and how long they are."""


def electrode_key(subject: str, unit_id: str) -> str:
    """What units at one electrode of one animal have in common: "SUBJECT/ELECTRODE"."""
    return f"{subject}/{electrode_of(unit_id)}"


class SharedTables:
    """The parts of the two tables; see the module.

    Args:
        model: whose tables are written.
        sessions: of the run.
        seed: of the stretches that statistics are taken from.
        guess: whose scale of the statistics to keep.
    """

    def __init__(
        self,
        model: POYO,
        sessions: Sequence[TrainingSession],
        seed: int = 0,
        guess: UnitGuess | None = None,
    ) -> None:
        units, subjects = model.unit_emb, [s.recording.subject_id for s in sessions]
        named = [
            (unit, electrode_key(subject, unit))
            for session, subject in zip(sessions, subjects, strict=True)
            for unit in session.recording.unit_ids
        ]
        self.keys = list(dict.fromkeys(key for _, key in named))
        self.subjects = list(dict.fromkeys(subjects))
        place = {key: i for i, key in enumerate(self.keys)}
        self._key_rows = torch.tensor([place[key] for _, key in named])
        self.axes = _axes(sessions, subjects, place)
        variants = list[Float64]()
        for i, (session, subject) in enumerate(zip(sessions, subjects, strict=True)):
            rows = [place[electrode_key(subject, unit)] for unit in session.recording.unit_ids]
            rng = np.random.default_rng([seed, i])
            variants.append(_variants(session, self.axes[rows], rng))
        raw_VUF = np.concatenate(variants, axis=1)
        self.names = statistic_names(self.axes.shape[-1])
        self.mean = np.nan_to_num(_over(np.nanmean, raw_VUF))
        self.sd = np.maximum(np.nan_to_num(_over(np.nanstd, raw_VUF)), _SD_FLOOR)
        if guess is not None:
            self.mean, self.sd = guess.mean.astype(np.float64), guess.sd.astype(np.float64)
        scaled_VUF = [scaled(one, self.mean, self.sd) for one in raw_VUF]
        self._statistics = torch.from_numpy(np.stack(scaled_VUF))
        of_subject = [self.subjects.index(subject) for subject in subjects]
        self._session_keys = torch.tensor(of_subject)
        owners = np.repeat(np.arange(len(sessions)), [len(s.recording.unit_ids) for s in sessions])
        self._owner = torch.from_numpy(owners)
        dim, init_std = units.embedding_dim, units.init_std
        self.parts: dict[str, nn.Parameter] = {
            "shared": nn.Parameter(torch.randn(len(self.keys), dim) * init_std),
            "weight": nn.Parameter(torch.zeros(len(self.names), dim)),
            "own": nn.Parameter(torch.zeros(len(named), dim)),
            "session_shared": nn.Parameter(torch.randn(len(self.subjects), dim) * init_std),
            "session_own": nn.Parameter(torch.zeros(len(sessions), dim)),
        }
        self._kept = torch.ones(len(sessions), 1)
        """Which sessions have what is their own in this step."""
        self._variant = torch.zeros(len(sessions), dtype=torch.int64)
        """Whose statistics each session has in this step; the first are those of all of it."""

    def fold(self) -> tuple[Tensor, Tensor]:
        """The unit table (U, D) and the session table (S, D), without their row 0."""
        parts = self.parts
        at = torch.arange(len(self._owner))
        statistics = self._statistics[self._variant[self._owner], at]
        units = parts["shared"][self._key_rows] + statistics @ parts["weight"]
        units = units + parts["own"] * self._kept[self._owner]
        sessions = parts["session_shared"][self._session_keys]
        return units, sessions + parts["session_own"] * self._kept

    def vary(self, part: float) -> None:
        """Let a random part of the sessions go without what is their own, and others' stretches
        of activity speak for them, until told again.
        """
        self._kept = (torch.rand_like(self._kept) >= part).float()
        self._variant = torch.randint(len(self._statistics), self._variant.shape)

    def settle(self) -> None:
        """Give all sessions what is their own, and the statistics of all that was heard."""
        self._kept = torch.ones_like(self._kept)
        self._variant = torch.zeros_like(self._variant)

    @torch.no_grad()
    def write(self, model: POYO) -> None:
        """Make the sums the rows of the model's tables."""
        units, sessions = self.fold()
        model.unit_emb.weight[1:] = units
        model.session_emb.weight[1:] = sessions

    def take_gradients(self, model: POYO) -> None:
        """Pass the gradients of the model's tables on to the parts."""
        tables = (model.unit_emb.weight, model.session_emb.weight)
        grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in tables]
        torch.autograd.backward(self.fold(), [grad[1:] for grad in grads])
        for table in tables:
            table.grad = None

    @torch.no_grad()
    def begin_with(self, guess: UnitGuess, model: POYO) -> None:
        """Take the parts of a checkpoint; what its rows have beside them is their own."""
        known = {key: row for row, key in enumerate(guess.keys)}
        everything = list(range(len(known)))
        shared = [guess.shared[[known[k]] if k in known else everything].mean(0) for k in self.keys]
        self.parts["shared"].copy_(torch.from_numpy(np.stack(shared)))
        self.parts["weight"].copy_(torch.from_numpy(guess.weight))
        sessions = [guess.session(subject) for subject in self.subjects]
        self.parts["session_shared"].copy_(torch.from_numpy(np.stack(sessions)))
        units, of_sessions = self.fold()
        self.parts["own"].copy_(model.unit_emb.weight[1:] - units)
        self.parts["session_own"].copy_(model.session_emb.weight[1:] - of_sessions)

    def state(self, *, whole: bool) -> dict[str, Any]:
        """Plain values for a checkpoint; ``whole`` adds what belongs to single rows."""
        names = _PARTS if whole else ("shared", "weight", "session_shared")
        return {
            "by": "electrode",
            "keys": list(self.keys),
            "subjects": list(self.subjects),
            "statistics": list(self.names),
            "mean": torch.from_numpy(self.mean.astype(np.float32)),
            "sd": torch.from_numpy(self.sd.astype(np.float32)),
            "axes": torch.from_numpy(self.axes.astype(np.float32)),
            **{name: self.parts[name].detach().clone() for name in names},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the parts of an interrupted run."""
        for name in _PARTS:
            self.parts[name].copy_(state[name])


def shared_tables(
    model: POYO,
    sessions: Sequence[TrainingSession],
    recipe: Recipe,
    guess: UnitGuess | None = None,
) -> SharedTables | None:
    """The parts that a recipe wants shared, in accord with the model; None where it wants none.

    Args:
        model: whose tables become the sums of the parts.
        sessions: of the run.
        recipe: says what is shared.
        guess: parts to begin with; the model's rows then stay what they are.
    """
    if not recipe.share_units:
        return None
    tables = SharedTables(model, sessions, recipe.seed, guess)
    if guess is not None:
        tables.begin_with(guess, model)
    tables.write(model)
    return tables


@torch.no_grad()
def write_guess(model: POYO, sessions: Sequence[TrainingSession], guess: UnitGuess) -> None:
    """Make what is guessed of the sessions the rows of the model's tables."""
    for session in sessions:
        recording = session.recording
        ids, subject = recording.unit_ids, recording.subject_id
        statistics = guess.statistics_of(ids, subject, _heard(session))
        rows = model.unit_emb.rows(ids)
        model.unit_emb.weight[rows] = torch.from_numpy(guess.units(ids, subject, statistics))
        row = model.session_emb.rows([session.session_id])
        model.session_emb.weight[row] = torch.from_numpy(guess.session(subject))


def _axes(
    sessions: Sequence[TrainingSession], subjects: Sequence[str], place: Mapping[str, int]
) -> Float64:
    """The linear decoder of each animal, (C, W, O)."""
    found: dict[str, Float64] = {}
    for subject in dict.fromkeys(subjects):
        own = [s for s, of in zip(sessions, subjects, strict=True) if of == subject]
        found[subject] = fit_axes(_taps(own, subject, place))
    whole = sum(found.values())
    return np.ascontiguousarray(np.asarray(whole).transpose(1, 0, 2))


def _taps(
    sessions: Sequence[TrainingSession], subject: str, place: Mapping[str, int]
) -> Iterator[tuple[Float64, Float64, Bool]]:
    """What ``fit_axes`` takes of each session, its units put where their keys are."""
    for session in sessions:
        heard, (times, values) = _heard(session), _behavior(session)
        smoothed = Smoothed(*heard[:2], len(session.recording.unit_ids), heard.intervals)
        taps = smoothed.taps()
        columns = [place[electrode_key(subject, unit)] for unit in session.recording.unit_ids]
        placed = np.zeros((*taps.shape[:2], len(place)))
        placed[:, :, columns] = taps
        yield placed, *smoothed.behavior(times, values)


def _variants(session: TrainingSession, axes_UWO: Float64, rng: np.random.Generator) -> Float64:
    """Statistics of a session, and of random stretches with and without labels, (V, U, F)."""
    heard, behavior = _heard(session), _behavior(session)
    axes = axes_UWO.transpose(1, 0, 2)
    found = [all_statistics(heard, axes, None)]
    for _ in range(_STRETCHES):
        seconds = float(np.exp(rng.uniform(*np.log(_STRETCH_S))))
        some = heard._replace(intervals=_stretch(heard.intervals, seconds, rng))
        found += [all_statistics(some, axes, of) for of in (None, behavior)]
    return np.stack(found)


def _stretch(intervals: Float64, seconds: float, rng: np.random.Generator) -> Float64:
    """So many seconds of intervals (K, 2) from a random moment on, or all there are."""
    lengths = intervals[:, 1] - intervals[:, 0]
    begin = rng.uniform(0.0, max(0.0, float(lengths.sum()) - seconds))
    before = np.cumsum(lengths) - lengths
    start = intervals[:, 0] + np.clip(begin - before, 0.0, lengths)
    end = intervals[:, 0] + np.clip(begin + seconds - before, 0.0, lengths)
    return np.stack([start, end], axis=-1)[end > start]


def _heard(session: TrainingSession) -> Heard:
    intervals, recording = session.intervals, session.recording
    cut = recording.cut(float(intervals[:, 0].min()), float(intervals[:, 1].max()))
    return Heard(cut.spike_times, cut.spike_units, intervals)


def _behavior(session: TrainingSession) -> tuple[Float64, Float64]:
    """Times and values, in the model's scale."""
    times, values = session.recording.samples(session.intervals)
    scale, offset = session.scale.arrays(values.shape[1])
    return times, (values - offset) / scale


def _over(what: Any, values_VUF: Float64) -> Float64:
    """A statistic over variants and units; NaN where all are."""
    flat = values_VUF.reshape(-1, values_VUF.shape[-1])
    known = ~np.isnan(flat).all(0)
    found = np.full(flat.shape[1], np.nan)
    found[known] = what(flat[:, known], axis=0)
    return found
