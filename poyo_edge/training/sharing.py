"""Embeddings that units of several sessions share, and how they become rows of the tables.

``unit_emb[unit] = shared[key of the unit] + statistics[unit] @ weight + own[unit]``, and
``session_emb[session] = shared[subject] + own[session]``. The model has the sums alone: gradients
of its tables are passed on to the parts, and checkpoints keep their layout.

Windows that are put together of like pieces (``held_share``) are of another kind than recordings,
whose movements end: what is right for the ones is wrong for the others. They are decoded by a twin
of their session, whose row is that of the session plus one part that all twins share. Both learn
from one trunk, and recordings are decoded about as before (docs/training.md). Finished
checkpoints are without twins; the part is kept beside the others.

Legend: U rows of the unit table, S rows of the session table, C keys, F statistics, D model dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poyo_edge.model import POYO
from poyo_edge.training.recipe import Recipe
from poyo_edge.training.sources import TrainingSession
from poyo_edge.unit_guess import GUESS_HELD, NAMES, Heard, UnitGuess, electrode_of, scaled

_TWIN = "\0held"
_SD_FLOOR = 0.02
"""Statistics that hardly differ in training say little of a session where they do."""


def electrode_key(subject: str, unit_id: str) -> str:
    """What units at one electrode of one animal have in common: "SUBJECT/ELECTRODE"."""
    return f"{subject}/{electrode_of(unit_id)}"


def twin_of(session_id: str) -> str:
    """The word of a session's twin in the vocabulary: no session is called so."""
    return f"{session_id}{_TWIN}"


class SharedTables:
    """The parts of the two tables; see the module.

    Args:
        model: whose tables are written.
        sessions: of the run.
        guess: whose scale of the statistics to keep.
    """

    def __init__(
        self,
        model: POYO,
        sessions: Sequence[TrainingSession],
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
        raw_UF = np.concatenate([
            _heard(session).statistics(len(session.recording.unit_ids)) for session in sessions
        ])  # fmt: skip
        self.mean, self.sd = raw_UF.mean(0), np.maximum(raw_UF.std(0), _SD_FLOOR)
        if guess is not None:
            self.mean, self.sd = guess.mean.astype(np.float64), guess.sd.astype(np.float64)
        self._statistics = torch.from_numpy(scaled(raw_UF, self.mean, self.sd))
        of_subject = [self.subjects.index(subject) for subject in subjects]
        self._session_keys = torch.tensor(of_subject)
        owners = np.repeat(np.arange(len(sessions)), [len(s.recording.unit_ids) for s in sessions])
        self._owner = torch.from_numpy(owners)
        dim, init_std = units.embedding_dim, units.init_std
        self.parts: dict[str, nn.Parameter] = {
            "shared": nn.Parameter(torch.randn(len(self.keys), dim) * init_std),
            "weight": nn.Parameter(torch.zeros(len(NAMES), dim)),
            "own": nn.Parameter(torch.zeros(len(named), dim)),
            "session_shared": nn.Parameter(torch.randn(len(self.subjects), dim) * init_std),
            "session_own": nn.Parameter(torch.zeros(len(sessions), dim)),
        }
        if twin_of(sessions[0].session_id) in model.session_emb.vocab:  # behind all sessions
            self.parts[GUESS_HELD] = nn.Parameter(torch.randn(1, dim) * init_std)
        self._kept = torch.ones(len(sessions), 1)
        """Which sessions have what is their own in this step."""

    def fold(self) -> tuple[Tensor, Tensor]:
        """The unit table (U, D) and the session table (S, D; twins behind), without row 0."""
        parts = self.parts
        units = parts["shared"][self._key_rows] + self._statistics @ parts["weight"]
        units = units + parts["own"] * self._kept[self._owner]
        sessions = parts["session_shared"][self._session_keys] + parts["session_own"] * self._kept
        if GUESS_HELD in parts:
            sessions = torch.cat([sessions, sessions + parts[GUESS_HELD]])
        return units, sessions

    def vary(self, part: float) -> None:
        """Let a random part of the sessions go without what is their own, until told again."""
        self._kept = (torch.rand_like(self._kept) >= part).float()

    def settle(self) -> None:
        """Give all sessions what is their own."""
        self._kept = torch.ones_like(self._kept)

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
        if GUESS_HELD in self.parts and guess.session_held is not None:
            self.parts[GUESS_HELD].copy_(torch.from_numpy(guess.session_held))
        units, of_sessions = self.fold()
        self.parts["own"].copy_(model.unit_emb.weight[1:] - units)
        own = model.session_emb.weight[1:] - of_sessions
        self.parts["session_own"].copy_(own[: len(self._kept)])

    def state(self, *, whole: bool) -> dict[str, Any]:
        """Plain values for a checkpoint; ``whole`` adds what belongs to single rows."""
        names = [name for name in self.parts if whole or not name.endswith("own")]
        return {
            "by": "electrode",
            "keys": list(self.keys),
            "subjects": list(self.subjects),
            "statistics": list(NAMES),
            "mean": torch.from_numpy(self.mean.astype(np.float32)),
            "sd": torch.from_numpy(self.sd.astype(np.float32)),
            **{name: self.parts[name].detach().clone() for name in names},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the parts of an interrupted run."""
        for name, part in self.parts.items():
            part.copy_(state[name])

    def without_twins(self, weights: dict[str, Any], prefix: str) -> None:
        """Take the twins' rows and words out of a checkpoint's ``session_emb``."""
        words, rows = weights[f"{prefix}vocab"], weights[f"{prefix}weight"]
        kept = type(words)((word, row) for word, row in words.items() if not word.endswith(_TWIN))
        weights[f"{prefix}vocab"], weights[f"{prefix}weight"] = kept, rows[: len(kept)].clone()


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
    tables = SharedTables(model, sessions, guess)
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
        statistics = guess.statistics_of(_heard(session), len(ids))
        rows = model.unit_emb.rows(ids)
        model.unit_emb.weight[rows] = torch.from_numpy(guess.units(ids, subject, statistics))
        row = model.session_emb.rows([session.session_id])
        model.session_emb.weight[row] = torch.from_numpy(guess.session(subject))


def _heard(session: TrainingSession) -> Heard:
    intervals, recording = session.intervals, session.recording
    cut = recording.cut(float(intervals[:, 0].min()), float(intervals[:, 1].max()))
    return Heard(cut.spike_times, cut.spike_units, intervals)
